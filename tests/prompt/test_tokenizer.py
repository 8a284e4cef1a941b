"""Token ids against the reference's tokenizer, the official special ids, and text that must never become control."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smolvlm.errors import CheckpointError, PromptError
from smolvlm.families import SMOLVLM
from smolvlm.prompt import IdSegment, PromptTokenizer, TextSegment, parse_messages
from smolvlm.prompt.template import ChatTemplate

OFFICIAL = {
    "<|endoftext|>": 0,
    "<|im_start|>": 1,
    "<|im_end|>": 2,
    "<global-img>": 49152,
    "<row_1_col_1>": 49153,
    "<row_1_col_2>": 49154,
    "<row_2_col_1>": 49159,
    "<row_6_col_6>": 49188,
    "<fake_token_around_image>": 49189,
    "<image>": 49190,
    "<end_of_utterance>": 49279,
}


@pytest.fixture(scope="session")
def reference(folder: Path) -> Any:
    from oracle import transformers

    return transformers.AutoTokenizer.from_pretrained(folder)


def edited(folder: Path, **changes: Any) -> PromptTokenizer:
    raw = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    return PromptTokenizer(json.dumps({**raw, **changes}))


def test_the_official_ids(tokenizer: PromptTokenizer) -> None:
    for token, number in OFFICIAL.items():
        assert tokenizer.id_of(token) == number
        assert tokenizer.encode_segments([TextSegment(token, trusted=True)]) == [number]
        assert number not in tokenizer.encode_segments([TextSegment(token)])
        assert number in tokenizer.special_ids
    assert tokenizer.vocab_size == 49280
    assert json.loads(tokenizer.json)["model"]["type"] == "BPE"


def test_the_known_answer_prompt(tokenizer: PromptTokenizer, template: ChatTemplate) -> None:
    """Published: [1, 11126, 42, ..., 47, 49279, 198, 9519, 9531, 42]; the words' own ids differ in this vocabulary."""
    messages = parse_messages([{"role": "user", "content": "What is the capital of France?"}])
    ids = tokenizer.encode_segments(template.render(messages))
    assert ids[0] == 1
    assert ids.count(49279) == 1
    end = ids.index(49279)
    assert tokenizer.decode(ids[1:end]) == "User: What is the capital of France?"
    assert tokenizer.decode(ids[end + 1 :]) == "\nAssistant:"
    assert ids[1:end] == tokenizer.encode_text("User: What is the capital of France?")
    # Digits and ByteLevel alone: the blank belongs to the word behind it, though the template wrote the blank.
    assert tokenizer.decode([ids[ids.index(tokenizer.encode_text(":")[0]) + 1]]).startswith(" ")


@given(st.lists(st.text(max_size=12), min_size=1, max_size=6))
@settings(max_examples=150, deadline=None)
def test_joined_text_is_encoded_as_the_reference_encodes_the_whole(pieces: list[str]) -> None:
    """However the stretches are cut and whoever wrote them: parity where nobody spells a control token."""
    tokenizer, reference = _pair()
    if any(token in "".join(pieces) for token in ("<", "|")):
        return
    segments = [TextSegment(piece, trusted=i % 2 == 0) for i, piece in enumerate(pieces)]
    assert tokenizer.encode_segments(segments) == reference.encode("".join(pieces), add_special_tokens=False)


@given(st.lists(st.sampled_from([*OFFICIAL, "<ima", "ge>", "<", ">", "a", " ", "\n", "12", "é", "🙂"]), max_size=12))
@settings(max_examples=150, deadline=None)
def test_typed_text_comes_back_and_holds_no_control_id(pieces: list[str]) -> None:
    tokenizer, _ = _pair()
    text = "".join(pieces)
    ids = tokenizer.encode_segments([TextSegment(piece) for piece in pieces])
    assert tokenizer.control_ids.isdisjoint(ids)
    assert tokenizer.decode(ids) == text


def test_trust_does_not_spread_to_neighbours(tokenizer: PromptTokenizer) -> None:
    ours, typed = TextSegment("<image>", trusted=True), TextSegment("<image>")
    plain = tokenizer.encode_text("<image>")
    assert tokenizer.encode_segments([ours, typed, ours]) == [49190, *plain, 49190]
    assert tokenizer.encode_segments([typed, ours]) == [*plain, 49190]
    halves = [TextSegment("<ima", trusted=True), TextSegment("ge>"), TextSegment("<ima"), TextSegment("ge>", trusted=True)]
    assert tokenizer.control_ids.isdisjoint(tokenizer.encode_segments(halves))
    whole = [TextSegment("<ima", trusted=True), TextSegment("ge>", trusted=True)]
    assert tokenizer.encode_segments(whole) == [49190]


_cached: list[Any] = []


def _pair() -> tuple[PromptTokenizer, Any]:
    """Hypothesis runs a test many times: the two tokenizers are made once."""
    if not _cached:
        from oracle import transformers

        from helpers_prompt import tiny_checkpoint

        folder = tiny_checkpoint()
        _cached.extend((PromptTokenizer.from_folder(folder), transformers.AutoTokenizer.from_pretrained(folder)))
    return _cached[0], _cached[1]


