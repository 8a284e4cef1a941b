"""From the shared options to a loaded model, and saying which model it is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from smolvlm.cli.console import Bars, note
from smolvlm.cli.flags import ModelFlags

if TYPE_CHECKING:
    from smolvlm.vlm import SmolVLM

FALLBACK = "nano"

# The first line of the README that `write_random_checkpoint` puts beside its weights.
_RANDOM_HEADING = "# A SmolVLM2 checkpoint with random weights"


def model_name(flags: ModelFlags) -> str:
    """The model asked for; else the one an adapter was trained on; else the largest official one that is complete on this
    machine; else the built-in one."""
    from smolvlm import hub

    if flags.model is not None:
        return flags.model
    if flags.adapter is not None:
        from smolvlm.checkpoint.adapter import Adapter

        if (base := Adapter(flags.adapter).base_name) is not None:
            return base
    local = hub.list_local()
    return local[0].name if local else FALLBACK


def find_model(flags: ModelFlags, bars: Bars) -> tuple[str, Path]:
    """The model's name and folder, downloaded first if need be. Cheap: no weights are read."""
    from smolvlm import hub

    name = model_name(flags)
    return name, hub.resolve(name, on_progress=bars.download)


def open_model(name: str, flags: ModelFlags, bars: Bars) -> SmolVLM:
    """Load the weights. Raises what `smolvlm.load` raises."""
    from smolvlm.vlm import load

    return load(
        name,
        adapter=flags.adapter,
        engine=flags.engine,
        device=flags.device,
        dtype=flags.dtype,
        prompt_style=flags.prompt_style,
        on_progress=bars,
    )


def announce(model: SmolVLM, folder: Path) -> None:
    """Say on stderr which model answers and, of one with random weights, that it knows nothing."""
    engine = model.engine
    note(f"{model.name} answers ({engine.name}, {engine.device}, {engine.dtype})", dim=True)
    if has_random_weights(folder):
        note("this checkpoint has random weights: it knows nothing, and its answers mean nothing.")


def say_world(folder: Path, flags: ModelFlags) -> None:
    """Before many answers: say on stderr, once, that the built-in model knows little. Single answers say it themselves."""
    from smolvlm import hub, known_world

    if flags.adapter is None and hub.is_built_in(folder):
        note(known_world.KNOWS)


def has_random_weights(folder: Path) -> bool:
    """Whether `write_random_checkpoint` made the checkpoint, by the README that it leaves there."""
    try:
        with (folder / "README.md").open(encoding="utf-8", errors="replace") as file:
            return file.readline(200).strip() == _RANDOM_HEADING
    except OSError:
        return False
