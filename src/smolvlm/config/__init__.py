"""What a checkpoint's JSON files say, as frozen dataclasses with the official key names; presets of the published sizes."""

from smolvlm.config.model import ModelConfig, TextConfig, VisionConfig
from smolvlm.config.presets import PRESETS, preset, processor_preset
from smolvlm.config.processor import ProcessorConfig, load_configs

__all__ = ["PRESETS", "ModelConfig", "ProcessorConfig", "TextConfig", "VisionConfig", "load_configs", "preset", "processor_preset"]
