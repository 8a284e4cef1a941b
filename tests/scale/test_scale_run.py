"""What is asked, kills and restarts, refusals, and the command line."""

from __future__ import annotations

import functools
import http.server
import json
import os
import signal
import subprocess
import threading
import time
from pathlib import Path

import jsonschema
import pytest

from helpers_scale import QUESTION, command, environment, fill, read, run, scene, settings
from smolvlm import SmolVLM
from smolvlm.cli.main import main
from smolvlm.scale.attempts import MAX_DEATHS
from smolvlm.scale.batch import run_batch
from smolvlm.scale.errors import BatchError
from smolvlm.scale.folder import COLUMNS, RunFolder
from smolvlm.scale.inputs import Inputs
from smolvlm.scale.plan import Plan, write_plan

FLAGS = ("--model", "nano", "-q", QUESTION, "--max-new-tokens", "16", "--part-inputs", "2")
SCHEMA = {"type": "object", "properties": {"colour": {"enum": ["red", "blue"]}}, "required": ["colour"]}


def test_several_questions_share_a_medium(nano: SmolVLM, tmp_path: Path) -> None:
    fill(tmp_path / "media", 5, every_broken=5)
    questions = ("What colour is it?", "How many things are there?", QUESTION)
    out = tmp_path / "out.parquet"
    before = nano.runtime.counters.tiles_encoded
    run_batch(settings([tmp_path / "media"], questions=questions, system="Be brief."), out, load=lambda: nano)
    encoded = nano.runtime.counters.tiles_encoded - before
    rows = read(out)
    assert encoded == sum(nano.ask(row["source"], QUESTION).usage.encoded_tiles for row in rows[:12:3])  # once, not thrice
    assert [row["question"] for row in rows] == [*questions] * 5
    assert len({row["id"] for row in rows}) == 5
    assert [row["error"] is None for row in rows] == [True] * 12 + [False] * 3
    for row in rows[:12]:
        expected = nano.ask(row["source"], row["question"], system="Be brief.", max_new_tokens=16)
        assert row["answer"] == expected.text


def test_answers_that_fit_a_schema(nano: SmolVLM, tmp_path: Path) -> None:
    fill(tmp_path / "media", 6, every_broken=6)
    out = tmp_path / "out.parquet"
    run_batch(settings([tmp_path / "media"], schema=json.dumps(SCHEMA)), out, load=lambda: nano)
    rows = read(out)
    for row in rows[:5]:
        document = json.loads(row["answer"])
        jsonschema.validate(document, SCHEMA)
        assert document == nano.extract(row["source"], SCHEMA, QUESTION, max_new_tokens=16)
    assert rows[5]["answer"] is None


def test_words_of_a_user_are_never_control_tokens(nano: SmolVLM, tmp_path: Path) -> None:
    fill(tmp_path / "media", 1)
    question = "What is <image> <end_of_utterance> here?"
    run_batch(settings([tmp_path / "media"], questions=(question,)), tmp_path / "out.parquet", load=lambda: nano)
    (row,) = read(tmp_path / "out.parquet")
    assert row["answer"] == nano.ask(row["source"], question, max_new_tokens=16).text


def test_addresses_need_a_host_that_was_named(nano: SmolVLM, tmp_path: Path) -> None:
    (tmp_path / "web").mkdir()
    scene(1).save(tmp_path / "web" / "1.png")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path / "web"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        port = server.server_address[1]
        (tmp_path / "list.txt").write_text(f"http://localhost:{port}/1.png\nhttp://localhost:{port}/2.png\n")
        ask = functools.partial(settings, [tmp_path / "list.txt"], remote_ports=(port,))
        run_batch(ask(), tmp_path / "none.parquet", load=lambda: nano)
        run_batch(ask(remote_hosts=("localhost",)), tmp_path / "private.parquet", load=lambda: nano)
        local = ("127.0.0.0/8", "::1/128")
        run_batch(ask(remote_hosts=("localhost",), allow_addresses=local), tmp_path / "ok.parquet", load=lambda: nano)
        server.shutdown()
    assert all("--remote-hosts" in row["error"] for row in read(tmp_path / "none.parquet"))
    assert all("private network" in row["error"] for row in read(tmp_path / "private.parquet"))
    first, second = read(tmp_path / "ok.parquet")
    assert first["answer"] == nano.ask(tmp_path / "web" / "1.png", QUESTION, max_new_tokens=16).text
    assert "404" in second["error"]


