"""Windows as they are stored, and their features: from the library, or from the video again where none were kept."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from smolvlm.apps.library import Library, Maker
from smolvlm.apps.videos.captions import encode_window
from smolvlm.apps.videos.tables import APP
from smolvlm.apps.videos.windows import Window
from smolvlm.encoded import Encoded
from smolvlm.errors import LibraryError, SourceError
from smolvlm.media import Video

if TYPE_CHECKING:
    from smolvlm.vlm import SmolVLM

_MANY = 500


@dataclass(frozen=True)
class StoredWindow:
    """A row of the index, without its features. `path` is where its video was seen last."""

    id: int
    run_id: int
    number: int
    shot: int
    start_s: float
    end_s: float
    frame_times_s: tuple[float, ...]
    caption: str
    logprob: float
    tags: tuple[str, ...]
    loudness_db: float | None
    path: Path


def windows_of(library: Library, run_ids: Sequence[int]) -> list[StoredWindow]:
    """All windows of some runs, in order of run and time."""
    found: list[StoredWindow] = []
    for run_id in run_ids:
        path = _path_of(library, run_id)
        rows = library.rows("SELECT * FROM video_moments WHERE run_id = ? ORDER BY number", (run_id,))
        found += [_window(row, path) for row in rows]
    return found


def windows_by_id(library: Library, ids: Sequence[int]) -> list[StoredWindow]:
    """The windows of these ids, in their order."""
    rows: dict[int, sqlite3.Row] = {}
    for start in range(0, len(ids), _MANY):
        some = json.dumps(list(ids[start : start + _MANY]))
        found = library.rows("SELECT * FROM video_moments WHERE id IN (SELECT value FROM json_each(?))", (some,))
        rows |= {row["id"]: row for row in found}
    paths = {run_id: _path_of(library, run_id) for run_id in {row["run_id"] for row in rows.values()}}
    return [_window(rows[i], paths[rows[i]["run_id"]]) for i in ids if i in rows]


def features_of(model: SmolVLM, library: Library, window: StoredWindow) -> Encoded:
    """The window as the encoder saw it. Raises SourceError where it must be read from a video that is gone."""
    row = library.row("SELECT features FROM video_windows WHERE id = ?", (window.id,))
    if row is not None and row["features"] is not None:
        return Encoded.from_bytes(row["features"])
    if not window.path.is_file():
        raise SourceError(f"{str(window.path)!r} is gone, and its index holds no features; index it where it is now.")
    with Video(window.path) as video:
        frames = [next(video.frames(time_s, longest_edge=512)) for time_s in window.frame_times_s]
    return encode_window(model, Window(window.number, window.shot, window.start_s, window.end_s, tuple(frames)), window.path.name)


def run_of(library: Library, medium_id: int, maker: Maker) -> int | None:
    """The finished run of a video under a maker."""
    row = library.row("SELECT id FROM video_runs WHERE medium_id = ? AND maker_id = ? AND done_at IS NOT NULL", (medium_id, maker.id))
    return None if row is None else int(row["id"])


def newest_run(library: Library, medium_id: int, fingerprint: str) -> int | None:
    """The newest finished run of a video by this model, whatever its settings."""
    row = library.row(
        "SELECT MAX(video_runs.id) AS id FROM video_runs JOIN makers ON makers.id = maker_id "
        "WHERE medium_id = ? AND app = ? AND fingerprint = ? AND done_at IS NOT NULL",
        (medium_id, APP, fingerprint),
    )
    return None if row is None or row["id"] is None else int(row["id"])


def runs_in(library: Library, fingerprint: str) -> list[int]:
    """For each video in the library its newest run of this model. Raises LibraryError naming the models that there are."""
    rows = library.rows(
        "SELECT MAX(video_runs.id) FROM video_runs JOIN makers ON makers.id = maker_id "
        "WHERE app = ? AND fingerprint = ? GROUP BY medium_id",
        (APP, fingerprint),
    )
    if rows:
        return [int(row[0]) for row in rows]
    others = sorted({maker.model for maker in library.makers(APP)})
    if others:
        raise LibraryError(f"{library.label} was made by {' and '.join(others)}; pass model={others[0]!r}, or index the videos again.")
    raise LibraryError(f"{library.label} holds no videos; index some: smolvlm index FOLDER.")


def _path_of(library: Library, run_id: int) -> Path:
    row = library.row("SELECT medium_id FROM video_runs WHERE id = ?", (run_id,))
    return (library.path_of(row["medium_id"]) if row is not None else None) or Path()


def _window(row: sqlite3.Row, path: Path) -> StoredWindow:
    return StoredWindow(
        row["id"],
        row["run_id"],
        row["number"],
        row["shot"],
        row["start_s"],
        row["end_s"],
        tuple(json.loads(row["frame_times_s"])),
        row["caption"],
        row["logprob"],
        tuple(json.loads(row["tags"])),
        row["loudness_db"],
        path,
    )
