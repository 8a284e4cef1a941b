"""How files of pictures and videos are named. What a file is, its content says: names matter only where there is no file."""

from __future__ import annotations

from pathlib import PurePath

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".heic", ".heif", ".avif", ".apng", ".jp2", ".ppm")
VIDEO_SUFFIXES = (
    ".mp4",
    ".mov",
    ".mkv",
    ".webm",
    ".avi",
    ".m4v",
    ".mpg",
    ".mpeg",
    ".ts",
    ".m2ts",
    ".mts",
    ".wmv",
    ".flv",
    ".ogv",
    ".3gp",
    ".vob",
    ".mxf",
)
_RAW_SUFFIXES = (".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf")  # beside each lies its JPEG, mostly


def named_like_media(name: str) -> bool:
    """Whether `name` is one word that ends as a picture's or a video's file name does."""
    return len(name.split()) == 1 and PurePath(name).suffix.lower() in (*IMAGE_SUFFIXES, *VIDEO_SUFFIXES, *_RAW_SUFFIXES)
