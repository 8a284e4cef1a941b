"""The recipes: how long each stage runs, in which world. One name makes one model."""

from __future__ import annotations

from dataclasses import dataclass, replace

from smolvlm.config import ModelConfig, preset
from smolvlm.errors import TrainingError
from smolvlm.synth.world import SMALL, WIDE, World
from smolvlm.train.nano.objective import Stage


@dataclass(frozen=True)
class StagePlan:
    """steps of about `rows_scale` x 48 pictures. lr: of embeddings, norms and heads (AdamW); lr_muon: of the layers' matrices."""

    stage: Stage
    steps: int
    rows_scale: float = 1.0
    lr: float = 2e-3
    lr_muon: float = 0.02


@dataclass(frozen=True)
class Recipe:
    """A world, a shape, and the stages in order. `about` says in words what to expect."""

    name: str
    about: str
    world: World
    shape: ModelConfig
    stages: tuple[StagePlan, ...]


def _toy_shape() -> ModelConfig:
    nano = preset("nano")
    return replace(
        nano,
        text=replace(nano.text, hidden_size=64, intermediate_size=176, num_hidden_layers=5, head_dim=16),
        vision=replace(nano.vision, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, image_size=96),
    )


RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            "toy",
            "minutes on two cores; shows that every stage learns, and answers little",
            replace(SMALL, name="toy", side_px=96, objects=SMALL.objects[:6], shapes=SMALL.shapes[:4]),
            _toy_shape(),
            (StagePlan("decoder", 60, 0.25), StagePlan("tower", 60, 0.25), StagePlan("both", 60, 0.25, 1e-3, 0.01)),
        ),
        Recipe(
            "cpu",
            "the nano that is shipped: hours on two cores, thirty objects, eight shapes, ten colours",
            SMALL,
            preset("nano"),
            (StagePlan("decoder", 4000, 0.6), StagePlan("tower", 4500), StagePlan("both", 4000, 1.0, 8e-4, 0.009)),
        ),
        Recipe(
            "gpu",
            "one modern GPU, the wide world of more than a hundred objects; written, not yet run",
            WIDE,
            preset("nano"),
            (StagePlan("decoder", 6000, 4.0), StagePlan("tower", 6000, 4.0), StagePlan("both", 12000, 4.0, 1e-3, 0.01)),
        ),
    )
}


def recipe(name: str) -> Recipe:
    """Raises TrainingError for an unknown name."""
    if name not in RECIPES:
        raise TrainingError(f"no recipe is called {name!r}; there are {', '.join(RECIPES)}.")
    return RECIPES[name]
