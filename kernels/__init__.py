"""Kernels: one operation = one file per device, same signature, the maths written down once."""
