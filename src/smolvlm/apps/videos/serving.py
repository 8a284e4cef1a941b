"""What the local server answers about videos: the page, searches for it and for VLC, frames, the videos themselves, playlists."""

from __future__ import annotations

import io
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

from PIL import Image

from smolvlm.apps.library import Library
from smolvlm.apps.local_server import Reply, Request
from smolvlm.apps.local_server.server import Route
from smolvlm.apps.videos.page import page
from smolvlm.apps.videos.playlists import Moment, m3u8, xspf
from smolvlm.apps.videos.search import Found, Hit, SearchSettings, search
from smolvlm.apps.videos.stored import StoredWindow, runs_in, windows_by_id, windows_of
from smolvlm.errors import ParamsError
from smolvlm.media import Video

if TYPE_CHECKING:
    from smolvlm.vlm import SmolVLM

_THUMB_PX = 240


class VideoPages:
    """One model and one library; searches take turns."""

    def __init__(self, model: SmolVLM, library: Library) -> None:
        self._model, self._library = model, library
        self._turn = threading.Lock()

    def routes(self) -> Mapping[str, Route]:
        """By the path behind the token."""
        return {
            "/": lambda _: page(),
            "/search": lambda request: Reply.json(self._found_json(request)),
            "/search.tsv": self._for_vlc,
            "/videos": lambda _: Reply.json(self._videos()),
            "/frame.jpg": self._frame,
            "/video": lambda request: Reply.of_file(self._window(request).path, request),
            "/playlist.xspf": lambda request: self._playlist(request, "xspf"),
            "/playlist.m3u8": lambda request: self._playlist(request, "m3u8"),
        }

    def _find(self, request: Request) -> Found:
        top = request.query.get("top", "10")
        if not top.isdecimal():
            raise ParamsError(f"top={top!r}: expected a whole number.")
        with self._turn:
            runs = runs_in(self._library, self._model.fingerprint)
            return search(self._model, self._library, request.query.get("q", ""), runs, SearchSettings(top=int(top)))

    def _found_json(self, request: Request) -> dict[str, object]:
        found = self._find(request)
        nearest = None if found.hits or found.nearest is None else _shown(found.nearest)
        return {"query": found.query, "hits": [_shown(hit) for hit in found.hits], "nearest": nearest}

    def _for_vlc(self, request: Request) -> Reply:
        """A line a hit, for a program without JSON: start, end, address, whether it is the open file, title; tabs between.

        `open`: the address of the file that VLC plays. A line that begins with `#` is for the reader.
        """
        found, lines = self._find(request), []
        for hit in found.hits:
            window = hit.window
            here = "here" if _same_file(request.query.get("open", ""), window.path) else "other"
            title = " ".join(f"{window.caption} ({window.path.name}, {hit.probability:.0%})".split())
            lines.append(f"{window.start_s:.3f}\t{window.end_s:.3f}\t{window.path.absolute().as_uri()}\t{here}\t{title}")
        if not lines:
            nearest = f"; the nearest is: {found.nearest.window.caption}" if found.nearest else ""
            lines.append("# nothing matches" + " ".join(nearest.split("\n")))
        return Reply.text("\n".join(lines) + "\n")

    def _videos(self) -> list[dict[str, object]]:
        runs = runs_in(self._library, self._model.fingerprint)
        found = []
        for run in runs:
            windows = windows_of(self._library, [run])
            found.append({"name": windows[0].path.name if windows else "", "windows": len(windows)})
        return found

    def _window(self, request: Request) -> StoredWindow:
        number = request.query.get("id", "")
        windows = windows_by_id(self._library, [int(number)]) if number.isdecimal() and len(number) < 18 else []
        if not windows:
            raise ParamsError(f"id={number[:20]!r} names no moment of this library.")
        return windows[0]

    def _frame(self, request: Request) -> Reply:
        """A small picture of a moment."""
        window = self._window(request)
        times = window.frame_times_s
        with Video(window.path) as video:
            frame = next(video.frames(times[len(times) // 2], longest_edge=_THUMB_PX))
        data = io.BytesIO()
        Image.fromarray(frame.pixels).save(data, "JPEG", quality=80)
        return Reply(data.getvalue(), "image/jpeg")

    def _playlist(self, request: Request, kind: str) -> Reply:
        """Moments by `ids`, with whole addresses: the file may be kept anywhere."""
        ids = [int(number) for number in request.query.get("ids", "").split(",") if number.isdecimal() and len(number) < 18][:1000]
        moments = [Moment(w.path, w.start_s, w.end_s, w.caption) for w in windows_by_id(self._library, ids)]
        made = xspf(moments, None) if kind == "xspf" else m3u8(moments, None)
        return Reply.download(made, f"moments.{kind}", "application/xspf+xml" if kind == "xspf" else "application/vnd.apple.mpegurl")


def _shown(hit: Hit) -> dict[str, object]:
    return {**hit.to_dict(), "id": hit.window.id, "file": hit.window.path.name}


def _same_file(address: str, path: Path) -> bool:
    try:
        parts = urlsplit(address)
        return parts.scheme == "file" and Path(url2pathname(unquote(parts.path, errors="surrogateescape"))).resolve() == path.resolve()
    except (OSError, ValueError):
        return False