@pytest.mark.slow
def test_a_kill_in_the_middle_costs_no_row_and_no_work(tmp_path: Path) -> None:
    broken = fill(tmp_path / "media", 40)
    out, folder = tmp_path / "out.parquet", RunFolder.beside(tmp_path / "out.parquet")
    args = (tmp_path / "media", "--out", out, *FLAGS)
    kept: dict[Path, int] = {}
    for kill in (signal.SIGKILL, signal.SIGINT, signal.SIGKILL):
        process = subprocess.Popen(
            command(*args),
            env=environment(),
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
        until = time.monotonic() + 90
        while len(list(folder.path.glob("part-*.parquet"))) < len(kept) + 4 and time.monotonic() < until:
            time.sleep(0.005)
        process.send_signal(kill)
        said = process.communicate(timeout=60)[1]
        assert process.returncode == (-signal.SIGKILL if kill == signal.SIGKILL else 130), said
        assert not out.exists()
        parts = {path: path.stat().st_mtime_ns for path in folder.path.glob("part-*.parquet")}
        assert len(kept) + 4 <= len(parts) < 20
        assert kept.items() <= parts.items()  # what was done is not done again
        kept = parts
        if kill == signal.SIGINT:
            assert "goes on from here" in said
            assert not list(folder.path.glob("trying-*"))
    (folder.path / "part-00000019.parquet.0000.tmp").write_bytes(b"half a part")  # as a kill leaves it
    (tmp_path / "media" / "zzz.png").write_bytes(b"came later: not in the plan")
    done = run(*args)
    assert done.returncode == 0, done.stderr
    assert f"{len(kept) * 2} of 40 inputs were done before" in done.stderr
    assert "wrote" in done.stderr
    assert "40 rows for 40 inputs; 2 rows say in `error`" in done.stderr
    rows = read(out)
    assert len(rows) == len({row["id"] for row in rows}) == 40
    assert [Path(row["source"]).name for row in rows if row["error"]] == broken
    assert not folder.path.exists()
    once = tmp_path / "once.parquet"
    (tmp_path / "media" / "zzz.png").unlink()
    assert run(tmp_path / "media", "--out", once, *FLAGS).returncode == 0
    timeless = [{name: row[name] for name in COLUMNS if name != "seconds"} for row in rows]
    assert timeless == [{name: row[name] for name in COLUMNS if name != "seconds"} for row in read(once)]


def test_a_crash_between_merging_and_tidying_up_is_harmless(nano: SmolVLM, tmp_path: Path, monkeypatch) -> None:
    fill(tmp_path / "media", 6)
    out = tmp_path / "out.parquet"
    monkeypatch.setattr(RunFolder, "remove", lambda _: None)  # as if the process had died right before
    run_batch(settings([tmp_path / "media"]), out, load=lambda: nano)
    monkeypatch.undo()
    first = out.read_bytes()
    with pytest.raises(BatchError, match="exists already"):
        run_batch(settings([tmp_path / "media"]), out, load=lambda: pytest.fail("nothing is left to ask"))
    run_batch(settings([tmp_path / "media"]), out, overwrite=True, load=lambda: pytest.fail("nothing is left to ask"))
    assert out.read_bytes() == first


def test_other_settings_are_refused_by_name(nano: SmolVLM, tmp_path: Path) -> None:
    fill(tmp_path / "media", 8)
    out = tmp_path / "out.parquet"

    def stop(done: int, total: int, errors: int) -> None:
        if done >= 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_batch(settings([tmp_path / "media"]), out, load=lambda: nano, on_progress=stop)
    for changes, named in (
        ({"questions": ("Other?",)}, 'questions was ["Describe this picture."] and is ["Other?"]'),
        ({"options": {"max_new_tokens": 17}}, "max_new_tokens was 16 and is 17"),
        ({"part_inputs": 5}, "part_inputs was 4 and is 5"),
        ({"inputs": ("elsewhere",)}, "inputs was"),
        ({"system": "Be brief."}, "system was null"),
    ):
        with pytest.raises(BatchError) as refused:
            run_batch(settings(**{"inputs": [tmp_path / "media"], **changes}), out)
        assert named in str(refused.value)
    before = RunFolder.beside(out).done()
    result = run_batch(settings([tmp_path / "media"], batch_size=3), out, load=lambda: nano)  # no answer depends on it
    assert (result.done_before, result.inputs, before) == (4, 8, {0})


def test_two_processes_do_not_work_on_one_run(nano: SmolVLM, tmp_path: Path) -> None:
    fill(tmp_path / "media", 2)
    wanted = settings([tmp_path / "media"])
    with RunFolder.beside(tmp_path / "out.parquet").claimed(wanted), pytest.raises(BatchError, match="another process is at work"):
        run_batch(wanted, tmp_path / "out.parquet", load=lambda: nano)


@pytest.mark.slow
def test_an_input_that_ends_the_process_is_given_up(nano: SmolVLM, tmp_path: Path) -> None:
    """A file that kills its reader: `os._exit` in the middle of reading, as a crash in a decoder ends a process."""
    fill(tmp_path / "media", 5)
    out, folder = tmp_path / "out.parquet", RunFolder.beside(tmp_path / "out.parquet")
    program = (
        "import os, sys; from smolvlm.processor import Processor; real = Processor.prepare_media\n"
        "def prepare(self, messages, **options):\n"
        "    text = str(messages)\n"
        "    return os._exit(9) if '00002' in text else real(self, messages, **options)\n"
        "Processor.prepare_media = prepare\n"
        "from smolvlm.cli.main import main; sys.exit(main(sys.argv[1:]))\n"
    )
    args = ["-c", program, "batch", str(tmp_path / "media"), "--out", str(out), *FLAGS]
    codes = [
        subprocess.run([command()[0], *args], env=environment(), capture_output=True, check=False).returncode for _ in range(MAX_DEATHS + 1)
    ]
    assert codes == [9] * MAX_DEATHS + [0]
    rows = read(out)
    assert [row["error"] is None for row in rows] == [True, True, False, True, True]
    assert "ended the process 3 times" in rows[2]["error"]
    assert not folder.path.exists()


def test_a_machine_at_fault_ends_the_run_and_spoils_no_rows(nano: SmolVLM, tmp_path: Path, monkeypatch) -> None:
    fill(tmp_path / "media", 30, every_broken=5)
    wanted, out = settings([tmp_path / "media"]), tmp_path / "out.parquet"
    folder = RunFolder.beside(out)
    real, calls = nano.engine.encode_images, 0

    def lost(pixels):  # one input's own trouble first, then a device that is gone for good
        nonlocal calls
        calls += 1
        if calls == 2 or calls > 6:
            raise RuntimeError("device lost")
        return real(pixels)

    monkeypatch.setattr(nano.engine, "encode_images", lost)
    with pytest.raises(BatchError, match=r"10 inputs in a row failed .*device lost"):
        run_batch(wanted, out, load=lambda: nano)
    monkeypatch.undo()
    rows = read(folder.part(0))
    assert [row["error"] is None for row in rows] == [True, False, True, True]
    assert "unexpected RuntimeError (device lost)" in rows[1]["error"]
    left = max(folder.done()) + 1
    folder.trying(left).mkdir()  # no note can be written there, as on a full disk
    (folder.trying(left) / "x").touch()
    with pytest.raises(BatchError, match="make room"):
        run_batch(wanted, out, load=lambda: nano)
    (folder.trying(left) / "x").unlink()
    folder.trying(left).rmdir()
    run_batch(wanted, out, load=lambda: nano)
    assert len(read(out)) == 30


def test_a_damaged_part_is_not_merged(nano: SmolVLM, tmp_path: Path) -> None:
    fill(tmp_path / "media", 8)
    out = tmp_path / "out.parquet"
    folder = RunFolder.beside(out)

    def spoil(done: int, total: int, errors: int) -> None:
        if done == total:
            folder.part(1).write_bytes(folder.part(1).read_bytes()[:-20])

    with pytest.raises(BatchError, match=r"part-00000001\.parquet: is damaged"):
        run_batch(settings([tmp_path / "media"]), out, load=lambda: nano, on_progress=spoil)
    assert not out.exists()
    folder.part(1).unlink()
    assert run_batch(settings([tmp_path / "media"]), out, load=lambda: nano).done_before == 4
    assert len(read(out)) == 8


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(tmp_path / "media", 3)
    out = tmp_path / "new" / "out.parquet"
    schema = tmp_path / "schema.json"
    schema.write_text(json.dumps(SCHEMA))
    done = run(tmp_path / "media", "--out", out, "--schema", schema, "--model", "nano")
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert {json.loads(row["answer"])["colour"] for row in read(out)} <= {"red", "blue"}
    assert {row["question"] for row in read(out)} == {"Answer with one JSON object that holds what can be seen."}
    before = out.read_bytes()
    for args, reason in (
        ((tmp_path / "media", "--out", out, *FLAGS), "exists already"),
        ((tmp_path / "media", "--out", tmp_path / "o.parquet"), "nothing is asked"),
        ((tmp_path / "media", "--out", tmp_path, *FLAGS), "is a folder"),
        ((tmp_path / "none", "--out", tmp_path / "o.parquet", *FLAGS), "no such file or folder"),
        ((tmp_path / "media", "--out", tmp_path / "o.parquet", *FLAGS, "--worker-cpus", 2), "--workers N"),
        ((tmp_path / "media", "--out", tmp_path / "o.parquet", *FLAGS, "--remote-hosts", "a b"), "no host name"),
        ((tmp_path / "media", "--out", tmp_path / "o.parquet", *FLAGS, "--part-inputs", 0), "--part-inputs 0"),
        ((tmp_path / "media", "--out", tmp_path / "o.parquet", *FLAGS, "--workers", 0), "--workers 0"),
        ((tmp_path / "media", "--out", tmp_path / "o.parquet", "--schema", out, "--model", "nano"), "not UTF-8"),
    ):
        assert main(["batch", *map(str, args)]) == 2
        said = capsys.readouterr()
        assert said.out == ""
        assert reason in said.err
        assert "Traceback" not in said.err
    assert out.read_bytes() == before
    done = run(tmp_path / "media", "--out", out, "--describe", "--model", "nano", "--overwrite", "--max-new-tokens", 8)
    assert done.returncode == 0, done.stderr
    assert {row["question"] for row in read(out)} == {"Describe this in detail."}


def test_the_help_shows_examples_and_defaults() -> None:
    shown = run("--help").stdout
    assert sum(line.startswith("    smolvlm batch ") for line in shown.splitlines()) >= 3
    assert "[default: 16]" in shown
    assert "[default: 8]" in shown


def test_a_plan_keeps_order_and_parts(tmp_path: Path) -> None:
    fill(tmp_path / "media", 10)
    assert write_plan(tmp_path / "plan.parquet", Inputs([str(tmp_path / "media")]), 4) == 10
    plan = Plan(tmp_path / "plan.parquet")
    assert (plan.inputs, plan.parts, [plan.count(part) for part in range(3)]) == (10, 3, [4, 4, 2])
    assert [item for part in range(3) for item in plan.items(part)] == list(Inputs([str(tmp_path / "media")]))
    assert sorted(os.listdir(tmp_path)) == ["media", "plan.parquet"]
