"""The set of coded clips: containers x codecs x what cameras, recorders and editors do to them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from helpers_video_codes import drop_chunks, encoders, ffmpeg, make_source, patch_matrix

# Milliseconds at which the frames of each source are shown.
SOURCES: dict[str, tuple[int, ...]] = {
    "even": tuple(i * 40 for i in range(50)),
    "ten": tuple(i * 100 for i in range(30)),
    "varied": (*[i * 40 for i in range(20)], *[3000 + i * 100 for i in range(12)], *[6000 + i * 20 for i in range(20)]),
    "share": (*[i * 100 for i in range(20)], 60_000),
    "burst": (*[i * 20 for i in range(40)], 10_000, 20_000, 30_000),
    "sparse": tuple(i * 2000 for i in range(9)),
    "one": (0,),
    "two": (0, 500),
}
_X264 = ("-c:v", "libx264", "-preset", "veryfast", "-g", "12", "-crf", "18", "-pix_fmt", "yuv420p")
_X265 = ("-c:v", "libx265", "-preset", "ultrafast", "-x265-params", "log-level=none:keyint=12:min-keyint=12:crf=18", "-pix_fmt", "yuv420p")
CODECS: dict[str, tuple[str, ...]] = {
    "h264": _X264,
    "h264b": (*_X264, "-bf", "3", "-b-pyramid", "normal"),
    "hevc": _X265,
    "vp8": ("-c:v", "libvpx", "-deadline", "realtime", "-cpu-used", "8", "-b:v", "1M", "-g", "12"),
    "vp9": ("-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8", "-b:v", "1M", "-g", "12"),
    "vp9alt": (
        "-c:v",
        "libvpx-vp9",
        "-deadline",
        "good",
        "-cpu-used",
        "5",
        "-b:v",
        "1M",
        "-g",
        "24",
        "-auto-alt-ref",
        "1",
        "-lag-in-frames",
        "12",
    ),
    "av1": ("-c:v", "libaom-av1", "-cpu-used", "8", "-b:v", "500k", "-g", "12", "-usage", "realtime"),
    "mpeg4": ("-c:v", "mpeg4", "-q:v", "3", "-g", "12"),
    "mpeg4b": ("-c:v", "mpeg4", "-q:v", "3", "-g", "12", "-bf", "2"),
    "mpeg2": ("-c:v", "mpeg2video", "-q:v", "3", "-g", "12", "-bf", "2"),
    "mpeg1": ("-c:v", "mpeg1video", "-q:v", "3", "-g", "12", "-bf", "2"),
    "mjpeg": ("-c:v", "mjpeg", "-q:v", "3", "-pix_fmt", "yuvj420p"),
    "msmpeg4": ("-c:v", "msmpeg4v3", "-q:v", "3", "-g", "12"),
    "wmv2": ("-c:v", "wmv2", "-q:v", "3", "-g", "12"),
    "flv1": ("-c:v", "flv1", "-q:v", "3", "-g", "12"),
    "theora": ("-c:v", "libtheora", "-q:v", "8", "-g", "12"),
    "h263": ("-c:v", "h263", "-q:v", "3", "-g", "12", "-s", "176x144"),
    "prores": ("-c:v", "prores_ks", "-profile:v", "1"),
    "ffv1": ("-c:v", "ffv1", "-pix_fmt", "yuv420p"),
    "huffyuv": ("-c:v", "huffyuv", "-pix_fmt", "yuv422p"),
    "rle": ("-c:v", "qtrle", "-pix_fmt", "rgb24"),
    "png": ("-c:v", "png", "-pix_fmt", "rgb24"),
    "yuv": ("-pix_fmt", "yuv420p"),
    "raw": ("-c:v", "rawvideo", "-pix_fmt", "yuv420p"),
    "gif": ("-c:v", "gif"),
}
_IN = {
    "mp4": "h264 h264b hevc vp9 av1 mpeg4 mpeg4b mjpeg mpeg2",
    "mov": "h264b hevc mjpeg prores rle png mpeg4",
    "mkv": "h264 h264b hevc vp8 vp9 vp9alt av1 mpeg4b mpeg2 mjpeg ffv1 huffyuv theora raw prores",
    "webm": "vp8 vp9 vp9alt av1",
    "avi": "mpeg4 mpeg4b mjpeg msmpeg4 huffyuv ffv1 raw h264 h264b",
    "ts": "h264 h264b hevc mpeg2 mpeg4",
    "m2ts": "h264b",
    "mpg": "mpeg1 mpeg2",
    "vob": "mpeg2",
    "flv": "flv1 h264 h264b",
    "asf": "wmv2 msmpeg4 mpeg4",
    "wmv": "wmv2",
    "ogv": "theora",
    "3gp": "h264 h263",
    "m4v": "h264b",
    "nut": "ffv1 mpeg4 h264b",
    "mxf": "mpeg2",
    "y4m": "yuv",
    "gif": "gif",
    "h264": "h264b",
    "hevc": "hevc",
    "ivf": "vp8 vp9 av1",
    "m2v": "mpeg2",
}
_FORMAT = {"y4m": ("-f", "yuv4mpegpipe")}
_KEEPS_TIMES = ("mp4", "mov", "mkv", "webm", "ts", "m2ts", "nut", "flv", "asf", "wmv", "3gp", "m4v")


@dataclass(frozen=True)
class Case:
    """One file: ffmpeg's arguments for it, and what is done to it afterwards. `stream`: which video stream is the right one."""

    name: str
    source: str
    arguments: tuple[str, ...]
    after: Callable[[Path], object] | None = None
    more: tuple[str, ...] = ()  # further inputs, before the arguments
    size: tuple[int, int] = (160, 120)
    stream: int = 0
    first: tuple[str, ...] = field(default=())  # arguments of a first file, which `arguments` then copy

    def make(self, folder: Path) -> Path:
        key = f"{self.source}-{self.size[0]}x{self.size[1]}"
        source = folder / f"{key}.source.nut"
        if not source.exists():
            make_source(source, SOURCES[self.source], self.size)
        path = folder / self.name
        if self.first:
            begun = folder / f"begun-{self.name}"
            ffmpeg("-i", source, *self.first, begun)
            source = begun
        before = ("-ss", self.arguments[1]) if self.arguments[:1] == ("CUT",) else ()
        arguments = self.arguments[2:] if before else self.arguments
        ffmpeg(*before, "-i", source, *self.more, *arguments, path)
        if self.after is not None:
            self.after(path)
        return path


