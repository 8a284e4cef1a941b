"""A query in the wording of the captions: what the model would have said, if that is what happens."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

from smolvlm.apps.library import is_common
from smolvlm.apps.videos.synonyms import plainer, same_meaning

_ARTICLES = ("a", "an", "the")


class Wording:
    """The words that captions use, and how they join them."""

    def __init__(self, captions: Sequence[str]) -> None:
        self._words: Counter[str] = Counter()
        self._joins: dict[tuple[str, str], Counter[str]] = {}
        self._first: Counter[str] = Counter()
        for caption in captions:
            words = caption.lower().rstrip(".").split()
            self._words.update(words)
            self._first.update(words[:1])
            content = [i for i, word in enumerate(words) if not is_common(word)]
            for left, right in pairwise(content):
                self._joins.setdefault((words[left], words[right]), Counter())[" ".join(words[left + 1 : right])] += 1

    def put(self, query: str) -> str | None:
        """The query by the captions' words; None where a word of it is none of theirs, nor means the same as one."""
        words: list[str] = []
        for word in plainer(query).split():
            if word in _ARTICLES or is_common(word):
                words.append(word)
            elif (own := self._own(word)) is not None:
                words.append(own)
            else:
                return None
        content = self._ordered([word for word in words if not is_common(word)])
        if not content:
            return None
        made = [self._article(), content[0]]
        for left, right in pairwise(content):
            between = self._joins.get((left, right))
            made += [*(between.most_common(1)[0][0].split() if between else ()), right]
        return " ".join(word for word in made if word)

    def _ordered(self, words: list[str]) -> list[str]:
        """ "falling cat" as "cat falls", where captions join the two in this order alone."""
        words = list(words)
        for i in range(len(words) - 1):
            if (words[i], words[i + 1]) not in self._joins and (words[i + 1], words[i]) in self._joins:
                words[i], words[i + 1] = words[i + 1], words[i]
        return words

    def _own(self, word: str) -> str | None:
        if self._words[word]:
            return word
        others = [other for other in same_meaning(word) if self._words[other]]
        return max(others, key=lambda other: self._words[other]) if others else None

    def _article(self) -> str:
        best = self._first.most_common(1)
        return best[0][0] if best and best[0][0] in _ARTICLES else ""
