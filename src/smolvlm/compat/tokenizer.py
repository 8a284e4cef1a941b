"""`processor.tokenizer` as users know it: decoding, names of tokens, and where padding goes."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from smolvlm.compat.arguments import UNUSED_ON_LOADING, local_folder, refuse_unknown, report_unused
from smolvlm.compat.features import BatchFeature, Padding, as_features, check_return_tensors
from smolvlm.compat.saving import refuse_upload, save_tokenizer_files
from smolvlm.config import TextConfig, load_configs
from smolvlm.errors import CheckpointError, ConfigError, ParamsError, PromptError
from smolvlm.families import SMOLVLM
from smolvlm.families.grammar import FAKE_IMAGE_TOKEN, IMAGE_TOKEN
from smolvlm.json_file import read_json, short
from smolvlm.prompt.segments import TextSegment
from smolvlm.prompt.template import token_text
from smolvlm.prompt.tokenizer import PromptTokenizer

# What `additional_special_tokens` of the published `tokenizer_config.json` holds.
_ADDITIONAL = (FAKE_IMAGE_TOKEN, IMAGE_TOKEN, *SMOLVLM.prompt.end_of_turn)


class _Role:
    """`tokenizer.pad_token`: the text of `pad_token_id`, and by assignment another token of the vocabulary."""

    def __init__(self, name: str) -> None:
        self._id = f"{name}_token_id"

    def __get__(self, owner: CompatTokenizer | None, kind: type | None = None) -> Any:
        if owner is None:
            return self
        number = getattr(owner, self._id)
        return None if number is None else owner._name(number)

    def __set__(self, owner: CompatTokenizer, token: Any) -> None:
        setattr(owner, self._id, owner._tokenizer.id_of(str(token)))


class AutoTokenizer:
    """`AutoTokenizer.from_pretrained(path)` gives a `CompatTokenizer`."""

    @staticmethod
    def from_pretrained(pretrained_model_name_or_path: Any, *, padding_side: str | None = None, **kwargs: Any) -> CompatTokenizer:
        """A checkpoint's tokenizer by folder, Hub id or short name. Raises what `AutoProcessor` raises."""
        folder = local_folder(pretrained_model_name_or_path, kwargs)
        report_unused(kwargs, UNUSED_ON_LOADING, "AutoTokenizer.from_pretrained")
        refuse_unknown(kwargs, "AutoTokenizer.from_pretrained", "padding_side, revision and local_files_only")
        model, _ = load_configs(folder)
        read = PromptTokenizer.from_folder(folder, model.model_type, model.text.vocab_size)
        tokenizer = CompatTokenizer.from_folder(folder, read, model.text)
        if padding_side is not None:
            tokenizer.padding_side = padding_side
        return tokenizer


