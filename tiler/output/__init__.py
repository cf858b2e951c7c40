"""Output: Packet -> files, servers, players and pipes; and tracks -> text."""
