"""What `finetune` understands of a user's data: each form by hand, and clear words for what it cannot read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from smolvlm.errors import MixtureError
from smolvlm.train.finetune_data import understand


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two pictures and something that is called a video; nothing here is opened, so one of them may be no picture."""
    root = tmp_path / "data"
    (root / "sub").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(root / "a.png")
    (root / "sub" / "b.jpg").write_bytes(b"not a picture")
    (root / "clip.mp4").write_bytes(b"not a video")
    return root


def turns(question: str, answer: str) -> list[dict[str, str]]:
    return [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]


@pytest.mark.parametrize(
    ("row", "media", "conversation"),
    [
        ({"image": "a.png", "question": "What?", "answer": "This."}, {"image": "a.png"}, turns("<image>\nWhat?", "This.")),
        ({"file_name": "a.png", "text": "A thing."}, {"image": "a.png"}, turns("<image>\nDescribe this.", "A thing.")),
        ({"video": "clip.mp4", "prompt": "Who?", "label": True}, {"video": "clip.mp4"}, turns("<video>\nWho?", "yes")),
        (
            {"images": ["a.png", "sub/b.jpg"], "question": "Same?", "answer": 2},
            {"image": ["a.png", "sub/b.jpg"]},
            turns("<image>\n<image>\nSame?", "2"),
        ),
        ({"question": "1+1?", "response": "2"}, {}, turns("1+1?", "2")),
        ({"image": "a.png", "question": "What is <image>?", "answer": "x"}, {"image": "a.png"}, turns("<image>\nWhat is ?", "x")),
        (
            {"image": "a.png", "prompt": "Fields?", "output": {"total": "3"}},
            {"image": "a.png"},
            turns("<image>\nFields?", '{"total": "3"}'),
        ),
        (
            {"image": "a.png", "conversations": turns("Look: <image> What?", "This.")},
            {"image": "a.png"},
            turns("Look: <image> What?", "This."),
        ),
        ({"image": "a.png", "conversations": turns("What?", "This.")}, {"image": "a.png"}, turns("<image>\nWhat?", "This.")),
        (
            {
                "images": ["a.png"],
                "messages": [
                    {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What?"}]},
                    {"role": "assistant", "content": "This."},
                ],
            },
            {"image": "a.png"},
            turns("<image>\nWhat?", "This."),
        ),
    ],
)
def test_the_forms_of_a_record(photos: Path, row: Any, media: dict[str, Any], conversation: Any) -> None:
    (photos / "data.jsonl").write_text("\n" + json.dumps(row) + "\n\n")
    found = understand(photos / "data.jsonl")

    def absolute(value: Any) -> Any:
        return [absolute(v) for v in value] if isinstance(value, list) else str((photos / value).resolve())

    assert found.records == [{"conversations": conversation, **{k: absolute(v) for k, v in media.items()}}]
    assert found.validation is None
    (photos / "data.json").write_text(json.dumps([row]))
    assert understand(photos / "data.json").records == found.records


def test_csv_and_metadata_files(photos: Path) -> None:
    (photos / "metadata.csv").write_text('\ufefffile_name,question,answer\na.png,"What, then?",dent\nsub/b.jpg,,scratch\n')
    found = understand(photos, question="Which fault?")
    assert [r["conversations"][0]["value"] for r in found.records] == ["<image>\nWhat, then?", "<image>\nWhich fault?"]
    assert [r["conversations"][1]["value"] for r in found.records] == ["dent", "scratch"]
    assert "metadata.csv" in found.form


def test_a_folder_a_class(tmp_path: Path) -> None:
    for name, count in (("good_part", 3), ("dent", 2), (".hidden", 1)):
        (tmp_path / name).mkdir()
        for i in range(count):
            (tmp_path / name / f"{i}.png").write_bytes(b"")
    (tmp_path / "dent" / "notes.md").write_text("not a picture")
    found = understand(tmp_path)
    assert found.form.startswith("a folder a class (dent 2, good part 3)")
    assert [r["conversations"][1]["value"] for r in found.records] == ["dent"] * 2 + ["good part"] * 3
    assert found.records[0]["conversations"][0]["value"] == "<image>\nWhich of these does it show: dent, good part?"
    assert understand(tmp_path, question="Fault?").records[0]["conversations"][0]["value"] == "<image>\nFault?"


def test_captions_beside_the_pictures_and_splits(tmp_path: Path) -> None:
    for split, count in (("train", 3), ("val", 1)):
        (tmp_path / split).mkdir()
        for i in range(count):
            (tmp_path / split / f"{i}.jpg").write_bytes(b"")
            (tmp_path / split / f"{i}.txt").write_text(f"{split} {i}\n")
    found = understand(tmp_path)
    assert [r["conversations"][1]["value"] for r in found.records] == ["train 0", "train 1", "train 2"]
    assert found.validation is not None
    assert [r["conversations"][1]["value"] for r in found.validation] == ["val 0"]
    assert found.form.startswith("train/ and val/: files with a .txt")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2: not JSON"),
        ("[1]", "line 2: expected an object"),
        ('{"image": "a.png"}', "line 2: no answer; expected one of the keys answer"),
        ('{"answer": "x"}', "line 2: no question"),
        ('{"image": "a.png", "answer": "  "}', "line 2: no answer"),
        ('{"image": "gone.png", "answer": "x"}', "gone.png: no such file"),
        ('{"image": 3, "answer": "x"}', "'image' holds a int"),
        ('{"image": "a.png\\u0000", "answer": "x"}', "'image' holds a str"),
        ('{"image": "data.jsonl", "answer": "x"}', "neither a picture .* nor a video"),
        ('{"image": "a.png", "conversations": [{"from": "human", "value": "What?"}]}', "does not end with an answer"),
        ('{"image": "a.png", "conversations": [{"from": "robot", "value": "What?"}]}', "must be a list of"),
        (
            '{"image": "a.png", "conversations": [{"from": "human", "value": "<image><image>"}, {"from": "gpt", "value": "x"}]}',
            "the text has 2 <image> and 0 <video>, but the record has 1 pictures and 0 videos",
        ),
        ('{"messages": "hello"}', "messages must be a list"),
        ('{"messages": [{"role": "user", "content": [{"type": "audio"}]}]}', "neither text, image nor video"),
    ],
)
def test_a_bad_record_is_named_by_its_line(photos: Path, line: str, message: str) -> None:
    path = photos / "data.jsonl"
    path.write_text('{"question": "fine?", "answer": "yes"}\n' + line + "\n")
    with pytest.raises(MixtureError, match=message) as error:
        understand(path)
    assert str(path) in str(error.value)


def test_what_is_no_data_at_all(photos: Path, tmp_path: Path) -> None:
    for path, message in (
        (tmp_path / "gone", "no such file or folder"),
        (photos, "not understood; expected metadata.jsonl"),
        (photos / "a.png", "expected a .jsonl, .json or .csv file"),
    ):
        with pytest.raises(MixtureError, match=message):
            understand(path)
    (photos / "empty.jsonl").write_text("\n\n")
    with pytest.raises(MixtureError, match="holds no examples"):
        understand(photos / "empty.jsonl")
    (photos / "bytes.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(MixtureError, match="cannot be read"):
        understand(photos / "bytes.jsonl")
    (photos / "deep.jsonl").write_text("[" * 100_000)
    with pytest.raises(MixtureError, match="not JSON"):
        understand(photos / "deep.jsonl")
