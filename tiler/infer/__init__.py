"""Infer: Batch -> Detections."""
