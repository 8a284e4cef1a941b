"""`Library`: the SQLite file, its connection, and the rows that all applications share."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import stat
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smolvlm.apps.library.files import content_hash
from smolvlm.apps.library.lock import RunLock
from smolvlm.apps.library.place import default_path
from smolvlm.apps.library.tables import Part, check_versions, migrate
from smolvlm.errors import LibraryError, SourceError

_APPLICATION_ID = 0x536D6F6C  # "Smol", in the file's header: other SQLite files are refused before they are touched
_WAIT_S = 30.0  # for another process's transaction


@dataclass(frozen=True)
class Medium:
    """A content by its hash, and the path at which it was seen."""

    id: int
    hash: str
    path: Path


@dataclass(frozen=True)
class Maker:
    """What made a row: the application, the model with its weights' fingerprint, the prompt and the options."""

    id: int
    app: str
    model: str
    fingerprint: str
    prompt: str
    options: Mapping[str, Any]


class Library:
    """An open library. Any thread may call it; calls take turns. A context manager."""

    def __init__(self, connection: sqlite3.Connection, path: Path, writable: bool) -> None:
        self._connection, self.path, self.writable = connection, path, writable
        self._turn = threading.RLock()

    @classmethod
    def open(cls, path: str | os.PathLike[str] | None = None, parts: Sequence[Part] = (), *, read_only: bool = False) -> Library:
        """The library at `path` (None: the user's own), made where there is none, with the tables of `parts`.

        A library that cannot be written is opened for reading. Raises LibraryError.
        """
        place = default_path() if path is None else Path(path)
        label = f"the library {str(place)!r}"
        if place.is_dir():
            raise LibraryError(f"{str(place)!r} is a folder, not a library; pass a file, such as {str(place / 'library.db')!r}.")
        writable = not read_only and _can_write(place)
        if not writable and not place.is_file():
            why = "does not exist" if read_only else "cannot be made: its folder is not writable"
            raise LibraryError(f"{label} {why}; pass another one.")
        with _named(label):
            if writable:
                place.parent.mkdir(parents=True, exist_ok=True)
            connection = _connect(place, writable)
            try:
                _check_is_ours(connection, label, writable)
                if writable:
                    migrate(connection, parts, label)
                else:
                    check_versions(connection, parts, label)
            except BaseException:
                connection.close()
                raise
        return cls(connection, place, writable)

    @property
    def label(self) -> str:
        """Its name in messages."""
        return f"the library {str(self.path)!r}"

    def close(self) -> None:
        """Close the file; once more is harmless."""
        with self._turn:
            self._connection.close()

    def __enter__(self) -> Library:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextlib.contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """One transaction: what is executed inside is kept as a whole, or, after an exception, not at all."""
        if not self.writable:
            raise LibraryError(f"{self.label} cannot be written; pass one in a folder that can be.")
        with self._turn, _named(self.label):
            if self._connection.in_transaction:  # inside another `write` of this thread
                yield self._connection
                return
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
            except BaseException:
                with contextlib.suppress(sqlite3.Error):  # a full disk has rolled back already
                    self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")

    def rows(self, statement: str, values: Sequence[Any] = ()) -> list[sqlite3.Row]:
        """All rows of a SELECT; a row is read by position or by column name."""
        with self._turn, _named(self.label):
            return self._connection.execute(statement, values).fetchall()

    def row(self, statement: str, values: Sequence[Any] = ()) -> sqlite3.Row | None:
        """The first row of a SELECT."""
        found = self.rows(statement, values)
        return found[0] if found else None

    def run_lock(self, name: str) -> RunLock:
        """The lock of a long run called `name`. Raises LibraryBusyError while another process, or thread, holds it."""
        return RunLock(self.path.with_name(f"{self.path.name}.{name}.lock"), name)

    def medium(self, path: str | os.PathLike[str]) -> Medium:
        """The medium whose content is in the file at `path`; a new row where it was never seen.

        A file of the same path, size and time of change as before is not read again. Raises SourceError.
        """
        place = Path(os.path.abspath(path))
        try:
            facts = place.stat()
        except (OSError, ValueError) as error:
            raise SourceError(f"{os.fspath(path)!r}: cannot be read ({getattr(error, 'strerror', None) or error}).") from None
        if not stat.S_ISREG(facts.st_mode):
            raise SourceError(f"{os.fspath(path)!r} is not a regular file; copy its content into one.")
        known = self.row(
            "SELECT media.id, media.hash FROM places JOIN media ON media.id = medium_id "
            "WHERE path = ? AND places.bytes = ? AND mtime_ns = ?",
            (_stored(place), facts.st_size, facts.st_mtime_ns),
        )
        if known is not None:
            return Medium(known["id"], known["hash"], place)
        digest, now = content_hash(place), time.time()
        with self.write() as rows:
            rows.execute("INSERT INTO media (hash, bytes, added_at) VALUES (?, ?, ?) ON CONFLICT DO NOTHING", (digest, facts.st_size, now))
            number = int(rows.execute("SELECT id FROM media WHERE hash = ?", (digest,)).fetchone()[0])
            rows.execute(
                "INSERT OR REPLACE INTO places VALUES (?, ?, ?, ?, ?)", (_stored(place), number, facts.st_size, facts.st_mtime_ns, now)
            )
        return Medium(number, digest, place)

    def path_of(self, medium_id: int) -> Path | None:
        """Where a medium was seen last, a file that is still there before others; None for one without a place."""
        places = self.rows("SELECT path FROM places WHERE medium_id = ? ORDER BY seen_at DESC", (medium_id,))
        found = [Path(os.fsdecode(row["path"])) for row in places]
        return next((path for path in found if path.is_file()), found[0] if found else None)

    def maker(self, *, app: str, model: str, fingerprint: str, prompt: str = "", options: Mapping[str, Any] | None = None) -> Maker:
        """The row of this application, model, prompt and options, made where there is none."""
        made = json.dumps(dict(options or {}), sort_keys=True, ensure_ascii=False)
        key = (app, fingerprint, prompt, made)
        with self.write() as rows:
            rows.execute(
                "INSERT INTO makers (app, model, fingerprint, prompt, options) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
                (app, model, fingerprint, prompt, made),
            )
            found = rows.execute("SELECT * FROM makers WHERE app = ? AND fingerprint = ? AND prompt = ? AND options = ?", key).fetchone()
        return _maker(found)

    def makers(self, app: str) -> list[Maker]:
        """Everything that made rows for an application, the newest last."""
        return [_maker(row) for row in self.rows("SELECT * FROM makers WHERE app = ? ORDER BY id", (app,))]


