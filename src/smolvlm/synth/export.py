"""Samples as files that training reads: pictures, clips, LLaVA-style JSONL, and the mixture that names them.

    OUT/mixture.yaml            the datasets, in the schema that `smolvlm train sft` reads
    OUT/scene.jsonl             one line a sample: its files, and all its questions as turns of one conversation
    OUT/scene/000000.png        sample number 0; of a pair -1 and -2, and a clip is a .mov that loses nothing
    OUT/sheet.png               if asked for: a few samples of each generator with questions and answers

Source of the records' form: LLaVA's (`conversations` of `from` and `value`), which the authors' training code reads.
"""

from __future__ import annotations

import io
import json
import logging
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from smolvlm.errors import SynthError
from smolvlm.options.declare import check, option
from smolvlm.synth.generate import GENERATORS, VERSION, generate
from smolvlm.synth.sample import SPLITS, Sample, Split
from smolvlm.synth.sheet import Cell, contact_sheet, sample_cell
from smolvlm.synth.video_file import SUFFIX, video_bytes
from smolvlm.synth.world import SMALL, World

logger = logging.getLogger(__name__)

MIXTURE_FILE = "mixture.yaml"
SHEET_FILE = "sheet.png"
_UNFINISHED = "unfinished.part"  # everything is made in there and moved up at the end: no half of a data set is left
_SHEET_COLUMNS = 6
_MODALITIES = {"image": "image", "images": "multi-image", "video": "video"}  # as mixture files call them


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """What is drawn: `count` samples of each of `generators`, from number `first` on. Raises SynthError.

    The numbers are the seeds: the same options write the same files, and sample 7 is the same one whatever `first` is.
    sheet: write a contact sheet, too.
    """

    generators: tuple[str, ...] = tuple(GENERATORS)
    count: int = option(100, "Samples of each generator.", least=1)
    first: int = option(0, "The first number.", least=0)
    split: Split = "train"
    world: World = SMALL
    sheet: bool = False

    def __post_init__(self) -> None:
        if not self.generators or len(set(self.generators)) < len(self.generators):
            raise SynthError(f"generators={self.generators!r}: expected at least one, and each of them once.")
        if unknown := [name for name in self.generators if name not in GENERATORS]:
            raise SynthError(f"no generator is called {unknown[0]!r}; there are {', '.join(GENERATORS)}.")
        if self.split not in SPLITS:
            raise SynthError(f"no split is called {self.split!r}; there are {', '.join(SPLITS)}.")
        check(self, SynthError)


@dataclass(frozen=True)
class Exported:
    """mixture: the file to train with. sheet: None where none was asked for."""

    mixture: Path
    sheet: Path | None
    samples: int
    questions: int


def export(out: Path, options: ExportOptions | None = None, *, on_progress: Callable[[str, int, int], None] | None = None) -> Exported:
    """Write a data set into the new or empty folder `out`: all of it, or nothing.

    `on_progress("samples", done, total)` is called after each sample. Raises SynthError for a folder that holds anything
    and for one that cannot be written.
    """
    options = options or ExportOptions()
    made = _claim(out)
    work, moved = out / _UNFINISHED, []
    try:
        questions = _write_all(work, options, on_progress)
        for path in sorted(work.iterdir(), key=lambda path: path.name == MIXTURE_FILE):  # that one, which names all, last
            moved.append(path.rename(out / path.name))
        work.rmdir()
    except BaseException as error:
        for path in (work, *moved):
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
        if made:
            with suppress(OSError):
                out.rmdir()
        if isinstance(error, OSError):
            raise SynthError(f"{out}: cannot be written ({error.strerror or error}); nothing of it was kept.") from None
        raise
    sheet = out / SHEET_FILE if options.sheet else None
    return Exported(out / MIXTURE_FILE, sheet, len(options.generators) * options.count, questions)


