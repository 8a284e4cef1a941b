"""Search: how likely each window is what the query means, by words and by the model; and whether anything matches at all."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from smolvlm.apps.library import Library
from smolvlm.apps.videos.lexical import Cover, covers
from smolvlm.apps.videos.settings import MOST_CHARS, PROMPT
from smolvlm.apps.videos.stored import StoredWindow, features_of, windows_by_id
from smolvlm.apps.videos.wording import Wording
from smolvlm.errors import ParamsError
from smolvlm.options.declare import check, option

if TYPE_CHECKING:
    from smolvlm.vlm import SmolVLM

Judge = Literal["likelihood", "yes-no", "words"]
JUDGES: tuple[str, ...] = ("likelihood", "yes-no", "words")
_LOWEST = -12.0  # of a difference of log probabilities: below that all is equally unlikely
_SAID = 0.75  # of the query's words: somebody says it

# p = sigmoid(bias + words * seen + model * (likelihood - lowest)), fitted by `python -m benchmarks.search_truth --fit` on the
# validation clips of `smolvlm.synth` with `nano`; the cut-off is p >= 0.5.
_BIAS, _WORDS, _MODEL = -6.4, 4.5, 0.42


@dataclass(frozen=True, kw_only=True)
class SearchSettings:
    """How is searched. Raises ParamsError for a value out of its range."""

    judge: str = option("likelihood", "What the model is shown the best windows for.", choices=JUDGES)
    top: int = option(5, "Windows that are given at most.", least=1, most=1000)
    candidates: int = option(24, "Windows that the model judges; the words choose them.", least=1, most=10_000)
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
    if not query or len(query) > MOST_CHARS:
        raise ParamsError(f"the query has {len(query)} characters; say in 1 to {MOST_CHARS} what happens, such as 'a cat falls'.")
    if not run_ids:
        return Found(query, (), None)
    found = covers(library, query, run_ids)
    chosen = _candidates(library, found, run_ids, settings.candidates)
    texts = _texts(library, query, run_ids)
    hits = [_hit(model, library, window, texts, found.get(window.id, Cover()), settings) for window in chosen]
    hits.sort(key=lambda hit: (-round(hit.probability, 2), -(hit.likelihood + hit.window.logprob), hit.window.run_id, hit.window.number))
    good = tuple(hit for hit in hits if hit.probability >= settings.cutoff)[: settings.top]
    return Found(query, good, hits[0] if hits else None)


def _candidates(library: Library, found: Any, run_ids: Sequence[int], count: int) -> list[StoredWindow]:
    """The windows that the words choose, then any, evenly spread, until there are `count`."""
    best = sorted(found, key=lambda i: (-max(found[i].seen, found[i].nearly, found[i].said), -found[i].bm25, i))[:count]
    if len(best) < count:
        scope = json.dumps(list(run_ids))
        every = library.rows("SELECT id FROM video_windows WHERE run_id IN (SELECT value FROM json_each(?)) ORDER BY id", (scope,))
        rest = [row[0] for row in every]
        others = [i for i in rest if i not in found]
        wanted = count - len(best)
        step = max(1.0, len(others) / wanted)
        best += [others[int(k * step)] for k in range(min(wanted, len(others)))]
    return windows_by_id(library, best)


def _texts(library: Library, query: str, run_ids: Sequence[int]) -> tuple[str, ...]:
    """The query, and the query in the wording of the captions."""
    rows = library.rows(
        "SELECT DISTINCT caption FROM video_moments WHERE run_id IN (SELECT value FROM json_each(?))", (json.dumps(list(run_ids)),)
    )
    put = Wording([row["caption"] for row in rows]).put(query)
    return (query,) if put is None or put == query else (query, put)


def _hit(model: SmolVLM, library: Library, window: StoredWindow, texts: tuple[str, ...], cover: Cover, settings: SearchSettings) -> Hit:
    """`texts`: the query and its other wordings; the likeliest counts, against the caption that the model chose itself."""
    query, likelihood = texts[0], 0.0 if settings.judge == "words" else _LOWEST
    if settings.judge != "words":
        prompt = PROMPT if (row := _prompt(library, window)) is None else row
        features = features_of(model, library, window)
        if settings.judge == "yes-no":
            likelihood = math.log(max(model.choose(features, f"Does this happen: {query}?", ["yes", "no"]).probabilities["yes"], 1e-9))
        else:
            own = window.caption or "nothing"
            logprobs = model.choose(features, prompt, list(dict.fromkeys((*texts, own)))).logprobs
            likelihood = max(logprobs[text] for text in texts) - logprobs[own]
        likelihood = max(_LOWEST, min(0.0, likelihood))
    probability = 1 / (1 + math.exp(-(_BIAS + _WORDS * cover.seen + _MODEL * (likelihood - _LOWEST))))
    hit = Hit(
        window,
        probability,
        cover.seen,
        likelihood,
        f"{math.exp(likelihood):.2f} times its caption by the model, {cover.seen:.0%} of the words",
    )
    if cover.said >= _SAID:
        said = 0.5 + 0.5 * cover.said - 1e-3
        return replace(hit, probability=said, why=f"said: {cover.said:.0%} of the words") if said > probability else hit
    return hit


def _prompt(library: Library, window: StoredWindow) -> str | None:
    row = library.row("SELECT prompt FROM video_runs JOIN makers ON makers.id = maker_id WHERE video_runs.id = ?", (window.run_id,))
    return None if row is None else str(row["prompt"])
