"""Compose: what each source shows at a tick, drawn into the mosaic."""
