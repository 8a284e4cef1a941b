"""Decoding in processes that may do nothing else, and may die of it."""
