"""Render a Jinja template that came with a checkpoint: code from strangers, so it gets no reach and a small budget.

Jinja's immutable sandbox keeps templates away from Python's internals (CVE-2024-34359, CVE-2026-5760). It does not keep
them from running for hours or filling the memory, so every loop turn, call and filter is also charged to one budget.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, ItemsView, Iterator, KeysView, Mapping, ValuesView
from datetime import datetime
from types import CodeType
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import loopcontrols
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

# Real prompts render in a few thousand units: typed text and media enter a template as marks of a few characters.
BUDGET = 500_000
MAX_SOURCE_CHARS = 200_000

_FILTERS = (
    "abs",
    "capitalize",
    "count",
    "d",
    "default",
    "dictsort",
    "e",
    "escape",
    "first",
    "float",
    "indent",
    "int",
    "items",
    "join",
    "last",
    "length",
    "list",
    "lower",
    "map",
    "max",
    "min",
    "reject",
    "rejectattr",
    "replace",
    "reverse",
    "round",
    "safe",
    "select",
    "selectattr",
    "sort",
    "string",
    "sum",
    "title",
    "trim",
    "unique",
    "upper",
    "wordcount",
)
# These look at one item or a length, so their cost does not grow with the conversation.
_CONSTANT_COST = ("count", "d", "default", "first", "last", "length")


class _Meter(NodeTransformer):
    """Put a charge wherever Jinja's sandbox cannot intercept: loop bodies, `~`, and what can nest or copy.

    A list that holds itself twice, made forty times over, is small in memory and endless to compare, hash or print.
    """

    def visit_For(self, node: nodes.For) -> nodes.Node:
        self.generic_visit(node)
        cost = 1 + sum(len(data.data) for data in node.find_all(nodes.TemplateData))
        node.body.insert(0, nodes.ExprStmt(_call("charge", [nodes.Const(cost)], node.lineno), lineno=node.lineno))
        return node

    def _weighed(self, node: nodes.Expr) -> nodes.Node:
        self.generic_visit(node)
        is_target = isinstance(node, nodes.Tuple) and node.ctx != "load"
        return node if is_target else _call("weighed", [node], node.lineno)

    visit_List = _weighed
    visit_Dict = _weighed
    visit_Tuple = _weighed

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:
        self.generic_visit(node)
        return _call("weighed", [node], node.lineno) if isinstance(node.arg, nodes.Slice) else node

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:
        self.generic_visit(node)
        node.expr = _call("weighed", [node.expr], node.lineno)
        for operand in node.ops:
            operand.expr = _call("weighed", [operand.expr], node.lineno)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return _call("joined", node.nodes, node.lineno)


def _call(method: str, arguments: list[nodes.Expr], lineno: int) -> nodes.Call:
    return nodes.Call(nodes.EnvironmentAttribute(method), arguments, [], None, None, lineno=lineno)


class _Environment(ImmutableSandboxedEnvironment):
    """One rendering: the sandbox, and what is left of the budget."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols], optimized=False, finalize=_charge_output, cache_size=0
        )
        self.left = BUDGET
        chosen = {name: self.filters[name] for name in _FILTERS} | {"tojson": _tojson}
        self.filters = {name: function if name in _CONSTANT_COST else _metered(self, function) for name, function in chosen.items()}
        self.tests = {name: _metered(self, function) for name, function in self.tests.items()}
        self.globals = {
            "range": self.globals["range"],
            "dict": _dict,
            "namespace": _Namespace,
            "raise_exception": _raise_exception,
            "strftime_now": _strftime_now,
        }

    def charge(self, cost: int) -> None:
        self.left -= cost
        if self.left < 0:
            raise SecurityError("it does more work than a chat template may")

    def weighed(self, value: Any) -> Any:
        self.charge(self.weigh(value))
        return value

    def joined(self, *values: Any) -> str:
        self.charge(self.weigh(values))
        return "".join(str(value) for value in values)

    def weigh(self, value: Any) -> int:
        """What it takes to write `value` out; stops as soon as that is more than the budget has."""
        total, stack = 0, [value]
        while stack and total <= self.left:
            item = stack.pop()
            if isinstance(item, str):
                total += len(item)
            elif isinstance(item, Mapping):
                stack += [*item.keys(), *item.values()]
            elif isinstance(item, list | tuple | set | KeysView | ValuesView | ItemsView):
                stack += item
            elif isinstance(item, range):
                total += len(item)
            total += 1
        return total

    def charge_product(self, *values: Any) -> None:
        """A call can make something as large as the product of what it gets: 'a'.ljust(n), x.replace(y, z)."""
        cost = 1
        for value in values:
            number = isinstance(value, int | float) and not isinstance(value, bool)
            cost *= max(1, int(min(abs(value), BUDGET + 1)) if number else self.weigh(value))
            if cost > self.left:
                break
        self.charge(cost)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        if operator == "%" and isinstance(left, str):
            raise SecurityError("the % format of strings is not available in chat templates")
        if operator == "**" and not (isinstance(right, int) and abs(right) <= 64):
            raise SecurityError("powers beyond 64 are not available in chat templates")
        if operator == "*":
            self.charge_product(left, right)
        elif not isinstance(left, int) or not isinstance(right, int):
            self.charge(self.weigh((left, right)))
        elif left.bit_length() > 256 or right.bit_length() > 256:
            raise SecurityError("numbers beyond 256 bits are not available in chat templates")
        return super().call_binop(context, operator, left, right)

    def unsafe_undefined(self, obj: Any, attribute: str) -> Any:  # noqa: ARG002
        raise SecurityError(f"access to the attribute {attribute!r} is not safe")

    def wrap_str_format(self, value: Any) -> Any:
        if super().wrap_str_format(value) is not None:
            raise SecurityError("str.format is not available in chat templates")
        return None

    def materialised(self, value: Any) -> Any:
        """A list in the place of a generator, which would hide how much it is."""
        return list(itertools.islice(value, self.left + 1)) if isinstance(value, Iterator) else value

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        if __obj not in (__self.charge, __self.weighed, __self.joined):  # these charge for themselves
            args = tuple(__self.materialised(value) for value in args)
            __self.charge_product(getattr(__obj, "__self__", None), *args, *kwargs.values())
        return super().call(__context, __obj, *args, **kwargs)


