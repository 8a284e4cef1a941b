"""The map, enforced: imports point downward only, and torch stays in its rooms."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "src" / "smolvlm"

# From the ground up. A module may import its own room and those below it.
FLOORS = [
    ["errors"],
    ["atomic_file", "json_file", "options", "temporary"],
    ["families"],
    ["config"],
    ["hub", "listening", "media", "prompt", "checkpoint", "synth"],
    ["known_world"],
    ["processor", "nn"],
    ["engines", "formats"],
    ["generation"],
    ["encoded"],
    ["answers", "media_parts"],
    ["inference"],
    ["extraction"],
    ["session"],
    ["vlm"],
    ["compat", "evals"],
    ["train"],
    ["serve", "ui"],
    ["apps"],
    ["scale"],
    ["cli"],
]
HEIGHT = {room: height for height, rooms in enumerate(FLOORS) for room in rooms}
TORCH_ROOMS = ("nn", "compat", "train", "formats")  # and engines/torch_*


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path, *, at_import_time: bool) -> set[str]:
    """Absolute module names that `path` imports; `at_import_time` leaves out functions and TYPE_CHECKING blocks."""
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative import"
            found.add(node.module or "")
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
        if at_import_time and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            return
        if at_import_time and isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            return
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text(encoding="utf-8")))
    return found


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_downward(path: Path) -> None:
    here = room(path)
    if here in ("__init__", "__main__"):
        return
    assert here in HEIGHT, f"{here} is not on the map: give it a floor"
    for name in imports(path, at_import_time=False):
        parts = name.split(".")
        if parts[0] != "smolvlm" or len(parts) < 2 or parts[1] == here or parts[1].startswith("__"):
            continue
        assert HEIGHT[parts[1]] < HEIGHT[here], f"{here} imports {name}, which is not below it"


# Packages inside a room: (who, may not import, but for these files).
APART = [
    ("media", "smolvlm.serve", ()),
    ("scale", "smolvlm.serve", ("ray_serve.py", "replica_options.py")),  # the server, as replicas
    ("ui", "smolvlm.serve", ()),
    ("serve/engine", "smolvlm.serve.api", ()),
    ("serve/engine", "fastapi", ()),
    ("serve/engine", "starlette", ()),
    *((room, client, ()) for room in ("scale", "serve", "ui") for client in ("httpx", "requests", "urllib.request")),
    ("media", "httpx", ("fetch/download.py",)),
    # Applications stand on the public verbs, and on one library that knows none of them.
    *(("apps", f"smolvlm.{inside}", ()) for inside in ("inference", "engines", "generation", "prompt", "processor", "nn", "serve")),
    *(("apps/library", what, ()) for what in ("smolvlm.apps.videos", "smolvlm.apps.camera", "smolvlm.vlm", "smolvlm.media")),
]


@pytest.mark.parametrize(("who", "what", "but"), APART, ids=lambda value: str(value))
def test_packages_of_one_room_stay_apart(who: str, what: str, but: tuple[str, ...]) -> None:
    files = [path for path in modules() if path.is_relative_to(PACKAGE / who)]
    assert files, f"{who} is gone: mend the rule"
    for path in files:
        if path.relative_to(PACKAGE / who).as_posix() in but:
            continue
        reached = {name for name in imports(path, at_import_time=False) if name == what or name.startswith(f"{what}.")}
        assert not reached, f"{path.relative_to(PACKAGE)} imports {reached}"


def test_there_are_no_circles_within_a_room() -> None:
    names = {".".join(("smolvlm", *p.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__"): p for p in modules()}
    graph = {name: {i for i in imports(path, at_import_time=True) if i in names and i != name} for name, path in names.items()}
    done: set[str] = set()

    def walk(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " -> ".join((*trail, name))
        if name in done:
            return
        for following in graph[name]:
            walk(following, (*trail, name))
        done.add(name)

    for name in graph:
        if not names[name].name.startswith("__init__"):  # a room's front door imports the room
            walk(name, ())


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_torch_stays_in_its_rooms(path: Path) -> None:
    if room(path) in TORCH_ROOMS or path.name.startswith("torch_"):
        return
    uses = {name for name in imports(path, at_import_time=False) if name.split(".")[0] in ("torch", "torchvision", "transformers")}
    assert not uses, f"{path.name} imports {uses}"


def test_nothing_of_ours_unpickles_or_evaluates() -> None:
    """The words themselves, not a linter's guess: pickle, eval, exec, shell strings and torch.load have no use here."""
    for path in modules():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                assert called not in ("eval", "exec", "torch.load", "os.system", "pickle.loads", "pickle.load"), f"{path}: {called}"
                assert not any(k.arg == "shell" for k in node.keywords), f"{path}: shell="


def test_files_hold_one_idea() -> None:
    long = {str(p.relative_to(PACKAGE)): n for p in modules() if (n := len(p.read_text(encoding="utf-8").splitlines())) > 400}
    assert not long, f"past 400 lines a file holds two ideas: {long}"
