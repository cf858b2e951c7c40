"""Observe: what the run measures about itself, and how it says so."""
