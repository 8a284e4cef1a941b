"""Each option is declared once: command line, requests, page, training and docs have its help, its range and its default."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

import smolvlm
from smolvlm.cli.flags import GenerationFlags, MediaFlags, OptionFlags
from smolvlm.cli.main import app, main
from smolvlm.cli.train_flags import DataFlags, LoopFlags
from smolvlm.compat import AutoProcessor
from smolvlm.errors import ParamsError, SmolVLMError, TrainingError
from smolvlm.options import reference
from smolvlm.options.declare import Option, at_door, check, declared, option
from smolvlm.options.generation import GenerationParams
from smolvlm.options.media import MediaOptions, of_medium
from smolvlm.options.training import LoopOptions, TrainOptions
from smolvlm.prompt.messages import parse_messages
from smolvlm.serve.api.chat_schema import ChatRequest
from smolvlm.serve.api.responses_schema import ResponsesRequest

ROOT = Path(__file__).resolve().parents[1]
KINDS = (MediaOptions, GenerationParams)
EVERY = [(kind, made) for kind in KINDS for made in declared(kind).values()]
IDS = [made.name for _, made in EVERY]
# OpenAI's names for ours.
IN_A_REQUEST = {"max_tokens": "max_new_tokens", "max_completion_tokens": "max_new_tokens", "max_output_tokens": "max_new_tokens"}
IN_A_REQUEST |= {"top_logprobs": "logprobs"}
NOT_RANGES = {"logprobs"}  # a switch in OpenAI's API


def commands(group: Any, name: str = "") -> dict[str, Any]:
    """Every command's click object by its name."""
    if not hasattr(group, "commands"):
        return {name: group}
    return {k: v for part, inner in group.commands.items() for k, v in commands(inner, f"{name} {part}".strip()).items()}


@pytest.fixture(scope="module")
def flags() -> dict[str, dict[str, Any]]:
    import typer

    found = commands(typer.main.get_command(app))
    return {name: {p.name: p for p in command.params if p.param_type_name == "option"} for name, command in found.items()}


MEDIA, ANSWERS = ("ask", "describe", "chat", "choose", "extract", "batch"), ("ask", "describe", "chat", "extract", "batch")
TRAINING = ("finetune", "train sft", "train dpo", "train distill")


@pytest.mark.parametrize(
    ("group", "names"), [(MediaFlags, MEDIA), (GenerationFlags, ANSWERS), (LoopFlags, TRAINING), (DataFlags, TRAINING)]
)
def test_the_command_line(flags: dict[str, dict[str, Any]], group: type[OptionFlags], names: tuple[str, ...]) -> None:
    assert group.declared()
    for name in names:
        for made in group.declared().values():
            flag = flags[name][made.name]
            assert flag.help.startswith(made.help), (name, made.name)
            assert flag.default is None, "left to the library"
            assert (made.flag or f"--{made.name.replace('_', '-')}") in flag.opts


def properties(model: Any) -> list[tuple[str, dict[str, Any]]]:
    """Every field of a request's schema, at any depth, without the `null` that stands for left out."""
    schema = model.model_json_schema()
    found = []
    for part in (schema, *schema["$defs"].values()):
        for name, field in part.get("properties", {}).items():
            kinds = [kind for kind in field.get("anyOf", [field]) if kind.get("type") != "null"]
            found.append((name, {**field, **(kinds[0] if len(kinds) == 1 else {})}))
    return found


@pytest.mark.parametrize("model", [ChatRequest, ResponsesRequest], ids=lambda m: m.__name__)
def test_requests(model: Any) -> None:
    known = {name: made for kind in KINDS for name, made in declared(kind).items()}
    seen = set()
    for name, field in properties(model):
        ours = IN_A_REQUEST.get(name, name)
        if ours not in known or name in NOT_RANGES or (name == "background" and field.get("type") != "string"):
            continue
        made = known[ours]
        assert "http" in made.doors, name
        seen.add(ours)
        if name != "stop":
            assert made.help in field["description"], name
        if made.kind in (int, float):
            bounds, words = made.at("http"), ("exclusiveMinimum", "exclusiveMaximum", "minimum", "maximum")
            expected = (bounds.low if bounds.above else None, bounds.high if bounds.below else None)
            expected += (None if bounds.above else bounds.low, None if bounds.below else bounds.high)
            assert tuple(field.get(word) for word in words) == expected, name
    at_http = {name for name, made in known.items() if "http" in made.doors}
    only_chat = {"stop", "presence_penalty", "frequency_penalty", "media_kind"}
    assert seen == at_http - (only_chat if model is ResponsesRequest else set())


