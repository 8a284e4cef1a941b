"""A request's JSON while it comes in: long pictures and videos are put aside, everything else is counted and small.

A parser sees only what is left, at most `max_bytes` with a few values: forty megabytes of `[],[],...` are refused after the
first, and nobody waits for a picture to be looked through for brackets. What is put aside goes back as text where media may
stand; text of that length in any other place is refused.
"""

from __future__ import annotations

import json
import math
import re
import secrets
from itertools import islice
from typing import Any, TypeAlias

from smolvlm.serve.api.wording import path_of
from smolvlm.serve.errors import ServeError

MOST_VALUES = 50_000  # numbers, strings, lists and objects
MOST_DEPTH = 200
_LONGEST_NUMBER = 400  # digits; a float has 309 before its point
_LONG = 4096  # bytes of a string from which on it is put aside, if it looks like a medium
_QUOTE = 0x22
_SHORT_STRINGS = re.compile(rb'(?:[^"]*"[^"\\]{0,1024}")*')  # and what is between them
_SHORT_STRING = re.compile(rb'"[^"]*"')
_STRING = re.compile(rb'[^"\\]*(?:\\.[^"\\]*)*', re.DOTALL)
_BRACKETS = re.compile(rb"[\[\]{}]")
_BASE64 = re.compile(rb"[A-Za-z0-9+/=_\\\-]*")
_MEDIA_KEYS = frozenset({"data", "image", "images", "video", "videos", "frames", "audio", "file_data", "image_data", "source"})
# Escapes that encoders write into base64 although JSON does not ask for them.
_ESCAPES = (
    (rb"\/", b"/"),
    (rb"\n", b"\n"),
    (rb"\r", b"\r"),
    (rb"\u002B", b"+"),
    (rb"\u002b", b"+"),
    (rb"\u002F", b"/"),
    (rb"\u002f", b"/"),
    (rb"\u003D", b"="),
    (rb"\u003d", b"="),
)
_PIECE = 1 << 20  # bytes that are looked through with the interpreter's lock held

# A list or object, the key or place that it has in its parent, and its parent.
_Place: TypeAlias = "tuple[Any, str, _Place | None]"


