"""What each open tab of a browser has: its turns and its conversation."""

from __future__ import annotations

import threading
from collections import OrderedDict
from pathlib import Path

from smolvlm.ui.conversation import Conversation
from smolvlm.ui.line import EngineLine
from smolvlm.ui.turn import Settings, Turn
from smolvlm.vlm import DESCRIBE_PROMPT, SmolVLM

MAX_TABS = 32  # a tab that nobody closed goes when this many newer ones came
MAX_CACHES = 4  # conversations that keep their KV cache; the others keep what they encoded


class Tab:
    """The turns of one tab, in order; the page is drawn from them."""

    def __init__(self, model: SmolVLM, line: EngineLine) -> None:
        self._model, self._line = model, line
        self._conversation: Conversation | None = None
        self.turns: list[Turn] = []

    @property
    def busy(self) -> bool:
        """Whether an answer is being written, or waits for the engine."""
        return bool(self.turns) and not self.turns[-1].ended

    @property
    def unseen(self) -> list[Path]:
        """Files of a question that was stopped before the model had seen them: the next one is about them too."""
        last = self.turns[-1] if self.turns else None
        return last.files if last is not None and last.stopped and last.answer is None else []

    def ask(self, prompt: str, files: list[Path], settings: Settings) -> Turn:
        """Stand in the line with a question; without words it asks for a description."""
        turn = Turn(prompt or DESCRIBE_PROMPT, files, settings, self.unseen)
        if self._conversation is None:
            self._conversation = Conversation(self._model)
        self.turns.append(turn)
        self._line.ask(turn, self._conversation.answer)
        return turn

    def stop(self) -> None:
        """End the answer at its next token."""
        if self.busy:
            self.turns[-1].stop()

    def clear(self) -> None:
        """Forget everything; a running answer is stopped first."""
        self.stop()
        self.release()
        self._conversation, self.turns = None, []

    def release(self) -> None:
        """Give the KV cache back, after what is being answered; a later question fills it anew, and encodes nothing."""
        if self._conversation is not None:
            self._line.call(self._conversation.close)


class Tabs:
    """The tabs by their session, which Gradio names for each page load."""

    def __init__(self, model: SmolVLM, line: EngineLine) -> None:
        self._model, self.line = model, line
        self._lock = threading.Lock()
        self._tabs: OrderedDict[str, Tab] = OrderedDict()

    def of(self, session: str) -> Tab:
        """The tab of a session, made when it is new."""
        with self._lock:
            tab = self._tabs.setdefault(session, Tab(self._model, self.line))
            self._tabs.move_to_end(session)
            newest_first = list(reversed(self._tabs.values()))
            for old in newest_first[MAX_CACHES:]:
                old.release()
            while len(self._tabs) > MAX_TABS:
                self._tabs.popitem(last=False)[1].clear()
            return tab

    def close(self, session: str) -> None:
        """The tab was closed: its answer stops and its memory is freed."""
        with self._lock:
            tab = self._tabs.pop(session, None)
        if tab is not None:
            tab.clear()

    def __len__(self) -> int:
        return len(self._tabs)
