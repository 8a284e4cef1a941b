"""`config.json` and the stop tokens of `generation_config.json`, as frozen dataclasses with the official key names.

Sources: those files of the published SmolVLM2 (`model_type: smolvlm`) and first-generation SmolVLM (`model_type:
idefics3`) checkpoints. Defaults for the keys that some published files omit are those of the reference code, written at
the field that has them.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from smolvlm.errors import ConfigError
from smolvlm.families import FAMILIES, MODEL_TYPES, SMOLVLM, Family, family_of, graph
from smolvlm.json_file import Fields, short

logger = logging.getLogger(__name__)

# Whole numbers of other files that this graph does not read; one below zero is still no such number.
_NATURALS = ("pad_token_id", "_pad_token_id", "bos_token_id", "image_token_index", "vocab_size", "hidden_size", "max_position_embeddings")
# Keys that published files carry and that change nothing in the graph: read, ignored, and never reported. Those that
# would change it are checked by the family: `families.graph`.
_IGNORED_TOP = {
    *"""
    architectures _name_or_path _attn_implementation _attn_implementation_autoset transformers_version transformers.js_config
    torch_dtype dtype use_cache perceiver_config use_resampler qk_layer_norms_perceiver neftune_noise_alpha freeze_lm_head
    freeze_text_layers freeze_text_module_exceptions freeze_vision_layers freeze_vision_module_exceptions initializer_range
    attention_dropout use_reentrant_checkpointing return_dict output_attentions output_hidden_states eos_token_id
    """.split(),
    *_NATURALS,
    *graph.TOP_RULES,
}
_IGNORED_TEXT = _IGNORED_TOP | {
    *"""
    model_type pretraining_tp rope_scaling rope_parameters is_llama_config _flash_attn_2_enabled attn_implementation
    tie_word_embeddings pixel_shuffle_factor use_resampler vision_config alpha_initializer alphas_initializer_range alpha_type
    cross_layer_activation_function cross_layer_interval additional_vocab_size resampler_config sliding_window
    """.split(),
    *graph.TEXT_RULES,
}
_IGNORED_VISION = _IGNORED_TOP | {
    "model_type",
    "max_image_size",
    "size",
    "use_base_siglip",
    "tie_word_embeddings",
    "projection_dim",
    "vision_use_head",
    *graph.VISION_RULES,
}
# Keys of `generation_config.json` that are checked here. Only `compat` follows them: elsewhere the caller says how to sample.
_GENERATION_NUMBERS = {
    "temperature": (0, 1000),
    "top_p": (0, 1),
    "min_p": (0, 1),
    "typical_p": (0, 1),
    "repetition_penalty": (1e-3, 1000),
    "length_penalty": (-1000, 1000),
    "epsilon_cutoff": (0, 1),
    "eta_cutoff": (0, 1),
}
_GENERATION_NATURALS = ("top_k", "max_new_tokens", "max_length", "min_new_tokens", "min_length", "num_beams", "no_repeat_ngram_size")
_GENERATION_FLAGS = ("do_sample", "use_cache")
_GENERATION_KNOWN = {
    "_from_model_config",
    "transformers_version",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "early_stopping",
    *_GENERATION_NUMBERS,
    *_GENERATION_NATURALS,
    *_GENERATION_FLAGS,
}


# What a stranger's file may say, in whole numbers: far beyond any SmolVLM, and small enough that nothing overflows or
# fills the memory before the tensors' own shapes are compared.
_WIDTH, _INNER, _LAYERS, _HEADS, _VOCAB = 1 << 16, 1 << 20, 1024, 1024, 1 << 22
_CONTEXT = 1 << 17  # positions: the table of rotations has a row for each
_EPS = (1e-12, 0.1)


def _report_unknown(kind: type | None, raw: Mapping[str, Any], ignored: set[str], where: str) -> None:
    """Log by name, once, the keys that are neither fields of `kind` nor ignored."""
    names = {f.name for f in fields(kind)} if kind is not None else set()
    unknown = sorted(k for k in raw if k not in names and k not in ignored)
    if unknown:
        logger.warning("%s: unknown keys are not used: %s", where, ", ".join(map(short, unknown[:20])))


def _check_naturals(read: Fields) -> None:
    for key in _NATURALS:
        read.whole(key, 0, _VOCAB)


def _check_generation(read: Fields) -> None:
    """Raise ConfigError for a value that its key cannot have; report unknown keys."""
    for key, (low, high) in _GENERATION_NUMBERS.items():
        read.number(key, low, high)
    for key in _GENERATION_NATURALS:
        read.whole(key, 0, _VOCAB)
    for key in _GENERATION_FLAGS:
        read.flag(key)
    _report_unknown(None, read.raw, _GENERATION_KNOWN, "generation_config.json")


def given(**values: Any) -> dict[str, Any]:
    """The values that a file has; for the others the dataclass's own default holds."""
    return {name: value for name, value in values.items() if value is not None}


