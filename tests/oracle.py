"""`transformers` as the oracle, importable on a machine whose torch has no CUDA.

`transformers` takes its video processor's transforms from torchvision. The registry's torchvision wheel is a CUDA build:
beside a CPU-only torch its compiled operators are absent and registering their shapes fails, though only the pure Python
transforms are used here. So the registration of shapes for `torchvision::` operators is skipped while it is imported.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch


def _import_torchvision() -> None:
    register_fake = torch.library.register_fake

    def without_torchvision(op: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(op, str) and op.startswith("torchvision::"):
            identity: Callable[[Any], Any] = lambda function: function  # noqa: E731
            return identity
        return register_fake(op, *args, **kwargs)

    torch.library.register_fake = without_torchvision
    try:
        import torchvision  # noqa: F401
    finally:
        torch.library.register_fake = register_fake


_import_torchvision()

import transformers  # noqa: E402

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()


def fetch_videos_by_pyav(videos: Any, sample_indices_fn: Any = None) -> Any:
    """The reference's own PyAV reader, for `processor.video_processor.fetch_videos`: its default, torchcodec, is a CUDA build."""
    if isinstance(videos, list):
        return list(zip(*[fetch_videos_by_pyav(video, sample_indices_fn) for video in videos], strict=True))
    return transformers.video_utils.load_video(videos, backend="pyav", sample_indices_fn=sample_indices_fn)
