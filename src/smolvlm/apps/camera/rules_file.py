"""rules.yaml -> `WatchRules`. Every error names the file, the line, the key, and the nearest key that there is.

camera: hall
zones:
  bed: [[0.0, 0.5], [0.4, 0.5], [0.4, 1.0], [0.0, 1.0]]
rules:
  - name: fall
    event: a person falls
    confirm: {question: "Does anybody fall?"}
    still: 2.5
    outside: [bed]
"""

from __future__ import annotations

from datetime import time
from pathlib import Path

from smolvlm.apps.camera.rules import (
    DAYS,
    RIVALS,
    Confirmation,
    Everywhere,
    MotionSettings,
    Polygon,
    Retention,
    Rule,
    Schedule,
    WatchRules,
    WindowSettings,
)
from smolvlm.apps.camera.yaml_places import Place, read_yaml

_TOP = ("camera", "rules", "zones", "motion", "window", "retention", "jsonl")
_RULE = tuple("name event question rivals confirm threshold still zone outside schedule cool_down".split())
_NAME = r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}"


def read_rules(path: str | Path) -> WatchRules:
    """Raises RulesError, MissingExtraError without PyYAML."""
    return rules_of(read_yaml(Path(path)))


def rules_of(top: Place) -> WatchRules:
    """The rules of a file's outermost mapping."""
    top.only(_TOP)
    zones = {name: _polygon(place) for name, place in top.get("zones").items()} if "zones" in top else {}
    rules = [_rule(place, zones) for place in top.need("rules").listed(1)]
    seen: set[str] = set()
    for rule, place in zip(rules, top.need("rules").listed(1), strict=True):
        if rule.name in seen:
            raise place.need("name").wrong(f"is the name of two rules ({rule.name})", "give each rule a name of its own")
        seen.add(rule.name)
    return WatchRules(
        camera=top.need("camera").text(_NAME, "letters, digits, - and _"),
        rules=tuple(rules),
        motion=_motion(top.get("motion"), zones) if "motion" in top else MotionSettings(),
        window=_window(top.get("window")) if "window" in top else WindowSettings(),
        retention=_retention(top.get("retention")) if "retention" in top else Retention(),
        jsonl=top.get("jsonl").text() if "jsonl" in top else None,
        zones=zones,
    )


def _rule(place: Place, zones: dict[str, Polygon]) -> Rule:
    place.only(_RULE)
    event = place.need("event").text()
    rivals = tuple(item.text() for item in place.get("rivals").listed(1)) if "rivals" in place else RIVALS
    rivals = tuple(dict.fromkeys(text for text in rivals if text != event))
    if not rivals:
        raise place.get("rivals").wrong("holds the event alone", "name what else could happen, such as nothing happens")
    return Rule(
        name=place.need("name").text(_NAME, "letters, digits, - and _"),
        event=event,
        question=place.get("question").text() if "question" in place else Everywhere.QUESTION,
        rivals=rivals,
        confirm=_confirm(place.get("confirm"), event) if "confirm" in place else _asked_plainly(event),
        threshold=place.number("threshold", 0.5, 0.0, 1.0),
        still_s=place.number("still", 0.0, 0.0, 60.0),
        zone=_areas(place, "zone", zones),
        outside=_areas(place, "outside", zones),
        schedule=_schedule(place.get("schedule")) if "schedule" in place else Schedule(),
        cool_down_s=place.number("cool_down", 60.0, 0.0, 86_400.0),
    )


def _asked_plainly(event: str) -> Confirmation:
    return Confirmation(f"Does this happen: {event}? Answer yes or no.")


def _confirm(place: Place, event: str) -> Confirmation:
    place.only(("question", "yes", "no", "threshold"))
    plain = _asked_plainly(event)
    yes = tuple(item.text() for item in place.get("yes").listed(1)) if "yes" in place else plain.yes
    no = tuple(item.text() for item in place.get("no").listed(1)) if "no" in place else plain.no
    if both := sorted({*yes} & {*no}):
        raise place.get("no").wrong(f"names {both[0]!r}, which is an answer of yes, too", "let each answer stand on one side")
    question = place.get("question").text() if "question" in place else plain.question
    return Confirmation(question, yes, no, place.number("threshold", plain.threshold, 0.0, 1.0))


def _areas(place: Place, key: str, zones: dict[str, Polygon]) -> tuple[Polygon, ...]:
    """One name of a zone, several, or a polygon."""
    if key not in place:
        return ()
    value = place.get(key)
    if value.is_text:
        return (_zone(value, zones),)
    items = value.listed(1)
    if all(item.is_text for item in items):
        return tuple(_zone(item, zones) for item in items)
    return (_polygon(value),)


def _zone(place: Place, zones: dict[str, Polygon]) -> Polygon:
    name = place.text()
    if name not in zones:
        raise place.unknown(f"names the zone {name!r}, which `zones` does not have", name, zones)
    return zones[name]


def _polygon(place: Place) -> Polygon:
    corners = []
    for corner in place.listed(3):
        pair = corner.listed(2)
        if len(pair) != 2:
            raise corner.wrong(f"has {len(pair)} numbers", "a corner is [x, y] in fractions of the picture, such as [0.25, 1.0]")
        corners.append((pair[0].real(0.0, 1.0), pair[1].real(0.0, 1.0)))
    if len(corners) > 100:
        raise place.wrong(f"has {len(corners)} corners", "100 are enough")
    return tuple(corners)


def _schedule(place: Place) -> Schedule:
    place.only(("days", "from", "to"))
    days = frozenset(range(7))
    if "days" in place:
        found = set()
        for item in place.get("days").listed(1):
            name = item.text().lower()[:3]
            if name not in DAYS:
                raise item.unknown(f"is no day ({item.text()!r})", name, DAYS)
            found.add(DAYS.index(name))
        days = frozenset(found)
    return Schedule(days, _clock(place, "from"), _clock(place, "to"))


def _clock(place: Place, key: str) -> time:
    if key not in place:
        return time(0)
    text = place.get(key).text(quoted="a time is written in quotes, such as '22:30'")
    try:
        hour, minute = (int(part) for part in text.split(":"))
        return time(hour % 24 if (hour, minute) == (24, 0) else hour, minute)
    except ValueError:
        raise place.get(key).wrong(f"is {text!r}", "write a time of the day in quotes, such as '22:30'") from None


def _motion(place: Place, zones: dict[str, Polygon]) -> MotionSettings:
    place.only(("threshold", "area", "settle", "masks"))
    masks: list[Polygon] = []
    if "masks" in place:
        for item in place.get("masks").listed(0):
            masks.append(_zone(item, zones) if item.is_text else _polygon(item))
    return MotionSettings(
        place.number("threshold", 14.0, 1.0, 255.0),
        place.number("area", 0.002, 0.0, 1.0),
        place.number("settle", 1.0, 0.0, 60.0),
        tuple(masks),
    )


def _window(place: Place) -> WindowSettings:
    place.only(("frames", "step", "every", "before", "after"))
    return WindowSettings(
        int(place.number("frames", 6, 2, 64, whole=True)),
        place.number("step", 0.5, 0.1, 60.0),
        place.number("every", 1.0, 0.1, 600.0),
        place.number("before", 5.0, 0.0, 60.0),
        place.number("after", 5.0, 0.0, 60.0),
    )


def _retention(place: Place) -> Retention:
    place.only(("days", "bytes"))
    return Retention(place.number("days", 30.0, 0.01, 36_500.0), int(place.number("bytes", 2_000_000_000, 1_000_000, 1e15, whole=True)))
