"""Whether a schema has a document that ends: one that requires itself, as a node with a required child node does, has none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from smolvlm.errors import SchemaError

Node = dict[str, Any]
Ends = Callable[[str], bool]


def require_finite(root: Node, resolve: Callable[[str], Any]) -> None:
    """Raises SchemaError when every document of `root` would contain itself.

    The references that lead to an end are found from the ends back: whenever one is, the places that wait for it are looked at
    again. So each place is looked at once for each reference in it.
    """
    ending: set[str] = set()
    waiting: dict[str, set[str]] = {}
    todo = ["#"]
    while todo:
        place = todo.pop()
        if place in ending:
            continue
        unknown: set[str] = set()

        def ends(ref: str, unknown: set[str] = unknown) -> bool:
            if ref not in ending:
                unknown.add(ref)
            return ref in ending

        if _ends(root if place == "#" else resolve(place), ends):
            ending.add(place)
            todo += waiting.pop(place, ())
        else:
            for ref in unknown:
                if ref not in waiting:
                    todo.append(ref)
                waiting.setdefault(ref, set()).add(place)
    if "#" not in ending:
        raise SchemaError("The schema requires itself without end: make the recursive property optional, nullable or an array.")


def _ends(node: Any, ends: Ends) -> bool:
    """Whether some document of `node` ends, where `ends` says it of the targets of references."""
    if not isinstance(node, dict):
        return node is not False
    if "$ref" in node and not ends(node["$ref"]):
        return False
    for key, rule in (("anyOf", any), ("allOf", all)):
        if key in node and not rule([_ends(child, ends) for child in node[key]]):
            return False
    types = node.get("type")
    only = [types] if isinstance(types, str) else types
    if only == ["object"]:
        members = node.get("properties", {})
        return all(_ends(members[name], ends) for name in node.get("required", ()) if name in members)
    if only == ["array"] and node.get("minItems", 0) > 0:
        prefix = node.get("prefixItems", [])
        needed = [*prefix, *([node.get("items")] if node["minItems"] > len(prefix) else [])][: int(node["minItems"])]
        return all(item is None or _ends(item, ends) for item in needed)
    return True
