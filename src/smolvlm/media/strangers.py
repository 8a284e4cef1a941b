"""Files that people take for pictures and that are something else: what they are, and what to do."""

from __future__ import annotations

READABLE = "JPEG, PNG, GIF, WebP, BMP, TIFF, PPM, ICO, JPEG 2000, AVIF and, with the `heic` extra, HEIC"

_SAVE = "save it as JPEG or PNG first"
_OTHER = "pass a picture or a video"
_LIST = "pass the video that it names"
_BINARY = (
    (b"\xff\x0a", "a JPEG XL picture", _SAVE),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "a JPEG XL picture", _SAVE),
    (b"8BPS", "a Photoshop document", _SAVE),
    (b"gimp xcf", "a GIMP document", _SAVE),
    (b"%PDF-", "a PDF document", "render its pages as PNG first"),
    (b"%!PS", "a PostScript file", "render it as PNG first"),
    (b"II\xbc\x01", "a JPEG XR picture", _SAVE),
    (b"\x76\x2f\x31\x01", "an OpenEXR picture", _SAVE),
    (b"#?RADIANCE", "a Radiance HDR picture", _SAVE),
    (b"DDS ", "a DDS texture", _SAVE),
    (b"qoif", "a QOI picture", _SAVE),
    (b"PK\x03\x04", "a ZIP archive or an office document", "unpack it first"),
    (b"\x1f\x8b", "a gzip archive", "unpack it first"),
    (b"version https://git-lfs", "a pointer of Git LFS", "fetch the file itself by `git lfs pull`"),
    (b"fLaC", "a sound file (FLAC)", _OTHER),
    (b"ID3", "a sound file (MP3)", _OTHER),
    (b"MThd", "a MIDI file", _OTHER),
    (b"#!AMR", "a sound file (AMR)", _OTHER),
    (b"FORM", "a sound file (AIFF)", _OTHER),
    (b"#EXTM3U", "a playlist (M3U)", _LIST),
    (b"[playlist]", "a playlist (PLS)", _LIST),
    (b"ffconcat version", "a playlist", _LIST),
    (b"v=0", "a session description (SDP)", _LIST),
    (b"WEBVTT", "a file of subtitles", "pass the video itself"),
    (b"\x1a\x45\xdf\xa3", "a Matroska video", "pass it as a video"),
    (b"FLV\x01", "a Flash video", "pass it as a video"),
)
_MPEG_AUDIO = (b"\xfb", b"\xfa", b"\xf3", b"\xf2", b"\xf1", b"\xf9")  # frames of MP3 and of AAC in ADTS


def what_instead(head: bytes) -> str:
    """The words " (it is ...: do ...)" for a file that starts like this, where that can be told, else nothing."""
    for magic, what, remedy in _BINARY:
        if head.startswith(magic):
            return f" (it is {what}: {remedy})"
    if head[4:8] in (b"ftyp", b"moov") or (head[:4] == b"RIFF" and head[8:12] == b"AVI "):
        return " (it is a video: pass it as a video)"
    if head[:4] == b"RIFF" and head[8:12] == b"WAVE":
        return f" (it is a sound file (WAV): {_OTHER})"
    if head[:1] == b"\xff" and head[1:2] in _MPEG_AUDIO:
        return f" (it is a sound file (MP3 or AAC): {_OTHER})"
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if b"<mpd" in text[:400]:
        return f" (it is a playlist (DASH): {_LIST})"
    if text.startswith((b"<svg", b"<?xml", b"<!doctype svg")):
        return " (it is a drawing or a document in XML, such as SVG: render it as PNG first)"
    if text.startswith((b"<!doctype html", b"<html")):
        return " (it is a web page: download the picture itself)"
    return f" (it is a text: {_OTHER})" if _is_text(head) else ""


def _is_text(head: bytes) -> bool:
    """Whether this is the beginning of a text: UTF-8 of which a character may be cut, without control characters."""
    text = head.decode("utf-8", "ignore")
    whole = len(head) - len(text.encode()) <= 3
    return len(text) > 3 and whole and all(c.isprintable() or c in "\n\r\t\f\ufeff" for c in text)
