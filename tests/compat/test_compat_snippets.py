"""The published usage snippets, run word for word with one line changed, beside the same snippets on `transformers`."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from helpers_compat import Side, reference
from helpers_prompt import tiny_checkpoint

# From the model cards; what stands in capitals is filled in. The card's device is "cuda" and its dtype bfloat16.
LOAD = """
IMPORTS
import torch

processor = AutoProcessor.from_pretrained(model_path)
model = AutoModelForImageTextToText.from_pretrained(
    model_path,
    torch_dtype=DTYPE,
    _attn_implementation=ATTENTION
).to("cpu")
"""

ANSWER = """
inputs = processor.apply_chat_template(
    messages,
    add_generation_prompt=True,
    tokenize=True,
    return_dict=True,
    return_tensors="pt",
).to(model.device, dtype=DTYPE)

generated_ids = model.generate(**inputs, do_sample=False, max_new_tokens=64)
generated_texts = processor.batch_decode(
    generated_ids,
    skip_special_tokens=True,
)
"""

IMAGE = (
    LOAD
    + """
messages = [
    {
        "role": "user",
        "content": [
            {"type": "image", "url": photo_path},
            {"type": "text", "text": "Can you describe this image?"},
        ]
    },
]
"""
    + ANSWER
)

VIDEO = (
    LOAD
    + """
messages = [
    {
        "role": "user",
        "content": [
            {"type": "video", "path": video_path},
            {"type": "text", "text": "Describe this video in detail"}
        ]
    },
]
"""
    + ANSWER
)

SEVERAL = (
    LOAD
    + """
messages = [
    {
        "role": "user",
        "content": [
            {"type": "text", "text": "What is the similarity between these two images?"},
            {"type": "image", "url": photo_path},
            {"type": "image", "url": second_path},
        ]
    },
]
"""
    + ANSWER
)

OLDER = """
import torch
from PIL import Image
IMPORTS

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

image1 = Image.open(photo_path)
image2 = Image.open(second_path)

processor = AutoProcessor.from_pretrained(model_path)
model = AutoModelForImageTextToText.from_pretrained(
    model_path,
    torch_dtype=DTYPE,
    _attn_implementation="flash_attention_2" if DEVICE == "cuda" else "eager",
).to(DEVICE)

messages = [
    {
        "role": "user",
        "content": [
            {"type": "image"},
            {"type": "image"},
            {"type": "text", "text": "Can you describe the two images?"}
        ]
    },
]

prompt = processor.apply_chat_template(messages, add_generation_prompt=True)
inputs = processor(text=prompt, images=[image1, image2], return_tensors="pt")
inputs = inputs.to(DEVICE)

generated_ids = model.generate(**inputs, max_new_tokens=NEW)
generated_texts = processor.batch_decode(
    generated_ids,
    skip_special_tokens=True,
)
"""

STREAM = (
    LOAD
    + """
from threading import Thread
from transformers import TextIteratorStreamer

messages = [{"role": "user", "content": [{"type": "image", "image": Image.open(photo_path)}, {"type": "text", "text": "?"}]}]
inputs = processor.apply_chat_template([messages], add_generation_prompt=True, tokenize=True, return_dict=True,
                                       padding=True, return_tensors="pt").to(model.device, dtype=model.dtype)
