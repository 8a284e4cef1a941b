"""How pixels and prompts are made: `preprocessor_config.json` and `processor_config.json` of the published checkpoints."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smolvlm.config.model import ModelConfig, given, require_positive
from smolvlm.errors import ConfigError
from smolvlm.families import SMOLVLM, family_of
from smolvlm.json_file import Fields, read_json

logger = logging.getLogger(__name__)

_STEPS = ("do_convert_rgb", "do_resize", "do_rescale", "do_normalize")
_EDGE = 1 << 16  # pixels; the tile rule caps a side at 4096


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
        require_positive(self, "image_seq_len", "tile_size", "longest_edge", "rescale_factor", "fps", "max_frames", "video_longest_edge")
        if self.resample not in range(6):
            raise ConfigError(f"preprocessor_config.json: resample={self.resample} is not one of Pillow's filters (0-5).")
        if min(self.image_std) <= 0:
            raise ConfigError(f"preprocessor_config.json: image_std={list(self.image_std)} must be positive.")

    @classmethod
    def from_dicts(cls, preprocessor: Mapping[str, Any], processor: Mapping[str, Any], model: ModelConfig) -> ProcessorConfig:
        """Read both files; what they omit follows from the model (tile = image_size, 4 tiles a side).

        Frames: where a file has `size`, transformers 5 lets it replace `video_sampling.video_size`
        (`SmolVLMVideoProcessor.__init__`), so that with the published files a frame goes to 2048 and then to 512.
        """
        where = "preprocessor_config.json: "
        if not preprocessor and processor.get("image_processor") is not None:  # transformers 5 writes one file
            preprocessor = Fields(processor, "processor_config.json: ").inner("image_processor").raw
            where = "processor_config.json: image_processor."
        read = Fields(preprocessor, where)
        accepted = family_of(model.model_type).image_processors
        kind = read.text("image_processor_type")
        if kind is not None and kind.removesuffix("Fast").removesuffix("Pil") not in accepted:
            raise read.wrong("image_processor_type", kind, f"one of {', '.join(accepted)}")
        video, size = read.inner("video_sampling"), read.inner("size")
        for key in _STEPS:
            if read.flag(key, True) is False:
                logger.warning("%s%s=false is not followed: this model reads pictures that went through every step", where, key)
        tile = read.inner("max_image_size").whole("longest_edge", 1, 4096, model.vision.image_size)
        framed = size if size.raw else video.inner("video_size")
        if size.raw and size.raw.get("longest_edge") is None:
            raise read.wrong("size", dict(size.raw), 'an object with "longest_edge"')
        config = cls(
            image_seq_len=Fields(processor, "processor_config.json: ").whole("image_seq_len", 1, 1 << 20, model.image_seq_len),
            tile_size=tile,
            longest_edge=size.whole("longest_edge", 1, _EDGE, 4 * tile),
            video_longest_edge=framed.whole("longest_edge", 1, _EDGE, 4 * tile),
            **given(
                do_image_splitting=read.flag("do_image_splitting"),
                resample=read.whole("resample", 0, 5),
                rescale_factor=read.number("rescale_factor", 1e-6, 1),
                image_mean=read.numbers("image_mean", 3, 0, 255),
                image_std=read.numbers("image_std", 3, 0.01, 255),
                fps=video.number("fps", 1e-3, 1000),
                max_frames=video.whole("max_frames", 1, 4096),
            ),
        )
        if config.image_seq_len != model.image_seq_len:
            raise ConfigError(
                f"processor_config.json says image_seq_len={config.image_seq_len}, but the model makes {model.image_seq_len} tokens a tile."
            )
        if config.tile_size != model.vision.image_size:
            raise ConfigError(
                f"preprocessor_config.json says tiles of {config.tile_size}, but the vision encoder reads {model.vision.image_size}."
            )
        return config

    def preprocessor_dict(self, class_prefix: str = SMOLVLM.class_prefix) -> dict[str, Any]:
        """The official `preprocessor_config.json` of a family by its class prefix; `video_size` says a tile, as the
        published files do."""
        replaced = self.video_longest_edge == self.longest_edge  # by `size`: see `from_dicts`
        video_size = self.tile_size if replaced else self.video_longest_edge
        return {
            "do_convert_rgb": True,
            "do_image_splitting": self.do_image_splitting,
            "do_normalize": True,
            "do_pad": True,
            "do_rescale": True,
            "do_resize": True,
            "image_mean": list(self.image_mean),
            "image_std": list(self.image_std),
            "image_processor_type": f"{class_prefix}ImageProcessor",
            "max_image_size": {"longest_edge": self.tile_size},
            "processor_class": f"{class_prefix}Processor",
            "resample": self.resample,
            "rescale_factor": self.rescale_factor,
            "size": {"longest_edge": self.longest_edge},
            "video_sampling": {"fps": self.fps, "max_frames": self.max_frames, "video_size": {"longest_edge": video_size}},
        }

    def processor_dict(self, class_prefix: str = SMOLVLM.class_prefix) -> dict[str, Any]:
        """The official `processor_config.json`."""
        return {"image_seq_len": self.image_seq_len, "processor_class": f"{class_prefix}Processor"}


def load_configs(folder: Path) -> tuple[ModelConfig, ProcessorConfig]:
    """Both configurations of a checkpoint folder. Only `config.json` must exist; ConfigError names the file at fault."""

    def optional(name: str) -> dict[str, Any]:
        return read_json(folder / name) if (folder / name).exists() else {}

    try:
        model = ModelConfig.from_dict(read_json(folder / "config.json"), optional("generation_config.json"))
        processor = ProcessorConfig.from_dicts(optional("preprocessor_config.json"), optional("processor_config.json"), model)
    except ConfigError as error:
        raise error if str(folder) in str(error) else ConfigError(f"{folder}: {error}") from None
    return model, processor
