"""The events of one choice as a client reads them: text, and log-probabilities of the tokens that it may keep."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from smolvlm.generation import TokenEvent

TokenText = Callable[[int], str]


class Choice:
    """Grows event by event. `text` is what was given out; `finish_reason` is None until the end."""

    def __init__(self, token_text: TokenText, logprobs: bool) -> None:
        self._token_text, self._logprobs = token_text, logprobs
        self._unsettled: list[TokenEvent] = []
        self._settled = 0
        self.text = ""
        self.entries: list[dict[str, Any]] = []
        self.tokens = 0
        self.finish_reason: str | None = None

    def take(self, event: TokenEvent) -> tuple[str, list[dict[str, Any]]]:
        """The new text, and the log-probabilities of the tokens that can no longer be cut."""
        self.text += event.text_delta
        self.tokens, self.finish_reason = event.visible_tokens, event.finish_reason
        fresh: list[dict[str, Any]] = []
        if self._logprobs:
            self._unsettled.append(event)
            count = event.settled_tokens - self._settled
            fresh = [self._entry(settled) for settled in self._unsettled[:count]]
            self._unsettled, self._settled = self._unsettled[count:], event.settled_tokens
            self.entries += fresh
        return event.text_delta, fresh

    def _entry(self, event: TokenEvent) -> dict[str, Any]:
        top = [self._token(token, value) for token, value in event.top_logprobs]
        return {**self._token(event.token_id, event.logprob), "top_logprobs": top}

    def _token(self, token_id: int, logprob: float | None) -> dict[str, Any]:
        text = self._token_text(token_id)
        # Half a character has no text of its own.
        data = None if "\ufffd" in text else list(text.encode("utf-8"))
        return {"token": text, "logprob": logprob, "bytes": data}


def openai_reason(reason: str) -> str:
    """OpenAI knows "stop" and "length"; an answer that ended before it repeated itself ended like one that was complete."""
    return "length" if reason == "length" else "stop"
