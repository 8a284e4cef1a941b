"""What both pages do with a question: take it, follow its answer, word its state."""

from __future__ import annotations

import html
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from smolvlm.errors import ParamsError, SmolVLMError
from smolvlm.known_world import KNOWS
from smolvlm.ui.config import PageConfig
from smolvlm.ui.controls import settings_of
from smolvlm.ui.examples import Example
from smolvlm.ui.line import EngineLine
from smolvlm.ui.tabs import Tab, Tabs
from smolvlm.ui.texts import DEFAULT_LANGUAGE, LANGUAGES, preferred_language, text
from smolvlm.ui.turn import Turn
from smolvlm.ui.words import Words, heading, model_note
from smolvlm.vlm import SmolVLM

# Of every event: no spinner over what is being written, and no entry in Gradio's description of an API.
QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}

MAX_FILES = 16  # in one question
_POLL_S = 0.25  # how often a place in the line is looked up
_PAUSE_S = 0.05  # between two updates of the page: a browser need not draw every token


@dataclass(frozen=True)
class Page:
    """What a page stands on. `uploads` is the one folder whose files may be asked about."""

    model: SmolVLM
    config: PageConfig
    uploads: Path
    examples: tuple[Example, ...]
    tabs: Tabs
    line: EngineLine

    def tab(self, request: gr.Request) -> Tab:
        return self.tabs.of(str(request.session_hash))

    def language(self, request: gr.Request) -> str:
        """The language that a page starts in."""
        if self.config.lang in LANGUAGES:
            return self.config.lang
        return preferred_language(request.headers.get("accept-language", ""))

    def ask(self, tab: Tab, prompt: Any, files: Any, lang: str, settings: tuple[Any, ...]) -> Turn | None:
        """Put a question into the line; None, with a note to the user, when it cannot be asked."""
        try:
            paths = [self._upload(file, lang) for file in files or ()]
            prompt = prompt.strip() if isinstance(prompt, str) else ""
            if not prompt and not paths:
                raise ParamsError(text("empty", lang))
            if len(paths) > MAX_FILES:
                raise ParamsError(text("too_many", lang, count=len(paths), most=MAX_FILES))
            if tab.busy:
                raise ParamsError(text("busy", lang))
            return tab.ask(prompt, paths, settings_of(*settings))
        except SmolVLMError as error:
            gr.Warning(html.escape(str(error)), title="smolvlm")
            return None

    def _upload(self, file: Any, lang: str) -> Path:
        """A second lock behind Gradio's own: no path of this machine is opened because somebody wrote it into a request."""
        path = Path(str(file)).resolve()
        if not path.is_relative_to(self.uploads) or not path.is_file():
            raise ParamsError(text("not_an_upload", lang))
        return path

    def follow(self, turn: Turn) -> Iterator[None]:
        """Yields whenever the page should draw the turn anew; a last time after its end."""
        seen, ended = -1, False
        while not ended:
            seen = turn.wait(seen, _POLL_S)
            ended = turn.ended
            yield
            if not ended:
                time.sleep(_PAUSE_S)

    def state(self, turn: Turn, lang: str) -> str:
        """What a turn without words is doing, or why it has none."""
        if turn.stage == "ended":
            if turn.error is not None:
                return f"⚠️ {turn.error or text('defect', lang)}"
            return text("stopped" if turn.stopped else "no_words", lang)
        if turn.stage == "waiting":
            return text("waiting", lang, count=self.line.ahead(turn))
        if turn.stage in ("frames", "tiles"):
            return text(f"stage_{turn.stage}", lang, done=turn.done, total=turn.total)
        return text("starting" if turn.stage == "starting" else "stage_prefill", lang)

    def written(self, turn: Turn, lang: str) -> str:
        """The answer as far as it goes, or the state in its place."""
        return turn.text if turn.text.strip() else self.state(turn, lang)

    def status(self, turn: Turn, lang: str) -> str:
        """One line about an answer that ended: why, and what it cost; as HTML."""
        answer = turn.answer
        if answer is None:
            return ""
        usage, timings = answer.usage, answer.timings
        said = []
        if turn.stopped:
            said.append(text("stopped", lang))
        elif answer.finish_reason in ("length", "repetition"):
            said.append(text(f"ended_{answer.finish_reason}", lang, tokens=usage.completion_tokens))
        said.append(text("cost", lang, tokens=usage.completion_tokens, total=timings.total_s, first=timings.first_token_s))
        if usage.image_tokens:
            said.append(text("encoded" if usage.encoded_tiles else "reused", lang, tiles=usage.encoded_tiles))
        said += [sentence for sentence in answer.warnings if sentence != KNOWS]  # the page says that all the time
        return f"<p>{html.escape(' '.join(said))}</p>"


def new_blocks() -> gr.Blocks:
    """An empty page. Uploads are deleted a day after they came, if the program runs so long."""
    return gr.Blocks(title="smolvlm", analytics_enabled=False, fill_width=True, delete_cache=(3600, 24 * 3600))


def frames_gallery() -> gr.Gallery:
    """Where `gallery` is shown."""
    return gr.Gallery(
        elem_id="frames",
        columns=3,
        height="auto",
        format="jpeg",
        visible=False,
        interactive=False,
        object_fit="cover",
        buttons=["fullscreen"],
    )


def gallery(turn: Turn) -> Any:
    """The frames that the model saw, with their times; hidden where there are none. The turn gives them away: they are large."""
    frames, turn.frames = turn.frames, []
    return gr.update(value=[(f.picture, f.time) for f in frames], visible=bool(frames))


def top_row(page: Page, words: Words) -> tuple[Any, Any]:
    """Title, language and theme switches, and the note about the model: (language, theme button)."""
    with gr.Row(elem_id="top"):
        words.add(gr.HTML(elem_id="brand"), value=heading)
        language = gr.Radio(
            [(name, code) for code, name in LANGUAGES.items()],
            value=DEFAULT_LANGUAGE,
            elem_id="language",
            label=" / ".join(LANGUAGES.values()),
            show_label=False,
            container=False,
        )
        theme = words.add(gr.Button(size="sm", elem_id="theme"), value="theme")
    words.add(gr.HTML(elem_id="note"), value=lambda lang: model_note(page.model, page.config, lang))
    return language, theme
