"""What other programs read of an index: WebVTT, SRT, chapters (WebVTT, ffmetadata, YouTube's text), a storyboard, a page."""

from __future__ import annotations

import html
import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from smolvlm.apps.library import check_free, write_file
from smolvlm.apps.videos.playlists import location, xml_text
from smolvlm.apps.videos.stored import StoredWindow
from smolvlm.errors import ParamsError
from smolvlm.media import Video

FORMATS = ("vtt", "srt", "chapters.vtt", "ffmetadata", "youtube", "storyboard", "html")
_THUMB_PX, _COLUMNS, _MOST_THUMBS = 160, 10, 400
_LEAST_CHAPTER_S = 10.0  # YouTube refuses shorter ones, and fewer than three


@dataclass(frozen=True)
class Cue:
    """A text from `start_s` to `end_s`."""

    start_s: float
    end_s: float
    text: str


def export(windows: Sequence[StoredWindow], video: Path, what: str, out: Path, *, overwrite: bool = False) -> list[Path]:
    """Write one of FORMATS to `out`; a storyboard also writes `out` with .jpg. Raises ParamsError, SourceError, VideoError."""
    if what not in FORMATS:
        raise ParamsError(f"format={what!r}: expected one of {', '.join(FORMATS)}.")
    check_free(out, overwrite=overwrite)
    if what == "storyboard":
        return _storyboard(video, out, overwrite)
    texts = {
        "vtt": lambda: webvtt(cues(windows)),
        "srt": lambda: srt(cues(windows)),
        "chapters.vtt": lambda: webvtt(chapters(windows)),
        "ffmetadata": lambda: ffmetadata(chapters(windows)),
        "youtube": lambda: youtube(chapters(windows)),
        "html": lambda: page(windows, video, out.parent),
    }
    return [write_file(out, texts[what](), overwrite=overwrite)]


def cues(windows: Sequence[StoredWindow]) -> list[Cue]:
    """Captions without overlap: neighbouring windows share a frame."""
    found = [Cue(w.start_s, w.end_s, " ".join(xml_text(w.caption).split()) or "-") for w in windows]
    return [Cue(cue.start_s, max(cue.start_s, min(cue.end_s, _next(found, i))), cue.text) for i, cue in enumerate(found)]


def chapters(windows: Sequence[StoredWindow]) -> list[Cue]:
    """One a shot, short ones joined to the one before, called after what their likeliest caption says happens."""
    groups: list[list[StoredWindow]] = []
    for window in windows:
        same = groups and (groups[-1][-1].shot == window.shot or window.start_s - groups[-1][0].start_s < _LEAST_CHAPTER_S)
        groups[-1].append(window) if same else groups.append([window])
    made = [Cue(group[0].start_s, group[-1].end_s, " ".join(xml_text(_title(group)).split()) or "-") for group in groups]
    return [Cue(cue.start_s, max(cue.start_s, min(cue.end_s, _next(made, i))), cue.text) for i, cue in enumerate(made)]


def webvtt(found: Sequence[Cue]) -> str:
    """WebVTT; `-->` and markup in a text are escaped."""
    blocks = [f"{_clock(cue.start_s, '.')} --> {_clock(cue.end_s, '.')}\n{html.escape(cue.text, quote=False)}\n" for cue in found]
    return "\n".join(["WEBVTT\n", *blocks])


def srt(found: Sequence[Cue]) -> str:
    """SubRip."""
    blocks = [f"{i}\n{_clock(cue.start_s, ',')} --> {_clock(cue.end_s, ',')}\n{cue.text}\n" for i, cue in enumerate(found, 1)]
    return "\n".join(blocks)


def ffmetadata(found: Sequence[Cue]) -> str:
    """What `ffmpeg -i video -i FILE -map_metadata 1 -codec copy` writes into a video."""
    lines = [";FFMETADATA1"]
    for cue in found:
        title = "".join(f"\\{c}" if c in "=;#\\" else c for c in cue.text)
        lines += ["[CHAPTER]", "TIMEBASE=1/1000", f"START={round(cue.start_s * 1000)}", f"END={round(cue.end_s * 1000)}", f"title={title}"]
    return "\n".join(lines) + "\n"


