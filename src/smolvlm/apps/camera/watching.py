"""The watcher: motion opens the gate, the model is asked about a window of frames, and what two questions agree on is an event."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from PIL import Image

from smolvlm.apps.camera.frames import Frame, LookBack
from smolvlm.apps.camera.keeping import Keeper
from smolvlm.apps.camera.motion import Mask, MotionGate, area_mask
from smolvlm.apps.camera.rules import Rule, WatchRules

if TYPE_CHECKING:
    from smolvlm.vlm import SmolVLM


@dataclass(frozen=True)
class _Seen:
    """A rule that agreed about the frames up to `time_s`; `before` is the newest frame before the motion."""

    rule: Rule
    time_s: float
    before: Frame
    pixels: Any
    score: float
    answers: list[dict[str, Any]]


class Watcher:
    """One for a source: `take` each frame, `finish` at the end. Both yield the messages that went out."""

    def __init__(self, model: SmolVLM, rules: WatchRules, keeper: Keeper) -> None:
        self._model, self._rules, self._keeper = model, rules, keeper
        self._gate = MotionGate(rules.motion)
        window = rules.window
        still_s = max(rule.still_s for rule in rules.rules)
        span_s = window.frames * window.step_s + rules.motion.settle_s
        self._frames = LookBack(max(window.before_s + window.after_s + still_s, span_s + still_s) + 5.0)
        self._motion_begin_s: float | None = None
        self._motion_last_s = self._look_s = 0.0
        self._where: Mask | None = None
        self._before: Frame | None = None
        self._newest: Frame | None = None
        self._quiet_until: dict[str, float] = {}
        self._waiting: list[_Seen] = []
        self._open: list[dict[str, Any]] = []

    def take(self, frame: Frame) -> Iterator[dict[str, Any]]:
        """The next frame."""
        motion, now = self._gate.see(frame.grey, frame.time_s), frame.time_s
        if motion.moving:
            if self._motion_begin_s is None:
                self._motion_begin_s, self._look_s, self._where = now, now, motion.where
                self._before = self._newest or frame
            self._motion_last_s = now
            assert self._where is not None
            self._where = self._where | motion.where
        self._frames.add(frame)
        self._newest = frame
        for seen in [each for each in self._waiting if now >= each.time_s + each.rule.still_s]:
            self._waiting.remove(seen)
            yield from self._look_again(seen, frame)
        if self._motion_begin_s is not None:
            settled = now - self._motion_last_s >= self._rules.motion.settle_s
            if settled or now - self._look_s >= self._rules.window.every_s:
                self._look_s = now
                yield from self._look(frame)
            if settled:
                self._motion_begin_s = self._where = None
        for event in [each for each in self._open if now >= each["time_s"] + self._rules.window.after_s]:
            yield self._close(event)

    def finish(self) -> Iterator[dict[str, Any]]:
        """The source has ended: what is asked once more is asked about its last frame, and clips end here."""
        if self._newest is not None:
            if self._motion_begin_s is not None:
                yield from self._look(self._newest)
            for seen in self._waiting:
                yield from self._look_again(seen, self._newest)
        self._waiting = []
        for event in list(self._open):
            yield self._close(event)

    def _look(self, frame: Frame) -> Iterator[dict[str, Any]]:
        now, window = frame.time_s, self._rules.window
        rules = [rule for rule in self._rules.rules if self._asked(rule, now)]
        frames = self._frames.window(now, window.frames, window.step_s)
        if not rules or len(frames) < 2:
            return
        assert self._before is not None
        for rule, (score, answers) in zip(rules, self._ask(rules, frames), strict=True):
            if score:
                self._quiet_until[rule.name] = now + max(rule.cool_down_s, rule.still_s)
                seen = _Seen(rule, now, self._before, frame.pixels, score, answers)
                if rule.still_s:
                    self._waiting.append(seen)
                else:
                    yield self._alert(seen, now)

    def _look_again(self, seen: _Seen, frame: Frame) -> Iterator[dict[str, Any]]:
        """Frames from before the motion, then those of this moment: what has gone again was something else."""
        now, half = self._frames.window(frame.time_s, 2, 0.5), [seen.before, seen.before]
        frames = [each for each in (*half, *now) if each.pixels.shape == frame.pixels.shape]
        ((score, answers),) = self._ask([seen.rule], frames)
        if score:
            yield self._alert(
                _Seen(seen.rule, seen.time_s, seen.before, seen.pixels, min(score, seen.score), seen.answers + answers), frame.time_s
            )
        else:
            self._quiet_until[seen.rule.name] = 0.0

    def _asked(self, rule: Rule, now: float) -> bool:
        if now < self._quiet_until.get(rule.name, 0.0) or not rule.schedule.awake(datetime.fromtimestamp(now)):
            return False
        assert self._where is not None
        inside = not rule.zone or bool((self._where & area_mask(rule.zone)).any())
        return inside and (not rule.outside or bool((self._where & ~area_mask(rule.outside)).any()))

    def _ask(self, rules: Sequence[Rule], frames: Sequence[Frame]) -> list[tuple[float, list[dict[str, Any]]]]:
        """(score, answers) of each rule; 0 where the two questions do not agree."""
        pictures = [Image.fromarray(each.pixels) for each in frames]
        questions: list[tuple[str, Sequence[str]]] = []
        for rule in rules:
            questions += [(rule.question, (rule.event, *rule.rivals)), (rule.confirm.question, (*rule.confirm.yes, *rule.confirm.no))]
        choices = [dict(choice.probabilities) for choice in self._model.choose_many([pictures], questions)]
        found = []
        for rule, first, second in zip(rules, choices[::2], choices[1::2], strict=True):
            likely, agreed = first[rule.event], sum(second[answer] for answer in rule.confirm.yes)
            right = likely == max(first.values()) and likely >= rule.threshold and agreed > rule.confirm.threshold
            answers = [
                {"question": question, "probabilities": {name: round(value, 4) for name, value in given.items()}}
                for question, given in ((rule.question, first), (rule.confirm.question, second))
            ]
            found.append((min(likely, agreed) if right else 0.0, answers))
        return found

    def _alert(self, seen: _Seen, now: float) -> dict[str, Any]:
        event = {
            "id": f"{seen.time_s:.3f}-{secrets.token_hex(4)}",
            "camera": self._rules.camera,
            "rule": seen.rule.name,
            "event": seen.rule.event,
            "time_s": round(seen.time_s, 3),
            "alert_s": round(now, 3),
            "score": round(seen.score, 4),
            "answers": seen.answers,
        }
        self._open.append(event)
        return self._keeper.alert(event, seen.pixels)

    def _close(self, event: dict[str, Any]) -> dict[str, Any]:
        self._open.remove(event)
        window = self._rules.window
        frames = self._frames.between(event["time_s"] - window.before_s, event["time_s"] + window.after_s)
        return self._keeper.update(event, frames)
