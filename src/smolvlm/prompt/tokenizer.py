"""`tokenizer.json` -> token ids, with one rule of our own: only text that we wrote can become a control token.

A control token is any of the file's added tokens: `<image>`, `<end_of_utterance>`, `<row_1_col_1>` and their like.
Typed text is encoded as if the tokenizer had none: `<image>` in a question is seven characters (CVE-2026-44222).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

from smolvlm.errors import CheckpointError, PromptError, is_failure
from smolvlm.families import family_of
from smolvlm.prompt.segments import Segment, TextSegment
from smolvlm.prompt.tokenizer_file import as_text, checked_tokenizer, read_tokenizer_text


@dataclass(frozen=True)
class _Control:
    """An added token: its id, and whether the file lets it swallow the white space beside it."""

    id: int
    lstrip: bool
    rstrip: bool


class PromptTokenizer:
    """A checkpoint's tokenizer. `json` is the file's text, which a grammar compiler needs.

    `model_type` is that of `config.json`; with the added tokens it tells the family. `vocab_size` is the model's: tokens
    beyond it that the family's published files have are left out. Raises CheckpointError, naming `label`, for text that
    is not a tokenizer.
    """

    def __init__(self, json_text: str, label: str = "tokenizer.json", model_type: str = "smolvlm", vocab_size: int | None = None) -> None:
        self.label = label
        raw = checked_tokenizer(json_text, label)
        self.added_tokens = frozenset(token["content"] for token in raw["added_tokens"])
        family = family_of(model_type, self.added_tokens)
        if vocab_size is not None:
            raw["added_tokens"] = [
                token for token in raw["added_tokens"] if token["id"] < vocab_size or token["content"] not in family.surplus_tokens
            ]
        self.json = as_text(raw)
        try:
            self._decoder = Tokenizer.from_str(self.json)
            self._plain = Tokenizer(self._decoder.model)  # the same vocabulary, shared, without any added token
            self._plain.pre_tokenizer = self._decoder.pre_tokenizer
            # Asked of the library, not read from the file: it gives ids of its own where the file leaves gaps.
            known = self._decoder.get_added_tokens_decoder()
        except BaseException as error:
            if not is_failure(error):
                raise
            raise CheckpointError(
                f"{label}: not a tokenizer that can be read ({_reason(error)}); take the file of the published checkpoint."
            ) from None
        self._controls = {t.content: _Control(i, t.lstrip, t.rstrip) for i, t in known.items() if t.content}
        self.control_ids = frozenset(known)
        self.special_ids = frozenset(i for i, token in known.items() if token.special)
        self.markup_ids = frozenset(i for i, token in known.items() if family.is_markup(token.content))
        # Longest first, as the library matches: `<row_1_col_10>` must not be read as `<row_1_col_1`.
        names = sorted(self._controls, key=len, reverse=True)
        self._trusted_pattern = re.compile("|".join(map(re.escape, names)) or "(?!)")
        # Markup that a document model writes is also what its users may ask for: `<otsl>`, `<chart>`.
        markup = [name for name in names if self._controls[name].id in self.markup_ids]
        self._typed_pattern = re.compile("|".join(map(re.escape, markup)) or "(?!)")

    @classmethod
    def from_folder(cls, folder: Path, model_type: str = "smolvlm", vocab_size: int | None = None) -> PromptTokenizer:
        """Read `tokenizer.json` of a checkpoint folder. Raises CheckpointError naming the file."""
        path = Path(folder) / "tokenizer.json"
        return cls(read_tokenizer_text(path), str(path), model_type, vocab_size)

    @property
    def vocab_size(self) -> int:
        """One more than the largest id, added tokens included: 49,280 officially."""
        return int(max(self._decoder.get_vocab(with_added_tokens=True).values(), default=-1)) + 1

    def id_of(self, token: str) -> int:
        """The id of one token by its exact name. Raises CheckpointError when the vocabulary has none."""
        found = self._decoder.token_to_id(token)
        if found is None:
            raise CheckpointError(f"{self.label}: no token {token!r}; this is no tokenizer of a SmolVLM.")
        return int(found)

    def has(self, token: str) -> bool:
        """Whether the vocabulary has this exact token."""
        return self._decoder.token_to_id(token) is not None

    def token_of(self, token_id: int) -> str | None:
        """The token with this id, in the vocabulary's own spelling; None where there is none."""
        return self._decoder.id_to_token(token_id) if 0 <= token_id < 1 << 32 else None

    def vocabulary(self, *, with_added: bool) -> dict[str, int]:
        """Token -> id."""
        return dict(self._decoder.get_vocab(with_added_tokens=with_added))

    def has_id(self, token_id: int) -> bool:
        """Whether a token has this id."""
        return self.token_of(token_id) is not None

    def encode_segments(self, segments: Iterable[Segment]) -> list[int]:
        """The ids of a prompt: control tokens from trusted stretches only, everything between them as one plain text.

        Equal to the reference's ids of the joined string whenever the untrusted stretches spell no control token. Names
        that the vocabulary lacks (first-generation checkpoints have no `<row_1_col_1>`) are plain text, also as there.
        """
        ids: list[int] = []
        stretch: list[TextSegment] = []
        for segment in segments:
            if isinstance(segment, TextSegment):
                stretch.append(segment)
                continue
            ids += self._encode_text(stretch)
            ids += segment.ids
            stretch = []
        return ids + self._encode_text(stretch)

    def encode_text(self, text: str) -> list[int]:
        """The ids of plain text: never a control token."""
        if not text:
            return []
        try:
            ids: list[int] = self._plain.encode(text, add_special_tokens=False).ids
        except BaseException as error:  # lone surrogates end in a foreign error
            if not is_failure(error):
                raise
            raise PromptError(f"the text cannot be tokenized ({_reason(error)}); pass valid Unicode.") from None
        if not self.control_ids.isdisjoint(ids):
            token = next(i for i in ids if i in self.control_ids)
            name = self._decoder.id_to_token(token)
            raise CheckpointError(
                f"{self.label}: plain text would become the control token {name!r}; take the file of the published checkpoint."
            )
        return ids

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        """The text of `ids`; bytes that are no whole character become U+FFFD. Spaces are left as they are."""
        try:
            return str(self._decoder.decode(list(ids), skip_special_tokens=skip_special_tokens))
        except BaseException as error:  # ids below 0 or beyond 32 bits end in a foreign error
            if not is_failure(error):
                raise
            raise PromptError(f"these token ids cannot be decoded ({_reason(error)}).") from None

    def answer_text(self, ids: Sequence[int], special_tokens: str = "strip") -> str:
        """The text of an answer: without special tokens, but for the markup that the family writes; "keep" shows all."""
        if special_tokens == "keep":
            return self.decode(ids, skip_special_tokens=False)
        if self.markup_ids:
            shown = [i for i in ids if i not in self.special_ids or i in self.markup_ids]
            return self.decode(shown, skip_special_tokens=False)
        return self.decode(ids)

    def _encode_text(self, stretch: list[TextSegment]) -> list[int]:
        text = "".join(segment.text for segment in stretch)
        ids: list[int] = []
        start = 0
        for begin, end, control in self._found(stretch, text):
            ids += self.encode_text(text[start:begin])
            ids.append(control.id)
            start = end
        return ids + self.encode_text(text[start:])

    def _found(self, stretch: list[TextSegment], text: str) -> Iterable[tuple[int, int, _Control]]:
        """Where control tokens stand in the joined text. A match never reaches across a trust boundary."""
        offset = last = 0
        for trusted, piece in _merged(stretch):
            for match in (self._trusted_pattern if trusted else self._typed_pattern).finditer(piece):
                control = self._controls[match.group()]
                begin, end = offset + match.start(), offset + match.end()
                if control.lstrip:
                    begin = last + len(text[last:begin].rstrip())
                if control.rstrip:
                    end = len(text) - len(text[end:].lstrip())
                if begin >= last:
                    yield begin, end, control
                    last = end
            offset += len(piece)


def _merged(stretch: list[TextSegment]) -> Iterable[tuple[bool, str]]:
    """Neighbours of the same trust as one piece, so that a control token may be written in two parts."""
    pieces: list[tuple[bool, str]] = []
    for segment in stretch:
        if pieces and pieces[-1][0] == segment.trusted:
            pieces[-1] = (segment.trusted, pieces[-1][1] + segment.text)
        else:
            pieces.append((segment.trusted, segment.text))
    return pieces


def _reason(error: BaseException) -> str:
    text = " ".join(str(error).split()).rstrip(".")
    return (text if len(text) <= 200 else f"{text[:197]}...") or type(error).__name__
