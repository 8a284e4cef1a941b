"""What is watched for: rules, zones, schedules, and where alerts go. `rules_file.py` reads them."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, time

Polygon = tuple[tuple[float, float], ...]  # corners in fractions of the picture's width and height

NOT_A_SAFETY_DEVICE = (
    "smolvlm watch is no medical or safety device: it misses events and raises false alarms. Never rely on it alone where somebody's "
    "health or safety depends on it."
)
RIVALS = (
    "a person falls",
    "a person bends down",
    "a person enters",
    "a person leaves",
    "the door opens",
    "the door closes",
    "nothing happens",
)
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


class Everywhere:
    """Defaults that several places name."""

    QUESTION = "What happens in the room?"
    YES, NO = ("yes",), ("no",)


@dataclass(frozen=True)
class Schedule:
    """When a rule is awake. `begins` after `ends`: over midnight, and the day is the one on which the night begins."""

    days: frozenset[int] = frozenset(range(7))
    begins: time = time(0)
    ends: time = time(0)  # equal to `begins`: the whole day

    def awake(self, when: datetime) -> bool:
        """Whether `when`, in local time, lies inside."""
        clock, today, yesterday = when.time(), when.weekday() in self.days, (when.weekday() - 1) % 7 in self.days
        if self.begins == self.ends:
            return today
        if self.begins < self.ends:
            return today and self.begins <= clock < self.ends
        return (today and clock >= self.begins) or (yesterday and clock < self.ends)


@dataclass(frozen=True)
class Confirmation:
    """The second question: it agrees when the answers of `yes` are together likelier than `threshold`."""

    question: str
    yes: tuple[str, ...] = Everywhere.YES
    no: tuple[str, ...] = Everywhere.NO
    threshold: float = 0.5


@dataclass(frozen=True)
class Rule:
    """One thing to watch for. `event`: a change, looked for after motion.

    `event` must be the likeliest of itself and `rivals` as the answer to `question`, with at least `threshold`, and `confirm`
    must agree. `still_s` > 0: after so many seconds, before the alert goes out, both are asked again about frames from before the
    motion and frames of that moment. `zone` and `outside` speak of where the motion was.
    """

    name: str
    event: str
    question: str
    rivals: tuple[str, ...]
    confirm: Confirmation
    threshold: float = 0.5
    still_s: float = 0.0
    zone: tuple[Polygon, ...] = ()
    outside: tuple[Polygon, ...] = ()
    schedule: Schedule = Schedule()
    cool_down_s: float = 60.0


@dataclass(frozen=True)
class MotionSettings:
    """The motion gate: `threshold` in levels of 255, `area` as a share of the picture, `masks` are not looked at."""

    threshold: float = 14.0
    area: float = 0.002
    settle_s: float = 1.0
    masks: tuple[Polygon, ...] = ()


@dataclass(frozen=True)
class WindowSettings:
    """What the model is shown: `frames` pictures, `step_s` apart; while something moves every `every_s`."""

    frames: int = 6
    step_s: float = 0.5
    every_s: float = 1.0
    before_s: float = 5.0  # of the clip
    after_s: float = 5.0


@dataclass(frozen=True)
class Retention:
    """What is kept of past events: the oldest go first."""

    days: float = 30.0
    bytes: int = 2_000_000_000


@dataclass(frozen=True)
class WatchRules:
    """A whole rules file."""

    camera: str
    rules: tuple[Rule, ...]
    motion: MotionSettings = MotionSettings()
    window: WindowSettings = WindowSettings()
    retention: Retention = Retention()
    jsonl: str | None = None
    zones: dict[str, Polygon] = field(default_factory=dict)
