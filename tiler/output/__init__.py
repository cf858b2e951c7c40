"""Output: Packet -> file; and tracks -> text."""