@jinja2.pass_context
def _charge_output(context: Context, value: Any) -> Any:
    environment = context.environment
    assert isinstance(environment, _Environment), "templates render in their own environment"
    environment.charge(environment.weigh(value))
    return value


def _metered(environment: _Environment, function: Any) -> Callable[..., Any]:
    def filtered(*args: Any, **kwargs: Any) -> Any:
        args = tuple(environment.materialised(value) for value in args)
        visible = [a for a in args if not isinstance(a, Context | jinja2.Environment | nodes.EvalContext)]
        environment.charge_product(*visible, *kwargs.values())
        return function(*args, **kwargs)

    if hasattr(function, "jinja_pass_arg"):  # tells Jinja to hand the filter its context or environment first
        filtered.jinja_pass_arg = function.jinja_pass_arg  # type: ignore[attr-defined]
    return filtered


class _Namespace(jinja2.utils.Namespace):
    """Jinja's namespace without names that begin with an underscore."""

    def __setitem__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            raise SecurityError(f"a namespace cannot hold {name!r}")
        super().__setitem__(name, value)


def _tojson(value: Any, ensure_ascii: bool = False, indent: int | None = None, separators: Any = None, sort_keys: bool = False) -> str:
    """JSON as the reference writes it: without the HTML escapes of Jinja's own filter."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _dict(*args: Any, **kwargs: Any) -> dict[Any, Any]:
    return dict(*args, **kwargs)


def _raise_exception(message: Any) -> None:
    raise jinja2.TemplateError(str(message))


def _strftime_now(pattern: str) -> str:
    if len(pattern) > 100:
        raise SecurityError("strftime_now takes a pattern of at most 100 characters")
    return datetime.now().strftime(pattern)  # local time, as the reference


def compile_template(source: str) -> CodeType:
    """The template as metered code. Raises whatever Jinja or Python's compiler raises: see `template.ChatTemplate`."""
    if len(source) > MAX_SOURCE_CHARS:
        raise SecurityError(f"it has {len(source)} characters; at most {MAX_SOURCE_CHARS} are read")
    environment = _Environment()
    tree = _Meter().visit(environment.parse(source))
    code = environment.compile(tree, name="chat_template", filename="chat_template")
    assert isinstance(code, CodeType), "Jinja compiles to code unless asked for source"
    return code


def render_template(code: CodeType, variables: Mapping[str, Any], max_chars: int) -> str:
    """Run compiled code on plain data. SecurityError past `max_chars` or the budget, else as the template raises."""
    environment = _Environment()
    template = jinja2.Template.from_code(environment, code, environment.make_globals(None))
    pieces: list[str] = []
    length = 0
    for piece in template.generate(**variables):
        length += len(piece)
        if length > max_chars:
            raise SecurityError(f"it writes more than {max_chars} characters")
        pieces.append(piece)
    return "".join(pieces)
