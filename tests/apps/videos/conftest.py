"""`nano`, and a drawn programme that it has indexed: known events at known times."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import smolvlm
from helpers_videos import EVERY_SECOND, LISTING, Programme
from smolvlm import SmolVLM
from smolvlm.apps.library import Library
from smolvlm.apps.videos.indexing import index_video
from smolvlm.apps.videos.tables import VIDEOS
from smolvlm.synth.programmes import clips_with_distinct_events, write_programme


@pytest.fixture(scope="session")
def nano() -> SmolVLM:
    return smolvlm.load("nano")


@pytest.fixture(scope="session")
def programme(tmp_path_factory: pytest.TempPathFactory, nano: SmolVLM) -> Iterator[Programme]:
    """Eight clips, hard cuts, a soft and a loud half, subtitles beside it. Read-only."""
    folder = tmp_path_factory.mktemp("programme")
    path = folder / "eight events & 100% #1.mp4"
    clips = [clip for clip in clips_with_distinct_events(24) if (clip[1].duration_s or 0) <= 6][:8]
    events = write_programme(path, clips, beep=True)
    path.with_suffix(".srt").write_text(LISTING, encoding="utf-8")
    with Library.open(folder / "library.db", [VIDEOS]) as library:
        yield Programme(path, events, library, index_video(nano, library, path, EVERY_SECOND))
