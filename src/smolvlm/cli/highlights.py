"""`smolvlm highlights`: the best moments of a video, cut out of it or as a playlist, a timeline or a page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from smolvlm.cli.console import Bars, note, one_line, write, write_json
from smolvlm.cli.flags import JsonOption, ModelFlags, seconds, with_flags
from smolvlm.cli.loading import announce, find_model, open_model

if TYPE_CHECKING:
    from smolvlm.apps.videos.highlights import Highlights, HighlightSettings
    from smolvlm.media import Video


@with_flags
def highlights(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The video.")],
    model: ModelFlags,
    duration: Annotated[
        float | None, typer.Option(metavar="TIME", parser=seconds, help="Seconds, or H:MM:SS, that they may last together; 90 by default.")
    ] = None,
    about: Annotated[
        list[str] | None,
        typer.Option(metavar="TEXT", help="What counts as a highlight; may be repeated. Without it: what counts in a video of its kind."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="FILE",
            help="A video (.mp4, .mov, .mkv, .webm), a timeline (.otio, .edl, .fcpxml) or a playlist (.xspf, .m3u8).",
        ),
    ] = None,
    page: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a page (.html) that shows why each moment was taken.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the moments, and write nothing.")] = False,
    every: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="Seconds between two frames that the model sees; 1 by default.")
    ] = None,
    least: Annotated[float | None, typer.Option(metavar="P", help="The least probability of a highlight; 0.5 by default.")] = None,
    spacing: Annotated[float | None, typer.Option(metavar="SECONDS", help="Seconds between two highlights at least; 0 by default.")] = None,
    loudness: Annotated[
        float | None, typer.Option(metavar="WEIGHT", help="How much it counts that a moment is loud; 0 (not at all) by default, 1 is much.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the files if they exist.")] = False,
    json: JsonOption = False,
) -> None:
    """Cut the best moments out of a video.

    Packets are copied: only the edges of each moment are encoded. Where nothing is likely enough it says so; the exit code is 3.

    \b
    Examples:
      smolvlm highlights match.mp4 --duration 90 --about "somebody falls" -o best.mp4
      smolvlm highlights match.mp4 --dry-run
      smolvlm highlights match.mp4 -o best.edl --page why.html
    """
    from smolvlm.apps.videos.highlights import HighlightSettings, find_highlights
    from smolvlm.media import Video

    given: dict[str, Any] = {"duration": duration, "every": every, "least": least, "spacing": spacing, "loudness": loudness}
    settings = HighlightSettings(**{name: value for name, value in given.items() if value is not None})
    if out is None and page is None and not dry_run:
        raise typer.BadParameter("say what to write: -o best.mp4, --page why.html, or --dry-run to see the moments only.")
    for target in (out, page):
        if target is not None and not dry_run:
            _check(target, file, page=target is page, overwrite=overwrite)
    with Video(file) as video, Bars() as bars:
        name, folder = find_model(model, bars)
        loaded = open_model(name, model, bars)
        announce(loaded, folder)
        found = find_highlights(loaded, video, about or (), settings, bars)
        for each in found.notes:
            note(each)
        if found.kind:
            note(f"it looks like {found.kind}; say what counts with --about if it is not.")
        written = {} if dry_run or not found.taken else _write(video, found, settings, out, page, overwrite, bars)
    _show(found, written, json)
    if not found.taken:
        raise typer.Exit(3)


def _check(target: Path, source: Path, *, page: bool, overwrite: bool) -> None:
    """Before long work: a wrong suffix, a file that exists, a missing part."""
    from smolvlm.apps.library import check_free
    from smolvlm.apps.videos.cut.cutter import FORMATS
    from smolvlm.apps.videos.playlists import PLAYLISTS
    from smolvlm.apps.videos.timelines import TIMELINES, check_timeline

    suffix = target.suffix.lower()
    known = (".html", ".htm") if page else (*FORMATS, *TIMELINES, *PLAYLISTS)
    if suffix not in known:
        raise typer.BadParameter(f"{str(target)!r}: expected {', '.join(known)}.")
    if suffix in TIMELINES:
        check_timeline(target)
    check_free(target, overwrite=overwrite, sources=[source])


def _write(
    video: Video, found: Highlights, settings: HighlightSettings, out: Path | None, page: Path | None, overwrite: bool, bars: Bars
) -> dict[str, Any]:
    from smolvlm.apps.library import write_file
    from smolvlm.apps.videos.cut import Piece, cut
    from smolvlm.apps.videos.cut.cutter import FORMATS
    from smolvlm.apps.videos.highlights_page import highlights_page
    from smolvlm.apps.videos.playlists import PLAYLISTS, Moment, playlist
    from smolvlm.apps.videos.timelines import timeline

    path = Path(str(video.source.path or video.label))
    moments = [Moment(path, c.start_s, c.end_s, c.caption, f"{c.probability:.0%}: {c.reason}") for c in found.taken]
    written: dict[str, Any] = {}
    if out is not None and out.suffix.lower() in FORMATS:
        report = cut(video, [Piece(c.start_s, c.end_s) for c in found.taken], out, overwrite=overwrite, on_progress=bars)
        for line in (*report.reasons, *report.notes):
            note(line)
        written = {"copied_frames": report.copied_frames, "encoded_frames": report.encoded_frames, "reasons": list(report.reasons)}
    elif out is not None:
        made = playlist(moments, out) if out.suffix.lower() in PLAYLISTS else None
        text = made if made is not None else timeline(moments, out, fps=video.fps, duration_s=video.duration_s)
        write_file(out, text, overwrite=overwrite)
    if page is not None:
        write_file(page, highlights_page(video, found, settings, page), overwrite=overwrite)
    for target in (out, page):
        if target is not None:
            note(f"wrote {target}", dim=True)
    return written


def _show(found: Highlights, written: dict[str, Any], json: bool) -> None:
    if json:
        moments = [moment.to_dict() for moment in found.taken]
        write_json({"kind": found.kind, "about": list(found.about), "lasts_s": round(found.lasts_s, 3), "moments": moments, **written})
        return
    for c in found.taken:
        write(f"{c.probability:4.0%}  {c.start_s:8.2f}-{c.end_s:8.2f} s  {one_line(c.caption)}\n")
    if found.taken:
        note(f"{len(found.taken)} moments, {found.lasts_s:.1f} s.", dim=True)
    else:
        note("nothing is likely enough to be a highlight; lower --least, or say what counts with --about.")
