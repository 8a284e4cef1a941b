"""Messages -> chat template -> placeholders -> token ids. No torch, no media: only words and numbers."""

from smolvlm.prompt.messages import ImagePart, Message, TextPart, TokenPart, VideoPart, parse_messages
from smolvlm.prompt.segments import IdSegment, Segment, TextSegment
from smolvlm.prompt.style import PROMPT_STYLES, PromptStyle, apply_style
from smolvlm.prompt.template import ChatTemplate
from smolvlm.prompt.tokenizer import PromptTokenizer

__all__ = [
    "PROMPT_STYLES",
    "ChatTemplate",
    "IdSegment",
    "ImagePart",
    "Message",
    "PromptStyle",
    "PromptTokenizer",
    "Segment",
    "TextPart",
    "TextSegment",
    "TokenPart",
    "VideoPart",
    "apply_style",
    "parse_messages",
]
