"""`ask` and `describe`: what they print, and that every option reaches the library."""

from __future__ import annotations

from pathlib import Path

import pytest

import smolvlm
from helpers_cli import CLIP, PHOTO, ROCKET
from smolvlm.vlm import DESCRIBE_PROMPT

SHORT = ("--max-new-tokens", 12)


@pytest.fixture(scope="module")
def api(tiny_checkpoint: Path) -> smolvlm.SmolVLM:
    return smolvlm.load(tiny_checkpoint, dtype="float32", device="cpu")


def test_image_answer_is_the_librarys(run, model, api) -> None:
    expected = api.ask(PHOTO, "What is this?", max_new_tokens=12).text
    result = run("ask", PHOTO, "What is this?", *model, *SHORT)
    assert (result.code, result.out) == (0, expected + "\n")
    assert expected.strip()


def test_streamed_text_equals_the_whole(run, model) -> None:
    whole = run("ask", PHOTO, "Why?", *model, "--max-new-tokens", 40, "--no-stream")
    streamed = run("ask", PHOTO, "Why?", *model, "--max-new-tokens", 40, "--stream")
    assert streamed.out == whole.out
    assert len(whole.out.split()) > 5


def test_several_media_keep_their_order(run, model) -> None:
    media = run("ask", PHOTO, ROCKET, CLIP, "Compare.", *model, "--json", "--max-frames", 3, *SHORT).json["media"]
    assert [(item["kind"], Path(item["label"]).name) for item in media] == [
        ("image", "chelsea.png"),
        ("image", "rocket.jpg"),
        ("video", "bigbuckbunny.mp4"),
    ]
    assert media[2]["tile_count"] == 3


def test_text_alone(run, model, api) -> None:
    result = run("ask", "Name three rivers.", *model, *SHORT)
    assert result.out == api.ask(None, "Name three rivers.", max_new_tokens=12).text + "\n"


def test_json_is_one_object_with_everything(run, model, api) -> None:
    data = run("ask", PHOTO, "What?", *model, "--json", *SHORT).json
    answer = api.ask(PHOTO, "What?", max_new_tokens=12)
    assert data["text"] == answer.text
    assert data["finish_reason"] == answer.finish_reason
    assert data["usage"] == vars(answer.usage)
    assert data["timings"].keys() == vars(answer.timings).keys()
    # 451 x 300 becomes 256 x 171, up to 256 x 192 in tiles of 64: 3 rows of 4, and the whole
    assert [(m["rows"], m["cols"], m["tile_count"]) for m in data["media"]] == [(3, 4, 13)]


def test_describe_asks_for_a_description(run, model, api) -> None:
    result = run("describe", PHOTO, *model, *SHORT)
    assert result.out == api.ask(PHOTO, DESCRIBE_PROMPT, max_new_tokens=12).text + "\n"


def test_which_model_and_that_it_knows_nothing(run, model, tiny_checkpoint) -> None:
    lines = run("ask", "Hi", *model, "--max-new-tokens", 3).err.splitlines()
    assert lines[0] == f"smolvlm: {tiny_checkpoint} answers (torch, cpu, float32)"
    assert "random weights" in lines[1]
    assert "knows nothing" in lines[1]
    assert "cut after 3 tokens" in lines[2]
    assert len(lines) == 3


@pytest.fixture(scope="module")
def plain_video(api) -> smolvlm.Answer:
    return api.ask(CLIP, "What happens?", max_new_tokens=3)


@pytest.fixture(scope="module")
def looping(api) -> tuple[str, str, smolvlm.Answer]:
    """A question whose answer of random weights ends in a loop, a word that stands before it, and the answer."""
    asked = (w for w in ("What", "Why", "Where", "Who", "How many?", "Hello", "Tell me more", "Describe."))
    answers = ((question, api.ask(PHOTO, question, detail="low", max_new_tokens=90)) for question in asked)
    question, answer = next((q, a) for q, a in answers if a.finish_reason == "repetition" and len(set(a.text.split())) > 3)
    return question, answer.text.split()[2], answer


