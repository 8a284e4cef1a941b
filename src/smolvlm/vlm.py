"""`SmolVLM`: one checkpoint, ready to be asked about pictures and videos. Everything an application needs is a verb here."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from smolvlm.answers import Answer, Choice
from smolvlm.checkpoint.adapter import Adapter
from smolvlm.checkpoint.identity import fingerprint_of
from smolvlm.encoded import Encoded, Store, check_store
from smolvlm.engines.base import Engine, FloatArray
from smolvlm.engines.select import make_engine
from smolvlm.errors import ParamsError
from smolvlm.extraction import Extracted, fields_of
from smolvlm.generation import GenerationParams, Grammar, parse_as
from smolvlm.hub import is_built_in, resolve
from smolvlm.inference.decoding import AnswerStream, answer_together
from smolvlm.inference.hidden import Pool, check_pool, hidden_states
from smolvlm.inference.prompt import Medium
from smolvlm.inference.runtime import Prefilled, Progress, Runtime, stage
from smolvlm.inference.scoring import check_options, choose_options
from smolvlm.inference.tiles import all_embeds
from smolvlm.inference.timing import Clock
from smolvlm.media import MediaOptions, SourcePolicy, WantedKind
from smolvlm.media_parts import media_parts
from smolvlm.processor import Processor
from smolvlm.prompt.messages import parse_messages
from smolvlm.session import EXTRACT_PROMPT, Session

DESCRIBE_PROMPT = "Describe this in detail."

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
    name = str(model) if adapter is None else f"{model} + {adapter}"
    return SmolVLM(loaded, processor, name, weights=lambda: fingerprint_of(folder, adapter))


class SmolVLM:
    """A loaded model. Its verbs take media first: a path, URL, bytes, Pillow picture, array, or a list of those.

    Keyword arguments of every verb are the fields of `MediaOptions` (detail, fps, max_frames, start, end, ...) and
    `GenerationParams` (max_new_tokens, temperature, stop, seed, ...); an unknown one is a ParamsError.
    """

    def __init__(self, engine: Engine, processor: Processor, name: str, weights: Callable[[], str] = lambda: "") -> None:
        """`weights` gives the fingerprint of the weights, by which stored features know their model."""
        self.engine, self.processor, self.name = engine, processor, name
        self.config = engine.config
        self.runtime = Runtime(engine, processor, name, weights)

    @property
    def fingerprint(self) -> str:
        """The weights by a short name, which an `Encoded` of this model has too; "" of a model made by hand."""
        return self.runtime.fingerprint

    def ask(self, media: Any, prompt: str, *, system: str | None = None, on_progress: Progress | None = None, **options: Any) -> Answer:
        """Answer `prompt` about `media` (None for text alone)."""
        return self.stream(media, prompt, system=system, on_progress=on_progress, **options).answer

    def describe(self, media: Any, *, prompt: str = DESCRIBE_PROMPT, **options: Any) -> Answer:
        """Say what `media` shows."""
        return self.ask(media, prompt, **options)

    def chat(self, messages: Sequence[Mapping[str, Any]], **options: Any) -> Answer:
        """Answer a conversation in the messages format that `transformers` users know."""
        return self.stream_chat(messages, **options).answer

    def stream(
        self, media: Any, prompt: str, *, system: str | None = None, on_progress: Progress | None = None, **options: Any
    ) -> AnswerStream:
        """Like `ask`, as an iterator over pieces of text; its `.answer` is the whole, `.cancel()` ends it early."""
        clock = Clock()
        media_options, params = split_options(options)  # before any medium is opened
        messages = self.messages(media, prompt, system, media_options.media_kind)
        return self._stream(messages, media_options, params, clock, on_progress)

    def stream_chat(self, messages: Sequence[Mapping[str, Any]], *, on_progress: Progress | None = None, **options: Any) -> AnswerStream:
        """Like `chat`, as an iterator over pieces of text."""
        clock = Clock()
        media_options, params = split_options(options)
        return self._stream(messages, media_options, params, clock, on_progress)

    def _stream(
        self,
        messages: Sequence[Mapping[str, Any]],
        media_options: MediaOptions,
        params: GenerationParams,
        clock: Clock,
        on_progress: Progress | None,
        grammar: Grammar | None = None,
    ) -> AnswerStream:
        prefilled = self.runtime.prompt(messages, media_options, params.max_new_tokens, on_progress, clock)
        return AnswerStream(self.runtime, prefilled, params, grammar=grammar)

    def ask_many(
        self, requests: Sequence[tuple[Any, str]], *, system: str | None = None, on_progress: Progress | None = None, **options: Any
    ) -> list[Answer]:
        """Answer several (media, prompt) pairs together: prompts may be of any length, decoding is shared."""
        began = Clock().began
        media_options, params = split_options(options)
        opened = []
        for media, prompt in _pairs("ask_many", "(media, prompt)", requests):  # all, before anything is computed
            clock = Clock(began)
            clock.skip()
            messages = self.messages(media, prompt, system, media_options.media_kind)
            clock.lap("media")
            opened.append((messages, clock))
        return self._together(opened, media_options, params, on_progress)

    def chat_many(
        self, conversations: Sequence[Sequence[Mapping[str, Any]]], *, on_progress: Progress | None = None, **options: Any
    ) -> list[Answer]:
        """Answer several conversations together, in the order given."""
        began = Clock().began
        media_options, params = split_options(options)
        return self._together([(messages, Clock(began)) for messages in conversations], media_options, params, on_progress)

    def _together(
        self,
        opened: Sequence[tuple[Sequence[Mapping[str, Any]], Clock]],
        media_options: MediaOptions,
        params: GenerationParams,
        on_progress: Progress | None,
    ) -> list[Answer]:
        prefilled: list[Prefilled] = []
        try:
            for messages, clock in opened:
                clock.skip()
                prefilled.append(self.runtime.prompt(messages, media_options, params.max_new_tokens, on_progress, clock))
            return answer_together(self.runtime, prefilled, params)
        finally:
            for item in prefilled:
                item.sequence.close()

    def choose(
        self,
        media: Any,
        question: str,
        options: Sequence[str],
        *,
        system: str | None = None,
        on_progress: Progress | None = None,
        **media_options: Any,
    ) -> Choice:
        """The likeliest of `options` as the answer, with probabilities: each option is scored, nothing is generated.

        Raises ParamsError for no options, an empty or a repeated one.
        """
        return self.choose_many(media, [(question, options)], system=system, on_progress=on_progress, **media_options)[0]

    def choose_many(
        self,
        media: Any,
        questions: Sequence[tuple[str, Sequence[str]]],
        *,
        system: str | None = None,
        on_progress: Progress | None = None,
        **media_options: Any,
    ) -> list[Choice]:
        """`choose` for several (question, options) about the same media, which are read, encoded and prefilled once."""
        opened = _media_options("choose", media_options)
        wanted = _pairs("choose_many", "(question, options)", questions)
        for _, options in wanted:
            check_options(options)
        parts = media_parts(media, self.processor.policy, opened.media_kind)
        asked = [(parse_messages(self.messages(parts, question, system)), options) for question, options in wanted]
        return choose_options(self.runtime, asked, opened, on_progress)

    def extract(
        self,
        media: Any,
        schema: Any,
        prompt: str = EXTRACT_PROMPT,
        *,
        details: bool = False,
        system: str | None = None,
        on_progress: Progress | None = None,
        **options: Any,
    ) -> Any:
        """Fill a JSON schema (dict or JSON text) or a pydantic model from `media`; the result always validates.

        Returns an instance of the pydantic model, else the parsed JSON; with `details` an `Extracted`, which also says for
        each value where in the answer it stands and how likely the model found it. Raises SchemaError for a schema that is empty,
        malformed or beyond the grammar compiler, GrammarError for one that proves too complex during the answer.
        """
        clock = Clock()
        media_options, params = split_options(options)
        grammar = self.runtime.grammars.json_schema(schema)  # a bad schema is refused before any work
        if details and params.logprobs is None:
            params = replace(params, logprobs=0)
        messages = self.messages(media, prompt, system, media_options.media_kind)
        answer = self._stream(messages, media_options, params, clock, on_progress, grammar).answer
        value = parse_as(schema, answer.text)
        return Extracted(value, fields_of(answer, self.processor.tokenizer.decode), answer) if details else value

    def features(self, media: Any, *, pooled: bool = False, on_progress: Progress | None = None, **media_options: Any) -> list[FloatArray]:
        """What the decoder sees of each medium: the vision encoder's output after the connector, float32.

        One array a medium, (tokens, hidden): a row an image token, tiles one after the other. `pooled`: (hidden,), the mean
        over the tokens; good for comparing pictures with pictures, not with text.
        """
        every = [features.reshape(-1, features.shape[-1]) for _, features in self._features("features", media, on_progress, media_options)]
        return [rows.mean(0) for rows in every] if pooled else every

    def _features(
        self, verb: str, media: Any, on_progress: Progress | None, media_options: Mapping[str, Any]
    ) -> list[tuple[Medium, FloatArray]]:
        """Each medium with its features, (tiles, image_seq_len, hidden)."""
        opened = _media_options(verb, media_options)
        messages = parse_messages(self.messages(media, "", None, opened.media_kind))
        found = []
        for medium in self.runtime.read_media(messages, opened, on_progress):
            self.runtime.encode([medium], on_progress)
            found.append((medium, np.concatenate([embeds.numpy() for embeds in all_embeds(medium.tiles)])))
        return found

    def encode(self, medium: Any, *, store: Store = "float32", on_progress: Progress | None = None, **media_options: Any) -> Encoded:
        """One picture or video through the vision encoder, to be stored and asked about later: every verb takes the result.

        store: "float32" answers as the medium itself does; "bfloat16" halves and "int8" quarters the size, and the result's
        `error` says what that costs. Another model's weights refuse it. Raises ParamsError for several media.
        """
        kind = check_store(store)
        parts = media_parts(medium, self.processor.policy, split_options(media_options)[0].media_kind)
        if len(parts) != 1 or parts[0].get("type") == "text":
            raise ParamsError(f"encode takes one picture or video, not {len(parts) if len(parts) != 1 else 'a text'}; call it for each.")
        found, features = self._features("encode", parts, on_progress, media_options)[0]
        keys = tuple(tile.key for tile in found.tiles)
        return Encoded.of(found.info, keys, features, kind, self.name, self.runtime.fingerprint)

    def hidden(
        self,
        media: Any,
        prompt: str,
        *,
        pool: Pool = "last",
        system: str | None = None,
        on_progress: Progress | None = None,
        **media_options: Any,
    ) -> FloatArray:
        """The decoder's last hidden state, after its final norm, of the prompt that `ask` would answer; float32.

        pool: "last", the state that the first token of an answer comes from, (hidden,); "mean" of all tokens, (hidden,); or
        "all", (tokens, hidden).
        """
        return self.hidden_many([(media, prompt)], pool=pool, system=system, on_progress=on_progress, **media_options)[0]

    def hidden_many(
        self,
        requests: Sequence[tuple[Any, str] | Sequence[Mapping[str, Any]]],
        *,
        pool: Pool = "last",
        system: str | None = None,
        on_progress: Progress | None = None,
        **media_options: Any,
    ) -> list[FloatArray]:
        """`hidden` of several (media, prompt) pairs or conversations, computed together, in the order given; `system` is for pairs."""
        check_pool(pool)
        opened = _media_options("hidden", media_options)
        prompts = []
        for request in requests:
            if isinstance(request, tuple):
                media, prompt = request
                request = self.messages(media, prompt, system, opened.media_kind)
            elif system is not None:
                raise ParamsError("system is for (media, prompt) pairs; a conversation has a system message of its own.")
            conversation = parse_messages(request)
            prompts.append(self.runtime.word(conversation, self.runtime.read_media(conversation, opened, on_progress)))
        return hidden_states(self.runtime, prompts, pool, on_progress)

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

    def messages(self, media: Any, prompt: str, system: str | None = None, media_kind: WantedKind = "auto") -> list[dict[str, Any]]:
        """The conversation that `ask` sends: an optional system turn, then the media and the prompt."""
        content = [*media_parts(media, self.processor.policy, media_kind), {"type": "text", "text": prompt}]
        turns: list[dict[str, Any]] = [] if system is None else [{"role": "system", "content": system}]
        return [*turns, {"role": "user", "content": content}]


def _pairs(verb: str, pair: str, given: Any) -> list[tuple[Any, Any]]:
    """A verb's list of pairs. Raises ParamsError for anything else."""
    if isinstance(given, str | bytes | Mapping) or not isinstance(given, Iterable):
        raise ParamsError(f"{verb} takes a list of {pair} pairs, not a {type(given).__name__}.")
    items = list(given)
    for number, item in enumerate(items):
        if isinstance(item, str | bytes) or not isinstance(item, Sequence) or len(item) != 2:
            raise ParamsError(f"{verb}: entry {number} is no {pair} pair.")
    return [(item[0], item[1]) for item in items]


def _media_options(verb: str, options: Mapping[str, Any]) -> MediaOptions:
    """The options of a verb that generates nothing. Raises ParamsError for those of generation."""
    opened, params = split_options(options)
    if params != GenerationParams():
        raise ParamsError(f"{verb} generates nothing: it takes media options only, such as detail or fps.")
    return opened


def split_options(options: Mapping[str, Any]) -> tuple[MediaOptions, GenerationParams]:
    """Sort keyword arguments into the two dataclasses that own them. Raises ParamsError naming an unknown one."""
    unknown = sorted(set(options) - _MEDIA_KEYS - _PARAM_KEYS)
    if unknown:
        known = ", ".join(sorted(_MEDIA_KEYS | _PARAM_KEYS))
        raise ParamsError(f"unknown option {', '.join(unknown)}; the options are {known}.")
    return (
        MediaOptions(**{k: v for k, v in options.items() if k in _MEDIA_KEYS}),
        GenerationParams(**{k: v for k, v in options.items() if k in _PARAM_KEYS}),
    )
