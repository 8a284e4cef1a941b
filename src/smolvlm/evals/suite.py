"""What an evaluation asks: tasks and, for each, cases with media, a question and its answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from smolvlm.errors import EvalError


@dataclass(frozen=True)
class Task:
    """A row of the report. `is_caption`: things with their colours count, not the words; see metrics.caption_right."""

    name: str
    description: str
    is_caption: bool = False


@dataclass(frozen=True, eq=False)
class Case:
    """One question. `number` counts a task's cases from 0; `media`: parts of a message, as `SmolVLM.chat` takes them."""

    task: str
    number: int
    media: tuple[Mapping[str, Any], ...]
    question: str
    expected: str

    def conversation(self) -> list[dict[str, Any]]:
        """The messages to send: one turn of the user."""
        return [{"role": "user", "content": [*map(dict, self.media), {"type": "text", "text": self.question}]}]


@dataclass(frozen=True)
class Suite:
    """Tasks and their cases. `version` and `settings` say which questions these are: results of others do not compare.

    cases(task, count, first): the task's cases number `first` to `count` - 1, fewer if there are no more.
    """

    name: str
    version: int
    tasks: Mapping[str, Task]
    cases: Callable[[str, int, int], Iterator[Case]]
    count: Callable[[str, int], int]  # how many cases a task has when so many are asked for
    settings: Mapping[str, Any] = field(default_factory=dict)

    def task(self, name: str) -> Task:
        """Raises EvalError for a task that the suite does not have."""
        if name not in self.tasks:
            raise EvalError(f"{self.name} has no task {name!r}; it has {', '.join(self.tasks)}.")
        return self.tasks[name]
