"""Distillation from a mixture and a teacher to a checkpoint or an adapter: `smolvlm train distill`.

Two kinds of teacher. A checkpoint with the same vocabulary and pictures teaches its whole distribution and, if wanted, its
hidden states. Anything behind an OpenAI-compatible endpoint writes answers to the mixture's questions, which are then
learned like any others (sequence-level distillation, arXiv 1606.07947).
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image

from smolvlm.errors import MixtureError, TeacherError, TrainingError
from smolvlm.families.grammar import timestamp
from smolvlm.media.video import sample_video
from smolvlm.nn.model import SmolVLMForConditionalGeneration
from smolvlm.options.media import MediaOptions
from smolvlm.processor import Processor
from smolvlm.prompt.messages import ImagePart, Message, TextPart, VideoPart
from smolvlm.train.distill_objective import DistillObjective, DistillWeights, ProjectedGraph
from smolvlm.train.graph import TrainingGraph
from smolvlm.train.loop import TrainResult
from smolvlm.train.mixture import Mixture
from smolvlm.train.objective import Objective, SFTObjective
from smolvlm.train.processes import Processes
from smolvlm.train.record import Record, to_messages
from smolvlm.train.records import StepRecord
from smolvlm.train.run_folder import open_run
from smolvlm.train.sft import mixture_batches
from smolvlm.train.teacher import Question, TeacherOptions, ask_teacher, image_part, question_key
from smolvlm.train.tuning import Base, TuneOptions, tune

logger = logging.getLogger(__name__)

ANSWERS_FILE = "answers.jsonl"
_TEACHER_FRAMES = 16  # of a video, where max_frames says nothing: web APIs take few pictures a question


@dataclass(frozen=True, kw_only=True)
class DistillOptions(TuneOptions):
    """teacher: a checkpoint (folder, Hub id, short name), or the model's name at `endpoint`. The weights of the loss are
    those of `DistillWeights` and hold for a checkpoint only; max_answer_tokens holds for an endpoint only."""

    teacher: str
    endpoint: str | None = None
    answers: float = DistillWeights.answers
    logits: float = DistillWeights.logits
    hidden: float = DistillWeights.hidden
    temperature: float = DistillWeights.temperature
    max_answer_tokens: int = TeacherOptions.max_tokens
    method: str = "full"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.weights()

    def weights(self) -> DistillWeights:
        """Raises TrainingError for a value out of its range."""
        return DistillWeights(self.answers, self.logits, self.hidden, self.temperature)


def distill(
    options: DistillOptions,
    *,
    api_key: str | None = None,
    on_answer: Callable[[int], None] | None = None,
    on_step: Callable[[StepRecord], None] | None = None,
) -> TrainResult:
    """Train `options.model` to answer as the teacher does; `tuning.result_folder(options)` holds the outcome.

    An endpoint's answers are kept in `answers.jsonl` in the run's folder: a killed run asks only what is missing.
    `on_answer(answered)` counts them. Raises TrainingError for a teacher that does not fit, TeacherError for one that does
    not answer, MixtureError, and what loading a checkpoint raises.
    """
    base = Base.open(options)
    if options.endpoint is not None:
        return _from_answers(base, options, options.endpoint, api_key, on_answer, on_step)
    source = mixture_batches(Mixture.from_file(options.mixture, seed=options.seed), base.processor, options)
    weights = options.weights()
    teacher = Base.open(replace(options, model=options.teacher))
    check_same_language(base.processor, teacher.processor)
    width = teacher.processor.model.text.hidden_size

    def graph(net: SmolVLMForConditionalGeneration) -> TrainingGraph:
        if not weights.hidden:
            return TrainingGraph(net, neftune_alpha=options.neftune_alpha)
        return ProjectedGraph(net, width, seed=options.seed, neftune_alpha=options.neftune_alpha)

    def objective(_base: Base) -> Objective:
        return DistillObjective(TrainingGraph(teacher.weights()), weights)

    return tune(base, options, source, objective, stage="distill", make_graph=graph, on_step=on_step)


def check_same_language(student: Processor, teacher: Processor) -> None:
    """Raise TrainingError unless token ids and pictures mean the same to both: one batch goes through the two."""
    ours, theirs = student.model, teacher.model
    for name, a, b in (
        ("vocab_size", ours.text.vocab_size, theirs.text.vocab_size),
        ("tokens a tile", ours.image_seq_len, theirs.image_seq_len),
        ("pixels a tile", ours.vision.image_size, theirs.vision.image_size),
        ("image_token_id", ours.image_token_id, theirs.image_token_id),
        (
            "mean and deviation of pixels",
            (student.config.image_mean, student.config.image_std),
            (teacher.config.image_mean, teacher.config.image_std),
        ),
    ):
        if a != b:
            raise TrainingError(
                f"the teacher's {name} ({b}) differs from the student's ({a}), so its distribution cannot be "
                "taught directly; serve the teacher and pass its --endpoint."
            )
    if _vocabulary(student) != _vocabulary(teacher):
        raise TrainingError(
            "teacher and student have different tokenizers, so their token ids mean different things; "
            "serve the teacher and pass its --endpoint."
        )


def _vocabulary(processor: Processor) -> Any:
    raw = json.loads(processor.tokenizer.json)  # parsed once already, by the tokenizer itself
    return raw["model"].get("vocab"), raw["model"].get("merges"), [(t["id"], t["content"]) for t in raw["added_tokens"]]


def _from_answers(
    base: Base,
    options: DistillOptions,
    endpoint: str,
    api_key: str | None,
    on_answer: Callable[[int], None] | None,
    on_step: Callable[[StepRecord], None] | None,
) -> TrainResult:
    """Ask, then learn. The main process asks; the others wait and read what it wrote."""
    asking = TeacherOptions(endpoint, options.teacher, api_key, options.max_answer_tokens)
    # The mixture's own answers are not needed: `answered` adds a stand-in where a conversation ends with a question.
    mixture = Mixture.from_file(options.mixture, seed=options.seed, check=False)
    records = [mixture.record(number) for number in range(len(mixture))]
    asker = QuestionMaker(base.processor, options)
    processes = Processes(seed=options.seed)
    problem = ""
    if processes.is_main:
        open_run(options, "distill", world=processes.world)
        try:
            asked = ask_teacher((asker(record) for record in records), asking, options.out / ANSWERS_FILE, on_answer)
            if asked.failed:
                logger.warning(
                    "%d of %d questions have no answer and are left out; the first: %s", asked.failed, len(records), asked.reason
                )
            if not asked.answers:
                problem = f"the teacher answered none of {len(records)} questions: {asked.reason}"
        except TeacherError as error:
            if processes.world == 1:
                raise
            problem = str(error)  # the others wait to hear it
    processes.agree(problem)
    answers = ask_teacher((), asking, options.out / ANSWERS_FILE).answers
    learned = [answered(record, answers[key]) for record in records if (key := asker(record).key) in answers]
    source = mixture_batches(Mixture.from_records(learned, seed=options.seed), base.processor, options)
    return tune(base, options, source, lambda _base: SFTObjective(), stage="distill", on_step=on_step)


def answered(record: Record, answer: str) -> Record:
    """The record with `answer` in place of its last one, or after its last question."""
    turns = list(record.raw.get("conversations") or [])
    if turns and isinstance(turns[-1], Mapping) and turns[-1].get("from") in ("gpt", "assistant"):
        turns.pop()
    return replace(record, raw={**record.raw, "conversations": [*turns, {"from": "gpt", "value": answer}]})


class QuestionMaker:
    """A record -> what the teacher is asked: everything before its last answer, in the web APIs' form."""

    def __init__(self, processor: Processor, options: DistillOptions) -> None:
        self.processor, self.teacher = processor, options.teacher
        self.media = MediaOptions(fps=options.fps, max_frames=options.max_frames or _TEACHER_FRAMES)

    def __call__(self, record: Record) -> Question:
        messages = to_messages(answered(record, "?"))[:-1]
        if not messages:
            raise MixtureError(f"{record.where}: holds no question to ask the teacher.")
        return Question(self._key(messages), lambda: [self._message(message) for message in messages])

    def _key(self, messages: list[Message]) -> str:
        """By the words and the files, so that an edited question or an exchanged picture is asked again."""
        pieces = [self.teacher]
        for message in messages:
            pieces.append(message.role)
            for part in message.parts:
                if isinstance(part, TextPart):
                    pieces.append(part.text)
                elif isinstance(part, ImagePart | VideoPart):
                    pieces.append(_file_mark(part.source))
        return question_key(*pieces)

    def _message(self, message: Message) -> dict[str, Any]:
        content: list[dict[str, Any]] = []
        for part in message.parts:
            if isinstance(part, TextPart):
                content.append({"type": "text", "text": part.text})
            elif isinstance(part, ImagePart):
                content.append(image_part(part.source))
            elif isinstance(part, VideoPart):
                content += self._frames(part.source)
        words = "".join(part["text"] for part in content) if all(p["type"] == "text" for p in content) else None
        return {"role": message.role, "content": content if words is None else words}

    def _frames(self, source: Any) -> Iterator[dict[str, Any]]:
        video = sample_video(source, self.processor.config, self.media, self.processor.policy)
        for frame, seconds in zip(video.frames, video.timestamps_s, strict=True):
            yield {"type": "text", "text": f"Frame from {timestamp(seconds)}:"}
            yield image_part(Image.fromarray(frame))


def _file_mark(source: Any) -> str:
    try:
        stat = os.stat(source)
    except (OSError, TypeError, ValueError):
        return str(source)
    return f"{Path(source).name} {stat.st_size} {stat.st_mtime_ns}"
