"""A user's own data, in whatever form it lies there -> records of a mixture, and a sentence on what was understood.

A record is LLaVA's: `{"image": path or list, "video": path, "conversations": [{"from": "human", "value": ...}, ...]}`,
with one `<image>` or `<video>` in the text for each file. Paths are absolute.
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from smolvlm.errors import MixtureError
from smolvlm.media.suffixes import IMAGE_SUFFIXES, VIDEO_SUFFIXES

RawRecord: TypeAlias = dict[str, Any]

DESCRIBE = "Describe this."
CHOOSE = "Which of these does it show: {options}?"

_QUESTION = ("question", "prompt", "query", "instruction")
_ANSWER = ("answer", "response", "output", "completion", "caption", "label", "text")
_FILE = ("image", "images", "video", "file_name", "image_path", "video_path", "path", "file")
_METADATA = ("metadata.jsonl", "metadata.csv")
_SPLITS = ("validation", "valid", "val", "test")
_ROLES = {"user": "human", "human": "human", "assistant": "gpt", "gpt": "gpt", "system": "system"}


@dataclass(frozen=True)
class Understood:
    """What was found. `validation` is what the data themselves set apart (None: nothing); `form` says how it was read."""

    records: list[RawRecord]
    validation: list[RawRecord] | None
    form: str


def understand(data: str | Path, *, question: str | None = None) -> Understood:
    """Read DATA: a JSONL, JSON or CSV file, or a folder in one of the forms that `read_folder` knows.

    `question` is asked about records that bring none. Raises MixtureError, naming the file and the line, for data that
    cannot be understood or are empty. No picture is opened.
    """
    path = Path(data).expanduser()
    try:
        if path.is_dir():
            found = read_folder(path, question)
        elif path.is_file():
            found = Understood(read_table(path, path.parent, question), None, f"{path.name}: one example a record")
        else:
            raise MixtureError(f"{path}: no such file or folder; pass a JSONL or CSV file, or a folder of pictures.")
    except (OSError, UnicodeDecodeError, ValueError, RecursionError, csv.Error) as error:
        if isinstance(error, MixtureError):
            raise
        raise MixtureError(f"{path}: cannot be read ({error}).") from None
    if not found.records:
        raise MixtureError(f"{path}: holds no examples.")
    return found


def read_folder(folder: Path, question: str | None) -> Understood:
    """One of: `metadata.jsonl` or `metadata.csv` beside the files (as Hugging Face's imagefolder); `train` and
    `validation` folders; a folder a class; files with a .txt of the same name each."""
    folders = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    table = next((folder / name for name in _METADATA if (folder / name).is_file()), None)
    if table is not None:
        return Understood(read_table(table, folder, question), None, f"{table.name}: one example a line")
    split = next((p for name in _SPLITS for p in folders if p.name.lower() == name), None)
    train = next((p for p in folders if p.name.lower() in ("train", "training")), None)
    if train is not None:
        inner = read_folder(train, question)
        held_out = None if split is None else read_folder(split, question).records
        where = f"{train.name}/" if split is None else f"{train.name}/ and {split.name}/"
        return Understood(inner.records, held_out, f"{where}: {inner.form}")
    classes = {p.name: files for p in folders if (files := _media(p))}
    if len(classes) > 1:
        return _classes(classes, question)
    captions = {p: p.with_suffix(".txt") for p in _media(folder) if p.with_suffix(".txt").is_file()}
    if captions:
        asked = question or DESCRIBE
        records = [_record([p], asked, text.read_text(encoding="utf-8").strip(), text) for p, text in captions.items()]
        return Understood(records, None, f"files with a .txt of the same name; asked: {asked!r}")
    raise MixtureError(
        f"{folder}: not understood; expected metadata.jsonl or metadata.csv, one folder for each class (at "
        "least two, with pictures or videos in them), or pictures with a .txt of the same name."
    )


def read_table(path: Path, root: Path, question: str | None) -> list[RawRecord]:
    """The records of a .jsonl, .json (a list) or .csv file; media paths are relative to `root` or absolute."""
    return [_from_row(row, root, question, where) for where, row in read_rows(path)]


def read_rows(path: Path) -> Iterable[tuple[str, Any]]:
    """(file and line, value) of each record of a .jsonl, .json or .csv file. MixtureError for what cannot be parsed."""
    suffix = path.suffix.lower()
    if suffix == ".csv":
        with path.open(encoding="utf-8-sig", newline="") as file:
            for number, row in enumerate(csv.DictReader(file), start=2):
                yield f"{path}, line {number}", {k: v for k, v in row.items() if k is not None and v not in (None, "")}
    elif suffix in (".jsonl", ".ndjson"):
        with path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield f"{path}, line {number}", _json(line, f"{path}, line {number}")
    elif suffix == ".json":
        whole = _json(path.read_text(encoding="utf-8-sig"), str(path))
        if not isinstance(whole, list):
            raise MixtureError(f"{path}: expected a list of records.")
        for number, row in enumerate(whole):
            yield f"{path}, record {number}", row
    else:
        raise MixtureError(f"{path}: expected a .jsonl, .json or .csv file, or a folder.")


def _json(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise MixtureError(f"{where}: not JSON ({error}).") from None


def _from_row(row: Any, root: Path, question: str | None, where: str) -> RawRecord:
    if not isinstance(row, Mapping):
        raise MixtureError(f"{where}: expected an object with an answer and an image, a video or a question.")
    files = media_files(row, root, where)
    if "conversations" in row:  # LLaVA's own form: the markers stand where its author put them
        return to_record(files, row["conversations"], where)
    if "messages" in row:
        return to_record(files, from_messages(row["messages"], where), where)
    answer = next((row[key] for key in _ANSWER if row.get(key) is not None), None)
    asked = next((row[key] for key in _QUESTION if row.get(key) is not None), question)
    if isinstance(answer, bool | int | float):
        answer = ("yes" if answer else "no") if isinstance(answer, bool) else str(answer)
    if isinstance(answer, Mapping | list):
        answer = json.dumps(answer, ensure_ascii=False)  # a document's fields
    if not isinstance(answer, str) or not answer.strip():
        raise MixtureError(f"{where}: no answer; expected one of the keys {', '.join(_ANSWER)}, or conversations.")
    if asked is None and files:
        asked = DESCRIBE
    if not isinstance(asked, str) or not asked.strip():
        raise MixtureError(f"{where}: no question; expected one of the keys {', '.join(_QUESTION)}.")
    return _record(files, asked.strip(), answer.strip(), where)


def media_files(row: Mapping[str, Any], root: Path, where: str) -> list[Path]:
    """The pictures and videos that a record names, absolute and there. Raises MixtureError."""
    found: list[Path] = []
    for key in _FILE:
        value = row.get(key)
        if value is None or value == []:
            continue
        for item in value if isinstance(value, list) else [value]:
            if not isinstance(item, str) or not item or "\0" in item:
                raise MixtureError(f"{where}: {key!r} holds a {type(item).__name__}; expected the path of a file.")
            path = root / Path(item).expanduser()
            if not path.is_file():
                raise MixtureError(f"{where}: {item}: no such file (looked in {root}).")
            _kind(path, where)
            found.append(path.resolve())
    return list(dict.fromkeys(found)) if len({k for k in _FILE if row.get(k)}) > 1 else found


def _kind(path: Path, where: object) -> str:
    suffix = path.suffix.lower()
    if suffix in IMAGE_SUFFIXES:
        return "image"
    if suffix in VIDEO_SUFFIXES:
        return "video"
    raise MixtureError(
        f"{where}: {path.name} is neither a picture ({', '.join(IMAGE_SUFFIXES[:4])}, ...) nor a video "
        f"({', '.join(VIDEO_SUFFIXES[:4])}, ...) by its name."
    )


def _media(folder: Path) -> list[Path]:
    """The pictures and videos right inside a folder, by name."""
    kinds = (*IMAGE_SUFFIXES, *VIDEO_SUFFIXES)
    return sorted(p.resolve() for p in folder.iterdir() if p.suffix.lower() in kinds and p.is_file() and not p.name.startswith("."))


def _classes(classes: Mapping[str, list[Path]], question: str | None) -> Understood:
    names = {name: " ".join(name.replace("_", " ").split()) for name in classes}
    if len(set(names.values())) < len(names):
        raise MixtureError(f"two of the folders name the same class: {', '.join(sorted(classes))}.")
    asked = question or CHOOSE.format(options=", ".join(names.values()))
    records = [_record([p], asked, names[name], p) for name, files in classes.items() for p in files]
    counts = ", ".join(f"{names[name]} {len(files)}" for name, files in classes.items())
    return Understood(records, None, f"a folder a class ({counts}); asked: {asked!r}")


def _record(files: list[Path], question: str, answer: str, where: object) -> RawRecord:
    if not answer:
        raise MixtureError(f"{where}: the answer is empty.")
    # A question's own text may spell a marker: only those that we write in front stand for files.
    text = question.replace("<image>", "").replace("<video>", "").strip()
    markers = "".join(f"<{_kind(path, where)}>\n" for path in files)
    turns = [{"from": "human", "value": markers + text}, {"from": "gpt", "value": answer}]
    return to_record(files, turns, where)


def to_record(files: list[Path], turns: Any, where: object) -> RawRecord:
    """Turns in LLaVA's form and their files as a record; markers are put in front where the turns have none at all."""
    if not isinstance(turns, list) or not all(
        isinstance(t, Mapping) and t.get("from") in _ROLES and isinstance(t.get("value"), str) for t in turns
    ):
        raise MixtureError(f'{where}: conversations must be a list of {{"from": "human" or "gpt", "value": ...}}.')
    if not turns or _ROLES[turns[-1]["from"]] != "gpt" or not turns[-1]["value"].strip():
        raise MixtureError(f"{where}: the conversation does not end with an answer.")
    record: RawRecord = {"conversations": [{"from": _ROLES[t["from"]], "value": t["value"]} for t in turns]}
    by_kind: dict[str, list[str]] = {}
    for path in files:
        by_kind.setdefault(_kind(path, where), []).append(str(path))
    marked = Counter({kind: sum(t["value"].count(f"<{kind}>") for t in turns) for kind in ("image", "video")})
    if all(not marked[kind] for kind in marked) and files:  # many data sets leave the markers out: media come first
        first = next(t for t in record["conversations"] if t["from"] == "human")
        first["value"] = "".join(f"<{_kind(path, where)}>\n" for path in files) + first["value"]
    elif any(marked[kind] != len(by_kind.get(kind, [])) for kind in marked):
        raise MixtureError(
            f"{where}: the text has {marked['image']} <image> and {marked['video']} <video>, but the record "
            f"has {len(by_kind.get('image', []))} pictures and {len(by_kind.get('video', []))} videos."
        )
    for kind, paths in by_kind.items():
        record[kind] = paths[0] if len(paths) == 1 else paths
    return record


def from_messages(messages: Any, where: str) -> list[dict[str, str]]:
    """`[{"role", "content"}]`, content a string or a list of text and image parts, as LLaVA's turns."""
    turns = []
    for message in messages if isinstance(messages, list) else [None]:
        role = message.get("role") if isinstance(message, Mapping) else None
        content = message.get("content") if isinstance(message, Mapping) else None
        if role not in _ROLES or not isinstance(content, str | list):
            raise MixtureError(f'{where}: messages must be a list of {{"role": ..., "content": ...}}.')
        text = content if isinstance(content, str) else "".join(_part(part, where) for part in content)
        turns.append({"from": _ROLES[role], "value": text})
    return turns


def _part(part: Any, where: str) -> str:
    kind = part.get("type") if isinstance(part, Mapping) else None
    if kind == "text" and isinstance(part.get("text"), str):
        return str(part["text"])
    if kind in ("image", "video"):
        return f"<{kind}>\n"
    raise MixtureError(f"{where}: a part of a message is neither text, image nor video.")
