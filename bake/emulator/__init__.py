"""Baked cards in emulated machines, on one link of their own: to see them boot before any card is written."""
