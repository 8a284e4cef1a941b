"""What the published fine-tuning notebooks touch, beside the same calls on `transformers`: loss, logits, gradients, saving."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import oracle  # noqa: F401  (first: it makes transformers importable, which peft imports)
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model, prepare_model_for_kbit_training
from torch.nn.utils.rnn import pad_sequence

from helpers_compat import CALL, image_part, ours, reference, text_part, user
from helpers_media import photo
from helpers_prompt import tiny_checkpoint
from smolvlm import AutoModelForImageTextToText, AutoProcessor, load
from smolvlm.compat import ImageTextToTextModel
from smolvlm.errors import AdapterError, ParamsError, PromptError

LORA: dict[str, Any] = {
    "r": 8,
    "lora_alpha": 8,
    "lora_dropout": 0.1,
    "init_lora_weights": "gaussian",
    "target_modules": ["down_proj", "o_proj", "k_proj", "q_proj", "gate_proj", "up_proj", "v_proj"],
}
ANSWERS = ["A gradient.", "Two of them, side by side."]


def fresh(**kwargs: Any) -> ImageTextToTextModel:
    return AutoModelForImageTextToText.from_pretrained(tiny_checkpoint(), torch_dtype=torch.float32, **kwargs)


def collate(processor: Any, examples: list[tuple[Any, str, str]]) -> Any:
    """The image notebook's collate function, its two masks included."""
    image_token_id = processor.tokenizer.additional_special_tokens_ids[processor.tokenizer.additional_special_tokens.index("<image>")]
    texts, images = [], []
    for image, question, answer in examples:
        messages = [
            user(text_part("Answer briefly."), {"type": "image"}, text_part(question)),
            {"role": "assistant", "content": [text_part(answer)]},
        ]
        texts.append(processor.apply_chat_template(messages, add_generation_prompt=False).strip())
        images.append([image])
    batch = processor(text=texts, images=images, return_tensors="pt", padding=True)
    labels = batch["input_ids"].clone()
    labels[labels == processor.tokenizer.pad_token_id] = -100
    labels[labels == image_token_id] = -100
    batch["labels"] = labels
    return batch


def two_examples() -> list[tuple[Any, str, str]]:
    return [(photo(90, 60, 1), "What is this?", ANSWERS[0]), (photo(60, 130, 2), "How many are there, and where?", ANSWERS[1])]


@pytest.fixture(scope="module")
def batch() -> Any:
    return collate(ours().processor, two_examples())


def test_logits_loss_and_gradients_are_the_references(batch: Any) -> None:
    """Float32 sums in another order: 2e-5 on logits of size 1 is some hundred rounding steps over three layers."""
    mine, theirs = fresh(), copy.deepcopy(reference().model)
    ours_out, their_out = mine(**batch), theirs(**batch)
    real = batch["attention_mask"].bool()
    assert torch.allclose(ours_out.logits[real], their_out.logits[real], atol=2e-5, rtol=0)
    assert abs(float(ours_out.loss) - float(their_out.loss)) < 1e-5
    assert ours_out["loss"] is ours_out[0] is ours_out.loss
    assert float(mine(**batch, num_items_in_batch=7).loss) == pytest.approx(float(theirs(**batch, num_items_in_batch=7).loss), rel=1e-5)
    ours_out.loss.backward()
    their_out.loss.backward()
    gradients = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    for name, parameter in mine.named_parameters():
        assert parameter.grad is not None, name
        scale = float(gradients[name].abs().max())
        assert torch.allclose(parameter.grad, gradients[name], atol=1e-4 * scale + 1e-8, rtol=0), name


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_on_either_side_and_without_pictures(side: str) -> None:
    tokenizer = AutoProcessor.from_pretrained(tiny_checkpoint()).tokenizer
    rows = tokenizer(["A short one.", "A longer one, with more words in it."], padding=True, padding_side=side, return_tensors="pt")
    labels = torch.where(rows["attention_mask"].bool(), rows["input_ids"], -100)
    mine, theirs = ours().model(**rows, labels=labels), reference().model(**rows, labels=labels)
    real = rows["attention_mask"].bool()
    assert torch.allclose(mine.logits[real], theirs.logits[real], atol=2e-5, rtol=0)
    assert float(mine.loss) == pytest.approx(float(theirs.loss), abs=1e-5)
    assert torch.allclose(ours().model(**rows, logits_to_keep=1).logits, mine.logits[:, -1:], atol=1e-5)


