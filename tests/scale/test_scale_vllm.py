"""What we save has what vLLM's SmolVLM loader reads.

vLLM itself does not run here. `docs/scale.md` names the public sources that the expectations below were read from. It takes
`SmolVLMProcessor`, `AutoConfig` and `AutoTokenizer` of `transformers` and safetensors, all of which run here; what it computes
by itself (how many tiles a picture has, the text that stands for them, the names of its own modules) is computed here too.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import oracle  # noqa: F401  (before transformers)
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from transformers import AutoConfig, AutoTokenizer, GenerationConfig, SmolVLMProcessor

from helpers_scale import scene
from smolvlm.checkpoint.random import write_random_checkpoint
from smolvlm.config import load_configs
from smolvlm.hub import resolve
from smolvlm.nn.weights import load_model
from smolvlm.train.adapters import AdapterOptions, adapter_parameters, add_adapter, save_adapter
from smolvlm.train.finetune import FinetuneOptions, finetune
from smolvlm.train.merge import merge

FILES = (
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.json",
)
SHAPES = ((64, 64), (1280, 720), (333, 1000), (2000, 150), (511, 513))


def merged(folder: Path) -> Path:
    """nano with an adapter, as `smolvlm merge` saves it."""
    model = load_model(resolve("nano"), load_configs(resolve("nano"))[0])
    add_adapter(model, AdapterOptions(method="lora", rank=2))
    with torch.no_grad():
        for parameter in adapter_parameters(model).values():
            parameter.add_(0.01)
    return merge("nano", save_adapter(model, folder / "adapter", resolve("nano")), folder / "merged")


def finetuned(folder: Path) -> Path:
    """A run's folder after `smolvlm finetune --method full`: the checkpoint lies beside the run's own files."""
    for number in range(8):
        kind = folder / "data" / ("even" if number % 2 == 0 else "odd")
        kind.mkdir(parents=True, exist_ok=True)
        scene(number).save(kind / f"{number}.png")
    options = {
        "batch_size": 4,
        "detail": "low",
        "measure": False,
        "progress_bar": False,
        "seq_len": 512,
        "steps": 1,
        "workers": 0,
        "validation_share": 0.5,
    }
    asked = FinetuneOptions.for_method("full", model="nano", mixture=folder / "data", out=folder / "run", **options)
    result = finetune(asked).result
    assert result is not None
    return result


MAKERS = {
    "nano": lambda _: resolve("nano"),
    "fresh": lambda folder: write_random_checkpoint(folder / "fresh", "tiny"),
    "sharded": lambda folder: write_random_checkpoint(folder / "sharded", "tiny", "bfloat16", max_shard_bytes=4_000_000),
    "merged": merged,
    "finetuned": finetuned,
}


@pytest.fixture(scope="module", params=MAKERS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint from each place of ours that writes one."""
    return MAKERS[request.param](tmp_path_factory.mktemp(request.param))


@pytest.fixture
def config(folder: Path) -> Any:
    return AutoConfig.from_pretrained(folder)


@pytest.fixture
def processor(folder: Path) -> Any:
    return SmolVLMProcessor.from_pretrained(folder)


def tensors(folder: Path) -> dict[str, tuple[tuple[int, ...], str]]:
    """Name -> shape and dtype, of every safetensors file of the folder: vLLM takes them all, or those of the index."""
    found: dict[str, tuple[tuple[int, ...], str]] = {}
    for file in folder.glob("*.safetensors"):
        with safe_open(file, framework="np") as stored:
            for name in stored.keys():  # noqa: SIM118  (no mapping)
                assert name not in found, f"{name} is there twice"
                found[name] = tuple(stored.get_slice(name).get_shape()), stored.get_slice(name).get_dtype()
    return found


