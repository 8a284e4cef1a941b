"""What a family of checkpoints is: which files it accepts, how its prompts are worded, and what it writes."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from smolvlm.families.grammar import PromptGrammar

# The pattern before GPT-4's byte-level BPE (cl100k), which Llama 3 and Granite share.
GPT4_SPLIT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


@dataclass(frozen=True)
class Family:
    """One family. All of them share one graph (`graph.py`, `tensors.py`); what differs between them stands here.

    model_types, text_types, vision_types: the `model_type` of `config.json` and of its two sections. A section without
    one is the first of the list. class_prefix: of the reference's classes. image_processors: what
    `preprocessor_config.json` may name. marks: added tokens that tell a family from another of the same `model_type`.
    writes_markup: its special tokens, those of the prompt apart, are part of an answer's text.
    split_patterns: regular expressions that its tokenizers may split by. surplus_tokens: added tokens that published
    files have beyond the model's vocabulary.
    """

    name: str
    model_types: tuple[str, ...]
    class_prefix: str
    vision_types: tuple[str, ...]
    text_types: tuple[str, ...] = ("llama",)
    image_processors: tuple[str, ...] = ("SmolVLMImageProcessor", "Idefics3ImageProcessor")
    prompt: PromptGrammar = field(default_factory=PromptGrammar)
    marks: tuple[str, ...] = ()
    writes_markup: bool = False
    split_patterns: tuple[str, ...] = ()
    surplus_tokens: tuple[str, ...] = ()

    def is_marked_in(self, added_tokens: Collection[str]) -> bool:
        """Whether a tokenizer has all the tokens that tell this family from others."""
        return all(mark in added_tokens for mark in self.marks)

    def is_markup(self, token: str) -> bool:
        """Whether an added token is part of what this family writes, as `<otsl>` of a document model is."""
        return self.writes_markup and not self.prompt.is_control(token)
