"""Schemas for tests: random ones as applications might send them, and hostile ones, each built to cost a compiler much."""

from __future__ import annotations

import random
import string
from collections.abc import Callable, Iterator
from typing import Any

Schema = dict[str, Any]

_PATTERNS = (
    "^[A-Z]{3}-[0-9]{4}$",
    "^[ab]{3,}cd$",
    "[0-9]",
    "^(red|green|blue)$",
    r"^\d{1,5}(\.\d{2})?$",
    "^[^ ]+@[^ ]+$",
    "x{5}",
    r"^\w+( \w+){0,3}$",
    "^(a|b|c){2,9}$",
    "^$",
)
_FORMATS = ("date", "time", "date-time", "email", "uuid", "ipv4", "ipv6", "hostname", "uri", "duration", "binary")
_VALUES = (None, True, False, 0, 1, -7, 2.5, "", "one", "two words", 'quote " in it', "猫", [1, "a"], {"k": [None]})


def random_schema(rng: random.Random) -> Schema:
    """A valid JSON schema: some have no document, some use what is not supported."""
    names = [f"D{i}" for i in range(rng.randint(0, 3))]
    made = _node(rng, rng.randint(1, 4), names)
    made = made if isinstance(made, dict) and made else {"type": "object", "properties": {"v": made}}
    if names:
        made = {"allOf": [made]} if "$ref" in made and rng.random() < 0.5 else made
        made["$defs"] = {name: _node(rng, rng.randint(0, 2), names) for name in names}
    return made


def _node(rng: random.Random, depth: int, names: list[str]) -> Any:
    makers: list[Callable[[], Any]] = [
        lambda: _text(rng),
        lambda: _number(rng),
        lambda: {"type": rng.choice(["boolean", "null"])},
        lambda: _listed(rng),
    ]
    if depth:
        deeper = [lambda: _object(rng, depth - 1, names), lambda: _array(rng, depth - 1, names), lambda: _branches(rng, depth - 1, names)]
        makers += 3 * deeper
    if names:
        makers.append(lambda: {"$ref": f"#/$defs/{rng.choice(names)}"})
    if rng.random() < 0.03:
        return rng.choice([True, {}, False])
    made = rng.choice(makers)()
    if rng.random() < 0.2:
        made |= {"title": "T", "description": "words", "default": None}
    return made


def _text(rng: random.Random) -> Schema:
    made: Schema = {"type": "string"}
    kind = rng.random()
    if kind < 0.3:
        made["pattern"] = rng.choice(_PATTERNS)
    elif kind < 0.5:
        made["format"] = rng.choice(_FORMATS)
    if kind > 0.3 and rng.random() < 0.4:
        low = rng.choice([0, 1, 3, 20])
        made |= {"minLength": low, "maxLength": low + rng.choice([0, 1, 40, 1000])} if kind > 0.5 else {}
    return made


def _number(rng: random.Random) -> Schema:
    made: Schema = {"type": rng.choice(["integer", "number"])}
    whole = made["type"] == "integer"
    low = rng.choice([-1000, -5, 0, 1, 99, 2**31]) if whole else rng.choice([-2.5, 0, 0.001, 1e6])
    if rng.random() < 0.5:
        made[rng.choice(["minimum", "exclusiveMinimum"])] = low
    if rng.random() < 0.4:
        made[rng.choice(["maximum", "exclusiveMaximum"])] = low + rng.choice([2, 10, 5000])
    if rng.random() < 0.15:
        made["multipleOf"] = rng.choice([2, 5, 7, 25] if whole else [0.5, 0.01, 3])
    return made


def _listed(rng: random.Random) -> Schema:
    if rng.random() < 0.4:
        return {"const": rng.choice(_VALUES)}
    return {"enum": rng.sample(_VALUES, rng.randint(1, 6))}


def _object(rng: random.Random, depth: int, names: list[str]) -> Schema:
    keys = rng.sample(["name", "a b", 'q"', "größe", "x", "y", "items", "type", "$ref"], rng.randint(0, 5))
    made: Schema = {"type": "object", "properties": {key: _node(rng, depth, names) for key in keys}}
    if rng.random() < 0.7:
        made["required"] = rng.sample(keys, rng.randint(0, len(keys)))
    if rng.random() < 0.5:
        made["additionalProperties"] = rng.choice([False, False, True, _text(rng)])
    if rng.random() < 0.1:
        made["patternProperties"] = {"^p_[a-z]+$": _node(rng, 0, names)}
    return made


