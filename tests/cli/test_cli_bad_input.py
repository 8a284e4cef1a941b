"""Each bad input of the list ends in exit code 2, one sentence on stderr, nothing on stdout, no file left behind."""

from __future__ import annotations

import json
import re
import shutil
import struct
import zlib
from pathlib import Path

import av
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from helpers_cli import CLIP, ROCKET
from smolvlm.cli.flags import seconds


def _png_bomb(path: Path) -> Path:
    """A header that promises 50,000 x 50,000 pixels, with next to nothing behind it."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    rows = zlib.compress(b"\0" * 1_000_000)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b""))
    return path


def _sound_only(path: Path) -> Path:
    with av.open(str(path), "w") as out:
        stream = out.add_stream("aac", rate=48000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", layout="mono")
        frame.sample_rate = 48000
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def _bad_media(kind: str, folder: Path) -> Path:
    path = folder / f"{kind.replace(' ', '-')}.jpg"
    if kind == "missing":
        return path
    if kind == "directory":
        path.mkdir()
    elif kind == "empty":
        path.touch()
    elif kind == "text named jpg":
        path.write_text("This is a note, not a photo.\n" * 20)
    elif kind == "truncated JPEG":
        path.write_bytes(ROCKET.read_bytes()[:2000])
    elif kind == "truncated MP4":
        path = path.with_suffix(".mp4")
        path.write_bytes(CLIP.read_bytes()[:5000])
    elif kind == "sound only":
        path = _sound_only(path.with_suffix(".mp4"))
    elif kind == "PNG bomb":
        path = _png_bomb(path.with_suffix(".png"))
    return path


def _bad_checkpoint(kind: str, good: Path, folder: Path) -> Path:
    broken = Path(shutil.copytree(good, folder / "broken"))
    weights = broken / "model.safetensors"
    tensors = load_file(weights)
    if kind == "missing tensor":
        del tensors["model.text_model.norm.weight"]
    elif kind == "misshapen tensor":
        tensors["model.text_model.norm.weight"] = np.ones(7, np.float32)
    if "tensor" in kind:
        save_file(tensors, weights)
    elif kind == "corrupt header":
        data = bytearray(weights.read_bytes())
        data[8:40] = b"\xff" * 32
        weights.write_bytes(data)
    elif kind == "truncated weights":
        weights.write_bytes(weights.read_bytes()[:100_000])
    elif kind == "no config":
        (broken / "config.json").unlink()
    elif kind == "config is no JSON":
        (broken / "config.json").write_text("{")
    return broken


@pytest.fixture
def refused(run, tmp_path, monkeypatch):
    """Run a command that must fail well; its one line of stderr comes back."""
    monkeypatch.chdir(tmp_path)

    def call(*args: object) -> str:
        before = sorted(tmp_path.rglob("*"))
        result = run(*args)
        assert result.code == 2, result.err
        assert result.out == ""
        assert sorted(p for p in tmp_path.rglob("*") if "hf_home" not in p.parts) == [p for p in before if "hf_home" not in p.parts]
        assert result.err.startswith("smolvlm: error: ")
        assert result.err.count("\n") == 1, result.err
        assert "Traceback" not in result.err
        return result.err

    return call


@pytest.mark.parametrize(
    "kind", ["missing", "directory", "empty", "text named jpg", "truncated JPEG", "truncated MP4", "sound only", "PNG bomb"]
)
def test_bad_media(refused, model, tmp_path, kind) -> None:
    path = _bad_media(kind, tmp_path)
    for command in (("describe", path), ("ask", ROCKET, path, "What?", "--json")):
        assert path.name in refused(*command, *model)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("missing tensor", ("missing", "model.text_model.norm.weight")),
        ("misshapen tensor", ("misshapen", "model.text_model.norm.weight")),
        ("corrupt header", ("model.safetensors", "corrupt")),
        ("truncated weights", ("model.safetensors",)),
        ("no config", ("config.json",)),
        ("config is no JSON", ("config.json",)),
    ],
)
def test_bad_checkpoint(refused, tiny_checkpoint, tmp_path, kind, words) -> None:
    broken = _bad_checkpoint(kind, tiny_checkpoint, tmp_path)
    for command in (("ask", "Hi", "--model", broken), ("info", broken)):
        message = refused(*command)
        assert all(word in message for word in words), message


@pytest.mark.parametrize("name", ["smolvlm-9000", "some/where/else", "./nowhere", "256n", "", "\0"])
def test_unknown_model(refused, name) -> None:
    refused("ask", "Hi", "--model", name)
    refused("info", name)


def test_unknown_model_gets_a_hint(refused) -> None:
    assert "256m" in refused("ask", "Hi", "--model", "256mm")


def test_prompt_beyond_the_context(refused, model) -> None:
    message = refused("ask", "word " * 9000, *model)
    assert "8191" in message or "8192" in message


@pytest.mark.parametrize("content", ["", "   ", "{}", "[]", "nonsense", '{"type": "object", "properties": 3}'])
def test_bad_schema(refused, model, tmp_path, content) -> None:
    path = tmp_path / "wanted.json"
    path.write_text(content)
    message = refused("extract", ROCKET, "--schema", path, *model)
    assert "wanted.json" in message
    assert not re.search(r"dict|list|pydantic", message)  # words of Python
    assert "wanted.json" in refused("extract", ROCKET, "--schema", path, *model)


def test_missing_schema(refused, model, tmp_path) -> None:
    assert "none.json" in refused("extract", ROCKET, "--schema", tmp_path / "none.json", *model)


@pytest.mark.parametrize("options", [[], ["--option", ""], ["--option", "yes", "--option", " "], ["--option", "yes", "--option", "yes"]])
def test_bad_options(refused, model, options) -> None:
    assert "option" in refused("choose", ROCKET, "A rocket?", *options, *model)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["ask"], "PROMPT"),
        (["ask", str(ROCKET)], "last argument is the prompt"),
        (["ask", "https://example.com/photo.jpg"], "last argument is the prompt"),
        (["ask", "Hi", "--stream", "--json"], "exclude each other"),
        (["ask", "Hi", "--max-new-tokens", "0"], "--max-new-tokens 0"),
        (["ask", "Hi", "--max-new-tokens", "many"], "--max-new-tokens"),
        (["ask", "Hi", "--temperature", "nan"], "temperature"),
        (["ask", "Hi", "--top-p", "2"], "--top-p 2"),
        (["ask", "Hi", "--fps", "-1"], "fps"),
        (["ask", "Hi", "--start", "yesterday"], "no time"),
        (["ask", "Hi", "--start", "9", "--end", "0:05"], "--end 5"),
        (["ask", "Hi", "--detail", "best"], "--detail best"),
        (["ask", "Hi", "--stop", ""], "stop"),
        (["ask", "Hi", "--no-such-option"], "--no-such-option"),
        (["aks", "Hi"], "'aks'"),
        (["extract", "photo.jpg"], "--schema"),
    ],
)
def test_usage(refused, args, words) -> None:
    assert words in refused(*args)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["ask", str(ROCKET), "nofile.png"], "'nofile.png': no such file"),
        (["ask", "nofile.JPG"], "'nofile.JPG': no such file"),
        (["ask", "nofile.mp4", "What?"], "nofile.mp4: no such file"),
        (["ask", str(ROCKET), "trip/clip.MOV", "What?"], "trip/clip.MOV: no such file"),
        (["choose", str(ROCKET), "*.heic", "--option", "yes"], "no such file"),
        (["describe", str(ROCKET), "nofile.webm"], "nofile.webm: no such file"),
        (["ask", str(ROCKET), "What?", "--as", "video"], "rocket.jpg is a picture, not a video as --as video says"),
        (["ask", str(CLIP), "What?", "--as", "image"], "bigbuckbunny.mp4 is a video, not a picture as --as image says"),
        (["ask", str(CLIP), "What?", "--start", "999"], "--start 999 is past its end"),
        (["synth", "scene.png"], "name it 'scene'"),
    ],
)
def test_what_newcomers_type(refused, model, args, words) -> None:
    assert words in refused(*args, *(model if args[0] != "synth" else ()))


def test_a_name_that_begins_with_a_dash(refused, run, model, tmp_path) -> None:
    shutil.copy(ROCKET, tmp_path / "-b.jpg")
    message = refused("ask", "-b.jpg", "What?", *model)
    assert "passed as ./-b.jpg" in message
    assert run("ask", "./-b.jpg", "What?", *model, "--max-new-tokens", 1, "--detail", "low").code == 0


def test_a_question_may_end_like_a_file_name(run, model) -> None:
    for question in ("What is in photo.jpg", "What is a .png", "Node.js?"):
        assert run("ask", ROCKET, question, *model, "--max-new-tokens", 1, "--detail", "low").code == 0


def test_what_has_no_effect_is_said(run, model) -> None:
    short = (*model, "--max-new-tokens", 1, "--detail", "low")
    idle = run("ask", ROCKET, "What?", *short, "--fps", 2, "--max-frames", 3)
    assert "smolvlm: --fps and --max-frames are for videos, and none is given: without effect." in idle.err
    for args in (("ask", CLIP, "What?", *short, "--fps", 0.5), ("ask", ROCKET, "What?", *short, "--sampling", "official")):
        assert "without effect" not in run(*args).err
    alone = run("choose", ROCKET, "A rocket?", "--option", "yes", *model)
    assert "a single --option always gets 100 %" in alone.err
    assert "a single" not in run("choose", ROCKET, "A rocket?", "--option", "yes", "--option", "no", *model).err


def test_flags_are_named_once(run, model, tmp_path) -> None:
    """The library's words for an option become the flag, not the flag twice."""
    clip = tmp_path / "hdr.mp4"
    with av.open(str(clip), "w") as out:
        stream = out.add_stream("libx264", rate=5)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.color_trc, stream.codec_context.color_primaries = 18, 9  # HLG, BT.2020
        for _ in range(5):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), "rgb24")))
        out.mux(stream.encode(None))
    lines = run("ask", clip, "What?", *model, "--max-new-tokens", 1).err.splitlines()
    assert [line for line in lines if line.endswith("so they look washed out; pass --tone-map auto to convert them.")], lines


