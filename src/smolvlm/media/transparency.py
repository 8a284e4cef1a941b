"""Pictures with transparency -> RGB: what is put behind them, and what is then no longer seen.

The reference does two things. A file is `convert("RGB")`ed, which drops alpha and shows whatever color lies under it, often
black; a picture that is already decoded is laid over white. Each way of ours equals its own unless a background is named.
"""

from __future__ import annotations

from PIL import Image

from smolvlm.options.media import OnWarning, background_rgb


def has_transparency(image: Image.Image) -> bool:
    """Whether `image` has an alpha channel or a transparent color."""
    return image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or image.info.get("transparency") is not None


def flatten(image: Image.Image, background: str | None, *, from_file: bool, on_warning: OnWarning) -> Image.Image:
    """`image` as "RGB". `background` is "white", "black" or "#rrggbb"; None leaves it to the reference's two ways."""
    if not has_transparency(image):
        return image.convert("RGB")
    full = image.convert("RGBA")
    histogram = full.getchannel("A").histogram()
    hidden = sum(histogram[:255])
    if background is None and from_file:
        # A palette's transparent entries need RGBA on the way, or Pillow warns; the colors are the same.
        rgb = (full if image.mode == "P" else image).convert("RGB")
        if hidden:
            on_warning(_warning(rgb, hidden / (image.width * image.height), "its hidden colors are shown"))
        return rgb
    color = background_rgb(background or "white")
    rgb = Image.alpha_composite(Image.new("RGBA", full.size, (*color, 255)), full).convert("RGB")
    if hidden and _plain(rgb) and sum(histogram[1:]):
        on_warning(_warning(rgb, hidden / (image.width * image.height), f"it lies over {background or 'white'}"))
    return rgb


def _plain(rgb: Image.Image) -> bool:
    return all(low == high for low, high in rgb.getextrema())  # type: ignore[misc]


def _warning(rgb: Image.Image, share: float, what: str) -> str:
    seen = ", so that nothing of it can be told apart" if _plain(rgb) else ""
    return f'{max(share * 100, 1):.0f} % of it is transparent and {what}{seen}; background="white" or another color lays it over that.'
