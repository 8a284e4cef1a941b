"""Files that people take for pictures and that are something else: what they are, and what to do."""

from __future__ import annotations

READABLE = "JPEG, PNG, GIF, WebP, BMP, TIFF, PPM, ICO, JPEG 2000, AVIF and, with the `heic` extra, HEIC"

_SAVE = "save it as JPEG or PNG first"
_BINARY = (
    (b"\xff\x0a", "a JPEG XL picture", _SAVE), (b"\0\0\0\x0cJXL \r\n\x87\n", "a JPEG XL picture", _SAVE),
    (b"8BPS", "a Photoshop document", _SAVE), (b"gimp xcf", "a GIMP document", _SAVE),
    (b"%PDF-", "a PDF document", "render its pages as PNG first"),
    (b"%!PS", "a PostScript file", "render it as PNG first"),
    (b"II\xbc\x01", "a JPEG XR picture", _SAVE), (b"\x76\x2f\x31\x01", "an OpenEXR picture", _SAVE),
    (b"#?RADIANCE", "a Radiance HDR picture", _SAVE), (b"DDS ", "a DDS texture", _SAVE), (b"qoif", "a QOI picture", _SAVE),
    (b"PK\x03\x04", "a ZIP archive or an office document", "unpack it first"), (b"\x1f\x8b", "a gzip archive", "unpack it first"),
    (b"version https://git-lfs", "a pointer of Git LFS", "fetch the file itself by `git lfs pull`"),
    (b"\x1a\x45\xdf\xa3", "a Matroska video", "pass it as a video"), (b"FLV\x01", "a Flash video", "pass it as a video"),
)  # fmt: skip


def what_instead(head: bytes) -> str:
    """" (it is ...: do ...)" for a file that starts like this, where that can be told, else nothing."""
    for magic, what, remedy in _BINARY:
        if head.startswith(magic):
            return f" (it is {what}: {remedy})"
    if head[4:8] in (b"ftyp", b"moov") or (head[:4] == b"RIFF" and head[8:12] == b"AVI "):
        return " (it is a video: pass it as a video)"
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<svg", b"<?xml", b"<!doctype svg")):
        return " (it is a drawing or a document in XML, such as SVG: render it as PNG first)"
    if text.startswith((b"<!doctype html", b"<html")):
        return " (it is a web page: download the picture itself)"
    return ""
