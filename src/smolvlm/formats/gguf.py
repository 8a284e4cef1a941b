"""GGUF, as llama.cpp reads it: the text decoder and the tokenizer of a checkpoint. Needs the package `gguf`.

Sources: the GGUF specification (ggml, docs/gguf.md) and llama.cpp's names of tensors.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from smolvlm.checkpoint.reader import CheckpointReader
from smolvlm.config import ModelConfig, load_configs
from smolvlm.families.tensors import EMBED_TOKENS, LM_HEAD

# The official names below `model.text_model.layers.N.` -> llama.cpp's below `blk.N.`
_LAYER = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def interleave_halves(weight: npt.NDArray[np.float32], heads: int) -> npt.NDArray[np.float32]:
    """Rows of q or k as llama.cpp wants them: it turns neighbours (2i, 2i + 1), the official graph turns (i, i + half)."""
    halves = weight.reshape(heads, 2, -1, weight.shape[-1])  # (heads, half of the head, dim / 2, in)
    return halves.swapaxes(1, 2).reshape(weight.shape)


def text_tensors(reader: CheckpointReader, config: ModelConfig) -> Iterator[tuple[str, npt.NDArray[np.float32]]]:
    """(llama.cpp's name, float32) of each tensor of the decoder."""
    text = config.text
    yield "token_embd.weight", reader.float32(EMBED_TOKENS)
    yield "output_norm.weight", reader.float32("model.text_model.norm.weight")
    if not config.tie_word_embeddings:
        yield "output.weight", reader.float32(LM_HEAD)
    for layer in range(text.num_hidden_layers):
        for official, short in _LAYER.items():
            weight = reader.float32(f"model.text_model.layers.{layer}.{official}.weight")
            if short in ("attn_q", "attn_k"):
                weight = interleave_halves(weight, text.num_attention_heads if short == "attn_q" else text.num_key_value_heads)
            yield f"blk.{layer}.{short}.weight", weight


def write_gguf(folder: Path, out: Path) -> None:
    """The decoder and the tokenizer of a checkpoint as a GGUF file: matrices in BF16, norms in float32."""
    import gguf

    config, _ = load_configs(folder)
    text = config.text
    writer = gguf.GGUFWriter(out, "llama")
    writer.add_name(folder.name)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_BF16)
    writer.add_vocab_size(text.vocab_size)
    writer.add_context_length(text.max_position_embeddings)
    writer.add_embedding_length(text.hidden_size)
    writer.add_block_count(text.num_hidden_layers)
    writer.add_feed_forward_length(text.intermediate_size)
    writer.add_head_count(text.num_attention_heads)
    writer.add_head_count_kv(text.num_key_value_heads)
    writer.add_layer_norm_rms_eps(text.rms_norm_eps)
    writer.add_rope_dimension_count(text.head_dim)
    writer.add_rope_freq_base(text.rope_theta)
    _add_tokenizer(writer, folder, text.vocab_size, config.eos_token_ids[0])
    reader = CheckpointReader(folder)
    for name, weight in text_tensors(reader, config):
        if weight.ndim == 1:
            writer.add_tensor(name, weight)
        else:
            kind = gguf.GGMLQuantizationType.BF16
            writer.add_tensor(name, gguf.quants.quantize(weight, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_tokenizer(writer: Any, folder: Path, vocab_size: int, eos: int) -> None:
    """The byte-level BPE of tokenizer.json; nothing here is encoded with it, but readers of GGUF want one."""
    import gguf

    description = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    tokens = [f"<unused_{i}>" for i in range(vocab_size)]
    kinds = [gguf.TokenType.UNUSED] * vocab_size
    for token, i in description["model"]["vocab"].items():
        tokens[i], kinds[i] = token, gguf.TokenType.NORMAL
    for added in description["added_tokens"]:
        tokens[added["id"]], kinds[added["id"]] = added["content"], gguf.TokenType.CONTROL
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in description["model"]["merges"]]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges(merges)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(eos)
    writer.add_add_bos_token(False)