def modules(config: Any) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every parameter of vLLM's modules under the names that its loader maps onto them."""
    vision, text = config.vision_config, config.text_config
    wide, inner, kv = text.hidden_size, text.intermediate_size, text.num_key_value_heads * text.head_dim
    heads = text.num_attention_heads * text.head_dim
    tower, decoder = "model.vision_model", "model.text_model"
    expected: dict[str, tuple[int, ...]] = {
        f"{tower}.embeddings.patch_embedding.weight": (vision.hidden_size, 3, vision.patch_size, vision.patch_size),
        f"{tower}.embeddings.patch_embedding.bias": (vision.hidden_size,),
        f"{tower}.embeddings.position_embedding.weight": ((vision.image_size // vision.patch_size) ** 2, vision.hidden_size),
        "model.connector.modality_projection.proj.weight": (wide, vision.hidden_size * config.scale_factor**2),
        f"{decoder}.embed_tokens.weight": (text.vocab_size, wide),
        f"{decoder}.norm.weight": (wide,),
    }
    for norm in ("post_layernorm", *(f"encoder.layers.{i}.layer_norm{j}" for i in range(vision.num_hidden_layers) for j in (1, 2))):
        expected |= {f"{tower}.{norm}.{part}": (vision.hidden_size,) for part in ("weight", "bias")}
    for i in range(vision.num_hidden_layers):
        linear = {f"self_attn.{name}_proj": (vision.hidden_size, vision.hidden_size) for name in ("q", "k", "v", "out")}
        linear |= {"mlp.fc1": (vision.intermediate_size, vision.hidden_size), "mlp.fc2": (vision.hidden_size, vision.intermediate_size)}
        for name, shape in linear.items():
            expected |= {f"{tower}.encoder.layers.{i}.{name}.weight": shape, f"{tower}.encoder.layers.{i}.{name}.bias": shape[:1]}
    for i in range(text.num_hidden_layers):
        layer = {
            "self_attn.q_proj": (heads, wide),
            "self_attn.k_proj": (kv, wide),
            "self_attn.v_proj": (kv, wide),
            "self_attn.o_proj": (wide, heads),
            "mlp.gate_proj": (inner, wide),
            "mlp.up_proj": (inner, wide),
            "mlp.down_proj": (wide, inner),
            "input_layernorm": (wide,),
            "post_attention_layernorm": (wide,),
        }
        expected |= {f"{decoder}.layers.{i}.{name}.weight": shape for name, shape in layer.items()}
    if not text.tie_word_embeddings:  # it looks there, and not at the whole model's
        expected["lm_head.weight"] = (text.vocab_size, wide)
    return expected


def grid(width: int, height: int, processor: Any) -> tuple[int, int]:
    """Columns and rows of tiles that vLLM expects of a picture, from the two longest edges; (0, 0): the picture as a whole."""
    longest, tile = (processor.image_processor.size["longest_edge"], processor.image_processor.max_image_size["longest_edge"])
    short = int(longest / (max(width, height) / min(width, height)))
    short += short % 2
    sides = (longest, short) if width >= height else (short, longest)
    return (math.ceil(sides[0] / tile), math.ceil(sides[1] / tile)) if max(sides) > tile else (0, 0)


def stand_in(columns: int, rows: int, processor: Any) -> str:
    """The text that vLLM puts in place of a picture."""
    fake, image = processor.fake_image_token, processor.image_token * processor.image_seq_len
    cut = "".join("".join(f"{fake}<row_{r}_col_{c}>{image}" for c in range(1, columns + 1)) + "\n" for r in range(1, rows + 1))
    return cut + ("\n" if cut else "") + f"{fake}{processor.global_image_token}{image}{fake}"


@pytest.mark.slow
def test_every_file_is_there(folder: Path) -> None:
    assert set(FILES) <= {path.name for path in folder.iterdir()}
    index = folder / "model.safetensors.index.json"
    files = {path.name for path in folder.glob("*.safetensors")}
    listed = set(json.loads(index.read_text())["weight_map"].values()) if index.exists() else {"model.safetensors"}
    assert files == listed


def test_the_config_names_what_vllm_builds(folder: Path, config: Any) -> None:
    assert (config.model_type, config.architectures) == ("smolvlm", ["SmolVLMForConditionalGeneration"])
    assert config.text_config.model_type == "llama"
    assert config.text_config.hidden_act == "silu"  # its Llama refuses any other
    assert config.image_token_id == AutoTokenizer.from_pretrained(folder).convert_tokens_to_ids("<image>")
    assert {str(config.dtype).removeprefix("torch.")} == {
        {"BF16": "bfloat16", "F32": "float32"}[dtype] for _, dtype in tensors(folder).values()
    }  # `--dtype auto` goes by the config


def test_the_weights_fill_its_modules(folder: Path, config: Any) -> None:
    """It raises for a name that it does not know, for a parameter that no name fills, and for a shape that does not fit."""
    assert {name: shape for name, (shape, _) in tensors(folder).items()} == modules(config)


def test_the_tiles_are_as_it_counts_them(config: Any, processor: Any) -> None:
    longest, tile = (processor.image_processor.size["longest_edge"], processor.image_processor.max_image_size["longest_edge"])
    assert longest % tile == 0  # it asserts so
    assert tile == config.vision_config.image_size  # and takes pixels of no other side
    side = config.vision_config.image_size // config.vision_config.patch_size // config.scale_factor
    assert processor.image_seq_len == side**2
    for width, height in SHAPES:
        columns, rows = grid(width, height, processor)
        made = processor(text="<image>Hello.", images=[Image.new("RGB", (width, height), "red")], return_tensors="pt")
        assert made["pixel_values"].shape == (1, columns * rows + 1, 3, tile, tile), (width, height)
        assert made["pixel_attention_mask"].shape == (1, columns * rows + 1, tile, tile)
        text = stand_in(columns, rows, processor) + "Hello."
        assert made["input_ids"][0].tolist() == processor.tokenizer(text)["input_ids"]


def test_the_chat_template_is_found_by_processor_and_tokenizer(folder: Path, processor: Any) -> None:
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