class CompatTokenizer:
    """The checkpoint's tokenizer under the reference's names. `padding_side` and the tokens by role may be assigned.

    Text given to `encode` or a call is trusted, as in the reference: `<image>` in it is the control token.
    """

    is_fast = True

    def __init__(
        self,
        tokenizer: PromptTokenizer,
        ids: dict[str, int],
        padding_side: str = "right",
        folder: Path | None = None,
        model_max_length: int = 10**30,
    ) -> None:
        """`ids`: bos_token, eos_token, pad_token and, where there is one, unk_token by their ids."""
        self._tokenizer, self._folder = tokenizer, folder
        self.bos_token_id, self.eos_token_id = ids["bos_token"], ids["eos_token"]
        self.pad_token_id, self.unk_token_id = ids["pad_token"], ids.get("unk_token")
        self.name_or_path, self.model_max_length = str(folder or ""), model_max_length
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
        for role in ("bos_token", "eos_token", "pad_token", "unk_token"):
            if (token := token_text(raw, role, path)) is not None:
                ids[role] = tokenizer.id_of(token)
        side = raw.get("padding_side", "right")
        if side not in ("left", "right"):
            raise CheckpointError(f"{path}: padding_side={short(repr(side))} is neither 'left' nor 'right'; correct the file.")
        return cls(tokenizer, ids, side, folder, text.max_position_embeddings)

    @property
    def padding_side(self) -> str:
        """Where ("left" or "right") `padding=True` puts the padding."""
        return self._padding_side

    @padding_side.setter
    def padding_side(self, side: str) -> None:
        if side not in ("left", "right"):
            raise ParamsError(f"padding_side={side!r}: expected 'left' or 'right'.")
        self._padding_side = side

    bos_token, eos_token, pad_token, unk_token = (_Role(name) for name in ("bos", "eos", "pad", "unk"))

    @property
    def additional_special_tokens(self) -> list[str]:
        """The special tokens without a role of their own, as the published file lists them: those of media and turns."""
        return [token for token in _ADDITIONAL if self._tokenizer.has(token)]

    @property
    def additional_special_tokens_ids(self) -> list[int]:
        return [self._tokenizer.id_of(token) for token in self.additional_special_tokens]

    # The name that transformers 5 has for the same list.
    extra_special_tokens, extra_special_tokens_ids = additional_special_tokens, additional_special_tokens_ids

    @property
    def all_special_tokens(self) -> list[str]:
        """Those with a role and the additional ones, each once."""
        roles = [self.bos_token, self.eos_token, self.unk_token, self.pad_token]
        return list(dict.fromkeys(token for token in [*roles, *self.additional_special_tokens] if token is not None))

    @property
    def all_special_ids(self) -> list[int]:
        return [self._tokenizer.id_of(token) for token in self.all_special_tokens]

    @property
    def special_tokens_map(self) -> dict[str, Any]:
        """Role -> token, and the additional ones as a list."""
        roles = {f"{role}_token": getattr(self, f"{role}_token") for role in ("bos", "eos", "unk", "pad")}
        return {role: token for role, token in roles.items() if token is not None} | {
            "additional_special_tokens": self.additional_special_tokens
        }

    @property
    def vocab_size(self) -> int:
        """The ids of the base vocabulary; `len(tokenizer)` counts the added tokens too."""
        return len(self._tokenizer.vocabulary(with_added=False))

    def get_vocab(self) -> dict[str, int]:
        """Token -> id, added tokens included."""
        return self._tokenizer.vocabulary(with_added=True)

    def add_tokens(self, new_tokens: Any, special_tokens: bool = False) -> int:
        """0 for tokens that exist already. Raises ParamsError for others: the vocabulary is the checkpoint's."""
        del special_tokens
        named = [new_tokens] if isinstance(new_tokens, str) else list(new_tokens)
        if absent := [str(token) for token in named if not self._tokenizer.has(str(token))]:
            raise ParamsError(
                f"add_tokens: {', '.join(absent[:3])} cannot be added; use a reserved token of the vocabulary, "
                "such as <|reserved_special_token_0|>."
            )
        return 0

    def add_special_tokens(self, special_tokens_dict: dict[str, Any], **_: Any) -> int:
        """Gives roles to tokens that exist. Raises ParamsError for tokens that do not."""
        for role, tokens in special_tokens_dict.items():
            self.add_tokens(tokens)
            if isinstance(tokens, str) and role in ("bos_token", "eos_token", "pad_token", "unk_token"):
                setattr(self, role, tokens)
        return 0

    def save_pretrained(self, save_directory: Any, **_: Any) -> tuple[str, ...]:
        """The tokenizer's files into a folder, as they came. Returns their paths."""
        if self._folder is None:
            raise ParamsError("save_pretrained: this tokenizer was not read from a folder.")
        folder = Path(save_directory)
        return tuple(str(folder / name) for name in save_tokenizer_files(folder, self._folder))

    def push_to_hub(self, repo_id: Any = None, **_: Any) -> None:
        """Nothing is uploaded from here. Raises ParamsError with the two commands that do it."""
        refuse_upload("the tokenizer", repo_id)

    def __len__(self) -> int:
        """The size of the vocabulary, added tokens included."""
        return self._tokenizer.vocab_size

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """The ids of a trusted text. `add_special_tokens` changes nothing: this tokenizer adds none."""
        del add_special_tokens
        if not isinstance(text, str):
            raise PromptError(f"text is a {type(text).__name__}; expected a string.")
        return self._tokenizer.encode_segments([TextSegment(text, trusted=True)])

    def __call__(
        self,
        text: str | Sequence[str],
        *,
        padding: bool | str | None = False,
        max_length: int | None = None,
        padding_side: str | None = None,
        return_tensors: str | None = None,
        add_special_tokens: bool = True,
    ) -> BatchFeature:
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

    def decode(self, token_ids: Any, skip_special_tokens: bool = False, *, clean_up_tokenization_spaces: bool | None = None) -> Any:
        """The text of a row of ids (list, array or tensor); of several rows a list, as `transformers` 5 does."""
        if clean_up_tokenization_spaces:
            raise ParamsError("clean_up_tokenization_spaces=True is not supported: this tokenizer keeps its spaces.")
        plain = _plain_ids(token_ids)
        if isinstance(plain, list) and plain and isinstance(plain[0], list):
            return [self._decode(row, skip_special_tokens) for row in plain]
        return self._decode(plain if isinstance(plain, list) else [plain], skip_special_tokens)

    def batch_decode(
        self, sequences: Any, skip_special_tokens: bool = False, *, clean_up_tokenization_spaces: bool | None = None
    ) -> list[str]:
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

    def convert_ids_to_tokens(self, ids: Any, skip_special_tokens: bool = False) -> Any:
        """The tokens of ids, in the vocabulary's own spelling: one for one id, a list for several."""
        plain = _plain_ids(ids)
        if not isinstance(plain, list):
            return self._tokenizer.token_of(plain)
        special = self._tokenizer.special_ids if skip_special_tokens else frozenset()
        return [self._tokenizer.token_of(token) for token in plain if token not in special]

    def tokenize(self, text: str, **_: Any) -> list[str]:
        """The tokens of a trusted text, in the vocabulary's own spelling."""
        tokens: list[str] = self.convert_ids_to_tokens(self.encode(text))
        return tokens

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