def test_parts_of_messages_take_what_their_medium_has() -> None:
    every = {"detail": "fit", "image_splitting": True, "longest_edge": 512, "fps": 1.0, "max_frames": 2, "start": 0.0, "end": 1.0}
    every |= {"sampling": "time", "tone_map": "auto", "background": "white"}
    assert set(every) == {*of_medium("image"), *of_medium("video")}
    for kind in ("image", "video"):
        options = {name: every[name] for name in of_medium(kind)}
        part = parse_messages([{"role": "user", "content": [{"type": kind, "path": "nowhere", **options}]}])[0].parts[0]
        assert part.options == options  # type: ignore[union-attr]


def test_training() -> None:
    ours, media = declared(TrainOptions), at_door(MediaOptions, "train")
    assert set(media) == {name for name in declared(MediaOptions) if name in ours}
    assert all(ours[name] == made for name, made in media.items())
    options = TrainOptions(model="nano", mixture=Path("m.yaml"), out=Path("o"), detail="low", fps=2, max_frames=3)
    assert options.media == MediaOptions(detail="low", fps=2, max_frames=3)
    assert set(LoopFlags.declared()).isdisjoint(DataFlags.declared())
    assert set(LoopFlags.declared()) <= set(declared(LoopOptions))


@pytest.mark.parametrize(("kind", "made"), EVERY, ids=IDS)
def test_defaults_are_legal_and_reach_every_door(kind: type, made: Option) -> None:
    assert getattr(kind(), made.name) == made.default
    assert kind(**{made.name: made.default}) == kind()
    assert made.help[0] != " "
    assert made.help.endswith(".")
    for bounds in made.ranges.values():
        if made.name not in ("seed", "top_p"):  # signed at OpenAI's; its smallest nucleus is the likeliest token alone
            low, high = made.range.low, made.range.high
            assert low is None or bounds.low >= low  # type: ignore[operator]
            assert high is None or bounds.high <= high  # type: ignore[operator]


NUMBERS = [(kind, made) for kind, made in EVERY if made.kind in (int, float)]


@pytest.mark.parametrize(("kind", "made"), NUMBERS, ids=[made.name for _, made in NUMBERS])
def test_the_same_range_at_every_door(kind: type, made: Option) -> None:
    """Worked out from the bounds: the edge, one step beyond it, and what is no number."""
    step = 1 if made.kind is int else 1e-6
    ends = [(made.range.low, -step, made.range.above), (made.range.high, step, made.range.below)]
    for end, outward, left_out in ends:
        if end is None:
            continue
        inside, outside = (end - outward, end) if left_out else (end, end + outward)
        assert getattr(kind(**{made.name: inside}), made.name) == inside
        refused(kind, made, outside)
    for wrong in (True, "5", float("nan"), float("inf"), [1], 10**400):
        if not (made.kind is int and wrong == 10**400 and made.range.high is None):
            refused(kind, made, wrong)
    if made.kind is int:
        refused(kind, made, 1.5)
        assert type(getattr(kind(**{made.name: np.int64(2)}), made.name)) is int


def refused(kind: type, made: Option, value: Any) -> None:
    group = MediaFlags if kind is MediaOptions else GenerationFlags
    for make in (lambda: kind(**{made.name: value}), lambda: group({made.name: value}).KIND(**{made.name: value})):
        with pytest.raises(ParamsError, match=rf"^{made.name}=.*: expected a (finite |whole )?number") as caught:
            make()
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 200
    if kind is MediaOptions and (media := sorted(made.media)):
        with pytest.raises(ParamsError, match=rf"^message 0, part 0: {made.name}=") as caught:
            parse_messages([{"role": "user", "content": [{"type": media[0], "path": "nowhere", made.name: value}]}])
    if "train" in made.doors:
        with pytest.raises(TrainingError, match=rf"^{made.name}="):
            TrainOptions(model="nano", mixture=Path("m"), out=Path("o"), **{made.name: value})


@pytest.mark.parametrize("name", [m.name for k, m in NUMBERS if k is GenerationParams and "http" in m.doors and m.name != "logprobs"])
def test_requests_refuse_what_is_out_of_range(name: str) -> None:
    made = declared(GenerationParams)[name]
    bounds, field = made.at("http"), {"max_new_tokens": "max_tokens"}.get(name, name)
    for end, outward in ((bounds.low, -1), (bounds.high, 1)):
        body = {"model": "nano", "messages": [{"role": "user", "content": "x"}]}
        if end is not None:
            with pytest.raises(ValidationError):
                ChatRequest.model_validate(body | {field: end + outward})
            if not (bounds.above and end == bounds.low):
                ChatRequest.model_validate(body | {field: made.kind(end)})


