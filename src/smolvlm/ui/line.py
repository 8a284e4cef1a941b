"""The line before the engine: one thread owns the engine, and questions of all tabs are answered in the order they came."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from smolvlm.errors import SmolVLMError
from smolvlm.ui.turn import Stopped, Turn

logger = logging.getLogger(__name__)

_LOCATION = re.compile(r"(: )?'file:[^')]*'?")  # libav adds where the upload was put


class EngineLine:
    """Whoever wants the engine stands here. A page that goes away while it waits holds nobody up."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(1, "smolvlm-engine")
        self._lock = threading.Lock()
        self._turns: list[Turn] = []  # the first one is being answered

    def ask(self, turn: Turn, answer: Callable[[Turn], None]) -> None:
        """Let `answer(turn)` run when its time comes. Whatever it raises ends the turn with one sentence."""
        with self._lock:
            self._turns.append(turn)
        self._executor.submit(self._run, turn, answer)

    def ahead(self, turn: Turn) -> int:
        """How many turns come before this one."""
        with self._lock:
            return self._turns.index(turn) if turn in self._turns else 0

    def call(self, function: Callable[[], None]) -> None:
        """Run something small that needs the engine, after what stands in the line."""
        self._executor.submit(function)

    def close(self) -> None:
        """Stop what runs, drop what waits, end the thread."""
        with self._lock:
            for turn in self._turns:
                turn.stop()
        self._executor.shutdown(wait=True, cancel_futures=True)

    def _run(self, turn: Turn, answer: Callable[[Turn], None]) -> None:
        try:
            turn.raise_if_stopped()
            turn.enter("starting")
            answer(turn)
        except Stopped:
            turn.end()
        except SmolVLMError as error:
            turn.end(error=_LOCATION.sub("", str(error)))
        except Exception:
            logger.exception("a question on the page ended in a defect")
            turn.end(error="")
        finally:
            with self._lock:
                self._turns.remove(turn)
