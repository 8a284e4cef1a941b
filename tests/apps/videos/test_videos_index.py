"""The index: windows by shots, what is kept of each, going on after a kill, and videos that are not as they should be."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from helpers_media import make_clip, numbered_frame
from helpers_videos import EVERY_SECOND, Programme
from smolvlm import SmolVLM, Video
from smolvlm.apps.library import Library
from smolvlm.apps.videos.indexing import index_video, video_files
from smolvlm.apps.videos.settings import IndexSettings
from smolvlm.apps.videos.stored import features_of, windows_of
from smolvlm.apps.videos.tables import VIDEOS
from smolvlm.apps.videos.windows import Longer, Progress, Window, windows
from smolvlm.errors import SourceError, VideoError
from smolvlm.synth.programmes import clips_with_distinct_events, write_programme


def rows_of(library: Library, run_id: int) -> list[tuple[Any, ...]]:
    return [(w.number, w.shot, w.start_s, w.end_s, w.caption, w.tags) for w in windows_of(library, [run_id])]


def test_windows_are_the_shots_of_a_programme(programme: Programme) -> None:
    """Truth: the composer's own times. A cut between pictures that are much alike may be missed."""
    starts = {window.start_s for window in windows_of(programme.library, [programme.indexed.run_id])}
    missed = [event.start_s for event in programme.events if event.start_s not in starts]
    assert len(missed) <= 1, (missed, starts)


def test_captions_are_the_events(programme: Programme) -> None:
    said = {window.caption for window in windows_of(programme.library, [programme.indexed.run_id])}
    assert sum(event.text in said for event in programme.events) >= 6, said


def test_a_window_holds_loudness_and_words_that_were_nearly_said(programme: Programme) -> None:
    for window in windows_of(programme.library, [programme.indexed.run_id]):
        event = next(i for i, event in enumerate(programme.events) if event.start_s <= window.start_s < event.end_s)
        assert window.loudness_db is not None
        assert (window.loudness_db > -15) == bool(event % 2), (window, event)  # 0.5 of a sine: -9 dB; 0.01: -43 dB
        assert set(window.caption.split()) - {"the", "to"} - set(window.tags) == set()
        assert window.logprob <= 0


def test_features_answer_as_the_frames_do(programme: Programme, nano: SmolVLM) -> None:
    for window in windows_of(programme.library, [programme.indexed.run_id])[:3]:
        encoded = features_of(nano, programme.library, window)
        assert encoded.store == "int8"
        assert encoded.info.timestamps_s[0] == 0
        assert nano.ask(encoded, EVERY_SECOND.prompt).text == window.caption


def test_a_second_run_does_nothing_and_a_renamed_file_is_known(programme: Programme, nano: SmolVLM, tmp_path: Path) -> None:
    again = index_video(nano, programme.library, programme.path, EVERY_SECOND)
    assert (again.new_windows, again.windows) == (0, programme.indexed.windows)
    copy = tmp_path / "renamed.mp4"
    copy.write_bytes(programme.path.read_bytes())
    assert index_video(nano, programme.library, copy, EVERY_SECOND).new_windows == 0
    copy.unlink()


@pytest.mark.parametrize("kept", [1, 4])
def test_a_run_goes_on_at_the_next_window(programme: Programme, nano: SmolVLM, tmp_path: Path, kept: int) -> None:
    """Whatever number of windows a killed run has left, the whole comes out the same."""
    with Library.open(tmp_path / "l.db", [VIDEOS]) as library:
        done = index_video(nano, library, programme.path, EVERY_SECOND)
        whole = rows_of(library, done.run_id)
        assert whole == rows_of(programme.library, programme.indexed.run_id)
        with library.write() as rows:
            rows.execute("UPDATE video_runs SET done_at = NULL")
            rows.execute("DELETE FROM video_words WHERE rowid IN (SELECT id FROM video_windows WHERE number >= ?)", (kept,))
            rows.execute("DELETE FROM video_windows WHERE number >= ?", (kept,))
        again = index_video(nano, library, programme.path, EVERY_SECOND)
        assert again.new_windows == len(whole) - kept
        assert rows_of(library, again.run_id) == whole


