"""Procedural pictures, documents and clips with exact ground truth: training data, tests and the built-in benchmark."""

from smolvlm.synth.generate import GENERATORS, VERSION, generate
from smolvlm.synth.sample import FrameTruth, ItemTruth, Question, Sample, Split
from smolvlm.synth.world import SMALL, WIDE, WORLDS, World

__all__ = [
    "GENERATORS",
    "SMALL",
    "VERSION",
    "WIDE",
    "WORLDS",
    "FrameTruth",
    "ItemTruth",
    "Question",
    "Sample",
    "Split",
    "World",
    "generate",
]