class JsonBody:
    """`feed` it as the body comes, then take `value`. Both raise ServeError: 413 for too much, 400 for what is no JSON."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._small = bytearray()  # the JSON, with marks in the places of media
        self._at = 0  # how far it has been looked at
        self._start = -1  # of the string that it ends in; -1: in none
        self._values, self._depth = 1, 0
        self._mark = f"smolvlm-{secrets.token_hex(16)}-"  # nobody can send one
        self._media: list[bytearray] = []
        self._in_medium = False

    def feed(self, data: bytes) -> None:
        """The next piece of the body."""
        while data:
            if self._in_medium:
                data = self._feed_medium(data)
                continue
            self._small += data
            data = self._scan()
            if len(self._small) > self._max_bytes:
                raise _too_much(f"more than {self._max_bytes} bytes")

    def value(self) -> Any:
        """The JSON of the whole body. Takes a while for large media: not for the event loop."""
        try:
            tree = json.loads(
                self._small.decode("utf-8-sig"), parse_float=_float, parse_int=_int, parse_constant=_constant, object_pairs_hook=_object
            )
        except UnicodeDecodeError:
            raise _invalid("it is not UTF-8") from None
        except RecursionError:
            raise _too_deep() from None
        except json.JSONDecodeError as error:
            place = "" if self._media else f" at character {error.pos}"
            raise _invalid(f"{error.msg[:1].lower()}{error.msg[1:]}{place}") from None
        self._small.clear()
        if self._media:
            tree = self._put_back(tree)
        return tree

    def _scan(self) -> bytes:
        """Look at what is new; what comes after the beginning of a medium is returned, to be fed again."""
        small = self._small
        while self._at < len(small):
            if self._start < 0:
                end = _end_of(_SHORT_STRINGS, small, self._at)
                self._count(_SHORT_STRING.sub(b"", small[self._at : end]))
                quote = small.find(_QUOTE, end)
                self._at = quote if quote >= 0 else len(small)
                self._count(bytes(small[end : self._at]))
                if quote < 0:
                    break
                self._start = self._at = quote + 1
            self._at = _end_of(_STRING, small, self._at)
            if self._at - self._start > _LONG and self._looks_like_a_medium():
                rest = bytes(small[self._start :])
                del small[self._start :]
                small += f"{self._mark}{len(self._media)}".encode()
                self._at, self._in_medium = len(small), True
                self._media.append(bytearray())
                return rest
            if self._at == len(small) or small[self._at] != _QUOTE:
                break  # the string goes on in the next piece
            self._at, self._start = self._at + 1, -1
        return b""

    def _count(self, part: bytes) -> None:
        """Count the values of a part in which no string is."""
        self._values += part.count(b",") + part.count(b"[") + part.count(b"{")
        too_many = self._values > MOST_VALUES  # then the first brackets alone say whether it is worse than that
        for bracket in islice(_BRACKETS.finditer(part), 2 * MOST_DEPTH if too_many else None):
            self._depth += 1 if bracket[0] in b"[{" else -1
            if self._depth > MOST_DEPTH:
                raise _too_deep()
            if self._depth < 0:
                raise _invalid("a bracket is closed that was not opened")
        if too_many:
            raise _too_much(f"more than {MOST_VALUES} values")

    def _looks_like_a_medium(self) -> bool:
        head = bytes(self._small[self._start : self._start + _LONG])
        return head[:5].lower() == b"data:" or _BASE64.fullmatch(head) is not None

    def _feed_medium(self, data: bytes) -> bytes:
        medium = self._media[-1]
        end = data.find(_QUOTE)
        if end < 0:
            medium += data
            return b""
        medium += data[:end]
        if medium.endswith(b"\\"):
            raise _invalid("a picture or video has a quotation mark in it; send base64")
        self._in_medium = False
        return data[end:]

    def _put_back(self, tree: Any) -> Any:
        """Texts in the places of their marks, in `tree` itself."""
        left: list[_Place] = [(tree, "", None)]
        if isinstance(tree, str):
            raise _invalid("expected an object")
        found = 0
        while left:
            place = left.pop()
            value, key, _ = place
            for name, item in value.items() if isinstance(value, dict) else enumerate(value):
                if isinstance(item, dict | list):
                    left.append((item, str(name), place))
                elif isinstance(item, str) and item.startswith(self._mark):
                    number = int(item[len(self._mark) :])
                    if not _may_be_media(name if isinstance(name, str) else key):
                        raise _too_much(f"a text of {len(self._media[number])} bytes in {_path(place, name)}")
                    value[name] = _text(self._media[number])
                    self._media[number] = bytearray()
                    found += 1
        if found < len(self._media):
            raise _too_much("the name of a field that is longer than any")
        return tree


def _end_of(pattern: re.Pattern[bytes], data: bytearray, start: int) -> int:
    """Where a pattern that matches nothing too ends."""
    matched = pattern.match(data, start)
    return matched.end() if matched is not None else start


def _may_be_media(key: str) -> bool:
    return key in _MEDIA_KEYS or key.endswith(("url", "b64"))


def _path(place: _Place, name: str | int) -> str:
    """Where something stands, as in `messages[0].content`; long names are cut."""
    names: list[str | int] = [name if isinstance(name, int) else name[:40]]
    above: _Place | None = place
    while above is not None and above[2] is not None:
        names.append(int(above[1]) if isinstance(above[2][0], list) else above[1][:40])
        above = above[2]
    return path_of(reversed(names))


def _text(medium: bytearray) -> str:
    """A medium as text, its harmless escapes undone; piece by piece, so that other threads get their turn."""
    pieces = []
    start = 0
    while start < len(medium):
        end = min(start + _PIECE, len(medium))
        if end < len(medium) and (cut := medium.rfind(b"\\", max(start + 1, end - 6), end)) >= 0:
            end = cut  # not inside of an escape
        piece = bytes(medium[start:end])
        if b"\\" in piece:
            for escape, character in _ESCAPES:
                piece = piece.replace(escape, character)
        if b"\\" in piece or not piece.isascii():
            raise _invalid("a picture or video holds characters that are not base64's")
        pieces.append(piece.decode("ascii"))
        start = end
    return "".join(pieces)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise _invalid(f"the field {twice[:60]!a} stands twice in one object")
    return made


def _float(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise _invalid(f"the number {text[:20]} is larger than any that can be computed with")
    return number


def _int(text: str) -> int:
    if len(text) > _LONGEST_NUMBER:
        raise _invalid(f"a number of {len(text)} digits")
    return int(text)


def _constant(text: str) -> float:
    raise _invalid(f"{text} is no number of JSON")


def _too_much(what: str) -> ServeError:
    return ServeError(413, f"the request's JSON holds {what}; only pictures and videos, as base64, may be large.", code="request_too_large")


def _too_deep() -> ServeError:
    return _invalid(f"it is nested deeper than {MOST_DEPTH} levels")


def _invalid(what: str) -> ServeError:
    return ServeError(400, f"the body is not valid JSON: {what}.", code="invalid_json")
