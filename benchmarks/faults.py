"""What the server does when something goes wrong around it: each fault is made for real, and what happened is printed.

    python -m benchmarks.faults                     # all of them, a few minutes
    python -m benchmarks.faults full_disk           # one
    python -m benchmarks.faults --markdown

A fault that ends otherwise than docs/faults.md says ends the program with exit code 1. `tests/serve/test_serve_faults.py`
makes the same faults in small. Those of clients are in `benchmarks/faults_clients.py`.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
from rich.console import Console

from benchmarks import faults_clients
from benchmarks.fault_requests import Fault, Scale, asked, body, chat, expect, fresh_picture, known_questions
from benchmarks.server_process import ServerProcess, run_server
from smolvlm.hub import resolve

_MIB = 1024**2


def killed_decoders(folder: Path, scale: Scale) -> Iterator[str]:
    """kill -9 of the decoding process that works on every tenth request."""
    with run_server(folder / "log", "--media-workers", "2") as server, ThreadPoolExecutor(1) as pool:
        killed, statuses = 0, []
        for n in range(scale.requests):
            picture = fresh_picture(n, large=n % 10 == 5)
            decoders = {decoder: decoder.cpu_times().user for decoder in server.decoders()}
            answer = pool.submit(chat, server.url, body(picture))
            while n % 10 == 5 and not answer.done():
                # The one that has begun: it used the processor since.
                busy = [decoder for decoder, before in decoders.items() if decoder.cpu_times().user > before + 0.03]
                if busy:
                    busy[0].kill()
                    killed += 1
                    break
                time.sleep(0.005)
            statuses.append(answer.result().status_code)
        lost = server.metric("smolvlm_media_workers_lost")
        expect(statuses == [200] * scale.requests, f"statuses {sorted(set(statuses))}")
        expect(killed == lost == scale.requests // 10, f"{killed} processes were killed, {lost:.0f} of them at work")
        yield f"{scale.requests} requests with a new picture each, {killed} decoding processes killed at work"
        yield f"all {scale.requests} were answered with 200: another process did the job again"


@contextmanager
def tmpfs(folder: Path, size_mib: int) -> Iterator[Path]:
    """A small disk of its own. Raises PermissionError where this process may not mount."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size_mib}m", "tmpfs", str(folder)]
    try:
        made = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise PermissionError("there is no mount command") from None
    if made.returncode:
        raise PermissionError(f"a small disk cannot be mounted here: {made.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def full_disk(folder: Path, scale: Scale) -> Iterator[str]:  # noqa: ARG001
    """The folder of uploads, the temporary folder and the log, each on a disk that is full."""
    question = known_questions(1)[0]
    with tmpfs(folder / "disk", 4) as disk:
        for name, flags, environ in (
            ("uploads", ("--files-folder", str(disk / "files")), {}),
            ("temporary files", (), {"TMPDIR": str(disk)}),
        ):
            with run_server(folder / "log", *flags, environ=environ) as server:
                small = _upload(server, fresh_picture(0)[:10_000])
                expect(small.status_code == 200, f"a small upload: {small.text}")
                refused = _upload(server, bytes(8 * _MIB))
                left = [path.name for path in disk.rglob("*") if path.is_file() and path.stat().st_size > _MIB]
                expect(refused.status_code == 503, f"{name}: {refused.status_code} {refused.text[:200]}")
                expect(not left, f"{name}: half an upload stayed: {left}")
                expect(asked(server.url, question) == question.answer, "questions are answered")
                again = _upload(server, fresh_picture(1)[:10_000])
                expect(again.status_code == 200, f"afterwards: {again.text}")
                yield f"{name}: {refused.status_code} `{refused.json()['error']['code']}`, nothing is left behind, the next upload fits"
        with run_server(disk / "log") as server:
            _fill(disk / "rest")
            for _ in range(200):  # lines beyond what the file's last block holds
                expect(httpx.get(f"{server.url}/v1/models", trust_env=False).status_code == 200, "the log is full")
            expect(asked(server.url, question) == question.answer, "questions are answered")
            yield "log: lines are lost, questions are answered"


def read_only_disk(folder: Path, scale: Scale) -> Iterator[str]:  # noqa: ARG001
    """The folder of uploads on a disk that becomes read-only, as disks with errors do."""
    question = known_questions(1)[0]
    with tmpfs(folder / "disk", 4) as disk, run_server(folder / "log", "--files-folder", str(disk)) as server:
        made = _upload(server, fresh_picture(0)[:10_000]).json()["id"]
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        url = f"{server.url}/v1/files"
        deleted = httpx.delete(f"{url}/{made}", timeout=60, trust_env=False)
        statuses = _upload(server, b"x").status_code, deleted.status_code, httpx.get(url, trust_env=False).status_code
        expect(statuses == (503, 503, 200), f"upload, delete, list: {statuses}")
        expect(asked(server.url, question) == question.answer, "questions are answered")
        yield "uploading and deleting: 503 `no_storage`; what is there can be listed and asked about"


def _fill(file: Path) -> None:
    with contextlib.suppress(OSError), file.open("wb", buffering=0) as out:
        while True:
            out.write(bytes(4096))


def _upload(server: ServerProcess, data: bytes) -> httpx.Response:
    return httpx.post(f"{server.url}/v1/files", files={"file": ("x.png", data)}, timeout=60, trust_env=False)


def lost_model(folder: Path, scale: Scale) -> Iterator[str]:  # noqa: ARG001
    """The model's files are deleted: before the start, while the server runs, and before it starts again; or cut off."""
    model = folder / "model"
    shutil.copytree(resolve("nano"), model)
    question = known_questions(1)[0]
    weights = next(model.glob("*.safetensors"))
    kept = weights.rename(folder / "kept")
    yield f"weights missing at the start: {_does_not_start(model)}"
    kept.rename(weights)
    with run_server(folder / "log", "--served-name", "nano", model=str(model)) as server:
        shutil.rmtree(model)
        expect(asked(server.url, question) == question.answer, "answers go on")
        expect(chat(server.url, body(fresh_picture(0))).status_code == 200, "new pictures too")
        expect(httpx.get(f"{server.url}/ready", trust_env=False).status_code == 200, "ready")
        yield "the whole folder deleted while serving: answers go on, the same as before; the files stay mapped"
    yield f"started again: {_does_not_start(model)}"
    mapped = folder / "quantized"
    command = [sys.executable, "-m", "smolvlm", "quantize", "nano", str(mapped), "--dtype", "q8"]
    subprocess.run(command, capture_output=True, check=True)
    with run_server(folder / "log", "--served-name", "nano", model=str(mapped)) as server:
        weights = next(mapped.glob("*.safetensors"))
        replaced = shutil.copy(weights, folder / "replaced")
        Path(replaced).replace(weights)
        expect(asked(server.url, question) == question.answer, "answers go on")
        yield "a mapped (quantized) file replaced by a rename: answers go on with the old one"
    with run_server(folder / "log", "--served-name", "nano", model=str(mapped)) as server:
        os.truncate(weights, 1000)
        with contextlib.suppress(httpx.TransportError):
            chat(server.url, body(fresh_picture(1)))
        code = server.process.wait(30)
        expect(code == -signal.SIGBUS, f"exit code {code}")
        yield "a mapped file cut off in place: the system ends the process (SIGBUS); whoever watches it must start it again"


def _does_not_start(model: Path) -> str:
    command = [sys.executable, "-m", "smolvlm", "serve", "--model", str(model), "--port", "0"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    lines = ended.stderr.strip().splitlines()
    expect(ended.returncode == 2, f"exit code {ended.returncode}")
    expect("Traceback" not in ended.stderr, ended.stderr)
    return f'exit code 2, "{lines[-1].replace(str(model), "MODEL")}"'


def sigterm(folder: Path, scale: Scale) -> Iterator[str]:
    """SIGTERM while many answers are being written and wait."""
    questions = known_questions(scale.clients, tokens=400)
    with run_server(folder / "log", "--max-running", "4") as server, ThreadPoolExecutor(scale.clients + 1) as pool:
        under_way = [pool.submit(asked, server.url, question) for question in questions]
        while server.metric("smolvlm_running_sequences") < 1 or server.metric("smolvlm_waiting_prompts") < 1:
            for answer in under_way:
                expect(not answer.done(), f"{answer.done() and answer.result()!r} came before another one waited")
            time.sleep(0.02)
        server.terminate()
        refused = None
        while refused is None or refused.status_code != 503:
            refused = chat(server.url, body(None))
        expect(refused.json()["error"]["code"] == "shutting_down", refused.text)
        expect("retry-after" in refused.headers, "Retry-After")
        right = sum(answer.result() == question.answer for answer, question in zip(under_way, questions, strict=True))
        code = server.process.wait(60)
        expect(right == scale.clients, f"{right} of {scale.clients} answers are right")
        expect(code == 0, f"exit code {code}")
        yield f"{scale.clients} answers under way or in the queue: all finish, letter for letter as alone"
        yield "new requests: 503 `shutting_down` with Retry-After; exit code 0 after the last answer"


FAULTS: dict[str, Fault] = {
    "killed_decoders": killed_decoders,
    "full_disk": full_disk,
    "read_only_disk": read_only_disk,
    "lost_model": lost_model,
    "slow_heads": faults_clients.slow_heads,
    "slow_bodies": faults_clients.slow_bodies,
    "unread_answers": faults_clients.unread_answers,
    "idle_connections": faults_clients.idle_connections,
    "hang_ups": faults_clients.hang_ups,
    "sigterm": sigterm,
}


def run(name: str, scale: Scale) -> list[str]:
    """What happened, in sentences. Raises AssertionError when it is not what the server promises."""
    with tempfile.TemporaryDirectory() as folder:
        return list(FAULTS[name](Path(folder), scale))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("faults", nargs="*", choices=[*FAULTS, []], help="which; all where none is named")
    parser.add_argument("--markdown", action="store_true", help="print the table of docs/faults.md")
    options = parser.parse_args()
    console = Console(highlight=False, soft_wrap=True)
    failed = False
    for name in options.faults or FAULTS:
        try:
            sentences = run(name, Scale())
        except (AssertionError, PermissionError, httpx.HTTPError) as error:
            failed = True
            sentences = [f"NOT AS PROMISED: {type(error).__name__}: {error}"]
        if options.markdown:
            console.print(f"| `{name}` | {'; '.join(sentences)} |", markup=False)
        else:
            console.print(name, *(f"  {sentence}" for sentence in sentences), sep="\n", markup=False)
    return int(failed)


if __name__ == "__main__":
    raise SystemExit(main())
