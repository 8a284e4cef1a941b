"""`--help` pages: the usage line as we write it, examples verbatim, defaults read from the library's dataclasses."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand

from smolvlm.cli import wording
from smolvlm.options.declare import declared
from smolvlm.options.generation import GenerationParams
from smolvlm.options.media import MediaOptions


class Command(TyperCommand):
    """A Typer command with our help page. Defaults are looked up when the page is shown, not at every start."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:  # noqa: ARG002
        """Without the brackets and dots that Typer would put around `[MEDIA]... PROMPT`."""
        return ["[OPTIONS]", *(_metavar(p) for p in self.params if p.param_type_name == "argument")]

    def invoke(self, ctx: Any) -> Any:
        """Run the command; what the library says about its arguments is said about the flags that were typed."""
        wording.enter(self.params, ctx.params)
        return super().invoke(ctx)

    def more_defaults(self) -> dict[str, Any]:
        """Defaults of options that this command alone has, by parameter name."""
        return {}

    def format_options(self, ctx: Any, formatter: Any) -> None:
        shared = {**declared(MediaOptions), **declared(GenerationParams)}
        known = {name: made.default for name, made in shared.items()} | self.more_defaults()
        arguments: list[tuple[str, str]] = []
        options: list[tuple[str, str]] = []
        for parameter in self.get_params(ctx):
            if parameter.param_type_name == "argument":
                arguments.append((_metavar(parameter), getattr(parameter, "help", None) or ""))
                continue
            record = parameter.get_help_record(ctx)
            if record is None:
                continue
            default = known.get(parameter.name or "")
            if isinstance(default, bool):
                default = "on" if default else "off"
            if parameter.default is None and isinstance(default, str | int | float):
                record = (record[0], f"{record[1]}  [default: {default}]")
            options.append(record)
        for title, rows in (("Arguments", arguments), ("Options", options)):
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)


def _metavar(parameter: Any) -> str:
    return str(parameter.metavar or parameter.name)
