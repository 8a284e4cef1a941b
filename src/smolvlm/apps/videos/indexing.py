"""`index_video`: one video into the library, window by window; a run that was killed goes on at the next window."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from smolvlm.apps.library import Library, Maker, Medium, searchable
from smolvlm.apps.videos.captions import Captioned, caption
from smolvlm.apps.videos.loudness import Loudness
from smolvlm.apps.videos.settings import IndexSettings
from smolvlm.apps.videos.subtitles import Subtitle, subtitles_of
from smolvlm.apps.videos.tables import APP
from smolvlm.apps.videos.windows import Longer, Progress, Window, windows
from smolvlm.errors import SourceError, VideoError
from smolvlm.media import Video

if TYPE_CHECKING:
    from smolvlm.vlm import SmolVLM

OnProgress = Callable[[str, int, int], None]
_TOGETHER = 4  # windows that are captioned in one call, and kept in one transaction


@dataclass(frozen=True)
class Indexed:
    """What became of one video. `new_windows` is 0 where it was done before."""

    medium: Medium
    run_id: int
    windows: int
    new_windows: int
    duration_s: float
    warnings: tuple[str, ...]


def maker_of(library: Library, model: SmolVLM, settings: IndexSettings) -> Maker:
    """What makes the rows of this model with these settings."""
    return library.maker(app=APP, model=model.name, fingerprint=model.fingerprint, prompt=settings.prompt, options=settings.row())


def index_video(
    model: SmolVLM,
    library: Library,
    path: str | os.PathLike[str],
    settings: IndexSettings | None = None,
    on_progress: OnProgress | None = None,
) -> Indexed:
    """Index the video at `path`, or what is left of it to do. `on_progress(stage, done, total)` counts seconds of video.

    One run a library at a time: hold `library.run_lock("videos")`. Raises SourceError, VideoError, LibraryError.
    """
    settings = settings or IndexSettings()
    medium = library.medium(path)
    maker = maker_of(library, model, settings)
    done = library.row("SELECT * FROM video_runs WHERE medium_id = ? AND maker_id = ? AND done_at IS NOT NULL", (medium.id, maker.id))
    if done is not None:
        return Indexed(medium, done["id"], _count(library, done["id"]), 0, done["duration_s"], tuple(json.loads(done["warnings"])))
    with Video(medium.path) as video:
        run_id = _run(library, medium, maker, video)
        return _Run(model, library, medium, run_id, settings, on_progress).through(video)


class _Run:
    """One video's way into the library."""

    def __init__(
        self, model: SmolVLM, library: Library, medium: Medium, run_id: int, settings: IndexSettings, on_progress: OnProgress | None
    ) -> None:
        self._model, self._library, self._medium, self._run_id = model, library, medium, run_id
        self._settings, self._on_progress = settings, on_progress
        self._warnings: list[str] = []
        self._new = 0

    def through(self, video: Video) -> Indexed:
        sound = Loudness(video)
        texts, warnings = subtitles_of(video, self._medium.path)
        self._warnings += [*([sound.warning] if sound.warning else []), *warnings]
        self._keep_subtitles(texts)
        begin = self._begin()
        waiting: list[Window] = []
        self._tell(begin.from_s, video)
        for found in windows(video, self._settings, begin, self._warnings.append):
            if isinstance(found, Window):
                waiting.append(found)
            if waiting and (isinstance(found, Longer) or len(waiting) == _TOGETHER):
                self._keep(caption(self._model, waiting, self._settings, self._medium.path.name), sound, texts)
                waiting.clear()
            if isinstance(found, Longer):
                self._lengthen(found)
            self._tell(found.end_s, video)
        self._keep(caption(self._model, waiting, self._settings, self._medium.path.name) if waiting else [], sound, texts)
        if not _count(self._library, self._run_id):
            raise VideoError(f"{video.label}: none of its frames can be decoded; {' '.join(self._warnings)}".strip())
        if not self._medium.path.exists():
            raise SourceError(f"{str(self._medium.path)!r} vanished while it was indexed; what was read is kept.")
        with self._library.write() as rows:
            made = json.dumps(self._warnings, ensure_ascii=False)
            rows.execute("UPDATE video_runs SET done_at = ?, warnings = ? WHERE id = ?", (time.time(), made, self._run_id))
        self._tell(video.duration_s, video)
        total = _count(self._library, self._run_id)
        return Indexed(self._medium, self._run_id, total, self._new, video.duration_s, tuple(self._warnings))

    def _begin(self) -> Progress:
        last = self._library.row("SELECT * FROM video_windows WHERE run_id = ? ORDER BY number DESC LIMIT 1", (self._run_id,))
        return Progress() if last is None else Progress(last["number"] + 1, last["shot"], last["last_frame_s"], True)

    def _keep(self, done: Sequence[Captioned], sound: Loudness, texts: Sequence[Subtitle]) -> None:
        with self._library.write() as rows:
            for each in done:
                window = each.window
                features = each.features.to_bytes() if self._settings.features else None
                cursor = rows.execute(
                    "INSERT INTO video_windows (run_id, number, shot, start_s, end_s, last_frame_s, frame_times_s, caption, logprob, tags,"
                    " loudness_db, features) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    (
                        self._run_id,
                        window.number,
                        window.shot,
                        window.start_s,
                        window.end_s,
                        window.last_frame_s,
                        json.dumps([round(frame.time_s, 3) for frame in window.frames]),
                        each.caption,
                        each.logprob,
                        json.dumps(each.tags, ensure_ascii=False),
                        sound.db(window.start_s, window.end_s),
                        features,
                    ),
                )
                spoken = " ".join(text.text for text in texts if text.start_s < window.end_s and text.end_s > window.start_s)
                rows.execute(
                    "INSERT INTO video_words (rowid, caption, tags, spoken) VALUES (?, ?, ?, ?)",
                    (cursor.lastrowid, searchable(each.caption), searchable(" ".join(each.tags)), searchable(spoken)),
                )
        self._new += len(done)

    def _lengthen(self, longer: Longer) -> None:
        """The window that was kept last goes on: nothing new was seen."""
        with self._library.write() as rows:
            rows.execute(
                "UPDATE video_windows SET end_s = ?, last_frame_s = ? WHERE id = (SELECT id FROM video_windows WHERE run_id = ? "
                "ORDER BY number DESC LIMIT 1)",
                (longer.end_s, longer.last_frame_s, self._run_id),
            )

    def _keep_subtitles(self, texts: Sequence[Subtitle]) -> None:
        with self._library.write() as rows:
            rows.execute("DELETE FROM video_subtitles WHERE medium_id = ?", (self._medium.id,))
            rows.executemany(
                "INSERT INTO video_subtitles (medium_id, source, start_s, end_s, text) VALUES (?, ?, ?, ?, ?)",
                [(self._medium.id, text.source, text.start_s, text.end_s, text.text) for text in texts],
            )

    def _tell(self, done_s: float, video: Video) -> None:
        if self._on_progress is not None:
            self._on_progress(video.label, int(min(done_s, video.duration_s)), max(1, int(video.duration_s)))


