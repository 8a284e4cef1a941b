"""One worker: it loads the model once, then turns parts of the plan into files."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

from smolvlm.checkpoint.identity import fingerprint_of
from smolvlm.hub import resolve
from smolvlm.scale.asking import Asker
from smolvlm.scale.attempts import Attempts
from smolvlm.scale.errors import BatchError
from smolvlm.scale.folder import RunFolder
from smolvlm.scale.plan import Plan
from smolvlm.scale.settings import ModelSpec
from smolvlm.vlm import SmolVLM, load


@dataclass(frozen=True)
class PartReport:
    """A part that is in place. `seconds` on the clock; `fresh` is False when somebody had done it before."""

    part: int
    rows: int
    errors: int
    seconds: float
    fresh: bool = True

    def to_dict(self) -> dict[str, float]:
        return asdict(self)


class PartWorker:
    """Does parts of the run whose folder is given. Raises what `smolvlm.load` raises, and BatchError for other weights."""

    def __init__(self, folder: RunFolder, model: SmolVLM | None = None) -> None:
        settings = folder.settings()
        self._folder, self._plan = folder, Plan(folder.plan)
        self._asker = Asker(model or load_model(settings.model), settings)

    def do(self, part: int) -> PartReport:
        """Answer everything in a part and put its file in place; a part that is there is left alone.

        Raises BatchError when the disk refuses. What is wrong with an input is in its rows.
        """
        started = time.perf_counter()
        if self._folder.part(part).exists():
            return PartReport(part, 0, 0, 0.0, fresh=False)
        with Attempts(self._folder.trying(part)) as attempts:
            rows = self._asker.rows(self._plan.items(part), attempts)
            self._folder.write_rows(part, rows)
        errors = sum(row["error"] is not None for row in rows)
        return PartReport(part, len(rows), errors, time.perf_counter() - started)

    def close(self) -> None:
        self._asker.close()


def load_model(spec: ModelSpec, on_progress: Callable[[str, int, int], None] | None = None) -> SmolVLM:
    """The model of a run. Raises BatchError where the same name leads to other weights, as on a machine of a cluster."""
    found = fingerprint_of(resolve(spec.name), spec.adapter)
    if found != spec.fingerprint:
        raise BatchError(
            f"{spec.name} has other weights here ({found[:8]}) than the run began with "
            f"({spec.fingerprint[:8]}); put the same checkpoint on every machine."
        )
    return load(
        spec.name,
        adapter=spec.adapter,
        engine=spec.engine,
        device=spec.device,
        dtype=spec.dtype,
        prompt_style=spec.prompt_style,
        on_progress=on_progress,
    )