def record_of(sample: Sample, name: str, files: Sequence[str]) -> dict[str, Any]:
    """The sample as LLaVA's JSON object; `files` are its pictures, or its one clip, as the reader will find them."""
    kind = "video" if sample.kind == "video" else "image"
    turns: list[dict[str, str]] = []
    for question in sample.questions:
        markers = "" if turns else f"<{kind}>\n" * len(files)
        turns += [{"from": "human", "value": markers + question.text}, {"from": "gpt", "value": question.answer}]
    return {"id": name, kind: files[0] if len(files) == 1 else list(files), "conversations": turns}


def _claim(out: Path) -> bool:
    """Begin in a new or empty folder; whether it had to be made. Raises SynthError."""
    try:
        made = not out.exists()
        if not made and (not out.is_dir() or any(out.iterdir())):
            what = "is not empty" if out.is_dir() else "is a file"
            raise SynthError(f"{out} {what}, and nothing there is touched; name a new folder.")
        (out / _UNFINISHED).mkdir(parents=True)
    except OSError as error:
        raise SynthError(f"{out}: cannot be made ({error.strerror or error}); name another folder.") from None
    return made


def _write_all(folder: Path, options: ExportOptions, on_progress: Callable[[str, int, int], None] | None) -> int:
    """Everything into `folder`; the number of questions comes back. Raises OSError."""
    total = len(options.generators) * options.count
    cells: list[Cell] = []
    modalities: dict[str, str] = {}
    done = questions = 0
    for generator in options.generators:
        (folder / generator).mkdir()
        with (folder / f"{generator}.jsonl").open("w", encoding="utf-8") as table:
            for number in range(options.first, options.first + options.count):
                sample = generate(generator, options.split, number, options.world)
                files = _write_media(sample, folder, f"{generator}/{number:06d}")
                record = record_of(sample, f"{generator}-{options.split}-{number}", files)
                table.write(json.dumps(record, ensure_ascii=False) + "\n")
                modality = modalities.setdefault(generator, _MODALITIES[sample.kind])
                assert modality == _MODALITIES[sample.kind], f"{generator} draws samples of one kind"
                if options.sheet and number - options.first < _SHEET_COLUMNS:
                    cells.append(sample_cell(sample))
                done, questions = done + 1, questions + len(sample.questions)
                if on_progress is not None:
                    on_progress("samples", done, total)
        logger.info("%s: %d samples", generator, options.count)
    (folder / MIXTURE_FILE).write_text(_mixture(options, modalities), encoding="utf-8")
    if cells:
        page = contact_sheet(cells, columns=min(_SHEET_COLUMNS, options.count))
        (folder / SHEET_FILE).write_bytes(_png(page))
    return questions


def _write_media(sample: Sample, folder: Path, stem: str) -> list[str]:
    """Write the sample's pictures or its clip; their names relative to `folder` come back, with slashes everywhere."""
    if sample.kind == "video":
        files = {f"{stem}{SUFFIX}": video_bytes(sample)}
    else:
        ends = [""] if len(sample.frames) == 1 else [f"-{number}" for number in range(1, len(sample.frames) + 1)]
        files = {f"{stem}{end}.png": _png(Image.fromarray(frame)) for end, frame in zip(ends, sample.frames, strict=True)}
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return list(files)


def _png(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "png")
    return file.getvalue()


def _mixture(options: ExportOptions, modalities: dict[str, str]) -> str:
    """The mixture file's text. All that is put in are our own plain words, which YAML takes as they are."""
    last = options.first + options.count - 1
    lines = [
        f"# smolvlm synth, version {VERSION}: split {options.split}, world {options.world.name}, "
        f"samples {options.first} to {last} of each generator",
        "datasets:",
    ]
    for name, modality in modalities.items():
        lines += [
            f"  - name: {name}",
            "    path: .",
            f"    json_path: {name}.jsonl",
            f"    modality: {modality}",
            "    sampling_strategy: all",
        ]
    return "\n".join(lines) + "\n"