def _array(rng: random.Random, depth: int, names: list[str]) -> Schema:
    made: Schema = {"type": "array", "items": _node(rng, depth, names)}
    if rng.random() < 0.3:
        made["prefixItems"] = [_node(rng, 0, names) for _ in range(rng.randint(1, 3))]
    if rng.random() < 0.5:
        made["minItems"] = rng.randint(0, 3)
    if rng.random() < 0.5:
        made["maxItems"] = made.get("minItems", 0) + rng.randint(0, 3)
    return made


def _branches(rng: random.Random, depth: int, names: list[str]) -> Schema:
    key = rng.choice(["anyOf", "anyOf", "oneOf", "allOf"])
    if key == "allOf":
        return {"allOf": [_object(rng, depth, names) for _ in range(rng.randint(1, 3))]}
    if key == "oneOf":
        return {
            "oneOf": [
                {"type": "object", "properties": {"kind": {"const": i}, "v": _node(rng, depth, names)}, "required": ["kind"]}
                for i in range(rng.randint(1, 3))
            ]
        }
    return {"anyOf": [_node(rng, depth, names) for _ in range(rng.randint(1, 4))]}


def hostile_schemas() -> Iterator[tuple[str, Any]]:
    """At least 200 schemas with their names: every family in several sizes."""
    for family, make, sizes in _FAMILIES:
        for size in sizes:
            yield f"{family} {size}", make(size)


def _obj(properties: Schema, **more: Any) -> Schema:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False, **more}


def _texts(pattern: str) -> Schema:
    return {"type": "string", "pattern": pattern}


def _chain(size: int, make: Callable[[Schema], Schema], last: Schema | None = None) -> Schema:
    """`$defs` of which each refers to the next as `make` says."""
    defs = {f"D{i}": make({"$ref": f"#/$defs/D{i + 1}"}) for i in range(size)}
    return {"$ref": "#/$defs/D0", "$defs": defs | {f"D{size}": last or {"type": "boolean"}}}


def _nest(size: int, make: Callable[[Any], Any], inner: Any) -> Any:
    for _ in range(size):
        inner = make(inner)
    return inner


def _repeats(size: int, inner: str, times: str) -> str:
    return "^" + "(" * size + inner + f"){times}" * size + "$"


def _cross(size: int) -> Schema:
    """Branches that each refer to all the others: the sets of schemas that join are many."""
    defs = {
        f"D{i}": {
            "type": "object",
            "properties": {
                f"k{j}": {"allOf": [{"$ref": f"#/$defs/D{(i + j) % size}"}, {"$ref": f"#/$defs/D{(i * j + 1) % size}"}]}
                for j in range(size)
            },
        }
        for i in range(size)
    }
    return {"$ref": "#/$defs/D0", "$defs": defs}


def _joined(size: int, make: Callable[[int], Schema]) -> Schema:
    return {"allOf": [make(i) for i in range(size)]}


