"""The reference's model object: a PyTorch module that answers on our engine, trains, and saves what the reference loads."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from smolvlm.compat.arguments import device_and_dtype
from smolvlm.compat.forward import CausalLMOutput, causal_lm_loss, forward, refuse_arguments
from smolvlm.compat.generating import Prompts, Streamer, generate_batch
from smolvlm.compat.generation_arguments import GenerateArguments, read_generation_config
from smolvlm.compat.model_config import CompatConfig
from smolvlm.compat.saving import refuse_upload, save_model_files
from smolvlm.config import ModelConfig
from smolvlm.engines.base import Engine
from smolvlm.engines.select import make_engine
from smolvlm.engines.torch_device import choose_dtype
from smolvlm.engines.torch_engine import TorchEngine
from smolvlm.errors import ParamsError, PromptError
from smolvlm.nn.checkpointing import disable_checkpointing, enable_checkpointing, is_checkpointed
from smolvlm.nn.model import SmolVLMForConditionalGeneration
from smolvlm.nn.weights import load_model
from smolvlm.prompt.tokenizer import PromptTokenizer

_INPUTS = ("input_ids", "attention_mask", "pixel_values", "pixel_attention_mask")
_PARTS = ("model", "lm_head")


class ImageTextToTextModel(nn.Module):
    """A loaded checkpoint under the reference's names, `model` and `lm_head` as its modules.

    Whoever only generates has the engine's packed weights. The modules come into being when they are first touched
    (`parameters()`, `model(...)`, `train()`, peft), and from then on generation runs on them, as they are at that moment.
    """

    accepts_loss_kwargs = True  # `Trainer` then gives `num_items_in_batch`
    loss_type = "ForCausalLM"
    supports_gradient_checkpointing = True

    def __init__(self, folder: Path, config: ModelConfig, device: torch.device, dtype: torch.dtype) -> None:
        super().__init__()
        self.training = False
        self.name_or_path = str(folder)
        self.config = CompatConfig(config, str(folder), str(dtype).removeprefix("torch."))
        self.generation_config = SimpleNamespace(**read_generation_config(folder))
        self._ours, self._folder, self._device, self._dtype = config, folder, device, dtype
        self._net: list[SmolVLMForConditionalGeneration] = []  # in a list: its modules are ours, it is no child
        self._engine: Engine | None = None
        self._tokenizer: PromptTokenizer | None = None
        self._lock = threading.RLock()

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device if self._net else self._device

    @property
    def dtype(self) -> torch.dtype:
        return next(p.dtype for p in self.parameters() if p.is_floating_point()) if self._net else self._dtype

    @property
    def engine(self) -> Engine:
        """The engine that answers; the first access reads the weights. Raises CheckpointError or EngineError."""
        with self._lock:
            if self._net:
                return self._engine_of_modules()
            if self._engine is None:
                device, dtype = str(self._device), str(self._dtype).removeprefix("torch.")
                self._engine = make_engine(self._folder, self._ours, engine="torch", device=device, dtype=dtype)
            return self._engine

    def forward(
        self,
        input_ids: Any = None,
        attention_mask: Any = None,
        position_ids: Any = None,
        pixel_values: Any = None,
        pixel_attention_mask: Any = None,
        labels: Any = None,
        logits_to_keep: int = 0,
        return_dict: bool | None = None,
        **kwargs: Any,
    ) -> Any:
        """`logits` (batch, seq, vocab) with gradients, and with `labels` (batch, seq; -100 is not learned) the `loss`.

        The arguments are what the processor returned. Raises PromptError for inputs that do not belong together.
        """
        kwargs.pop("use_cache", None)
        items = kwargs.pop("num_items_in_batch", None)
        refuse_arguments(kwargs)
        logits = forward(
            self._graph(), self._ours, input_ids, attention_mask, position_ids, pixel_values, pixel_attention_mask, logits_to_keep
        )
        output = CausalLMOutput(logits=logits)
        if labels is not None:
            output = CausalLMOutput(loss=causal_lm_loss(logits, labels, items), logits=logits)
        return output.to_tuple() if return_dict is False else output

    def generate(self, inputs: Any = None, *, streamer: Streamer | None = None, **kwargs: Any) -> Tensor:
        """Continue each prompt; int64 (batch, prompt + new tokens) on the device of `input_ids`, padded on the right.

        `kwargs` are what the processor returned (input_ids, attention_mask, pixel_values, pixel_attention_mask) and the
        reference's max_new_tokens, max_length, do_sample, temperature, top_k, top_p, min_p, repetition_penalty,
        no_repeat_ngram_size, stop_strings, eos_token_id and pad_token_id, with its defaults. Without do_sample=True it
        is greedy; sampling draws its seed from torch's generator, so `torch.manual_seed` makes it repeatable.
        `streamer` gets the prompt, then one token a row a step, then `end()`, also when generation fails.

        Raises PromptError for inputs that do not belong together, ParamsError for arguments, ContextLengthError.
        """
        tensors = {name: kwargs.pop(name) for name in _INPUTS if name in kwargs}
        if inputs is not None:
            if "input_ids" in tensors:
                raise PromptError("generate was given both inputs and input_ids, which are the same; pass one of them.")
            tensors["input_ids"] = inputs
        if tensors.get("input_ids") is None:
            raise PromptError("generate needs input_ids; pass what the processor returned, as generate(**inputs).")
        kwargs.pop("labels", None)  # a batch that was made for training
        arguments = GenerateArguments.of(kwargs, vars(self.generation_config), self._ours)
        prompts = Prompts.of(self._ours, arguments.pad_token_id, arguments.eos_token_ids, **tensors)
        arguments.new_tokens(prompts.padded.shape[1])  # refuse before the weights are read
        seeds: list[int] | None = None
        if not arguments.params.greedy:
            seeds = torch.randint(2**63 - 1, (len(prompts.rows),)).tolist()
        decode = self._decode if arguments.params.stop else _no_text
        try:
            ids = generate_batch(self.engine, prompts, arguments, decode, seeds, streamer, torch.from_numpy)
        finally:
            if streamer is not None:
                streamer.end()  # whoever reads it in another thread must not wait for ever
        device = tensors["input_ids"].device if isinstance(tensors["input_ids"], Tensor) else self.device
        return torch.from_numpy(ids).to(device)

    def to(self, *args: Any, **kwargs: Any) -> ImageTextToTextModel:
        """Move to a device, a dtype or both, in place; weights that are packed already are read anew.

        Raises EngineError for a device that this machine lacks or a dtype that the engine does not compute in.
        """
        device, dtype = device_and_dtype(args, kwargs, "the model")
        device = self.device if device is None else device
        dtype = self.dtype if dtype is None else choose_dtype(str(dtype).removeprefix("torch."), device)
        with self._lock:
            if self._net:
                super().to(device=device, dtype=dtype)
            elif (device, dtype) != (self._device, self._dtype):
                self._engine = None
            self._device, self._dtype = device, dtype
        return self

    def cuda(self, device: Any = None) -> ImageTextToTextModel:
        """Move to a CUDA device, the first one unless said otherwise."""
        return self.to("cuda" if device is None else device)

    def cpu(self) -> ImageTextToTextModel:
        """Move to the CPU."""
        return self.to("cpu")

    def float(self) -> ImageTextToTextModel:
        """Compute in float32."""
        return self.to(torch.float32)

    def half(self) -> ImageTextToTextModel:
        """Compute in float16."""
        return self.to(torch.float16)

    def bfloat16(self) -> ImageTextToTextModel:
        """Compute in bfloat16."""
        return self.to(torch.bfloat16)

    def train(self, mode: bool = True) -> ImageTextToTextModel:
        """Set the mode that dropout (of an adapter) goes by. Returns itself."""
        if self._net:
            super().train(mode)
        self.training = bool(mode)
        return self

    def get_input_embeddings(self) -> nn.Module:
        """The table of token embeddings."""
        return self._graph().model.text_model.embed_tokens

    def get_output_embeddings(self) -> nn.Module:
        """The layer that makes logits."""
        return self._graph().lm_head

    def enable_input_require_grads(self) -> None:
        """Let gradients reach the embeddings' output, though the table itself is frozen."""
        self.get_input_embeddings().register_forward_hook(lambda _module, _inputs, output: output.requires_grad_(True))

    def gradient_checkpointing_enable(self, gradient_checkpointing_kwargs: Any = None, **_: Any) -> None:
        """Recompute every layer in the backward pass: less memory, a third more time."""
        del gradient_checkpointing_kwargs  # the reentrant kind cannot follow frozen parts; ours is the other
        enable_checkpointing(self._graph())

    def gradient_checkpointing_disable(self) -> None:
        """Keep what the backward pass needs."""
        disable_checkpointing(self._graph())

    @property
    def is_gradient_checkpointing(self) -> bool:
        return bool(self._net) and is_checkpointed(self._graph())

    def num_parameters(self, only_trainable: bool = False, exclude_embeddings: bool = False) -> int:
        """How many values the parameters hold."""
        table = id(self.get_input_embeddings().weight) if exclude_embeddings else None
        return sum(p.numel() for p in self.parameters() if id(p) != table and (p.requires_grad or not only_trainable))

    def resize_token_embeddings(self, new_num_tokens: int | None = None, **_: Any) -> nn.Module:
        """The table of embeddings; its size is the checkpoint's. Raises ParamsError for any other."""
        if new_num_tokens is not None and new_num_tokens > self._ours.text.vocab_size:
            raise ParamsError(
                f"resize_token_embeddings({new_num_tokens}): the vocabulary stays at "
                f"{self._ours.text.vocab_size}; use one of its reserved tokens."
            )
        return self.get_input_embeddings()

    def add_adapter(self, adapter_config: Any, adapter_name: str = "default") -> None:
        """Put a new adapter of peft into the modules; everything else is frozen."""
        from peft import inject_adapter_in_model

        self.requires_grad_(False)
        inject_adapter_in_model(adapter_config, self, adapter_name=adapter_name)

    def enable_adapters(self) -> None:
        """Adapters that were added are on already."""

    def prepare_inputs_for_generation(self, input_ids: Any, **kwargs: Any) -> dict[str, Any]:
        """What `generate` would hand to `forward`; peft asks for its being there."""
        return {"input_ids": input_ids, **kwargs}

    def save_pretrained(self, save_directory: Any, **kwargs: Any) -> None:
        """Write config.json, generation_config.json and the weights into a folder, beside what is there.

        The reference and `smolvlm.load` read it, together with the processor's files (`processor.save_pretrained`).
        Raises CheckpointError for adapters that are not merged, or a disk that refuses.
        """
        if kwargs.pop("push_to_hub", False):
            self.push_to_hub(save_directory)
        if kwargs.pop("safe_serialization", True) is False:
            raise ParamsError("save_pretrained: safe_serialization=False writes pickle files, which are never written here.")
        save_model_files(self._graph(), Path(save_directory), self._folder)

    def push_to_hub(self, repo_id: Any = None, **_: Any) -> None:
        """Nothing is uploaded from here. Raises ParamsError with the two commands that do it."""
        refuse_upload("the model", repo_id)

    def named_modules(self, memo: Any = None, prefix: str = "", remove_duplicate: bool = True) -> Iterator[tuple[str, nn.Module]]:
        self._graph()
        yield from super().named_modules(memo, prefix, remove_duplicate)

    def named_children(self) -> Iterator[tuple[str, nn.Module]]:
        self._graph()
        return super().named_children()

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        self._graph()
        return super().state_dict(*args, **kwargs)

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        self._graph()
        return super().load_state_dict(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        if name in _PARTS and "_lock" in self.__dict__ and not self._net:
            self._graph()
        return super().__getattr__(name)

    def _graph(self) -> SmolVLMForConditionalGeneration:
        """The graph over our modules, also where peft or a user put others in their place; the first call reads them."""
        with self._lock:
            if not self._net:
                net = load_model(self._folder, self._ours, device=self._device, dtype=self._dtype)
                self._net, self._engine = [net.train(self.training)], None
                self.model, self.lm_head = net.model, net.lm_head
            net = self._net[0]
            if net.lm_head is not self.lm_head or net.model is not self.model:
                net.model, net.lm_head = self.model, self.lm_head
            return net

    def _engine_of_modules(self) -> Engine:
        """A fresh engine for each use: it is cheap without packing, and modules change between two uses."""
        modes = {module: module.training for module in self.modules()}
        engine = TorchEngine(self._graph(), pack=False, static_cache=False)
        for module, mode in modes.items():  # the engine sets `eval`
            module.training = mode
        return engine

    def _decode(self, ids: Any) -> str:
        if self._tokenizer is None:
            self._tokenizer = PromptTokenizer.from_folder(self._folder)
        return self._tokenizer.decode(ids, skip_special_tokens=True)


def _no_text(ids: Any) -> str:
    """Nobody reads the text of an answer that has no stop strings: `generate` returns ids."""
    del ids
    return ""
