"""Videos: an index of what happens when, search in it, and what other programs read of it."""
