"""The tables of the video index, in the library that applications share."""

from __future__ import annotations

from smolvlm.apps.library import Part

# A run is one video under one maker (model, prompt, options). A window's `number` counts within its run, in order of time;
# `last_frame_s` is where a killed run goes on. `loudness_db` is the RMS level of its sound, NULL without sound. `features` is an
# `Encoded` in its file format; `video_moments` are the windows without it. The words of a window lie in `video_words` under its id.
VIDEOS = Part(
    "videos",
    (
        """
        CREATE TABLE video_runs (
            id INTEGER PRIMARY KEY,
            medium_id INTEGER NOT NULL REFERENCES media (id) ON DELETE CASCADE,
            maker_id INTEGER NOT NULL REFERENCES makers (id) ON DELETE CASCADE,
            duration_s REAL NOT NULL,
            width INTEGER NOT NULL,
            height INTEGER NOT NULL,
            fps REAL NOT NULL,
            has_sound INTEGER NOT NULL,
            done_at REAL,
            warnings TEXT NOT NULL DEFAULT '[]',
            UNIQUE (medium_id, maker_id)
        );
        CREATE TABLE video_windows (
            id INTEGER PRIMARY KEY,
            run_id INTEGER NOT NULL REFERENCES video_runs (id) ON DELETE CASCADE,
            number INTEGER NOT NULL,
            shot INTEGER NOT NULL,
            start_s REAL NOT NULL,
            end_s REAL NOT NULL,
            last_frame_s REAL NOT NULL,
            frame_times_s TEXT NOT NULL,
            caption TEXT NOT NULL,
            logprob REAL NOT NULL,
            tags TEXT NOT NULL,
            loudness_db REAL,
            features BLOB,
            UNIQUE (run_id, number)
        );
        CREATE TABLE video_subtitles (
            id INTEGER PRIMARY KEY,
            medium_id INTEGER NOT NULL REFERENCES media (id) ON DELETE CASCADE,
            source TEXT NOT NULL,
            start_s REAL NOT NULL,
            end_s REAL NOT NULL,
            text TEXT NOT NULL
        );
        CREATE INDEX video_subtitles_of_medium ON video_subtitles (medium_id, start_s);
        CREATE VIEW video_moments AS SELECT id, run_id, number, shot, start_s, end_s, frame_times_s, caption, logprob, tags, loudness_db
            FROM video_windows;
        CREATE VIRTUAL TABLE video_words USING fts5(caption, tags, spoken, tokenize = 'porter unicode61');
        """,
    ),
)
APP = "videos"
