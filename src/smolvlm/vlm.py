"""`SmolVLM`: one checkpoint, ready to be asked about pictures and videos. Everything an application needs is a verb here."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from smolvlm.answering import AnswerStream, answer_together
from smolvlm.answers import Answer, Choice
from smolvlm.checkpoint.adapter import Adapter
from smolvlm.engines.base import Engine
from smolvlm.engines.select import make_engine
from smolvlm.errors import ParamsError
from smolvlm.generation import GenerationParams, GrammarCompiler, parse_as
from smolvlm.hub import is_built_in, resolve
from smolvlm.media import MediaOptions, SourcePolicy, WantedKind
from smolvlm.media_parts import media_parts
from smolvlm.processor import Processor
from smolvlm.runtime import Progress, Prompted, Runtime, stage
from smolvlm.scoring import choose_option
from smolvlm.session import Session

DESCRIBE_PROMPT = "Describe this in detail."
EXTRACT_PROMPT = "Answer with one JSON object that holds what can be seen."

_MEDIA_KEYS = {f.name for f in fields(MediaOptions)}
_PARAM_KEYS = {f.name for f in fields(GenerationParams)}


def load(
    model: str | Path,
    *,
    adapter: str | Path | None = None,
    engine: str = "auto",
    device: str = "auto",
    dtype: str = "auto",
    prompt_style: str = "official",
    policy: SourcePolicy | None = None,
    on_progress: Progress | None = None,
) -> SmolVLM:
    """A checkpoint by folder, Hub id or short name ("256m", "500m", "2.2b"), ready to answer.

    adapter: the folder of a LoRA or DoRA adapter, as `smolvlm finetune` and peft save them, added into the weights.
    engine: "auto", "native" (C++, on a CPU) or "torch". device: "auto", "cpu", "cuda", "cuda:N", "mps". dtype: "auto"
    (q8 on a CPU), "bfloat16", "q8", "q4" (native), "float32", "float16" (torch). prompt_style: "official" (as
    `transformers` prompts) or "training" (as the authors trained). policy: what media may be opened.
    on_progress(stage, done, total) is called while weights load ("weights").

    Raises ModelNotFoundError, ConfigError, CheckpointError, EngineError, AdapterError for an adapter that cannot be read
    or belongs to another model, or MissingExtraError without torch.
    """
    adapted = None if adapter is None else Adapter(adapter)
    folder = resolve(str(model))
    processor = Processor.from_folder(folder, prompt_style=prompt_style, policy=policy or SourcePolicy())
    processor.knows_drawn_only = adapted is None and is_built_in(folder)
    on_tensor = stage(on_progress, "weights")
    loaded = make_engine(folder, processor.model, engine=engine, device=device, dtype=dtype, on_tensor=on_tensor, adapter=adapted)
    return SmolVLM(loaded, processor, name=str(model) if adapter is None else f"{model} + {adapter}")


class SmolVLM:
    """A loaded model. Its verbs take media first: a path, URL, bytes, Pillow picture, array, or a list of those.

    Keyword arguments of every verb are the fields of `MediaOptions` (detail, fps, max_frames, start, end, ...) and
    `GenerationParams` (max_new_tokens, temperature, stop, seed, ...); an unknown one is a ParamsError.
    """

    def __init__(self, engine: Engine, processor: Processor, name: str) -> None:
        self.engine, self.processor, self.name = engine, processor, name
        self.config = engine.config
        self.runtime = Runtime(engine, processor, name)
        self._grammars = GrammarCompiler(
            processor.tokenizer.json, self.config.text.vocab_size, self.config.eos_token_ids
        )

    def ask(self, media: Any, prompt: str, *, system: str | None = None, on_progress: Progress | None = None,
            **options: Any) -> Answer:  # fmt: skip
        """Answer `prompt` about `media` (None for text alone)."""
        return self.chat(self.messages(media, prompt, system, _kind(options)), on_progress=on_progress, **options)

    def describe(self, media: Any, *, prompt: str = DESCRIBE_PROMPT, **options: Any) -> Answer:
        """Say what `media` shows."""
        return self.ask(media, prompt, **options)

    def chat(self, messages: Sequence[Mapping[str, Any]], **options: Any) -> Answer:
        """Answer a conversation in the messages format that `transformers` users know."""
        return self.stream_chat(messages, **options).answer

    def stream(self, media: Any, prompt: str, *, system: str | None = None, **options: Any) -> AnswerStream:
        """Like `ask`, as an iterator over pieces of text; its `.answer` is the whole, `.cancel()` ends it early."""
        return self.stream_chat(self.messages(media, prompt, system, _kind(options)), **options)

    def stream_chat(self, messages: Sequence[Mapping[str, Any]], *, on_progress: Progress | None = None,
                    **options: Any) -> AnswerStream:  # fmt: skip
        """Like `chat`, as an iterator over pieces of text."""
        media_options, params = split_options(options)
        prompted = self.runtime.prompt(messages, media_options, params.max_new_tokens, on_progress)
        return AnswerStream(self.runtime, prompted, params)

    def ask_many(
        self, requests: Sequence[tuple[Any, str]], *, system: str | None = None, **options: Any
    ) -> list[Answer]:
        """Answer several (media, prompt) pairs together: prompts may be of any length, decoding is shared."""
        kind = _kind(options)
        return self.chat_many([self.messages(media, prompt, system, kind) for media, prompt in requests], **options)

    def chat_many(self, conversations: Sequence[Sequence[Mapping[str, Any]]], *, on_progress: Progress | None = None,
                  **options: Any) -> list[Answer]:  # fmt: skip
        """Answer several conversations together, in the order given."""
        media_options, params = split_options(options)
        prompted: list[Prompted] = []
        try:
            for messages in conversations:
                prompted.append(self.runtime.prompt(messages, media_options, params.max_new_tokens, on_progress))
            return answer_together(self.runtime, prompted, params)
        finally:
            for item in prompted:
                item.cache.close()

    def choose(self, media: Any, question: str, options: Sequence[str], *, system: str | None = None,
               on_progress: Progress | None = None, **media_options: Any) -> Choice:  # fmt: skip
        """The likeliest of `options` as the answer, with probabilities: each option is scored, nothing is generated.

        Raises ParamsError for no options, an empty or a repeated one.
        """
        opened, params = split_options(media_options)
        if params != GenerationParams():
            raise ParamsError("choose generates nothing: it takes media options only, such as detail or fps.")
        return choose_option(self.runtime, self.messages(media, question, system, opened.media_kind), options, opened, on_progress)

    def extract(self, media: Any, schema: Any, prompt: str = EXTRACT_PROMPT, *, system: str | None = None,
                on_progress: Progress | None = None, **options: Any) -> Any:  # fmt: skip
        """Fill a JSON schema (dict or JSON text) or a pydantic model from `media`; the result always validates.

        Returns an instance of the pydantic model, else the parsed JSON. Raises SchemaError for a schema that is empty,
        malformed or beyond the grammar compiler, GrammarError for one that proves too complex during the answer.
        """
        media_options, params = split_options(options)
        grammar = self._grammars.json_schema(schema)  # a bad schema is refused before any work
        messages = self.messages(media, prompt, system, media_options.media_kind)
        prompted = self.runtime.prompt(messages, media_options, params.max_new_tokens, on_progress)
        answer = AnswerStream(self.runtime, prompted, params, grammar=grammar).answer
        return parse_as(schema, answer.text)

    def session(self, media: Any = None, *, system: str | None = None, **options: Any) -> Session:
        """A conversation about `media` that encodes it once; each further question costs only its own tokens."""
        media_options, params = split_options(options)
        return Session(self.runtime, media_parts(media, self.processor.policy, media_options.media_kind), system, media_options, params)

    async def aask(self, media: Any, prompt: str, **options: Any) -> Answer:
        """`ask` for asyncio: it runs in a worker thread."""
        return await asyncio.to_thread(self.ask, media, prompt, **options)

    async def achat(self, messages: Sequence[Mapping[str, Any]], **options: Any) -> Answer:
        """`chat` for asyncio."""
        return await asyncio.to_thread(self.chat, messages, **options)

    async def astream(self, messages: Sequence[Mapping[str, Any]], **options: Any) -> AsyncIterator[str]:
        """`stream_chat` for asyncio; leaving the loop early cancels the answer."""
        stream = await asyncio.to_thread(self.stream_chat, messages, **options)
        try:
            while (delta := await asyncio.to_thread(next, stream, None)) is not None:
                yield delta
        finally:
            stream.cancel()
            await asyncio.to_thread(stream.close)

    def messages(self, media: Any, prompt: str, system: str | None = None,
                 media_kind: WantedKind = "auto") -> list[dict[str, Any]]:  # fmt: skip
        """The conversation that `ask` sends: an optional system turn, then the media and the prompt."""
        content = [*media_parts(media, self.processor.policy, media_kind), {"type": "text", "text": prompt}]
        turns: list[dict[str, Any]] = [] if system is None else [{"role": "system", "content": system}]
        return [*turns, {"role": "user", "content": content}]


def _kind(options: Mapping[str, Any]) -> WantedKind:
    return MediaOptions(media_kind=options.get("media_kind", "auto")).media_kind


def split_options(options: Mapping[str, Any]) -> tuple[MediaOptions, GenerationParams]:
    """Sort keyword arguments into the two dataclasses that own them. Raises ParamsError naming an unknown one."""
    unknown = sorted(set(options) - _MEDIA_KEYS - _PARAM_KEYS)
    if unknown:
        known = ", ".join(sorted(_MEDIA_KEYS | _PARAM_KEYS))
        raise ParamsError(f"unknown option {', '.join(unknown)}; the options are {known}.")
    return (MediaOptions(**{k: v for k, v in options.items() if k in _MEDIA_KEYS}),
            GenerationParams(**{k: v for k, v in options.items() if k in _PARAM_KEYS}))  # fmt: skip
