"""The checkpoint's chat template: messages -> stretches of text that remember who wrote them.

Typed text never passes through the template. A mark stands in for it while Jinja runs, and the rendered string is cut
at the marks, so whatever a user types stays text: only what the template itself writes can become a control token.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from smolvlm.errors import CheckpointError, ConfigError, PromptError
from smolvlm.families.grammar import IMAGE_TOKEN, VIDEO_MARKER, PromptGrammar
from smolvlm.families.smolvlm import SMOLVLM
from smolvlm.json_file import read_json, read_text
from smolvlm.prompt.messages import ImagePart, Message, Part, TextPart, TokenPart, VideoPart
from smolvlm.prompt.sandbox import MAX_SOURCE_CHARS, compile_template, render_template
from smolvlm.prompt.segments import IdSegment, Segment, TextSegment

logger = logging.getLogger(__name__)

MAX_RENDERED_CHARS = 1_000_000  # of the template's own text; the longest contexts need a few thousand
_OPEN, _CLOSE = "\ue000", "\ue001"  # private use: a mark is these around a number
_MARK = re.compile(f"{_OPEN}([0-9]{{1,9}})([lrb]?){_CLOSE}")
_MEDIA = re.compile(f"{re.escape(IMAGE_TOKEN)}|{re.escape(VIDEO_MARKER)}")
_REMEDY = "use the checkpoint's published template"
_TOKEN_KEYS = ("bos_token", "eos_token", "pad_token", "unk_token")

Rendered: TypeAlias = Segment | ImagePart | VideoPart


class _Mark(str):
    """Stands in for a text part. Stripping it, which many templates do, is remembered and done to the text later."""

    __slots__ = ()

    def strip(self, chars: str | None = None, /) -> _Mark:
        return self._with("b", chars)

    def lstrip(self, chars: str | None = None, /) -> _Mark:
        return self._with("l", chars)

    def rstrip(self, chars: str | None = None, /) -> _Mark:
        return self._with("r", chars)

    def _with(self, side: str, chars: str | None) -> _Mark:
        if chars is not None:
            raise TypeError("typed text can be stripped of white space only")
        before = self[-2] if self[-2] in "lrb" else side
        body = self[:-2] if self[-2] in "lrb" else self[:-1]
        return _Mark(f"{body}{side if side == before else 'b'}{_CLOSE}")


class ChatTemplate:
    """A compiled chat template; None is the family's own. Raises PromptError for one that Jinja cannot compile."""

    def __init__(
        self,
        source: str | None = None,
        special_tokens: Mapping[str, str] | None = None,
        label: str = "the chat template",
        grammar: PromptGrammar = SMOLVLM.prompt,
    ) -> None:
        self.source = grammar.template if source is None else source
        self.special_tokens = dict(special_tokens or {})
        self.label = label
        self.grammar = grammar
        self._said = False
        self._code = self._compile(self.source)
        self._video_code = self._compile(grammar.video.template if grammar.video is not None else self.source)

    @classmethod
    def from_folder(cls, folder: Path, grammar: PromptGrammar = SMOLVLM.prompt) -> ChatTemplate:
        """Read `chat_template.json`, `chat_template.jinja` or `tokenizer_config.json`; the family's own if none has it.

        The order is the reference's. Raises CheckpointError naming a file that cannot be read, PromptError for a
        template that cannot be compiled.
        """
        folder = Path(folder)
        where = folder / "tokenizer_config.json"
        tokenizer = _object(where)
        legacy = _object(folder / "chat_template.json")
        tokens = {key: token for key in _TOKEN_KEYS if (token := token_text(tokenizer, key, where)) is not None}
        if "chat_template" in legacy:
            path: Path = folder / "chat_template.json"
            source = _default_template(legacy["chat_template"], path)
        elif (path := folder / "chat_template.jinja").exists():
            source = _text(path)
        elif tokenizer.get("chat_template") is not None:
            path = where
            source = _default_template(tokenizer["chat_template"], path)
        else:
            return cls(None, tokens, grammar=grammar)
        return cls(source, tokens, f"the chat template of {path}", grammar)

    def render(self, messages: Sequence[Message], *, add_generation_prompt: bool = True) -> list[Rendered]:
        """The prompt in order: trusted stretches, typed text, exact ids, and the media parts where they stand.

        Raises PromptError when the template fails, drops a part, or does not place the media in the order given.
        """
        parts: list[Part] = [part for message in messages for part in message.parts]
        numbers = iter(range(len(parts)))
        plain = [{"role": message.role, "content": [_plain(part, next(numbers)) for part in message.parts]} for message in messages]
        has_video = any(isinstance(part, VideoPart) for part in parts)
        variables = {
            **self.special_tokens,
            "messages": plain,
            "add_generation_prompt": add_generation_prompt,
            "tools": None,
            "documents": None,
        }
        limit = MAX_RENDERED_CHARS + 100 * len(parts)
        code = self._code
        if has_video:
            video = self.grammar.video_wording()  # an error of its own for a family without videos
            code = self._video_code
            if self.source not in (self.grammar.template, video.template) and not self._said:
                self._said = True
                logger.warning(
                    "%s is not the published one; a prompt with a video is worded by the published one all the same, "
                    "as the official processor does",
                    self.label,
                )
        try:
            rendered = render_template(code, variables, limit)
        except Exception as error:  # the template is a stranger's code: it may raise anything at all
            raise PromptError(f"{self.label} failed: {_reason(error)}; {_REMEDY}.") from None
        return self._cut(rendered, parts)

    def _cut(self, rendered: str, parts: list[Part]) -> list[Rendered]:
        media = iter([part for part in parts if isinstance(part, ImagePart | VideoPart)])
        result: list[Rendered] = []
        seen: set[int] = set()
        pieces = _MARK.split(rendered)  # text, number, side, text, number, side, ..., text
        for i in range(0, len(pieces), 3):
            result += self._trusted(pieces[i], media)
            if i + 2 < len(pieces):
                part = parts[int(pieces[i + 1])] if int(pieces[i + 1]) < len(parts) else None
                if not isinstance(part, TextPart | TokenPart) or int(pieces[i + 1]) in seen:
                    raise PromptError(f"{self.label} repeats or rewrites typed text; {_REMEDY}.")
                seen.add(int(pieces[i + 1]))
                if isinstance(part, TokenPart):
                    result[-1:] = _without_trailing_space(result[-1:])
                result.append(_stripped(part, pieces[i + 2]))
        missing = [part for n, part in enumerate(parts) if isinstance(part, TextPart | TokenPart) and n not in seen]
        if missing or next(media, None) is not None:
            what = "typed text" if missing else "a picture or video"
            raise PromptError(f"{self.label} leaves out {what} of the messages; {_REMEDY}.")
        return result

    def _trusted(self, text: str, media: Any) -> list[Rendered]:
        """The template's own text, with each `<image>` and `<video>` in it replaced by the part that stands there."""
        if _OPEN in text or _CLOSE in text:
            raise PromptError(f"{self.label} rewrites typed text; {_REMEDY}.")
        result: list[Rendered] = []
        start = 0
        for match in _MEDIA.finditer(text):
            part = next(media, None)
            if not isinstance(part, ImagePart if match.group() == IMAGE_TOKEN else VideoPart):
                raise PromptError(f"{self.label} writes {match.group()} where the messages have none; {_REMEDY}.")
            result += [TextSegment(text[start : match.start()], trusted=True), part]
            start = match.end()
        return [*result, TextSegment(text[start:], trusted=True)]

    def _compile(self, source: str) -> Any:
        try:
            return compile_template(source)
        except Exception as error:  # Jinja's lexer, its parser and Python's compiler all meet a stranger's text here
            raise PromptError(f"{self.label} cannot be compiled: {_reason(error)}.") from None