def test_names_of_parameters_and_modules_are_the_references() -> None:
    mine, theirs = fresh(), reference().model
    assert {n: tuple(p.shape) for n, p in mine.named_parameters()} == {n: tuple(p.shape) for n, p in theirs.named_parameters()}
    assert sorted(mine.state_dict()) == sorted(theirs.state_dict())
    linear = {name for name, module in theirs.named_modules() if isinstance(module, torch.nn.Linear)}
    assert {name for name, module in mine.named_modules() if isinstance(module, torch.nn.Linear)} == linear
    assert mine.num_parameters() == theirs.num_parameters()
    assert mine.get_input_embeddings().weight.shape == theirs.get_input_embeddings().weight.shape
    for path in ("model_type", "image_token_id", "text_config.hidden_size", "text_config.vocab_size", "vision_config.image_size"):
        mine_at, theirs_at = mine.config, theirs.config
        for part in path.split("."):
            mine_at, theirs_at = getattr(mine_at, part), getattr(theirs_at, part)
        assert mine_at == theirs_at, path
    assert mine.config.to_dict()["text_config"]["num_hidden_layers"] == theirs.config.text_config.num_hidden_layers
    for parameter in mine.model.vision_model.parameters():  # "if you'd like to only fine-tune LLM"
        parameter.requires_grad = False
    assert mine.num_parameters(only_trainable=True) < mine.num_parameters()


def test_generating_follows_the_modules(batch: Any) -> None:
    """Packed weights until a module is touched; from then on what the modules hold at that moment."""
    model = fresh()
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    before = model.generate(**inputs, max_new_tokens=6)
    assert not model._net
    assert not model.training
    assert model.train() is model
    assert torch.equal(model.generate(**inputs, max_new_tokens=6), before)
    assert next(model.parameters()).requires_grad
    assert torch.equal(model.generate(**inputs, max_new_tokens=6), before)
    assert model.training
    assert model.model.text_model.training
    with torch.no_grad():
        model.lm_head.weight[7] += 1000 * torch.sign(model.lm_head.weight[7])
        model.lm_head.weight[8] = -model.lm_head.weight[7]
    after = model.generate(**inputs, max_new_tokens=2)
    assert set(after[:, inputs["input_ids"].shape[1] :].flatten().tolist()) <= {7, 8}
    assert model.eval().training is False
    assert model.to(torch.bfloat16).dtype == torch.bfloat16 == next(model.parameters()).dtype
    assert model(**batch).logits.dtype == torch.bfloat16
    assert model.generate(**inputs, max_new_tokens=1).shape[1] == inputs["input_ids"].shape[1] + 1


def test_gradient_checkpointing_changes_no_gradient(batch: Any) -> None:
    plain, thrifty = fresh(), fresh()
    thrifty.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    assert thrifty.is_gradient_checkpointing
    for model in (plain, thrifty):
        model.train()(**batch).loss.backward()
    for (name, one), other in zip(plain.named_parameters(), thrifty.parameters(), strict=True):
        assert torch.allclose(one.grad, other.grad, atol=1e-7), name
    thrifty.gradient_checkpointing_disable()
    assert not thrifty.is_gradient_checkpointing


def test_the_notebook_with_lora(batch: Any, tmp_path: Path) -> None:
    """Its very calls: the adapter twice, then peft's wrapper; training, saving, loading, merging."""
    model: Any = fresh(quantization_config=None, _attn_implementation="flash_attention_2", device_map="auto")
    config = LoraConfig(**LORA, use_dora=False)
    config.inference_mode = False
    model.add_adapter(config)
    model.enable_adapters()
    model = prepare_model_for_kbit_training(model)
    model = get_peft_model(model, config)
    trainable, total = model.get_nb_trainable_parameters()
    assert 0 < trainable < total
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-3)
    losses = []
    for _ in range(6):
        loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss))
    assert losses[-1] < losses[0] - 0.5
    model.eval()
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    adapted = model.generate(**inputs, max_new_tokens=4)
    with torch.no_grad():
        logits = model(**inputs).logits
    model.save_pretrained(tmp_path / "adapter")
    with pytest.raises(AdapterError, match="not merged"):
        model.base_model.model.save_pretrained(tmp_path / "no")

    again = PeftModel.from_pretrained(fresh(), tmp_path / "adapter")
    with torch.no_grad():
        assert torch.allclose(again(**inputs).logits, logits, atol=1e-5)
    merged = again.merge_and_unload()
    assert isinstance(merged, ImageTextToTextModel)
    assert torch.equal(merged.generate(**inputs, max_new_tokens=4), adapted)
    merged.save_pretrained(tmp_path / "merged")
    ours().processor.save_pretrained(tmp_path / "merged")
    with torch.no_grad():
        saved = AutoModelForImageTextToText.from_pretrained(tmp_path / "merged")(**inputs)
    assert torch.allclose(saved.logits, logits, atol=1e-4)
    assert load(tiny_checkpoint(), adapter=tmp_path / "adapter", engine="torch", dtype="float32").config.text.vocab_size == 49280


