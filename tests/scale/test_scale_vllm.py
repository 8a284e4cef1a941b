"""What we save has what vLLM's SmolVLM loader reads.

vLLM cannot be installed here; `docs/scale.md` names the public sources that this list was read from: it takes
`SmolVLMProcessor`, `AutoConfig` and `AutoTokenizer` of `transformers` and safetensors, all of which run here.
"""

from __future__ import annotations

import json
from pathlib import Path

import oracle  # noqa: F401  (before transformers)
import pytest
from safetensors import safe_open
from transformers import AutoConfig, AutoTokenizer, GenerationConfig, SmolVLMProcessor

from smolvlm.checkpoint.random import write_random_checkpoint
from smolvlm.hub import resolve

FILES = ("config.json", "generation_config.json", "preprocessor_config.json", "processor_config.json", "tokenizer.json",
         "tokenizer_config.json", "chat_template.json")  # fmt: skip


@pytest.fixture(params=["nano", "tiny"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The shipped model, and a checkpoint fresh from `write_checkpoint`."""
    return resolve("nano") if request.param == "nano" else write_random_checkpoint(tmp_path / "tiny", "tiny")


def test_every_file_is_there(folder: Path) -> None:
    assert set(FILES) <= {path.name for path in folder.iterdir()}
    assert list(folder.glob("*.safetensors"))


def test_the_config_names_the_architecture_that_vllm_registers(folder: Path) -> None:
    config = AutoConfig.from_pretrained(folder)
    assert (config.model_type, config.architectures) == ("smolvlm", ["SmolVLMForConditionalGeneration"])
    assert config.text_config.model_type == "llama"  # vLLM builds its own Llama from this part
    for name in (
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "image_size",
        "patch_size",
    ):
        assert getattr(config.vision_config, name) > 0  # its Idefics2 vision tower
    assert config.scale_factor > 0
    assert config.image_token_id == AutoTokenizer.from_pretrained(folder).convert_tokens_to_ids("<image>")


def test_the_processor_has_what_its_prompt_code_reads(folder: Path) -> None:
    processor = SmolVLMProcessor.from_pretrained(folder)
    for token in (processor.image_token, processor.fake_image_token, processor.global_image_token):
        assert processor.tokenizer.convert_tokens_to_ids(token) not in (None, processor.tokenizer.unk_token_id)
    longest, tile = (
        processor.image_processor.size["longest_edge"],
        processor.image_processor.max_image_size["longest_edge"],
    )
    assert longest % tile == 0  # it asserts so
    side = AutoConfig.from_pretrained(folder).vision_config
    factor = AutoConfig.from_pretrained(folder).scale_factor
    assert processor.image_seq_len == (side.image_size // side.patch_size // factor) ** 2


def test_the_chat_template_is_found_by_processor_and_tokenizer(folder: Path) -> None:
    processor = SmolVLMProcessor.from_pretrained(folder)
    messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is it?"}]}]
    text = processor.apply_chat_template(messages, add_generation_prompt=True)
    assert text.count("<image>") == 1
    assert text.endswith("Assistant:")
    assert json.loads((folder / "chat_template.json").read_text())["chat_template"] == processor.chat_template
    assert AutoTokenizer.from_pretrained(folder).chat_template is not None


def test_generation_stops_where_the_model_stops(folder: Path) -> None:
    stops = GenerationConfig.from_pretrained(folder).eos_token_id
    ends = stops if isinstance(stops, list) else [stops]
    assert AutoTokenizer.from_pretrained(folder).convert_tokens_to_ids("<end_of_utterance>") in ends


def test_the_weights_have_the_names_that_are_mapped(folder: Path) -> None:
    """vLLM's loader knows these prefixes, as `transformers` writes them, and the output layer."""
    names: set[str] = set()
    for file in folder.glob("*.safetensors"):
        with safe_open(file, framework="np") as tensors:
            names |= set(tensors.keys())
    assert {".".join(name.split(".")[:2]) for name in names} <= {
        "model.vision_model", "model.connector", "model.text_model", "lm_head.weight"}  # fmt: skip
    tied = AutoConfig.from_pretrained(folder).text_config.tie_word_embeddings  # where vLLM looks
    assert ("lm_head.weight" in names) != tied