streamer = TextIteratorStreamer(processor, skip_prompt=True, skip_special_tokens=True, timeout=120)
thread = Thread(target=model.generate, kwargs=dict(**inputs, streamer=streamer, max_new_tokens=12))
thread.start()
generated_texts = ["".join(streamer)]
thread.join()
generated_ids = inputs.input_ids
generated_texts += [processor.decode(inputs["input_ids"][0][-4:]), processor.tokenizer.eos_token]
"""
)

OURS = "from smolvlm import AutoProcessor, AutoModelForImageTextToText"
THEIRS = "from transformers import AutoProcessor, AutoModelForImageTextToText"


def run(
    snippet: str, imports: str, names: dict[str, Any], dtype: str = "torch.float32", attention: str = '"eager"', new: int = 64
) -> SimpleNamespace:
    code = snippet.replace("IMPORTS", imports).replace("DTYPE", dtype).replace("ATTENTION", attention)
    scope = dict(names)
    exec(compile(code.replace("NEW", str(new)), "snippet", "exec"), scope)
    return SimpleNamespace(**{name: scope[name] for name in ("inputs", "generated_ids", "generated_texts", "model")})


@pytest.fixture
def names(examples: Path) -> dict[str, Any]:
    from PIL import Image

    return {
        "model_path": str(tiny_checkpoint()),
        "photo_path": str(examples / "rocket.jpg"),
        "Image": Image,
        "second_path": str(examples / "chelsea.png"),
        "video_path": str(examples / "bigbuckbunny.mp4"),
    }


@pytest.fixture
def on_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    """`transformers`' own loaders, but for its readers of files, which are CUDA builds here: pictures by its Pillow path,
    videos by PyAV."""
    from oracle import transformers

    side: Side = reference()
    monkeypatch.setattr(transformers.AutoProcessor, "from_pretrained", lambda *_args, **_kwargs: side.processor)


@pytest.mark.parametrize("snippet", [IMAGE, VIDEO, SEVERAL, OLDER, STREAM], ids=["image", "video", "several", "older", "stream"])
def test_published_snippets_give_the_same_answers(snippet: str, names: dict[str, Any], on_reference: None) -> None:
    mine, theirs = run(snippet, OURS, names, new=16), run(snippet, THEIRS, names, new=16)
    assert list(mine.inputs) == list(theirs.inputs)
    assert torch.equal(mine.inputs["input_ids"], theirs.inputs["input_ids"])
    assert torch.equal(mine.generated_ids, theirs.generated_ids)
    assert mine.generated_texts == theirs.generated_texts
    assert mine.model.dtype == theirs.model.dtype == torch.float32
    assert mine.model.device == theirs.model.device


def test_the_card_runs_in_bfloat16_and_says_what_it_does_not_use(names: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    """Half-precision ids are not compared: two ways of adding up differ in the last bit, and equal tokens part there."""
    result = run(IMAGE, OURS, names, dtype="torch.bfloat16", attention='"flash_attention_2"')
    assert result.model.dtype == result.inputs["pixel_values"].dtype == torch.bfloat16
    assert result.model.engine.dtype == "bfloat16"
    assert result.inputs["input_ids"].dtype == torch.int64
    width = result.inputs["input_ids"].shape[1]
    assert torch.equal(result.generated_ids[:, :width], result.inputs["input_ids"])
    assert "_attn_implementation" in caplog.text


def test_a_list_of_conversations(names: dict[str, Any], on_reference: None) -> None:
    photo, second = Path(names["photo_path"]), Path(names["second_path"])
    batch = f"""
messages = [
    [{{"role": "user", "content": [{{"type": "image", "path": {str(photo)!r}}}, {{"type": "text", "text": "What?"}}]}}],
    [{{"role": "user", "content": [{{"type": "text", "text": "A longer question without a picture."}}]}}],
    [{{"role": "user", "content": [{{"type": "image", "path": {str(second)!r}}}, {{"type": "text", "text": "And?"}}]}}],
]
processor.tokenizer.padding_side = "left"
inputs = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=True, return_dict=True, padding=True,
                                       return_tensors="pt")
generated_ids = model.generate(**inputs, do_sample=False, max_new_tokens=12)
generated_texts = processor.batch_decode(generated_ids[:, inputs["input_ids"].shape[1]:], skip_special_tokens=True)
"""
    try:
        mine, theirs = run(LOAD + batch, OURS, names), run(LOAD + batch, THEIRS, names)
    finally:
        reference().processor.tokenizer.padding_side = "right"  # shared by the other tests
    assert torch.equal(mine.generated_ids, theirs.generated_ids)
    assert mine.generated_texts == theirs.generated_texts


def test_the_default_picture_path_gives_the_same_answer(names: dict[str, Any]) -> None:
    """Nothing replaced: `transformers` resizes with torchvision, a grey level away in places."""
    pictures = IMAGE.replace('{"type": "image", "url": photo_path}', '{"type": "image", "image": Image.open(photo_path)}')
    mine, theirs = run(pictures, OURS, names), run(pictures, THEIRS, names)
    assert torch.equal(mine.inputs["input_ids"], theirs.inputs["input_ids"])
    difference = (mine.inputs["pixel_values"] - theirs.inputs["pixel_values"]).abs().max()
    assert 0 < difference <= 2 * (2 / 255) + 1e-6
    assert mine.generated_ids.shape == theirs.generated_ids.shape


def test_the_folder_may_be_a_copy_of_ours_saved_elsewhere(tmp_path: Path, names: dict[str, Any]) -> None:
    folder = shutil.copytree(names["model_path"], tmp_path / "a folder with spaces")
    assert run(IMAGE, OURS, {**names, "model_path": folder}).generated_texts[0].startswith("User:")


# A tutorial's first example: a name under which nothing is published, the older class, a bare prompt in Chinese.
TUTORIAL = """
from smolvlm import AutoProcessor, AutoModelForVision2Seq
from PIL import Image

