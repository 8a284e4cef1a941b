"""`smolvlm index`: what happens when in videos, into a library that `smolvlm search` searches."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from smolvlm.cli.console import Bars, note, one_line, write, write_json
from smolvlm.cli.flags import JsonOption, ModelFlags, with_flags
from smolvlm.cli.loading import announce, find_model, open_model

if TYPE_CHECKING:
    from smolvlm.apps.library import Library
    from smolvlm.apps.videos.indexing import Indexed
    from smolvlm.apps.videos.settings import IndexSettings
    from smolvlm.vlm import SmolVLM

LibraryOption = Annotated[
    Path | None, typer.Option("--library", metavar="FILE", help="Where the index is kept; by default in your data folder.")
]
EveryOption = Annotated[float | None, typer.Option(metavar="SECONDS", help="Seconds between two frames that the model sees; 2 by default.")]


@with_flags
def index(
    videos: Annotated[list[Path], typer.Argument(metavar="FILE|FOLDER...", help="Videos, and folders of videos.")],
    model: ModelFlags,
    library: LibraryOption = None,
    every: EveryOption = None,
    frames: Annotated[int | None, typer.Option(metavar="N", help="Frames of one window; 4 by default.")] = None,
    prompt: Annotated[str | None, typer.Option(metavar="TEXT", help="The question that each window answers.")] = None,
    no_features: Annotated[
        bool, typer.Option("--no-features", help="Keep no features: a smaller library, and searches that decode the videos again.")
    ] = False,
    write_as: Annotated[
        list[str] | None,
        typer.Option(
            "--write",
            metavar="FORMAT",
            help="Also write vtt, srt, chapters.vtt, ffmetadata, youtube, storyboard or html of each video; may be given again.",
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Where --write writes; beside each video by default.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that --write wrote before.")] = False,
    json: JsonOption = False,
) -> None:
    """Index what happens when in videos.

    A video is known by its content: unchanged, moved and renamed ones are not done again, and a run that was killed goes on
    where it stopped.

    \b
    Examples:
      smolvlm index holiday/
      smolvlm index match.mp4 --every 1 --library match.db
    """
    from smolvlm.apps.library import Library
    from smolvlm.apps.videos.indexing import video_files
    from smolvlm.apps.videos.tables import VIDEOS

    settings = settings_of(every=every, frames=frames, prompt=prompt, features=False if no_features else None)
    files = list(video_files(videos))
    targets = {file: _targets(file, write_as or (), out, overwrite) for file in files}  # a wrong name shows before any work
    _check_distinct(targets)
    with Library.open(library, [VIDEOS]) as opened, opened.run_lock("videos"), Bars() as bars:
        name, folder = find_model(model, bars)
        loaded = open_model(name, model, bars)
        announce(loaded, folder)
        done, failed = index_files(loaded, opened, files, settings, bars)
        for each in done:
            _write_all(opened, each, targets, overwrite)
        if json:
            write_json({"library": str(opened.path), "videos": [as_dict(each) for each in done], "failed": failed})
        else:
            for each in done:
                what = f"{each.new_windows} new windows" if each.new_windows else "known already"
                write(f"{one_line(str(each.medium.path))}  {each.duration_s:.1f} s, {each.windows} windows ({what})\n")
    if failed and not done:
        raise typer.Exit(2)


def _targets(file: Path, formats: Sequence[str], out: Path | None, overwrite: bool) -> list[tuple[str, Path]]:
    """(format, path) of what is written of a video. Raises ParamsError for an unknown format, SourceError for a taken name."""
    from smolvlm.apps.library import check_free
    from smolvlm.apps.videos.exports import FORMATS, names
    from smolvlm.errors import ParamsError

    if unknown := [each for each in formats if each not in FORMATS]:
        raise ParamsError(f"format {unknown[0]!r}: expected one of {', '.join(FORMATS)}.")
    found = [(what, (out or file.parent) / name) for what, name in names(file) if what in formats]
    for _, path in found:
        check_free(path, overwrite=overwrite, sources=[file])
    return found


def _check_distinct(targets: dict[Path, list[tuple[str, Path]]]) -> None:
    """Raises ParamsError where two videos would be written under one name."""
    from smolvlm.errors import ParamsError

    taken: dict[Path, Path] = {}
    for file, wanted in targets.items():
        for _, path in wanted:
            if (other := taken.setdefault(path.absolute(), file)) != file:
                raise ParamsError(
                    f"{str(path)!r} would be written for {str(other)!r} and for {str(file)!r}; index them one by one, with an --out each."
                )


def _write_all(library: Library, indexed: Indexed, targets: dict[Path, list[tuple[str, Path]]], overwrite: bool) -> None:
    from smolvlm.apps.videos.exports import export
    from smolvlm.apps.videos.stored import windows_of

    windows = windows_of(library, [indexed.run_id])
    for file, wanted in targets.items():
        if file.resolve() == indexed.medium.path.resolve():
            for what, path in wanted:
                for made in export(windows, indexed.medium.path, what, path, overwrite=overwrite):
                    note(f"wrote {made}", dim=True)


def settings_of(**given: Any) -> IndexSettings:
    """The settings that were typed, and the defaults of the others."""
    from smolvlm.apps.videos.settings import IndexSettings

    return IndexSettings(**{name: value for name, value in given.items() if value is not None})


def index_files(
    model: SmolVLM, library: Library, files: list[Path], settings: IndexSettings, bars: Bars
) -> tuple[list[Indexed], list[dict[str, str]]]:
    """(what was indexed, what could not be and why); each failure is noted, and the next file taken."""
    from smolvlm.apps.videos.indexing import index_video
    from smolvlm.errors import SourceError, VideoError

    done, failed = [], []
    for file in files:
        try:
            indexed = index_video(model, library, file, settings, bars)
        except (SourceError, VideoError) as error:
            note(f"left out: {error}")
            failed.append({"file": str(file), "error": str(error)})
            continue
        for warning in indexed.warnings if indexed.new_windows else ():
            note(f"{file.name}: {warning}")
        done.append(indexed)
    return done, failed


def as_dict(indexed: Indexed) -> dict[str, Any]:
    return {
        "file": str(indexed.medium.path),
        "hash": indexed.medium.hash,
        "duration_s": round(indexed.duration_s, 3),
        "windows": indexed.windows,
        "new_windows": indexed.new_windows,
        "warnings": list(indexed.warnings),
    }