def _plain(part: Part, number: int) -> dict[str, str]:
    if isinstance(part, ImagePart):
        return {"type": "image"}
    if isinstance(part, VideoPart):
        return {"type": "video"}
    return {"type": "text", "text": _Mark(f"{_OPEN}{number}{_CLOSE}")}


def _stripped(part: TextPart | TokenPart, side: str) -> Segment:
    if isinstance(part, TokenPart):
        return IdSegment(part.ids)
    text = part.text.lstrip() if side in ("l", "b") else part.text
    return TextSegment(text.rstrip() if side in ("r", "b") else text)


def _without_trailing_space(before: list[Rendered]) -> list[Rendered]:
    """Generated ids follow `Assistant:` at once and bring their own space: the template's space for text is dropped."""
    if before and isinstance(before[0], TextSegment) and before[0].trusted:
        return [TextSegment(before[0].text.removesuffix(" "), trusted=True)]
    return before


def _default_template(value: Any, path: Path) -> str:
    """One template, or the one named "default" of a list or table of named ones."""
    if isinstance(value, list):
        named = [item for item in value if isinstance(item, dict) and isinstance(item.get("name"), str)]
        value = {item["name"]: item.get("template") for item in named}
    if isinstance(value, dict):
        value = value.get("default")
    if not isinstance(value, str):
        raise CheckpointError(f'{path}: "chat_template" is neither a string nor a list with one named "default".')
    return value


def token_text(raw: Mapping[str, Any], key: str, path: Path) -> str | None:
    """A special token of `tokenizer_config.json`: a string, or an object with its `content`. CheckpointError for else."""
    value = raw.get(key)
    if isinstance(value, dict):
        value = value.get("content")
    if value is not None and (not isinstance(value, str) or len(value) > 1000):
        raise CheckpointError(f"{path}: {key} is neither a token's text nor an object with one; correct the file.")
    return value


def _object(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        return read_json(path)
    except ConfigError as error:
        raise CheckpointError(str(error)) from None


def _text(path: Path) -> str:
    try:
        return read_text(path, 4 * MAX_SOURCE_CHARS)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be read as text ({_reason(error)}).") from None


def _reason(error: BaseException) -> str:
    text = " ".join(str(error).split()).rstrip(".")
    return (text if len(text) <= 200 else f"{text[:197]}...") or type(error).__name__
