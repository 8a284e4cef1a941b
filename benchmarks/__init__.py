"""Measurements, run from the repository's root: `python -m benchmarks.compare`, `python -m benchmarks.long_video`."""
