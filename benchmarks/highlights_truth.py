"""Precision and recall of highlights at events whose times are known, in programmes of held-out clips.

    python -m benchmarks.highlights_truth                  60 clips, four kinds of events
    python -m benchmarks.highlights_truth --clips 200 --fade 0.4

Each kind of event is what counts once ("something falls"); the other clips are the rest of the programme. A moment is right when it
covers at least half of a planted event of that kind and is at least half covered by it.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import smolvlm
from smolvlm.apps.videos.highlights import Highlights, HighlightSettings, find_highlights
from smolvlm.media import Video
from smolvlm.synth.programmes import PlannedEvent, clips_with_distinct_events, write_programme

KINDS = {
    "something falls": ("falls",),
    "something vanishes": ("disappears",),
    "it moves left": ("to the left",),
    "it appears": (" appears",),
}
MARK = 0.90


def planted(events: list[PlannedEvent], words: tuple[str, ...]) -> list[PlannedEvent]:
    return [event for event in events if any(word in event.text for word in words)]


def score(found: Highlights, events: list[PlannedEvent]) -> tuple[int, int]:
    """(moments that are right, events that are found)."""
    right, covered = 0, set()
    for moment in found.taken:
        good = False
        for number, event in enumerate(events):
            shared = min(moment.end_s, event.end_s) - max(moment.start_s, event.start_s)
            if shared >= 0.5 * (event.end_s - event.start_s):
                covered.add(number)
                good = good or shared >= 0.5 * moment.lasts_s
        right += good
    return right, len(covered)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=60)
    parser.add_argument("--first", type=int, default=0, help="the first clip's number: others make another programme")
    parser.add_argument("--fade", type=float, default=0.0, help="seconds that clips fade in and out")
    parser.add_argument("--model", default="nano")
    parser.add_argument("--misses", action="store_true", help="show what was wrong")
    options = parser.parse_args()
    model = smolvlm.load(options.model)
    totals = [0, 0, 0, 0]
    print(f"{options.model}, {options.clips} held-out clips from number {options.first}, fades of {options.fade:g} s")
    print("| about | events | taken | right | found | precision | recall | seconds of budget |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    began = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "programme.mp4"
        events = write_programme(path, clips_with_distinct_events(options.clips, first=options.first), fade_s=options.fade)
        with Video(path) as video:
            for about, words in KINDS.items():
                wanted = planted(events, words)
                budget = sum(event.end_s - event.start_s for event in wanted)
                found = find_highlights(model, video, [about], HighlightSettings(duration=max(budget, 1.0)))
                right, covered = score(found, wanted)
                taken = len(found.taken)
                assert found.lasts_s <= max(budget, 1.0), "the budget is kept"
                for at, value in enumerate((len(wanted), taken, right, covered)):
                    totals[at] += value
                print(row(about, len(wanted), taken, right, covered, f"{found.lasts_s:.1f} of {budget:.1f}"))
                if options.misses:
                    show_misses(found, events, wanted)
    print(row("all", *totals, ""))
    precision, recall = totals[2] / max(totals[1], 1), totals[3] / max(totals[0], 1)
    reached = precision >= MARK and recall >= MARK
    print(f"\nmark: {MARK:.2f} each: {'reached' if reached else 'missed'}; {time.process_time() - began:.0f} s of CPU")


def row(about: str, events: int, taken: int, right: int, covered: int, budget: str) -> str:
    precision, recall = right / max(taken, 1), covered / max(events, 1)
    return f"| {about} | {events} | {taken} | {right} | {covered} | {precision:.2f} | {recall:.2f} | {budget} |"


def show_misses(found: Highlights, events: list[PlannedEvent], wanted: list[PlannedEvent]) -> None:
    for moment in found.taken:
        there = [e.text for e in events if min(moment.end_s, e.end_s) - max(moment.start_s, e.start_s) > 0.3]
        if not any(e.text in there for e in wanted):
            print(f"  wrong {moment.start_s:.1f}-{moment.end_s:.1f} {moment.caption!r} {moment.reason}; there: {there}")
    for event in wanted:
        if not any(min(m.end_s, event.end_s) - max(m.start_s, event.start_s) > 0 for m in found.taken):
            there = [o for o in found.others if min(o.end_s, event.end_s) > max(o.start_s, event.start_s)]
            near = [f"{o.start_s:.1f}-{o.end_s:.1f} {o.probability:.2f} {o.caption}" for o in there]
            print(f"  missed {event.start_s:.1f}-{event.end_s:.1f} {event.text!r}; not taken: {near}")


if __name__ == "__main__":
    main()
