"""Folders, lists, Parquet and WebDataset shards: which inputs they hold, and that their answers are `ask`'s."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from helpers_media import encoded
from helpers_scale import QUESTION, fill, read, scene, settings
from smolvlm import SmolVLM
from smolvlm.errors import SmolVLMError
from smolvlm.scale.batch import run_batch
from smolvlm.scale.errors import BatchError
from smolvlm.scale.inputs import Inputs


def png(number: int) -> bytes:
    return encoded(scene(number), "PNG")


def shard(path: Path, members: list[tuple[str, bytes]]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def test_a_folder_with_broken_files(nano: SmolVLM, tmp_path: Path) -> None:
    broken = fill(tmp_path / "media", 40)
    (tmp_path / "media" / "notes.txt").write_text("not a picture")
    (tmp_path / "media" / ".hidden.png").write_bytes(png(0))
    deeper = tmp_path / "media" / "deeper"
    deeper.mkdir()
    (deeper / "no-suffix").write_bytes(png(99))  # told by its content
    (deeper / "data").write_bytes(b"neither")
    out = tmp_path / "out.parquet"
    result = run_batch(settings([tmp_path / "media"]), out, load=lambda: nano)
    rows = read(out)
    assert result.inputs == len(rows) == 41
    assert len({row["id"] for row in rows}) == 41
    assert [Path(row["source"]).name for row in rows] == [*sorted(p.name for p in (tmp_path / "media").glob("0*")), "no-suffix"]
    assert [Path(row["source"]).name for row in rows if row["error"]] == broken
    for row in rows:
        if row["error"] is not None:
            assert row["answer"] is row["finish_reason"] is row["completion_tokens"] is None
            with pytest.raises(SmolVLMError) as alone:
                nano.ask(row["source"], QUESTION, max_new_tokens=16)
            assert row["error"] == str(alone.value)
            continue
        answer = nano.ask(row["source"], QUESTION, max_new_tokens=16)
        assert (row["answer"], row["finish_reason"]) == (answer.text, answer.finish_reason)
        assert (row["prompt_tokens"], row["completion_tokens"]) == (answer.usage.prompt_tokens, answer.usage.completion_tokens)
        assert (row["question"], row["model"]) == (QUESTION, "nano")
        assert row["seconds"] > 0
    assert not out.with_name("out.parquet.parts").exists()


def test_lists_parquet_and_shards_give_the_folders_answers(nano: SmolVLM, tmp_path: Path) -> None:
    pictures = [png(n) for n in range(6)]
    for n, data in enumerate(pictures):
        (tmp_path / f"{n}.png").write_bytes(data)
    listed = "\ufeff# a comment\n\n" + "\n".join(["0.png", str(tmp_path / "1.png"), "2.png", "2.png", "gone.png"])
    (tmp_path / "list.txt").write_text(listed, encoding="utf-8")
    pq.write_table(pa.table({"n": [0, 1, 2, 3], "picture": [*pictures[3:], None]}), tmp_path / "bytes.parquet", row_group_size=2)
    pq.write_table(pa.table({"path": ["3.png", "3.png", ""], "text": ["a", "b", "c"]}), tmp_path / "paths.parquet")
    structs = [{"bytes": pictures[4], "path": "x.png"}, {"bytes": None, "path": "5.png"}]
    pq.write_table(pa.table({"image": structs}), tmp_path / "structs.parquet")
    shard(
        tmp_path / "shard.tar",
        [
            ("a.png", pictures[0]),
            ("a.json", b"{}"),
            ("a.cls", b"3"),
            ("deep/b.png", pictures[1]),
            ("c.jpg", b"broken"),
            ("c.txt", b"x"),
            ("d", pictures[2]),
        ],
    )
    cut = (tmp_path / "shard.tar").read_bytes()
    (tmp_path / "cut.tar").write_bytes(cut[: cut.index(b"deep/b.png") + 512 + 100])  # breaks off within b.png
    names = ["list.txt", "bytes.parquet", "paths.parquet", "structs.parquet", "shard.tar", "cut.tar"]
    out = tmp_path / "out.parquet"
    run_batch(settings([tmp_path / name for name in names], part_inputs=3), out, load=lambda: nano)
    rows = read(out)
    expected = [nano.ask(data, QUESTION, max_new_tokens=16).text for data in pictures]
    errors = {"gone": "gone.png: no such file", "cell": "the cell is empty", "jpg": "c.jpg", "cut": "cannot be read to its end"}
    wanted: list[int | str] = [0, 1, 2, "gone", 3, 4, 5, "cell", 3, 3, "cell", 4, 5, 0, 1, "jpg", 2, 0, "cut"]
    assert len(rows) == len({row["id"] for row in rows})
    found = [(row["answer"], row["error"]) for row in rows]
    for (answer, error), want in zip(found, wanted, strict=True):
        if isinstance(want, int):
            assert (answer, error) == (expected[want], None)
        else:
            assert answer is None
            assert errors[want] in error
    assert [row["source"] for row in rows[4:6]] == [f"{tmp_path}/bytes.parquet#0", f"{tmp_path}/bytes.parquet#1"]
    assert rows[14]["source"] == f"{tmp_path}/shard.tar/deep/b.png"


def test_the_same_input_twice_is_one(tmp_path: Path) -> None:
    fill(tmp_path / "a", 3)
    shard(tmp_path / "a" / "s.tar", [("x.png", png(1)), ("y.png", png(1))])
    inputs = Inputs([str(tmp_path / "a"), str(tmp_path / "a" / "00000.png"), str(tmp_path / "a" / "s.tar")])
    assert [Path(item.source).name for item in inputs] == ["00000.png", "00001.png", "00002.png", "x.png", "y.png"]
    assert inputs.repeated == 2
    again = Inputs([str(tmp_path / "a")])
    assert [item.id for item in inputs] == [item.id for item in again]  # from run to run


def test_names_that_are_no_utf8_are_rows(nano: SmolVLM, tmp_path: Path) -> None:
    folder = tmp_path / "media"
    folder.mkdir()
    name = b"\xff\xfe.png".decode("utf-8", "surrogateescape")
    try:
        (folder / name).write_bytes(png(1))
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    run_batch(settings([folder]), tmp_path / "out.parquet", load=lambda: nano)
    (row,) = read(tmp_path / "out.parquet")
    assert "not UTF-8" in row["error"]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("gone", "no such file"),
        ("packed.tar.gz", "packed"),
        ("s3://bucket/a.png", "not opened"),
        ("empty", "no picture"),
        ("bad.parquet", "cannot be read as Parquet"),
        ("two.parquet", "choose one with --column: a, b"),
        ("binary.txt", "line 1"),
    ],
)
def test_inputs_that_cannot_be_read_at_all(name: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "packed.tar.gz").write_bytes(b"x")
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 and no more")
    pq.write_table(pa.table({"a": ["x"], "b": ["y"], "n": [1]}), tmp_path / "two.parquet")
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00")
    named = name if "://" in name else str(tmp_path / name)
    with pytest.raises(BatchError, match=reason):
        run_batch(settings([named]), tmp_path / "out.parquet")
    assert not (tmp_path / "out.parquet.parts").exists()  # nothing is in the way of the corrected command
    assert not (tmp_path / "out.parquet").exists()


def test_a_column_is_chosen_by_name(nano: SmolVLM, tmp_path: Path) -> None:
    (tmp_path / "0.png").write_bytes(png(0))
    pq.write_table(pa.table({"a": ["0.png"], "b": ["gone.png"]}), tmp_path / "two.parquet")
    run_batch(settings([tmp_path / "two.parquet"], column="a"), tmp_path / "out.parquet", load=lambda: nano)
    assert read(tmp_path / "out.parquet")[0]["error"] is None
    with pytest.raises(BatchError, match="no column 'c'"):
        run_batch(settings([tmp_path / "two.parquet"], column="c"), tmp_path / "other.parquet")