def test_a_whole_picture_prompt_equals_the_reference(tokenizer: PromptTokenizer, reference: Any) -> None:
    text = f"<|im_start|>User:{SMOLVLM.prompt.image_text(3, 4, 64)}What?<end_of_utterance>\nAssistant:"
    ids = tokenizer.encode_segments([TextSegment(text, trusted=True)])
    assert ids == reference.encode(text, add_special_tokens=False)


def test_exact_ids_stand_as_they_are(tokenizer: PromptTokenizer) -> None:
    segments = [TextSegment("a "), IdSegment((7, 49279, 8)), TextSegment("b")]
    before, after = tokenizer.encode_text("a "), tokenizer.encode_text("b")
    assert tokenizer.encode_segments(segments) == [*before, 7, 49279, 8, *after]


def test_a_first_generation_vocabulary_writes_tile_names_as_text(folder: Path) -> None:
    """idefics3 has `<image>` but no `<global-img>` and no `<row_r_col_c>`: they are plain text, as in the reference."""
    from transformers import PreTrainedTokenizerFast

    raw = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    lacking = [t for t in raw["added_tokens"] if not t["content"].startswith(("<row_", "<global"))]
    old = edited(folder, added_tokens=lacking)
    text = f"User:{SMOLVLM.prompt.image_text(1, 2, 4)}What?"
    from tokenizers import Tokenizer

    reference = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(old.json))
    ids = old.encode_segments([TextSegment(text, trusted=True)])
    assert ids == reference.encode(text, add_special_tokens=False)
    assert old.decode(ids, skip_special_tokens=False) == text
    assert ids.count(old.id_of("<image>")) == 3 * 4
    assert old.id_of("<fake_token_around_image>") == 49152, "the library closes gaps in the ids, and so must we"
    with pytest.raises(CheckpointError, match="<global-img>"):
        old.id_of("<global-img>")


def test_added_tokens_that_are_not_special_are_control_too(folder: Path) -> None:
    """Some writers mark `<image>` as an ordinary added token; typed text must not reach it either."""
    raw = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    ordinary = edited(folder, added_tokens=[{**token, "special": False} for token in raw["added_tokens"]])
    assert 49190 not in ordinary.encode_text("an <image> typed")
    assert ordinary.encode_segments([TextSegment("<image>", trusted=True)]) == [49190]
    assert ordinary.special_ids == frozenset()
    assert "<image>" in ordinary.decode([49190])


def test_tokens_that_swallow_white_space(folder: Path) -> None:
    raw = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    greedy = [{**t, "lstrip": True, "rstrip": True} if t["content"] == "<image>" else t for t in raw["added_tokens"]]
    tokenizer = edited(folder, added_tokens=greedy)
    from tokenizers import Tokenizer

    for text in ("a  <image>  b", "<image> <image>", " <image>", "a<image>\n"):
        ids = Tokenizer.from_str(tokenizer.json).encode(text, add_special_tokens=False).ids
        assert tokenizer.encode_segments([TextSegment(text, trusted=True)]) == ids


def test_a_vocabulary_whose_merges_spell_a_control_token_is_refused(folder: Path) -> None:
    """An ordinary entry that carries a control token's id: plain text would become it."""
    raw = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    model = {**raw["model"], "vocab": {**raw["model"]["vocab"]}}
    number = model["vocab"]["a"]
    tokens = [*raw["added_tokens"], {**raw["added_tokens"][0], "id": number, "content": "a"}]
    hostile = edited(folder, model=model, added_tokens=tokens)
    with pytest.raises(CheckpointError, match="plain text would become the control token 'a'"):
        hostile.encode_text("a b")


def test_truncation_and_padding_of_the_file_are_not_obeyed(folder: Path) -> None:
    cut = edited(
        folder,
        truncation={"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0},
        padding={
            "strategy": {"Fixed": 512},
            "direction": "Right",
            "pad_to_multiple_of": None,
            "pad_id": 2,
            "pad_type_id": 0,
            "pad_token": "<|im_end|>",
        },
    )
    text = "one two three four five six seven eight"
    assert cut.decode(cut.encode_text(text)) == text


def test_decoding_leaves_spaces_and_drops_specials(tokenizer: PromptTokenizer) -> None:
    ids = [*tokenizer.encode_text(" it 's  a test , ."), 49279]
    assert tokenizer.decode(ids) == " it 's  a test , ."
    assert tokenizer.decode(ids, skip_special_tokens=False) == " it 's  a test , .<end_of_utterance>"
    assert tokenizer.decode([]) == ""
    for bad in ([-1], [2**40]):
        with pytest.raises(PromptError, match="cannot be decoded"):
            tokenizer.decode(bad)


def test_half_characters_do_not_reach_the_library(tokenizer: PromptTokenizer) -> None:
    with pytest.raises(PromptError, match="cannot be tokenized"):
        tokenizer.encode_text("half \ud83d")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b'{"added_tokens": []}',
        b"\xff\xfe",
        b"null",
        b"[" * 100_000,
        b'{"added_tokens": [{"id": "x", "content": "y"}], "model": {}}',
    ],
)
def test_a_broken_file_is_named(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"tokenizer\.json"):
        PromptTokenizer.from_folder(tmp_path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"tokenizer\.json: no such file"):
        PromptTokenizer.from_folder(tmp_path)
    (tmp_path / "tokenizer.json").mkdir()
    with pytest.raises(CheckpointError, match=r"tokenizer\.json: cannot be read"):
        PromptTokenizer.from_folder(tmp_path)
