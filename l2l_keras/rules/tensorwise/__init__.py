"""Rules that decide once per tensor how to combine a few directions."""
