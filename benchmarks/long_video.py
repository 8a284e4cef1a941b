"""64 frames out of one hour of 1080p H.264: by seeking, as this package does, against decoding everything.

    python -m benchmarks.long_video                         # decodes the whole hour: minutes
    python -m benchmarks.long_video --decode-seconds 120    # decodes two minutes of it and says so

The hour is made on the spot: one minute encoded by the `ffmpeg` program (by PyAV where there is none), repeated by
stream copy. Both ways must give the same 64 pictures. Prints how many frames were decoded against the groups of pictures
that the sampled frames lie in. Writes benchmarks/results/long_video.json.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import time
from bisect import bisect_right
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

from benchmarks import material
from benchmarks.machine import RESULTS, WORK, describe_machine
from smolvlm.config import ProcessorConfig, preset, processor_preset
from smolvlm.media import sample_video
from smolvlm.media.video import square_frame

SIZE = (1920, 1080)
FPS = 30
MINUTE_S = 60


def make_hour(minutes: int, gop: int) -> Path:
    """One encoded minute, then its packets again and again. H.264 with B-frames, `gop` frames between key frames."""
    path = WORK / f"long-{minutes}min-gop{gop}.mp4"
    if path.exists():
        return path
    minute = WORK / f"minute-gop{gop}.mp4"
    if shutil.which("ffmpeg") is None:
        material.make_clip(minute, *SIZE, seconds=MINUTE_S, fps=FPS, gop=gop)
        return repeat(minute, path, minutes)
    WORK.mkdir(parents=True, exist_ok=True)
    quiet = ["ffmpeg", "-nostdin", "-hide_banner", "-loglevel", "error", "-y"]
    if not minute.exists():
        source = f"testsrc2=size={SIZE[0]}x{SIZE[1]}:rate={FPS}:duration={MINUTE_S},noise=alls=8:allf=t"
        part = minute.with_suffix(".part")
        subprocess.run(
            [
                *quiet,
                "-f",
                "lavfi",
                "-i",
                source,
                "-c:v",
                "libx264",
                "-preset",
                "veryfast",
                "-crf",
                "30",
                "-g",
                str(gop),
                "-pix_fmt",
                "yuv420p",
                "-f",
                "mp4",
                str(part),
            ],
            check=True,
        )
        part.replace(minute)
    part = path.with_suffix(".part")
    subprocess.run([*quiet, "-stream_loop", str(minutes - 1), "-i", str(minute), "-c", "copy", "-f", "mp4", str(part)], check=True)
    part.replace(path)
    return path


def repeat(minute: Path, path: Path, times: int, seconds: int = MINUTE_S) -> Path:
    """Stream copy without the program: the same packets, each time `seconds` later."""
    part = path.with_suffix(".part")
    with av.open(minute) as source, av.open(part, "w", format="mp4") as target:
        stream = source.streams.video[0]
        copy = target.add_stream_from_template(stream)
        packets = [packet for packet in source.demux(stream) if packet.dts is not None]
        step = round(seconds / stream.time_base)
        for i in range(times):
            for packet in packets:
                again = av.Packet(bytes(packet))
                again.pts, again.dts = packet.pts + i * step, packet.dts + i * step
                again.time_base, again.is_keyframe, again.stream = packet.time_base, packet.is_keyframe, copy
                target.mux(again)
    part.replace(path)
    return path


def groups_of_pictures(path: Path) -> tuple[int, list[int]]:
    """Frames in all, and the frame numbers (in presentation order) of the key frames, from the packets alone."""
    with av.open(path) as container:
        packets = [(p.pts, p.is_keyframe) for p in container.demux(video=0) if p.pts is not None]
    order = sorted(packets)
    return len(order), [i for i, (_, is_key) in enumerate(order) if is_key]


def decode_all(path: Path, wanted: set[int], config: ProcessorConfig, limit: int | None) -> tuple[dict[int, Any], int, float]:
    """Decode from the start with all cores; keep the wanted frames. Returns them, the frames decoded, and seconds."""
    kept: dict[int, npt.NDArray[np.uint8]] = {}
    started = time.perf_counter()
    count = 0
    with av.open(path) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        for frame in container.decode(stream):
            if count in wanted:
                kept[count] = square_frame(frame.to_ndarray(format="rgb24"), config)
            count += 1
            if limit is not None and count >= limit:
                break
    return kept, count, time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=int, default=60)
    parser.add_argument("--gop", type=int, default=250, help="frames between key frames (x264's own default)")
    parser.add_argument("--decode-seconds", type=int, help="decode only so much of the video and extrapolate")
    parser.add_argument("--rounds", type=int, default=3, help="of the seeking side; the median counts")
    parser.add_argument("--out", type=Path, default=RESULTS / "long_video.json")
    args = parser.parse_args()
    console = Console(stderr=True)

    started = time.perf_counter()
    path = make_hour(args.minutes, args.gop)
    made_s = time.perf_counter() - started
    console.print(f"{path.name}: {path.stat().st_size / 1e6:.0f} MB, made in {made_s:.1f} s", highlight=False)
    config = processor_preset(preset("256m"))

    seek_seconds = []
    for _ in range(args.rounds):
        started = time.perf_counter()
        sampled = sample_video(path, config)
        seek_seconds.append(time.perf_counter() - started)
        line = f"  by seeking: {seek_seconds[-1]:.2f} s, {sampled.decoded_frames} frames decoded"
        console.print(line, highlight=False)
    total, keys = groups_of_pictures(path)
    ends = [*keys[1:], total]
    groups = {bisect_right(keys, index) - 1 for index in sampled.indices}
    allowed = sum(ends[group] - keys[group] for group in groups)

    limit = None if args.decode_seconds is None else args.decode_seconds * FPS
    kept, decoded, decode_s = decode_all(path, set(sampled.indices), config, limit)
    equal = [np.array_equal(kept[index], sampled.frames[i]) for i, index in enumerate(sampled.indices) if index in kept]
    if sampled.decoded_frames > allowed:
        raise SystemExit(f"{sampled.decoded_frames} frames were decoded; their groups of pictures hold {allowed}.")
    if not all(equal):
        raise SystemExit(f"{equal.count(False)} of {len(equal)} frames differ between seeking and decoding everything.")
    whole_s = decode_s * total / decoded
    seek_s = float(np.median(seek_seconds))
    report = {
        "machine": describe_machine(),
        "video": {
            "minutes": args.minutes,
            "size": SIZE,
            "fps": FPS,
            "frames": total,
            "bytes": path.stat().st_size,
            "key_frames": len(keys),
            "gop": args.gop,
        },
        "frames_taken": len(sampled.indices),
        "frames_compared_equal": len(equal),
        "seek": {"seconds": seek_seconds, "median_s": seek_s, "decoded_frames": sampled.decoded_frames},
        "groups_of_pictures": {"touched": len(groups), "frames_in_them": allowed},
        "decode_all": {"seconds": whole_s, "decoded_frames": decoded, "measured_s": decode_s, "extrapolated": decoded < total},
        "ratio": whole_s / seek_s,
    }
    Console().print(_table(report))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    console.print(f"written: {args.out}", highlight=False)


def _table(report: dict[str, Any]) -> Table:
    seek, whole, groups = report["seek"], report["decode_all"], report["groups_of_pictures"]
    table = Table(title=f"{report['frames_taken']} frames of {report['video']['minutes']} min, 1080p H.264")
    for column in ("", "seconds", "frames decoded"):
        table.add_column(column, justify="left" if column == "" else "right")
    note = " (extrapolated)" if whole["extrapolated"] else ""
    table.add_row("by seeking", f"{seek['median_s']:.2f}", f"{seek['decoded_frames']:,}")
    table.add_row(f"decoding everything{note}", f"{whole['seconds']:.1f}", f"{report['video']['frames']:,}")
    table.add_row("times better", f"{report['ratio']:.1f} x", "")
    table.add_row(f"in the {groups['touched']} groups of pictures touched", "", f"{groups['frames_in_them']:,}")
    table.add_row("frames equal in both", "", str(report["frames_compared_equal"]))
    return table


if __name__ == "__main__":
    main()