def test_what_is_saved_is_loaded_by_transformers(batch: Any, tmp_path: Path) -> None:
    from oracle import transformers

    model, processor = fresh(), AutoProcessor.from_pretrained(tiny_checkpoint(), size={"longest_edge": 128})
    with torch.no_grad():
        model.model.connector.modality_projection.proj.weight *= 1.5
        expected = model(**batch).loss
    processor.save_pretrained(tmp_path)
    model.save_pretrained(tmp_path)
    model.save_pretrained(tmp_path)  # a second time, over the first
    theirs = transformers.AutoModelForImageTextToText.from_pretrained(tmp_path)
    with torch.no_grad():
        assert float(theirs(**batch).loss) == pytest.approx(float(expected), abs=1e-5)
    read = transformers.AutoProcessor.from_pretrained(tmp_path)
    assert read.image_processor.size["longest_edge"] == 128 == AutoProcessor.from_pretrained(tmp_path).image_processor.size.longest_edge
    messages = [user({"type": "image"}, text_part("What?"))]
    assert read.apply_chat_template(messages) == processor.apply_chat_template(messages)
    assert load(tmp_path, engine="torch", dtype="float32").ask(None, "Hi", max_new_tokens=1).text is not None


def test_the_video_notebooks_collate_function(talks: dict[str, list[Any]]) -> None:
    """Rows of unequal length and number of frames, padded by hand and without `pixel_attention_mask`."""
    losses = []
    for side in (ours(), reference()):
        processor = side.processor
        instances = [
            processor.apply_chat_template(
                [*talks[name], {"role": "assistant", "content": [text_part("A wave.")]}],
                add_generation_prompt=False,
                tokenize=True,
                return_dict=True,
                return_tensors="pt",
            )
            .to("cpu")
            .to(side.model.dtype)
            for name in ("video", "one image")
        ]
        ids = [instance["input_ids"].squeeze(0) for instance in instances]
        labels = pad_sequence([row.clone() for row in ids], batch_first=True, padding_value=-100)
        labels[labels == 49190] = -100
        pixels = [instance["pixel_values"].squeeze(0) for instance in instances if "pixel_values" in instance]
        most = max(len(tiles) for tiles in pixels)
        padded = [torch.cat([tiles, torch.zeros(most - len(tiles), *tiles.shape[1:])]) for tiles in pixels]
        out = {
            "input_ids": pad_sequence(ids, batch_first=True, padding_value=processor.tokenizer.pad_token_id),
            "attention_mask": pad_sequence([torch.ones_like(row) for row in ids], batch_first=True, padding_value=0),
            "labels": labels,
            "pixel_values": torch.stack(padded),
        }
        losses.append(float(side.model(**out).loss))
    assert losses[0] == pytest.approx(losses[1], abs=2e-3)  # the reference resizes frames with torchvision
    assert ours().processor.video_size["longest_edge"] == 256


@pytest.mark.slow
def test_transformers_trainer_trains_it(tmp_path: Path) -> None:
    from oracle import transformers

    processor = AutoProcessor.from_pretrained(tiny_checkpoint())
    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path),
        max_steps=4,
        per_device_train_batch_size=2,
        learning_rate=1e-3,
        report_to=[],
        remove_unused_columns=False,
        save_strategy="steps",
        save_steps=4,
        logging_steps=1,
        gradient_checkpointing=True,
        use_cpu=True,
        disable_tqdm=True,
    )
    model = get_peft_model(fresh(), LoraConfig(**LORA))
    trainer = transformers.Trainer(
        model=model, args=arguments, train_dataset=two_examples() * 4, data_collator=lambda examples: collate(processor, examples)
    )
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert len(losses) == 4
    assert losses[-1] < losses[0]
    assert (tmp_path / "checkpoint-4" / "adapter_model.safetensors").is_file()


