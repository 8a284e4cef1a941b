"""Clips of every kind that seeking could get wrong, encoded once for the whole run."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest

from helpers_media import make_clip

# Milliseconds of frame i of a clip whose rate changes twice and that pauses for a second.
VARIABLE_MS = [0, *[40 * i for i in range(1, 40)], *[1560 + 100 * i for i in range(1, 30)], *[5500 + 17 * i for i in range(50)]]


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("clips")
    x264 = {"g": "24", "preset": "veryfast", "crf": "18"}
    opened = {**x264, "bf": "3", "x264-params": "open-gop=1:scenecut=0"}
    variable = {"pts": VARIABLE_MS.__getitem__, "time_base": Fraction(1, 1000)}
    return {
        "cfr.mp4": make_clip(folder / "cfr.mp4", options=x264),
        "b_frames.mp4": make_clip(folder / "b_frames.mp4", options={**x264, "bf": "3", "b-pyramid": "normal"}),
        "open_gop.mp4": make_clip(folder / "open_gop.mp4", options=opened),
        "open_gop.ts": make_clip(folder / "open_gop.ts", options=opened),
        "open_gop.mkv": make_clip(folder / "open_gop.mkv", options=opened),
        "open_gop_hevc.mp4": make_clip(
            folder / "open_gop_hevc.mp4",
            90,
            codec="libx265",
            options={"preset": "ultrafast", "x265-params": "log-level=none:keyint=24:min-keyint=24:open-gop=1:bframes=3:crf=18"},
        ),
        "intra.mp4": make_clip(folder / "intra.mp4", 40, options={**x264, "g": "1"}),
        "one_gop.mp4": make_clip(folder / "one_gop.mp4", options={**x264, "g": "999", "bf": "2"}),
        "fragmented.mp4": make_clip(folder / "fragmented.mp4", options=x264, container_options={"movflags": "frag_keyframe+empty_moov"}),
        "sound.mp4": make_clip(folder / "sound.mp4", options=x264, audio="aac"),
        "sound.mkv": make_clip(folder / "sound.mkv", options=x264, audio="libopus"),
        "sound.ts": make_clip(folder / "sound.ts", options={**x264, "bf": "2"}, audio="aac"),
        "vfr.mp4": make_clip(folder / "vfr.mp4", len(VARIABLE_MS), options={**x264, "bf": "2"}, **variable),
        "vfr.mkv": make_clip(folder / "vfr.mkv", len(VARIABLE_MS), options={**x264, "bf": "2"}, **variable),
        "ntsc.mp4": make_clip(folder / "ntsc.mp4", options=x264, pts=lambda i: i * 1001, time_base=Fraction(1, 30000)),
        "vp9.webm": make_clip(
            folder / "vp9.webm",
            60,
            codec="libvpx-vp9",
            options={"g": "20", "cpu-used": "8", "deadline": "realtime", "crf": "20", "b": "0", "auto-alt-ref": "1", "lag-in-frames": "16"},
        ),
        "vp8.webm": make_clip(
            folder / "vp8.webm",
            60,
            codec="libvpx",
            options={"g": "20", "cpu-used": "8", "deadline": "good", "auto-alt-ref": "1", "lag-in-frames": "16", "b": "1M"},
        ),
        "mpeg4.avi": make_clip(folder / "mpeg4.avi", 60, codec="mpeg4", options={"g": "12", "bf": "2", "qscale": "2"}),
        "h264.avi": make_clip(folder / "h264.avi", 60, options={**x264, "bf": "2"}),
        "mpeg2.mpg": make_clip(folder / "mpeg2.mpg", 60, codec="mpeg2video", options={"g": "12", "bf": "2", "b": "2M"}),
        "mjpeg.mov": make_clip(folder / "mjpeg.mov", 30, codec="mjpeg", pix_fmt="yuvj420p"),
        "flash.flv": make_clip(folder / "flash.flv", 60, codec="flv", options={"g": "12"}),
        "windows.wmv": make_clip(folder / "windows.wmv", 60, codec="wmv2", options={"g": "12", "b": "2M"}),
        "moving.gif": make_clip(folder / "moving.gif", 30, codec="gif", rate=10, pix_fmt="rgb8"),
        "raw.h264": make_clip(folder / "raw.h264", 60, options={**x264, "bf": "2"}, format="h264"),
        "turned_90.mp4": make_clip(folder / "turned_90.mp4", 30, options=x264, rotation=90),
        "turned_180.mp4": make_clip(folder / "turned_180.mp4", 30, options=x264, rotation=180),
        "turned_270.mp4": make_clip(folder / "turned_270.mp4", 30, options=x264, rotation=-90),
        "single.mp4": make_clip(folder / "single.mp4", 1, options=x264),
    }