def cases() -> list[Case]:
    """All files that this ffmpeg can write, each with a name of its own."""
    found = [case for case in _all() if all(not a.startswith("lib") or a in encoders() for a in case.arguments)]
    assert len({case.name for case in found}) == len(found), "names repeat"
    return found


def _all() -> Iterator[Case]:
    for container, names in _IN.items():
        for codec in names.split():
            yield Case(f"{codec}.{container}", "even", (*CODECS[codec], *_FORMAT.get(container, ())))
    exact = ("-fps_mode", "passthrough", "-enc_time_base", "1/1000")
    for container in _KEEPS_TIMES:
        for source in ("varied", "share", "burst"):
            for codec in _IN[container].split():
                if codec in ("h264", "h264b", "vp9", "ffv1", "wmv2", "vp8") and (source != "burst" or codec[-1] == "b"):
                    scale = ("-video_track_timescale", "90000") if container in ("mp4", "mov", "m4v", "3gp") else ()
                    yield Case(f"{source}-{codec}.{container}", source, (*CODECS[codec], *exact, *scale))
    for container in ("mp4", "mkv", "ts", "avi", "webm"):
        codec = CODECS["vp8" if container == "webm" else "mpeg4" if container == "avi" else "h264b"]
        rate = ("-fps_mode", "passthrough", "-enc_time_base", "1/1000") if container != "avi" else ()
        for source in ("sparse", "one", "two"):
            yield Case(f"{source}.{container}", source, (*codec, *rate))
        yield Case(f"ntsc.{container}", "even", ("-vf", "setpts=N*1001/30000/TB", "-r", "30000/1001", *codec))
    yield from _turned()
    yield from _edited()
    yield from _streams()
    yield from _pixels()
    yield from _dropped()


