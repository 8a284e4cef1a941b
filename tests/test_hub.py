"""Names -> folders: real folders, the Hub client's real cache layout on disk, and a local server in the Hub's place."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from smolvlm import hub
from smolvlm.checkpoint.native_file import NATIVE_FILE
from smolvlm.errors import ModelNotFoundError

SMALL = "HuggingFaceTB/SmolVLM2-256M-Video-Instruct"
LARGE = "HuggingFaceTB/SmolVLM2-2.2B-Instruct"
COMPLETE = {"config.json": 10, "tokenizer.json": 20, "model.safetensors": 1000}


def cache(repo: str, files: dict[str, int], *, revision: str = "main") -> Path:
    """Lay out a snapshot as the Hub's client does: blobs, a commit's folder of links to them, and a reference."""
    root = hub.cache_folder() / f"models--{repo.replace('/', '--')}"
    commit = hashlib.sha1(f"{repo}{revision}".encode()).hexdigest()
    snapshot = root / "snapshots" / commit
    for folder in (snapshot, root / "blobs", root / "refs"):
        folder.mkdir(parents=True, exist_ok=True)
    (root / "refs" / revision).write_text(commit)
    for name, size in files.items():
        blob = root / "blobs" / hashlib.sha256(f"{repo}{name}".encode()).hexdigest()
        blob.write_bytes(b"x" * size)
        (snapshot / name).symlink_to(os.path.relpath(blob, snapshot))
    return snapshot


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    return folder


def test_a_folder_is_itself(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert hub.resolve(checkpoint) == checkpoint
    assert hub.resolve(str(checkpoint)) == checkpoint
    monkeypatch.chdir(checkpoint.parent)
    assert hub.resolve("mine").resolve() == checkpoint.resolve()
    monkeypatch.setenv("HOME", str(checkpoint.parent))
    assert hub.resolve("~/mine") == checkpoint


@pytest.mark.parametrize("name", ["256m", "256M", SMALL, SMALL.lower(), "SmolVLM2-256M-Video-Instruct"])
def test_names_of_one_checkpoint_in_the_cache(name: str) -> None:
    snapshot = cache(SMALL, COMPLETE)
    assert hub.resolve(name) == snapshot


def test_the_short_names_are_the_published_ids() -> None:
    assert hub.SHORT_NAMES == {
        "256m": "HuggingFaceTB/SmolVLM2-256M-Video-Instruct",
        "500m": "HuggingFaceTB/SmolVLM2-500M-Video-Instruct",
        "2.2b": "HuggingFaceTB/SmolVLM2-2.2B-Instruct",
    }


def test_an_unrelated_folder_does_not_hide_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "work" / "256m").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "work")
    snapshot = cache(SMALL, COMPLETE)
    assert hub.resolve("256m") == snapshot


def test_any_other_id_and_revision() -> None:
    main, other = cache("me/my.model_2", COMPLETE), cache("me/my.model_2", COMPLETE, revision="v2")
    assert hub.resolve("me/my.model_2") == main
    assert hub.resolve("me/my.model_2", revision="v2") == other


def test_a_quantised_checkpoint_needs_no_other_weights() -> None:
    snapshot = cache("me/my-q8", {"config.json": 1, "tokenizer.json": 1, NATIVE_FILE: 5})
    assert hub.resolve("me/my-q8") == snapshot


def test_shards_are_all_needed() -> None:
    snapshot = cache(SMALL, {"config.json": 1, "tokenizer.json": 1, "a.safetensors": 5, "b.safetensors": 5})
    index = snapshot / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"x": "a.safetensors", "y": "b.safetensors"}}))
    assert hub.resolve(SMALL) == snapshot
    (snapshot / "b.safetensors").resolve().unlink()
    with pytest.raises(ModelNotFoundError, match="not complete in the cache"):
        hub.resolve(SMALL)
    index.write_text("{")
    with pytest.raises(ModelNotFoundError, match="not complete in the cache"):
        hub.resolve(SMALL)


@pytest.mark.parametrize("missing", list(COMPLETE))
def test_half_a_download_is_not_a_model(missing: str) -> None:
    cache(SMALL, {name: size for name, size in COMPLETE.items() if name != missing})
    with pytest.raises(ModelNotFoundError, match="not complete in the cache"):
        hub.resolve("256m")
    assert hub.list_local() == []


def test_list_local_largest_first() -> None:
    assert hub.list_local() == []
    small, large = cache(SMALL, COMPLETE), cache(LARGE, {**COMPLETE, "model.safetensors": 5000})
    cache("someone/else", COMPLETE)
    cache("HuggingFaceTB/SmolVLM2-500M-Video-Instruct", {"config.json": 1})
    assert hub.list_local() == [hub.LocalModel(LARGE, large, 5030), hub.LocalModel(SMALL, small, 1030)]


def test_where_the_cache_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert hub.cache_folder() == tmp_path / "hf_home" / "hub"
    monkeypatch.delenv("HF_HOME")
    assert hub.cache_folder() == tmp_path / "cache" / "huggingface" / "hub"
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "elsewhere"))
    assert hub.cache_folder() == tmp_path / "elsewhere"


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("", "is no model name"),
        ("   ", "is no model name"),
        ("a\0b", "is no model name"),
        ("./nothing", r"\./nothing: no such folder"),
        ("/nothing/here", "no such folder"),
        ("a/b/c", "no such folder"),
        ("~/nothing", "no such folder"),
        ("..", "is a folder without config.json"),
        ("257m", r"no model name \(did you mean 256m\?\)"),
        ("nanoo", r"did you mean nano\?"),
        ("SmolVLM2-256M-Video-Instuct", "did you mean SmolVLM2-256M-Video-Instruct"),
        ("HuggingFaceTB/SmolVLM2-256M-Video-Instuct", f"HF_HUB_OFFLINE, which is set.*did you mean {SMALL}"),
        (
            "500m",
            "HuggingFaceTB/SmolVLM2-500M-Video-Instruct is not complete in the cache .*hf_home.*, and "
            "HF_HUB_OFFLINE, which is set, forbids the network; unset it",
        ),
        ("no spaces here", "no model name"),
        ("a--b/c", "no model name"),
        ("ünï/code", "no model name"),
        ("x" * 5000, "no model name"),
    ],
)
def test_unknown_names_end_in_one_sentence(name: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "inside").mkdir()
    monkeypatch.chdir(tmp_path / "inside")
    with pytest.raises(ModelNotFoundError, match=sentence) as caught:
        hub.resolve(name)
    assert "\n" not in str(caught.value)


def test_a_file_or_a_folder_without_config(tmp_path: Path) -> None:
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"x")
    with pytest.raises(ModelNotFoundError, match="is a file; pass the folder"):
        hub.resolve(weights)
    with pytest.raises(ModelNotFoundError, match=r"without config\.json"):
        hub.resolve(tmp_path)


@pytest.mark.parametrize("revision", ["", "../main", "a b", "-x", "a/../../b"])
def test_bad_revisions(revision: str) -> None:
    with pytest.raises(ModelNotFoundError, match="is no revision"):
        hub.resolve("256m", revision=revision)


def test_the_built_in_model_is_found() -> None:
    assert hub.resolve("nano") == Path(hub.__file__).parent / "models" / "nano"
    assert (hub.resolve("nano") / "config.json").is_file()
    with pytest.raises(ModelNotFoundError, match="built in"):
        hub.download("nano")


def test_offline_is_said_before_anything_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelNotFoundError, match="HF_HUB_OFFLINE is set"):
        hub.download("256m")
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    with pytest.raises(ModelNotFoundError, match="run `smolvlm download") as caught:
        hub.resolve("256m", offline=True)
    assert "OFFLINE" not in str(caught.value)  # a variable that nobody set is not to blame


class Hub(http.server.BaseHTTPRequestHandler):
    """The two calls of the Hub that a download needs, with its real headers, for two repositories."""

    commit = "c" * 40
    repos: ClassVar = {
        SMALL: {
            "config.json": b"{}",
            "tokenizer.json": b"[]",
            "model.safetensors": b"w" * 300_000,
            "chat_template.jinja": b"x",
            "pytorch_model.bin": b"pickle",
            "onnx/config.json": b"{}",
            "README.md": b"# hi",
            "run.py": b"print()",
        },
        "me/pickled": {"config.json": b"{}", "tokenizer.json": b"{}", "pytorch_model.bin": b"pickle"},
    }
    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        type(self).asked.append(f"{self.command} {path}")
        for repo, files in self.repos.items():
            if path.startswith(f"/api/models/{repo}"):
                return self.send_json(self.info(repo, path, files))
            if path.startswith(f"/{repo}/resolve/"):
                name = path.removeprefix(f"/{repo}/resolve/").split("/", 1)[1]
                return self.send_file(files[name])
        self.send_response(404)
        self.send_header("X-Error-Code", "RepoNotFound")
        self.send_header("Content-Length", "0")
        self.end_headers()
        return None

    do_HEAD = do_GET

    def info(self, repo: str, path: str, files: dict[str, bytes]) -> Any:
        entries = [{"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()} for name, data in files.items()]
        if "/tree/" in path:
            return entries
        return {
            "id": repo,
            "modelId": repo,
            "sha": self.commit,
            "private": False,
            "tags": [],
            "siblings": [{"rfilename": name} for name in files],
        }

    def send_json(self, value: Any) -> None:
        self.send_body(json.dumps(value).encode(), {"Content-Type": "application/json"})

    def send_file(self, data: bytes) -> None:
        self.send_body(data, {"ETag": f'"{hashlib.sha1(data).hexdigest()}"'})

    def send_body(self, data: bytes, headers: dict[str, str]) -> None:
        self.send_response(200)
        for name, value in {**headers, "X-Repo-Commit": self.commit, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    def log_message(self, *args: Any) -> None:
        """Tests are quiet."""


@pytest.fixture
def server() -> Iterator[str]:
    Hub.asked = []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_address[1]}"
        running.shutdown()


def in_fresh_process(code: str, endpoint: str) -> list[str]:
    """The client reads its endpoint and its offline switch once, when it is imported: each case needs a new process."""
    environment = {
        **os.environ,
        "HF_ENDPOINT": endpoint,
        "HF_HUB_OFFLINE": "0",
        "NO_PROXY": "127.0.0.1",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "PYTHONPATH": str(Path(hub.__file__).parents[1]),
    }
    head = "from smolvlm import hub\nfrom smolvlm.errors import ModelNotFoundError\n"
    done = subprocess.run([sys.executable, "-c", head + code], env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == "", "the library prints nothing, progress bars included"
    return done.stdout.splitlines()


def test_a_download_fetches_what_is_needed_and_counts_bytes(server: str) -> None:
    lines = in_fresh_process(
        "seen = []\n"
        "folder = hub.resolve('256m', on_progress=lambda done, total: seen.append((done, total)))\n"
        "print(folder)\nprint(sorted(p.name for p in folder.iterdir()))\nprint(max(seen))\n"
        "print(hub.resolve('256m', offline=True) == folder, [m.name for m in hub.list_local()])\n",
        server,
    )
    assert Path(lines[0]).is_relative_to(hub.cache_folder())
    assert lines[1] == "['chat_template.jinja', 'config.json', 'model.safetensors', 'tokenizer.json']"
    done, total = json.loads(lines[2].replace("(", "[").replace(")", "]"))
    assert done == total == 300_000 + 2 + 2 + 1
    assert lines[3] == f"True ['{SMALL}']"
    assert not [path for path in Hub.asked if path.endswith((".bin", ".py", "onnx/config.json"))]


def test_what_is_complete_in_the_cache_asks_nobody(server: str) -> None:
    snapshot = cache(SMALL, COMPLETE)
    assert in_fresh_process("print(hub.resolve('256m'))", server) == [str(snapshot)]
    assert Hub.asked == []


def refusal(call: str, endpoint: str) -> str:
    code = f"try:\n    {call}\nexcept ModelNotFoundError as error:\n    print(error)\n"
    (line,) = in_fresh_process(code, endpoint)
    return line


def test_what_the_hub_does_not_have(server: str) -> None:
    line = refusal("hub.resolve('HuggingFaceTB/SmolVLM2-256M-Vide-Instruct')", server)
    assert line.startswith("HuggingFaceTB/SmolVLM2-256M-Vide-Instruct is not on the Hub, or is private (did you mean ")
    line = refusal("hub.resolve('me/pickled')", server)
    assert line == ("me/pickled has no model.safetensors; only checkpoints with safetensors weights are read, never pickled ones.")


def test_no_network_names_the_id_the_cache_and_the_remedy(tmp_path: Path) -> None:
    line = refusal("hub.resolve('256m')", "http://127.0.0.1:9")
    cache = tmp_path / "hf_home" / "hub"
    assert line.startswith(f"{SMALL} is not complete in the cache {cache}, and the Hub cannot be reached (")
    assert "refused" in line  # the cause
    assert f"run `smolvlm download {SMALL}` on a machine that has one" in line
    line = refusal("hub.download('256m')", "http://127.0.0.1:9")
    assert "refused" in line
    assert "smolvlm download" not in line  # it does not advise itself


def test_a_cache_that_cannot_be_written(server: str, tmp_path: Path) -> None:
    (tmp_path / "hf_home").write_text("a file where the folder should be")
    line = refusal("hub.resolve('256m')", server)
    assert "cannot be stored in the cache" in line
    assert "HF_HOME" in line


@pytest.mark.parametrize("name", ["huggingface/smolvlm", "HuggingFace/SmolVLM2", "HuggingFaceTB/SmolVLM", "smolvlm"])
def test_a_name_that_nobody_published_says_what_is_taken(name: str, caplog: pytest.LogCaptureFixture) -> None:
    assert hub.resolve(name, offline=True).name == "nano"
    assert f"{name} is no published checkpoint; the built-in nano is taken" in caplog.text
    folder = cache(LARGE, COMPLETE)
    assert hub.resolve(name, offline=True) == folder
    assert f"{name} is no published checkpoint; {LARGE} is taken" in caplog.text