@pytest.mark.parametrize("path", [ROOT / "docs" / "options.md", ROOT / "docs" / "options.zh-CN.md"], ids=lambda p: p.name)
def test_the_tables_of_the_docs(path: Path) -> None:
    lines = re.findall(r"^\| (`.*) \|$", path.read_text(encoding="utf-8"), re.MULTILINE)
    shown = [tuple(line.split(" | ")) for line in lines]
    expected = [row for kind in reference.TABLES.values() for row in reference.rows(kind)]
    if "zh" in path.name:  # the last column is a translation
        assert all(re.search(r"[\u4e00-\u9fff]", row[-1]) for row in shown)
        shown, expected = [row[:-1] for row in shown], [row[:-1] for row in expected]
    assert shown == expected


def test_ranges_are_worded_nowhere_else() -> None:
    """A second checker would bring its own words. What reads JSON of strangers has rules of its own."""
    others = {"options/declare.py", "json_file.py", "generation/schema_bounds.py", "generation/schema_limits.py", "serve/api/keys.py"}
    others |= {"serve/api/request_errors.py", "serve/config.py"}  # the first words pydantic's errors; the second text that is no number
    found = set()
    for path in sorted((ROOT / "src" / "smolvlm").rglob("*.py")):
        if re.search(r"[\"'}: ](expected )?a (whole |finite )?number (of at least|from|above)", path.read_text(encoding="utf-8")):
            found.add(path.relative_to(ROOT / "src" / "smolvlm").as_posix())
    assert found <= others, found - others


@dataclasses.dataclass(frozen=True)
class Example:
    share: float = option(0.5, "Of all.", above=0, below=1)
    count: int | None = option(None, "Of them.", least=2, most=2**64 - 1, hint="None: all")
    mode: str = option("a", "How.", choices=("a", "b"))
    on: bool = option(True, "Whether.")
    plain: int = 3

    def __post_init__(self) -> None:
        check(self, SmolVLMError)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"share": 0}, "share=0: expected a number above 0 and below 1."),
        ({"share": 1.0}, "share=1.0: expected a number above 0 and below 1."),
        ({"share": None}, "share=None: expected a number above 0 and below 1."),
        ({"count": 2**64}, "count=18446744073709551616: expected a whole number from 2 to 18446744073709551615 (None: all)."),
        ({"mode": "c"}, "mode='c': expected one of a, b."),
        ({"on": 1}, "on=1: expected True or False."),
        ({"mode": "x" * 1000}, f"mode='{'x' * 56}...: expected one of a, b."),
    ],
)
def test_messages(given: dict[str, Any], message: str) -> None:
    with pytest.raises(SmolVLMError) as caught:
        Example(**given)
    assert str(caught.value) == message


def test_numbers_of_other_libraries() -> None:
    example = Example(share=np.float32(0.25), count=np.int8(5))  # type: ignore[arg-type]
    assert (type(example.share), type(example.count), example.share, example.count) == (float, int, 0.25, 5)


class Untouched:
    """A file object that must not be read."""

    def read(self, *_: object) -> bytes:
        raise AssertionError("opened before its options were checked")


OUT_OF_RANGE = {"fps": 0, "longest_edge": 0, "background": "x", "end": -1, "detail": "best"}


@pytest.mark.parametrize(("name", "value"), OUT_OF_RANGE.items())
def test_options_are_checked_before_media_are_opened(name: str, value: Any, capsys: pytest.CaptureFixture[str]) -> None:
    model, source, bad = smolvlm.load("nano"), Untouched(), {name: value}
    image = {"type": "image" if name in of_medium("image") else "video"}
    turn = [{"role": "user", "content": [{**image, image["type"]: source, **bad}, {"type": "text", "text": "x"}]}]
    calls = [
        lambda: model.ask(source, "x", **bad),
        lambda: model.describe(source, **bad),
        lambda: model.stream(source, "x", **bad),
        lambda: model.choose(source, "x", ["a", "b"], **bad),
        lambda: model.extract(source, {"type": "object", "properties": {"a": {"type": "string"}}}, **bad),
        lambda: model.ask_many([(source, "x")], **bad),
        lambda: model.session(source, **bad),
        lambda: model.features(source, **bad),
        lambda: model.encode(source, **bad),
        lambda: model.chat(turn),
        lambda: model.processor(turn),
        lambda: AutoProcessor.from_pretrained("nano")(text="<image>x", images=[source], **bad),
    ]
    for call in calls:
        with pytest.raises(ParamsError, match=f"{name}="):
            call()
    for command in (["ask", "missing.jpg", "x"], ["describe", "missing.jpg"], ["choose", "missing.jpg", "x", "--option", "a"]):
        assert main([*command, f"--{name.replace('_', '-')}", str(value)]) == 2
        assert f"--{name.replace('_', '-')}" in capsys.readouterr().err
