"""Tables and their migrations: each application brings a `Part`; what is on disk knows how far each part has come."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

from smolvlm.errors import LibraryError


@dataclass(frozen=True)
class Part:
    """One application's tables. `migrations[n]` are the SQL statements that lead from version n to n + 1: append, never edit."""

    name: str
    migrations: tuple[str, ...]


# What all applications share. A medium is a content; a place is where it was seen last.
LIBRARY = Part(
    "library",
    (
        """
        CREATE TABLE media (
            id INTEGER PRIMARY KEY,
            hash TEXT NOT NULL UNIQUE,
            bytes INTEGER NOT NULL,
            added_at REAL NOT NULL
        );
        CREATE TABLE places (
            path TEXT PRIMARY KEY,
            medium_id INTEGER NOT NULL REFERENCES media (id) ON DELETE CASCADE,
            bytes INTEGER NOT NULL,
            mtime_ns INTEGER NOT NULL,
            seen_at REAL NOT NULL
        );
        CREATE INDEX places_of_medium ON places (medium_id, seen_at);
        CREATE TABLE makers (
            id INTEGER PRIMARY KEY,
            app TEXT NOT NULL,
            model TEXT NOT NULL,
            fingerprint TEXT NOT NULL,
            prompt TEXT NOT NULL,
            options TEXT NOT NULL,
            UNIQUE (app, fingerprint, prompt, options)
        );
        """,
    ),
)


def migrate(connection: sqlite3.Connection, parts: Sequence[Part], label: str) -> None:
    """Bring each part to its newest version, in one transaction a part. Raises LibraryError for a newer one on disk."""
    connection.execute("CREATE TABLE IF NOT EXISTS parts (name TEXT PRIMARY KEY, version INTEGER NOT NULL)")
    for part in (LIBRARY, *parts):
        if _version(connection, part, label) == len(part.migrations):
            continue
        connection.execute("BEGIN IMMEDIATE")
        try:
            for number in range(_version(connection, part, label), len(part.migrations)):  # again: another process may have come first
                for statement in _statements(part.migrations[number]):
                    connection.execute(statement)
                connection.execute("INSERT OR REPLACE INTO parts VALUES (?, ?)", (part.name, number + 1))
            connection.execute("COMMIT")
        except BaseException:
            connection.execute("ROLLBACK")
            raise


def check_versions(connection: sqlite3.Connection, parts: Sequence[Part], label: str) -> None:
    """Raises LibraryError where a library that cannot be written lacks tables that are needed."""
    for part in (LIBRARY, *parts):
        if _version(connection, part, label) != len(part.migrations):
            raise LibraryError(f"{label} has no tables of this version for {part.name}, and cannot be written; make it writable once.")


def _version(connection: sqlite3.Connection, part: Part, label: str) -> int:
    row = connection.execute("SELECT version FROM parts WHERE name = ?", (part.name,)).fetchone()
    version = int(row[0]) if row else 0
    if version > len(part.migrations):
        raise LibraryError(f"{label} was written by a newer version of smolvlm; update it, or pass another library.")
    return version


def _statements(script: str) -> list[str]:
    """Single statements: `executescript` would commit between them."""
    found, held = [], ""
    for piece in script.split(";"):
        held += piece + ";"
        if sqlite3.complete_statement(held):
            if held.strip() != ";":
                found.append(held)
            held = ""
    return found
