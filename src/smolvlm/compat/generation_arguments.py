"""`generate`'s keyword arguments, over the checkpoint's `generation_config.json`, over the reference's defaults."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smolvlm.compat.arguments import logger, refuse_unknown
from smolvlm.config import ModelConfig
from smolvlm.errors import ParamsError
from smolvlm.generation import GenerationParams
from smolvlm.json_file import read_json, short
from smolvlm.options.declare import checked, declared

# `GenerationConfig._get_default_generation_params` of transformers 5.23; 20 new tokens where no length is given.
_DEFAULTS: dict[str, Any] = {
    "max_new_tokens": None,
    "max_length": None,
    "do_sample": False,
    "temperature": 1.0,
    "top_k": 50,
    "top_p": 1.0,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "stop_strings": (),
    "eos_token_id": None,
    "pad_token_id": None,
}
_DEFAULT_NEW_TOKENS = 20
_NO_ID = 1 << 31  # no vocabulary comes near

# Accepted and without effect: our cache is always on, and for stop strings we have a tokenizer of our own.
_UNUSED = frozenset(
    {
        "use_cache",
        "cache_implementation",
        "cache_config",
        "disable_compile",
        "compile_config",
        "synced_gpus",
        "bos_token_id",
        "tokenizer",
        "use_model_defaults",
        "remove_invalid_values",
        "early_stopping",
        "length_penalty",
        "_from_model_config",
        "transformers_version",
        "low_memory",
    }
)
# Accepted at the value that asks for nothing.
_NEUTRAL: dict[str, Any] = {
    "num_beams": 1,
    "num_return_sequences": 1,
    "num_beam_groups": 1,
    "diversity_penalty": 0.0,
    "typical_p": 1.0,
    "min_length": 0,
    "min_new_tokens": 0,
    "return_dict_in_generate": False,
    "output_scores": False,
    "output_logits": False,
    "output_attentions": False,
    "output_hidden_states": False,
    "renormalize_logits": False,
    "epsilon_cutoff": 0.0,
    "eta_cutoff": 0.0,
    "encoder_repetition_penalty": 1.0,
    "encoder_no_repeat_ngram_size": 0,
    "guidance_scale": 1.0,
}
_REMEDIES = {
    "generation_config": "pass its values as keyword arguments",
    "logits_processor": "use the arguments of generate, or smolvlm.load(...).extract for a schema",
    "stopping_criteria": "use stop_strings=[...] or eos_token_id=[...]",
    "assistant_model": "leave it out",
    "seed": "call torch.manual_seed(...) before generate",
    "past_key_values": "use smolvlm.load(...).session(media), which keeps the cache of a conversation",
    "inputs_embeds": "pass input_ids and pixel_values",
}


@dataclass(frozen=True)
class GenerateArguments:
    """One call of `generate`, checked. `max_length` counts the padded prompt, as in the reference."""

    params: GenerationParams  # its max_new_tokens is a placeholder: see `new_tokens`
    eos_token_ids: tuple[int, ...]
    pad_token_id: int
    max_new_tokens: int | None
    max_length: int | None

    @classmethod
    def of(cls, arguments: Mapping[str, Any], from_file: Mapping[str, Any], config: ModelConfig) -> GenerateArguments:
        """Merge a call's arguments over those of the checkpoint's file.

        Raises ParamsError for an unknown argument, one that is not supported, or a value out of its range.
        """
        left = {name: value for name, value in arguments.items() if value is not None and name not in _UNUSED}
        for name, neutral in _NEUTRAL.items():
            value = left.pop(name, neutral)
            if value != neutral:
                raise ParamsError(f"generate: {name}={value!r} is not supported; leave it out or pass {neutral!r}.")
        for name, remedy in _REMEDIES.items():
            value = left.pop(name, None)
            if value is not None and not (isinstance(value, Sequence) and len(value) == 0):
                raise ParamsError(f"generate: {name} is not supported; {remedy}.")
        given = {**_DEFAULTS, **from_file, **{name: left.pop(name) for name in _DEFAULTS if name in left}}
        refuse_unknown(left, "generate", ", ".join(_DEFAULTS))
        if not isinstance(given["do_sample"], bool):
            raise ParamsError(f"do_sample={short(repr(given['do_sample']))}: expected True or False.")
        if given["do_sample"] and given["temperature"] == 0:
            raise ParamsError(
                "temperature=0 with do_sample=True: expected a temperature above 0; pass do_sample=False for the likeliest token."
            )
        eos = _token_ids(given["eos_token_id"], "eos_token_id") or config.eos_token_ids
        pad = _token_ids(given["pad_token_id"], "pad_token_id") or eos[:1]
        params = GenerationParams(
            temperature=given["temperature"] if given["do_sample"] else 0.0,
            top_k=given["top_k"],
            top_p=given["top_p"],
            min_p=given["min_p"],
            repetition_penalty=given["repetition_penalty"],
            no_repeat_ngram_size=given["no_repeat_ngram_size"],
            stop=given["stop_strings"],
            loop_guard=False,  # the reference has none, and the ids are to be its own
        )
        lengths = {name: _length(given[name], name) for name in ("max_new_tokens", "max_length")}
        return cls(params, eos, pad[0], lengths["max_new_tokens"], lengths["max_length"])

    def new_tokens(self, prompt_tokens: int) -> int:
        """Tokens to generate after a padded prompt. Raises ParamsError for a `max_length` that it fills already."""
        if self.max_new_tokens is not None:
            if self.max_length is not None:
                logger.warning("generate: max_new_tokens=%d goes before max_length", self.max_new_tokens)
            return self.max_new_tokens
        if self.max_length is None:
            return _DEFAULT_NEW_TOKENS
        if self.max_length <= prompt_tokens:
            raise ParamsError(
                f"max_length={self.max_length} counts the prompt, which has {prompt_tokens} tokens "
                "already; pass max_new_tokens=... instead."
            )
        return self.max_length - prompt_tokens


def read_generation_config(folder: Path) -> dict[str, Any]:
    """What `generation_config.json` says about our arguments, {} without the file; the log names what is not used.

    Raises ConfigError for a file that is no JSON object.
    """
    path = folder / "generation_config.json"
    if not path.exists():
        return {}
    raw = {name: value for name, value in read_json(path).items() if value is not None}
    unused = sorted(
        name for name, value in raw.items() if name not in _DEFAULTS and name not in _UNUSED and _NEUTRAL.get(name, ...) != value
    )
    if unused:
        logger.warning("%s: %s is not used", path, ", ".join(unused))
    return {name: value for name, value in raw.items() if name in _DEFAULTS}


def _length(value: Any, name: str) -> int | None:
    """A count of tokens, in the range of max_new_tokens."""
    made = dataclasses.replace(declared(GenerationParams)["max_new_tokens"], name=name, optional=True)
    number: int | None = checked(made, value)
    return number


def _token_ids(value: Any, name: str) -> tuple[int, ...]:
    """One id or several, as ints. A negative one never comes: so the reference's users turn `eos` off."""
    if value is None:
        return ()
    value = value.tolist() if hasattr(value, "tolist") else value
    try:
        ids = tuple(operator.index(item) for item in (value if isinstance(value, list | tuple) else [value]))
    except TypeError:
        ids = (_NO_ID,)
    if any(abs(item) >= _NO_ID for item in ids):
        raise ParamsError(f"{name}={short(repr(value))}: expected a token id or a list of them.")
    return ids