def _run(library: Library, medium: Medium, maker: Maker, video: Video) -> int:
    turned = video.rotation in (90, 270)
    size = (video.info.height, video.info.width) if turned else (video.info.width, video.info.height)
    with library.write() as rows:
        rows.execute(
            "INSERT INTO video_runs (medium_id, maker_id, duration_s, width, height, fps, has_sound) VALUES (?, ?, ?, ?, ?, ?, ?)"
            " ON CONFLICT DO NOTHING",
            (medium.id, maker.id, video.duration_s, *size, video.fps, int(video.has_sound)),
        )
        return int(rows.execute("SELECT id FROM video_runs WHERE medium_id = ? AND maker_id = ?", (medium.id, maker.id)).fetchone()[0])


def _count(library: Library, run_id: int) -> int:
    return int(library.rows("SELECT COUNT(*) FROM video_windows WHERE run_id = ?", (run_id,))[0][0])


def video_files(paths: Sequence[Path]) -> Iterator[Path]:
    """The videos among files and folders, each once, in order of their names. Raises SourceError for what is not there."""
    from smolvlm.media.suffixes import VIDEO_SUFFIXES

    seen: set[Path] = set()
    for path in paths:
        if path.is_dir():
            found = sorted(file for file in path.rglob("*") if file.suffix.lower() in VIDEO_SUFFIXES and file.is_file())
            if not found:
                raise SourceError(f"{str(path)!r} holds no videos.")
        elif path.exists():
            found = [path]
        else:
            raise SourceError(f"{str(path)!r}: no such file or folder; check its name.")
        for file in found:
            if (whole := file.resolve()) not in seen:
                seen.add(whole)
                yield file
