"""Walks a JSON schema: refuses what cannot be kept, drops what says nothing about a document, bounds the rest."""

from __future__ import annotations

import difflib
import logging
from typing import Any

from smolvlm.errors import SchemaError
from smolvlm.generation.schema_finite import require_finite
from smolvlm.generation.schema_joins import check_joins
from smolvlm.generation.schema_limits import MAX_COUNT, MAX_DIGITS, MAX_LENGTH, at, multiple, number
from smolvlm.generation.schema_survey import resolve_pointer, survey

logger = logging.getLogger(__name__)

Node = dict[str, Any]

MAX_STRING_CHARS = 256
MAX_ARRAY_ITEMS = 32
MAX_FREE_KEYS = 16
FREE_KEY = '^[^\\x00-\\x1f"\\\\]{1,48}$'
ANY_DEPTH = 3  # levels of arrays and objects in a value of which the schema says nothing

FORMATS = ("date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri")
_TYPES = {
    "object": {"properties", "required", "additionalProperties", "patternProperties", "minProperties", "maxProperties"},
    "array": {"items", "prefixItems", "minItems", "maxItems"},
    "string": {"minLength", "maxLength", "pattern", "format"},
    "number": {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"},
}
_COUNTS = (("minLength", "maxLength", MAX_LENGTH), ("minItems", "maxItems", MAX_COUNT), ("minProperties", "maxProperties", MAX_COUNT))
_LARGEST = 10**MAX_DIGITS
_TYPE_NAMES = (*_TYPES, "integer", "boolean", "null")
_COMBINED = {"$ref", "anyOf", "oneOf", "allOf", "enum", "const"}
_KEPT = set().union(*_TYPES.values()) | _COMBINED | {"type", "$defs", "definitions"}
# Say nothing about which documents are valid. `discriminator` is pydantic's hint beside a oneOf.
_DROPPED = {
    "title",
    "description",
    "default",
    "example",
    "examples",
    "deprecated",
    "readOnly",
    "writeOnly",
    "discriminator",
    "$comment",
    "$schema",
    "$id",
    "id",
    "contentMediaType",
    "contentEncoding",
}
_REFUSED = {
    "not",
    "if",
    "then",
    "else",
    "contains",
    "minContains",
    "maxContains",
    "uniqueItems",
    "propertyNames",
    "dependencies",
    "dependentRequired",
    "dependentSchemas",
    "unevaluatedItems",
    "unevaluatedProperties",
    "nullable",
    "additionalItems",
    "$dynamicRef",
    "$dynamicAnchor",
    "$recursiveRef",
    "$recursiveAnchor",
    "$anchor",
}


def bounded(schema: Node) -> Node:
    """The bounded schema; raises SchemaError naming the place (a JSON pointer) and the keyword."""
    walker = _Walker(schema)
    result = walker.node(schema, "#")
    if result is False:
        raise SchemaError("The schema allows no document at all (false).")
    if not isinstance(result, dict):  # true cannot come here: the top is an object
        raise SchemaError("The schema is empty: give at least a type and properties.")
    require_finite(result, lambda ref: resolve_pointer(result, ref))
    check_joins(result, lambda ref: resolve_pointer(result, ref))
    return result


class _Walker:
    def __init__(self, root: Node) -> None:
        self._root = root
        self._survey = survey(root, lambda ref: resolve_pointer(root, ref))

    def node(self, node: Any, where: str, merged: bool = False) -> Any:
        """One (sub)schema; `merged`: it is joined with others (allOf), so undeclared keys may be theirs."""
        if node is False:
            return False
        if node is True:
            node = {}
        if not isinstance(node, dict):
            raise SchemaError(f"{at(where)} is {node!r:.60}; expected a schema (a JSON object).")
        kept = self._keywords(node, where)
        merged = merged or "allOf" in kept or ("$ref" in kept and len(kept) > 1) or where in self._survey.joined
        if where in self._survey.required:
            kept["required"] = [*kept.get("required", []), *sorted(self._survey.required[where])]
            kept["required"] = list(dict.fromkeys(kept["required"]))
        if "oneOf" in kept and "anyOf" in kept:
            raise SchemaError(f"{at(where)}: oneOf beside anyOf is not supported; use one of them.")
        self._children(kept, where, merged)
        if "oneOf" in kept:  # the survey found that its branches exclude each other
            kept["anyOf"] = kept.pop("oneOf")
        if not any(key in kept for key in _COMBINED | {"type"}):
            self._infer_type(kept)
        if kept.get("format", FORMATS[0]) not in FORMATS:
            # To JSON Schema an unknown format is a remark. pydantic has many: path, binary, password.
            logger.warning("schema %s: the format %.40r is not enforced", at(where), kept.pop("format"))
        types = _types(kept, where)
        _check_counts(kept, where)
        _check_numbers(kept, where)
        if not isinstance(kept.get("pattern", ""), str):
            raise SchemaError(f"{at(where)}/pattern is {kept['pattern']!r:.60}; expected a regular expression as text.")
        if "enum" in kept or "const" in kept:
            return kept
        if not types and not any(key in kept for key in _COMBINED):
            return {**any_value(), **{k: kept[k] for k in ("$defs", "definitions") if k in kept}}
        if "string" in types:
            _bound(kept, "maxLength", "minLength", MAX_STRING_CHARS)
        if "array" in types:
            self._bound_array(kept, merged)
        if "object" in types:
            self._bound_object(kept, where, merged)
        return kept

    def _keywords(self, node: Node, where: str) -> Node:
        kept = {}
        for key, value in node.items():
            if key in _REFUSED and not (key in ("uniqueItems", "nullable") and value is False):
                raise SchemaError(f"{at(where)}: the keyword {key!r} is not supported; {_remedy(key)}.")
            if key in _KEPT:
                kept[key] = value
            elif key not in _DROPPED and key not in _REFUSED:
                close = difflib.get_close_matches(key, _KEPT, 1)
                hint = f"; did you mean {close[0]!r}?" if close else ""
                logger.warning("schema %s: the unknown keyword %.40r is ignored%s", at(where), key, hint)
        return kept

    def _children(self, kept: Node, where: str, merged: bool) -> None:
        for key in ("properties", "patternProperties", "$defs", "definitions"):
            if key in kept:
                members = _dict(kept[key], f"{where}/{key}")
                kept[key] = {name: self.node(child, f"{where}/{key}/{name}") for name, child in members.items()}
        for key in ("anyOf", "oneOf", "allOf", "prefixItems"):
            if key in kept:
                branches = _list(kept[key], f"{where}/{key}")
                joined = key != "prefixItems" and (merged or key == "allOf" or "properties" in kept)
                kept[key] = [self.node(child, f"{where}/{key}/{i}", joined) for i, child in enumerate(branches)]
        if isinstance(kept.get("items"), list):
            raise SchemaError(f"{at(where)}: a list under 'items' is not supported; use 'prefixItems'.")
        for key in ("items", "additionalProperties"):
            if key in kept:
                kept[key] = self.node(kept[key], f"{where}/{key}")
        if "enum" in kept:
            _list(kept["enum"], f"{where}/enum")
        if "$ref" in kept:
            resolve_pointer(self._root, kept["$ref"], where)

    def _infer_type(self, kept: Node) -> None:
        """A schema that only makes sense for one type is taken to mean that type."""
        for name, keywords in _TYPES.items():
            if keywords & set(kept):
                kept["type"] = name
                return

    def _bound_array(self, kept: Node, merged: bool) -> None:
        _bound(kept, "maxItems", "minItems", MAX_ARRAY_ITEMS)
        if "items" not in kept and not merged:
            fixed = len(kept.get("prefixItems", ()))
            kept["items"] = False if 0 < fixed >= kept.get("minItems", 0) else any_value()

    def _bound_object(self, kept: Node, where: str, merged: bool) -> None:
        required = kept.get("required", [])
        if not isinstance(required, list) or not all(isinstance(name, str) for name in required):
            raise SchemaError(f"{at(where)}/required is {required!r:.60}; expected a list of property names.")
        if merged:
            return
        properties = kept.setdefault("properties", {})
        free = kept.get("additionalProperties")
        if free is not False and "patternProperties" not in kept:
            for name in required:
                properties.setdefault(name, any_value() if free is None else free)
        if free is None and not properties and "patternProperties" not in kept:
            free = any_value()
        if kept.get("minProperties", 0) > max(1, len(required)) and (free or "patternProperties" in kept):
            # A free key may come twice, and would count once.
            raise SchemaError(f"{at(where)}: minProperties over 1 with free keys is not supported; name the properties.")
        if not free:
            kept["additionalProperties"] = False
        elif not properties and "patternProperties" not in kept:
            kept["additionalProperties"] = False
            kept["patternProperties"] = {FREE_KEY: free}
            kept.setdefault("maxProperties", MAX_FREE_KEYS)
        if not properties:
            del kept["properties"]


def any_value(depth: int = ANY_DEPTH) -> Node:
    """A schema for any JSON value, bounded in depth and size."""
    branches: list[Node] = [{"type": "string", "maxLength": MAX_STRING_CHARS}]
    branches += [{"type": "number"}, {"type": "boolean"}, {"type": "null"}]
    if depth:
        inner = any_value(depth - 1)
        branches.append({"type": "array", "items": inner, "maxItems": MAX_ARRAY_ITEMS})
        branches.append(
            {"type": "object", "patternProperties": {FREE_KEY: inner}, "additionalProperties": False, "maxProperties": MAX_FREE_KEYS}
        )
    return {"anyOf": branches}


def _types(kept: Node, where: str) -> list[str]:
    types = kept.get("type", [])
    names = [types] if isinstance(types, str) else types
    if not isinstance(names, list) or ("type" in kept and not names) or any(name not in _TYPE_NAMES for name in names):
        raise SchemaError(f"{at(where)}/type is {types!r:.60}; expected one or several of {', '.join(_TYPE_NAMES)}.")
    return names


def _bound(kept: Node, high: str, low: str, limit: int) -> None:
    kept.setdefault(high, max(limit, kept.get(low, 0)))


def _check_counts(kept: Node, where: str) -> None:
    """Lengths and numbers of items: whole, in order, and within what an answer can hold."""
    for low, high, most in _COUNTS:
        for key in {low, high} & set(kept):
            value = kept[key]
            if isinstance(value, bool) or not isinstance(value, int | float) or value != int(value) or value < 0:
                raise SchemaError(f"{at(where)}/{key} is {value!r:.60}; expected a whole number of at least 0.")
            kept[key] = int(value)
        if high in kept and kept[high] < kept.get(low, 0):
            raise SchemaError(f"{at(where)}: {low}={kept[low]:.6g} is more than {high}={kept[high]:.6g}.")
        if kept.get(low, 0) > most:
            raise SchemaError(f"{at(where)}: {low}={kept[low]:.6g} is more than an answer can hold ({most}).")
        if high in kept:
            kept[high] = min(kept[high], most)  # no answer comes near


def _check_numbers(kept: Node, where: str) -> None:
    """Bounds of numbers: one out of reach is brought to the largest number that is written."""
    for key, sign in (("minimum", -1), ("exclusiveMinimum", -1), ("maximum", 1), ("exclusiveMaximum", 1)):
        if key in kept:
            value = number(kept[key], f"{where}/{key}")
            if value * sign > _LARGEST:
                kept[key] = sign * _LARGEST
            elif value * sign < -_LARGEST:
                raise SchemaError(f"{at(where)}/{key} is {value!r:.60}; numbers of more than {MAX_DIGITS} digits are not written.")
    if "multipleOf" in kept:
        multiple(kept["multipleOf"], f"{where}/multipleOf")


def _dict(value: Any, where: str) -> Node:
    if not isinstance(value, dict):
        raise SchemaError(f"{at(where)} is {value!r:.60}; expected a JSON object of schemas.")
    return value


def _list(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise SchemaError(f"{at(where)} is {value!r:.60}; expected a list with at least one item.")
    return value


def _remedy(key: str) -> str:
    return {
        "uniqueItems": "check for repeats in code",
        "nullable": "write anyOf with {'type': 'null'}",
        "dependencies": "make the properties required",
        "dependentRequired": "make the properties required",
        "additionalItems": "use 'prefixItems' with 'items'",
        "propertyNames": "use 'patternProperties'",
        "$anchor": "refer by a JSON pointer such as #/$defs/name",
    }.get(key, "remove it and check in code")
