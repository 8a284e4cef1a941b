"""100 spans of 10 s out of one hour of video, by one `Video`: against the bare decoding of what they need, and a new index each time.

    python -m benchmarks.video_spans                           # one hour of 1080p H.264, made on the spot: minutes
    python -m benchmarks.video_spans --minutes 5 --spans 20    # a look

"needed" seeks once a span with PyAV, decodes from the key frame before it to the last frame that is taken, and shrinks the frames
that are taken; it is told where they are. "a file each time" is `sample_video` on the path, which reads the index anew. All give the
same pictures. Also: the hour's key frames. Seconds are of the wall and of the processor. Writes benchmarks/results/video_spans.json.
"""

from __future__ import annotations

import argparse
import functools
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

from benchmarks.long_video import make_hour
from benchmarks.machine import RESULTS, describe_machine
from smolvlm.config import ProcessorConfig, preset, processor_preset
from smolvlm.media import MediaOptions, SampledVideo, Video, sample_video
from smolvlm.media.video import square_frame

Pixels = npt.NDArray[np.uint8]
Span = tuple[float, float]


def spans_of(duration_s: float, count: int, length_s: float, seed: int = 0) -> list[Span]:
    """`count` spans at random places, in random order."""
    starts = np.random.default_rng(seed).uniform(0, duration_s - length_s, count)
    return [(float(start), float(start) + length_s) for start in starts]


def by_one_video(path: Path, spans: Sequence[Span], config: ProcessorConfig) -> list[SampledVideo]:
    with Video(path) as video:
        return [video.sample(MediaOptions(start=start, end=end), config=config) for start, end in spans]


def by_the_file(path: Path, spans: Sequence[Span], config: ProcessorConfig) -> list[SampledVideo]:
    return [sample_video(path, config, MediaOptions(start=start, end=end)) for start, end in spans]


def needed(path: Path, wanted: Sequence[Sequence[int]], config: ProcessorConfig) -> tuple[list[Pixels], int]:
    """The frames numbered `wanted` of each span of a video with a constant rate, and how many were decoded."""
    found: list[Pixels] = []
    decoded = 0
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        assert stream.average_rate is not None
        assert stream.time_base is not None
        step = 1 / (stream.average_rate * stream.time_base)
        first = stream.start_time or 0
        for numbers in wanted:
            taken: dict[int, Pixels] = {}
            container.seek(first + int(numbers[0] * step), stream=stream, backward=True)
            for frame in container.decode(stream):
                decoded += 1
                number = round((frame.pts - first) / step)
                if number in numbers:
                    taken[number] = square_frame(frame.to_ndarray(format="rgb24"), config)
                if number >= numbers[-1]:
                    break
            found.append(np.stack([taken[number] for number in numbers]))
    return found, decoded


def timed(call: Callable[[], Any]) -> tuple[Any, float, float]:
    """What it gave, and the seconds of the wall and of the processor that it took."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = call()
    return result, time.perf_counter() - wall, time.process_time() - cpu


def measure(
    path: Path, count: int, length_s: float, config: ProcessorConfig, rounds: int = 1, *, compare_file: bool = True
) -> dict[str, Any]:
    """The report. Raises SystemExit where the pictures differ."""
    with Video(path) as video:
        duration_s, total = video.duration_s, video.info.total_num_frames
    spans = spans_of(duration_s, count, length_s)
    laps: dict[str, list[tuple[float, float]]] = {}
    for _ in range(rounds):
        ours, wall_s, cpu_s = timed(lambda: by_one_video(path, spans, config))
        laps.setdefault("one Video", []).append((wall_s, cpu_s))
        wanted = [video.indices for video in ours]
        (theirs, decoded), wall_s, cpu_s = timed(functools.partial(needed, path, wanted, config))
        laps.setdefault("needed", []).append((wall_s, cpu_s))
        if not all(np.array_equal(mine.frames, bare) for mine, bare in zip(ours, theirs, strict=True)):
            raise SystemExit("the spans of a Video differ from those that PyAV decodes.")
    if compare_file:
        files, wall_s, cpu_s = timed(lambda: by_the_file(path, spans, config))
        laps["a file each time"] = [(wall_s, cpu_s)]
        if not all(np.array_equal(mine.frames, file.frames) for mine, file in zip(ours, files, strict=True)):
            raise SystemExit("the spans of a Video differ from those of the file.")
    opened, open_s, _ = timed(lambda: Video(path))
    keys, key_s, key_cpu_s = timed(lambda: sum(1 for _ in opened.key_frames(longest_edge=160)))
    opened.close()
    best = {name: min(times, key=lambda pair: pair[1]) for name, times in laps.items()}
    return {
        "machine": describe_machine(),
        "video": {"seconds": duration_s, "frames": total, "bytes": path.stat().st_size},
        "spans": {"count": count, "seconds": length_s, "frames_taken": sum(len(video.indices) for video in ours)},
        "decoded_frames": {"one Video": sum(video.decoded_frames for video in ours), "needed": decoded},
        "seconds": {name: {"wall_s": wall, "cpu_s": cpu} for name, (wall, cpu) in best.items()},
        "ratio_cpu": best["one Video"][1] / best["needed"][1],
        "ratio_wall": best["one Video"][0] / best["needed"][0],
        "open_s": open_s,
        "key_frames": {"count": keys, "wall_s": key_s, "cpu_s": key_cpu_s, "times_real_time": duration_s / key_s},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=int, default=60)
    parser.add_argument("--gop", type=int, default=250, help="frames between key frames (x264's own default)")
    parser.add_argument("--spans", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each span")
    parser.add_argument("--rounds", type=int, default=1, help="the best counts")
    parser.add_argument("--out", type=Path, default=RESULTS / "video_spans.json")
    args = parser.parse_args()
    console = Console(stderr=True)
    path = make_hour(args.minutes, args.gop)
    report = measure(path, args.spans, args.seconds, processor_preset(preset("256m")), args.rounds)
    Console().print(_table(report))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    console.print(f"written: {args.out}", highlight=False)


def _table(report: dict[str, Any]) -> Table:
    spans, keys = report["spans"], report["key_frames"]
    table = Table(title=f"{spans['count']} spans of {spans['seconds']:g} s out of {report['video']['seconds'] / 60:.0f} min")
    for column in ("", "wall s", "processor s", "frames decoded"):
        table.add_column(column, justify="left" if column == "" else "right")
    for name, seconds in report["seconds"].items():
        decoded = report["decoded_frames"].get(name)
        table.add_row(name, f"{seconds['wall_s']:.1f}", f"{seconds['cpu_s']:.1f}", f"{decoded:,}" if decoded else "")
    table.add_row("one Video / needed", f"{report['ratio_wall']:.2f} x", f"{report['ratio_cpu']:.2f} x", "")
    table.add_row("opening it (one index)", f"{report['open_s']:.2f}", "", "")
    table.add_row(f"all {keys['count']} key frames", f"{keys['wall_s']:.1f}", f"{keys['cpu_s']:.1f}", f"{keys['count']:,}")
    table.add_row("key frames, times real time", f"{keys['times_real_time']:.0f} x", "", "")
    return table


if __name__ == "__main__":
    main()