def test_kill_9_loses_nothing_that_was_kept(programme: Programme, nano: SmolVLM, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "smolvlm", "index", str(programme.path), "--model", "nano", "--every", "1", "--library"]
    process = subprocess.Popen([*command, str(tmp_path / "l.db")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    kept = 0
    with Library.open(tmp_path / "l.db", [VIDEOS]) as library:
        while process.poll() is None and not kept:
            kept = library.rows("SELECT COUNT(*) FROM video_windows")[0][0]
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        done = index_video(nano, library, programme.path, EVERY_SECOND)
        assert done.new_windows < done.windows
        assert rows_of(library, done.run_id) == rows_of(programme.library, programme.indexed.run_id)
        assert library.rows("SELECT COUNT(*) FROM video_words")[0][0] == done.windows


def test_without_scene_cuts_each_change_lies_inside_a_window(tmp_path: Path) -> None:
    """No key frames at cuts: neighbouring windows share a frame, so that no two frames next to each other are torn apart."""
    path = tmp_path / "one shot.mp4"
    clips = [clip for clip in clips_with_distinct_events(8) if clip[2].endswith("moves to the left")][:1]
    write_programme(path, clips * 5, scene_cuts=False)
    with Video(path) as video:
        found = [each for each in windows(video, EVERY_SECOND) if isinstance(each, Window)]
    for before, after in pairwise(found):
        if before.shot == after.shot:
            assert after.frames[0].time_s == before.last_frame_s
        else:
            assert after.start_s == before.end_s
    assert found[0].start_s == 0


def test_an_event_that_windows_cut_in_two_is_found(nano: SmolVLM, tmp_path: Path) -> None:
    """Six frames in windows of three: each ends in the middle of what happens."""
    from smolvlm.apps.videos.search import search

    clips = [clip for clip in clips_with_distinct_events(30) if clip[1].duration_s == len(clip[1].frames) == 6 and " moves " in clip[2]][:3]
    events = write_programme(tmp_path / "one.mp4", clips, scene_cuts=False)
    with Library.open(tmp_path / "l.db", [VIDEOS]) as library:
        done = index_video(nano, library, tmp_path / "one.mp4", IndexSettings(every=1.0, frames=3))
        starts = [window.start_s for window in windows_of(library, [done.run_id])]
        assert all(sum(event.start_s <= start_s < event.end_s - 1 for start_s in starts) == 2 for event in events), starts
        for event in events:
            hit = search(nano, library, event.text, [done.run_id]).hits[0]
            assert event.start_s - 1 <= (hit.window.start_s + hit.window.end_s) / 2 <= event.end_s + 1, (event, hit)


def test_a_still_picture_costs_one_window(tmp_path: Path) -> None:
    path = tmp_path / "still.mp4"
    make_clip(path, 1, rate=1)
    import av
    import numpy as np

    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=5)
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
        rng = np.random.default_rng(0)
        for _ in range(5 * 60):
            noisy = np.clip(numbered_frame(7).astype(int) + rng.integers(-8, 9, (96, 128, 1)), 0, 255).astype(np.uint8)
            out.mux(stream.encode(av.VideoFrame.from_ndarray(noisy, "rgb24")))
        out.mux(stream.encode(None))
    with Video(path) as video:
        found = list(windows(video, EVERY_SECOND))
    assert [type(each) for each in found] == [Window, *[Longer] * (len(found) - 1)]
    assert found[-1].end_s == pytest.approx(60, abs=0.3)
    assert len({id(frame.pixels) for frame in found[0].frames}) == 1  # the encoder sees it once


def test_a_window_begins_where_it_is_told(tmp_path: Path) -> None:
    make_clip(tmp_path / "v.mp4", 20 * 25)
    with Video(tmp_path / "v.mp4") as video:
        whole = [each for each in windows(video, IndexSettings(every=1.0)) if isinstance(each, Window)]
        at = whole[1]
        rest = list(windows(video, IndexSettings(every=1.0), Progress(2, at.shot, at.last_frame_s, True)))
    assert [(w.start_s, w.end_s) for w in whole[2:]] == [(w.start_s, w.end_s) for w in rest if isinstance(w, Window)]


# What is wrong with a video, and what is said of it.
def test_videos_that_are_not_as_they_should_be(nano: SmolVLM, tmp_path: Path) -> None:
    with Library.open(tmp_path / "l.db", [VIDEOS]) as library:
        one = index_video(nano, library, make_clip(tmp_path / "one frame.mp4", 1))
        assert (one.windows, one.warnings) == (1, ())
        turned = index_video(nano, library, make_clip(tmp_path / "turned.mp4", 50, rotation=90))
        assert tuple(library.rows("SELECT width, height FROM video_runs WHERE id = ?", (turned.run_id,))[0]) == (96, 128)
        assert all(w.loudness_db is None for w in windows_of(library, [turned.run_id]))  # no sound
        ms = [*range(0, 1920, 40), *range(10_000, 60_001, 10_000)]
        vfr = index_video(nano, library, make_clip(tmp_path / "vfr.mp4", len(ms), pts=ms.__getitem__, time_base=_ms(), options={"bf": "0"}))
        assert windows_of(library, [vfr.run_id])[-1].end_s >= 60
        (tmp_path / "text.mp4").write_text("no video")
        with pytest.raises((VideoError, SourceError), match="text.mp4"):
            index_video(nano, library, tmp_path / "text.mp4")
        (tmp_path / "empty.mp4").write_bytes(b"")
        with pytest.raises((VideoError, SourceError), match="empty.mp4"):
            index_video(nano, library, tmp_path / "empty.mp4")


def _ms() -> Any:
    from fractions import Fraction

    return Fraction(1, 1000)


def test_what_lies_behind_damage_is_indexed_too(nano: SmolVLM, tmp_path: Path) -> None:
    path = make_clip(tmp_path / "damaged.mp4", 40 * 25, options={"g": "25", "preset": "veryfast"})
    data = bytearray(path.read_bytes())
    start = data.index(b"mdat")
    middle = start + (len(data) - start) // 2
    data[middle : middle + 3000] = random.Random(1).randbytes(3000)
    path.write_bytes(data)
    with Library.open(tmp_path / "l.db", [VIDEOS]) as library:
        done = index_video(nano, library, path)
        assert windows_of(library, [done.run_id])[-1].end_s == pytest.approx(40, abs=0.1)


def test_a_file_that_vanishes_is_said(nano: SmolVLM, tmp_path: Path) -> None:
    path = make_clip(tmp_path / "gone.mp4", 200)

    def vanish(*_: object) -> None:
        path.unlink(missing_ok=True)

    with Library.open(tmp_path / "l.db", [VIDEOS]) as library, pytest.raises(SourceError, match="vanished|no such file"):
        index_video(nano, library, path, on_progress=vanish)


def test_folders_give_each_video_once(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    for name in ("b.mp4", "deep/a.MKV", "note.txt"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "link.mp4").symlink_to(tmp_path / "b.mp4")
    assert [file.name for file in video_files([tmp_path, tmp_path / "b.mp4"])] == ["b.mp4", "a.MKV"]
    with pytest.raises(SourceError, match="no such file or folder"):
        list(video_files([tmp_path / "absent"]))
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match="holds no videos"):
        list(video_files([tmp_path / "empty"]))