def _turned() -> Iterator[Case]:
    # Each with the filter that turns the stored picture the other way round, so that it is shown upright.
    eight = {
        (1, 0, 0, 1): "null",
        (-1, 0, 0, 1): "hflip",
        (1, 0, 0, -1): "vflip",
        (-1, 0, 0, -1): "hflip,vflip",
        (0, 1, -1, 0): "transpose=2",
        (0, -1, 1, 0): "transpose=1",
        (0, 1, 1, 0): "transpose=0",
        (0, -1, -1, 0): "transpose=3",
    }
    for n, (matrix, back) in enumerate(eight.items()):
        for codec, container in (("h264", "mp4"), ("mpeg4", "mov")):
            yield Case(f"turned{n}-{codec}.{container}", "ten", (*CODECS[codec], "-vf", back), lambda path, m=matrix: patch_matrix(path, m))
    for degrees in ("90", "180", "270"):
        yield Case(
            f"turned{degrees}.mkv",
            "ten",
            ("-c", "copy", "-metadata:s:v", f"rotate={degrees}", "-map_metadata", "0"),
            first=(*_X264, "-f", "mov"),
        )


def _edited() -> Iterator[Case]:
    for codec in ("h264", "h264b", "hevc", "mpeg4"):
        yield Case(f"trimmed-{codec}.mp4", "even", ("CUT", "0.73", "-c", "copy"), first=(*CODECS[codec], "-f", "mp4"))
        yield Case(f"trimmed-{codec}.mov", "ten", ("CUT", "0.95", "-t", "1.5", "-c", "copy"), first=(*CODECS[codec], "-f", "mp4"))
    for container in ("mp4", "mov", "mkv", "ts", "flv", "nut"):
        yield Case(f"late.{container}", "even", (*CODECS["h264b"], "-output_ts_offset", "7.5"))
    yield Case("late-far.mkv", "even", (*CODECS["h264b"], "-output_ts_offset", "3600"))
    yield Case("wrap.ts", "even", (*CODECS["h264b"], "-output_ts_offset", "95442.5"))  # 2**33 ticks are 95443.7 s
    yield Case("no-edits.mp4", "even", (*CODECS["h264b"], "-use_editlist", "0"))
    yield Case("negative.mp4", "even", (*CODECS["h264b"], "-movflags", "negative_cts_offsets"))
    for flags in ("frag_keyframe+empty_moov", "frag_every_frame+empty_moov", "dash", "faststart", "cmaf", "frag_keyframe"):
        yield Case(f"{flags.replace('+', '-')}.mp4", "even", (*CODECS["h264b"], "-movflags", flags))
    yield Case(
        "fragments-varied.mp4",
        "varied",
        (*CODECS["h264b"], "-fps_mode", "passthrough", "-enc_time_base", "1/1000", "-movflags", "frag_keyframe+empty_moov"),
    )
    yield Case("live.mkv", "even", (*CODECS["h264b"], "-live", "1"))
    yield Case("live.webm", "even", (*CODECS["vp9"], "-live", "1"))
    for name, options in {
        "open-gop": "open-gop=1:scenecut=0",
        "one-gop": "keyint=999",
        "refresh": "intra-refresh=1",
        "intra": "keyint=1",
    }.items():
        for container in ("mp4", "mkv", "ts"):
            yield Case(f"{name}.{container}", "even", (*_X264, "-bf", "2", "-x264-params", options))


def _streams() -> Iterator[Case]:
    other = ("-f", "lavfi", "-i", "testsrc=s=320x240:r=10:d=2")
    small = ("-f", "lavfi", "-i", "testsrc=s=64x48:r=10:d=2")
    tone = ("-f", "lavfi", "-i", "sine=d=6")
    for container in ("mp4", "m4v", "mkv"):
        yield Case(
            f"second.{container}",
            "even",
            ("-map", "1:v", "-map", "0:v", *_X264, "-disposition:v:0", "0", "-disposition:v:1", "default"),
            more=other,
            stream=1,
        )
        yield Case(
            f"cover.{container}",
            "even",
            (
                "-map",
                "0:v",
                "-map",
                "1:v",
                "-c:v:0",
                "copy",
                "-c:v:1",
                "mjpeg",
                "-frames:v:1",
                "1",
                "-pix_fmt:v:1",
                "yuvj420p",
                "-disposition:v:1",
                "attached_pic",
            ),
            more=other,
            first=(*_X264, "-f", "mov"),
        )
        yield Case(f"sound.{container}", "even", ("-map", "0:v", "-map", "1:a", *CODECS["h264b"], "-c:a", "aac"), more=tone)
        yield Case(f"sound-first.{container}", "even", ("-map", "1:a", "-map", "0:v", *CODECS["h264b"], "-c:a", "aac"), more=tone)
    # MP4's writer marks the first track as enabled when none is the default one, and then that is the default.
    yield Case(
        "largest.mkv",
        "even",
        ("-map", "1:v", "-map", "0:v", *_X264, "-disposition:v:0", "0", "-disposition:v:1", "0"),
        more=small,
        stream=1,
    )
    yield Case("sound.ts", "even", ("-map", "0:v", "-map", "1:a", *CODECS["h264b"], "-c:a", "mp2", "-t", "2"), more=tone)
    yield Case("sound.avi", "even", ("-map", "0:v", "-map", "1:a", *CODECS["mpeg4"], "-c:a", "mp2", "-t", "2"), more=tone)
    yield Case("sound.mpg", "even", ("-map", "0:v", "-map", "1:a", *CODECS["mpeg2"], "-c:a", "mp2", "-t", "2"), more=tone)


