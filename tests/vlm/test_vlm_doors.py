"""All doors give the same tokens: the verbs, the server, batch, the page, `compat` and the command line, on both engines."""

from __future__ import annotations

import base64
import contextlib
import functools
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest

import smolvlm
from helpers_scale import read, settings
from helpers_serve import Server, serving
from smolvlm import Answer, SmolVLM
from smolvlm.compat.generating import Prompts, generate_batch
from smolvlm.compat.generation_arguments import GenerateArguments
from smolvlm.generation import GenerationParams
from smolvlm.inference.scoring import Candidates
from smolvlm.media import MediaOptions
from smolvlm.prompt import messages as messages_module
from smolvlm.prompt.messages import parse_messages
from smolvlm.scale.batch import run_batch
from smolvlm.scale.settings import ModelSpec
from smolvlm.ui.conversation import Conversation
from smolvlm.ui.turn import Settings, Turn

MEDIA = Path(__file__).parents[2] / "examples" / "media" / "nano"
NEW = 12
ENGINES = {"native": ("native", "q8"), "torch": ("torch", "float32")}
CASES = {
    "a picture": (["sign.png"], "What does the sign say?"),
    "several pictures": (["before.png", "after.png"], "What has changed?"),
    "a video": (["clip.mp4"], "What happens in this video?"),
    "text": ([], "Is there a butterfly? Say what you think of it."),
}


@dataclass(frozen=True)
class Seen:
    """What every door tells of an answer; `ids` and `image_tokens` where it does."""

    text: str
    reason: str
    prompt_tokens: int
    completion_tokens: int

    @classmethod
    def of(cls, answer: Answer) -> Seen:
        return cls(answer.text, answer.finish_reason, answer.usage.prompt_tokens, answer.usage.completion_tokens)


@dataclass(frozen=True)
class Case:
    model: SmolVLM
    media: list[Path]
    question: str
    expected: Answer

    @property
    def sources(self) -> list[Path] | None:
        return self.media or None

    @property
    def content(self) -> list[dict[str, Any]]:
        """The parts of a message, as our own format writes them."""
        parts: list[dict[str, Any]] = [{"type": "video" if p.suffix == ".mp4" else "image", "path": str(p)} for p in self.media]
        return [*parts, {"type": "text", "text": self.question}]


@functools.cache
def loaded(engine: str) -> SmolVLM:
    name, dtype = ENGINES[engine]
    return smolvlm.load("nano", engine=name, dtype=dtype)


@functools.cache
def made(engine: str, name: str) -> Case:
    names, question = CASES[name]
    media = [MEDIA / each for each in names]
    return Case(loaded(engine), media, question, loaded(engine).ask(media or None, question, max_new_tokens=NEW))


@pytest.fixture(params=list(ENGINES))
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def model(engine: str) -> SmolVLM:
    return loaded(engine)


@pytest.fixture(params=list(CASES))
def case(request: pytest.FixtureRequest, engine: str) -> Case:
    return made(engine, request.param)


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Server]]:
    """One server an engine, for all cases: module-scoped parameters would start it anew for each."""
    with contextlib.ExitStack() as running:

        @functools.cache
        def server(engine: str) -> Server:
            name, dtype = ENGINES[engine]
            log = tmp_path_factory.mktemp("doors") / "log"
            return running.enter_context(serving(log, "--engine", name, "--dtype", dtype))

        yield server


def same(case: Case, answer: Answer) -> None:
    """Everything but the times, and what was paid for before."""
    expected = case.expected
    assert (answer.token_ids, Seen.of(answer), answer.warnings) == (expected.token_ids, Seen.of(expected), expected.warnings)
    assert answer.usage.image_tokens == expected.usage.image_tokens


def test_the_answer_is_worth_comparing(case: Case) -> None:
    usage = case.expected.usage
    assert usage.completion_tokens >= (2 if case.media else 1)
    assert (usage.encoded_tiles > 0) == bool(case.media)
    assert usage.prefilled_tokens == usage.prompt_tokens > usage.image_tokens


def test_verbs(case: Case) -> None:
    model = case.model
    stream = model.stream(case.sources, case.question, max_new_tokens=NEW)
    assert "".join(stream) == case.expected.text
    same(case, stream.answer)
    same(case, model.chat([{"role": "user", "content": case.content}], max_new_tokens=NEW))
    with model.session(case.sources, max_new_tokens=NEW) as session:
        same(case, session.ask(case.question, remember=False))
        again = session.ask(case.question)
        same(case, again)
        assert (again.usage.encoded_tiles, again.usage.prefilled_tokens) == (0, 1)
    for answer in model.ask_many([(case.sources, case.question), (None, "Hello"), (case.sources, case.question)], max_new_tokens=NEW)[::2]:
        same(case, answer)


def test_messages_are_parsed_once(model: SmolVLM, monkeypatch: pytest.MonkeyPatch) -> None:
    parsed = []
    real = messages_module._message
    monkeypatch.setattr(messages_module, "_message", lambda raw, *rest: parsed.append(raw) or real(raw, *rest))
    model.ask(MEDIA / "sign.png", "What does the sign say?", max_new_tokens=2)
    model.choose(MEDIA / "sign.png", "What does the sign say?", ["OPEN", "CLOSED", "EXIT"])
    model.chat([{"role": "user", "content": "Hello"}], max_new_tokens=2)
    assert len(parsed) == 3


