"""The library: contents by hash, migrations, transactions, locks, and what is refused."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from smolvlm.apps.library import Library, Part, content_hash, default_path, match_query, searchable
from smolvlm.errors import LibraryBusyError, LibraryError, SourceError

FIRST = Part("toy", ("CREATE TABLE toy_notes (id INTEGER PRIMARY KEY, text TEXT); CREATE VIRTUAL TABLE toy_words USING fts5(text)",))
SECOND = Part("toy", (*FIRST.migrations, "ALTER TABLE toy_notes ADD COLUMN mood TEXT DEFAULT 'calm; quiet'"))


def test_a_moved_file_is_the_same_medium_and_a_changed_one_another(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"x" * 3_000_000)
    with Library.open(tmp_path / "l.db") as library:
        first = library.medium(tmp_path / "a.mp4")
        assert first.hash == content_hash(tmp_path / "a.mp4")
        (tmp_path / "a.mp4").rename(tmp_path / "ünï #1.mp4")
        moved = library.medium(tmp_path / "ünï #1.mp4")
        assert (moved.id, moved.hash) == (first.id, first.hash)
        assert library.path_of(first.id) == tmp_path / "ünï #1.mp4"  # the old place is gone
        (tmp_path / "ünï #1.mp4").write_bytes(b"y" * 3_000_000)  # same size, other content and time
        assert library.medium(tmp_path / "ünï #1.mp4").id != first.id


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no names that are not text")
def test_a_name_that_is_not_utf8_is_kept(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/bad\xff.mp4"))
    path.write_bytes(b"x")
    with Library.open(tmp_path / "l.db") as library:
        medium = library.medium(path)
        assert library.path_of(medium.id) == path
        assert library.medium(path).id == medium.id


def test_migrations_keep_rows_and_a_newer_library_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "folder" / "l.db"
    with Library.open(path, [FIRST]) as library, library.write() as rows:
        rows.execute("INSERT INTO toy_notes (text) VALUES ('kept')")
    with Library.open(path, [SECOND]) as library:
        assert tuple(library.rows("SELECT text, mood FROM toy_notes")[0]) == ("kept", "calm; quiet")
    with pytest.raises(LibraryError, match="newer version"):
        Library.open(path, [FIRST])


def test_an_exception_leaves_nothing_of_a_transaction(tmp_path: Path) -> None:
    with Library.open(tmp_path / "l.db", [FIRST]) as library:
        with pytest.raises(sqlite3.IntegrityError), library.write() as rows:
            rows.executemany("INSERT INTO toy_notes (id, text) VALUES (?, 'half')", [(1,), (1,)])
        assert library.rows("SELECT * FROM toy_notes") == []


def test_two_threads_write_one_after_the_other(tmp_path: Path) -> None:
    with Library.open(tmp_path / "l.db", [FIRST]) as library:

        def add() -> None:
            for _ in range(20):
                with library.write() as rows:
                    rows.execute("INSERT INTO toy_notes (text) VALUES ('x')")

        threads = [threading.Thread(target=add) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert library.rows("SELECT COUNT(*) FROM toy_notes")[0][0] == 80


def test_a_run_lock_goes_with_its_process(tmp_path: Path) -> None:
    with Library.open(tmp_path / "l.db") as library:
        code = (
            "import sys, time; from smolvlm.apps.library import Library\n"
            "lock = Library.open(sys.argv[1]).run_lock('videos'); print('held', flush=True); time.sleep(60)"
        )
        other = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "l.db")], stdout=subprocess.PIPE)
        try:
            assert other.stdout is not None
            assert other.stdout.readline() == b"held\n"
            with pytest.raises(LibraryBusyError, match="another run"):
                library.run_lock("videos")
            library.run_lock("camera").close()  # another application's
        finally:
            other.kill()
            other.wait()
        library.run_lock("videos").close()


def test_files_that_are_no_library_are_refused_and_left_alone(tmp_path: Path) -> None:
    with pytest.raises(LibraryError, match="is a folder"):
        Library.open(tmp_path)
    (tmp_path / "text.db").write_bytes(b"hello, I am no database at all" * 100)
    with pytest.raises(LibraryError, match="damaged, or no library"):
        Library.open(tmp_path / "text.db")
    other = sqlite3.connect(tmp_path / "photos.db")
    other.execute("CREATE TABLE photos (id)")
    other.commit()
    other.close()
    before = (tmp_path / "photos.db").read_bytes()
    with pytest.raises(LibraryError, match="another program's database"):
        Library.open(tmp_path / "photos.db")
    assert (tmp_path / "photos.db").read_bytes() == before
    with pytest.raises(LibraryError, match="does not exist"):
        Library.open(tmp_path / "absent.db", read_only=True)
    with Library.open(tmp_path / "l.db") as library, pytest.raises(SourceError, match="No such file"):
        library.medium(tmp_path / "gone.mp4")


def test_a_damaged_library_is_said(tmp_path: Path) -> None:
    with Library.open(tmp_path / "l.db", [FIRST]) as library, library.write() as rows:
        rows.executemany("INSERT INTO toy_notes (text) VALUES (?)", [("x" * 500,)] * 200)
    data = bytearray((tmp_path / "l.db").read_bytes())
    data[4096:] = os.urandom(len(data) - 4096)
    (tmp_path / "l.db").write_bytes(data)
    with pytest.raises(LibraryError, match="damaged"), Library.open(tmp_path / "l.db", [FIRST]) as library:
        library.rows("SELECT * FROM toy_notes")


def test_a_read_only_library_is_read_and_never_written(tmp_path: Path) -> None:
    """By `read_only`: the tests may run as root, to whom no folder is read-only."""
    with Library.open(tmp_path / "l.db", [FIRST]) as library, library.write() as rows:
        rows.execute("INSERT INTO toy_notes (text) VALUES ('kept')")
    with Library.open(tmp_path / "l.db", [FIRST], read_only=True) as library:
        assert len(library.rows("SELECT * FROM toy_notes")) == 1
        with pytest.raises(LibraryError, match="cannot be written"), library.write():
            pass


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder that nobody can write, root included")
def test_a_folder_without_write_access_is_said() -> None:
    with pytest.raises(LibraryError, match="pass another one|cannot be opened"):
        Library.open("/proc/smolvlm/library.db")


def test_makers_are_told_apart_by_weights_prompt_and_options(tmp_path: Path) -> None:
    with Library.open(tmp_path / "l.db") as library:
        one = library.maker(app="toy", model="nano", fingerprint="f", prompt="What?", options={"b": 1, "a": 2})
        assert library.maker(app="toy", model="renamed", fingerprint="f", prompt="What?", options={"a": 2, "b": 1}).id == one.id
        assert library.maker(app="toy", model="nano", fingerprint="g", prompt="What?", options={"a": 2, "b": 1}).id != one.id
        assert [maker.fingerprint for maker in library.makers("toy")] == ["f", "g"]


def test_the_default_place_is_the_users_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert default_path() == tmp_path / "smolvlm" / "library.db"


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("cats falling", {"the cat falls"}),
        ('a red star AND (NOT "dog*', {"the red star moves"}),
        ("猫", {"一只猫掉下来了"}),
        ("猫掉", {"一只猫掉下来了"}),
        ("下掉", set()),  # both characters are there, side by side they are not
        ("ball", set()),
    ],
)
def test_words_are_found_whatever_was_typed(tmp_path: Path, query: str, found: set[str]) -> None:
    texts = ["the cat falls", "the red star moves", "一只猫掉下来了"]
    part = Part("t", ("CREATE VIRTUAL TABLE t USING fts5(text, tokenize = 'porter unicode61')",))
    with Library.open(tmp_path / "l.db", [part]) as library:
        with library.write() as rows:
            rows.executemany("INSERT INTO t (rowid, text) VALUES (?, ?)", [(i, searchable(text)) for i, text in enumerate(texts)])
        hits = library.rows("SELECT rowid FROM t WHERE t MATCH ?", (match_query(query),))
        assert {texts[row[0]] for row in hits} == found


def test_a_query_without_words_matches_nothing() -> None:
    assert match_query("  ?! \x00 ") is None