def _pixels() -> Iterator[Case]:
    for transfer, primaries in (("arib-std-b67", "bt2020"), ("smpte2084", "bt2020"), ("bt2020-10", "bt2020"), ("bt709", "smpte432")):
        matrix = "bt2020nc" if primaries == "bt2020" else "bt709"
        graph = f"format=gbrp,zscale=min=gbr:tin=bt709:pin=bt709:rin=full:t={transfer}:p={primaries}:m={matrix}:r=limited:npl=203"
        for container in ("mp4", "mkv"):
            yield Case(
                f"hdr-{transfer}.{container}",
                "ten",
                (
                    "-vf",
                    f"{graph},format=yuv420p10le",
                    "-c:v",
                    "libx265",
                    "-preset",
                    "ultrafast",
                    "-x265-params",
                    f"log-level=none:keyint=12:colorprim={primaries}:transfer={transfer}:colormatrix={matrix}",
                ),
            )
    for name, format in {"ten-bit": "yuv420p10le", "444": "yuv444p", "422": "yuv422p", "full": "yuvj420p", "grey": "gray"}.items():
        yield Case(f"{name}.mp4", "ten", (*_X264, "-pix_fmt", format))
    yield Case("alpha.webm", "ten", ("-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8", "-pix_fmt", "yuva420p"))
    yield Case("alpha.mov", "ten", ("-c:v", "prores_ks", "-profile:v", "4444", "-pix_fmt", "yuva444p10le"))
    for matrix in ("bt709", "bt470bg"):
        yield Case(f"matrix-{matrix}.mp4", "ten", (*_X264, "-colorspace", matrix, "-vf", f"scale=out_color_matrix={matrix}"))
    for n, size in enumerate(((161, 121), (200, 82), (82, 200), (178, 100))):
        yield Case(f"odd{n}.mp4", "ten", (*_X264, "-pix_fmt", "yuv444p"), size=size)
        yield Case(f"odd{n}.webm", "ten", CODECS["vp9"], size=size)
        yield Case(f"odd{n}.mkv", "ten", CODECS["ffv1"], size=size)
    yield Case("wide-pixels.mp4", "ten", (*_X264, "-aspect", "16:9"))
    yield Case("wide-pixels.mkv", "ten", (*_X264, "-vf", "setsar=2"))
    for field_order in ("tff=1", "bff=1"):
        yield Case(f"interlaced-{field_order[:3]}.mp4", "even", (*_X264, "-x264-params", field_order, "-flags", "+ildct+ilme"))
    yield Case("interlaced.ts", "even", (*CODECS["mpeg2"], "-flags", "+ildct+ilme", "-top", "1"))
    yield Case("interlaced.mpg", "even", (*CODECS["mpeg2"], "-flags", "+ildct+ilme", "-top", "0"))


def _dropped() -> Iterator[Case]:
    for codec in ("mjpeg", "mpeg4", "huffyuv"):
        for name, numbers in {"middle": range(20, 25), "end": range(45, 50), "many": range(1, 50, 3)}.items():
            if codec != "mpeg4":  # a predicted frame needs the one before it
                yield Case(f"dropped-{name}-{codec}.avi", "even", CODECS[codec], lambda path, n=numbers: drop_chunks(path, n))
    yield Case("dropped-mpeg4.avi", "even", (*CODECS["mpeg4"], "-g", "1"), lambda path: drop_chunks(path, range(20, 25)))
    for codec in ("mjpeg", "mpeg4", "h264"):
        yield Case(f"gaps-{codec}.avi", "varied", (*CODECS[codec], "-fps_mode", "passthrough", "-enc_time_base", "1/50"))
