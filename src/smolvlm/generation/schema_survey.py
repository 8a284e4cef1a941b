"""A first look over a JSON schema: what is joined with others, and whether oneOf branches exclude each other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from smolvlm.errors import SchemaError
from smolvlm.generation.schema_limits import MAX_DEPTH, at

Node = dict[str, Any]
Resolve = Callable[[str], Any]

_MOST_PAIRS = 20_000  # of branches and their members, compared for one oneOf


@dataclass
class Survey:
    """Places are JSON pointers, `#/$defs/Name`."""

    joined: set[str] = field(default_factory=set)  # targets of references that allOf joins with other schemas
    required: dict[str, set[str]] = field(default_factory=dict)  # properties that must be there to tell branches apart


def survey(root: Node, resolve: Resolve) -> Survey:
    """Raises SchemaError for a oneOf whose branches may overlap: an answer could match two and would not be valid."""
    result = Survey()
    _visit(root, "#", resolve, result)
    return result


def resolve_pointer(root: Any, ref: Any, where: str = "#") -> Any:
    """What a local reference points at. Raises SchemaError for others, and where nothing is."""
    if not isinstance(ref, str) or not ref.startswith("#"):
        raise SchemaError(f"{at(where)}: $ref {ref!r:.80} is not local; only references into the same schema are read.")
    found = root
    for part in ref[1:].split("/")[1:]:
        part = part.replace("~1", "/").replace("~0", "~")
        try:
            found = found[int(part)] if isinstance(found, list) else found[part]
        except (KeyError, IndexError, ValueError, TypeError):
            raise SchemaError(f"{at(where)}: $ref {ref!r:.80} points at nothing in the schema.") from None
    return found


def _visit(node: Any, where: str, resolve: Resolve, result: Survey) -> None:
    if isinstance(node, list):
        for index, child in enumerate(node):
            _visit(child, f"{where}/{index}", resolve, result)
    if not isinstance(node, dict):
        return
    for key, child in node.items():
        _visit(child, f"{where}/{key}", resolve, result)
    branches = node.get("allOf")
    if isinstance(branches, list) and len(branches) > 1:
        result.joined.update(b["$ref"] for b in branches if isinstance(b, dict) and isinstance(b.get("$ref"), str))
    if isinstance(node.get("$ref"), str) and {"properties", "required", "allOf", "anyOf"} & set(node):
        result.joined.add(node["$ref"])
    if isinstance(node.get("oneOf"), list):
        _check_one_of(node["oneOf"], f"{where}/oneOf", resolve, result)


def _check_one_of(branches: list[Any], where: str, resolve: Resolve, result: Survey) -> None:
    places = [_follow(branch, f"{where}/{index}", resolve) for index, branch in enumerate(branches)]
    comparison = _Comparison(resolve)
    for index, (first_place, first) in enumerate(places):
        for second_place, second in places[index + 1 :]:
            told_by = comparison.told_apart(first, second)
            if told_by is None:
                raise SchemaError(
                    f"{at(where)}: {at(first_place)} and {at(second_place)} may both match; use anyOf, "
                    "or give each branch a property with a const of its own."
                )
            for place in (first_place, second_place):
                result.required.setdefault(place, set()).update(told_by)


def _follow(node: Any, where: str, resolve: Resolve) -> tuple[str, Any]:
    """The schema that a chain of references ends at, and its place."""
    for _ in range(16):
        if not (isinstance(node, dict) and "$ref" in node):
            break
        where, node = node["$ref"], resolve(node["$ref"])
    return where, node


class _Comparison:
    """Pairs of schemas, each compared once; a pair that is met inside itself is not known."""

    def __init__(self, resolve: Resolve) -> None:
        self._resolve = resolve
        self._known: dict[tuple[int, int], set[str] | None] = {}
        self._values: dict[int, frozenset[Any] | None] = {}

    def told_apart(self, a: Any, b: Any, depth: int = 0) -> set[str] | None:
        """Empty: no value matches both. A property's name: none does in which it is given. None: not known."""
        a, b = _follow(a, "", self._resolve)[1], _follow(b, "", self._resolve)[1]
        if a is False or b is False:
            return set()
        if not (isinstance(a, dict) and isinstance(b, dict)):
            return None
        key = id(a), id(b)
        if key not in self._known:
            if depth > MAX_DEPTH or len(self._known) > _MOST_PAIRS:
                return None
            self._known[key] = None
            self._known[key] = self._compare(a, b, depth)
        return self._known[key]

    def _compare(self, a: Node, b: Node, depth: int) -> set[str] | None:
        a_values, b_values = self._values_of(a), self._values_of(b)
        if a_values is not None and b_values is not None:
            return None if a_values & b_values else set()
        a_types, b_types = _types(a, a_values), _types(b, b_values)
        if a_types and b_types and not a_types & b_types:
            return set()
        if a_types == b_types == {"object"}:
            a_members, b_members = a.get("properties"), b.get("properties")
            if isinstance(a_members, dict) and isinstance(b_members, dict):
                for name in a_members:
                    if name in b_members and self.told_apart(a_members[name], b_members[name], depth + 1) == set():
                        return {name}
        return None

    def _values_of(self, node: Node) -> frozenset[Any] | None:
        """The values of a const or an enum; None for a schema that does not list them."""
        if id(node) not in self._values:
            listed = [node["const"]] if "const" in node else node["enum"] if isinstance(node.get("enum"), list) else None
            self._values[id(node)] = None if listed is None else frozenset(map(_comparable, listed))
        return self._values[id(node)]


def _types(node: Node, values: frozenset[Any] | None) -> set[str]:
    """The JSON types that a schema allows, integers as numbers; empty when it does not say."""
    if values is not None:
        return {kind for kind, _ in values}
    types = node.get("type", [])
    names = [types] if isinstance(types, str) else types if isinstance(types, list) else []
    if not names and isinstance(node.get("properties"), dict):
        names = ["object"]  # `schema_bounds` takes it so, too
    return {"number" if name == "integer" else str(name) for name in names}


def _comparable(value: Any) -> tuple[str, Any]:
    """A JSON value with its type, hashable: 1 and 1.0 are the same, true is not."""
    if isinstance(value, bool):
        return "boolean", value
    if isinstance(value, list):
        return "array", tuple(map(_comparable, value))
    if isinstance(value, dict):
        return "object", frozenset((key, _comparable(item)) for key, item in value.items())
    return ("null" if value is None else "string" if isinstance(value, str) else "number"), value
