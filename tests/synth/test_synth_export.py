"""What `smolvlm synth` writes: training reads every record of it, pixels, times and answers are the generators' own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import typer
import yaml
from PIL import Image
from typer.testing import CliRunner

from smolvlm.cli.synth import SynthCommand, synth
from smolvlm.config import preset, processor_preset
from smolvlm.errors import SynthError
from smolvlm.media.video import sample_video
from smolvlm.options.media import MediaOptions
from smolvlm.processor import Processor
from smolvlm.synth.export import Exported, ExportOptions, export
from smolvlm.synth.generate import GENERATORS, generate
from smolvlm.synth.sample import Sample
from smolvlm.synth.sheet import Cell, Line, contact_sheet
from smolvlm.synth.world import WIDE
from smolvlm.train.conversation import ConversationEncoder, Encoded
from smolvlm.train.mixture import Mixture, read_mixture

CLIPS = ("clip", "room_clip")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Samples 3 to 5 of every generator."""
    return export(tmp_path_factory.mktemp("synth") / "data", ExportOptions(count=3, first=3, sheet=True))


def rows(exported: Exported, generator: str) -> list[dict[str, Any]]:
    text = (exported.mixture.parent / f"{generator}.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def drawn(generator: str) -> list[Sample]:
    return [generate(generator, "train", number) for number in (3, 4, 5)]


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_training_takes_every_record(exported: Exported, tiny_checkpoint: Path) -> None:
    """Mixture, records and encoder as `smolvlm train sft` uses them: nothing is skipped, nothing is cut."""
    mixture = Mixture.from_file(exported.mixture)
    assert len(mixture) == exported.samples == 3 * len(GENERATORS)
    encoder = ConversationEncoder(Processor.from_folder(tiny_checkpoint), 8192, MediaOptions(detail="low"))
    tokenizer, answers = encoder.processor.tokenizer, 0
    for number in range(len(mixture)):
        record = mixture.record(number)
        encoded = encoder(record)
        assert isinstance(encoded, Encoded), encoded
        assert not encoded.cut
        sample = generate(record.where.partition(",")[0], "train", 3 + number % 3)
        learned = encoded.example.labels[encoded.example.labels >= 0]
        stops = int((learned == encoder.processor.model.eos_token_ids[0]).sum())
        assert stops == len(sample.questions)
        words = tokenizer.decode([int(t) for t in learned])
        assert [w for q in sample.questions for w in q.answer.split()] == words.replace("<end_of_utterance>", " ").split()
        assert len(encoded.example.tiles) == len(sample.frames)
        answers += stops
    assert answers == exported.questions


def test_the_mixture_has_the_published_keys(exported: Exported) -> None:
    raw = yaml.safe_load(exported.mixture.read_text(encoding="utf-8"))
    assert [set(entry) for entry in raw["datasets"]] == [{"name", "path", "json_path", "modality", "sampling_strategy"}] * len(GENERATORS)
    modalities = {entry.name: entry.modality for entry in read_mixture(exported.mixture)}
    assert list(modalities) == list(GENERATORS)
    assert {name for name, modality in modalities.items() if modality == "video"} == set(CLIPS)
    assert {name for name, modality in modalities.items() if modality == "multi-image"} == {"pair"}


@pytest.mark.parametrize("generator", [name for name in GENERATORS if name not in CLIPS])
def test_pictures_and_turns_are_the_samples(exported: Exported, generator: str) -> None:
    for row, sample in zip(rows(exported, generator), drawn(generator), strict=True):
        names = row["image"] if isinstance(row["image"], list) else [row["image"]]
        for name, frame in zip(names, sample.frames, strict=True):
            with Image.open(exported.mixture.parent / name) as picture:
                np.testing.assert_array_equal(np.asarray(picture), frame)
        values = [turn["value"] for turn in row["conversations"]]
        assert values[0].startswith("<image>\n" * len(names) + sample.questions[0].text)
        assert sum(value.count("<image>") for value in values) == len(names)
        assert [value.replace("<image>\n", "") for value in values[::2]] == [q.text for q in sample.questions]
        assert values[1::2] == [q.answer for q in sample.questions]
        assert [turn["from"] for turn in row["conversations"]] == ["human", "gpt"] * len(sample.questions)


@pytest.mark.parametrize("generator", CLIPS)
def test_clips_keep_their_pixels_and_times(exported: Exported, generator: str) -> None:
    """Read back by our sampler and, frame by frame, by PyAV itself."""
    config = processor_preset(preset("nano"))
    for row, sample in zip(rows(exported, generator), drawn(generator), strict=True):
        path = exported.mixture.parent / row["video"]
        read = sample_video(path, config)
        assert (read.timestamps_s, read.duration_s) == (sample.timestamps_s, sample.duration_s)
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            frames = list(container.decode(stream))
            times = [float(frame.pts * stream.time_base) for frame in frames]
        assert times == pytest.approx(sample.timestamps_s, abs=1e-3)
        for frame, expected in zip(frames, sample.frames, strict=True):
            np.testing.assert_array_equal(frame.to_ndarray(format="rgb24"), expected)


def test_the_same_options_write_the_same_bytes(tmp_path: Path) -> None:
    options = ExportOptions(generators=("part", "clip", "pair"), count=2, sheet=True)
    (tmp_path / "b").mkdir()  # an empty folder is as good as none
    done = []
    for name in "ab":
        export(tmp_path / name, options, on_progress=lambda *now: done.append(now))
    first = files_of(tmp_path / "a")
    assert first == files_of(tmp_path / "b")
    assert len(first) == 1 + 3 + 2 + 2 + 4 + 1  # mixture, tables, parts, clips, pairs, sheet
    assert done == [("samples", n, 6) for n in range(1, 7)] * 2
    later = export(tmp_path / "c", ExportOptions(generators=("part",), count=1, first=1))
    assert later.sheet is None
    assert files_of(tmp_path / "c")["part/000001.png"] == first["part/000001.png"]
    seen = [first["part/000000.png"]]
    for number, other in enumerate(({"split": "test"}, {"world": WIDE})):
        export(tmp_path / f"other{number}", ExportOptions(**({"generators": ("part",), "count": 1} | other)))
        seen.append(files_of(tmp_path / f"other{number}")["part/000000.png"])
    assert len(set(seen)) == 3


def test_nothing_of_the_users_is_touched_and_no_half_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "notes.txt").write_text("do not lose me")
    options = ExportOptions(generators=("note", "chart"), count=3)
    for folder, message in ((mine, "is not empty"), (mine / "notes.txt", "is a file"), (tmp_path / ("x" * 300), "cannot be made")):
        with pytest.raises(SynthError, match=message):
            export(folder, options)
    assert files_of(mine) == {"notes.txt": b"do not lose me"}

    def full_disk(self: Path, content: bytes) -> int:
        if self.name == "000001.png" and self.parent.name == "chart":
            raise OSError(28, "No space left on device")
        with self.open("wb") as file:
            return file.write(content)

    monkeypatch.setattr(Path, "write_bytes", full_disk)
    (tmp_path / "there").mkdir()
    for folder in (tmp_path / "new", tmp_path / "there"):
        with pytest.raises(SynthError, match="No space left on device\\); nothing of it was kept"):
            export(folder, options)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "there"]
    assert not any((tmp_path / "there").iterdir())


