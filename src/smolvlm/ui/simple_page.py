"""The simple form: one picture or video, one question, one answer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gradio as gr

from smolvlm.ui.controls import controls
from smolvlm.ui.look import TOGGLE_DARK
from smolvlm.ui.page import QUIET, Page, frames_gallery, gallery, new_blocks, top_row
from smolvlm.ui.words import Words


def simple_page(page: Page) -> gr.Blocks:
    """The Blocks of the form."""
    words = Words()
    blocks = new_blocks()
    with blocks:
        language, theme = top_row(page, words)
        with gr.Row():
            with gr.Column(min_width=320):
                upload = words.add(gr.File(elem_id="upload", height=140), label="upload")
                question = words.add(gr.Textbox(elem_id="question", lines=2), label="question", placeholder="question_hint")
                with gr.Row():
                    ask_button = words.add(gr.Button(variant="primary", elem_id="ask"), value="ask")
                    stop_button = words.add(gr.Button(variant="stop", elem_id="stop", visible=False), value="stop")
                given = gr.Examples([[str(e.file), e.question] for e in page.examples], [upload, question], cache_examples=False)
                words.add(given.dataset, label="examples")
            with gr.Column(min_width=320):
                answer = words.add(gr.Textbox(elem_id="answer", lines=5, interactive=False, buttons=["copy"]), label="answer")
                status = gr.HTML(elem_id="status")
                frames = words.add(frames_gallery(), label="seen")
        with words.add(gr.Accordion(open=False, elem_id="settings"), label="settings"):
            settings = controls(page.model, words)

        outputs = [answer, status, frames, ask_button, stop_button]

        def ask(request: gr.Request, file: Any, prompt: Any, lang: str, *values: Any) -> Iterator[list[Any]]:
            tab = page.tab(request)
            if not tab.busy:
                tab.clear()  # each question stands alone
            turn = page.ask(tab, prompt, [file] if file else [], lang, values)
            if turn is None:
                yield [gr.skip()] * len(outputs)
                return
            buttons, shown = [gr.update(visible=False), gr.update(visible=True)], gallery(turn)
            for _ in page.follow(turn):
                if turn.frames:
                    shown = gallery(turn)
                yield [page.written(turn, lang), "", shown, *buttons]
                buttons, shown = [gr.skip(), gr.skip()], gr.skip()
            yield [gr.skip(), page.status(turn, lang), gr.skip(), gr.update(visible=True), gr.update(visible=False)]

        def stop(request: gr.Request) -> None:
            page.tab(request).stop()

        def leave(request: gr.Request) -> None:
            page.tabs.close(str(request.session_hash))

        def greet(request: gr.Request) -> list[Any]:
            lang = page.language(request)
            return [lang, *words.updates(lang)]

        gr.on([ask_button.click, question.submit], ask, [upload, question, language, *settings], outputs, concurrency_limit=None, **QUIET)
        stop_button.click(stop, queue=False, **QUIET)
        theme.click(None, js=TOGGLE_DARK, **QUIET)
        language.input(words.updates, language, words.components, queue=False, **QUIET)
        blocks.load(greet, None, [language, *words.components], queue=False, **QUIET)
        blocks.unload(leave)
    return blocks
