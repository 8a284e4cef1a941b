"""Which files a stranger's list or table can name: those below its own folder, and of folders that the user allowed."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from helpers_media import encoded
from helpers_scale import QUESTION, read, run, scene, settings
from smolvlm import SmolVLM
from smolvlm.errors import ParamsError
from smolvlm.scale.batch import run_batch
from smolvlm.scale.folder import RunFolder
from smolvlm.scale.plan import Plan, write_plan


@pytest.fixture
def places(tmp_path: Path) -> tuple[Path, Path]:
    """The stranger's folder, and one with a secret picture. Their names begin alike: a comparison of texts would fall for it."""
    own, secret = tmp_path / "data", tmp_path / "data-secret"
    for folder in (own, own / "deep", secret):
        folder.mkdir()
        scene(1).save(folder / "a.png")
    (own / "inside.png").symlink_to(own / "deep" / "a.png")
    (own / "link.png").symlink_to(secret / "a.png")
    (own / "linked").symlink_to(secret)
    return own, secret


def ways_out(own: Path, secret: Path) -> list[str]:
    """Every way to write the secret picture's place."""
    return [
        str(secret / "a.png"),
        "../data-secret/a.png",
        "deep/../../data-secret/a.png",
        f"{own}/../data-secret/a.png",
        "link.png",
        "linked/a.png",
        f"/proc/self/root{secret}/a.png",
        f"/proc/{os.getpid()}/cwd/../../../{secret}/a.png",
        "/etc/passwd",
        "/dev/zero",
        "~/a.png",
    ]


def test_a_list_names_only_its_folder(nano: SmolVLM, places: tuple[Path, Path], tmp_path: Path) -> None:
    own, secret = places
    inside = ["a.png", "deep/a.png", "deep/../a.png", str(own / "deep" / "a.png"), "inside.png"]
    outside = ways_out(own, secret)
    urls = [f"file://{secret}/a.png", f"FILE://localhost{secret}/a.png", "ftp://x/a.png", "concat://a"]
    (own / "list.txt").write_text("\n".join([*inside, *outside, *urls]))
    run_batch(settings([own / "list.txt"]), tmp_path / "out.parquet", load=lambda: nano)
    rows = read(tmp_path / "out.parquet")
    read_well = [row for row in rows if row["error"] is None]
    assert len(read_well) == len({os.path.abspath(own / name) for name in inside})
    refused = [row["error"] for row in rows if row["error"] is not None]
    assert len(refused) == len({os.path.abspath(own / name) for name in outside}) + len(urls)
    for error in refused:
        assert "--allow-paths DIR" in error or "addresses are not opened" in error, error
    assert not any("no such file" in error for error in refused), "whether a file is there is not told either"


def test_a_column_names_only_its_folder(nano: SmolVLM, places: tuple[Path, Path], tmp_path: Path) -> None:
    own, secret = places
    outside = ways_out(own, secret)
    pq.write_table(pa.table({"path": ["a.png", *outside]}), own / "paths.parquet")
    structs = [{"bytes": None, "path": name} for name in ("deep/a.png", *outside)]
    pq.write_table(pa.table({"image": structs}), own / "structs.parquet")
    run_batch(settings([own / "paths.parquet", own / "structs.parquet"]), tmp_path / "out.parquet", load=lambda: nano)
    rows = read(tmp_path / "out.parquet")
    assert [row["error"] is None for row in rows] == ([True] + [False] * len(outside)) * 2
    assert all("--allow-paths" in row["error"] for row in rows if row["error"])


def test_folders_that_the_user_allows(nano: SmolVLM, places: tuple[Path, Path], tmp_path: Path) -> None:
    own, secret = places
    (own / "list.txt").write_text(f"{secret}/a.png\nlink.png\n/etc/passwd\n")
    (tmp_path / "alias").symlink_to(secret)
    allowed = settings([own / "list.txt"], allow_paths=(str(tmp_path / "alias"),))
    run_batch(allowed, tmp_path / "out.parquet", load=lambda: nano)
    rows = read(tmp_path / "out.parquet")
    assert [row["error"] is None for row in rows] == [True, True, False]
    assert rows[0]["answer"] == nano.ask(secret / "a.png", QUESTION, max_new_tokens=16).text
    with pytest.raises(ParamsError, match="whole path"):
        settings([own], allow_paths=("pictures",))


def test_what_the_user_names_is_not_bound(nano: SmolVLM, places: tuple[Path, Path], tmp_path: Path) -> None:
    """Files and folders of the command line, links in them too: a downloaded data set is often made of links."""
    own, secret = places
    run_batch(settings([own, secret / "a.png"]), tmp_path / "out.parquet", load=lambda: nano)
    assert [row["error"] for row in read(tmp_path / "out.parquet")] == [None] * 5


def test_a_plan_says_what_binds_a_path(places: tuple[Path, Path], tmp_path: Path) -> None:
    """Workers on other machines learn it from there, and a run that goes on has the same rule."""
    from smolvlm.scale.inputs import Inputs

    own, secret = places
    (own / "list.txt").write_text("a.png\n")
    inputs = Inputs([str(own / "list.txt"), str(secret / "a.png")])
    write_plan(tmp_path / "plan.parquet", inputs, 4)
    assert [item.base for item in Plan(tmp_path / "plan.parquet").items(0)] == [str(own), ""]
    folder = RunFolder(tmp_path / "run")
    with folder.claimed(settings([own / "list.txt"], allow_paths=(str(secret),))):
        assert folder.settings().allow_paths == (str(secret),)


@pytest.mark.parametrize("workers", [(), pytest.param(("--workers", "1"), marks=pytest.mark.slow)], ids=["here", "on Ray"])
def test_the_command(places: tuple[Path, Path], tmp_path: Path, workers: tuple[str, ...]) -> None:
    own, secret = places
    (own / "list.txt").write_text(f"a.png\n{secret}/a.png\n")
    for number, (flags, readable) in enumerate([((), 1), (("--allow-paths", secret), 2)]):
        out = tmp_path / f"{number}.parquet"
        done = run(own / "list.txt", "--describe", "--max-new-tokens", 8, "--out", out, *flags, *workers)
        assert done.returncode == 0, done.stderr
        assert [row["error"] is None for row in read(out)] == [True, readable == 2]
    assert encoded(scene(1), "PNG") == (secret / "a.png").read_bytes()
