"""The numbers that runs have unless told otherwise."""

from __future__ import annotations

ITEMS = 250  # a task: 95 % intervals of at most +- 6 points
BATCH_SIZE = 16
MAX_NEW_TOKENS = 96  # a caption of four things takes about forty
