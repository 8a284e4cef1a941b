"""Detects an answer that says the same few sentences again and again, with list numbers or other crumbs between them."""

from __future__ import annotations

import re
from collections import Counter, deque

# A sentence ends at a full stop before white space, at a Chinese one anywhere, or with its line.
_END = re.compile(r"[.!?]+(?=\s)|[。！？]|\n")
# List markers at the beginning: `12. `, `(3) `, `- `, `* `. Times such as 00:12 are content, and stay.
_MARKER = re.compile(r"^[\s\-*•#>]*(?:\(?\d{1,3}[.)]\s)?\s*")
_LONGEST_CHARS = 600  # of an unfinished sentence; what is longer is cut here, so that text without stops costs nothing


class SentenceGuard:
    """Watches one answer's text, for what `LoopGuard` cannot see: `1. A cat. 2. A cat. 3. A cat.` never repeats exactly.

    A sentence of at least `words` words is stale when it was said `allowed` times before. After a stale one all is held
    back. The next fresh sentence lets it go; `run` stale ones in a row, of at most three different wordings, confirm.
    Refrains survive: in a poem something fresh comes between, and a chorus has more than three lines.
    Shorter sentences (such as the `1.` of a list) count neither way.
    """

    def __init__(self, words: int = 4, allowed: int = 2, run: int = 5) -> None:
        self._words = words
        self._allowed = allowed
        self._said: Counter[str] = Counter()
        self._stale: deque[str] = deque(maxlen=run)
        self._tokens = 0
        self._held_from: int | None = None  # tokens up to the end of the first stale sentence
        self._unfinished = ""
        self.start: int | None = None  # confirmed: the answer should end after so many tokens

    def push(self, text: str) -> int:
        """Take the text that one more token completed; the number of newest tokens to hold back. May set `start`."""
        self._tokens += 1
        self._unfinished += text
        while (end := _END.search(self._unfinished)) or len(self._unfinished) > _LONGEST_CHARS:
            cut = end.end() if end else _LONGEST_CHARS
            self._sentence(self._unfinished[:cut])
            self._unfinished = self._unfinished[cut:]
        return 0 if self._held_from is None else self._tokens - self._held_from

    def _sentence(self, raw: str) -> None:
        sentence = " ".join(_MARKER.sub("", raw).casefold().split()).rstrip(".!?。！？")
        # Chinese writes no spaces: count two characters as a word there.
        count = len(sentence.split()) + sum(1 for c in sentence if "\u4e00" <= c <= "\u9fff") // 2
        if count < self._words:
            return
        stale = self._said[sentence] >= self._allowed
        self._said[sentence] += 1
        if not stale:
            self._stale.clear()
            self._held_from = None
            return
        self._stale.append(sentence)
        if self._held_from is None:
            self._held_from = self._tokens
        elif len(self._stale) == self._stale.maxlen and len(set(self._stale)) <= 3 and self.start is None:
            self.start = self._held_from
