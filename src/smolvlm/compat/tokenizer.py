"""`processor.tokenizer` as users know it: decoding, names of tokens, and where padding goes."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from smolvlm.compat.features import BatchFeature, Padding, as_features, check_return_tensors
from smolvlm.config import TextConfig
from smolvlm.errors import CheckpointError, ConfigError, ParamsError, PromptError
from smolvlm.json_file import read_json, short
from smolvlm.prompt.placeholders import IMAGE_TOKEN
from smolvlm.prompt.segments import TextSegment
from smolvlm.prompt.template import token_text
from smolvlm.prompt.tokenizer import PromptTokenizer


class CompatTokenizer:
    """The checkpoint's tokenizer under the reference's names. Only `padding_side` may be assigned.

    Text given to `encode` or a call is trusted, as in the reference: `<image>` in it is the control token.
    """

    def __init__(self, tokenizer: PromptTokenizer, ids: dict[str, int], padding_side: str = "right") -> None:
        """`ids`: bos_token, eos_token and pad_token by their ids."""
        self._tokenizer = tokenizer
        self.bos_token_id, self.eos_token_id = ids["bos_token"], ids["eos_token"]
        self.pad_token_id = ids["pad_token"]
        self.image_token, self.image_token_id = IMAGE_TOKEN, tokenizer.id_of(IMAGE_TOKEN)
        self.padding_side = padding_side

    @classmethod
    def from_folder(cls, folder: Path, tokenizer: PromptTokenizer, text: TextConfig) -> CompatTokenizer:
        """With the roles and the side of `tokenizer_config.json`; what it omits is taken from `config.json`.

        Raises CheckpointError naming the file at fault.
        """
        path = folder / "tokenizer_config.json"
        try:
            raw = read_json(path) if path.exists() else {}
        except ConfigError as error:
            raise CheckpointError(str(error)) from None
        ids = {"bos_token": text.bos_token_id, "eos_token": text.eos_token_id, "pad_token": text.pad_token_id}
        for role in ids:
            if (token := token_text(raw, role, path)) is not None:
                ids[role] = tokenizer.id_of(token)
        side = raw.get("padding_side", "right")
        if side not in ("left", "right"):
            raise CheckpointError(f"{path}: padding_side={short(repr(side))} is neither 'left' nor 'right'; correct the file.")
        return cls(tokenizer, ids, side)

    @property
    def padding_side(self) -> str:
        """ "left" or "right": where `padding=True` puts the padding."""
        return self._padding_side

    @padding_side.setter
    def padding_side(self, side: str) -> None:
        if side not in ("left", "right"):
            raise ParamsError(f"padding_side={side!r}: expected 'left' or 'right'.")
        self._padding_side = side

    @property
    def bos_token(self) -> str:
        return self._name(self.bos_token_id)

    @property
    def eos_token(self) -> str:
        return self._name(self.eos_token_id)

    @property
    def pad_token(self) -> str:
        return self._name(self.pad_token_id)

    def __len__(self) -> int:
        """The size of the vocabulary, added tokens included."""
        return self._tokenizer.vocab_size

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """The ids of a trusted text. `add_special_tokens` changes nothing: this tokenizer adds none."""
        del add_special_tokens
        if not isinstance(text, str):
            raise PromptError(f"text is a {type(text).__name__}; expected a string.")
        return self._tokenizer.encode_segments([TextSegment(text, trusted=True)])

    def __call__(self, text: str | Sequence[str], *, padding: bool | str | None = False, max_length: int | None = None,
                 padding_side: str | None = None, return_tensors: str | None = None,
                 add_special_tokens: bool = True) -> BatchFeature:  # fmt: skip
        """`input_ids` and `attention_mask` of one trusted text or of several."""
        del add_special_tokens
        single = isinstance(text, str)
        rows = [self.encode(item) for item in ([text] if isinstance(text, str) else text)]
        how = padding_of(padding, max_length, None, padding_side)
        ids, mask = how.apply(rows, self.pad_token_id, self.padding_side)
        tensors = check_return_tensors(return_tensors)
        if single and tensors is None:
            return BatchFeature({"input_ids": ids[0], "attention_mask": mask[0]})
        return as_features({"input_ids": ids, "attention_mask": mask}, {}, tensors)

    def decode(self, token_ids: Any, skip_special_tokens: bool = False, *,
               clean_up_tokenization_spaces: bool | None = None) -> Any:  # fmt: skip
        """The text of a row of ids (list, array or tensor); of several rows a list, as `transformers` 5 does."""
        if clean_up_tokenization_spaces:
            raise ParamsError("clean_up_tokenization_spaces=True is not supported: this tokenizer keeps its spaces.")
        plain = _plain_ids(token_ids)
        if isinstance(plain, list) and plain and isinstance(plain[0], list):
            return [self._decode(row, skip_special_tokens) for row in plain]
        return self._decode(plain if isinstance(plain, list) else [plain], skip_special_tokens)

    def batch_decode(self, sequences: Any, skip_special_tokens: bool = False, *,
                     clean_up_tokenization_spaces: bool | None = None) -> list[str]:  # fmt: skip
        """One text a row; a single row of ids gives a list of one."""
        texts = self.decode(sequences, skip_special_tokens, clean_up_tokenization_spaces=clean_up_tokenization_spaces)
        if isinstance(texts, str):
            return [texts] if len(sequences) else []
        return list(texts)

    def convert_tokens_to_ids(self, tokens: str | Sequence[str]) -> int | list[int]:
        """The id of an exact token, or of each of several. Raises CheckpointError for one that the vocabulary lacks."""
        if isinstance(tokens, str):
            return self._tokenizer.id_of(tokens)
        return [self._tokenizer.id_of(token) for token in tokens]

    def _decode(self, ids: list[Any], skip_special_tokens: bool) -> str:
        return self._tokenizer.decode(ids, skip_special_tokens=skip_special_tokens)

    def _name(self, token_id: int) -> str:
        return self._tokenizer.decode([token_id], skip_special_tokens=False)


def padding_of(padding: Any, max_length: int | None, multiple_of: int | None, side: str | None) -> Padding:
    """The reference's `padding` argument with those that go with it. Raises ParamsError for unknown values."""
    if padding in (None, False, "do_not_pad"):
        return Padding(None, max_length, multiple_of, side)
    return Padding("longest" if padding is True else str(padding), max_length, multiple_of, side)


def _plain_ids(token_ids: Any) -> Any:
    """Lists of int (or one int) from lists, arrays and tensors, one or two levels deep."""
    if hasattr(token_ids, "tolist"):
        token_ids = token_ids.tolist()
    if isinstance(token_ids, list | tuple):
        return [_plain_ids(item) for item in token_ids]
    try:
        return operator.index(token_ids)
    except TypeError:
        raise PromptError(f"{type(token_ids).__name__} is no token id; pass the ids that generate returned.") from None
