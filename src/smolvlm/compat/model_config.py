"""`model.config` under the reference's names: `config.text_config.hidden_size`, assignable, with `to_dict()`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from smolvlm.config import ModelConfig


class ConfigSection:
    """One object of `config.json`, its keys as attributes."""

    def __init__(self, raw: Mapping[str, Any]) -> None:
        for key, value in raw.items():
            setattr(self, key, ConfigSection(value) if isinstance(value, Mapping) else value)

    def to_dict(self) -> dict[str, Any]:
        """As plain dicts and values."""
        public = {key: value for key, value in vars(self).items() if not key.startswith("_")}
        return {key: value.to_dict() if isinstance(value, ConfigSection) else value for key, value in public.items()}

    def get(self, key: str, default: Any = None) -> Any:
        """As a dict's `get`."""
        return getattr(self, key, default)


class CompatConfig(ConfigSection):
    """`config.json` of a loaded checkpoint. What is assigned here changes nothing in the model, as in the reference after
    loading. The names of our own `ModelConfig` (`text`, `vision`, `image_seq_len`, ...) are there too."""

    def __init__(self, ours: ModelConfig, name_or_path: str, dtype: str) -> None:
        super().__init__({**ours.to_dict(), "dtype": dtype, "use_cache": True, "is_encoder_decoder": False})
        self.name_or_path = self._name_or_path = name_or_path
        self._attn_implementation = "sdpa"
        self._ours = ours

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # what an unfinished copy lacks, and what only the reference has
            raise AttributeError(name)
        return getattr(self._ours, name)

    def get_text_config(self, **_: Any) -> Any:
        """The section of the decoder."""
        return self.text_config

    def to_json_string(self, **_: Any) -> str:
        """As a file would hold it."""
        return json.dumps(self.to_dict(), indent=2) + "\n"
