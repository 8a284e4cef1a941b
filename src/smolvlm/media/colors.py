"""Pictures that were made for other colors than sRGB: said, and converted where `tone_map="auto"` asks for it.

The official processor reads every picture's numbers as they are, so that is the default. A photo in Display P3 then looks a
little dull; one in HDR (PQ, HLG) looks gray; CMYK is converted without its profile.
"""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from smolvlm.media.color_facts import color_tags, profile_name
from smolvlm.media.tone_map import ColorTags, left_as_stored, tone_map
from smolvlm.media.transparency import has_transparency
from smolvlm.options.media import MediaOptions, OnWarning

_REMEDY = 'pass tone_map="auto" to convert it'


def to_srgb(image: Image.Image, profile: bytes | None, head: bytes, options: MediaOptions, on_warning: OnWarning) -> Image.Image:
    """`image` itself, or its colors in sRGB with `tone_map="auto"`. `head`: the beginning of its file, or nothing."""
    tags = color_tags(head)
    convert = options.tone_map == "auto"
    if tags.name is not None:
        if convert:
            return _from_tags(image, tags)
        on_warning(left_as_stored(tags))
        return image
    name = profile_name(profile) if isinstance(profile, bytes) else None
    if name is None:
        return image
    if convert and isinstance(profile, bytes):
        return _from_profile(image, profile, name, on_warning)
    on_warning(f"its color profile ({name}) was not applied, as the official processor does not; {_REMEDY}.")
    return image


def _from_tags(image: Image.Image, tags: ColorTags) -> Image.Image:
    rgb, alpha = _split(image)
    result = Image.fromarray(tone_map(np.asarray(rgb), tags))
    if alpha is not None:
        result.putalpha(alpha)
    return result


def _split(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """The colors as RGB, or CMYK where they are that, and the alpha channel if there is one."""
    if image.mode in ("RGB", "CMYK") and "transparency" not in image.info:
        return image, None
    if not has_transparency(image):
        return image.convert("RGB"), None
    full = image.convert("RGBA")
    return full.convert("RGB"), full.getchannel("A")


def _from_profile(image: Image.Image, profile: bytes, name: str, on_warning: OnWarning) -> Image.Image:
    from PIL import ImageCms

    image, alpha = _split(image)
    try:
        converted = ImageCms.profileToProfile(
            image,
            io.BytesIO(profile),
            ImageCms.createProfile("sRGB"),
            outputMode="RGB",
            renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
            flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
    except (ImageCms.PyCMSError, OSError, ValueError) as error:
        on_warning(f"its color profile ({name}) is damaged or for other pixels ({error}); it was not applied.")
        converted = None
    result = image if converted is None else converted
    if alpha is not None:
        result = result.convert("RGB")
        result.putalpha(alpha)
    return result
