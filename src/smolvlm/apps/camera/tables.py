"""The events in the library that applications share."""

from __future__ import annotations

from smolvlm.apps.library import Part

# `id` is said in every message about the event. Times are Unix time. `answers` is JSON: each question with its probabilities.
CAMERA = Part(
    "camera",
    (
        """
        CREATE TABLE camera_events (
            id TEXT PRIMARY KEY,
            maker_id INTEGER NOT NULL REFERENCES makers (id) ON DELETE CASCADE,
            camera TEXT NOT NULL,
            rule TEXT NOT NULL,
            event TEXT NOT NULL,
            time_s REAL NOT NULL,
            alert_s REAL NOT NULL,
            score REAL NOT NULL,
            answers TEXT NOT NULL,
            picture TEXT,
            clip TEXT
        );
        CREATE INDEX camera_events_by_time ON camera_events (camera, time_s);
        """,
    ),
)
APP = "camera"
