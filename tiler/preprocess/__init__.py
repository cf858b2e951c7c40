"""Preprocess: Frame[N] -> Batch, letterboxed, colour-converted and normalised."""
