"""llama.cpp on the text decoder, through llama-cpp-python: BF16, Q8_0 and Q4_0, the latter two by its own quantiser.

Its AMX path crashed on the machine where this comparison began, so it is left out of the build:

    CMAKE_ARGS="-DGGML_AMX_TILE=OFF -DGGML_AMX_INT8=OFF -DGGML_AMX_BF16=OFF -DGGML_NATIVE=ON" pip install llama-cpp-python

Text only: its vision part (mtmd) reads a second file of another layout and cuts every picture up in its own way.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks import material
from smolvlm.checkpoint.reader import CheckpointReader
from smolvlm.config import ModelConfig, load_configs
from smolvlm.families.tensors import EMBED_TOKENS, LM_HEAD

MODEL = "text.gguf"
_ROOM = 4096  # tokens of the context: the longest task holds 2,048 and what follows
_PASS = 2048  # tokens given to one call; it cuts them into passes of 512, its default

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


def _add_tokenizer(writer, folder: Path, vocab_size: int, eos: int) -> None:  # type: ignore[no-untyped-def]
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


def _quantise(source: Path, out: Path, variant: str) -> None:
    """As `llama-quantize` does it: Q4_0 keeps the output layer finer, by its own rules."""
    import llama_cpp

    kinds = {"q8": llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0, "q4": llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_0}
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype, params.allow_requantize = kinds[variant], False
    if llama_cpp.llama_model_quantize(bytes(source), bytes(out), params):
        raise RuntimeError(f"llama.cpp could not quantise {source.name} to {variant}; see its message above.")


def model_file(folder: Path, variant: str) -> Path:
    source = material.for_peer(folder, "gguf-bf16", lambda out: write_gguf(folder, out / MODEL)) / MODEL
    if variant == "bf16":
        return source
    return material.for_peer(folder, f"gguf-{variant}", lambda out: _quantise(source, out / MODEL, variant)) / MODEL


def prepare(folder: Path, variant: str) -> None:
    import gguf  # noqa: F401 - absent, it is named before anything is written
    import llama_cpp  # noqa: F401

    model_file(folder, variant)


def make(folder: Path, variant: str, threads: int) -> LlamaCpp:
    return LlamaCpp(model_file(folder, variant), threads)


class LlamaCpp:
    """The C interface itself (`llama_decode`), so that no Python of the binding is in the way."""

    tasks = ("prefill", "decode-256", "decode-2048")

    def __init__(self, model: Path, threads: int) -> None:
        import llama_cpp

        self.api = llama_cpp
        self.llama = llama_cpp.Llama(str(model), n_ctx=_ROOM, n_batch=_PASS, n_threads=threads, n_threads_batch=threads, verbose=False)
        self.vocab_size = self.llama.n_vocab()
        self.about = f"llama-cpp-python {llama_cpp.__version__}, text only"

    def prefill(self, input_ids: Sequence[int]) -> tuple[float, npt.NDArray[np.float32]]:
        """Seconds from token ids to the last logits, and these."""
        self._forget()
        started = time.perf_counter()
        logits = self._step(input_ids)
        return time.perf_counter() - started, logits

    def decode(self, input_ids: Sequence[int], new_tokens: int) -> tuple[float, list[int]]:
        """Seconds for `new_tokens` greedy steps after the prompt (prefill not counted), and the tokens."""
        self._forget()
        token, tokens = int(self._step(input_ids).argmax()), []
        started = time.perf_counter()
        for _ in range(new_tokens):
            token = int(self._step([token]).argmax())
            tokens.append(token)
        return time.perf_counter() - started, tokens

    def _forget(self) -> None:
        self.api.llama_memory_clear(self.api.llama_get_memory(self.llama.ctx), True)

    def _step(self, input_ids: Sequence[int]) -> npt.NDArray[np.float32]:
        """Append the tokens; the logits of the last one (no other's are computed), a view that the next step overwrites."""
        for first in range(0, len(input_ids), _PASS):
            ids = input_ids[first : first + _PASS]
            array = (self.api.llama_token * len(ids))(*ids)
            if code := self.api.llama_decode(self.llama.ctx, self.api.llama_batch_get_one(array, len(ids))):
                raise RuntimeError(f"llama_decode failed with code {code}")
        logits = self.api.llama_get_logits_ith(self.llama.ctx, -1)
        return np.ctypeslib.as_array(logits, shape=(self.vocab_size,))
