"""Track: who is where, in one stream, over time."""
