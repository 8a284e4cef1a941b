"""What a checkpoint's JSON files say, as frozen dataclasses with the official key names.

Sources: `config.json`, `generation_config.json`, `preprocessor_config.json`, `processor_config.json` of the published
SmolVLM2 (`model_type: smolvlm`) and first-generation SmolVLM (`model_type: idefics3`) checkpoints. Defaults for the keys
that some published files omit are those of the reference code, written at the field that has them.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from smolvlm.errors import ConfigError

logger = logging.getLogger(__name__)

MODEL_TYPES = ("smolvlm", "idefics3")

# Keys that published files carry and that change nothing in the graph: read, ignored, and never reported.
_IGNORED_TOP = {
    "architectures", "_name_or_path", "_attn_implementation", "_attn_implementation_autoset", "transformers_version",
    "transformers.js_config", "torch_dtype", "dtype", "use_cache", "pad_token_id", "_pad_token_id", "perceiver_config",
    "use_resampler", "qk_layer_norms_perceiver", "neftune_noise_alpha", "freeze_lm_head", "freeze_text_layers",
    "freeze_text_module_exceptions", "freeze_vision_layers", "freeze_vision_module_exceptions", "initializer_range",
    "attention_dropout", "use_reentrant_checkpointing", "image_token_index", "vocab_size", "hidden_size",
    "return_dict", "output_attentions", "output_hidden_states", "bos_token_id", "eos_token_id", "is_encoder_decoder",
    "max_position_embeddings", "quantization_config",
}  # fmt: skip
_IGNORED_TEXT = _IGNORED_TOP | {
    "model_type", "attention_bias", "mlp_bias", "pretraining_tp", "rope_scaling", "rope_parameters", "rope_interleaved",
    "is_llama_config", "_flash_attn_2_enabled", "attn_implementation", "hidden_act", "tie_word_embeddings",
    "qk_layer_norms", "pixel_shuffle_factor", "use_resampler", "vision_config", "alpha_initializer", "alphas_initializer_range",
    "alpha_type", "cross_layer_activation_function", "cross_layer_interval",
    "additional_vocab_size", "resampler_config", "layer_types", "no_rope_layers",
}  # fmt: skip
_IGNORED_VISION = _IGNORED_TOP | {
    "model_type", "num_channels", "max_image_size", "size", "use_base_siglip", "tie_word_embeddings", "projection_dim",
    "vision_use_head",
}  # fmt: skip


def _known(kind: type, raw: Mapping[str, Any], ignored: set[str], where: str) -> dict[str, Any]:
    """Keep the keys that are fields of `kind`; report by name, once, those that are neither fields nor ignored."""
    names = {f.name for f in fields(kind)}
    unknown = sorted(k for k in raw if k not in names and k not in ignored)
    if unknown:
        logger.warning("%s: unknown keys are not used: %s", where, ", ".join(unknown))
    return {k: v for k, v in raw.items() if k in names and v is not None}


def _require_positive(config: object, *names: str) -> None:
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
    hidden_act: str = "gelu_pytorch_tanh"

    def __post_init__(self) -> None:
        _require_positive(self, "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
                          "image_size", "patch_size", "layer_norm_eps")  # fmt: skip
        if self.hidden_size % self.num_attention_heads:
            raise ConfigError(f"vision_config: hidden_size={self.hidden_size} is not a multiple of "
                              f"num_attention_heads={self.num_attention_heads}.")  # fmt: skip
        if self.image_size < self.patch_size:
            raise ConfigError(f"vision_config: image_size={self.image_size} is below patch_size={self.patch_size}.")
        if self.hidden_act != "gelu_pytorch_tanh":
            raise ConfigError(f"vision_config: hidden_act={self.hidden_act!r} is not supported; "
                              "SmolVLM's encoder uses 'gelu_pytorch_tanh'.")  # fmt: skip

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
    def from_dict(cls, raw: Mapping[str, Any]) -> VisionConfig:
        """Read `vision_config`; a key that the file omits has the reference code's default, not the 256M's value."""
        return cls(**_REFERENCE_VISION | _known(cls, raw, _IGNORED_VISION, "vision_config"))


# What `SmolVLMVisionConfig` and `Idefics3VisionConfig` of the reference code assume where a file is silent.
_REFERENCE_VISION: dict[str, Any] = {
    "hidden_size": 1152, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 16,
    "image_size": 224, "patch_size": 32,
}  # fmt: skip


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
        _require_positive(self, "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
                          "num_key_value_heads", "head_dim", "vocab_size", "rope_theta", "rms_norm_eps",
                          "max_position_embeddings")  # fmt: skip
        if self.num_attention_heads % self.num_key_value_heads:
            raise ConfigError(f"text_config: num_attention_heads={self.num_attention_heads} is not a multiple of "
                              f"num_key_value_heads={self.num_key_value_heads}.")  # fmt: skip
        if self.head_dim % 2:
            raise ConfigError(f"text_config: head_dim={self.head_dim} is odd; rotary embeddings need pairs.")

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> TextConfig:
        for key in ("attention_bias", "mlp_bias", "qk_layer_norms"):
            if raw.get(key):
                raise ConfigError(f"text_config: {key}=true is not a SmolVLM decoder; this graph has none.")
        if raw.get("hidden_act", "silu") != "silu":
            raise ConfigError(f"text_config: hidden_act={raw['hidden_act']!r} is not supported; SmolVLM uses 'silu'.")
        known = _known(cls, raw, _IGNORED_TEXT, "text_config")
        needed = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
        if missing := [key for key in needed if key not in known]:
            raise ConfigError(f"text_config: {', '.join(missing)} missing; the decoder's shape cannot be guessed.")
        known["rope_theta"] = float(_rope_theta(raw))
        heads = known.get("num_attention_heads", cls.num_attention_heads)
        known.setdefault("num_key_value_heads", heads)  # Llama's own default: as many as the query heads
        known.setdefault("head_dim", known.get("hidden_size", cls.hidden_size) // max(int(heads), 1))
        for key in ("bos_token_id", "eos_token_id", "pad_token_id"):
            if isinstance(known.get(key), list):
                known[key] = known[key][0]
        return cls(**known)


def _rope_theta(raw: Mapping[str, Any]) -> float:
    """Newer writers put `rope_theta` under `rope_parameters`, older ones at the top of `text_config`."""
    parameters = raw.get("rope_parameters") or {}
    scaling = raw.get("rope_scaling") or parameters
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    if kind != "default":
        raise ConfigError(f"text_config: rope scaling {kind!r} is not supported; SmolVLM checkpoints use 'default'.")
    value = parameters.get("rope_theta", raw.get("rope_theta"))
    return float(value) if value is not None else 10_000.0  # Llama's default where a file names none


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
        _require_positive(self, "scale_factor")
        if self.model_type not in MODEL_TYPES:
            raise ConfigError(f"config.json: model_type={self.model_type!r} is not a SmolVLM; "
                              f"expected one of {', '.join(MODEL_TYPES)}.")  # fmt: skip
        if self.vision.patches_per_side % self.scale_factor:
            raise ConfigError(f"config.json: scale_factor={self.scale_factor} does not divide the "
                              f"{self.vision.patches_per_side} patches of a side.")  # fmt: skip
        for name, token in (
            ("image_token_id", self.image_token_id),
            *(("eos_token_id", t) for t in self.eos_token_ids),
        ):
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
        known = _known(cls, raw, _IGNORED_TOP | {"text_config", "vision_config"}, "config.json")
        for derived in ("vision", "text", "eos_token_ids"):
            known.pop(derived, None)
        known.setdefault("scale_factor", raw["text_config"].get("pixel_shuffle_factor", 2))
        text = TextConfig.from_dict(raw["text_config"])
        vision = VisionConfig.from_dict(raw.get("vision_config") or {})
        eos = (generation or {}).get("eos_token_id", text.eos_token_id)
        return cls(vision=vision, text=text, eos_token_ids=tuple(eos) if isinstance(eos, list) else (eos,), **known)

    def to_dict(self) -> dict[str, Any]:
        """The official `config.json`, in the newer form with the older top-level `rope_theta` beside it."""
        text: dict[str, Any] = {"model_type": "llama", "architectures": ["VLlama3ForCausalLM"], **asdict(self.text)}
        text |= {"hidden_act": "silu", "attention_bias": False, "mlp_bias": False, "tie_word_embeddings": False,
                 "rope_parameters": {"rope_type": "default", "rope_theta": self.text.rope_theta}}  # fmt: skip
        prefix = {"smolvlm": "SmolVLM", "idefics3": "Idefics3"}[self.model_type]
        return {
            "architectures": [f"{prefix}ForConditionalGeneration"],
            "model_type": self.model_type,
            "image_token_id": self.image_token_id,
            "scale_factor": self.scale_factor,
            "tie_word_embeddings": self.tie_word_embeddings,
            "pad_token_id": self.text.pad_token_id,
            "text_config": text,
            "vision_config": {
                "model_type": f"{self.model_type}_vision",
                "num_channels": 3,
                "max_image_size": {"longest_edge": self.vision.image_size},
                **asdict(self.vision),
            },
        }

    def generation_dict(self) -> dict[str, Any]:
        """The official `generation_config.json`."""
        eos: int | list[int] = self.eos_token_ids[0] if len(self.eos_token_ids) == 1 else list(self.eos_token_ids)
        text = self.text
        return {"bos_token_id": text.bos_token_id, "eos_token_id": eos, "pad_token_id": text.pad_token_id}


@dataclass(frozen=True)
class ProcessorConfig:
    """How pixels and prompts are made: `preprocessor_config.json` and `processor_config.json`. Edges in pixels."""

    image_seq_len: int = 64
    tile_size: int = 512  # max_image_size.longest_edge
    longest_edge: int = 2048  # size.longest_edge
    do_image_splitting: bool = True
    resample: int = 1  # Pillow's number for LANCZOS
    rescale_factor: float = 1 / 255
    image_mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    image_std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    fps: float = 1.0  # video_sampling.fps
    max_frames: int = 64  # video_sampling.max_frames: a cap, not a count
    video_longest_edge: int = 2048  # what frames are scaled to before the squash to a tile: see `from_dicts`

    def __post_init__(self) -> None:
        _require_positive(self, "image_seq_len", "tile_size", "longest_edge", "rescale_factor", "fps", "max_frames",
                          "video_longest_edge")  # fmt: skip
        if self.resample not in range(6):
            raise ConfigError(
                f"preprocessor_config.json: resample={self.resample} is not one of Pillow's filters (0-5)."
            )
        if min(self.image_std) <= 0:
            raise ConfigError(f"preprocessor_config.json: image_std={list(self.image_std)} must be positive.")

    @classmethod
    def from_dicts(
        cls, preprocessor: Mapping[str, Any], processor: Mapping[str, Any], model: ModelConfig
    ) -> ProcessorConfig:
        """Read both files; what they omit follows from the model (tile = image_size, 4 tiles a side).

        Frames: where a file has `size`, transformers 5 lets it replace `video_sampling.video_size`
        (`SmolVLMVideoProcessor.__init__`), so that with the published files a frame goes to 2048 and then to 512.
        """
        tile = (preprocessor.get("max_image_size") or {}).get("longest_edge", model.vision.image_size)
        video = preprocessor.get("video_sampling") or {}
        size = preprocessor.get("size") or {}
        known = {k: preprocessor[k] for k in ("do_image_splitting", "resample", "rescale_factor") if k in preprocessor}
        for key in ("image_mean", "image_std"):
            if key in preprocessor:
                known[key] = tuple(float(x) for x in preprocessor[key])
        config = cls(
            image_seq_len=processor.get("image_seq_len", model.image_seq_len),
            tile_size=tile,
            longest_edge=size.get("longest_edge", 4 * tile),
            fps=float(video.get("fps", 1)),
            max_frames=video.get("max_frames", 64),
            video_longest_edge=(size or video.get("video_size") or {}).get("longest_edge", 4 * tile),
            **known,
        )
        if config.image_seq_len != model.image_seq_len:
            raise ConfigError(f"processor_config.json says image_seq_len={config.image_seq_len}, but the model makes "
                              f"{model.image_seq_len} tokens a tile.")  # fmt: skip
        if config.tile_size != model.vision.image_size:
            raise ConfigError(f"preprocessor_config.json says tiles of {config.tile_size}, but the vision encoder reads "
                              f"{model.vision.image_size}.")  # fmt: skip
        return config

    def preprocessor_dict(self) -> dict[str, Any]:
        """The official `preprocessor_config.json`; `video_size` says a tile, as the published files do."""
        replaced = self.video_longest_edge == self.longest_edge  # by `size`: see `from_dicts`
        video_size = self.tile_size if replaced else self.video_longest_edge
        return {
            "do_convert_rgb": True, "do_image_splitting": self.do_image_splitting, "do_normalize": True, "do_pad": True,
            "do_rescale": True, "do_resize": True, "image_mean": list(self.image_mean), "image_std": list(self.image_std),
            "image_processor_type": "SmolVLMImageProcessor", "max_image_size": {"longest_edge": self.tile_size},
            "processor_class": "SmolVLMProcessor", "resample": self.resample, "rescale_factor": self.rescale_factor,
            "size": {"longest_edge": self.longest_edge},
            "video_sampling": {"fps": self.fps, "max_frames": self.max_frames,
                               "video_size": {"longest_edge": video_size}},
        }  # fmt: skip

    def processor_dict(self) -> dict[str, Any]:
        """The official `processor_config.json`."""
        return {"image_seq_len": self.image_seq_len, "processor_class": "SmolVLMProcessor"}


def _preset(text: TextConfig, vision: VisionConfig, scale_factor: int) -> ModelConfig:
    return ModelConfig(text=text, vision=vision, scale_factor=scale_factor)


PRESETS: dict[str, ModelConfig] = {
    "256m": ModelConfig(),
    "500m": _preset(TextConfig(hidden_size=960, intermediate_size=2560, num_hidden_layers=32, num_attention_heads=15,
                               num_key_value_heads=5), VisionConfig(), 4),
    "2.2b": _preset(TextConfig(hidden_size=2048, intermediate_size=8192, num_hidden_layers=24, num_attention_heads=32,
                               num_key_value_heads=32, rope_theta=130_000.0),
                    VisionConfig(hidden_size=1152, intermediate_size=4304, num_hidden_layers=27, num_attention_heads=16,
                                 image_size=384, patch_size=14), 3),
    # The model that this package trains and ships: 36 tokens a tile of 192, a vocabulary of its own.
    "nano": ModelConfig(
        text=TextConfig(hidden_size=256, intermediate_size=704, num_hidden_layers=6, num_attention_heads=4,
                        num_key_value_heads=2, vocab_size=1536, rope_theta=10_000.0, max_position_embeddings=2048,
                        eos_token_id=1535),
        vision=VisionConfig(hidden_size=256, intermediate_size=1024, num_hidden_layers=5, num_attention_heads=4,
                            image_size=192),
        scale_factor=2, image_token_id=1526, eos_token_ids=(1535,)),
}  # fmt: skip


def preset(name: str) -> ModelConfig:
    """The configuration of a published size by its short name, e.g. `preset("256m")`."""
    if name not in PRESETS:
        raise ConfigError(f"unknown size {name!r}; the sizes are {', '.join(PRESETS)}.")
    return PRESETS[name]


def processor_preset(model: ModelConfig) -> ProcessorConfig:
    """The pixel settings that the published checkpoints pair with a model of this tile size."""
    tile = model.vision.image_size
    return ProcessorConfig(
        image_seq_len=model.image_seq_len, tile_size=tile, longest_edge=4 * tile, video_longest_edge=4 * tile
    )


def read_json(path: Path) -> dict[str, Any]:
    """One JSON object from a checkpoint's file, or a ConfigError that names the file."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; a checkpoint folder holds it beside its weights.") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ConfigError(f"{path}: cannot be read as JSON ({error}).") from None
    if not isinstance(raw, dict):
        raise ConfigError(f"{path}: expected a JSON object.")
    return raw


def load_configs(folder: Path) -> tuple[ModelConfig, ProcessorConfig]:
    """Both configurations of a checkpoint folder. Only `config.json` must exist; ConfigError names the file at fault."""

    def optional(name: str) -> dict[str, Any]:
        return read_json(folder / name) if (folder / name).exists() else {}

    try:
        model = ModelConfig.from_dict(read_json(folder / "config.json"), optional("generation_config.json"))
        processor = ProcessorConfig.from_dicts(
            optional("preprocessor_config.json"), optional("processor_config.json"), model
        )
    except ConfigError as error:
        raise error if str(folder) in str(error) else ConfigError(f"{folder}: {error}") from None
    except (TypeError, ValueError, AttributeError) as error:
        raise ConfigError(f"{folder}: the configuration has a value of the wrong kind ({error}).") from None
    return model, processor
