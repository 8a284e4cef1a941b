"""The first generation (`model_type: idefics3`): SmolVLM-256M, 500M and 2.2B-Instruct, and models of Idefics3-8B's layout.

The graph is SmolVLM2's; the reference's processor has no videos. Source: arXiv 2408.12637 and the published files.
"""

from __future__ import annotations

from smolvlm.families.family import GPT4_SPLIT, Family

IDEFICS3 = Family(
    name="idefics3",
    model_types=("idefics3",),
    class_prefix="Idefics3",
    vision_types=("idefics3_vision", "idefics3", "smolvlm_vision", "smolvlm"),  # `idefics3`: the first published files
    split_patterns=(GPT4_SPLIT,),  # Idefics3-8B has Llama 3's tokenizer
)
