"""HDR and wide gamuts: against values worked out by hand, and against what zscale (zimg) made of known colors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from helpers_media import OFFICIAL, make_clip
from helpers_video_codes import ffmpeg, have_ffmpeg
from smolvlm.errors import ParamsError
from smolvlm.media import MediaOptions, sample_video
from smolvlm.media.tone_map import BT709, BT2020, DISPLAY_P3, HLG, PQ, ColorTags, tone_map

# Saturated but inside BT.709, from dark to reference white.
COLORS = np.array(
    [
        [200, 30, 30],
        [30, 180, 40],
        [40, 50, 200],
        [230, 210, 40],
        [240, 130, 20],
        [128, 128, 128],
        [250, 250, 250],
        [20, 20, 20],
        [90, 40, 110],
    ],
    np.uint8,
)
KINDS = {
    "hlg": ("arib-std-b67", "bt2020", "bt2020nc"),
    "pq": ("smpte2084", "bt2020", "bt2020nc"),
    "bt2020": ("bt2020-10", "bt2020", "bt2020nc"),
    "p3": ("bt709", "smpte432", "bt709"),
}
needs_ffmpeg = pytest.mark.skipif(not have_ffmpeg(), reason="needs the ffmpeg command: apt-get install ffmpeg")


def _filled(value: float) -> np.ndarray:
    return np.full((8, 8, 3), value)


def test_reference_white_is_white() -> None:
    """BT.2408: 203 cd/m2 is 58 % of PQ and 75 % of HLG."""
    for transfer, signal in ((PQ, 0.5807), (HLG, 0.75)):
        assert tone_map(_filled(signal), ColorTags(transfer, BT2020)).min() >= 254
        assert tone_map(_filled(0.0), ColorTags(transfer, BT2020)).max() == 0


def test_pq_by_hand() -> None:
    """SMPTE ST 2084: the signal 0.3583 is 20.3 cd/m2, a tenth of reference white: 0.1 of light is 0.3492 of sRGB."""
    assert tone_map(_filled(0.3583), ColorTags(PQ, BT709))[0, 0].tolist() == pytest.approx([89, 89, 89], abs=1)


def test_hlg_by_hand() -> None:
    """BT.2100: the signal 0.5 is 1/12 of the scene's peak; (1/12)**1.2 * 1000 / 203 of light is 0.2496, 0.5365 of sRGB."""
    assert tone_map(_filled(0.5), ColorTags(HLG, BT709))[0, 0].tolist() == pytest.approx([137, 137, 137], abs=1)


@pytest.mark.parametrize("primaries", [BT2020, DISPLAY_P3])
def test_greys_of_an_ordinary_transfer_stay(primaries: int) -> None:
    greys = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)
    assert np.array_equal(tone_map(greys, ColorTags(1, primaries)), greys)
    assert np.array_equal(tone_map(greys.astype(np.uint16) * 257, ColorTags(1, primaries), "bt1886"), greys)


def test_highlights_are_told_apart_and_keep_their_hue() -> None:
    """A ramp up to 1,000 cd/m2: nothing clips, brighter stays brighter, and a bright orange does not turn yellow or white."""
    nits = np.linspace(1, 1000, 64)
    y = (nits / 10000) ** (2610 / 16384)
    signal = ((3424 / 4096 + 2413 / 128 * y) / (1 + 2392 / 128 * y)) ** (2523 / 32)
    ramp = tone_map(np.repeat(signal[None, :, None], 3, axis=2), ColorTags(PQ, BT709))[0, :, 0].astype(int)
    assert (np.diff(ramp) >= 0).all()
    assert len(np.unique(ramp[nits > 203])) > 15
    orange = np.zeros((4, 64, 3))
    orange[..., 0], orange[..., 1], orange[..., 2] = signal, signal * 0.75, signal * 0.3
    red, green, blue = tone_map(orange, ColorTags(PQ, BT709))[0, -1].astype(int)
    assert red > 240
    assert green < 0.75 * red
    assert blue < 0.1 * red


def test_types_agree() -> None:
    values = np.random.default_rng(0).random((40, 30, 3))
    deep = np.rint(values * 65535).astype(np.uint16)
    for tags in (ColorTags(PQ, BT2020), ColorTags(HLG, BT2020), ColorTags(1, DISPLAY_P3)):
        difference = tone_map(deep, tags).astype(int) - tone_map(deep / 65535, tags)
        assert np.abs(difference).max() <= 1


@needs_ffmpeg
@pytest.mark.parametrize("kind", KINDS)
def test_clips_against_zscale(kind: str, tmp_path: Path) -> None:
    """ffmpeg turns known BT.709 colors into HDR; `tone_map="auto"` finds them again, and "off" keeps what is stored and says so."""
    transfer, primaries, matrix = KINDS[kind]
    side = 96
    raw = np.repeat(np.repeat(COLORS.reshape(3, 3, 3), side, axis=0), side, axis=1)
    (tmp_path / "colors.rgb").write_bytes(raw.tobytes())
    path = tmp_path / f"{kind}.mp4"
    ffmpeg(
        "-f",
        "rawvideo",
        "-pix_fmt",
        "rgb24",
        "-s",
        f"{3 * side}x{3 * side}",
        "-i",
        tmp_path / "colors.rgb",
        "-vf",
        f"format=gbrp,zscale=min=gbr:tin=bt709:pin=bt709:rin=full:t={transfer}:p={primaries}:m={matrix}:r=limited:npl=203,"
        "format=yuv444p10le",
        "-c:v",
        "libx265",
        "-x265-params",
        f"log-level=none:lossless=1:colorprim={primaries}:transfer={transfer}:colormatrix={matrix}",
        path,
    )
    middles = [512 * (2 * i + 1) // 6 for i in range(3)]
    stored = sample_video(path, OFFICIAL)
    mapped = sample_video(path, OFFICIAL, MediaOptions(tone_map="auto"))
    found = mapped.frames[0][np.ix_(middles, middles)].reshape(9, 3).astype(int)
    assert np.abs(found - COLORS).max() <= 8  # 10 bits, limited range, and the shoulder above half of white
    assert np.abs(found - COLORS).mean() <= 2.5
    assert mapped.warnings == ()
    name = {"hlg": "HDR (HLG)", "pq": "HDR (PQ)", "bt2020": "wide-gamut (BT.2020)", "p3": "wide-gamut (P3)"}[kind]
    assert len(stored.warnings) == 1
    assert name in stored.warnings[0]
    assert 'tone_map="auto"' in stored.warnings[0]

    def saturation(colors: np.ndarray) -> float:
        return float((colors.max(-1).astype(int) - colors.min(-1)).mean())

    assert saturation(stored.frames[0][np.ix_(middles, middles)]) < 0.9 * saturation(COLORS)
    assert saturation(found) == pytest.approx(saturation(COLORS), rel=0.05)


def test_ordinary_clips_are_left_alone(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "plain.mp4", 5, options={"preset": "veryfast"})
    plain, auto = sample_video(path, OFFICIAL), sample_video(path, OFFICIAL, MediaOptions(tone_map="auto"))
    assert np.array_equal(plain.frames, auto.frames)
    assert plain.warnings == auto.warnings == ()
    with pytest.raises(ParamsError, match="tone_map='on': expected one of off, auto"):
        MediaOptions(tone_map="on")  # type: ignore[arg-type]
