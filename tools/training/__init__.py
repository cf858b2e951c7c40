"""Parts of `tools/train_detector.py`: pictures, augmentation, network, losses, scores and export.

Nothing in `tiler` imports this package; it needs PyTorch, which tiler itself does not.
"""
