"""Low-rank adapters on disk, in the format of the `peft` library: read, checked against a base, added into its weights.

LoRA (arXiv 2106.09685): W + scale * B @ A. DoRA (arXiv 2402.09353): that matrix with each row scaled to a learned
length. Everything is NumPy: whoever loads weights, whatever the engine, can apply an adapter on the way.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from smolvlm.checkpoint.dtypes import FLOATS, FloatArray, to_float32
from smolvlm.checkpoint.fingerprint import fingerprint
from smolvlm.checkpoint.folder import FolderInMaking, sync
from smolvlm.checkpoint.header import build_header, read_header
from smolvlm.checkpoint.layout import tensor_shapes
from smolvlm.checkpoint.reader import CheckpointReader
from smolvlm.config import ModelConfig
from smolvlm.errors import AdapterError, CheckpointError, ConfigError
from smolvlm.json_file import Fields, read_json

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
ORIGIN_FILE = "smolvlm_adapter.json"  # ours, beside peft's two: which base, by name and by fingerprint
_PREFIX = "base_model.model."  # peft's wrapper around the model, in every key of its files
_MAX_ALPHA = 1e6  # published adapters have 8 to 512
_KEY = re.compile(r"(.+?)\.(lora_A\.weight|lora_B\.weight|lora_magnitude_vector|weight)")
# Variants of LoRA whose sums are others than the two above: (key of the file, the value that means "not used").
_UNUSED: tuple[tuple[str, Any], ...] = (
    ("fan_in_fan_out", False),
    ("use_qalora", False),
    ("lora_bias", False),
    ("bias", "none"),
    ("use_bdlora", None),
    ("alora_invocation_tokens", None),
    ("layer_replication", None),
    ("trainable_token_indices", None),
    ("target_parameters", None),
    ("arrow_config", None),
    ("kasa_config", None),
    ("velora_config", None),
    ("monteclora_config", None),
)


@dataclass(frozen=True, eq=False)
class LowRank:
    """What an adapter adds to one weight (out, in): a (rank, in), b (out, rank), DoRA's row lengths (out,) or None."""

    a: FloatArray
    b: FloatArray
    scale: float
    magnitude: FloatArray | None = None

    def added_to(self, weight: FloatArray) -> FloatArray:
        """(out, in) -> a new array of the same shape."""
        merged: FloatArray = weight + np.float32(self.scale) * (self.b @ self.a)
        if self.magnitude is not None:
            lengths = np.linalg.norm(merged, axis=1)
            merged *= (self.magnitude / np.where(lengths > 0, lengths, 1))[:, None]
        if not np.isfinite(merged).all():
            raise AdapterError("an adapter's values, added to the weights, are beyond float32; train or save it again.")
        return merged