def youtube(found: Sequence[Cue]) -> str:
    """Lines for a description; the first is at 0:00, as YouTube wants."""
    lines = []
    for i, cue in enumerate(found):
        minutes, seconds = divmod(0 if i == 0 else int(cue.start_s), 60)
        hours, minutes = divmod(minutes, 60)
        lines.append(f"{f'{hours}:{minutes:02d}' if hours else minutes}:{seconds:02d} {cue.text}")
    return "\n".join(lines) + "\n"


def page(windows: Sequence[StoredWindow], video: Path, folder: Path) -> str:
    """One HTML file beside the video that seeks on a click: no script but its own, nothing from elsewhere."""
    rows = "".join(
        f'<li><button data-at="{cue.start_s:.3f}">{_clock(cue.start_s, ".")[:8]}</button> {html.escape(cue.text)}</li>\n'
        for cue in cues(windows)
    )
    title = html.escape(video.name)
    source = html.escape(location(video, folder.absolute()))
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; media-src 'self' file:; style-src 'unsafe-inline'; \
script-src 'sha256-{_SCRIPT_HASH}'">
<title>{title}</title>
<style>body{{font:1rem system-ui;max-width:60rem;margin:auto;padding:1rem}}video{{width:100%;position:sticky;top:0}}</style>
<h1>{title}</h1>
<video controls preload="metadata" src="{source}"></video>
<ol>
{rows}</ol>
<script>{_SCRIPT}</script>
</html>
"""


_SCRIPT = (
    'document.querySelector("ol").addEventListener("click",e=>{const t=e.target.dataset.at;'
    'if(t){const v=document.querySelector("video");v.currentTime=Number(t);v.play()}})'
)


def _script_hash() -> str:
    import base64
    import hashlib

    return base64.b64encode(hashlib.sha256(_SCRIPT.encode()).digest()).decode()


_SCRIPT_HASH = _script_hash()


def _storyboard(path: Path, out: Path, overwrite: bool) -> list[Path]:
    """Small pictures in one JPEG, and WebVTT that says which part shows when, as players read for their seek bar."""
    sprite = out.with_suffix(".jpg")
    check_free(sprite, overwrite=overwrite)
    with Video(path) as video:
        every_s = max(1.0, math.ceil(video.duration_s / _MOST_THUMBS))
        thumbs = [(frame.time_s, Image.fromarray(frame.pixels)) for frame in video.frames(fps=1 / every_s, longest_edge=_THUMB_PX)]
        duration_s = video.duration_s
    width, height = thumbs[0][1].size
    rows = -(-len(thumbs) // _COLUMNS)
    sheet = Image.new("RGB", (width * min(_COLUMNS, len(thumbs)), height * rows))
    found = []
    for i, (time_s, thumb) in enumerate(thumbs):
        x, y = i % _COLUMNS * width, i // _COLUMNS * height
        sheet.paste(thumb, (x, y))
        end_s = thumbs[i + 1][0] if i + 1 < len(thumbs) else max(duration_s, time_s)
        found.append(Cue(time_s, end_s, f"{location(sprite, out.parent.absolute())}#xywh={x},{y},{width},{height}"))
    data = io.BytesIO()
    sheet.save(data, "JPEG", quality=80)
    return [write_file(sprite, data.getvalue(), overwrite=overwrite), write_file(out, webvtt(found), overwrite=overwrite)]


def _next(found: Sequence[Cue], i: int) -> float:
    return found[i + 1].start_s if i + 1 < len(found) else math.inf


def _title(group: Sequence[StoredWindow]) -> str:
    """The likeliest caption; one that says that nothing happens only where all do."""
    telling = [w for w in group if "nothing" not in w.caption.lower()] or list(group)
    return max(telling, key=lambda w: w.logprob / max(1, len(w.caption.split()))).caption


def _clock(seconds: float, point: str) -> str:
    ms = max(0, round(seconds * 1000))
    return f"{ms // 3_600_000:02d}:{ms // 60_000 % 60:02d}:{ms // 1000 % 60:02d}{point}{ms % 1000:03d}"


def names(video: Path) -> Iterator[tuple[str, str]]:
    """(format, file name) as `smolvlm index --write` names them."""
    for what in FORMATS:
        ending = {"youtube": "youtube.txt", "ffmetadata": "ffmetadata.txt", "storyboard": "storyboard.vtt"}.get(what, what)
        yield what, f"{video.stem}.{ending}"
