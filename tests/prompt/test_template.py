"""Chat templates: the three official places, equality with the reference, and strangers' code in its cage."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from smolvlm.errors import CheckpointError, PromptError
from smolvlm.families.grammar import OFFICIAL_TEMPLATE, VIDEO_TEMPLATE
from smolvlm.prompt import ChatTemplate, IdSegment, ImagePart, Message, TextPart, TextSegment, TokenPart, VideoPart

CHAT = [Message("system", (TextPart("Be brief."),)), Message("user", (ImagePart("a.png"), TextPart("What? ")))]


def shown(template: ChatTemplate, messages: list[Message], **options: Any) -> str:
    """The rendered prompt as one string, media as their markers."""
    marker = {ImagePart: "<image>", VideoPart: "<video>"}
    pieces = template.render(messages, **options)
    return "".join(piece.text if isinstance(piece, TextSegment) else marker[type(piece)] for piece in pieces)


def test_the_official_form_by_hand() -> None:
    assert shown(ChatTemplate(), CHAT) == (
        "<|im_start|>System: Be brief.<end_of_utterance>\nUser:<image>What? <end_of_utterance>\nAssistant:"
    )
    assert shown(ChatTemplate(), CHAT, add_generation_prompt=False).endswith("What? <end_of_utterance>\n")
    text_first = [Message("user", (TextPart("Look: "), ImagePart("a.png")))]
    assert shown(ChatTemplate(), text_first) == "<|im_start|>User: Look: <image><end_of_utterance>\nAssistant:"


def test_a_video_brings_the_references_own_template(caplog: pytest.LogCaptureFixture) -> None:
    """`DEFAULT_CHAT_TEMPLATE` of the reference takes over, whatever the checkpoint carries; the log says so, once each."""
    from oracle import transformers

    assert transformers.models.smolvlm.processing_smolvlm.DEFAULT_CHAT_TEMPLATE == VIDEO_TEMPLATE
    clip = [Message("user", (VideoPart("a.mp4"), TextPart("What?")))]
    own = ChatTemplate("{{ messages[0].content[0].text }}", label="its own template")
    for template in (ChatTemplate(), ChatTemplate(VIDEO_TEMPLATE), own, own):
        assert shown(template, clip) == "<|im_start|>User: <video>What?<end_of_utterance>\nAssistant:"
    assert [r.message.partition(";")[0] for r in caplog.records] == ["its own template is not the published one"]


def test_stretches_remember_who_wrote_them() -> None:
    messages = [Message("user", (TextPart("<image>"), ImagePart("a"))), Message("assistant", (TokenPart((5, 6)),))]
    assert ChatTemplate().render(messages, add_generation_prompt=False) == [
        TextSegment("<|im_start|>User: ", trusted=True),
        TextSegment("<image>"),
        TextSegment("", trusted=True),
        ImagePart("a"),
        TextSegment("<end_of_utterance>\nAssistant:", trusted=True),
        IdSegment((5, 6)),
        TextSegment("<end_of_utterance>\n", trusted=True),
    ]


def test_the_space_before_exact_ids_is_their_own() -> None:
    """The model answers behind `Assistant:`, so its own ids bring the space that the template writes before text."""
    answers = [Message("assistant", (part,)) for part in (TokenPart((5,)), TextPart("x"))]
    assert [p.text for p in ChatTemplate().render(answers) if isinstance(p, TextSegment) and p.trusted] == [
        "<|im_start|>Assistant:",
        "<end_of_utterance>\nAssistant: ",
        "<end_of_utterance>\nAssistant:",
    ]


def test_typed_marks_are_only_text() -> None:
    """The private-use characters that stand in for text are themselves allowed in it."""
    typed = "\ue0000\ue001 \ue000\ue001 \ue0001b\ue001"
    assert [p for p in ChatTemplate().render([Message("user", (TextPart(typed),))]) if p == TextSegment(typed)]


@pytest.mark.parametrize("place", ["json", "jinja", "tokenizer string", "tokenizer list", "json object", "none"])
def test_the_official_places(place: str, tmp_path: Path) -> None:
    source = "{% for m in messages %}{{ m.role }}={% for c in m.content %}{{ c.text }}{% endfor %};{% endfor %}"
    named = [{"name": "other", "template": "x"}, {"name": "default", "template": source}]
    files: dict[str, tuple[str, str]] = {
        "json": ("chat_template.json", json.dumps({"chat_template": source})),
        "jinja": ("chat_template.jinja", source),
        "tokenizer string": ("tokenizer_config.json", json.dumps({"chat_template": source})),
        "tokenizer list": ("tokenizer_config.json", json.dumps({"chat_template": named})),
        "json object": ("chat_template.json", json.dumps({"chat_template": {"default": source}})),
    }
    if place != "none":
        (tmp_path / files[place][0]).write_text(files[place][1], encoding="utf-8")
    template = ChatTemplate.from_folder(tmp_path)
    assert template.source == (OFFICIAL_TEMPLATE if place == "none" else source)
    if place != "none":
        assert shown(template, [Message("user", (TextPart("Hi"),))]) == "user=Hi;"


def test_the_json_file_wins_over_the_others_as_in_the_reference(tmp_path: Path) -> None:
    (tmp_path / "chat_template.jinja").write_text("second", encoding="utf-8")
    (tmp_path / "tokenizer_config.json").write_text('{"chat_template": "third"}', encoding="utf-8")
    assert ChatTemplate.from_folder(tmp_path).source == "second"
    (tmp_path / "chat_template.json").write_text('{"chat_template": "first"}', encoding="utf-8")
    assert ChatTemplate.from_folder(tmp_path).source == "first"


def test_special_tokens_reach_the_template(tmp_path: Path) -> None:
    config = {"bos_token": "<s>", "eos_token": {"content": "</s>"}, "pad_token": None}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    (tmp_path / "chat_template.jinja").write_text(
        "{{ bos_token }}{{ messages[0].content[0].text }}{{ eos_token }}{{ pad_token is defined }}", encoding="utf-8"
    )
    template = ChatTemplate.from_folder(tmp_path)
    assert shown(template, [Message("user", (TextPart("Hi"),))]) == "<s>Hi</s>False"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("chat_template.json", "{"),
        ("chat_template.json", "[1]"),
        ("chat_template.json", '{"chat_template": 5}'),
        ("tokenizer_config.json", '{"chat_template": [{"name": "other", "template": "x"}]}'),
        ("chat_template.jinja", b"\xff\xfe\xff"),
    ],
)
def test_a_broken_file_is_named(name: str, content: str | bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(CheckpointError, match=name):
        ChatTemplate.from_folder(tmp_path)


TEXT = "{{ messages[0].content[0].text }}"


def rendered(source: str, text: str = "  typed <image>  ") -> list[Any]:
    return [p for p in ChatTemplate(source).render([Message("user", (TextPart(text),))]) if p != TextSegment("", True)]


@pytest.mark.parametrize(
    "strip", ["messages[0].content[0].text | trim", "messages[0].content[0].text.strip()", "messages[0].content[0].text.lstrip().rstrip()"]
)
def test_stripping_typed_text_still_strips_it(strip: str) -> None:
    before, after = TextSegment("[", True), TextSegment("]", True)
    assert rendered("[{{ " + strip + " }}]") == [before, TextSegment("typed <image>"), after]


def test_one_sided_strips() -> None:
    assert rendered("{{ messages[0].content[0].text.lstrip() }}") == [TextSegment("typed <image>  ")]
    assert rendered("{{ messages[0].content[0].text.rstrip().rstrip() }}") == [TextSegment("  typed <image>")]


def test_what_real_templates_use_works() -> None:
    source = """{%- set ns = namespace(count=0) -%}
    {%- for message in messages -%}
        {%- if loop.first and message['role'] == 'system' -%}{{ raise_exception('no system') }}{%- endif -%}
        {%- for item in message.content | selectattr('type', 'equalto', 'text') -%}
            {%- set ns.count = ns.count + 1 -%}
            {{ '<' ~ message.role | upper ~ '>' + item['text'] + '\\n' }}
        {%- endfor -%}
        {%- if loop.index0 % 2 == 0 and not loop.last -%}{%- continue -%}{%- endif -%}
    {%- endfor -%}
    {{ {'n': ns.count, 'tag': '<é>'} | tojson }}{{ range(3) | join(',') }}{{ strftime_now('%Y') | length }}"""
    messages = [Message("user", (TextPart("one"), TextPart("two"))), Message("assistant", (TextPart("three"),))]
    assert shown(ChatTemplate(source), messages) == ('<USER>one\n<USER>two\n<ASSISTANT>three\n{"n": 3, "tag": "<é>"}0,1,24')


def test_captured_output_is_the_text_that_was_written() -> None:
    source = TEXT + "{% set y %}{{ 'a' }}b{{ 'c' ~ 1 }}{% endset %}{% macro f(x) %}<{{ x }}>{% endmacro %}{{ y }}{{ f(y) }}"
    assert shown(ChatTemplate(source), [Message("user", (TextPart("hi "),))]) == "hi abc1<abc1>"


def test_a_long_conversation_stays_within_the_budget() -> None:
    messages = [Message("user" if i % 2 == 0 else "assistant", (TextPart(f"turn {i}"),)) for i in range(1000)]
    assert shown(ChatTemplate(), messages).count("<end_of_utterance>") == 1000
    looking = "{% for m in messages %}{% if loop.index == messages | length %}!{% endif %}{{ m.content[0].text }}{% endfor %}"
    assert shown(ChatTemplate(looking), messages).endswith("!turn 999")


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("no text at all", "leaves out typed text"),
        (TEXT * 2, "repeats or rewrites typed text"),
        ("{{ messages[0].content[0].text | upper }}{{ messages[0].content[0].text[1:] }}", "rewrites typed text"),
        ("{{ messages[0].content[0].text | replace('0', '9') }}", "repeats or rewrites typed text"),
        ("{{ messages[0].content }}", "leaves out typed text"),
        (TEXT + "<image>", "writes <image> where the messages have none"),
        (TEXT + "{{ messages[0].content[0].text.strip('x') }}", "white space only"),
    ],
)
def test_a_template_that_mangles_the_messages_is_refused(source: str, why: str) -> None:
    with pytest.raises(PromptError, match=why):
        rendered(source)


def test_a_template_that_drops_or_reorders_media_is_refused() -> None:
    picture = [Message("user", (ImagePart("a"), TextPart("b")))]
    with pytest.raises(PromptError, match="leaves out a picture"):
        ChatTemplate("{{ messages[0].content[1].text }}").render(picture)


HOSTILE = {
    "attribute walk": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "attr filter": "{{ '' | attr('__class__') }}",
    "format string": "{{ '{0.__class__}'.format(1) }}",
    "globals of a function": "{{ raise_exception.__globals__ }}",
    "init": "{{ range.__init__.__globals__ }}",
    "cycler": "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    "self": "{{ self.__init__.__globals__ }}",
    "namespace": "{% set ns = namespace() %}{% set ns.__class__ = 1 %}{{ ns.__class__ }}x",
    "include": "{% include '/etc/passwd' %}",
    "import": "{% import 'os' as os %}",
    "mutation": "{{ messages.append(1) }}",
    "environment": "{{ environment.left }}",
    "infinite range": "{% for i in range(10**12) %}x{% endfor %}",
    "silent nested loops": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "recursion": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "branching recursion": "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
    "branching blocks": "{% macro f(n) %}{% if n %}{% call f(n - 1) %}{% endcall %}{% call f(n - 1) %}{% endcall %}"
    "{% endif %}{% endmacro %}{{ f(60) }}",
    "doubling by +": "{% set ns = namespace(x='ab') %}{% for i in range(99) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
    "doubling by ~": "{% set ns = namespace(x='ab') %}{% for i in range(99) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
    "doubling by join": "{% set ns = namespace(x='ab') %}{% for i in range(99) %}{% set ns.x = [ns.x, ns.x] | join %}{% endfor %}",
    "doubling by replace": "{% set ns = namespace(x='ab') %}{% for i in range(99) %}{% set ns.x = ns.x.replace('a', ns.x) %}{% endfor %}",
    "doubling by capture": "{% set ns = namespace(x='ab') %}{% for i in range(99) %}"
    "{% set y %}{{ ns.x }}{{ ns.x }}{% endset %}{% set ns.x = y %}{% endfor %}",
    "doubling lists": "{% set ns = namespace(x=['ab']) %}{% for i in range(99) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x }}",
    "doubling, compared": "{% set ns = namespace(x=[1], y=[1]) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}"
    "{% set ns.y = [ns.y, ns.y] %}{% endfor %}{{ ns.x == ns.y }}",
    "doubling, hashed": "{% set ns = namespace(x=(1,)) %}{% for i in range(60) %}{% set ns.x = (ns.x, ns.x) %}"
    "{% endfor %}{{ {ns.x: 1} | length }}",
    "doubling, tested": "{% set ns = namespace(x=[1], y=[1]) %}{% for i in range(60) %}"
    "{% set ns.x = dict(a=ns.x, b=ns.x) %}{% set ns.y = dict(a=ns.y, b=ns.y) %}{% endfor %}"
    "{{ ns.x is eq ns.y }}",
    "copies": "{% set x = range(99999) | list %}{% for i in range(99999) %}{% set y = x[:] %}{% endfor %}",
    "repetition": "{{ 'x' * 10**10 }}",
    "nested repetition": "{{ ('x' * 1000) * 1000 * 1000 }}",
    "power": "{{ 9**9**9**9 }}",
    "big numbers": "{% set ns = namespace(x=3) %}{% for i in range(99) %}{% set ns.x = ns.x ** 60 %}{% endfor %}",
    "padding": "{{ 'x'.ljust(10**10) }}",
    "center filter": "{{ 'x' | center(10**10) }}",
    "indent filter": "{{ 'x\\ny' | indent(10**10) }}",
    "percent": "{{ '%10000000000d' % 1 }}",
    "joined generator": "{{ range(99999) | map('string') | join('x' * 9999) }}",
    "json indent": "{{ [1, [2]] | tojson(indent=10**10) }}",
    "much literal text": "{% set x %}{% for i in range(99999) %}" + "x" * 1000 + "{% endfor %}{% endset %}",
    "huge output": "{% for i in range(99999) %}" + "x" * 100 + "{% endfor %}",
    "lipsum": "{{ lipsum(n=10000) }}",
    "syntax": "{% for %}",
    "unbalanced": "{% if true %}",
    "deep nesting": "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "long source": "x" * 300_000,
    "raise": "{{ raise_exception('told\\nyou') }}",
    "division": "{{ 1 / 0 }}",
    "undefined": "{{ missing.attribute }}",
    "type error": "{{ 1 + 'a' }}",
    "strftime": "{{ strftime_now('%c' * 1000) }}",
}


@pytest.mark.parametrize("name", list(HOSTILE))
def test_hostile_templates_are_refused_quickly(name: str) -> None:
    """CVE-2024-34359, CVE-2026-5760: a checkpoint's template must neither run code nor take the machine."""
    started = time.process_time()
    with pytest.raises(PromptError) as caught:
        ChatTemplate(TEXT + HOSTILE[name]).render([Message("user", (TextPart("hi"),))])
    # Refused for what it does, not because the typed text got lost on the way.
    assert "the chat template failed" in str(caught.value) or "cannot be compiled" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "MemoryError" not in str(caught.value), "stopped by the budget, long before the memory is full"
    assert time.process_time() - started < 20, "seconds, not hours; one or two are usual"


def test_the_budget_belongs_to_one_rendering(monkeypatch: pytest.MonkeyPatch) -> None:
    """A template used all day does not run out of it."""
    monkeypatch.setattr("smolvlm.prompt.sandbox.BUDGET", 2000)
    template = ChatTemplate(TEXT + "{% for i in range(700) %}{% endfor %}")
    for _ in range(5):
        template.render([Message("user", (TextPart("hi"),))])
    with pytest.raises(PromptError, match="more work than a chat template may"):
        ChatTemplate(TEXT + "{% for i in range(1100) %}{% endfor %}").render([Message("user", (TextPart("hi"),))])
