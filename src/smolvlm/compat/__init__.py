"""The calls that users of `transformers` already have, on our engine: change the import line, keep the rest.

    from smolvlm import AutoModelForImageTextToText, AutoProcessor

What comes back is what `transformers` 5 gives: the same keys, shapes, ids and greedy answers. Where the two differ on
purpose: control tokens typed inside `messages` stay plain text; a message whose content is a plain string is not lost;
right-padded prompts are continued from their last real token; pictures and videos may be mixed in one batch; files
given as `videos=` are sampled; an argument that changes nothing is named in the log, an unknown one is a ParamsError.
"""

import importlib
from typing import TYPE_CHECKING, Any

from smolvlm.compat.auto import AutoModelForImageTextToText
from smolvlm.compat.features import BatchFeature
from smolvlm.compat.processor import AutoProcessor, ChatProcessor
from smolvlm.compat.tokenizer import AutoTokenizer, CompatTokenizer

if TYPE_CHECKING:
    from smolvlm.compat.model import ImageTextToTextModel

# Names that the reference's loaders had or have: older versions, and the classes that the loaders choose.
AutoModelForVision2Seq = SmolVLMForConditionalGeneration = Idefics3ForConditionalGeneration = AutoModelForImageTextToText
SmolVLMProcessor = Idefics3Processor = AutoProcessor

__all__ = [
    "AutoModelForImageTextToText",
    "AutoModelForVision2Seq",
    "AutoProcessor",
    "AutoTokenizer",
    "BatchFeature",
    "ChatProcessor",
    "CompatTokenizer",
    "Idefics3ForConditionalGeneration",
    "Idefics3Processor",
    "ImageTextToTextModel",
    "SmolVLMForConditionalGeneration",
    "SmolVLMProcessor",
]


def __getattr__(name: str) -> Any:
    if name == "ImageTextToTextModel":  # a PyTorch module: importing it imports torch
        return importlib.import_module("smolvlm.compat.model").ImageTextToTextModel
    raise AttributeError(f"module 'smolvlm.compat' has no attribute {name!r}")
