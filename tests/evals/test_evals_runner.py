"""Runs with a real model that knows nothing, a real suite, real files: counted right, resumed after a kill, refused."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from smolvlm import SmolVLM
from smolvlm.checkpoint.identity import fingerprint_of
from smolvlm.errors import AdapterError, EvalError
from smolvlm.evals.chart import save_chart
from smolvlm.evals.report import Report, markdown, plain_table
from smolvlm.evals.runner import evaluate
from smolvlm.evals.suite import Case, Suite, Task
from smolvlm.evals.synth_suite import synth_suite

TASKS = ("colour", "caption", "event", "compare")
QUICK = {"items": 3, "max_new_tokens": 6, "options": {"detail": "fit"}}


def rows(report: Report) -> list[dict[str, object]]:
    return report.to_dict()["tasks"]


def test_a_run_asks_every_item_greedily_and_writes_them_down(model: SmolVLM, tmp_path: Path) -> None:
    seen = []
    report = evaluate(
        model,
        synth_suite(),
        tasks=TASKS,
        out=tmp_path,
        fingerprint="abc",
        batch_size=2,
        on_progress=lambda *step: seen.append(step),
        **QUICK,
    )
    assert [row.task for row in report.rows] == list(TASKS)
    assert seen[-1] == ("answers", 12, 12)
    assert [done for _, done, _ in seen] == [2, 3, 5, 6, 8, 9, 11, 12]
    lines = [json.loads(line) for line in (tmp_path / "items.jsonl").read_text().splitlines()]
    assert [(line["task"], line["number"]) for line in lines] == [(task, n) for task in TASKS for n in range(3)]
    for line in lines[::4]:  # asked one by one through the public verb, the model says the same
        (case,) = [c for c in synth_suite().cases(line["task"], 3, line["number"]) if c.number == line["number"]]
        alone = model.chat(case.conversation(), max_new_tokens=6, detail="fit")
        assert line["answer"] == alone.text
    report.save(tmp_path)
    saved = json.loads((tmp_path / "report.json").read_text())
    assert saved["fingerprint"] == "abc"
    assert saved["suite_version"] == 1
    assert saved["tasks"] == rows(report)


def _echoing(suite: Suite, said: dict[tuple[str, int], str]) -> Suite:
    """The same cases with expected answers that the model gives anyway: a stand-in for one that knows something."""

    def cases(task: str, count: int, first: int) -> Iterator[Case]:
        for case in suite.cases(task, count, first):
            expected = said.get((task, case.number), case.expected)
            yield Case(case.task, case.number, case.media, case.question, expected)

    return replace(suite, cases=cases)


def test_what_is_right_is_counted(model: SmolVLM, tmp_path: Path) -> None:
    nothing = evaluate(model, synth_suite(), tasks=("colour",), out=tmp_path, **QUICK)
    assert nothing.rows[0].right == 0
    said = {
        (line["task"], line["number"]): line["answer"].upper()
        for line in map(json.loads, (tmp_path / "items.jsonl").read_text().splitlines())
    }
    del said["colour", 1]
    report = evaluate(model, _echoing(synth_suite(), said), tasks=("colour",), **QUICK)
    row = report.rows[0]
    assert (row.items, row.right) == (3, 2)
    assert row.share == pytest.approx(2 / 3)
    assert (row.low, row.high) == pytest.approx((0.2077, 0.9385), abs=1e-4)  # Wilson, by hand


def test_a_killed_run_goes_on_and_ends_in_the_same_report(model: SmolVLM, tmp_path: Path) -> None:
    suite, whole, broken = synth_suite(), tmp_path / "whole", tmp_path / "broken"
    expected = evaluate(model, suite, tasks=TASKS, out=whole, batch_size=2, **QUICK)

    class Killed(Exception):
        pass

    def kill(_stage: str, done: int, _total: int) -> None:
        if done >= 5:
            raise Killed

    with pytest.raises(Killed):
        evaluate(model, suite, tasks=TASKS, out=broken, batch_size=2, on_progress=kill, **QUICK)
    log = broken / "items.jsonl"
    assert len(log.read_text().splitlines()) == 5
    with log.open("a") as file:  # killed in the middle of a line
        file.write('{"task": "caption", "numb')
    asked = []
    report = evaluate(model, suite, tasks=TASKS, out=broken, batch_size=2, on_progress=lambda _s, done, _t: asked.append(done), **QUICK)
    assert asked[0] == 6, "only what was unanswered is asked"
    assert rows(report) == rows(expected)
    assert sorted(log.read_text().splitlines()) == sorted((whole / "items.jsonl").read_text().splitlines())
    again = evaluate(model, suite, tasks=TASKS, out=broken, on_progress=kill, **QUICK)  # asks nothing, so is not killed
    assert rows(again) == rows(expected)


def test_a_folder_of_another_run_is_refused(model: SmolVLM, tmp_path: Path) -> None:
    evaluate(model, synth_suite(), tasks=("colour",), out=tmp_path, fingerprint="one", **QUICK)
    with pytest.raises(EvalError, match=r"another run: fingerprint was 'one' and is 'two'; pass"):
        evaluate(model, synth_suite(), tasks=("colour",), out=tmp_path, fingerprint="two", **QUICK)
    (tmp_path / "run.json").write_text("[]")
    with pytest.raises(EvalError, match="not the record of a run"):
        evaluate(model, synth_suite(), tasks=("colour",), out=tmp_path, **QUICK)
    (tmp_path / "run.json").unlink()
    with pytest.raises(EvalError, match=r"holds an items.jsonl but no run.json"):
        evaluate(model, synth_suite(), tasks=("colour",), out=tmp_path, **QUICK)


@pytest.mark.parametrize(
    "line",
    [
        "nonsense",
        "[]",
        "3",
        '{"task": "colour"}',
        '{"task": "colour", "number": 0, "x": 1}',
        '{"task": "colour", "number": 0, "question": "", "expected": "", "answer": "", "right": "yes", "strict": true}',
    ],
)
def test_lines_that_are_no_results_are_named(model: SmolVLM, tmp_path: Path, line: str) -> None:
    evaluate(model, synth_suite(), tasks=("colour",), out=tmp_path, **QUICK)
    with (tmp_path / "items.jsonl").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(EvalError, match=r"items.jsonl, line 4: not a result"):
        evaluate(model, synth_suite(), tasks=("colour",), out=tmp_path, **QUICK)


def test_bad_arguments_are_named(model: SmolVLM, tmp_path: Path) -> None:
    with pytest.raises(EvalError, match="synth has no task 'colours'; it has colour,"):
        evaluate(model, synth_suite(), tasks=("colours",))
    with pytest.raises(EvalError, match="items=0"):
        evaluate(model, synth_suite(), items=0)
    (tmp_path / "file").write_text("")
    with pytest.raises(EvalError, match="cannot keep results there"):
        evaluate(model, synth_suite(), tasks=("colour",), out=tmp_path / "file", **QUICK)


def _report() -> Report:
    from smolvlm.evals.report import make_report
    from smolvlm.evals.results import Result

    suite = Suite(
        "synth",
        1,
        {"colour": Task("colour", ""), "caption": Task("caption", "", is_caption=True)},
        lambda *_: iter(()),
        lambda _task, count: count,
    )
    colour = [Result("colour", n, "?", "red" if n < 3 else "a|b", "red", n < 3, n < 3) for n in range(4)]
    caption = [Result("caption", n, "?", f"a dog {n}", "", n < 2, n < 1) for n in range(4)]
    identity = {"suite": "synth", "suite_version": 1, "world": "small", "model": "some$model", "fingerprint": "f00"}
    return make_report(suite, identity, {"colour": colour, "caption": caption}, 1.0)


def test_tables_say_what_was_counted() -> None:
    assert plain_table(_report()) == (
        "synth, version 1, small world: some$model\n"
        "task                     items   right    95 % interval  constant answer\n"
        'colour                       4  75.0 %  30.1 % - 95.4 %  75.0 % "red"\n'
        'caption                      4  50.0 %  15.0 % - 85.0 %  25.0 % "a dog 0"\n'
        "caption (word for word)      4  25.0 %   4.6 % - 69.9 %\n"
    )
    table = markdown(_report()).splitlines()
    assert table[0] == "synth, version 1, small world: some$model (weights f00)"
    assert table[4] == '| colour | 4 | 75.0 % | 30.1 % - 95.4 % | 75.0 % "red" |'
    assert {line.count("|") for line in table[2:]} == {6}


def test_the_picture_shows_bars_of_the_right_length(tmp_path: Path) -> None:
    with Image.open(save_chart(_report(), tmp_path)) as picture:
        pixels = picture.convert("RGB")
    bar, found = (91, 141, 184), []
    for y in range(pixels.height):
        row = [pixels.getpixel((x, y)) == bar for x in range(pixels.width)]
        if sum(row) > 200:
            found.append(max(x for x, hit in enumerate(row) if hit) - row.index(True))
    (long, _), (short, _) = sorted(Counter(found).most_common(2), reverse=True)
    assert long / short == pytest.approx(0.75 / 0.5, abs=0.02)


def test_the_fingerprint_tells_adapters_apart(tiny_checkpoint: Path, tmp_path: Path) -> None:
    base = fingerprint_of(tiny_checkpoint)
    (tmp_path / "adapter_model.safetensors").write_bytes(b"one")
    one = fingerprint_of(tiny_checkpoint, tmp_path)
    (tmp_path / "adapter_model.safetensors").write_bytes(b"two")
    assert one != fingerprint_of(tiny_checkpoint, tmp_path)
    assert one.startswith(base + "+")
    with pytest.raises(AdapterError, match="adapter_model.safetensors: cannot be read"):
        fingerprint_of(tiny_checkpoint, tmp_path / "none")
