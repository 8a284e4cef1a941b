"""`smolvlm train pretrain`: a recipe from nothing to an official-format checkpoint, resumable at every step."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from safetensors.torch import load_file, save_file

from smolvlm.errors import TrainingError
from smolvlm.options.training import LoopOptions
from smolvlm.prompt.tokenizer import PromptTokenizer
from smolvlm.train.loop import Trainer
from smolvlm.train.nano.connect import fit_connector
from smolvlm.train.nano.data import BatchStream, NanoSource, mixture
from smolvlm.train.nano.export import export
from smolvlm.train.nano.objective import Nano, StageObjective, trained_in
from smolvlm.train.nano.recipe import Recipe, StagePlan
from smolvlm.train.nano.rows import RowMaker
from smolvlm.train.nano.tokenizer import build_tokenizer
from smolvlm.train.records import StepRecord
from smolvlm.train.run_folder import write_text

logger = logging.getLogger(__name__)

MODEL_FOLDER = "model"
_TOKENIZER = "tokenizer.json"
_WEIGHTS = "weights.safetensors"
_FIT_BATCHES = 30
_FIT_FROM = 10**6  # batches that no stage of this length draws
_ORACLE_SIDE_PX = 48  # the decoder's stage sees no pixels: small pictures are drawn faster


@dataclass(frozen=True)
class PretrainOptions:
    """recipe: what is trained. out: the folder of the run, with a folder a stage and the model. precision, workers,
    save_every, log_every, progress_bar: as in `LoopOptions`."""

    recipe: Recipe
    out: Path
    seed: int = 0
    precision: str = "bfloat16"
    workers: int = 1
    save_every: int = 200
    log_every: int = 10
    progress_bar: bool = True


def pretrain(
    options: PretrainOptions,
    card: str = "",
    on_stage: Callable[[str], None] | None = None,
    on_step: Callable[[StepRecord], None] | None = None,
) -> Path:
    """Run or go on with all stages of the recipe; the folder of the finished checkpoint.

    on_stage(name) is told of each stage that begins. Raises TrainingError as `Trainer` does.
    """
    out = options.out
    finished = out / MODEL_FOLDER
    if (finished / "config.json").is_file():
        return finished
    tokenizer = _tokenizer(out)
    config = replace(options.recipe.shape, image_token_id=tokenizer.id_of("<image>"))
    nano = Nano(config, tokenizer, options.seed)
    maker = RowMaker(config, tokenizer)
    for plan in options.recipe.stages:
        weights = out / plan.stage / _WEIGHTS
        if not weights.is_file():
            if on_stage is not None:
                on_stage(plan.stage)
            if plan.stage == "both":
                _connect(nano, maker, options.recipe)
            _run(nano, maker, plan, options, on_step)
            _keep(nano, weights)
        nano = Nano(config, tokenizer, options.seed)
        _take(nano, [out / done.stage for done in options.recipe.stages if (out / done.stage / _WEIGHTS).is_file()])
    return export(nano.model, finished, (out / _TOKENIZER).read_text(encoding="utf-8"), card)


def _tokenizer(out: Path) -> PromptTokenizer:
    """The run's own tokenizer: made once, so that a later version of the generators cannot change it under a run."""
    path = out / _TOKENIZER
    try:
        out.mkdir(parents=True, exist_ok=True)
        if not path.is_file():
            if any(out.iterdir()):
                raise TrainingError(f"{out} is not empty and holds no pretraining of ours; nothing there is touched: name another folder.")
            write_text(path, build_tokenizer())
        return PromptTokenizer(path.read_text(encoding="utf-8"), label=str(path))
    except OSError as error:
        raise TrainingError(f"{out}: cannot be used for a run ({error.strerror or error}).") from None


def _run(nano: Nano, maker: RowMaker, plan: StagePlan, options: PretrainOptions, on_step: Callable[[StepRecord], None] | None) -> None:
    world = options.recipe.world
    if plan.stage == "decoder":
        world = replace(world, side_px=_ORACLE_SIDE_PX)
    for name, parameter in nano.named_parameters():
        parameter.requires_grad_(trained_in(plan.stage, name))
    loop = LoopOptions(
        out=options.out / plan.stage,
        steps=plan.steps,
        lr_vision=plan.lr,
        lr_connector=plan.lr,
        lr_text=plan.lr,
        lr_muon=plan.lr_muon,
        warmup_ratio=0.01,
        weight_decay=0.01,
        precision=options.precision,
        seed=options.seed,
        save_every=options.save_every,
        log_every=options.log_every,
        progress_bar=options.progress_bar,
    )
    kinds = mixture(plan.stage, plan.rows_scale)
    source = NanoSource(maker, world, kinds, plan.steps, options.workers)
    Trainer(nano, StageObjective(plan.stage), source, loop, stage=f"pretrain {plan.stage}", on_step=on_step).run()


def _connect(nano: Nano, maker: RowMaker, recipe: Recipe) -> None:
    stream = BatchStream(maker, recipe.world, "train", mixture("decoder", 0.5), range(_FIT_FROM, _FIT_FROM + _FIT_BATCHES))
    left = fit_connector(nano, (stream[i] for i in range(len(stream))))
    logger.info("the connector, by least squares, leaves %.1f %% of the variance unexplained", 100 * left)


def _keep(nano: Nano, path: Path) -> None:
    part = path.with_name(f".{path.name}.part")
    save_file({name: tensor.detach().float().contiguous() for name, tensor in nano.named_parameters()}, part)
    part.replace(path)


def _take(nano: Nano, stages: list[Path]) -> None:
    """What each finished stage trained."""
    for folder in stages:
        tensors = load_file(folder / _WEIGHTS)
        stage = folder.name
        nano.load_state_dict({n: t for n, t in tensors.items() if trained_in(stage, n)}, strict=False)  # type: ignore[arg-type]
