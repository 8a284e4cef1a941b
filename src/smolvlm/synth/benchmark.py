"""The held-out benchmark: tasks, each a stream of questions about samples of the test split, balanced over its answers.

Item n of a task is the same on every machine and for every count: 3 items are the first 3 of 250.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from smolvlm.errors import SynthError
from smolvlm.synth.generate import GENERATORS, generate
from smolvlm.synth.sample import Question, Sample
from smolvlm.synth.words import PLACES
from smolvlm.synth.world import SMALL, World

Strata = Callable[[World], tuple[str, ...]]
Key = Callable[[Question], str]

# A stratum that turns up in fewer than one of this many samples is a mistake in a task, and must not draw for ever.
_PATIENCE = 20_000


def _answer(question: Question) -> str:
    return question.answer


def _length(question: Question) -> str:
    return str(len(question.answer))


def _task(question: Question) -> str:
    return question.task


def _fixed(*names: str) -> Strata:
    return lambda _world: names


def _up_to(limit: Callable[[World], int]) -> Strata:
    return lambda world: tuple(str(n) for n in range(1, limit(world) + 1))


@dataclass(frozen=True)
class TaskSpec:
    """One row of the benchmark.

    asked: the generator's question tasks that count. strata: what the items are spread over evenly (a world's colours,
    yes and no, ...), where `key` says which one a question belongs to; None leaves the generator's own shares.
    """

    name: str
    generator: str
    asked: tuple[str, ...]
    description: str
    strata: Strata | None = None
    key: Key = _answer
    is_caption: bool = False


_YES_NO = _fixed("yes", "no")
_INVOICE = tuple(f"invoice_{field}" for field in ("total", "number", "date", "company", "price", "due"))
_RECEIPT = tuple(f"receipt_{field}" for field in ("total", "shop", "price", "payment"))
_CHART = tuple(f"chart_{what}" for what in ("highest", "lowest", "value", "bars"))

_ALL = (
    TaskSpec("colour", "scene", ("colour",), "the colour of a shape", lambda world: world.colours),
    TaskSpec("object", "scene", ("object",), "what is at a place of the picture, or alone in it"),
    TaskSpec("presence", "scene", ("presence",), "whether a thing is there, half yes and half no", _YES_NO),
    TaskSpec("position", "scene", ("position",), "in which of nine places a thing is", _fixed(*(place for row in PLACES for place in row))),
    TaskSpec("spatial", "scene", ("spatial",), "left or right of, above or below another thing", _fixed("left", "right", "above", "below")),
    TaskSpec("count", "scene", ("count",), "how many of one kind or colour there are", _up_to(lambda w: w.max_count)),
    TaskSpec("caption", "scene", ("caption",), "every thing of a picture with its colour, none invented", is_caption=True),
    TaskSpec(
        "reading_word", "writing", ("reading_word",), "a word in capitals, mostly random letters", _up_to(lambda w: w.max_letters), _length
    ),
    TaskSpec("reading_number", "writing", ("reading_number",), "a number", _up_to(lambda w: w.max_digits), _length),
    TaskSpec("motion", "clip", ("motion",), "in which direction a thing moves", _fixed("left", "right", "up", "down")),
    TaskSpec("event", "clip", ("event",), "what happens in a clip, in a sentence"),
    TaskSpec("action", "clip", ("action",), "what a named thing does, or that it stays still"),
    TaskSpec("when", "clip", ("when",), "at what time it happens"),
    TaskSpec("first", "clip", ("first",), "which of two named things appears first: a guess is right half of the time"),
    TaskSpec("compare", "pair", ("compare",), "what differs between two pictures, in a sentence"),
    TaskSpec("same", "pair", ("same",), "whether two pictures are the same", _YES_NO),
    TaskSpec("invoice", "invoice", _INVOICE, "a field of an invoice", _fixed(*_INVOICE), _task),
    TaskSpec("receipt", "receipt", _RECEIPT, "a field of a receipt", _fixed(*_RECEIPT), _task),
    TaskSpec("note", "note", ("note_text",), "a written note, word by word"),
    TaskSpec("chart", "chart", _CHART, "highest and lowest bar, a value, how many bars", _fixed(*_CHART), _task),
    TaskSpec("defect", "part", ("defect",), "whether a part has a defect", _YES_NO),
    TaskSpec("defect_kind", "part", ("defect_kind",), "which defect a part has, if any", _fixed("scratch", "dent", "missing hole", "none")),
    TaskSpec("part", "part", ("part",), "which kind of part it is"),
    TaskSpec("door", "room", ("door",), "whether a door is open or closed", _fixed("open", "closed")),
    TaskSpec("people", "room", ("people_count",), "how many people are in a room", _fixed("0", "1", "2", "3")),
    TaskSpec("pet", "room", ("pet",), "which pet is in a room, if any", _fixed("a dog", "a cat", "none")),
    TaskSpec("room_event", "room_clip", ("event",), "what happens in a room, in a sentence"),
    TaskSpec("room_when", "room_clip", ("when",), "at what time it happens in a room"),
    TaskSpec("fall", "room_clip", ("fall",), "whether somebody falls; bending down is no fall", _YES_NO),
)

TASKS: dict[str, TaskSpec] = {task.name: task for task in _ALL if task.generator in GENERATORS}


@dataclass(frozen=True, eq=False)
class Item:
    """One question of the benchmark. `number` counts a task's items from 0; `index` is the sample's in its generator."""

    task: str
    number: int
    index: int
    sample: Sample
    question: Question


def items(task: str, count: int = 250, world: World = SMALL) -> Iterator[Item]:
    """The first `count` items of a task, one question a sample. Raises SynthError for an unknown task or a count below 1."""
    spec = task_spec(task)
    if count < 1:
        raise SynthError(f"count={count} is below 1; ask for at least one item of {task}.")
    return _drawn(spec, count, world)


def task_spec(name: str) -> TaskSpec:
    """The task by name. Raises SynthError for an unknown one."""
    if name not in TASKS:
        raise SynthError(f"the benchmark has no task {name!r}; it has {', '.join(TASKS)}.")
    return TASKS[name]


def _drawn(spec: TaskSpec, count: int, world: World) -> Iterator[Item]:
    """Strata take turns; what was drawn for another one waits. Only numbers wait: drawing again is cheap, pictures are not."""
    strata = spec.strata(world) if spec.strata is not None else ("",)
    waiting: dict[str, deque[tuple[int, Question]]] = {stratum: deque() for stratum in strata}
    index = 0
    for number in range(count):
        stratum = strata[number % len(strata)]
        start = index
        while not waiting[stratum]:
            if index - start > _PATIENCE:
                raise SynthError(f"the task {spec.name} found no {stratum!r} in {_PATIENCE} samples of {spec.generator}.")
            question = _asked(spec, generate(spec.generator, "test", index, world))
            if question is not None:
                kind = spec.key(question) if spec.strata is not None else ""
                if kind in waiting:
                    waiting[kind].append((index, question))
            index += 1
        at, question = waiting[stratum].popleft()
        yield Item(spec.name, number, at, generate(spec.generator, "test", at, world), question)


def _asked(spec: TaskSpec, sample: Sample) -> Question | None:
    """The sample's question for this task: the first of those that a generator has shuffled, one of each kind in turn."""
    found = [question for question in sample.questions if question.task in spec.asked]
    if len(spec.asked) == 1 or not found:
        return found[0] if found else None
    # Fields of a document come in a fixed order; the answers' letters pick one, the same everywhere.
    return found[sum(map(ord, "".join(question.answer for question in found))) % len(found)]