def test_what_does_not_go_says_what_does(batch: Any, tmp_path: Path) -> None:
    model, processor = ours().model, ours().processor
    for push in (model.push_to_hub, processor.push_to_hub, processor.tokenizer.push_to_hub):
        with pytest.raises(ParamsError, match="hf upload me/mine out"):
            push("me/mine")
    with pytest.raises(ParamsError, match="finetune --method qlora"):
        fresh(quantization_config={"load_in_4bit": True})
    with pytest.raises(ParamsError, match="never written"):
        model.save_pretrained(tmp_path, safe_serialization=False)
    with pytest.raises(ParamsError, match="reserved"):
        model.resize_token_embeddings(50_000)
    with pytest.raises(ParamsError, match="reserved_special_token"):
        processor.tokenizer.add_tokens(["<FWD_0>"])
    for arguments, says in (
        ({"past_key_values": object()}, "session"),
        ({"inputs_embeds": object()}, "input_ids"),
        ({"output_attentions": True}, "leave it out"),
        ({"bogus": 1}, "bogus"),
    ):
        with pytest.raises(ParamsError, match=says):
            model(**batch, **arguments)
    ids, pixels = batch["input_ids"], batch["pixel_values"]
    for wrong, says in (
        ({}, "input_ids"),
        ({"input_ids": ids.float()}, "ids"),
        ({"input_ids": ids}, "image tokens"),
        ({"input_ids": ids + 10**6}, "vocabulary"),
        ({"input_ids": ids, "pixel_values": pixels[:, :1]}, "image tokens"),
        ({"input_ids": ids, "pixel_values": pixels[..., :9]}, "pixel_values has shape"),
        ({**batch, "labels": ids[:, 1:]}, "labels have shape"),
        ({**batch, "attention_mask": ids[:, 1:]}, "attention_mask has shape"),
    ):
        with pytest.raises(PromptError, match=says):
            model(**wrong)


def test_the_tokenizers_names() -> None:
    from oracle import transformers

    tokenizer, theirs = ours().processor.tokenizer, transformers.AutoTokenizer.from_pretrained(tiny_checkpoint())
    assert tokenizer.additional_special_tokens == ["<fake_token_around_image>", "<image>", "<end_of_utterance>"]
    assert tokenizer.additional_special_tokens_ids == [49189, 49190, 49279]
    assert tokenizer.extra_special_tokens == tokenizer.additional_special_tokens
    for name in ("bos_token", "eos_token", "pad_token", "unk_token"):
        assert getattr(tokenizer, name) == getattr(theirs, name)
        assert getattr(tokenizer, f"{name}_id") == getattr(theirs, f"{name}_id")
    assert set(theirs.all_special_tokens) - {"<global-img>"} == set(tokenizer.all_special_tokens)
    assert set(tokenizer.all_special_ids) <= set(theirs.all_special_ids)
    text = "How many 12 \u00e9?"
    assert tokenizer.tokenize(text) == theirs.tokenize(text)
    assert tokenizer.convert_ids_to_tokens(tokenizer.encode(text)) == theirs.convert_ids_to_tokens(theirs.encode(text))
    assert tokenizer.convert_tokens_to_ids(["<image>", "a"]) == theirs.convert_tokens_to_ids(["<image>", "a"])
    assert (tokenizer.vocab_size, len(tokenizer)) == (theirs.vocab_size, len(theirs))
    assert tokenizer.get_vocab() == theirs.get_vocab()
    own = AutoProcessor.from_pretrained(tiny_checkpoint()).tokenizer
    own.pad_token = own.eos_token
    assert own.pad_token_id == own.eos_token_id == 49279


def test_the_image_processor_is_read_and_set() -> None:
    processor = AutoProcessor.from_pretrained(tiny_checkpoint())
    picture = photo(150, 60, 1)
    theirs = reference().processor.image_processor
    for name in ("do_image_splitting", "image_mean", "image_std", "resample", "rescale_factor", "do_resize"):
        mine, other = getattr(processor.image_processor, name), getattr(theirs, name)
        assert (list(mine) if isinstance(mine, list) else mine) == (list(other) if isinstance(other, tuple) else other), name
    assert processor.image_processor.size["longest_edge"] == theirs.size["longest_edge"]
    called = processor.image_processor(picture, return_tensors="pt")
    assert torch.allclose(called["pixel_values"], theirs(picture, return_tensors="pt")["pixel_values"], atol=1e-6)
    inputs = processor.apply_chat_template([user(image_part(150, 60, 1))], **CALL, return_tensors="pt")
    assert inputs["pixel_values"].shape[1] > 1
    processor.image_processor.do_image_splitting = False
    assert processor.apply_chat_template([user(image_part(150, 60, 1))], **CALL, return_tensors="pt")["pixel_values"].shape[1] == 1
    processor.image_processor.size = {"longest_edge": 128}
    assert processor.image_processor.size.longest_edge == 128
    for name, value in (("size", (384, 384)), ("do_resize", False), ("image_std", [0, 0, 0]), ("patch_size", 3)):
        with pytest.raises(ParamsError):
            setattr(processor.image_processor, name, value)