def require_positive(config: object, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
            raise ConfigError(f"{type(config).__name__}.{name}={value!r}: expected a positive number.")


@dataclass(frozen=True)
class VisionConfig:
    """The SigLIP encoder (arXiv 2303.15343); `vision_config` of the official `config.json`."""

    hidden_size: int = 768
    intermediate_size: int = 3072  # omitted by the published 256M and 500M files
    num_hidden_layers: int = 12  # omitted likewise
    num_attention_heads: int = 12
    image_size: int = 512
    patch_size: int = 16
    layer_norm_eps: float = 1e-6

    def __post_init__(self) -> None:
        require_positive(
            self,
            "hidden_size",
            "intermediate_size",
            "num_hidden_layers",
            "num_attention_heads",
            "image_size",
            "patch_size",
            "layer_norm_eps",
        )
        if self.hidden_size % self.num_attention_heads:
            raise ConfigError(
                f"vision_config: hidden_size={self.hidden_size} is not a multiple of num_attention_heads={self.num_attention_heads}."
            )
        if self.image_size < self.patch_size:
            raise ConfigError(f"vision_config: image_size={self.image_size} is below patch_size={self.patch_size}.")

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_attention_heads

    @property
    def patches_per_side(self) -> int:
        """384 / 14 leaves a rest: the last 6 pixel rows and columns of a 2.2B tile are never seen."""
        return self.image_size // self.patch_size

    @property
    def num_patches(self) -> int:
        return self.patches_per_side**2

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any], family: Family = SMOLVLM) -> VisionConfig:
        """Read `vision_config`; a key that the file omits has the reference code's default, not the 256M's value."""
        _report_unknown(cls, raw, _IGNORED_VISION, "vision_config")
        read = Fields(raw, "config.json: vision_config.")
        graph.check_vision(read, family)
        return cls(
            **_REFERENCE_VISION
            | given(
                hidden_size=read.whole("hidden_size", 1, _WIDTH),
                intermediate_size=read.whole("intermediate_size", 1, _INNER),
                num_hidden_layers=read.whole("num_hidden_layers", 1, _LAYERS),
                num_attention_heads=read.whole("num_attention_heads", 1, _HEADS),
                image_size=read.whole("image_size", 1, 4096),
                patch_size=read.whole("patch_size", 1, 4096),
                layer_norm_eps=read.number("layer_norm_eps", *_EPS),
            )
        )


# What `SmolVLMVisionConfig` and `Idefics3VisionConfig` of the reference code assume where a file is silent.
_REFERENCE_VISION: dict[str, Any] = {
    "hidden_size": 1152,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 16,
    "image_size": 224,
    "patch_size": 32,
}


