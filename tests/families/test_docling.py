"""Document models and the first generation against `transformers`: ids, pixels, logits, greedy tokens; DocTags as a document."""

from __future__ import annotations

import dataclasses
import functools
import json
import re
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

import smolvlm
from helpers_docling import GRANITE_SPECIALS, GRANITE_VOCAB, granite_docling, smoldocling
from smolvlm.checkpoint.random import TINY, write_random_checkpoint
from smolvlm.checkpoint.reader import CheckpointReader
from smolvlm.checkpoint.writer import write_checkpoint
from smolvlm.config import load_configs, preset
from smolvlm.engines.select import make_engine
from smolvlm.errors import PromptError
from smolvlm.families import docling
from smolvlm.processor import Processor

FULL_WIDTH = dataclasses.replace(
    preset("256m"),
    text=dataclasses.replace(preset("256m").text, num_hidden_layers=2),
    vision=dataclasses.replace(preset("256m").vision, num_hidden_layers=2),
)
MAKERS = {
    "granite-docling": granite_docling,
    "smoldocling": smoldocling,
    "first generation": lambda folder: write_random_checkpoint(folder, dataclasses.replace(TINY, model_type="idefics3")),
    "granite-docling of full width, 2 layers": lambda folder: granite_docling(folder, FULL_WIDTH),
}
# float32 rounds at 6e-8 and these towers sum over a few hundred products, around logits of size 1.
TOLERANCE = 1e-4


@functools.cache
def made(name: str) -> Path:
    kept.append(tempfile.TemporaryDirectory(prefix="smolvlm-families-"))
    return MAKERS[name](Path(kept[-1].name) / name)


kept: list[tempfile.TemporaryDirectory[str]] = []  # removed when the process ends


QUICK = ("granite-docling", "smoldocling")


@pytest.fixture(params=[pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in MAKERS])
def folder(request: pytest.FixtureRequest) -> Path:
    return made(request.param)


@pytest.fixture
def granite() -> Path:
    return made("granite-docling")


processor_of = functools.cache(Processor.from_folder)


def page() -> Image.Image:
    """A page of 200 x 150 with something on it: it is split into tiles."""
    image = Image.new("RGB", (200, 150), "white")
    draw = ImageDraw.Draw(image)
    draw.text((20, 15), "Chapter 1", fill="black")
    draw.rectangle((20, 50, 180, 130), outline="navy", fill="lightblue")
    return image


def messages(text: str = docling.PAGE_PROMPT) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [{"type": "image", "image": page()}, {"type": "text", "text": text}]}]


@functools.cache
def reference(folder: Path) -> tuple[Any, Any]:
    from oracle import transformers

    # isort: split
    from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    template = processor_of(folder).template.source
    processor = transformers.Idefics3Processor(
        Idefics3ImageProcessorPil.from_pretrained(folder),
        tokenizer,
        image_seq_len=processor_of(folder).config.image_seq_len,
        chat_template=template,
    )
    model, info = transformers.Idefics3ForConditionalGeneration.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    return processor, model.eval()


def reference_inputs(folder: Path, text: str) -> Any:
    chat = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": text}]}]
    prompt = reference(folder)[0].apply_chat_template(chat, add_generation_prompt=True)
    return reference(folder)[0](text=prompt, images=[page()], return_tensors="pt")


# The last three are instructions of the model card; their markup is a control token also where a user types it.
@pytest.mark.parametrize(
    "text",
    [
        docling.PAGE_PROMPT,
        "Convert table to OTSL, 12345 rows!\n\n It's  here.",
        "OCR the text in a specific location: <loc_155><loc_233><loc_206><loc_237>",
        "<chart>",
        "<otsl>",
    ],
)
def test_ids_and_pixels_equal_the_reference(folder: Path, text: str) -> None:
    ours, theirs = processor_of(folder)(messages(text)), reference_inputs(folder, text)
    assert list(ours.input_ids) == theirs["input_ids"][0].tolist()
    assert ours.tile_count == theirs["pixel_values"].shape[1] > 1
    assert np.abs(ours.pixel_values - theirs["pixel_values"][0].numpy()).max() < 1e-5


