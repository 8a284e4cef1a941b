"""How much a schema joins: allOf, and a reference or anyOf beside other keywords, make one place obey several schemas.

A compiler multiplies alternatives out and intersects patterns; both grow exponentially. Here the same is counted, with every
count bounded, before the compiler sees the schema.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, product
from typing import Any, TypeAlias

from smolvlm.errors import SchemaError
from smolvlm.generation.schema_limits import MAX_MULTIPLE, at, common_multiple, multiple

Node: TypeAlias = dict[str, Any]
Together: TypeAlias = tuple[Any, ...]  # schemas that one value must obey, all of them

MAX_ALTERNATIVES = 256  # of one place where schemas are joined, multiplied out
MAX_BRANCHED = 1_000  # of one place where they are not
MAX_TOGETHER = 64  # schemas that one place obeys
MAX_JOINED_TEXTS = 4  # patterns and formats of one string; from 12 on a compiler takes seconds, from 16 on minutes
MAX_STEPS = 50_000  # from a value to its members and items
MAX_CHAIN = 100  # references and branches one behind the other
_SAYS_NOTHING = {"$ref", "anyOf", "allOf", "$defs", "definitions", "type"}


def check_joins(root: Node, resolve: Callable[[str], Any]) -> None:
    """Raises SchemaError, naming the place, for a schema that joins more than a compiler can work out."""
    _Joins(root, resolve).check()


class _Joins:
    def __init__(self, root: Node, resolve: Callable[[str], Any]) -> None:
        self._root, self._resolve = root, resolve
        self._ways: dict[int, list[Together]] = {}
        self._open: set[int] = set()

    def check(self) -> None:
        todo: list[tuple[Together, str]] = [((self._root,), "#")]
        seen: set[frozenset[int]] = set()
        steps = 0
        while todo:
            together, where = todo.pop()
            key = frozenset(map(id, together))
            if key in seen:
                continue
            seen.add(key)
            for flat in self._join([self._alternatives(node, where, 0) for node in together], where):
                _check_one(flat, where)
                for child in _children(flat, where):
                    todo.append(child)
                    steps += 1
                    if steps > MAX_STEPS:
                        raise SchemaError(
                            "The schema is too complex: allOf, anyOf and references lead to too many places; join less, or make it smaller."
                        )

    def _alternatives(self, node: Any, where: str, depth: int) -> list[Together]:
        """The ways to obey `node`: in each, plain schemas without references and branches that hold together."""
        if not isinstance(node, dict):
            return [()] if node else []
        if depth > MAX_CHAIN:
            raise SchemaError(
                f"The schema is too complex: {at(where)} leads through more than {MAX_CHAIN} references and "
                "branches before it says anything; shorten the chain."
            )
        if id(node) not in self._ways:
            if id(node) in self._open:  # it joins itself, which adds nothing
                return [()]
            self._open.add(id(node))
            parts: list[list[Together]] = [[(node,)]] if set(node) - _SAYS_NOTHING else []
            if "$ref" in node:
                parts.append(self._alternatives(self._resolve(node["$ref"]), where, depth + 1))
            parts += [self._alternatives(branch, where, depth + 1) for branch in node.get("allOf", ())]
            if "anyOf" in node:
                parts.append([way for one in node["anyOf"] for way in self._alternatives(one, where, depth + 1)])
                _require_few(len(parts[-1]), MAX_BRANCHED, where)
            self._ways[id(node)] = self._join(parts, where)
            self._open.discard(id(node))
        return self._ways[id(node)]

    def _join(self, parts: Sequence[list[Together]], where: str) -> list[Together]:
        """Each way of one part with each of the others."""
        if len(parts) == 1:
            return parts[0]
        _require_few(math.prod(map(len, parts)), MAX_ALTERNATIVES, where)
        made = [tuple({id(node): node for node in chain(*ways)}.values()) for ways in product(*parts)]
        if any(len(flat) > MAX_TOGETHER for flat in made):
            raise SchemaError(f"The schema is too complex: {at(where)} joins more than {MAX_TOGETHER} schemas; join fewer.")
        return made


def _require_few(count: int, limit: int, where: str) -> None:
    if count > limit:
        raise SchemaError(
            f"The schema is too complex: {at(where)} has more than {limit} alternatives when its allOf, anyOf and "
            "references are multiplied out; write fewer branches."
        )


def _check_one(flat: Together, where: str) -> None:
    texts = sum(("pattern" in node) + ("format" in node) for node in flat)
    if texts > MAX_JOINED_TEXTS:
        raise SchemaError(
            f"The schema is too complex: {at(where)} joins {texts} patterns and formats for one text, expected "
            f"at most {MAX_JOINED_TEXTS}; write one pattern."
        )
    steps = [multiple(node["multipleOf"], f"{where}/multipleOf") for node in flat if "multipleOf" in node]
    if common_multiple(steps) > MAX_MULTIPLE:
        raise SchemaError(f"The schema is too complex: {at(where)} joins multipleOf {steps} for one number; write one.")


def _children(flat: Together, where: str) -> Iterator[tuple[Together, str]]:
    """What the members and items of a value that obeys all of `flat` must obey."""
    for name in dict.fromkeys(name for node in flat for name in node.get("properties", ())):
        below: Together = ()
        for node in flat:
            below += (node["properties"][name],) if name in node.get("properties", ()) else _free(node)
        yield below, f"{where}/properties/{name}"
    free: Together = tuple(child for node in flat for child in _free(node))
    if len(flat) > 1:
        yield free, f"{where}/additionalProperties"
    else:
        yield from (((child,), f"{where}/patternProperties") for child in free)
    for index in range(max((len(node.get("prefixItems", ())) for node in flat), default=0)):
        yield tuple(child for node in flat for child in _item(node, index)), f"{where}/prefixItems/{index}"
    yield tuple(child for node in flat for child in _item(node, None)), f"{where}/items"


def _free(node: Node) -> Together:
    """What a member that `properties` does not name may have to obey: which patterns its name fits is not looked at."""
    children = [*node.get("patternProperties", {}).values(), node.get("additionalProperties")]
    return tuple(child for child in children if isinstance(child, dict))


def _item(node: Node, index: int | None) -> Together:
    prefix = node.get("prefixItems", ())
    child = prefix[index] if index is not None and index < len(prefix) else node.get("items")
    return (child,) if isinstance(child, dict) else ()
