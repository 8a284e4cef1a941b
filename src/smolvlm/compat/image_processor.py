"""`processor.image_processor` and `processor.video_processor`: the pixel settings under the reference's names."""

from __future__ import annotations

import dataclasses
from typing import Any

from smolvlm.compat.call_options import CallOptions, longest_edge_of, with_longest_edge
from smolvlm.compat.features import BatchFeature, as_features, stack_tiles
from smolvlm.compat.media_lists import picture_lists
from smolvlm.compat.saving import refuse_upload
from smolvlm.config import ProcessorConfig
from smolvlm.errors import ConfigError, ParamsError
from smolvlm.media.images import load_image
from smolvlm.media.sources import SourcePolicy
from smolvlm.media.tiling import split_image

_SETTINGS = ("do_image_splitting", "resample", "rescale_factor", "image_mean", "image_std")
_STEPS = ("do_resize", "do_rescale", "do_normalize", "do_convert_rgb", "do_pad")


class Size(dict[str, int]):
    """`{"longest_edge": pixels}`, also as an attribute."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return self.get(name)


class PixelSettings:
    """Settings that may be read and assigned; the processor that owns them follows. Unknown names are ParamsErrors."""

    def __init__(self, config: ProcessorConfig, policy: SourcePolicy | None) -> None:
        self.__dict__["config"], self.__dict__["_policy"] = config, policy

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "config":
            raise AttributeError(name)
        config = self.config
        if name in _SETTINGS:
            value = getattr(config, name)
            return list(value) if isinstance(value, tuple) else value
        if name in _STEPS:
            return True
        if name == "size":
            return Size(longest_edge=config.longest_edge)
        if name == "max_image_size":
            return Size(longest_edge=config.tile_size)
        if name == "video_sampling":
            return config.preprocessor_dict()["video_sampling"]
        if name in ("fps", "num_frames"):
            return config.fps if name == "fps" else config.max_frames
        raise AttributeError(f"the image processor has no {name!r}; it has size, max_image_size, video_sampling, {', '.join(_SETTINGS)}")

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "size":
            self.__dict__["config"] = with_longest_edge(self.config, longest_edge_of(value))
        elif (name == "max_image_size" and longest_edge_of(value) == self.config.tile_size) or (name in _STEPS and value is True):
            pass
        elif name == "do_image_splitting" and isinstance(value, bool):
            self._replace(do_image_splitting=value)
        elif name in ("fps", "num_frames"):
            self._replace(**{"fps" if name == "fps" else "max_frames": value})
        elif name in _SETTINGS and name != "do_image_splitting":
            self._replace(**{name: tuple(value) if isinstance(value, list) else value})
        else:
            raise ParamsError(
                f"image_processor.{name}={value!r} cannot be set here; this model reads tiles of "
                f"{self.config.tile_size} that went through every step. size={{'longest_edge': ...}} and "
                "do_image_splitting may be set."
            )

    def __call__(self, images: Any, **kwargs: Any) -> BatchFeature:
        """`pixel_values` and `pixel_attention_mask` of pictures: one, a list, or a list of lists with one for each row."""
        options = CallOptions.of(kwargs, "the image processor")
        config = options.sized(self.config)
        rows = [row for row in picture_lists(images) if row]
        tiles = [[split_image(load_image(picture, self._policy), config, options.media).tiles for picture in row] for row in rows]
        if not tiles:
            raise ParamsError("the image processor was given no picture; pass images=[...].")
        import numpy as np

        return as_features({}, stack_tiles([np.concatenate(row) for row in tiles], config), options.return_tensors)

    def to_dict(self) -> dict[str, Any]:
        """The official `preprocessor_config.json`."""
        settings: dict[str, Any] = self.config.preprocessor_dict()
        return settings

    def push_to_hub(self, repo_id: Any = None, **_: Any) -> None:
        """Nothing is uploaded from here. Raises ParamsError with the two commands that do it."""
        refuse_upload("the processor", repo_id)

    def _replace(self, **changes: Any) -> None:
        try:
            self.__dict__["config"] = dataclasses.replace(self.config, **changes)
        except (ConfigError, TypeError, ValueError) as error:
            raise ParamsError(f"image_processor: {error}") from None
