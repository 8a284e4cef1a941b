"""The tables of docs/options.md, from the declarations: `python -m smolvlm.options.reference`."""

from __future__ import annotations

from smolvlm.options.declare import Door, Option, declared
from smolvlm.options.generation import GenerationParams
from smolvlm.options.media import MediaOptions

TABLES = {"Pictures and videos": MediaOptions, "Answers": GenerationParams}
HEAD = ("option", "values", "default", "where", "what it does")
_DOORS: dict[Door, str] = {"cli": "`{flag}`", "http": "HTTP", "page": "page", "train": "training"}
_OTHER_NAMES = {  # OpenAI's
    "max_new_tokens": "HTTP (`max_tokens`, `max_completion_tokens`, `max_output_tokens`)",
    **dict.fromkeys(("stop", "presence_penalty", "frequency_penalty"), "HTTP (chat completions)"),
    "logprobs": "HTTP (`logprobs`, `top_logprobs`)",
}


def rows(kind: type) -> list[tuple[str, ...]]:
    """One row an option: its name, values, default, the doors that take it beside Python, and its help."""
    return [(f"`{name}`", _values(made), _default(made), _where(made), made.help) for name, made in declared(kind).items()]


def table(kind: type) -> str:
    """A Markdown table."""
    lines = [HEAD, tuple("---" for _ in HEAD), *rows(kind)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _values(made: Option) -> str:
    if made.choices:
        return ", ".join(f"`{choice}`" for choice in made.choices)
    if made.kind is bool:
        return "`True`, `False`"
    if made.kind in (int, float):
        return f"{'whole number' if made.kind is int else 'number'} {made.range.words()}".strip()
    return "text" if made.kind is str else "texts"


def _default(made: Option) -> str:
    return "-" if made.default in (None, ()) else f"`{made.default}`"


def _where(made: Option) -> str:
    flag = made.flag or f"--{'no-' if made.default is True else ''}{made.name.replace('_', '-')}"
    places = []
    for door, words in _DOORS.items():
        if door in made.doors:
            text = _OTHER_NAMES.get(made.name, words) if door == "http" else words.format(flag=flag)
            places.append(f"{text} {made.ranges[door].words()}" if door in made.ranges else text)
    return ", ".join(places) or "Python alone"


def main() -> None:
    for title, kind in TABLES.items():
        print(f"## {title}\n\n{table(kind)}")


if __name__ == "__main__":
    main()
