"""The calls that users of `transformers` already have, on our engine: change the import line, keep the rest.

    from smolvlm import AutoModelForImageTextToText, AutoProcessor

What comes back is what `transformers` 5 gives: the same keys, shapes, ids and greedy answers. Where the two differ on
purpose: control tokens typed inside `messages` stay plain text; a message whose content is a plain string is not lost;
right-padded prompts are continued from their last real token; pictures and videos may be mixed in one batch; files
given as `videos=` are sampled; an argument that changes nothing is named in the log, an unknown one is a ParamsError.
"""

from smolvlm.compat.features import BatchFeature
from smolvlm.compat.model import AutoModelForImageTextToText, ImageTextToTextModel
from smolvlm.compat.processor import AutoProcessor, ChatProcessor
from smolvlm.compat.tokenizer import CompatTokenizer

__all__ = [
    "AutoModelForImageTextToText",
    "AutoProcessor",
    "BatchFeature",
    "ChatProcessor",
    "CompatTokenizer",
    "ImageTextToTextModel",
]
