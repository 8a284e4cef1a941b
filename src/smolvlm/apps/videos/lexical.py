"""The lexical side of a search: which windows have the query's words, and how much of the query they cover."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from smolvlm.apps.library import Library, match_query, query_words
from smolvlm.apps.videos.synonyms import plainer, same_meaning

_MOST_WORDS = 16
_FIELDS = {"seen": "{caption}", "nearly": "{tags}", "said": "{spoken}"}


@dataclass(frozen=True)
class Cover:
    """Of a window: the share of the query's words in its caption, its tags and what is said, each word weighted by how rare it is;
    `bm25` is larger for better."""

    seen: float = 0.0
    nearly: float = 0.0
    said: float = 0.0
    bm25: float = 0.0


def covers(library: Library, query: str, runs: Sequence[int]) -> Mapping[int, Cover]:
    """The windows of `runs` that have any word of the query, by their id."""
    words = query_words(plainer(query))[:_MOST_WORDS]
    scope = json.dumps(list(runs))
    total = int(library.rows("SELECT COUNT(*) FROM video_windows WHERE run_id IN (SELECT value FROM json_each(?))", (scope,))[0][0])
    matched: dict[str, dict[int, float]] = {field: defaultdict(float) for field in _FIELDS}
    whole = 0.0
    for word in words:
        match = match_query(" ".join(same_meaning(word)))
        if match is None:
            continue
        found = {field: _having(library, f"{columns} : ({match})", scope) for field, columns in _FIELDS.items()}
        rarity = math.log((total + 1) / (len(set().union(*found.values())) + 0.5)) + 0.1
        whole += rarity
        for field, windows in found.items():
            for window in windows:
                matched[field][window] += rarity
    ranks = _bm25(library, " ".join(part for word in words for part in same_meaning(word)), scope)
    every = set().union(*matched.values())

    def share(field: str, window: int) -> float:
        return matched[field].get(window, 0.0) / whole

    return {w: Cover(share("seen", w), share("nearly", w), share("said", w), ranks.get(w, 0.0)) for w in every}


def _having(library: Library, match: str, scope: str) -> set[int]:
    rows = library.rows(
        "SELECT video_windows.id FROM video_words JOIN video_windows ON video_windows.id = video_words.rowid "
        "WHERE video_words MATCH ? AND run_id IN (SELECT value FROM json_each(?))",
        (match, scope),
    )
    return {row[0] for row in rows}


def _bm25(library: Library, words: str, scope: str) -> dict[int, float]:
    match = match_query(words)
    if match is None:
        return {}
    rows = library.rows(
        "SELECT video_windows.id, -bm25(video_words, 1.0, 0.5, 0.8) FROM video_words "
        "JOIN video_windows ON video_windows.id = video_words.rowid "
        "WHERE video_words MATCH ? AND run_id IN (SELECT value FROM json_each(?))",
        (match, scope),
    )
    return {row[0]: float(row[1]) for row in rows}