class Adapter:
    """An adapter folder of peft: `adapter_config.json` and `adapter_model.safetensors`. All of it is read at once.

    Raises AdapterError, naming the file, for a missing or malformed one, a kind of adapter other than LoRA and DoRA,
    parts that do not fit together, and values that are not finite.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder).expanduser()
        raw = _object(self.folder / CONFIG_FILE)
        origin = _object(self.folder / ORIGIN_FILE) if (self.folder / ORIGIN_FILE).exists() else {}
        base = origin.get("base_model") or raw.get("base_model_name_or_path")
        self.base_name = base if isinstance(base, str) else None
        self.fingerprint = origin.get("base_fingerprint")
        _check_kind(self.folder / CONFIG_FILE, raw)
        _check_numbers(self.folder / CONFIG_FILE, raw)
        self.changes: dict[str, LowRank] = {}
        self.replaced: dict[str, FloatArray] = {}  # peft's `modules_to_save`: weights that were trained in full
        self._read(raw, _tensors(self.folder / WEIGHTS_FILE))

    def __contains__(self, name: str) -> bool:
        return name in self.changes or name in self.replaced

    def check(self, reader: CheckpointReader, config: ModelConfig) -> None:
        """Raise AdapterError unless the adapter was trained on exactly this base, as far as its files can tell."""
        shapes = tensor_shapes(config)
        wanted = {name: (change.b.shape[0], change.a.shape[1]) for name, change in self.changes.items()}
        wanted |= {name: value.shape for name, value in self.replaced.items()}
        wrong = [name for name, shape in wanted.items() if shapes.get(name) != shape]
        trained_on = f"it was trained on {self.base_name}" if self.base_name else "its files name no base model"
        if wrong:
            raise AdapterError(
                f"{self.folder}: this adapter does not fit {reader.folder} ({len(wrong)} weights differ in "
                f"name or shape: {wrong[0][:120]}); {trained_on}, load it with that model."
            )
        if self.fingerprint is not None and self.fingerprint != fingerprint(reader, config):
            raise AdapterError(
                f"{self.folder}: this adapter belongs to other weights than those in {reader.folder} (same "
                f"shapes, another fingerprint); {trained_on}, load it with that model."
            )

    def merged(self, name: str, weight: FloatArray) -> FloatArray:
        """The weight `name` of the base with the adapter added: float32, the same shape. Others come back as they are."""
        if name in self.replaced:
            return self.replaced[name].copy()
        return self.changes[name].added_to(weight) if name in self.changes else weight

    def _read(self, raw: Mapping[str, Any], tensors: Mapping[str, FloatArray]) -> None:
        path = self.folder / WEIGHTS_FILE
        parts: dict[str, dict[str, FloatArray]] = {}
        for key, value in tensors.items():
            match = _KEY.fullmatch(key.removeprefix(_PREFIX))
            if match is None:
                raise AdapterError(
                    f"{path}: {key[:120]!r} is no part of a LoRA or DoRA adapter of linear layers; only those are applied here."
                )
            if not np.isfinite(value).all():
                raise AdapterError(f"{path}: {key[:120]} holds values that are not finite; train or save it again.")
            if match[2] == "weight":
                self.replaced[f"{match[1]}.weight"] = value
            else:
                parts.setdefault(match[1], {})[match[2]] = value
        for module, found in parts.items():
            self.changes[f"{module}.weight"] = self._low_rank(module, found, raw)
        if not self.changes and not self.replaced:
            raise AdapterError(f"{path}: holds no adapter weights; save the adapter again.")

    def _low_rank(self, module: str, found: Mapping[str, FloatArray], raw: Mapping[str, Any]) -> LowRank:
        path = self.folder / WEIGHTS_FILE
        a, b = found.get("lora_A.weight"), found.get("lora_B.weight")
        if a is None or b is None or a.ndim != 2 or b.ndim != 2 or a.shape[0] != b.shape[1] or not a.shape[0]:
            raise AdapterError(f"{path}: {module[:120]} lacks lora_A or lora_B, or their shapes do not fit together.")
        magnitude = found.get("lora_magnitude_vector")
        if (magnitude is not None) != bool(raw.get("use_dora")) or (magnitude is not None and magnitude.size != b.shape[0]):
            raise AdapterError(f"{path}: {module[:120]}: {CONFIG_FILE} says use_dora={raw.get('use_dora')!r}, and the weights disagree.")
        alpha = _for_module(raw.get("alpha_pattern"), module, raw.get("lora_alpha", 8), self.folder / CONFIG_FILE)
        rank = a.shape[0]
        scale = alpha / (math.sqrt(rank) if raw.get("use_rslora") is True else rank)
        return LowRank(a, b, scale, None if magnitude is None else magnitude.reshape(-1))


def write_adapter(
    folder: str | Path, tensors: Mapping[str, FloatArray], config: Mapping[str, Any], base_name: str, base_fingerprint: str
) -> Path:
    """Write an adapter folder that peft reads, whole or not at all. `tensors`: module paths of the model -> float32.

    Raises CheckpointError for a folder that is not empty or a disk that refuses.
    """
    named = {f"{_PREFIX}{name}": np.ascontiguousarray(value, "<f4") for name, value in sorted(tensors.items())}
    header, _ = build_header({name: ("F32", value.shape) for name, value in named.items()})
    origin = {"base_model": base_name, "base_fingerprint": base_fingerprint}
    with FolderInMaking(Path(folder), needed_bytes=sum(v.nbytes for v in named.values())) as making:
        making.write_text(CONFIG_FILE, _json({**config, "base_model_name_or_path": base_name, "inference_mode": True}))
        making.write_text(ORIGIN_FILE, _json(origin))
        with (making.path / WEIGHTS_FILE).open("wb") as file:
            file.write(header)
            for value in named.values():
                file.write(value.tobytes())
            sync(file)
        making.finish()
    return Path(folder)


def _check_kind(path: Path, raw: Mapping[str, Any]) -> None:
    if raw.get("peft_type") != "LORA":
        raise AdapterError(
            f"{path}: peft_type={str(raw.get('peft_type'))[:40]!r}; only LORA adapters (DoRA and QLoRA included) are applied here."
        )
    init = raw.get("init_lora_weights")
    if isinstance(init, str) and init.lower().startswith(("pissa", "olora", "corda", "loftq", "lora_ga")):
        raise AdapterError(
            f"{path}: init_lora_weights={init[:40]!r} changes the base model itself; convert the adapter to a plain LoRA with peft."
        )
    used = [key for key, unused in _UNUSED if raw.get(key) not in (unused, None, False, [], {})]
    if used:
        raise AdapterError(f"{path}: {', '.join(used)} is set, a variant that is not applied here; merge it with peft.")


def _check_numbers(path: Path, raw: Mapping[str, Any]) -> None:
    """The keys that change the sum, by type and range. Raises AdapterError naming the file."""
    read = Fields(raw, f"{path}: ")
    try:
        for key in ("use_dora", "use_rslora"):
            read.flag(key)
        read.whole("r", 1, 1 << 16)
        read.number("lora_alpha", -_MAX_ALPHA, _MAX_ALPHA)
        for key in ("alpha_pattern", "rank_pattern"):
            read.inner(key)
        read.text("base_model_name_or_path", max_chars=4096)
    except ConfigError as error:
        raise AdapterError(str(error)) from None


def _for_module(pattern: Any, module: str, default: Any, path: Path) -> float:
    """A value for one module: `pattern` maps ends of module paths to values, as peft writes them."""
    value = default
    for key, special in (pattern or {}).items():
        # peft takes any regular expression here; a stranger's is not run, and plain paths are what it writes itself.
        plain = str(key).removeprefix("^").replace("\\.", ".")
        if re.search(r"[^\w.]", plain):
            raise AdapterError(f"{path}: alpha_pattern {str(key)[:80]!r} is not a plain module path.")
        if module == plain or module.endswith(f".{plain}"):
            value = special
            break
    try:
        return float(Fields({"lora_alpha": value}, f"{path}: ").number("lora_alpha", -_MAX_ALPHA, _MAX_ALPHA, math.nan))
    except ConfigError as error:
        raise AdapterError(str(error)) from None


def _object(path: Path) -> dict[str, Any]:
    try:
        return read_json(path)
    except ValueError as error:  # a ConfigError, or a null character in the path
        reason = str(error)
    if not path.exists():
        reason = f"{path}: no such file; an adapter's folder holds {CONFIG_FILE} and {WEIGHTS_FILE}, as peft saves them."
    raise AdapterError(reason)


def _tensors(path: Path) -> dict[str, FloatArray]:
    if not path.exists() and path.with_suffix(".bin").exists():
        raise AdapterError(
            f"{path.with_suffix('.bin')}: pickle files can run code and are never read here; save the adapter with safe_serialization=True."
        )
    try:
        infos = read_header(path)
        found = {}
        with path.open("rb") as file:
            for name, info in infos.items():
                if info.dtype not in FLOATS:
                    raise AdapterError(f"{path}: {name[:120]} has type {info.dtype}; expected a float type.")
                file.seek(info.offset)
                raw = np.frombuffer(file.read(info.nbytes), dtype=np.uint8)
                found[name] = to_float32(raw, info.dtype).reshape(info.shape)
    except (CheckpointError, OSError, ValueError) as error:
        raise error if isinstance(error, AdapterError) else AdapterError(str(error)) from None
    return found


def _json(content: Mapping[str, Any]) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False, sort_keys=True) + "\n"
