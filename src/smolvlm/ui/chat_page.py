"""The page of a conversation: several turns, each with as many pictures and videos as one likes."""

from __future__ import annotations

import html
from collections.abc import Iterator
from typing import Any

import gradio as gr

from smolvlm.ui.controls import controls
from smolvlm.ui.look import TOGGLE_DARK
from smolvlm.ui.page import QUIET, Page, frames_gallery, gallery, new_blocks, top_row
from smolvlm.ui.tabs import Tab
from smolvlm.ui.words import Words


def chat_page(page: Page) -> gr.Blocks:
    """The Blocks of the page."""
    words = Words()
    blocks = new_blocks()
    with blocks:
        language, theme = top_row(page, words)
        with gr.Row():
            with gr.Column(scale=3, min_width=320):
                chat = words.add(_chatbot(page), label="chat", placeholder="placeholder")
                box = words.add(_box(), placeholder="box")
                status = gr.HTML(elem_id="status")
            with gr.Column(scale=1, min_width=300):
                new = words.add(gr.Button(elem_id="new"), value="new")
                frames = words.add(frames_gallery(), label="seen")
                with words.add(gr.Accordion(open=True, elem_id="settings"), label="settings"):
                    settings = controls(page.model, words)

        outputs = [chat, box, frames, status]

        def ask(request: gr.Request, message: Any, lang: str, *values: Any) -> Iterator[list[Any]]:
            message = message if isinstance(message, dict) else {}
            yield from _answer(page, page.tab(request), message.get("text"), message.get("files"), lang, values)

        def ask_example(request: gr.Request, event: gr.SelectData, lang: str, *values: Any) -> Iterator[list[Any]]:
            # By its number: the file that the browser names is not asked for.
            chosen = page.examples[int(event.index if isinstance(event.index, int) else 0)]
            yield from _answer(page, page.tab(request), chosen.question, [chosen.file], lang, values)

        def stop(request: gr.Request) -> None:
            page.tab(request).stop()

        def clear(request: gr.Request) -> list[Any]:
            page.tab(request).clear()
            return [[], gr.update(value=None, submit_btn=True, stop_btn=False), gr.update(value=[], visible=False), ""]

        def redraw(lang: str, request: gr.Request) -> list[Any]:
            return [messages(page, page.tab(request), lang), *words.updates(lang)]

        def leave(request: gr.Request) -> None:
            page.tabs.close(str(request.session_hash))

        def greet(request: gr.Request) -> list[Any]:
            lang = page.language(request)
            return [lang, *words.updates(lang)]

        # The line decides who is next, not Gradio's queue: a question shows its place, and can be stopped there.
        box.submit(ask, [box, language, *settings], outputs, concurrency_limit=None, **QUIET)
        chat.example_select(ask_example, [language, *settings], outputs, concurrency_limit=None, **QUIET)
        box.stop(stop, queue=False, **QUIET)
        new.click(clear, None, outputs, queue=False, **QUIET)
        chat.clear(clear, None, outputs, queue=False, **QUIET)
        theme.click(None, js=TOGGLE_DARK, **QUIET)
        language.input(redraw, language, [chat, *words.components], queue=False, **QUIET)
        blocks.load(greet, None, [language, *words.components], queue=False, **QUIET)
        blocks.unload(leave)
    return blocks


def messages(page: Page, tab: Tab, lang: str) -> list[dict[str, Any]]:
    """The conversation in Gradio's format. Text goes as a typed part: a plain string would be tidied up."""
    shown: list[dict[str, Any]] = []
    for turn in tab.turns:
        files = [{"path": str(path)} for path in turn.added]
        shown.append({"role": "user", "content": [*files, _text(turn.prompt)]})
        shown.append({"role": "assistant", "content": [_text(page.written(turn, lang))]})
    return shown


def _text(text: str) -> dict[str, str]:
    """Gradio draws text as HTML, cleaned but HTML, also where it draws no Markdown: what was typed is shown as typed."""
    return {"type": "text", "text": html.escape(text, quote=False)}


def _answer(page: Page, tab: Tab, prompt: Any, files: Any, lang: str, values: tuple[Any, ...]) -> Iterator[list[Any]]:
    turn = page.ask(tab, prompt, files, lang, values)
    if turn is None:
        yield [gr.skip()] * 4
        return
    box, frames = gr.update(value=None, submit_btn=False, stop_btn=True), gr.skip()
    for _ in page.follow(turn):
        if turn not in tab.turns:  # a new conversation began in the meantime
            return
        if turn.frames:
            frames = gallery(turn)
        yield [messages(page, tab, lang), box, frames, ""]
        box, frames = gr.skip(), gr.skip()
    yield [gr.skip(), gr.update(submit_btn=True, stop_btn=False), gr.skip(), page.status(turn, lang)]


def _chatbot(page: Page) -> gr.Chatbot:
    examples: list[Any] = [
        {"text": e.question, "display_text": e.question, "files": [str(e.file)], "icon": str(e.file)}
        if e.file.suffix == ".png"
        else {"text": e.question, "display_text": e.question, "files": [str(e.file)]}
        for e in page.examples
    ]
    return gr.Chatbot(
        elem_id="chat",
        height="calc(100vh - 320px)",
        min_height=380,
        show_label=False,
        examples=examples,
        render_markdown=False,
        latex_delimiters=[],
        buttons=["copy"],
        feedback_options=None,
        layout="bubble",
        allow_tags=False,
        group_consecutive_messages=False,
    )


def _box() -> gr.MultimodalTextbox:
    # Any file may be chosen: whether it is a picture or a video is seen in its content, and said in our own words.
    return gr.MultimodalTextbox(
        elem_id="box", file_count="multiple", show_label=False, lines=1, max_lines=8, autofocus=True, max_plain_text_length=100_000
    )
