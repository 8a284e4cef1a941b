"""`smolvlm info`: what a checkpoint is, from its files alone. No weights are loaded and nothing is downloaded."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from smolvlm.cli.console import human_size, write_json, write_table
from smolvlm.cli.flags import JsonOption
from smolvlm.cli.loading import has_random_weights

if TYPE_CHECKING:
    from smolvlm.config import ModelConfig

_PARTS = (("vision", "model.vision_model."), ("connector", "model.connector."), ("text", "model.text_model."), ("lm_head", "lm_head."))


def info(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A checkpoint's folder, or the name of one on this machine.")],
    json: JsonOption = False,
) -> None:
    """Show what a checkpoint is, from its files.

    Parts and sizes, tokens a tile, context, number format, special tokens, files; nothing is downloaded.

    \b
    Examples:
      smolvlm info 256m
      smolvlm info ./my-checkpoint --json
    """
    from smolvlm import hub

    facts = _facts(model, hub.resolve(model, offline=True))
    if json:
        write_json(facts)
    else:
        write_table(_rows(facts))


def _facts(name: str, folder: Path) -> dict[str, Any]:
    """Everything that is shown. Raises ConfigError or CheckpointError for files that disagree with each other."""
    from smolvlm.config import load_configs
    from smolvlm.families import family_of
    from smolvlm.families.grammar import FAKE_IMAGE_TOKEN, GLOBAL_IMAGE_TOKEN, IMAGE_TOKEN
    from smolvlm.prompt.tokenizer import PromptTokenizer

    config, processor = load_configs(folder)
    tokenizer = PromptTokenizer.from_folder(folder, config.model_type, config.text.vocab_size)
    sizes, dtypes = _weights(folder, config)
    parameters = {part: sum(sizes[name] for name in sizes if name.startswith(prefix)) for part, prefix in _PARTS}
    family = family_of(config.model_type, tokenizer.added_tokens)
    named = (IMAGE_TOKEN, FAKE_IMAGE_TOKEN, GLOBAL_IMAGE_TOKEN, "<row_1_col_1>", *family.prompt.end_of_turn)
    special = {token: tokenizer.id_of(token) for token in named if tokenizer.has(token)}
    text = config.text
    return {
        "name": name,
        "folder": str(folder),
        "model_type": config.model_type,
        "family": family.name,
        "takes_videos": family.prompt.video is not None,
        "random_weights": has_random_weights(folder),
        "parameters": sum(sizes.values()),
        "parameters_by_part": parameters,
        "dtypes": dtypes,
        "tensors": len(sizes),
        "context_tokens": text.max_position_embeddings,
        "tokens_per_tile": config.image_seq_len,
        "vision": asdict(config.vision),
        "scale_factor": config.scale_factor,
        "text": asdict(text),
        "processor": asdict(processor),
        "special_tokens": special,
        "stop_token_ids": list(config.eos_token_ids),
        "files": {path.name: path.stat().st_size for path in sorted(folder.iterdir()) if path.is_file()},
    }


def _weights(folder: Path, config: ModelConfig) -> tuple[dict[str, int], list[str]]:
    """Values of each official tensor, and how they are kept."""
    from smolvlm.checkpoint import CheckpointReader, tensor_shapes
    from smolvlm.checkpoint.native_file import NativeFile, has_native_file

    if has_native_file(folder):
        header = NativeFile(folder).header
        sizes = {name: math.prod(shape) for name, shape in tensor_shapes(config).items()}
        return sizes, [f"quantized: vision {header.vision}", f"text {header.text}", f"head {header.head}"]
    with CheckpointReader(folder) as reader:
        reader.verify(config)
        infos = list(reader.infos.values())
    return {info.name: info.size for info in infos}, sorted({info.dtype for info in infos})


def _rows(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    vision, text, processor = facts["vision"], facts["text"], facts["processor"]
    parts = ", ".join(f"{part} {count / 1e6:.2f} M" for part, count in facts["parameters_by_part"].items())
    weights = f"{', '.join(facts['dtypes'])} in {facts['tensors']} tensors"
    if facts["random_weights"]:
        weights += "; random: this model knows nothing"
    special = ", ".join(f"{token} {number}" for token, number in facts["special_tokens"].items())
    stops = ", ".join(map(str, facts["stop_token_ids"]))
    rows = [
        ("model", f"{facts['name']} ({facts['model_type']}, family {facts['family']})"),
        ("folder", facts["folder"]),
        ("parameters", f"{facts['parameters'] / 1e6:.2f} M ({parts})"),
        ("weights", weights),
        (
            "vision",
            f"{vision['num_hidden_layers']} layers of width {vision['hidden_size']}, "
            f"{vision['num_attention_heads']} heads; {vision['image_size']} px, "
            f"patches of {vision['patch_size']} px",
        ),
        (
            "connector",
            f"{facts['scale_factor']} x {facts['scale_factor']} patches become one token: {facts['tokens_per_tile']} tokens a tile",
        ),
        (
            "text",
            f"{text['num_hidden_layers']} layers of width {text['hidden_size']}, {text['num_attention_heads']} "
            f"heads over {text['num_key_value_heads']} key-value heads of {text['head_dim']}",
        ),
        ("context", f"{facts['context_tokens']} tokens"),
        ("vocabulary", f"{text['vocab_size']} tokens, {special}; stops at {stops}"),
        ("pictures", f"longest edge {processor['longest_edge']} px, tiles of {processor['tile_size']} px"),
        (
            "videos",
            f"sampled at {processor['fps']:g} fps, at most {processor['max_frames']} frames"
            if facts["takes_videos"]
            else "refused: this family was not trained on them",
        ),
    ]
    files = [f"{name}, {human_size(size)}" for name, size in facts["files"].items()]
    return rows + [("" if i else "files", line) for i, line in enumerate(files)]