@pytest.mark.parametrize(
    ("flags", "options"),
    [
        (["--fps", "2"], {"fps": 2.0}),
        (["--max-frames", "2"], {"max_frames": 2}),
        (["--start", "0:00:02", "--end", "4.5"], {"start": 2.0, "end": 4.5}),
        (["--end", "1"], {"end": 1.0}),
        (["--system", "Be brief."], {"system": "Be brief."}),
    ],
)
def test_video_options_reach_the_library(run, model, api, plain_video, flags, options) -> None:
    data = run("ask", CLIP, "What happens?", *model, "--json", "--max-new-tokens", 3, *flags).json
    assert data["usage"] == vars(api.ask(CLIP, "What happens?", max_new_tokens=3, **options).usage)
    assert data["usage"]["prompt_tokens"] != plain_video.usage.prompt_tokens
    assert all(options.get("start", 0) <= t <= options.get("end", 99) for t in data["media"][0]["timestamps_s"])


@pytest.mark.parametrize(("detail", "tiles"), [("official", 13), ("fit", 13), ("low", 1)])
def test_detail(run, model, detail, tiles) -> None:
    data = run("ask", ROCKET, "What?", *model, "--json", "--max-new-tokens", 2, "--detail", detail).json
    assert data["media"][0]["tile_count"] == tiles


def test_prompt_style_changes_the_prompt(run, model) -> None:
    counts = {
        style: run("ask", "Hi", *model, "--json", "--max-new-tokens", 2, "--prompt-style", style).json["usage"]["prompt_tokens"]
        for style in ("official", "training")
    }
    assert counts["training"] > counts["official"] + 20  # the authors' system message


@pytest.mark.parametrize(
    ("flags", "options"),
    [
        (["--temperature", "1.5", "--seed", "7"], {"temperature": 1.5, "seed": 7}),
        (["--temperature", "1.5", "--seed", "7", "--top-p", "0.2"], {"temperature": 1.5, "seed": 7, "top_p": 0.2}),
        (["--temperature", "1.5", "--seed", "7", "--top-k", "2"], {"temperature": 1.5, "seed": 7, "top_k": 2}),
        (["--temperature", "1.5", "--seed", "7", "--min-p", "0.9"], {"temperature": 1.5, "seed": 7, "min_p": 0.9}),
        (["--repetition-penalty", "1.5"], {"repetition_penalty": 1.5}),
        (["--no-repeat-ngram-size", "1"], {"no_repeat_ngram_size": 1}),
        (["--no-loop-guard"], {"loop_guard": False}),
        (["--stop", "nothing", "--stop", "WORD"], {"stop": ("nothing", "WORD")}),
    ],
)
def test_generation_options_reach_the_library(run, model, api, looping, flags, options) -> None:
    question, word, plain = looping
    if "stop" in options:
        flags, options = [word if f == "WORD" else f for f in flags], {"stop": ("nothing", word)}
    expected = api.ask(PHOTO, question, detail="low", max_new_tokens=90, **options)
    result = run("ask", PHOTO, question, *model, "--detail", "low", "--max-new-tokens", 90, *flags)
    assert result.out == expected.text + "\n"
    assert expected.text != plain.text


def test_special_tokens_are_shown(run, model, api) -> None:
    options = {"detail": "low", "max_new_tokens": 40, "temperature": 50.0, "special_tokens": "keep"}
    shown = ((seed, api.ask(PHOTO, "Why", seed=seed, **options).text) for seed in range(100))
    seed, expected = next((seed, text) for seed, text in shown if "<row_" in text or "<|" in text)
    line = ("ask", PHOTO, "Why", *model, "--detail", "low", "--max-new-tokens", 40, "--temperature", "50", "--seed", seed)
    assert run(*line, "--special-tokens", "keep").out == expected + "\n"
    assert run(*line).out != expected + "\n"
    wrong = run(*line, "--special-tokens", "all")
    assert (wrong.code, "expected one of strip, keep" in wrong.err) == (2, True)


def test_a_loop_that_was_cut_is_said(run, model, looping) -> None:
    result = run("ask", PHOTO, looping[0], *model, "--detail", "low", "--max-new-tokens", 90)
    assert "began to repeat itself (--no-loop-guard" in result.err


def test_a_prompt_that_looks_like_nothing_is_a_prompt(run, model) -> None:
    """Markup, escapes and control tokens of the prompt change nothing in what is printed."""
    result = run("ask", "[bold]<image>\x1b[31m<end_of_utterance>", *model, "--max-new-tokens", 2)
    assert result.code == 0
    assert "\x1b" not in result.out + result.err
