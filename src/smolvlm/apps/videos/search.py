"""Search: how likely each window is what the query means, by words and by the model; and whether anything matches at all."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from smolvlm.apps.library import Library
from smolvlm.apps.videos.lexical import Cover, covers
from smolvlm.apps.videos.settings import PROMPT
from smolvlm.apps.videos.stored import StoredWindow, features_of, windows_by_id
from smolvlm.errors import ParamsError
from smolvlm.options.declare import check, option

if TYPE_CHECKING:
    from smolvlm.vlm import SmolVLM

Judge = Literal["likelihood", "yes-no", "words"]
JUDGES: tuple[str, ...] = ("likelihood", "yes-no", "words")
_MOST_QUERY_CHARS = 300
_WORDINGS = 4  # captions that the query's words hit, in which it is scored as well
_LOWEST = -3.0  # of a log probability a word: below that all is equally unlikely
_SAID = 0.75  # of the query's words: somebody says it

# p = sigmoid(bias + words * seen + model * likelihood a word), fitted by `python -m benchmarks.search_truth --fit` on the
# validation clips of `smolvlm.synth` with `nano`; the cut-off is p >= 0.5.
_BIAS, _WORDS, _MODEL = -4.0, 7.0, 2.0


@dataclass(frozen=True, kw_only=True)
class SearchSettings:
    """How is searched. Raises ParamsError for a value out of its range."""

    judge: str = option("likelihood", "What the model is shown the best windows for.", choices=JUDGES)
    top: int = option(5, "Windows that are given at most.", least=1, most=1000)
    candidates: int = option(32, "Windows that the model judges; the words choose them.", least=1, most=10_000)
    cutoff: float = option(0.5, "Least probability of a match.", least=0.0, most=1.0)

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class Hit:
    """A window with its probability; `why` says what spoke for it."""

    window: StoredWindow
    probability: float
    words: float
    likelihood: float
    why: str

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form."""
        window = self.window
        return {
            "file": str(window.path),
            "start_s": round(window.start_s, 3),
            "end_s": round(window.end_s, 3),
            "probability": round(self.probability, 4),
            "caption": window.caption,
            "tags": list(window.tags),
            "loudness_db": None if window.loudness_db is None else round(window.loudness_db, 1),
            "why": self.why,
        }


@dataclass(frozen=True)
class Found:
    """`hits`, the best first; empty where nothing matches, and then `nearest` is the nearest miss (None of an empty index)."""

    query: str
    hits: tuple[Hit, ...]
    nearest: Hit | None


def search(model: SmolVLM, library: Library, query: str, run_ids: Sequence[int], settings: SearchSettings | None = None) -> Found:
    """The windows of `run_ids` that show, or in which somebody says, what `query` says.

    Raises ParamsError for an empty or a very long query, SourceError where features are neither stored nor to be made again.
    """
    settings = settings or SearchSettings()
    query = " ".join(query.split())
    if not query or len(query) > _MOST_QUERY_CHARS:
        raise ParamsError(f"the query has {len(query)} characters; say in 1 to {_MOST_QUERY_CHARS} what happens, such as 'a cat falls'.")
    if not run_ids:
        return Found(query, (), None)
    found = covers(library, query, run_ids)
    chosen = _candidates(library, found, run_ids, settings.candidates)
    wordings = _wordings(chosen, found, query)
    hits = [_hit(model, library, window, query, found.get(window.id, Cover(0, 0, 0)), wordings, settings) for window in chosen]
    hits.sort(key=lambda hit: (-hit.probability, hit.window.run_id, hit.window.number))
    good = tuple(hit for hit in hits if hit.probability >= settings.cutoff)[: settings.top]
    return Found(query, good, hits[0] if hits else None)


def _candidates(library: Library, found: Any, run_ids: Sequence[int], count: int) -> list[StoredWindow]:
    """The windows that the words choose, then any, evenly spread, until there are `count`."""
    best = sorted(found, key=lambda i: (-max(found[i].seen, found[i].said), -found[i].bm25, i))[:count]
    if len(best) < count:
        scope = json.dumps(list(run_ids))
        every = library.rows("SELECT id FROM video_windows WHERE run_id IN (SELECT value FROM json_each(?)) ORDER BY id", (scope,))
        rest = [row[0] for row in every]
        others = [i for i in rest if i not in found]
        wanted = count - len(best)
        step = max(1.0, len(others) / wanted)
        best += [others[int(k * step)] for k in range(min(wanted, len(others)))]
    return windows_by_id(library, best)


def _wordings(windows: Sequence[StoredWindow], found: Any, query: str) -> dict[str, float]:
    """Captions that have the query's words, with how much of it they cover: the model's way of saying it, perhaps."""
    wordings: dict[str, float] = {}
    for window in windows:
        cover = found.get(window.id)
        if cover is not None and cover.seen > 0 and window.caption and window.caption != query:
            wordings.setdefault(window.caption, cover.seen)
            wordings[window.caption] = max(wordings[window.caption], cover.seen)
    return dict(sorted(wordings.items(), key=lambda item: -item[1])[:_WORDINGS])


def _hit(
    model: SmolVLM, library: Library, window: StoredWindow, query: str, cover: Cover, wordings: dict[str, float], settings: SearchSettings
) -> Hit:
    seen, likelihood = cover.seen, _LOWEST
    if settings.judge != "words":
        prompt = PROMPT if (row := _prompt(library, window)) is None else row
        features = features_of(model, library, window)
        own = window.caption or "nothing"
        options = list(dict.fromkeys((query, own, *wordings)))
        logprobs = model.choose(features, prompt, options).logprobs
        likelihood = _a_word(logprobs[query] - logprobs[own], query)
        for wording, covered in wordings.items():
            seen = max(seen, covered * math.exp(min(0.0, logprobs[wording] - logprobs[own])))
        if settings.judge == "yes-no":
            likelihood = math.log(max(model.choose(features, f"Does this happen: {query}?", ["yes", "no"]).probabilities["yes"], 1e-9))
    probability = 1 / (1 + math.exp(-(_BIAS + _WORDS * seen + _MODEL * (likelihood - _LOWEST))))
    hit = Hit(window, probability, seen, likelihood, f"{likelihood:.2f} a word by the model, {seen:.0%} of the words")
    if cover.said >= _SAID:
        said = 0.5 + 0.5 * cover.said - 1e-3
        return replace(hit, probability=max(probability, said), why=f"said: {cover.said:.0%} of the words") if said > probability else hit
    return hit


def _a_word(logprob: float, text: str) -> float:
    return max(_LOWEST, min(0.0, logprob / max(1, len(text.split()))))


def _prompt(library: Library, window: StoredWindow) -> str | None:
    row = library.row("SELECT prompt FROM video_runs JOIN makers ON makers.id = maker_id WHERE video_runs.id = ?", (window.run_id,))
    return None if row is None else str(row["prompt"])