def _maker(row: sqlite3.Row) -> Maker:
    return Maker(row["id"], row["app"], row["model"], row["fingerprint"], row["prompt"], json.loads(row["options"]))


def _stored(path: Path) -> str | bytes:
    """A path as SQLite keeps it: text, or the bytes of a name that is not UTF-8."""
    try:
        return str(path).encode().decode()
    except UnicodeEncodeError:
        return os.fsencode(path)


def _can_write(path: Path) -> bool:
    """Whether the file, or one in the nearest folder that exists, can be written; WAL makes files beside it."""
    folder = path.parent
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return os.access(folder, os.W_OK) and (not path.exists() or os.access(path, os.W_OK))


def _connect(path: Path, writable: bool) -> sqlite3.Connection:
    address = Path(os.path.abspath(path)).as_uri()
    last: sqlite3.Error | None = None
    # A library on a medium that nobody can write has no place for the files of WAL: "immutable" reads it without them.
    for mode in ("mode=rwc",) if writable else ("mode=ro", "mode=ro&immutable=1"):
        connection = sqlite3.connect(f"{address}?{mode}", uri=True, timeout=_WAIT_S, isolation_level=None, check_same_thread=False)
        connection.row_factory = sqlite3.Row
        try:
            connection.execute("PRAGMA foreign_keys = ON")
            connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()
            return connection
        except sqlite3.OperationalError as error:
            connection.close()
            last = error
        except BaseException:
            connection.close()
            raise
    assert last is not None
    raise last


def _check_is_ours(connection: sqlite3.Connection, label: str, writable: bool) -> None:
    """Mark a new file; raises LibraryError for another program's database."""
    found = int(connection.execute("PRAGMA application_id").fetchone()[0])
    if found != _APPLICATION_ID:
        if found or not writable or connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()[0]:
            raise LibraryError(f"{label} is another program's database; pass a new file.")
        connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
    if writable:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")  # with WAL: a power cut loses the last transactions, never the file


@contextlib.contextmanager
def _named(label: str) -> Iterator[None]:
    """Errors of SQLite and of the disk as sentences."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        text = str(error)
        if "not a database" in text or "malformed" in text or "encrypted" in text:
            raise LibraryError(f"{label} is damaged, or no library ({text}); pass another one.") from None
        if "locked" in text:
            raise LibraryError(f"{label} was kept busy by another program for {_WAIT_S:g} s; try again when that is done.") from None
        if "unable to open" in text or "readonly" in text:
            raise LibraryError(f"{label} cannot be written ({text}); pass one in a folder that can be.") from None
        if "full" in text or "disk I/O" in text:
            raise LibraryError(f"{label} cannot be written ({text}); make room and run it again: what is done is kept.") from None
        raise
    except OSError as error:
        raise LibraryError(f"{label} cannot be opened ({error.strerror or error}).") from None
