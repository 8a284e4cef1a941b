"""Highlights: the best set against trying all sets, and `nano` on a programme whose events are known."""

from __future__ import annotations

import json
import re
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import pytest

from helpers_videos import Programme
from smolvlm import SmolVLM
from smolvlm.apps.videos.highlights import HighlightSettings, find_highlights, take, weigh
from smolvlm.apps.videos.highlights_choice import Candidate, best_set, without_alike
from smolvlm.cli.main import main
from smolvlm.media import Video


def candidate(start_s: float, end_s: float, probability: float, features: tuple[float, ...] = (1.0, 0.0)) -> Candidate:
    return Candidate(start_s, end_s, probability, "something", "", np.array(features, np.float32))


def slow_best(candidates: list[Candidate], budget_s: float, spacing_s: float) -> float:
    """By trying every set."""
    best = 0.0
    for count in range(len(candidates) + 1):
        for chosen in combinations(candidates, count):
            gaps = [b.start_s - a.end_s for a, b in pairwise(chosen)]
            if sum(c.lasts_s for c in chosen) <= budget_s + 1e-6 and all(gap >= spacing_s or gap == 0 for gap in gaps):
                best = max(best, sum(c.probability for c in chosen))
    return best


@pytest.mark.parametrize("seed", range(20))
def test_the_best_set_is_the_best_of_all_sets(seed: int) -> None:
    rng = np.random.default_rng(seed)
    edges = np.cumsum(rng.integers(1, 40, 20)) / 10
    candidates = [candidate(float(a), float(b), float(rng.uniform(0.5, 1))) for a, b in zip(edges[::2], edges[1::2], strict=True)]
    budget_s, spacing_s = float(rng.integers(10, 150)) / 10, float(rng.integers(0, 3))
    chosen = best_set(candidates, budget_s, spacing_s)
    assert chosen == sorted(chosen, key=lambda c: c.start_s)
    assert sum(c.lasts_s for c in chosen) <= budget_s + 1e-6
    assert sum(c.probability for c in chosen) == pytest.approx(slow_best(candidates, budget_s, spacing_s), abs=1e-5)


def test_of_two_alike_the_likelier_is_taken() -> None:
    moments = [candidate(0, 1, 0.7, (1, 0.01)), candidate(2, 3, 0.9, (1, 0)), candidate(4, 5, 0.6, (0, 1))]
    assert without_alike(moments, 0.95) == moments[1:]
    assert without_alike(moments, 1.0) == moments


def test_nano_finds_what_it_is_asked_for(nano: SmolVLM, programme: Programme) -> None:
    """Planted events of the kind, and none other; borders at the cuts, to the frame; the budget is kept."""
    wanted = [event for event in programme.events if "falls" in event.text]
    assert wanted
    with Video(programme.path) as video:
        weighed = weigh(nano, video, ["something tumbles"])
        found = take(video, weighed, HighlightSettings(duration=20))
        tight = take(video, weighed, HighlightSettings(duration=3.5))
    assert [(m.start_s, m.end_s) for m in found.taken] == [pytest.approx((e.start_s, e.end_s), abs=0.101) for e in wanted]
    assert all(m.probability > 0.5 and m.reason for m in found.taken)
    assert tight.lasts_s <= 3.5


@pytest.mark.slow
def test_what_is_not_there_is_not_taken(nano: SmolVLM, programme: Programme) -> None:
    with Video(programme.path) as video:
        assert find_highlights(nano, video, ["a zeppelin lands"]).taken == ()


@pytest.mark.slow
def test_loudness_moves_probabilities(nano: SmolVLM, programme: Programme) -> None:
    """Every second event is loud; what is loud gains, what is soft loses."""
    with Video(programme.path) as video:
        plain = weigh(nano, video)
        loud = weigh(nano, video, settings=HighlightSettings(loudness=3.0))
    assert len(plain.candidates) == len(loud.candidates)
    for before, after in zip(plain.candidates, loud.candidates, strict=True):
        deviations = re.search(r"dB \(([+-][\d.]+)", after.reason)
        assert deviations is not None
        assert (after.probability - before.probability) * float(deviations[1]) >= 0
    assert any(abs(a.probability - b.probability) > 0.001 for a, b in zip(plain.candidates, loud.candidates, strict=True))


def test_the_command_cuts_and_says_why(programme: Programme, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, page = tmp_path / "best & more.mp4", tmp_path / "why.html"
    wanted = ["highlights", str(programme.path), "-m", "nano", "--about", "falls", "-o", str(out)]
    assert main([*wanted, "--page", str(page), "--duration", "20", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    with Video(out) as made:
        assert made.duration_s == pytest.approx(told["lasts_s"], abs=0.11)
    assert told["moments"][0]["why"]
    text = page.read_text(encoding="utf-8")
    assert not re.search(r"(?:src|href)=\"(?:https?:)?//", text), "the page fetches nothing"
    assert text.count("data:image/jpeg") >= len(told["moments"])
    assert "精彩片段" in text
    assert main(wanted) == 2
    assert "overwrite" in capsys.readouterr().err


REFUSED = {
    "--dry-run": [],
    ".fcpxml": ["-o", "x.txt"],
    "no such folder": ["-o", "nowhere/x.mp4"],
    "duration": ["--duration", "0", "--dry-run"],
    "x.html": ["--page", "x.txt"],
}


@pytest.mark.parametrize("said", [pytest.param(said, id=said) for said in REFUSED])
def test_the_command_refuses_before_it_works(said: str, programme: Programme, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["highlights", str(programme.path), *REFUSED[said]]) == 2
    assert said.replace("x.html", ".html") in capsys.readouterr().err


def test_a_page_is_harmless_whatever_the_texts_are(programme: Programme, tmp_path: Path) -> None:
    from smolvlm.apps.videos.highlights import Highlights
    from smolvlm.apps.videos.highlights_page import highlights_page

    hostile = "</script><img src=x onerror=alert(1)>"
    moment = Candidate(1.0, 2.0, 0.9, hostile, hostile, np.zeros(2, np.float32))
    with Video(programme.path) as video:
        text = highlights_page(video, Highlights((moment,), (), "", (hostile,)), HighlightSettings(), tmp_path / "page.html")
    assert "<img src=x" not in text
    assert text.count("</script>") == 1