processor = AutoProcessor.from_pretrained("huggingface/smolvlm")
model = AutoModelForVision2Seq.from_pretrained("huggingface/smolvlm")

image = Image.open(photo_path)
prompt = "\u63cf\u8ff0\u8fd9\u5f20\u56fe\u7247\u7684\u5185\u5bb9"

inputs = processor(images=image, text=prompt, return_tensors="pt")

outputs = model.generate(**inputs)
answer = processor.decode(outputs[0], skip_special_tokens=True)
"""
DEMO = """
import gradio as gr

def process_image(image, question):
    inputs = processor(images=image, text=question, return_tensors="pt")
    outputs = model.generate(**inputs)
    answer = processor.decode(outputs[0], skip_special_tokens=True)
    return answer

demo = gr.Interface(
    fn=process_image,
    inputs=[gr.Image(type="pil"), gr.Textbox(label="Q")],
    outputs=gr.Textbox(label="A"),
    title="SmolVLM"
)
"""


def test_a_tutorial_with_a_name_of_its_own_and_a_bare_prompt(names: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    """Here no other checkpoint is in the cache: nano is taken, and one line says so."""
    scope = dict(names)
    exec(compile(TUTORIAL, "snippet", "exec"), scope)
    said = [record.getMessage() for record in caplog.records if "huggingface/smolvlm" in record.getMessage()]
    assert said
    assert all("no published checkpoint; the built-in nano is taken" in line for line in said)
    assert "the media go before it" in caplog.text
    processor, inputs = scope["processor"], scope["inputs"]
    marked = processor(images=scope["image"], text=f"<image>{scope['prompt']}", return_tensors="pt")
    assert torch.equal(inputs["input_ids"], marked["input_ids"])
    assert torch.equal(inputs["pixel_values"], marked["pixel_values"])
    assert inputs["input_ids"].shape[1] < scope["outputs"].shape[1] <= inputs["input_ids"].shape[1] + 20
    assert scope["answer"].endswith(processor.decode(scope["outputs"][0][inputs["input_ids"].shape[1] :], skip_special_tokens=True))
    gradio = pytest.importorskip("gradio", reason="the page's own extra")
    exec(compile(DEMO, "snippet", "exec"), scope)
    assert isinstance(scope["demo"], gradio.Interface)
    assert scope["demo"].fn(scope["image"], scope["prompt"]) == scope["answer"]


def test_a_bare_prompt_for_each_of_several(names: dict[str, Any]) -> None:
    from smolvlm import SmolVLMProcessor

    processor, image = SmolVLMProcessor.from_pretrained(names["model_path"]), names["Image"].open(names["photo_path"])
    for images in ([image, image], [[image], [image]]):
        both = processor(images=images, text=["one", "two"], padding=True, return_tensors="pt")
        marked = processor(images=images, text=["<image>one", "<image>two"], padding=True, return_tensors="pt")
        assert torch.equal(both["input_ids"], marked["input_ids"])
    two = processor(images=[image, image], text="both", return_tensors="pt")
    assert torch.equal(two["input_ids"], processor(images=[image, image], text="<image><image>both", return_tensors="pt")["input_ids"])


@pytest.mark.parametrize("name", ["AutoModelForVision2Seq", "SmolVLMForConditionalGeneration", "Idefics3ForConditionalGeneration"])
def test_older_and_chosen_class_names(name: str, names: dict[str, Any]) -> None:
    import smolvlm

    model = getattr(smolvlm, name).from_pretrained(names["model_path"], cache_dir="/nowhere", trust_remote_code=True)
    assert model.generate(input_ids=torch.tensor([[1, 5]]), max_new_tokens=1).shape == (1, 3)
