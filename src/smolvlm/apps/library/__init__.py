"""The library: one SQLite file in which applications keep what a model has said about files.

    PART = Part("camera", ("CREATE TABLE camera_events (...)", "ALTER TABLE camera_events ADD ..."))

    with Library.open(path, [PART]) as library:          # None: the user's own library; made where there is none
        medium = library.medium("match.mp4")             # by content: a moved or renamed file is the same medium
        maker = library.maker(app="camera", model="nano", fingerprint="...", prompt="...", options={"fps": 1})
        with library.write() as rows:                    # one transaction: all of it, or nothing
            rows.execute("INSERT INTO camera_events ...", (...,))
        library.rows("SELECT ... FROM camera_events WHERE start_s > ?", (3.0,))

Rules: an application's tables carry its name and are made by its own `Part`, whose migrations are numbered by their place and
only ever appended. Times are seconds as REAL. For search, make a table `USING fts5(text, tokenize = 'porter unicode61')`, write
`searchable(text)` into it and ask it with `match_query(query)`: both split Chinese and Japanese into characters. A long run holds
`library.run_lock("videos")`, so that a second one is refused by a sentence; short writes need no lock.
"""

from smolvlm.apps.library.files import content_hash
from smolvlm.apps.library.lock import RunLock
from smolvlm.apps.library.place import default_path
from smolvlm.apps.library.store import Library, Maker, Medium
from smolvlm.apps.library.tables import Part
from smolvlm.apps.library.words import is_common, match_query, query_words, searchable
from smolvlm.apps.library.writing import check_free, write_file

__all__ = [
    "Library",
    "Maker",
    "Medium",
    "Part",
    "RunLock",
    "check_free",
    "content_hash",
    "default_path",
    "is_common",
    "match_query",
    "query_words",
    "searchable",
    "write_file",
]
