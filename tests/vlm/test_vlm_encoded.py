"""Encode once, ask many times later: stored features answer as their medium does, and know which model made them."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file

import smolvlm
from smolvlm import Encoded, SmolVLM
from smolvlm.checkpoint.identity import fingerprint_of
from smolvlm.engines.native_quantize import quantize
from smolvlm.errors import ParamsError, SmolVLMError, SourceError
from smolvlm.hub import resolve
from smolvlm.media import MediaOptions
from smolvlm.prompt.messages import parse_messages

NANO = Path(__file__).parents[2] / "examples" / "media" / "nano"
MEDIA = [(NANO / "sign.png", "What does the sign say?"), (NANO / "clip.mp4", "What happens in this video?")]
# What storing may change of the features, relative to their size: bfloat16 keeps 8 bits (2 ** -9 / sqrt(3) at most), int8 a
# 254th of a row's largest value.
LOSSES = {"float32": 0.0, "bfloat16": 2**-9, "int8": 0.02}


@pytest.fixture(scope="module", params=["native", pytest.param("torch", marks=pytest.mark.slow)])
def nano(request: pytest.FixtureRequest) -> SmolVLM:
    return smolvlm.load("nano", engine=request.param, dtype="q8" if request.param == "native" else "float32")


@pytest.mark.parametrize("store", list(LOSSES))
def test_what_was_stored_answers_like_its_medium(nano: SmolVLM, tmp_path: Path, store: Any) -> None:
    for path, question in MEDIA:
        wanted = nano.ask(path, question)
        fresh = nano.encode(path, store=store)
        features = nano.features(path)[0]
        change = np.sqrt(((fresh.features.reshape(features.shape) - features) ** 2).mean() / (features**2).mean())
        assert change <= LOSSES[store]
        assert fresh.error == pytest.approx(float(change), rel=1e-3)
        before = nano.runtime.counters.tiles_encoded
        for encoded in (fresh, Encoded.load(fresh.save(tmp_path / "a.features")), Encoded.from_bytes(fresh.to_bytes())):
            np.testing.assert_array_equal(encoded.features, fresh.features)
            got = nano.ask(encoded, question)
            assert got.token_ids == wanted.token_ids
            assert (got.usage.prompt_tokens, got.usage.image_tokens, got.usage.encoded_tiles) == (
                wanted.usage.prompt_tokens,
                wanted.usage.image_tokens,
                0,
            )
            assert got.warnings == wanted.warnings
        assert nano.runtime.counters.tiles_encoded == before
        exact = nano.choose(path, question, ["yes", "no"]).logprobs["yes"]
        assert nano.choose(fresh, question, ["yes", "no"]).logprobs["yes"] == pytest.approx(exact, abs=1e-5 if store == "float32" else 0.5)


def test_caches_tell_what_a_lossy_store_changed(nano: SmolVLM) -> None:
    def keys(medium: Any) -> list[str]:
        messages = parse_messages(nano.messages(medium, "?"))
        return [tile.key for each in nano.runtime.read_media(messages, MediaOptions()) for tile in each.tiles]

    path = MEDIA[0][0]
    assert keys(path) == keys(nano.encode(path))
    assert len({*keys(path), *keys(nano.encode(path, store="int8")), *keys(nano.encode(path, store="bfloat16"))}) == 3 * len(keys(path))


def test_sizes_and_the_file_that_other_tools_read(nano: SmolVLM, tmp_path: Path) -> None:
    sizes = {}
    for store in LOSSES:
        encoded = nano.encode(MEDIA[0][0], store=store)  # type: ignore[arg-type]
        path = encoded.save(tmp_path / f"{store}.safetensors")
        sizes[store] = path.stat().st_size
        with safe_open(path, "np") as file:
            assert file.metadata()["model"] == "nano"
            assert file.metadata()["fingerprint"] == fingerprint_of(resolve("nano"))
            assert json.loads(file.metadata()["info"])["kind"] == "image"
            assert tuple(file.get_slice("features").get_shape()) == encoded.features.shape
    plain = load_file(tmp_path / "float32.safetensors")["features"]
    np.testing.assert_array_equal(plain, nano.encode(MEDIA[0][0]).features)
    packed = load_file(tmp_path / "int8.safetensors")
    np.testing.assert_array_equal(packed["features"] * packed["scales"][..., None], nano.encode(MEDIA[0][0], store="int8").features)
    assert sizes["bfloat16"] < 0.55 * sizes["float32"]
    assert sizes["int8"] < 0.3 * sizes["float32"]


def test_every_verb_takes_it(nano: SmolVLM) -> None:
    sign, clip = nano.encode(MEDIA[0][0]), nano.encode(MEDIA[1][0], max_frames=3)
    assert (sign.info.kind, clip.info.kind, len(clip.info.timestamps_s)) == ("image", "video", 3)
    question = "What is this?"
    both = nano.ask([MEDIA[0][0], MEDIA[1][0]], question, max_frames=3)
    assert nano.ask([sign, clip], question).token_ids == both.token_ids
    assert nano.ask([MEDIA[0][0], clip], question).token_ids == both.token_ids  # one fresh, one stored
    assert [a.token_ids for a in nano.ask_many([([sign, clip], question)] * 2)] == [both.token_ids] * 2
    part = {"type": "video", "video": clip}
    messages = [{"role": "user", "content": [{"type": "image", "image": sign}, part, {"type": "text", "text": question}]}]
    assert nano.chat(messages).token_ids == both.token_ids
    with nano.session([sign]) as session:
        session.add(clip)
        assert session.ask(question).token_ids == both.token_ids
    np.testing.assert_array_equal(nano.features(sign)[0], nano.features(MEDIA[0][0])[0])
    np.testing.assert_allclose(sign.pooled, nano.features(MEDIA[0][0], pooled=True)[0], atol=1e-6)


def test_engines_share_what_was_stored() -> None:
    """The same weights: what one engine encoded, the other reads, also from a quantized folder."""
    native, torch = smolvlm.load("nano", engine="native"), smolvlm.load("nano", engine="torch", dtype="float32")
    path, question = MEDIA[0]
    assert torch.ask(native.encode(path), question).text == torch.ask(path, question).text
    assert native.ask(torch.encode(path, store="int8"), question).text == native.ask(path, question).text


def test_a_quantised_folder_reads_what_its_source_encoded(tmp_path: Path) -> None:
    quantize(resolve("nano"), tmp_path / "q8")
    small, whole = smolvlm.load(tmp_path / "q8"), smolvlm.load("nano", engine="native", dtype="q8")
    path, question = MEDIA[0]
    assert small.ask(whole.encode(path), question).token_ids == whole.ask(path, question).token_ids


def test_another_models_features_are_refused_by_name(nano: SmolVLM, model: SmolVLM) -> None:
    encoded = nano.encode(MEDIA[0][0])
    with pytest.raises(ParamsError, match=r"sign.png was encoded by nano .*; encode it again"):
        model.ask(encoded, "What is this?")
    for call in (
        lambda: nano.ask(encoded, "?", detail="low"),
        lambda: nano.chat([{"role": "user", "content": [{"type": "image", "image": encoded, "detail": "low"}]}]),
    ):
        with pytest.raises(ParamsError, match="must be passed to encode"):
            call()
    with pytest.raises(ParamsError, match="store='int4'"):
        nano.encode(MEDIA[0][0], store="int4")  # type: ignore[arg-type]
    with pytest.raises(ParamsError, match="one picture or video, not 2"):
        nano.encode([MEDIA[0][0], MEDIA[1][0]])
    with pytest.raises(ParamsError, match="generates nothing"):
        nano.encode(MEDIA[0][0], seed=1)


def test_hostile_files(nano: SmolVLM, tmp_path: Path) -> None:
    data = nano.encode(MEDIA[0][0], store="int8").to_bytes()
    rng = np.random.default_rng(0)
    with pytest.raises(SourceError):
        Encoded.load(tmp_path / "absent")
    for wrong in (b"", b"{}", data[:-1], data + b"x", data.replace(b"smolvlm-encoded", b"smolvlm-decoded")):
        with pytest.raises(SmolVLMError):
            Encoded.from_bytes(wrong)
    length = int.from_bytes(data[:8], "little")
    for old, new in ((b'rows\\": 0', b'rows\\": 9'), (b'tile_count\\": 1', b'tile_count\\": 7'), (b'"store":"int8"', b'"store":"int4"')):
        assert old in data, old
        with pytest.raises(SmolVLMError):
            Encoded.from_bytes(data.replace(old, new))
    for _ in range(300):  # any byte of the header
        broken = bytearray(data)
        broken[int(rng.integers(0, 8 + length))] = int(rng.integers(0, 256))
        with contextlib.suppress(SmolVLMError):  # and nothing else is raised
            Encoded.from_bytes(bytes(broken))
