"""Cards: which devices may be written, and writing them."""
