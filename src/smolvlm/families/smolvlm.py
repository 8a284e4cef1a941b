"""SmolVLM2 (`model_type: smolvlm`): pictures, several of them, and videos. Source: arXiv 2504.05299 and the published files."""

from __future__ import annotations

from smolvlm.families.family import Family
from smolvlm.families.grammar import VIDEO_TEMPLATE, PromptGrammar, VideoWording

SMOLVLM = Family(
    name="smolvlm",
    model_types=("smolvlm",),
    class_prefix="SmolVLM",
    vision_types=("smolvlm_vision", "smolvlm", "idefics3_vision", "idefics3"),
    prompt=PromptGrammar(
        video=VideoWording(
            template=VIDEO_TEMPLATE,
            intro="You are provided the following series of {count} frames from a {duration} [H:MM:SS] video.\n",
            frame="\nFrame from {time}:",
            outro="\n\n",
        )
    ),
)
