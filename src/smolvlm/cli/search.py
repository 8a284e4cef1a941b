"""`smolvlm search`: where in videos something happens."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from smolvlm.cli.console import Bars, note, one_line, write, write_json
from smolvlm.cli.flags import JsonOption, ModelFlags, with_flags
from smolvlm.cli.index import EveryOption, LibraryOption, index_files, settings_of
from smolvlm.cli.loading import announce, find_model, open_model

if TYPE_CHECKING:
    from smolvlm.apps.library import Library
    from smolvlm.apps.videos.playlists import Moment
    from smolvlm.apps.videos.search import Found, Hit
    from smolvlm.vlm import SmolVLM


@with_flags
def search(
    places: Annotated[list[str], typer.Argument(metavar="FILE|FOLDER|LIBRARY... [QUERY]", help="Where, and then what happens there.")],
    model: ModelFlags,
    library: LibraryOption = None,
    like: Annotated[Path | None, typer.Option(metavar="PICTURE", help="Find what looks like a picture, in place of a query.")] = None,
    top: Annotated[int, typer.Option(metavar="N", min=1, help="Moments shown at most.")] = 5,
    judge: Annotated[
        str, typer.Option(metavar="NAME", help="likelihood (of the query as an answer), yes-no (asks the model) or words (captions alone).")
    ] = "likelihood",
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE", help="Write the moments as a playlist for VLC: .xspf or .m3u8.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the playlist if it exists.")] = False,
    every: EveryOption = None,
    port: Annotated[int, typer.Option(metavar="PORT", min=0, max=65535, help="Of `smolvlm search serve`, on 127.0.0.1.")] = 0,
    json: JsonOption = False,
) -> None:
    """Find where in videos something happens.

    What is not indexed yet is indexed first. Exit code 0 with the moments, best first.
    Where nothing matches it says so with the nearest miss, and the exit code is 3.
    `smolvlm search serve` opens the same as a page on this machine, over a library.

    \b
    Examples:
      smolvlm search match.mp4 "the ball falls"
      smolvlm search holiday/ "a dog runs" -o dogs.xspf
      smolvlm search holiday/ --like frame.jpg
      smolvlm search serve
    """
    from smolvlm.apps.library import check_free, write_file
    from smolvlm.apps.videos.playlists import playlist
    from smolvlm.apps.videos.search import SearchSettings
    from smolvlm.apps.videos.search import search as find
    from smolvlm.apps.videos.similar import similar

    if places == ["serve"]:
        from smolvlm.cli.vlc import run_server

        run_server(model, library, port, None)
        return
    *where, query = places if like is None else [*places, ""]
    if not where:
        raise typer.BadParameter('say where and what: smolvlm search holiday/ "a dog runs".')
    if like is None and query.strip() and os.path.exists(query):
        note(f"{query!r} is taken as what happens; it is the name of a file, too.")
    settings = SearchSettings(judge=judge, top=top)
    if out is not None:
        playlist((), out)  # a wrong suffix shows before any work
        check_free(out, overwrite=overwrite, sources=where)
    with Bars() as bars:
        name, folder = find_model(model, bars)
        loaded = open_model(name, model, bars)
        announce(loaded, folder)
        opened, runs = scope(loaded, [Path(place) for place in where], library, every, bars)
        with opened:
            found = find(loaded, opened, query, runs, settings) if like is None else similar(loaded, opened, like, runs, settings)
    there = [hit for hit in found.hits if hit.window.path.is_file()]
    for gone in dict.fromkeys(hit.window.path for hit in found.hits if hit not in there):
        note(f"{str(gone)!r} is no longer there; index it where it is now.")
    if out is not None and there:
        check_free(out, overwrite=overwrite, sources=[hit.window.path for hit in there])  # of a folder or a library, too
        write_file(out, playlist([moment(hit) for hit in there], out), overwrite=overwrite)
        note(f"wrote {out} with {len(there)} moments", dim=True)
    show(found, json)
    if not found.hits:
        raise typer.Exit(3)


def scope(model: SmolVLM, places: list[Path], library: Path | None, every: float | None, bars: Bars) -> tuple[Library, list[int]]:
    """The library, and the runs in it that are searched; the caller closes it. Videos that are not indexed are indexed first."""
    from smolvlm.apps.library import Library
    from smolvlm.apps.videos.indexing import maker_of, video_files
    from smolvlm.apps.videos.stored import newest_run, run_of, runs_in
    from smolvlm.apps.videos.tables import VIDEOS
    from smolvlm.errors import LibraryBusyError, SourceError

    if len(places) == 1 and is_library(places[0]):
        opened = Library.open(places[0], [VIDEOS])
        return opened, runs_in(opened, model.fingerprint)
    settings = settings_of(every=every)
    files = list(video_files(places))
    opened = Library.open(library, [VIDEOS])
    try:
        maker = maker_of(opened, model, settings)

        def known(file: Path) -> int | None:
            """Without --every, any index of this model will do."""
            try:
                medium = opened.medium(file).id
            except SourceError:
                return None  # indexing says why
            return newest_run(opened, medium, model.fingerprint) if every is None else run_of(opened, medium, maker)

        runs = {file: known(file) for file in files}
        if missing := [file for file, run in runs.items() if run is None]:
            try:
                with opened.run_lock("videos"):
                    done, failed = index_files(model, opened, missing, settings, bars)
                if failed and len(failed) == len(files):
                    raise typer.Exit(2)
                return opened, [*(run for run in runs.values() if run is not None), *(each.run_id for each in done)]
            except LibraryBusyError:
                note(f"another run is indexing; only the {len(files) - len(missing)} videos that are done are searched.")
        return opened, [run for run in runs.values() if run is not None]
    except BaseException:
        opened.close()
        raise


def is_library(path: Path) -> bool:
    """Whether a file is an SQLite database, whatever its name."""
    try:
        with path.open("rb") as file:
            return file.read(16) == b"SQLite format 3\0"
    except OSError:
        return False


def moment(hit: Hit) -> Moment:
    """A hit as an entry of a playlist."""
    from smolvlm.apps.videos.playlists import Moment

    return Moment(hit.window.path, hit.window.start_s, hit.window.end_s, hit.window.caption, f"{hit.probability:.0%}: {hit.why}")


def show(found: Found, json: bool) -> None:
    """The moments on stdout; that nothing matches on stderr, with the nearest miss."""
    if json:
        nearest = None if found.hits or found.nearest is None else found.nearest.to_dict()
        write_json({"query": found.query, "hits": [hit.to_dict() for hit in found.hits], "nearest": nearest})
        return
    for hit in found.hits:
        window = hit.window
        where = f"{clock(window.start_s)}-{clock(window.end_s)}"
        write(f"{hit.probability:4.0%}  {where}  {one_line(window.path.name)}  {one_line(window.caption)}\n")
    if not found.hits and found.nearest is None:
        note("nothing matches: nothing is indexed here.")
    elif not found.hits and found.nearest is not None:
        window = found.nearest.window
        note(
            f"nothing matches {found.query!r}; the nearest is {window.caption!r} at {clock(window.start_s)} in {window.path.name} "
            f"({found.nearest.probability:.0%})."
        )


def clock(seconds: float) -> str:
    """H:MM:SS, or M:SS below an hour."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