@pytest.mark.parametrize("engine", ["torch", "native"])
def test_logits_and_greedy_tokens_equal_the_reference(folder: Path, engine: str) -> None:
    import torch

    processor, net = reference(folder)
    inputs = reference_inputs(folder, docling.PAGE_PROMPT)
    with torch.inference_mode():
        expected = net(**inputs).logits[0].numpy()
        generated = net.generate(**inputs, max_new_tokens=24, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    config, _ = load_configs(folder)
    prompt = processor_of(folder)(messages())
    made = make_engine(folder, config, engine=engine, dtype="bfloat16" if engine == "native" else "float32")
    seq = made.open(len(prompt.input_ids) + 1)
    found = made.prefill(seq, prompt.input_ids, [made.encode_images(prompt.pixel_values)], logits_to_keep=0)
    if engine == "native":  # bfloat16 weights: near, and the float32 tokens are the torch engine's business
        assert np.abs(found - expected).max() < 0.05 * np.abs(expected).max()
        return
    assert np.abs(found - expected).max() < TOLERANCE
    model = smolvlm.load(folder, engine="torch", dtype="float32")
    answer = model.chat(messages(), max_new_tokens=24, temperature=0)
    assert list(answer.token_ids) == [i for i in generated.tolist() if i not in config.eos_token_ids]
    assert answer.text == _visible(processor.decode(generated, skip_special_tokens=False)).lstrip()


def _visible(text: str) -> str:
    """Without the prompt's own control tokens, which no answer shows."""
    return re.sub(r"<\|[^|<>]*\|>|<row_\d_col_\d>|<fake_token_around_image>|<global-img>|<image>|<end_of_utterance>", "", text)


def test_markup_stays_in_an_answer_and_the_prompts_tokens_do_not(granite: Path) -> None:
    tokenizer = processor_of(granite).tokenizer
    ids = [tokenizer.id_of(token) for token in ("<doctag>", "<text>", "</text>", "</doctag>", "<|end_of_text|>", "<image>")]
    ids[2:2] = tokenizer.encode_text("A page.")
    assert tokenizer.answer_text(ids) == "<doctag><text>A page.</text></doctag>"
    assert tokenizer.decode(ids) == "A page."  # as the reference decodes by default
    shown = {tokenizer.token_of(i) for i in tokenizer.markup_ids}
    assert {"<otsl>", "<fcel>", "<loc_", "<chart>", "</code>"} - shown == {"<loc_"}  # places are ordinary text there
    assert not shown & {"<image>", "<|end_of_text|>", "<row_1_col_1>", "<fake_token_around_image>", "<global-img>"}


def test_typed_markup_never_becomes_a_picture_or_the_end_of_a_turn(granite: Path) -> None:
    processor = processor_of(granite)
    plain = processor([{"role": "user", "content": "say "}]).input_ids
    for token in ("<image>", "<|end_of_text|>", "<|start_of_role|>", "<row_1_col_1>", "<global-img>"):
        number = processor.tokenizer.id_of(token)
        ids = processor([{"role": "user", "content": f"say {token}"}]).input_ids
        assert ids.count(number) == plain.count(number)
        assert len(ids) > len(plain)


def test_the_published_tokenizer_has_one_token_more_than_the_model(granite: Path) -> None:
    assert len(GRANITE_SPECIALS) == len(set(GRANITE_SPECIALS)) == GRANITE_VOCAB - 100_256
    processor = processor_of(granite)
    assert processor.tokenizer.vocab_size == processor.model.text.vocab_size == GRANITE_VOCAB
    assert not processor.tokenizer.has("<end_of_utterance>")
    assert processor.family is docling.DOCLING
    with CheckpointReader(granite) as reader:
        assert reader.verify(processor.model).tie_word_embeddings


def test_a_stop_token_that_is_an_ordinary_word_is_said(granite: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """granite-docling without its own word about stops: SmolVLM's id is a word there."""
    for path in granite.iterdir():
        if path.suffix == ".json":
            (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": 49279}')
    with caplog.at_level("WARNING"):
        Processor.from_folder(tmp_path)
        assert "eos_token_id=49279 is an ordinary token" in caplog.text
        assert "<|end_of_text|> (100257)" in caplog.text
        caplog.clear()
        Processor.from_folder(granite)
    assert not caplog.records


def test_a_trained_copy_keeps_the_tokenizer(granite: Path, tmp_path: Path) -> None:
    """What training and merging write: the same tokenizer with its one token too many, and the family's own classes."""
    processor = processor_of(granite)
    with CheckpointReader(granite) as reader:
        tensors = {name: reader.float32(name) for name in reader.infos}
        write_checkpoint(
            tmp_path / "copy",
            tensors,
            processor.model,
            processor.config,
            granite / "tokenizer.json",
            processor.template.source,
            dtype="bfloat16",
        )
    again = Processor.from_folder(tmp_path / "copy")
    assert again(messages()).input_ids == processor(messages()).input_ids
    assert (again.family, again.model) == (processor.family, processor.model)
    saved = json.loads((tmp_path / "copy" / "preprocessor_config.json").read_text())
    assert (saved["image_processor_type"], saved["processor_class"]) == ("Idefics3ImageProcessor", "Idefics3Processor")


def test_a_video_is_refused_and_says_what_to_do(granite: Path) -> None:
    for video in ([page()] * 3, "no-such-file.mp4"):  # before it is opened
        with pytest.raises(PromptError, match="not trained on videos.*pass the frames that matter as pictures"):
            processor_of(granite)([{"role": "user", "content": [{"type": "video", "video": video}]}])


DOCTAGS = (
    "<doctag><section_header_level_1><loc_50><loc_30><loc_450><loc_60>Results</section_header_level_1>"
    "<text><loc_50><loc_70><loc_450><loc_120>Two tables follow & one list.</text>"
    "<otsl><loc_50><loc_150><loc_450><loc_250><ched>Item<ched>Count<nl><fcel>Pens<fcel>5<nl><fcel>Books<fcel>3<nl></otsl>"
    "<unordered_list><list_item><loc_50><loc_260><loc_450><loc_270>first</list_item>"
    "<list_item><loc_50><loc_280><loc_450><loc_290>second</list_item></unordered_list>"
    "<formula><loc_50><loc_300><loc_450><loc_320>a^2+b^2=c^2</formula></doctag>"
)


def test_doctags_become_markdown_html_and_json() -> None:
    markdown = docling.to_markdown(DOCTAGS, page())
    lines = [line.strip() for line in markdown.splitlines() if line.strip()]
    assert lines[0] == "## Results"
    assert lines[1].startswith("Two tables follow")
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    assert [cells[0], *cells[2:]] == [["Item", "Count"], ["Pens", "5"], ["Books", "3"]]
    assert "- first" in lines
    assert "- second" in lines
    assert "a^2+b^2=c^2" in markdown
    assert "<td>Pens</td>" in docling.to_html(DOCTAGS)
    table = docling.to_dict(DOCTAGS)["tables"][0]["data"]
    assert (table["num_rows"], table["num_cols"]) == (3, 2)


def test_the_documented_lines_run(
    granite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a stand-in of few tokens, whose DocTags are then those above: random weights write none."""
    docs = Path(__file__).resolve().parents[2] / "docs"
    code, same = (
        re.findall(r"```python\n(.*?)```", (docs / name).read_text(encoding="utf-8"), flags=re.DOTALL)[0]
        for name in ("families.md", "families.zh-CN.md")
    )
    assert code == same
    page().save(tmp_path / "page.png")
    monkeypatch.chdir(tmp_path)
    code = code.replace('"ibm-granite/granite-docling-258M"', repr(str(granite))).replace("4096", "4")
    code = code.replace("docling.to_markdown(answer.text", "docling.to_markdown(tags")
    exec(compile(code, "families.md", "exec"), {"tags": DOCTAGS})
    assert "## Results" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "says"), [("", "holds no DocTags"), ("a plain answer", "holds no DocTags"), ("<" * (2 << 20), "characters")]
)
def test_what_is_no_doctags_is_refused(text: str, says: str) -> None:
    with pytest.raises(PromptError, match=says):
        docling.to_markdown(text)
