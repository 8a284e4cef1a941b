"""`smolvlm finetune MODEL DATA`: from a user's own files to an adapter or a checkpoint, with accuracy before and after."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from smolvlm.errors import TrainingError
from smolvlm.options.declare import option, same
from smolvlm.options.training import TrainOptions
from smolvlm.train.accuracy import Accuracy, closed_options, measure
from smolvlm.train.finetune_data import RawRecord, Understood, understand
from smolvlm.train.loop import TrainResult
from smolvlm.train.mixture import Mixture
from smolvlm.train.objective import SFTObjective
from smolvlm.train.processes import Processes
from smolvlm.train.record import Record
from smolvlm.train.records import StepRecord
from smolvlm.train.run_folder import open_run, write_text
from smolvlm.train.sft import mixture_batches
from smolvlm.train.tuning import Base, TuneOptions, result_folder, tune
from smolvlm.vlm import load

logger = logging.getLogger(__name__)

REPORT_FILE = "finetune.json"
MAX_VALIDATION = 200
_MIN_RECORDS = 5  # below, setting some apart tells nothing and costs what little there is


@dataclass(frozen=True, kw_only=True)
class FinetuneOptions(TuneOptions):
    """mixture: here DATA, a file or folder of the user's (see `finetune_data`). question: for data that bring none.

    validation_share: of the pictures, never trained on, to measure accuracy; 0 for none. measure: whether to measure.
    data_fingerprint is set by `finetune`: changed data are another run.
    """

    packing: bool = same(
        TrainOptions, "packing", False
    )  # a batch is then so many examples: packed rows would take a small data set in one step
    question: str | None = None
    validation_share: float = option(0.1, "Share of the pictures that measures and is never trained on; 0: none.", least=0, most=0.5)
    measure: bool = True
    data_fingerprint: str = ""

    def __post_init__(self) -> None:
        if self.epochs is None and self.steps is None:
            object.__setattr__(self, "epochs", 5)
        super().__post_init__()


@dataclass(frozen=True)
class Plan:
    """What will be trained on and measured, and in words. options: to choose among, where answers are a closed set."""

    training: tuple[Record, ...]
    validation: tuple[Record, ...]
    options: tuple[str, ...]
    sentences: tuple[str, ...]
    fingerprint: str


@dataclass(frozen=True)
class FinetuneResult:
    """result: the adapter's or the checkpoint's folder. before, after: None where nothing was measured."""

    result: Path
    train: TrainResult
    before: Accuracy | None
    after: Accuracy | None


def plan(options: FinetuneOptions) -> Plan:
    """Read DATA and split off a validation part. Opens no picture. Raises MixtureError for data that cannot be used."""
    found = understand(options.mixture, question=options.question)
    training, validation = split(found, options.validation_share, options.seed)
    records = [_record(raw, options.mixture, number) for number, raw in enumerate([*training, *validation], start=1)]
    closed = closed_options(records)
    kinds = Counter(_modality(raw) for raw in (*training, *validation))
    sentences = [f"understood {found.form}", f"{len(records)} examples: " + ", ".join(f"{n} {k}" for k, n in kinds.items())]
    if validation:
        apart = "brought by the data" if found.validation is not None else "set apart"
        sentences.append(f"{len(training)} to train on, {len(validation)} to measure with ({apart}, never trained on)")
    else:
        sentences.append("none is set apart, so accuracy is not measured")
    if closed:
        sentences.append(f"the answer is one of {len(closed)}: {', '.join(closed)}")
    content = json.dumps([training, validation], sort_keys=True, ensure_ascii=False)
    mark = hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return Plan(tuple(records[: len(training)]), tuple(records[len(training) :]), closed, tuple(sentences), mark)


def split(found: Understood, share: float, seed: int) -> tuple[list[RawRecord], list[RawRecord]]:
    """(training, validation): the data's own split, or a random share of each answer; a file is never on both sides."""
    if found.validation is not None:
        return found.records, found.validation
    if share == 0 or len(found.records) < _MIN_RECORDS:
        return found.records, []
    groups: dict[str, list[RawRecord]] = {}
    for raw in found.records:
        media = [raw.get("image"), raw.get("video")]
        words = raw["conversations"][0]["value"] if not any(media) else ""
        groups.setdefault(json.dumps([media, words]), []).append(raw)
    by_answer: dict[str, list[str]] = {}
    for key, raws in groups.items():
        by_answer.setdefault(raws[0]["conversations"][-1]["value"], []).append(key)
    few = len(by_answer) <= max(2, len(groups) // 4)  # classes: each in its share; free answers: all together
    strata = list(by_answer.values()) if few else [list(groups)]
    generator = np.random.default_rng(seed)
    apart: list[str] = []
    for keys in strata:
        count = round(len(keys) * share) if len(keys) > 1 else 0
        apart += [keys[i] for i in generator.permutation(len(keys))[: max(count, 1) if len(keys) > 3 else count]]
    held = {apart[i] for i in generator.permutation(len(apart))[:MAX_VALIDATION]}
    training = [raw for key, raws in groups.items() if key not in held for raw in raws]
    return training, [raw for key, raws in groups.items() if key in held for raw in raws]


def finetune(
    options: FinetuneOptions, *, on_note: Callable[[str], None] = logger.info, on_step: Callable[[StepRecord], None] | None = None
) -> FinetuneResult:
    """Train `options.model` on the user's DATA; `on_note` hears what was understood, measured and written, in sentences.

    Goes on where a killed run stopped. `finetune.json` in the run's folder keeps both accuracies and the misses. Raises
    MixtureError, TrainingError, and what loading a checkpoint raises.
    """
    base = Base.open(options)
    todo = plan(options)
    options = dataclasses.replace(options, data_fingerprint=todo.fingerprint)
    processes = Processes(seed=options.seed)
    say = on_note if processes.is_main else logger.debug
    for sentence in todo.sentences:
        say(sentence)
    source = mixture_batches(Mixture.from_records(todo.training, seed=options.seed), base.processor, options)
    before = after = None
    measured = options.measure and bool(todo.validation) and processes.is_main
    if processes.is_main:
        open_run(options, "finetune", world=processes.world)
    if measured:
        before = _measured_before(options, todo)
        say(f"before: {before}")
    trained = tune(base, options, source, lambda _base: SFTObjective(), stage="finetune", on_step=on_step)
    if measured:
        after = _measure(options, todo, trained=True)
        say(f"after: {after}")
        _write_report(options, before, after)
    return FinetuneResult(result_folder(options), trained, before, after)


def _measured_before(options: FinetuneOptions, todo: Plan) -> Accuracy:
    """The accuracy of the base, from the report of an interrupted run where there is one: it cannot have changed."""
    path = options.out / REPORT_FILE
    try:
        return Accuracy.from_dict(json.loads(path.read_text(encoding="utf-8"))["before"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        before = _measure(options, todo, trained=False)
        _write_report(options, before, None)
        return before


def _measure(options: FinetuneOptions, todo: Plan, *, trained: bool) -> Accuracy:
    """Through `load`, the way that a user takes: what is measured is what was written."""
    is_adapter = trained and options.method != "full"
    folder = options.out if trained and not is_adapter else options.model
    model = load(folder, adapter=result_folder(options) if is_adapter else None, prompt_style=options.prompt_style)
    media = options.media
    return measure(model, todo.validation, todo.options, media)


def _write_report(options: FinetuneOptions, before: Accuracy | None, after: Accuracy | None) -> None:
    report = {"before": before and before.to_dict(), "after": after and after.to_dict()}
    try:
        write_text(options.out / REPORT_FILE, json.dumps(report, indent=2, ensure_ascii=False) + "\n")
    except OSError as error:
        raise TrainingError(f"{options.out / REPORT_FILE}: cannot be written ({error.strerror or error}).") from None


def _record(raw: RawRecord, data: Path, number: int) -> Record:
    return Record(raw, f"{data.name}, example {number}", Path(), _modality(raw))


def _modality(raw: RawRecord) -> str:
    if "video" in raw:
        return "video"
    if "image" not in raw:
        return "text"
    return "multi-image" if isinstance(raw["image"], list) else "image"
