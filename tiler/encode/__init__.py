"""Encode: Mosaic -> Packet, exactly one encoder session whatever the number of streams."""