@pytest.mark.parametrize(
    ("flag", "value"),
    [("--engine", "steam"), ("--device", "abacus"), ("--device", "cuda:99"), ("--dtype", "int3"), ("--prompt-style", "rude")],
)
def test_unknown_engine_device_dtype_style(refused, tiny_checkpoint, flag, value) -> None:
    assert value in refused("ask", "Hi", "--model", tiny_checkpoint, flag, value)


def test_file_names_cannot_write_to_the_terminal(refused, model, tmp_path) -> None:
    path = tmp_path / "a\x1b[31m\nb.jpg"
    path.write_text("no photo")
    for command in (["describe", path], ["extract", ROCKET, "--schema", path]):
        assert "\x1b" not in refused(*command, *model)


def test_debug_shows_the_traceback_and_the_same_line(run, model, tmp_path, monkeypatch) -> None:
    result = run("--debug", "describe", tmp_path / "none.jpg", *model)
    assert result.code == 2
    assert "Traceback" in result.err
    assert result.err.splitlines()[-1].startswith("smolvlm: error: ")
    monkeypatch.setenv("SMOLVLM_DEBUG", "1")
    assert "Traceback" not in run("--version").err


def test_unknown_keys_of_a_checkpoint_are_said(run, tiny_checkpoint, tmp_path) -> None:
    odd = Path(shutil.copytree(tiny_checkpoint, tmp_path / "odd"))
    config = json.loads((odd / "config.json").read_text())
    (odd / "config.json").write_text(json.dumps(config | {"flux_capacitor": 1}))
    result = run("info", odd)
    assert result.code == 0
    assert "smolvlm: config.json: unknown keys are not used: flux_capacitor\n" in result.err


@pytest.mark.parametrize(
    ("text", "value"), [("0", 0), ("12.5", 12.5), ("1:30", 90), ("0:01:30.5", 90.5), ("10:00:00", 36000), ("90:00", 5400)]
)
def test_times(text, value) -> None:
    assert seconds(text) == value


@pytest.mark.parametrize("text", ["", ":", "1:", "-1", "1:60", "0:60:00", "1:2:3:4", "nan", "inf", "1.5:00", "x"])
def test_bad_times(text) -> None:
    with pytest.raises(Exception, match="is no time"):
        seconds(text)
