"""Tokens to text as they come: never half a character, never a piece of a stop string, never what may still be cut."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from typing import TypeAlias

Decode: TypeAlias = Callable[[Sequence[int]], str]
AnswerText: TypeAlias = Callable[..., str]  # (ids) -> their text; (ids, special_tokens="keep") -> with the special tokens

_UNFINISHED = "\ufffd"  # how a byte-level decoder shows bytes that are not (yet) a character
_WINDOW = 16  # tokens decoded at a time at most, whatever the answer's length
_ENDS_OF_SENTENCE = tuple(".!?。！？…\n")


class TextStream:
    """Incremental detokenization of one answer, with stop strings.

    `decode` turns ids into text, skipping special tokens; it must be byte-level (the bytes of the tokens joined, then
    read as UTF-8 with replacement), for then only the last replacement character can change when more tokens come.

    The text is cut before the stop string that is complete first, so how it falls into tokens does not matter.
    The pieces returned by `push`, `cut` and `finish` joined are the final text.
    """

    def __init__(self, decode: Decode, stop: Sequence[str] = ()) -> None:
        self._decode = decode
        self._stop = tuple(stop)
        self._window: list[int] = []  # tokens since the last character boundary
        self._window_done = 0  # characters of the window's text that were taken
        self._pending = ""  # complete text that was not given out yet
        self._given = 0  # characters given out
        self._last_given = ""
        self._ends: list[int] = []  # characters of complete text after each token
        self.stopped = False  # a stop string is complete: the answer is over
        self.newest = ""  # the text that the newest token completed
        self.visible_tokens = 0  # tokens whose text the reader has, wholly or in part, once all is flushed

    def push(self, token_id: int, held: int = 0) -> str:
        """Take one token; the text that is safe to show now. The newest `held` tokens (0: none) may still be cut."""
        self.take(token_id)
        return self.show(held)

    def take(self, token_id: int) -> None:
        """The first half of `push`: for guards that read `newest` before they know what to hold back."""
        assert not self.stopped, "take after a stop string"
        self.newest = self._decode_one(token_id)
        self._pending += self.newest
        self._ends.append(self._given + len(self._pending))

    def show(self, held: int = 0) -> str:
        """The second half of `push`."""
        self.visible_tokens = len(self._ends)
        start = self._find_stop()
        if start is not None:
            self.stopped = True
            return self._end_at(self._given + start)
        safe = len(self._pending) - self._started_stop()
        if held:
            limit = self._ends[-1 - held] if held < len(self._ends) else 0
            safe = max(0, min(safe, limit - self._given))
        return self._give(safe)

    def cut(self, tokens: int, extend: int = 0) -> str:
        """End the text after `tokens` tokens, of which the rest was held back; the text that remains to be shown.

        A loop's first copy may begin and end in the middle of a sentence, for what stands before the loop can share its
        last words. So the cut moves on by up to `extend` tokens to where a sentence or line ends, if one does.
        """
        for count in range(tokens, min(tokens + extend, len(self._ends)) + 1):
            text = self._last_given + self._pending[: max(0, self._position(count) - self._given)]
            if text.rstrip(" ").endswith(_ENDS_OF_SENTENCE):
                tokens = count
                break
        text = self._end_at(self._position(tokens))
        self.visible_tokens = tokens
        return text

    def finish(self) -> str:
        """The rest of the text, at the answer's end; bytes that never became a character are dropped."""
        return self._give(len(self._pending))

    @property
    def settled_tokens(self) -> int:
        """Tokens whose whole text was given out, so that no cut can take them back."""
        return bisect_right(self._ends, self._given)

    def _position(self, tokens: int) -> int:
        return self._ends[tokens - 1] if tokens else 0

    def _end_at(self, position: int) -> str:
        """Forget the text from `position` on (it was not given out) and give the rest."""
        self.visible_tokens = bisect_left(self._ends, position) + 1 if position else 0
        self._pending = self._pending[: position - self._given]
        return self.finish()

    def _give(self, count: int) -> str:
        text, self._pending = self._pending[:count], self._pending[count:]
        self._given += count
        self._last_given = (self._last_given + text)[-8:]
        return text

    def _find_stop(self) -> int | None:
        """Where in the pending text the stop string begins that is complete first; a longer one wins a tie."""
        best: tuple[int, int] | None = None
        for stop in self._stop:
            start = self._pending.find(stop)
            if start >= 0 and (best is None or (start + len(stop), start) < best):
                best = (start + len(stop), start)
        return None if best is None else best[1]

    def _started_stop(self) -> int:
        """Characters at the end of the pending text that may be the beginning of a stop string."""
        longest = 0
        for stop in self._stop:
            for size in range(min(len(stop) - 1, len(self._pending)), longest, -1):
                if self._pending.endswith(stop[:size]):
                    longest = size
                    break
        return longest

    def _decode_one(self, token_id: int) -> str:
        self._window.append(token_id)
        text = self._decode(self._window)
        complete = text[:-1] if text.endswith(_UNFINISHED) else text
        new = complete[self._window_done :]
        if len(complete) == len(text):
            self._window, self._window_done = [], 0
        else:
            self._window_done = len(complete)
            if len(self._window) >= _WINDOW:
                self._shrink_window(text)
        return new

    def _shrink_window(self, text: str) -> None:
        """Drop tokens in front whose bytes are settled, when a run of bad bytes or special tokens fills the window.

        A character has at most four bytes, so of four neighbouring token boundaries one is a boundary of characters;
        decoding both sides of a false boundary apart gives more replacement characters than together.
        """
        window = [i for i in self._window if self._decode([i])]  # special tokens have no text
        for size in range(4, 8):
            if len(window) <= size:
                break
            front, back = self._decode(window[:-size]), self._decode(window[-size:])
            if front + back == text:
                self._window, self._window_done = window[-size:], self._window_done - len(front)
                return
        self._window = window