def test_an_interrupt_while_files_are_moved_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rename = Path.rename

    def interrupted(self: Path, target: Path) -> Path:
        if self.name == "mixture.yaml":
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        export(tmp_path / "new", ExportOptions(generators=("note", "chart"), count=1))
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"generators": ("scene", "dream")}, "no generator is called 'dream'; there are scene, writing"),
        ({"generators": ()}, "at least one"),
        ({"generators": ("scene", "scene")}, "each of them once"),
        ({"split": "tests"}, "no split is called 'tests'"),
        ({"count": 0}, "count=0: expected a whole number of at least 1"),
        ({"first": -1}, "first=-1"),
    ],
)
def test_bad_options_are_named(given: dict[str, Any], message: str) -> None:
    with pytest.raises(SynthError, match=message):
        ExportOptions(**given)


def test_the_sheet_shows_each_picture_whole_with_its_text() -> None:
    """Two cells by hand: red over green text, and a blue picture half as high as the cell."""
    cells = [Cell(Image.new("RGB", (40, 40), (255, 0, 0)), (Line("yes " * 30, "good"),)), Cell(Image.new("RGB", (60, 30), (0, 0, 255)))]
    page = np.asarray(contact_sheet(cells, columns=2, cell_px=80)).astype(int)
    assert page.shape[1] == 10 + 2 * 90
    red, blue = (page == (255, 0, 0)).all(2), (page == (0, 0, 255)).all(2)
    assert (red.sum(), blue.sum()) == (80 * 80, 80 * 40)
    green = (page[..., 1] > page[..., 0] + 40) & (page[..., 1] > page[..., 2] + 20)
    text_rows, text_columns = np.nonzero(green)
    assert text_rows.min() > np.nonzero(red)[0].max()
    assert text_rows.max() > text_rows.min() + 4 * 17  # "yes" thirty times is wrapped
    assert text_columns.max() < 10 + 80


def test_the_sheet_of_an_export(exported: Exported) -> None:
    assert exported.sheet is not None
    with Image.open(exported.sheet) as sheet:
        assert sheet.width == 10 + 3 * 202  # three samples of each generator, a row each
        assert sheet.height > len(GENERATORS) * 202


def test_the_command(tmp_path: Path) -> None:
    app = typer.Typer(rich_markup_mode=None)
    app.command("synth", cls=SynthCommand)(synth)
    run = CliRunner()
    out = tmp_path / "data"
    command = [
        str(out),
        "--generator",
        "note",
        "--generator",
        "chart",
        "--count",
        "2",
        "--first",
        "7",
        "--split",
        "test",
        "--world",
        "wide",
        "--sheet",
    ]
    result = run.invoke(app, command)
    assert result.exit_code == 0, result.output
    assert str(out) in result.output
    assert "4 samples with 10 questions" in result.output
    expected = ExportOptions(generators=("note", "chart"), count=2, first=7, split="test", world=WIDE, sheet=True)
    export(tmp_path / "by_library", expected)
    assert files_of(out) == files_of(tmp_path / "by_library")
    assert isinstance(run.invoke(app, command).exception, SynthError)  # not empty any more
    assert "is not one of small, wide" in run.invoke(app, [str(tmp_path / "new"), "--world", "huge"]).output
    help_page = " ".join(run.invoke(app, ["--help"]).output.replace(",", " ").split())
    assert all(f" {name} " in help_page for name in GENERATORS if name != "room_clip")
    assert "room_clip;" in help_page
    assert "[default: 100]" in help_page
