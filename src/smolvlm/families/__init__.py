"""Which checkpoints are accepted, how their prompts are worded, which tensors they hold and how their output is read.

A family is data: `config` checks files by it, `prompt` words by it, `checkpoint` and the engines take tensors by it.
"""

from __future__ import annotations

from collections.abc import Collection

from smolvlm.families.docling import DOCLING
from smolvlm.families.family import Family
from smolvlm.families.grammar import PromptGrammar, VideoWording
from smolvlm.families.idefics3 import IDEFICS3
from smolvlm.families.smolvlm import SMOLVLM

__all__ = ["DOCLING", "FAMILIES", "IDEFICS3", "MODEL_TYPES", "SMOLVLM", "Family", "PromptGrammar", "VideoWording", "family_of"]

# Of several families with one `model_type`, the one with the most marks comes first.
FAMILIES = (SMOLVLM, DOCLING, IDEFICS3)
MODEL_TYPES = tuple(dict.fromkeys(kind for family in FAMILIES for kind in family.model_types))


def family_of(model_type: str, added_tokens: Collection[str] = ()) -> Family:
    """The family of a checkpoint by `config.json`'s `model_type` and the added tokens of its tokenizer.

    `model_type` is one of MODEL_TYPES; without tokens, it is the family that needs none.
    """
    return next(f for f in FAMILIES if model_type in f.model_types and f.is_marked_in(added_tokens))
