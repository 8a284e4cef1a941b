"""From logits to text: sampling, stopping, loop guard, grammars and the decode loop. No prompt logic and no torch."""

from smolvlm.generation.grammar import Grammar, GrammarCompiler
from smolvlm.generation.loop import FinishReason, Generated, LiveAnswer, Request, TokenEvent, advance, collect, generate
from smolvlm.generation.loop_guard import Loop, LoopGuard
from smolvlm.generation.sampler import Sampled, Sampler
from smolvlm.generation.schema import normalize_schema, parse_as
from smolvlm.generation.sentence_guard import SentenceGuard
from smolvlm.generation.stopping import Decode, TextStream
from smolvlm.options.generation import GenerationParams

__all__ = [
    "Decode",
    "FinishReason",
    "Generated",
    "GenerationParams",
    "Grammar",
    "GrammarCompiler",
    "LiveAnswer",
    "Loop",
    "LoopGuard",
    "Request",
    "Sampled",
    "Sampler",
    "SentenceGuard",
    "TextStream",
    "TokenEvent",
    "advance",
    "collect",
    "generate",
    "normalize_schema",
    "parse_as",
]
