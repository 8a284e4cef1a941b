"""SmolVLM2 from checkpoint to answer: small vision-language models for photos and videos.

    import smolvlm

    model = smolvlm.load("256m")
    print(model.ask("clip.mp4", "What happens in this video?"))

Importing the package loads no model, no torch and no web framework; what needs an extra says so when it is used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Loaded on first use: `import smolvlm` stays quick, and `smolvlm.errors` can be imported before anything heavy.
_HOMES = {
    "load": "vlm",
    "SmolVLM": "vlm",
    "Session": "session",
    "Answer": "answers",
    "Choice": "answers",
    "Encoded": "encoded",
    "GenerationParams": "generation",
    "MediaOptions": "media",
    "SourcePolicy": "media",
    "Video": "media",
    "SmolVLMError": "errors",
    "AutoProcessor": "compat",
    "AutoModelForImageTextToText": "compat",
    "AutoModelForVision2Seq": "compat",
    "AutoTokenizer": "compat",
    "SmolVLMForConditionalGeneration": "compat",
    "SmolVLMProcessor": "compat",
    "Idefics3ForConditionalGeneration": "compat",
    "Idefics3Processor": "compat",
}

__all__ = [
    "Answer",
    "AutoModelForImageTextToText",
    "AutoModelForVision2Seq",
    "AutoProcessor",
    "AutoTokenizer",
    "Choice",
    "Encoded",
    "GenerationParams",
    "Idefics3ForConditionalGeneration",
    "Idefics3Processor",
    "MediaOptions",
    "Session",
    "SmolVLM",
    "SmolVLMError",
    "SmolVLMForConditionalGeneration",
    "SmolVLMProcessor",
    "SourcePolicy",
    "Video",
    "__version__",
    "load",
]

if TYPE_CHECKING:
    from smolvlm.answers import Answer, Choice
    from smolvlm.compat import (
        AutoModelForImageTextToText,
        AutoModelForVision2Seq,
        AutoProcessor,
        AutoTokenizer,
        Idefics3ForConditionalGeneration,
        Idefics3Processor,
        SmolVLMForConditionalGeneration,
        SmolVLMProcessor,
    )
    from smolvlm.encoded import Encoded
    from smolvlm.errors import SmolVLMError
    from smolvlm.generation import GenerationParams
    from smolvlm.media import MediaOptions, SourcePolicy, Video
    from smolvlm.session import Session
    from smolvlm.vlm import SmolVLM, load


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'smolvlm' has no attribute {name!r}")
    return getattr(importlib.import_module(f"smolvlm.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