@dataclass(frozen=True)
class TextConfig:
    """The Llama decoder (grouped-query attention, half-rotation RoPE, SwiGLU); `text_config` of `config.json`."""

    hidden_size: int = 576
    intermediate_size: int = 1536
    num_hidden_layers: int = 30
    num_attention_heads: int = 9
    num_key_value_heads: int = 3
    head_dim: int = 64
    vocab_size: int = 49280
    rope_theta: float = 100_000.0
    rms_norm_eps: float = 1e-5
    max_position_embeddings: int = 8192
    bos_token_id: int = 1
    eos_token_id: int = 49279
    pad_token_id: int = 2

    def __post_init__(self) -> None:
        require_positive(
            self,
            "hidden_size",
            "intermediate_size",
            "num_hidden_layers",
            "num_attention_heads",
            "num_key_value_heads",
            "head_dim",
            "vocab_size",
            "rope_theta",
            "rms_norm_eps",
            "max_position_embeddings",
        )
        if self.num_attention_heads % self.num_key_value_heads:
            raise ConfigError(
                f"text_config: num_attention_heads={self.num_attention_heads} is not a multiple of "
                f"num_key_value_heads={self.num_key_value_heads}."
            )
        if self.head_dim % 2:
            raise ConfigError(f"text_config: head_dim={self.head_dim} is odd; rotary embeddings need pairs.")

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any], family: Family = SMOLVLM) -> TextConfig:
        _report_unknown(cls, raw, _IGNORED_TEXT, "text_config")
        read = Fields(raw, "config.json: text_config.")
        graph.check_text(read, family)
        needed = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
        if missing := [key for key in needed if raw.get(key) is None]:
            raise ConfigError(f"text_config: {', '.join(missing)} missing; the decoder's shape cannot be guessed.")
        hidden, heads = read.whole("hidden_size", 1, _WIDTH), read.whole("num_attention_heads", 1, _HEADS)
        vocab_size = read.whole("vocab_size", 1, _VOCAB)
        ids = {key: (read.ids(key, vocab_size) or (None,))[0] for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
        return cls(
            rope_theta=_rope_theta(read),
            **given(
                hidden_size=hidden,
                num_attention_heads=heads,
                vocab_size=vocab_size,
                intermediate_size=read.whole("intermediate_size", 1, _INNER),
                num_hidden_layers=read.whole("num_hidden_layers", 1, _LAYERS),
                # Llama's own defaults: as many key heads as query heads, which share the width among them.
                num_key_value_heads=read.whole("num_key_value_heads", 1, _HEADS, heads),
                head_dim=read.whole("head_dim", 1, 1024, hidden // heads),
                rms_norm_eps=read.number("rms_norm_eps", *_EPS),
                max_position_embeddings=read.whole("max_position_embeddings", 1, _CONTEXT),
                **ids,
            ),
        )


def _rope_theta(text: Fields) -> float:
    """Newer writers put `rope_theta` under `rope_parameters`, older ones at the top of `text_config`."""
    parameters, scaling = text.inner("rope_parameters"), text.inner("rope_scaling")
    chosen = scaling if scaling.raw else parameters
    kind = chosen.text("rope_type") or chosen.text("type", "default")
    if kind != "default":
        raise ConfigError(f"text_config: rope scaling '{short(kind)}' is not supported; SmolVLM checkpoints use 'default'.")
    # 10,000 is Llama's default where a file names none; below 1 or without end, positions are no longer apart.
    older: float = text.number("rope_theta", 1, 1e9, 10_000.0)
    newer: float = parameters.number("rope_theta", 1, 1e9, older)
    return newer


@dataclass(frozen=True)
class ModelConfig:
    """Vision, connector and text together: the official `config.json`, with the stop tokens of `generation_config.json`."""

    vision: VisionConfig = field(default_factory=VisionConfig)
    text: TextConfig = field(default_factory=TextConfig)
    scale_factor: int = 4  # the reference code's default where old files omit it is 2: see `from_dict`
    image_token_id: int = 49190
    tie_word_embeddings: bool = False
    model_type: str = "smolvlm"
    eos_token_ids: tuple[int, ...] = (49279,)

    def __post_init__(self) -> None:
        require_positive(self, "scale_factor")
        if self.model_type not in MODEL_TYPES:
            raise ConfigError(f"config.json: model_type={short(repr(self.model_type))}; expected one of {', '.join(MODEL_TYPES)}.")
        if self.vision.patches_per_side % self.scale_factor:
            raise ConfigError(
                f"config.json: scale_factor={self.scale_factor} does not divide the {self.vision.patches_per_side} patches of a side."
            )
        for name, token in (("image_token_id", self.image_token_id), *(("eos_token_id", t) for t in self.eos_token_ids)):
            if not 0 <= token < self.text.vocab_size:
                raise ConfigError(f"config.json: {name}={token} is outside the vocabulary of {self.text.vocab_size}.")

    @property
    def image_seq_len(self) -> int:
        """Tokens that one tile becomes: 64 for 256M and 500M, 81 for 2.2B."""
        return (self.vision.patches_per_side // self.scale_factor) ** 2

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any], generation: Mapping[str, Any] | None = None) -> ModelConfig:
        """Read the two official JSON objects. Raises ConfigError for what no SmolVLM has."""
        if not isinstance(raw, Mapping) or not isinstance(raw.get("text_config"), Mapping):
            raise ConfigError("config.json: no text_config; this is not a SmolVLM checkpoint.")
        derived = {"text_config", "vision_config", "vision", "text", "eos_token_ids"}
        _report_unknown(cls, {k: v for k, v in raw.items() if k not in derived}, _IGNORED_TOP, "config.json")
        read = Fields(raw, "config.json: ")
        graph.check_top(read, FAMILIES)
        _check_naturals(read)
        family = family_of(read.text("model_type", cls.model_type))
        text = TextConfig.from_dict(raw["text_config"], family)
        factor = read.inner("text_config").whole("pixel_shuffle_factor", 1, 64, 2)
        beside = Fields(generation or {}, "generation_config.json: ")
        for key in ("bos_token_id", "pad_token_id"):
            beside.ids(key, text.vocab_size)
        _check_generation(beside)
        stops = beside.ids("eos_token_id", text.vocab_size) or read.ids("eos_token_id", text.vocab_size)
        return cls(
            vision=VisionConfig.from_dict(read.inner("vision_config").raw, family),
            text=text,
            scale_factor=read.whole("scale_factor", 1, 64, factor),
            eos_token_ids=stops or read.inner("text_config").ids("eos_token_id", text.vocab_size) or (text.eos_token_id,),
            **given(
                image_token_id=read.whole("image_token_id", 0, _VOCAB),
                tie_word_embeddings=read.flag("tie_word_embeddings"),
                model_type=read.text("model_type"),
            ),
        )

    def to_dict(self) -> dict[str, Any]:
        """The official `config.json`, in the newer form with the older top-level `rope_theta` beside it."""
        text: dict[str, Any] = {"model_type": "llama", "architectures": ["VLlama3ForCausalLM"], **asdict(self.text)}
        text |= {
            "hidden_act": "silu",
            "attention_bias": False,
            "mlp_bias": False,
            "tie_word_embeddings": self.tie_word_embeddings,
            "rope_parameters": {"rope_type": "default", "rope_theta": self.text.rope_theta},
        }
        family = family_of(self.model_type)
        return {
            "architectures": [f"{family.class_prefix}ForConditionalGeneration"],
            "model_type": self.model_type,
            "image_token_id": self.image_token_id,
            "scale_factor": self.scale_factor,
            "tie_word_embeddings": self.tie_word_embeddings,
            "pad_token_id": self.text.pad_token_id,
            "text_config": text,
            "vision_config": {
                "model_type": family.vision_types[0],
                "num_channels": 3,
                "hidden_act": "gelu_pytorch_tanh",
                "max_image_size": {"longest_edge": self.vision.image_size},
                **asdict(self.vision),
            },
        }

    def generation_dict(self) -> dict[str, Any]:
        """The official `generation_config.json`."""
        eos: int | list[int] = self.eos_token_ids[0] if len(self.eos_token_ids) == 1 else list(self.eos_token_ids)
        text = self.text
        return {"bos_token_id": text.bos_token_id, "eos_token_id": eos, "pad_token_id": text.pad_token_id}
