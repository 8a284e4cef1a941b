"""What is kept of events: rows in the library, JSON lines, and a picture and a clip each in a folder that does not grow for ever."""

from __future__ import annotations

import contextlib
import io
import json
import time
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import IO, Any

from PIL import Image

from smolvlm.apps.camera.frames import Frame, Pixels
from smolvlm.apps.camera.rules import Retention
from smolvlm.apps.library import Library, write_file
from smolvlm.errors import SourceError

_LONGEST_LINE = 1 << 20
_FORGET = {"picture": "UPDATE camera_events SET picture = NULL WHERE id = ?", "clip": "UPDATE camera_events SET clip = NULL WHERE id = ?"}


def check_lines(path: Path) -> None:
    """Raises SourceError for a file that is there and does not begin with a line of JSON: it is somebody's, and stays as it is."""
    try:
        if not path.exists() or (path.is_file() and not path.stat().st_size):
            return
        if not path.is_file():
            raise ValueError("no regular file")
        with path.open("rb") as file:
            if not isinstance(json.loads(file.readline(_LONGEST_LINE)), dict):
                raise ValueError("no object")
    except OSError as error:
        raise SourceError(f"jsonl: {str(path)!r} cannot be read ({error.strerror}); name another file.") from None
    except (ValueError, RecursionError):
        raise SourceError(f"jsonl: {str(path)!r} holds no events; nothing is added to it: name another file.") from None


class Keeper:
    """The sinks of one run. `lines` is an open text file, or None."""

    def __init__(self, library: Library, maker_id: int, folder: Path, retention: Retention, lines: IO[str] | None) -> None:
        self._library, self._maker_id, self._folder, self._retention, self._lines = library, maker_id, folder, retention, lines
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SourceError(f"{str(folder)!r}: no folder for pictures and clips ({error.strerror}); pass another --events.") from None

    def alert(self, event: dict[str, Any], pixels: Pixels) -> dict[str, Any]:
        """A new event, at once: its row, its picture and its line."""
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "JPEG", quality=90)
        event["picture"] = str(write_file(self._folder / f"{event['id']}.jpg", buffer.getvalue()))
        with self._library.write() as rows:
            rows.execute(
                "INSERT INTO camera_events VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, NULL)",
                (
                    event["id"],
                    self._maker_id,
                    *(event[name] for name in ("camera", "rule", "event", "time_s", "alert_s", "score")),
                    json.dumps(event["answers"], ensure_ascii=False),
                    event["picture"],
                ),
            )
        return self._line({"type": "new", **event})

    def update(self, event: dict[str, Any], frames: Sequence[Frame]) -> dict[str, Any]:
        """The same event with its clip."""
        event["clip"] = str(write_file(self._folder / f"{event['id']}.mp4", clip_bytes(frames)))
        with self._library.write() as rows:
            rows.execute("UPDATE camera_events SET clip = ? WHERE id = ?", (event["clip"], event["id"]))
        self.prune()
        return self._line({"type": "update", **event})

    def prune(self) -> None:
        """Delete pictures and clips of this folder that are too old, then the oldest until the rest fits. Only files that the
        library knows are touched; their events stay without them."""
        known: list[tuple[float, int, Path, str, str]] = []
        for row in self._library.rows("SELECT id, picture, clip FROM camera_events WHERE picture IS NOT NULL OR clip IS NOT NULL"):
            for column in ("picture", "clip"):
                path = Path(row[column] or "")
                if path.parent == self._folder:
                    with contextlib.suppress(OSError):
                        facts = path.stat()
                        known.append((facts.st_mtime, facts.st_size, path, column, row["id"]))
        total, oldest_s = sum(size for _, size, *_ in known), time.time() - 86_400 * self._retention.days
        for changed_s, size, path, column, number in sorted(known):
            if changed_s >= oldest_s and total <= self._retention.bytes:
                break
            path.unlink(missing_ok=True)
            total -= size
            with self._library.write() as rows:
                rows.execute(_FORGET[column], (number,))

    def _line(self, message: dict[str, Any]) -> dict[str, Any]:
        if self._lines is not None:
            self._lines.write(json.dumps(message, ensure_ascii=False) + "\n")
            self._lines.flush()
        return message


def clip_bytes(frames: Sequence[Frame]) -> bytes:
    """The frames as H.264 in MP4, at their own times. All have the size of the first; others are left out."""
    import av

    file, first = io.BytesIO(), frames[0]
    height, width, _ = first.pixels.shape
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for each in frames:
            if each.pixels.shape == first.pixels.shape:
                frame = av.VideoFrame.from_ndarray(each.pixels, format="rgb24")
                frame.pts, frame.time_base = round(1000 * (each.time_s - first.time_s)), Fraction(1, 1000)
                container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file.getvalue()
