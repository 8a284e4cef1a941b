"""Pictures that were made for other colors than sRGB: said, and converted where `tone_map="auto"` asks for it.

The official processor reads every picture's numbers as they are, so that is the default. A photo in Display P3 then looks a
little dull; one in HDR (PQ, HLG) looks gray; CMYK is converted without its profile.
"""

from __future__ import annotations

import io

from PIL import Image

from smolvlm.media.color_facts import cicp_of, profile_name
from smolvlm.media.options import MediaOptions, OnWarning

_REMEDY = 'tone_map="auto" converts them'


def to_srgb(image: Image.Image, profile: bytes | None, head: bytes, options: MediaOptions,
            on_warning: OnWarning) -> Image.Image:  # fmt: skip
    """`image` itself, or its colors in sRGB with `tone_map="auto"`. `head`: the beginning of its file, or nothing."""
    cicp = cicp_of(head)
    convert = options.tone_map == "auto"
    if cicp is not None and (cicp.is_hdr or cicp.is_wide):
        kind = "an HDR picture" if cicp.is_hdr else "a picture of wide color"
        on_warning(f"{kind} ({cicp}): its colors were read as they are and look washed out; {_REMEDY}.")
        return image
    name = profile_name(profile) if isinstance(profile, bytes) else None
    if name is None:
        return image
    if convert and isinstance(profile, bytes):
        return _from_profile(image, profile, name, on_warning)
    on_warning(f"its color profile ({name}) was not applied, as the official processor does not; {_REMEDY}.")
    return image


def _from_profile(image: Image.Image, profile: bytes, name: str, on_warning: OnWarning) -> Image.Image:
    from PIL import ImageCms

    alpha = None
    if image.mode not in ("RGB", "CMYK"):
        full = image.convert("RGBA")
        image, alpha = full.convert("RGB"), full.getchannel("A")
    try:
        converted = ImageCms.profileToProfile(
            image, io.BytesIO(profile), ImageCms.createProfile("sRGB"), outputMode="RGB",
            renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC, flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )  # fmt: skip
    except (ImageCms.PyCMSError, OSError, ValueError) as error:
        on_warning(f"its color profile ({name}) is damaged or for other pixels ({error}); it was not applied.")
        converted = None
    result = image if converted is None else converted
    if alpha is not None:
        result = result.convert("RGB")
        result.putalpha(alpha)
    return result
