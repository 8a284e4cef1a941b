"""`smolvlm extract`: fill a JSON schema from pictures, videos or both."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from smolvlm.cli.arguments import opened, split_optional_prompt
from smolvlm.cli.console import Bars, write_json
from smolvlm.cli.flags import GenerationFlags, MediaFlags, ModelFlags, SystemOption, with_flags
from smolvlm.cli.loading import announce, find_model, open_model
from smolvlm.errors import SchemaError

_MAX_SCHEMA_BYTES = 1_000_000


@with_flags
def extract(
    arguments: Annotated[
        list[str],
        typer.Argument(
            metavar="MEDIA... [PROMPT]",
            help="Pictures and videos, then what to look for. The last of "
            "several arguments is the prompt unless it is, or is named like, a file.",
        ),
    ],
    schema: Annotated[Path, typer.Option(metavar="FILE", help="A JSON schema; the result always validates.")],
    model: ModelFlags,
    media: MediaFlags,
    generation: GenerationFlags,
    system: SystemOption = None,
) -> None:
    """Fill a JSON schema from pictures or videos.

    \b
    Examples:
      smolvlm extract room.png "Is the door open or closed?" --schema room.schema.json
      smolvlm extract receipt.jpg --schema receipt.schema.json --model 2.2b --max-new-tokens 512
    """
    from smolvlm.generation import normalize_schema
    from smolvlm.session import EXTRACT_PROMPT

    sources, prompt = split_optional_prompt(arguments)
    options, params = media.options(), generation.params()
    wanted = _read_schema(schema)
    try:
        normalize_schema(wanted)  # refused before the weights are loaded
    except SchemaError as error:
        raise SchemaError(f"{schema}: {error}") from None
    with Bars() as bars:
        name, folder = find_model(model, bars)
        parts = opened(sources, options)
        loaded = open_model(name, model, bars)
        result = loaded.extract(parts, wanted, prompt or EXTRACT_PROMPT, system=system, on_progress=bars, **vars(options), **vars(params))
    announce(loaded, folder)
    write_json(result)


def _read_schema(path: Path) -> Any:
    """The JSON in `path`. Raises SchemaError naming the file."""
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_SCHEMA_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SchemaError(f"{path}: cannot be read ({reason}); pass a file that holds a JSON schema.") from None
    if len(text) > _MAX_SCHEMA_BYTES:
        raise SchemaError(f"{path}: over {_MAX_SCHEMA_BYTES:,} bytes; a schema for a small model must be small.")
    if not text.strip():
        raise SchemaError(f"{path}: the file is empty; write a JSON schema with at least one property.")
    try:
        schema = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SchemaError(f"{path}: is not JSON ({error}); write a JSON schema with at least one property.") from None
    if not isinstance(schema, dict):
        raise SchemaError(
            f"{path}: holds JSON that is no object; a schema is one, such as "
            '{"type": "object", "properties": {"colour": {"type": "string"}}}.'
        )
    return schema