def test_choose_asks_the_same_prompt(case: Case) -> None:
    runtime = case.model.runtime
    messages = parse_messages(case.model.messages(case.sources, case.question))
    media = runtime.read_media(messages, MediaOptions())
    prompt = Candidates(runtime, messages, ["yes", "no"], media).prompt
    assert prompt.input_ids == case.model.processor(messages).input_ids
    assert len(prompt.input_ids) == case.expected.usage.prompt_tokens


def part(path: Path) -> dict[str, Any]:
    kind, mime = ("video_url", "video/mp4") if path.suffix == ".mp4" else ("image_url", "image/png")
    return {"type": kind, kind: {"url": f"data:{mime};base64,{base64.b64encode(path.read_bytes()).decode()}"}}


@pytest.mark.parametrize(
    ("engine", "case"),
    [pytest.param(e, c, marks=[pytest.mark.slow] if e == "torch" and c != "a picture" else []) for e in ENGINES for c in CASES],
    indirect=True,
)
def test_the_server(case: Case, engine: str, servers: Callable[[str], Server]) -> None:
    server = servers(engine)
    content = [*map(part, case.media), {"type": "text", "text": case.question}]
    options: dict[str, Any] = {
        "model": "nano",
        "messages": [{"role": "user", "content": content}],
        "max_tokens": NEW,
        "logprobs": True,
        "temperature": 0,
    }
    words = [case.model.processor.tokenizer.decode([token], skip_special_tokens=False) for token in case.expected.token_ids]
    completion = server.client().chat.completions.create(**options)
    choice, usage = completion.choices[0], completion.usage
    assert usage is not None
    assert choice.logprobs is not None
    wanted = Seen.of(case.expected)
    assert Seen(choice.message.content or "", str(choice.finish_reason), usage.prompt_tokens, usage.completion_tokens) == wanted
    assert [token.token for token in choice.logprobs.content or ()] == words

    text, reason, tokens, told = "", "", [], None
    for event in server.client().chat.completions.create(**options, stream=True, stream_options={"include_usage": True}):
        told = event.usage or told
        for streamed in event.choices:
            text += streamed.delta.content or ""
            reason = streamed.finish_reason or reason
            tokens += [token.token for token in (streamed.logprobs and streamed.logprobs.content) or ()]
    assert told is not None
    assert Seen(text, reason, told.prompt_tokens, told.completion_tokens) == wanted
    assert tokens == words


def test_the_page(case: Case) -> None:
    turn = Turn(case.question, case.media, Settings(None, MediaOptions(), GenerationParams(max_new_tokens=NEW)))
    conversation = Conversation(case.model)
    conversation.answer(turn)
    conversation.close()
    assert turn.answer is not None
    same(case, turn.answer)
    assert turn.text == case.expected.text


@pytest.mark.parametrize("case", ["a picture", "a video"], indirect=True)  # a row of a run is one medium
def test_batch(case: Case, tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"
    engine = case.model.engine
    spec = ModelSpec("nano", settings(["x"]).model.fingerprint, engine=engine.name, device="cpu", dtype=engine.dtype)
    wanted = settings(case.media, model=spec, questions=(case.question, "Hello"), options={"max_new_tokens": NEW})
    run_batch(wanted, out, load=lambda: case.model)
    row = read(out)[0]
    seen = Seen(row["answer"], row["finish_reason"], row["prompt_tokens"], row["completion_tokens"])
    assert seen == Seen.of(case.expected)


def test_compat(case: Case) -> None:
    """The tensors that a processor of the reference's makes, on the same engine."""
    model, config = case.model, case.model.config
    inputs = model.processor([{"role": "user", "content": case.content}])
    pixels = inputs.pixel_values[None] if case.media else None
    prompts = Prompts.of(config, 2, config.eos_token_ids, input_ids=[list(inputs.input_ids)], pixel_values=pixels)
    arguments = GenerateArguments(GenerationParams(max_new_tokens=NEW, loop_guard=False), tuple(config.eos_token_ids), 2, NEW, None)
    decode = model.processor.tokenizer.answer_text
    rows = generate_batch(model.engine, prompts, arguments, decode, None, None, lambda array: array)
    answer = rows[0, len(inputs.input_ids) :].tolist()
    while answer and answer[-1] in config.eos_token_ids:
        answer.pop()
    assert tuple(answer) == case.expected.token_ids


# torch takes seconds to import: one case of it shows that the flag arrives
@pytest.mark.parametrize(("engine", "case"), [*(("native", name) for name in CASES), ("torch", "several pictures")], indirect=True)
def test_the_command_line(case: Case, engine: str) -> None:
    name, dtype = ENGINES[engine]
    flags = ["--model", "nano", "--engine", name, "--dtype", dtype, "--max-new-tokens", str(NEW), "--json"]
    command = [sys.executable, "-m", "smolvlm", "ask", *map(str, case.media), case.question, *flags]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    told = json.loads(run.stdout)
    usage = told["usage"]
    assert Seen(told["text"], told["finish_reason"], usage["prompt_tokens"], usage["completion_tokens"]) == Seen.of(case.expected)
    assert usage == asdict(case.expected.usage)
