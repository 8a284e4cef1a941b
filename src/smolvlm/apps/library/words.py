"""Texts as SQLite's FTS5 should see them: Chinese, Japanese and Korean, which write no spaces, are split into characters."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise

# Radicals, kana, bopomofo, ideographs with their extensions, hangul; full-width letters stay words.
_CJK = (
    "\u2e80-\u2fdf\u3005-\u3007\u3040-\u30ff\u3100-\u312f\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff"
    "\U00020000-\U000323af"
)
_CHARACTER = re.compile(f"([{_CJK}])")
_PIECE = re.compile(rf"[{_CJK}]+|(?:(?![{_CJK}])\w)+")
_MOST_PIECES = 64  # of a query: more is no question, and each costs time
# Words of English that are in nearly every sentence and say nothing of what is looked for.
_COMMON = frozenset(
    "a an and are at be been being by for from had has have in is it its of on or that the then there to was were with".split()
)


def searchable(text: str) -> str:
    """`text` for a column of an FTS5 table."""
    return " ".join(_CHARACTER.sub(r" \1 ", text).split())


def is_common(word: str) -> bool:
    """Whether an English word says nothing of what is looked for ("the", "is")."""
    return word.lower() in _COMMON


def query_words(query: str) -> list[str]:
    """The words that a query looks for, lower case, in order and each once; runs of CJK as they stand."""
    found = list(dict.fromkeys(piece.lower() for piece in _PIECE.findall(query)))
    return [word for word in found if word not in _COMMON] or found


def match_query(query: str) -> str | None:
    """What to MATCH for any text that a user typed: any of its words, the rarer the better by BM25. None without a word.

    Nothing in `query` is FTS5's syntax: each word stands in quotes. CJK is looked up by neighbouring pairs of characters.
    """
    terms = [term for word in query_words(query)[:_MOST_PIECES] for term in _terms(word)]
    return " OR ".join(dict.fromkeys(f'"{term}"' for term in terms[:_MOST_PIECES])) or None


def _terms(word: str) -> Iterator[str]:
    if not _CHARACTER.match(word) or len(word) == 1:
        yield word
        return
    for left, right in pairwise(word):
        yield f"{left} {right}"
