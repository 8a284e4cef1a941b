"""Random checkpoints of the two published docling models' form, over tokenizers with the tokens that they have.

granite-docling-258M: every number, the chat template and the special tokens are those of its published files, but for the
widths and depths of the two towers, which are small here, and the words of the vocabulary. SmolDocling-256M-preview: its
files could not be read; it is SmolVLM-256M-Instruct's form with the special tokens that docling-core lists.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from pathlib import Path
from typing import Any

from docling_core.types.doc.tokens import DocumentToken
from tokenizers import AddedToken, Regex, Tokenizer, pre_tokenizers

from smolvlm.checkpoint.random import TINY, random_tensors
from smolvlm.checkpoint.random_tokenizer import official_tokenizer_json
from smolvlm.checkpoint.writer import write_checkpoint
from smolvlm.config import ModelConfig, ProcessorConfig
from smolvlm.families.family import GPT4_SPLIT
from smolvlm.families.grammar import OFFICIAL_TEMPLATE

# `chat_template.jinja` of granite-docling-258M.
GRANITE_TEMPLATE = """{%- for message in messages -%}
{{- '<|start_of_role|>' + message['role'] + '<|end_of_role|>' -}}
{%- if message['content'] is string -%}
{{- message['content'] -}}
{%- else -%}
{%- for part in message['content'] -%}
{%- if part['type'] == 'text' -%}
{{- part['text'] -}}
{%- elif part['type'] == 'image' -%}
{{- '<image>' -}}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
{{- '<|end_of_text|>
' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|start_of_role|>assistant' -}}
{%- if controls -%}{{- ' ' + controls | tojson() -}}{%- endif -%}
{{- '<|end_of_role|>' -}}
{%- endif -%}
"""
GRANITE_VOCAB, GRANITE_FIRST = 100_352, 100_256
# Its special tokens from 100,256 on, in their order (`tokenizer_config.json`); only the first four columns of tiles have names.
_PAIRS = (
    "footnote",
    "formula",
    "list_item",
    "page_footer",
    "page_header",
    "picture",
    *(f"section_header_level_{level}" for level in range(1, 7)),
    "otsl",
    "checkbox_selected",
    "checkbox_unselected",
    "form",
    "key_value_region",
)
GRANITE_SPECIALS = [
    "<|pad|>",
    "<|end_of_text|>",
    "<row_1_col_1>",
    "<row_1_col_2>",
    "<text>",
    "<row_1_col_3>",
    "<row_1_col_4>",
    "<row_2_col_1>",
    "<|start_of_role|>",
    "<|end_of_role|>",
    "</title>",
    "<row_2_col_2>",
    "<row_2_col_3>",
    "<title>",
    "<image>",
    "<caption>",
    "</caption>",
    *(f"<{slash}{name}>" for name in _PAIRS for slash in ("", "/")),
    "<key_",
    "</key_",
    "<value_",
    "</value_",
    "<link_",
    "<chart>",
    "</chart>",
    "<page_break>",
    "<smiles>",
    "</smiles>",
    "</text>",
    "<paragraph>",
    "</paragraph>",
    "<references>",
    "</references>",
    "<ordered_list>",
    "</ordered_list>",
    "<unordered_list>",
    "</unordered_list>",
    "<group>",
    "<doctag>",
    "</doctag>",
    "<rec_",
    "<fcel>",
    "<ecel>",
    "<lcel>",
    "<ucel>",
    "<xcel>",
    "<nl>",
    "<ched>",
    "<rhed>",
    "<|unk|>",
    "<fake_token_around_image>",
    "<global-img>",
    "<row_2_col_4>",
    *(f"<row_{row}_col_{col}>" for row in (3, 4) for col in range(1, 5)),
    "<code>",
    "</code>",
]


@functools.cache
def granite_tokenizer() -> str:
    """100,352 ids: a byte-level BPE split by GPT-4's pattern, made-up words up to 100,255, the special tokens behind them."""
    state = json.loads(official_tokenizer_json())
    words = [word for word, i in sorted(state["model"]["vocab"].items(), key=lambda item: item[1]) if not word.startswith("<|")]
    vocab = {word: i for i, word in enumerate(words)}
    for i in range(len(vocab), GRANITE_FIRST):
        vocab[f"Ġfiller{i}"] = i
    state["model"] |= {"vocab": vocab, "merges": state["model"]["merges"]}
    state["added_tokens"] = []
    tokenizer = Tokenizer.from_str(json.dumps(state))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(GPT4_SPLIT), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in GRANITE_SPECIALS])
    assert tokenizer.token_to_id("<image>") == 100_270
    assert tokenizer.token_to_id("</code>") == GRANITE_VOCAB - 1
    return str(tokenizer.to_str())


def granite_docling(folder: Path, base: ModelConfig = TINY) -> Path:
    """A checkpoint of granite-docling-258M's form: idefics3, tied embeddings, stops at <|end_of_text|>."""
    text = dataclasses.replace(base.text, vocab_size=GRANITE_VOCAB, bos_token_id=100_264, eos_token_id=100_257, pad_token_id=100_257)
    config = dataclasses.replace(
        base, text=text, model_type="idefics3", image_token_id=100_270, tie_word_embeddings=True, eos_token_ids=(100_257,)
    )
    write_checkpoint(folder, random_tensors(config, 11), config, _pixels(config), granite_tokenizer(), None)
    (folder / "chat_template.jinja").write_text(GRANITE_TEMPLATE)

    def published(raw: dict[str, Any]) -> None:  # what the published file says beside, and one token too many
        raw |= {"bos_token_id": 100_264, "eos_token_id": 100_257, "pad_token_id": 100_257, "vocab_size": GRANITE_VOCAB}
        raw["text_config"] |= {"architectures": ["LlamaForCausalLM"], "rope_scaling": None, "pretraining_tp": 1}
        raw["vision_config"] |= {"size": {"longest_edge": config.vision.image_size}}

    _rewrite(folder / "config.json", published)
    surplus = {
        "id": GRANITE_VOCAB,
        "content": "<end_of_utterance>",
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "special": True,
    }
    _rewrite(folder / "tokenizer.json", lambda raw: raw["added_tokens"].append(surplus))
    return folder


def smoldocling(folder: Path, base: ModelConfig = TINY) -> Path:
    """A checkpoint of SmolVLM-256M-Instruct's form with docling-core's tokens behind the official vocabulary."""
    tokenizer = Tokenizer.from_str(official_tokenizer_json())
    listed = dict.fromkeys(DocumentToken.get_special_tokens())
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in listed])
    text = dataclasses.replace(base.text, vocab_size=tokenizer.get_vocab_size())
    config = dataclasses.replace(base, text=text, model_type="idefics3")
    return write_checkpoint(folder, random_tensors(config, 12), config, _pixels(config), str(tokenizer.to_str()), OFFICIAL_TEMPLATE)


def _pixels(config: ModelConfig) -> ProcessorConfig:
    tile = config.vision.image_size
    return ProcessorConfig(image_seq_len=config.image_seq_len, tile_size=tile, longest_edge=4 * tile, video_longest_edge=4 * tile)


def _rewrite(path: Path, change: Any) -> None:
    raw = json.loads(path.read_text(encoding="utf-8"))
    change(raw)
    path.write_text(json.dumps(raw), encoding="utf-8")