_LETTERS = string.ascii_lowercase
_FAMILIES: list[tuple[str, Callable[[int], Any], tuple[int, ...]]] = [
    ("defs used twice", lambda n: _chain(n, lambda ref: _obj({"a": ref, "b": ref})), (8, 16, 34, 200, 900)),
    ("defs joined twice", lambda n: _chain(n, lambda ref: {"allOf": [ref, ref]}), (8, 16, 34, 200, 900)),
    ("defs chosen twice", lambda n: _chain(n, lambda ref: {"anyOf": [ref, ref]}), (8, 16, 34, 200)),
    ("defs optional twice", lambda n: _chain(n, lambda ref: {"type": "object", "properties": {"a": ref, "b": ref}}), (16, 34, 900)),
    ("defs in arrays", lambda n: _chain(n, lambda ref: {"type": "array", "items": ref, "minItems": 2}), (4, 16, 60, 900)),
    ("references in a row", lambda n: _chain(n, lambda ref: ref), (50, 200, 900)),
    ("references joined to themselves", lambda n: {"$ref": "#/$defs/a", "$defs": {"a": {"allOf": [{"$ref": "#/$defs/a"}] * n}}}, (1, 9)),
    ("every definition joins others", _cross, (4, 8, 16, 30)),
    ("patterns joined", lambda n: _joined(n, lambda i: {"type": "object", "properties": {"z": _texts(f".*a{i}.*")}}), (4, 8, 16, 30, 100)),
    ("patterns joined directly", lambda n: _joined(n, lambda i: _texts(f"^.*{_LETTERS[i % 26]}.*$")), (4, 8, 16, 30, 100)),
    ("formats joined", lambda n: _joined(n, lambda i: {"type": "string", "format": ("email", "uri", "hostname")[i % 3]}), (3, 9, 30)),
    (
        "patterns joined by keys",
        lambda n: {"allOf": [{"type": "object", "patternProperties": {f"^{c}": _texts(f"{c}.*{c}.{{9}}")}} for c in _LETTERS[:n]]},
        (4, 12, 26),
    ),
    ("patterns joined by references", lambda n: _chain(n, lambda ref: {"allOf": [ref, _texts(".*a.{9}b.*")]}, _texts("q")), (3, 9, 30)),
    ("alternatives multiplied", lambda n: _joined(n, lambda i: {"anyOf": [_obj({f"a{i}{j}": {}}) for j in range(3)]}), (3, 6, 12, 30)),
    ("types multiplied", lambda n: _joined(n, lambda _: {"anyOf": [{"type": "string"}, {"type": "integer"}, {"type": "null"}]}), (5, 20)),
    ("branches", lambda n: {"anyOf": [_obj({f"p{i}": {"type": "string"}}) for i in range(n)]}, (50, 128, 1000)),
    ("alike branches", lambda n: {"anyOf": [_obj({"p": _texts(f"^a*{i}$")}) for i in range(n)]}, (20, 100, 128)),
    ("oneOf branches", lambda n: {"oneOf": [_obj({"k": {"const": i}, "v": _texts(".*a.{9}")}) for i in range(n)]}, (20, 100, 500)),
    ("oneOf of large enums", lambda n: {"oneOf": [{"enum": [f"{i}-{j}" for j in range(90)]} for i in range(n)]}, (20, 100)),
    (
        "oneOf inside itself",
        lambda n: {
            "oneOf": [{"$ref": f"#/$defs/D{i}"} for i in range(n)],
            "$defs": {f"D{i}": _obj({"x": {"$ref": f"#/$defs/D{i}"}}) for i in range(n)},
        },
        (2, 9),
    ),
    ("deep arrays", lambda n: _nest(n, lambda x: {"type": "array", "items": x}, {}), (20, 31, 60, 400)),
    ("deep objects", lambda n: _nest(n, lambda x: _obj({"a": x}), {"type": "integer"}), (20, 31, 400)),
    ("deep choices", lambda n: _nest(n, lambda x: {"anyOf": [x, {"type": "null"}]}, {"type": "integer"}), (20, 31, 400)),
    ("long arrays", lambda n: {"type": "array", "items": {"type": "integer"}, "minItems": n}, (2000, 4000, 10**5, 10**12)),
    (
        "long arrays in each other",
        lambda n: _nest(n, lambda x: {"type": "array", "items": x, "minItems": 10}, {"type": "integer"}),
        (3, 6, 9),
    ),
    ("long fixed arrays", lambda n: {"type": "array", "items": _texts("^a{9}$"), "minItems": n, "maxItems": n}, (100, 1000, 4096)),
    ("long texts", lambda n: {"type": "string", "minLength": n}, (5000, 16000, 30000, 10**9)),
    ("long texts allowed", lambda n: _obj({f"t{i}": {"type": "string", "maxLength": n} for i in range(50)}), (16000, 10**9)),
    ("wide objects", lambda n: _obj({f"p{i}": {"type": "string"} for i in range(n)}), (200, 500, 1000, 5000)),
    ("wide optional objects", lambda n: {"type": "object", "properties": {f"p{i}": {} for i in range(n)}}, (50, 300, 1000)),
    (
        "wide objects of objects",
        lambda n: _obj({f"p{i}": _obj({f"q{j}": {"type": "number"} for j in range(n)}) for i in range(n)}),
        (10, 30, 60),
    ),
    ("large enums", lambda n: {"enum": [f"value number {i}" for i in range(n)]}, (500, 1000, 9000)),
    ("large enums of objects", lambda n: {"enum": [{"k": [i] * 20} for i in range(n)]}, (100, 900)),
    ("long enum values", lambda n: {"enum": [f"{i}" + "y" * n for i in range(50)]}, (100, 1000, 3900)),
    ("long constants", lambda n: {"const": "y" * n}, (1000, 20000, 150000)),
    ("long names", lambda n: _obj({"n" * n: {"type": "integer"}}), (1000, 20000, 150000)),
    ("line ends in names", lambda n: _obj({"a\nb" * n: {"type": "string", "pattern": 7}}), (1, 300)),
    ("repeats in repeats", lambda n: _texts(_repeats(n, "[a-z]{1,50}", "{1,50}")), (2, 3, 6, 40)),
    ("stars in stars", lambda n: _texts(_repeats(n, "a", "*")), (2, 9, 100, 600)),
    ("far back", lambda n: _texts(f"^.*a.{{{n}}}$"), (5, 12, 20, 200, 5000)),
    ("far back both ways", lambda n: _texts(f"^(.*a.{{{n}}}b|.{{{n}}}c.*)+$"), (5, 12, 20, 200)),
    ("long optional runs", lambda n: _texts("^" + "a?" * n + "a{9}$"), (100, 500, 900, 5000)),
    ("many words", lambda n: _texts("^(" + "|".join(f"w{i}.*" for i in range(n)) + ")$"), (50, 200, 2000)),
    ("all letters in order", lambda n: _texts(".*".join(_LETTERS[:n])), (3, 12, 26)),
    ("letters of all languages", lambda n: _texts(rf"^(\p{{L}}+\W?){{1,{n}}}\P{{Lu}}$"), (3, 30, 300)),
    ("a case for each letter", lambda n: _texts("(?i)" + "k" * n), (10, 900)),
    (
        "wrong patterns",
        lambda n: _texts(("(", "[", "a{9,2}", "(?=a)b", r"\1", "(?P<n>a)(?P=n)", "a**", "\ud800", "a{99999999}")[n]),
        tuple(range(9)),
    ),
    ("patterns of keys", lambda n: {"type": "object", "patternProperties": {f".*a{i}.*": {} for i in range(n)}}, (2, 16, 200)),
    ("separate patterns of keys", lambda n: {"type": "object", "patternProperties": {f"^x{i}_": {} for i in range(n)}}, (16, 100)),
    (
        "many properties beside patterns",
        lambda n: {
            "type": "object",
            "properties": {f"p{i}": {} for i in range(n)},
            "patternProperties": {"^.*z$": {}},
            "additionalProperties": {},
        },
        (20, 300),
    ),
    ("many patterns", lambda n: _obj({f"p{i}": _texts(f"^.*{i}.{{8}}x$") for i in range(n)}), (20, 100, 250, 900)),
    ("multiples", lambda n: {"type": "integer", "multipleOf": n}, (7919, 9973, 999983, 99999999977, 10**300)),
    ("multiples of a fraction", lambda n: {"type": "number", "multipleOf": 10.0**-n, "minimum": 0.5}, (5, 20, 300)),
    ("multiples of an odd fraction", lambda n: {"type": "number", "multipleOf": n / 99991}, (1, 7)),
    ("multiples joined", lambda n: _joined(n, lambda i: {"type": "integer", "multipleOf": (7, 11, 13, 17, 19, 23)[i]}), (2, 3, 6)),
    ("multiples in a range", lambda n: {"type": "integer", "multipleOf": n, "minimum": n * 1000 + 1}, (9001, 9973)),
    ("great numbers", lambda n: {"type": "integer", "minimum": 10**n}, (10, 15, 17, 300, 4000)),
    ("small numbers", lambda n: {"type": "number", "exclusiveMinimum": 10.0**-n, "maximum": 10.0 ** (1 - n)}, (5, 20, 300)),
    ("empty ranges", lambda n: {"type": "number", "minimum": n, "exclusiveMaximum": n}, (0, 5)),
    (
        "wrong counts",
        lambda n: {
            "type": ("string", "array", "object")[n % 3],
            ("minLength", "maxItems", "minProperties")[n % 3]: (-1, "3", None, 1e300, True, [1])[n // 3],
        },
        tuple(range(18)),
    ),
    (
        "wrong numbers",
        lambda n: {"type": "number", ("minimum", "exclusiveMaximum", "multipleOf")[n % 3]: ("3", None, True, [1], 0, -1)[n // 3]},
        tuple(range(18)),
    ),
    (
        "wrong parts",
        lambda n: {
            "type": "object",
            (
                "properties",
                "required",
                "anyOf",
                "$ref",
                "$defs",
                "patternProperties",
                "type",
                "enum",
                "additionalProperties",
                "prefixItems",
            )[n % 10]: (7, [7], {"a": 7}, "a")[n // 10],
        },
        tuple(range(40)),
    ),
]
