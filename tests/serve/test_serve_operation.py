"""Warm-up, draining on SIGTERM, and the configuration."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from helpers_serve import serving, text
from smolvlm import SmolVLM
from smolvlm.cli.main import main
from smolvlm.errors import ParamsError
from smolvlm.listening import accept_from_now, listen
from smolvlm.serve.app import create_app
from smolvlm.serve.config import ServeConfig


@pytest.mark.slow
def test_health_comes_before_ready(log: Path) -> None:
    with serving(log, ready=False) as server:
        deadline = time.monotonic() + 30
        seen = []
        while not seen or seen[-1] != 200:
            assert time.monotonic() < deadline
            try:
                seen.append(httpx.get(f"{server.url}/ready").status_code)
                assert httpx.get(f"{server.url}/health").status_code == 200
            except httpx.TransportError:
                continue
        assert set(seen) <= {200, 503}
        assert server.metric("smolvlm_tiles_encoded_total") == 1  # the warm-up's


def test_a_fault_of_ours_is_told_in_openai_form(nano: SmolVLM) -> None:
    """Without a word of what went wrong: that is for the log."""
    app, parts = create_app(nano, ServeConfig())
    parts.backend.metrics.render = None  # as broken as a bug would leave it

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.get("/metrics")

    reply = asyncio.run(ask())
    assert reply.status_code == 500
    assert reply.json()["error"]["code"] == "internal_error"


@pytest.mark.slow
def test_sigterm_finishes_answers_and_refuses_new_ones(log: Path) -> None:
    with serving(log) as server:
        options: dict[str, Any] = {"max_tokens": 600, "extra_body": {"ignore_eos": True, "loop_guard": False}}
        stream = server.client().chat.completions.create(
            model="nano", messages=text("Say something."), stream=True, **options, stream_options={"include_usage": True}
        )
        chunks = iter(stream)
        next(chunks)
        codes = []
        stopping = threading.Thread(target=lambda: codes.append(server.stop()))
        stopping.start()
        refused: openai.APIStatusError | None = None
        while refused is None:
            try:
                server.client().chat.completions.create(model="nano", messages=text("Me too."), max_tokens=1)
            except openai.InternalServerError as error:
                refused = error
        assert (refused.status_code, refused.code) == (503, "shutting_down")
        assert httpx.get(f"{server.url}/ready").status_code == 503
        rest = list(chunks)
        assert rest[-1].usage.completion_tokens == 600
        stopping.join(30)
        assert codes == [0]
    assert '"drained"' in log.read_text()


def test_flags_beat_the_environment_beats_the_file(tmp_path: Path) -> None:
    file = tmp_path / "serve.toml"
    file.write_text('port = 1\nmax_running = 2\nmax_waiting = 3\nremote_hosts = ["a.example"]\n')
    environ = {"SMOLVLM_SERVE_PORT": "4", "SMOLVLM_SERVE_MAX_RUNNING": "5", "SMOLVLM_SERVE_CONFIG": str(file), "OTHER": "x"}
    made = ServeConfig.gather({"port": 6, "host": None, "remote_hosts": []}, None, environ)
    assert (made.port, made.max_running, made.max_waiting, made.remote_hosts) == (6, 5, 3, ("a.example",))
    assert made.host == ServeConfig().host
    assert ServeConfig.gather({}, None, {"SMOLVLM_SERVE_REMOTE_HOSTS": "a.example, *.b.example"}).remote_hosts == (
        "a.example",
        "*.b.example",
    )


@pytest.mark.parametrize(
    ("flags", "toml", "environ", "word"),
    [
        ({}, "", {"SMOLVLM_SERVE_PROT": "1"}, "SMOLVLM_SERVE_PROT"),
        ({}, "", {"SMOLVLM_SERVE_PORT": "many"}, "SMOLVLM_SERVE_PORT"),
        ({}, "prot = 1", {}, "prot"),
        ({}, "port = ", {}, "TOML"),
        ({}, 'port = "1"', {}, "port"),
        ({"port": 70000}, "", {}, "port"),
        ({"stall_ratio": float("nan")}, "", {}, "stall_ratio"),
        ({"max_running": 0}, "", {}, "max_running"),
        ({"log_level": "loud"}, "", {}, "log_level"),
        ({"workers": 4}, "", {}, "serve run smolvlm.scale.ray_serve:app"),
        ({}, "workers = 2", {}, "serve run smolvlm.scale.ray_serve:app"),
        ({}, "", {"SMOLVLM_SERVE_WORKERS": "3"}, "serve run smolvlm.scale.ray_serve:app"),
    ],
)
def test_a_wrong_setting_is_named(tmp_path: Path, flags: dict[str, Any], toml: str, environ: dict[str, str], word: str) -> None:
    file = tmp_path / "serve.toml"
    file.write_text(toml)
    with pytest.raises(ParamsError, match=word):
        ServeConfig.gather(flags, str(file), environ)


def test_settings_of_earlier_versions_are_taken(tmp_path: Path) -> None:
    file = tmp_path / "serve.toml"
    file.write_text("workers = 1\nport = 7")
    assert ServeConfig.gather({"workers": 1}, str(file), {"SMOLVLM_SERVE_WORKERS": "1"}) == ServeConfig(port=7)


def test_what_cannot_be_served_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "keys.json").write_text("{}")
    for args, word in (
        (["--host", "256.1.1.1"], "listen"),
        (["--keys-file", str(tmp_path / "keys.json")], "keys.json"),
        (["--new-key", "x"], "--keys-file"),
        (["--model", str(tmp_path / "none")], "none"),
    ):
        assert main(["serve", "--model", "nano", *args]) == 2
        lines = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
        assert len(lines) == 1
        assert word in lines[0]


def test_the_address_is_looked_at_before_the_model(capsys: pytest.CaptureFixture[str]) -> None:
    """203.0.113.0/24 is for documentation: no machine has it. A model that does not exist would be the next to complain."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for host, number, words in (("203.0.113.7", "0", "--host that this machine has"), ("127.0.0.1", str(port), "another program")):
            flags = ["--host", host, "--port", number, "--model", "no-such-model"]
            assert main(["serve", *flags]) == 2
            said = capsys.readouterr().err
            assert f"cannot listen on {host} port {number}" in said
            assert words in said
            assert "no-such-model" not in said
            assert said.count("\n") == 1
    assert main(["serve", "--port", "0", "--model", "no-such-model"]) == 2
    assert "no-such-model" in capsys.readouterr().err


def test_keys_are_read_before_the_model(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["serve", "--port", "0", "--model", "no-such-model", "--keys-file", str(tmp_path / "keys.json")]) == 2
    assert "keys.json" in capsys.readouterr().err


def test_two_servers_that_loaded_at_the_same_time() -> None:
    first = listen("127.0.0.1", 0)
    port = first.getsockname()[1]
    with first, listen("127.0.0.1", port) as second:
        accept_from_now(first, 1)
        with pytest.raises(ParamsError, match=f"port {port} .*another program"):
            accept_from_now(second, 1)
