"""The API's page and the front page: plain HTML out of the OpenAPI document. No script, and nothing from another host."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from importlib import resources
from typing import Any

import jinja2

STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h2 { border-top: 1px solid #8886; padding-top: 1rem; } h2 span { font-size: .8em; }
code, pre { font-family: ui-monospace, monospace; font-size: .9em; }
pre { background: #8882; padding: .7rem; overflow-x: auto; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .2rem .6rem .2rem 0; border-bottom: 1px solid #8883; }
"""
# The browser itself sees to it: no script runs, nothing is loaded, no page shows this one in a frame.
_STYLE_HASH = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
HEADERS = {
    "Content-Security-Policy": f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
_METHODS = ("get", "post", "put", "patch", "delete")


class Pages:
    """Renders the two pages."""

    def __init__(self) -> None:
        environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)
        text = resources.files("smolvlm.serve.api").joinpath("docs_page.html").read_text(encoding="utf-8")
        self._template = environment.from_string(text)

    def front(self, endpoints: list[str], **facts: Any) -> str:
        """What this server is. `facts`: model, version, address, and keys, whether they are needed."""
        return self._template.render(style=_safe(STYLE), endpoints=endpoints, operations=[], schemas=[], **facts)

    def docs(self, document: Mapping[str, Any], **facts: Any) -> str:
        """Every operation and every field of an OpenAPI document."""
        schemas = document.get("components", {}).get("schemas", {})
        shown = [{"name": name, "text": _text(schema), "fields": _fields(schema)} for name, schema in sorted(schemas.items())]
        operations = [
            _operation(method, path, item[method]) for path, item in document["paths"].items() for method in _METHODS if method in item
        ]
        return self._template.render(style=_safe(STYLE), endpoints=[], operations=operations, schemas=shown, **facts)


def _safe(text: str) -> Any:
    return jinja2.filters.do_mark_safe(text)  # our own style sheet, whose hash is in the policy


def _operation(method: str, path: str, operation: Mapping[str, Any]) -> dict[str, Any]:
    content = operation.get("requestBody", {}).get("content", {})
    media_type = next(iter(content), "")
    return {
        "method": method.upper(),
        "path": path,
        "summary": operation.get("summary", ""),
        "text": _text(operation),
        "media_type": media_type,
        "body": _type(content[media_type].get("schema", {})) if media_type else [],
        "parameters": [
            {"name": p["name"], "required": p.get("required", False), "type": _type(p.get("schema", {})), "text": _text(p)}
            for p in operation.get("parameters", ())
        ],
        "answers": ", ".join(operation.get("responses", {})),
    }


def _fields(schema: Mapping[str, Any]) -> list[dict[str, Any]]:
    required = schema.get("required", ())
    return [
        {"name": name, "required": name in required, "type": _type(field), "text": _text(field)}
        for name, field in schema.get("properties", {}).items()
    ]


def _text(described: Mapping[str, Any]) -> str:
    return str(described.get("description", "")).replace("`", "")


def _type(schema: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A type in pieces of text, of which some are links to a schema."""
    if "$ref" in schema:
        return [{"text": str(schema["$ref"]).rpartition("/")[2], "link": True}]
    for key in ("anyOf", "oneOf", "allOf"):
        if key in schema:
            choices = [_type(choice) for choice in schema[key] if choice.get("type") != "null"]
            return [piece for i, choice in enumerate(choices) for piece in ([_word(" or ")] if i else []) + choice]
    if "enum" in schema:
        return [_word(", ".join(map(str, schema["enum"])))]
    if "const" in schema:
        return [_word(str(schema["const"]))]
    if schema.get("type") == "array":
        return [_word("list of "), *_type(schema.get("items", {}))]
    return [_word(str(schema.get("format") or schema.get("type", "anything")))]


def _word(text: str) -> dict[str, Any]:
    return {"text": text, "link": False}
