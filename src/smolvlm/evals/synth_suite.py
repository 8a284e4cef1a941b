"""The built-in benchmark as a suite: pictures as pictures, clips as lossless video files at the samples' own times."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from PIL import Image

from smolvlm.evals.suite import Case, Suite, Task
from smolvlm.synth.benchmark import TASKS, items
from smolvlm.synth.generate import VERSION
from smolvlm.synth.sample import Sample
from smolvlm.synth.video_file import video_bytes
from smolvlm.synth.world import SMALL, World


def synth_suite(world: World = SMALL) -> Suite:
    """The held-out tasks of `smolvlm.synth.benchmark`, drawn in `world`."""

    def cases(task: str, count: int, first: int) -> Iterator[Case]:
        for item in items(task, count, world):
            if item.number >= first:  # drawing what is skipped keeps the others the same
                yield Case(task, item.number, media_of(item.sample), item.question.text, item.question.answer)

    tasks = {name: Task(name, spec.description, spec.is_caption) for name, spec in TASKS.items()}
    settings = {"world": world.name, "side_px": world.side_px}
    return Suite("synth", VERSION, tasks, cases, lambda _task, count: count, settings)


def media_of(sample: Sample) -> tuple[Mapping[str, Any], ...]:
    """The sample's frames as parts of a message."""
    if sample.kind == "video":
        return ({"type": "video", "bytes": video_bytes(sample)},)
    return tuple({"type": "image", "image": Image.fromarray(frame)} for frame in sample.frames)
