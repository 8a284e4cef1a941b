"""HDR and wide-gamut pixels -> the colors of a common screen, on which the model was trained.

`ColorTags` are the code points of ITU-T H.273 ("coding-independent code points"), which H.264, HEVC, AV1, MP4's `colr` box,
AVIF, HEIC and PNG's `cICP` share. Sources: ITU-R BT.2100-2 (PQ, HLG), BT.2408-7 (203 cd/m2 for reference white),
IEC 61966-2-1 (sRGB), BT.1886, and equation 4 of Reinhard et al. 2002 for the shoulder.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

BT709, BT2020, DCI_P3, DISPLAY_P3 = 1, 9, 11, 12  # `colour_primaries`
PQ, HLG, LINEAR = 16, 18, 8  # `transfer_characteristics`
UNSPECIFIED = 2

_REFERENCE_WHITE_NITS = 203.0
_HLG_PEAK_NITS, _HLG_GAMMA = 1000.0, 1.2
_KNEE = 0.5  # of reference white, in linear light: what is darker keeps its value
_ENCODE_STEPS = 4096
_ROWS = 256  # at a time: float copies of an 8K frame would take 400 MB

_TO_BT709 = {
    BT2020: ((1.660491, -0.587641, -0.072850), (-0.124550, 1.132900, -0.008349), (-0.018151, -0.100579, 1.118730)),
    DISPLAY_P3: ((1.224940, -0.224940, 0.0), (-0.042057, 1.042057, 0.0), (-0.019638, -0.078636, 1.098274)),
}
_TO_BT709[DCI_P3] = _TO_BT709[DISPLAY_P3]  # cameras that write 11 mean a white of D65

# The curve of the screen: pictures are made for sRGB's, videos for BT.1886's.
Screen: TypeAlias = Literal["srgb", "bt1886"]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class ColorTags:
    """Code points of H.273: `transfer_characteristics` and `colour_primaries`; 2 where nothing is said."""

    transfer: int = UNSPECIFIED
    primaries: int = UNSPECIFIED

    @property
    def name(self) -> str | None:
        """What differs from a common screen, such as "HDR (HLG)"; None for ordinary colors."""
        if self.transfer in (PQ, HLG):
            return f"HDR ({'PQ' if self.transfer == PQ else 'HLG'})"
        if self.primaries in _TO_BT709:
            return f"wide-gamut ({'BT.2020' if self.primaries == BT2020 else 'P3'})"
        return None


def left_as_stored(tags: ColorTags) -> str:
    """The warning of whoever reads HDR or wide-gamut media without tone mapping."""
    return f'its colors are {tags.name} and were taken as stored, so they look washed out; pass tone_map="auto" to convert them.'


def tone_map(pixels: npt.NDArray[Any], tags: ColorTags, screen: Screen = "srgb") -> npt.NDArray[np.uint8]:
    """RGB (height, width, 3) as `tags` say, uint8, uint16 or float in 0..1 -> uint8 of the same shape, BT.709 primaries.

    Reference white and what is darker than half of it keep their light; brighter light is bent so that the brightest of the
    picture is just white, hue kept. Wide gamuts are clipped to BT.709's. Greys of ordinary transfers do not change.
    """
    decode = _decoder(pixels.dtype, tags.transfer, screen)
    matrix = np.array(_TO_BT709.get(tags.primaries, np.eye(3)), np.float32)
    is_hdr = tags.transfer in (PQ, HLG, LINEAR)
    peak = _peak(_linear(pixels[::4, ::4], decode, matrix, tags, screen)) if is_hdr else 1.0
    encode = _screen_table(screen)
    out = np.empty(pixels.shape, np.uint8)
    for row in range(0, len(pixels), _ROWS):
        light = _linear(pixels[row : row + _ROWS], decode, matrix, tags, screen)
        if peak > 1.0:
            brightest = np.maximum(light.max(axis=2, keepdims=True), np.float32(1e-6))
            light *= _shoulder(brightest, peak) / brightest
        np.clip(light, 0.0, 1.0, out=light)
        # The square root spends the table's steps where the eye does: in the dark.
        np.take(encode, np.rint(np.sqrt(light) * _ENCODE_STEPS).astype(np.intp), out=out[row : row + _ROWS])
    return out


def _linear(pixels: npt.NDArray[Any], decode: Floats | None, matrix: Floats, tags: ColorTags, screen: Screen) -> Floats:
    """(rows, width, 3) linear light with BT.709 primaries, reference white at 1; negative where out of gamut."""
    light = np.take(decode, pixels) if decode is not None else _to_light(pixels.astype(np.float32), tags.transfer, screen)
    result: Floats = (light @ matrix.T).astype(np.float32, copy=False)
    return result


def _decoder(dtype: np.dtype[Any], transfer: int, screen: Screen) -> Floats | None:
    """One value for each code of an integer type; None for floats."""
    if dtype.kind == "f":
        return None
    codes = int(np.iinfo(dtype).max)
    return _to_light(np.linspace(0.0, 1.0, codes + 1), transfer, screen).astype(np.float32)


def _to_light(signal: npt.NDArray[Any], transfer: int, screen: Screen) -> npt.NDArray[Any]:
    """Signal 0..1 -> light on the screen, reference white at 1."""
    if transfer == PQ:
        powered = np.power(np.clip(signal, 0, 1), 32 / 2523)
        light = np.maximum(powered - 3424 / 4096, 0) / (2413 / 128 - 2392 / 128 * powered)
        return np.asarray(10000 / _REFERENCE_WHITE_NITS * np.power(light, 16384 / 2610))
    if transfer == HLG:
        a, b, c = 0.17883277, 0.28466892, 0.55991073
        scene = np.where(signal <= 0.5, signal**2 / 3, (np.exp((np.maximum(signal, 0.5) - c) / a) + b) / 12)
        # The system gamma for each channel, as SDR cameras and screens apply theirs; BT.2100 bends luminance alone, which
        # leaves colors paler than the same camera's SDR.
        return np.asarray(_HLG_PEAK_NITS / _REFERENCE_WHITE_NITS * np.power(np.maximum(scene, 0), _HLG_GAMMA))
    if transfer == LINEAR:
        return signal
    if screen == "bt1886":
        return np.asarray(np.power(np.maximum(signal, 0), 2.4))
    return np.where(signal <= 0.04045, signal / 12.92, ((np.maximum(signal, 0.04045) + 0.055) / 1.055) ** 2.4)


def _screen_table(screen: Screen) -> npt.NDArray[np.uint8]:
    """The screen's bytes for light (i / steps) ** 2."""
    light = (np.arange(_ENCODE_STEPS + 1) / _ENCODE_STEPS) ** 2
    signal = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    if screen == "bt1886":
        signal = light ** (1 / 2.4)
    table: npt.NDArray[np.uint8] = np.rint(signal * 255).astype(np.uint8)
    return table


def _peak(light: Floats) -> float:
    """The brightest light, without the thousandth of pixels that may be sparks."""
    return float(np.quantile(light.max(axis=2), 0.999)) if light.size else 1.0


def _shoulder(light: Floats, peak: float) -> Floats:
    """0..peak -> 0..1: the identity up to the knee, from there with slope 1 falling to `peak` -> 1."""
    above, most = (light - _KNEE) / (1 - _KNEE), (peak - _KNEE) / (1 - _KNEE)
    above = np.maximum(above, 0)
    bent: Floats = (_KNEE + (1 - _KNEE) * above * (1 + above / most**2) / (1 + above)).astype(np.float32)
    return np.where(light > _KNEE, bent, light)
