"""The sound of one source, beside the pictures: source -> Sound, which hands it to the packets of the mosaic.

It has a thread, a demuxer and a codec of its own, and is no stage: the run neither waits for it (but for a
file that is slow to read) nor ends when it fails.
"""
