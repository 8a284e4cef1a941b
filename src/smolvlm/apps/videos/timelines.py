"""Moments as timelines for editing programs: OpenTimelineIO, CMX 3600 EDL, and Final Cut Pro's XML."""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

from smolvlm.apps.videos.playlists import Moment, location, xml_text
from smolvlm.errors import MissingExtraError, ParamsError

TIMELINES = {".otio": "otio_json", ".edl": "cmx_3600", ".fcpxml": "fcpx_xml"}
_RATES = (24000 / 1001, 24.0, 25.0, 30000 / 1001, 30.0, 48.0, 50.0, 60000 / 1001, 60.0)  # that timecode knows


def timeline(moments: Sequence[Moment], out: Path, *, fps: float, duration_s: float) -> str:
    """The text of a timeline at `out` that plays the moments of one video, at least one, one after the other.

    Times are in frames: of the video's rate, or of the nearest that timecode knows. fps, duration_s: of the video.
    Raises ParamsError for another suffix than .otio, .edl or .fcpxml, MissingExtraError without OpenTimelineIO.
    """
    adapter = adapter_of(out)
    otio = _opentimelineio()
    made = _timeline(otio, moments, out, rate_of(fps, adapter), duration_s, relative=adapter != "fcpx_xml")
    text = str(otio.adapters.write_to_string(made, adapter_name=adapter))
    # The adapter (1.0.0) knows the rates of 1000/1001 by their rounded values only, and leaves this empty for the true ones.
    lasts = 1 / Fraction(rate_of(fps, adapter)).limit_denominator(1001)
    return text.replace('frameDuration=""', f'frameDuration="{lasts.numerator}/{lasts.denominator}s"')


def adapter_of(out: Path) -> str:
    """Which adapter writes `out`. Raises ParamsError."""
    if (adapter := TIMELINES.get(out.suffix.lower())) is None:
        raise ParamsError(f"{out.name!r} is no timeline: name it {', '.join(TIMELINES)}.")
    return adapter


def check_timeline(out: Path) -> None:
    """Before long work: raises what `timeline` would."""
    adapter_of(out)
    _opentimelineio()


def rate_of(fps: float, adapter: str = "") -> float:
    """The rate that times are counted in: the video's, or the next that timecode knows; best one in which its frames are whole."""

    def misfit(rate: float) -> tuple[bool, float]:
        times = rate / fps
        return abs(times - max(round(times), 1)) * fps > 0.002, abs(rate - fps)

    nearest = min(_RATES, key=misfit)
    return nearest if abs(nearest - fps) < 0.002 or adapter in ("cmx_3600", "fcpx_xml") else fps


def _timeline(otio: Any, moments: Sequence[Moment], out: Path, rate: float, duration_s: float, *, relative: bool) -> Any:
    schema, time = otio.schema, otio.opentime
    made = schema.Timeline(name=xml_text(out.stem))
    video, sound = schema.Track(name="V1", kind="Video"), schema.Track(name="A1", kind="Audio")
    whole = time.TimeRange(time.RationalTime(0, rate), time.RationalTime(max(int(duration_s * rate), 1), rate))
    for moment in moments:
        first, stop = round(moment.start_s * rate), round(moment.end_s * rate)
        span = time.TimeRange(time.RationalTime(first, rate), time.RationalTime(max(stop - first, 1), rate))
        path = Path(os.path.abspath(moment.path))
        url = location(path, Path(os.path.abspath(out)).parent) if relative else path.as_uri()
        for track in (video, sound):
            media = schema.ExternalReference(target_url=url, available_range=whole)
            clip = schema.Clip(name=" ".join(xml_text(moment.title).split())[:60] or path.stem, media_reference=media, source_range=span)
            if moment.note:
                clip.metadata["smolvlm"] = {"why": xml_text(moment.note)}
            track.append(clip)
    made.tracks.append(video)
    if out.suffix.lower() == ".otio":
        made.tracks.append(sound)
    return made


def _opentimelineio() -> Any:
    try:
        for adapter in ("otio_cmx3600_adapter", "otio_fcpx_xml_adapter"):
            importlib.import_module(adapter)
        return importlib.import_module("opentimelineio")
    except ImportError:
        raise MissingExtraError("a timeline (.otio, .edl, .fcpxml)", "video") from None
