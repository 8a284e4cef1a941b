"""The keys of `config.json` that change the graph, and the values that this graph has.

A key here may be absent or null. With any other value than its own the checkpoint is another model, whose tensors may
well have the same names: it would load and answer wrongly.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from smolvlm.families.family import Family
from smolvlm.json_file import Fields


class Rule(NamedTuple):
    """Which values of a key this graph has, in code and in words."""

    accepts: Callable[[Any], bool]
    expected: str


def _only(value: bool | float | str, model: str = "") -> Rule:
    """One value; 1 and 1.0 are the same number, and true is no number."""

    def accepts(found: Any) -> bool:
        return isinstance(found, bool) == isinstance(value, bool) and bool(found == value)

    shown = f"'{value}'" if isinstance(value, str) else str(value).lower()
    return Rule(accepts, f"{shown}{model}")


def _absent(model: str) -> Rule:
    return Rule(lambda _: False, f"null: {model}")


def _each(value: float | str, model: str) -> Rule:
    """A list with one value throughout, one entry a layer."""
    one = _only(value)
    return Rule(lambda found: isinstance(found, list) and all(map(one.accepts, found)), f"a list of {one.expected} only: {model}")


_FULL = "every layer of this decoder looks at all earlier tokens"
_ROTARY = "every layer of this decoder has rotary positions"
_PLAIN = ": this decoder scales nothing"

TOP_RULES: dict[str, Rule] = {
    "quantization_config": _absent(
        "weights quantized by gptq, awq, bitsandbytes and the like are not read; take the original checkpoint, and "
        "`smolvlm quantize` for a smaller one"
    ),
    "is_encoder_decoder": _only(False),
}

TEXT_RULES: dict[str, Rule] = {
    "hidden_act": _only("silu"),
    "attention_bias": _only(False),
    "mlp_bias": _only(False),
    "qk_layer_norms": _only(False),
    "use_qk_norm": _only(False),
    "qk_norm": _only(False),
    "rope_interleaved": _only(False),
    "partial_rotary_factor": _only(1),
    "no_rope_layers": _each(1, _ROTARY),
    "no_rope_layer_interval": _absent(_ROTARY),
    "layer_types": _each("full_attention", _FULL),
    "use_sliding_window": _only(False),
    "attention_chunk_size": _absent(_FULL),
    "embedding_multiplier": _only(1, _PLAIN),
    "residual_multiplier": _only(1, _PLAIN),
    "logits_scaling": _only(1, _PLAIN),
    "logit_scale": _only(1, _PLAIN),
    "attention_multiplier": _absent("this decoder scales scores by head_dim ** -0.5"),
    "query_pre_attn_scalar": _absent("this decoder scales scores by head_dim ** -0.5"),
    "attn_logit_softcapping": _absent("this decoder caps nothing"),
    "final_logit_softcapping": _absent("this decoder caps nothing"),
    "clip_qkv": _absent("this decoder clips nothing"),
    "num_experts": _only(1, ": this decoder is dense"),
    "num_local_experts": _only(1, ": this decoder is dense"),
    "n_routed_experts": _absent("this decoder is dense"),
    "quantization_config": TOP_RULES["quantization_config"],
    "is_encoder_decoder": _only(False),
}

# Of `rope_parameters` and `rope_scaling`; the type of scaling and its base are read in `config`.
ROPE_RULES: dict[str, Rule] = {
    "partial_rotary_factor": _only(1),
    **{kind: _absent("all layers of this decoder have one RoPE") for kind in ("full_attention", "sliding_attention")},
}

VISION_RULES: dict[str, Rule] = {
    "num_channels": _only(3),
    "hidden_act": _only("gelu_pytorch_tanh"),
    "qkv_bias": _only(True),
    "attention_bias": _only(True),
    "num_register_tokens": _only(0),
    "use_swiglu_ffn": _only(False),
    "quantization_config": TOP_RULES["quantization_config"],
}


def check_top(read: Fields, families: tuple[Family, ...]) -> None:
    """Raise ConfigError, naming the key, unless the top of `config.json` is one of a family's."""
    _check_type(read, tuple(dict.fromkeys(kind for family in families for kind in family.model_types)))
    _check(read, TOP_RULES)


def check_text(read: Fields, family: Family) -> None:
    """Likewise for `text_config`."""
    _check_type(read, family.text_types)
    _check(read, TEXT_RULES)
    for key in ("rope_parameters", "rope_scaling"):
        _check(read.inner(key), ROPE_RULES)
    # Qwen2's files name a window that `use_sliding_window: false` turns off.
    if read.raw.get("use_sliding_window") is not False:
        _check(read, {"sliding_window": _absent(_FULL)})


def check_vision(read: Fields, family: Family) -> None:
    """Likewise for `vision_config`."""
    _check_type(read, family.vision_types)
    _check(read, VISION_RULES)


def _check_type(read: Fields, accepted: tuple[str, ...]) -> None:
    kind = read.text("model_type")
    if kind is not None and kind not in accepted:
        expected = f"'{accepted[0]}'" if len(accepted) == 1 else f"one of {', '.join(accepted)}"
        raise read.wrong("model_type", kind, expected)


def _check(read: Fields, rules: Mapping[str, Rule]) -> None:
    for key, rule in rules.items():
        value = read.raw.get(key)
        if value is not None and not rule.accepts(value):
            raise read.wrong(key, value, rule.expected)
