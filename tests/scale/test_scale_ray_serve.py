"""The server on Ray Serve: arguments; with `-m slow` a real local Ray, real replicas, and OpenAI's client."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import openai
import psutil
import pytest
import ray
import yaml

from helpers_scale import ROOT, environment, scene
from helpers_serve import MEDIA, about, text
from smolvlm import SmolVLM
from smolvlm.errors import ModelNotFoundError, ParamsError
from smolvlm.hub import resolve
from smolvlm.scale.ray_serve import app, read_arguments
from smolvlm.scale.replica_options import NAME
from smolvlm.serve.api.keys import new_key

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Ray's own use of pydantic
    from ray import serve

SMALL = {"model": "nano", "device": "cpu", "replica_cpus": "1", "max_replicas": "1", "media_workers": "1"}


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A Ray of two processors with Serve's proxy; the address of the proxy."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("PYTHONPATH", "OMP_NUM_THREADS"):
            patch.setenv(name, environment()[name])
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        ray.init(address="local", num_cpus=2, object_store_memory=100 * 1024**2, include_dashboard=False, log_to_driver=False)
        try:
            port = free_port()
            serve.start(proxy_location="HeadOnly", http_options={"host": "127.0.0.1", "port": port})
            yield f"http://127.0.0.1:{port}"
        finally:
            serve.shutdown()
            ray.shutdown()


@contextmanager
def deployed(name: str = "smolvlm", prefix: str = "/", **args: Any) -> Iterator[None]:
    serve.run(app({**SMALL, **args}), name=name, route_prefix=prefix)
    try:
        yield
    finally:
        serve.delete(name)


def client(url: str, key: str = "unused", **options: Any) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{url}/v1", api_key=key, timeout=60, **{"max_retries": 0, **options})


@pytest.mark.slow
def test_clients_are_answered_as_by_the_server(url: str, nano: SmolVLM, tmp_path: Path) -> None:
    with deployed():
        asking = client(url)
        plain = asking.chat.completions.create(model="nano", messages=text("How many hearts are there?"), max_tokens=8)
        assert plain.choices[0].message.content == str(nano.ask([], "How many hearts are there?", max_new_tokens=8))
        seen = asking.chat.completions.create(
            model="nano",
            messages=about("scene.png", "Describe this picture."),
            max_tokens=48,
            stream=True,
            stream_options={"include_usage": True},
        )
        chunks = list(seen)
        answer = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        assert len(chunks) > 5
        assert answer == str(nano.ask(MEDIA / "scene.png", "Describe this picture.", max_new_tokens=48))
        assert chunks[-1].usage.completion_tokens > 5
        with pytest.raises(openai.BadRequestError, match="files_folder"):
            asking.files.create(file=MEDIA / "clip.mp4", purpose="user_data")
        with pytest.raises(openai.NotFoundError, match="does not exist here"):
            asking.chat.completions.create(model="other", messages=text("Hello."))
        reply = httpx.get(f"{url}/ready", headers={"X-Request-ID": "mine-1"})
        assert reply.status_code == 200
        assert reply.headers.get_list("x-request-id") == ["mine-1"]


@pytest.mark.slow
def test_keys_hold_below_a_route_prefix(url: str, tmp_path: Path) -> None:
    keys = tmp_path / "keys.json"
    key = new_key(keys, "alice")
    body = {"model": "nano", "messages": text("Hello."), "max_tokens": 1}
    with deployed("keyed", "/vlm", keys_file=str(keys), files_folder=str(tmp_path / "uploads")):
        for path in ("/vlm/v1/chat/completions", "/vlm/vlm/v1/chat/completions", "/vlm//v1/chat/completions"):
            assert httpx.post(f"{url}{path}", json=body).status_code in (401, 404), path
        assert httpx.post(f"{url}/vlm/v1/chat/completions", json=body).json()["error"]["code"] == "invalid_api_key"
        asking = client(f"{url}/vlm", key)
        upload = asking.files.create(file=MEDIA / "clip.mp4", purpose="user_data")
        about_it = [{"type": "file", "file": {"file_id": upload.id}}, {"type": "text", "text": "What happens in this video?"}]
        answer = asking.chat.completions.create(model="nano", messages=[{"role": "user", "content": about_it}])
        assert "butterfly" in answer.choices[0].message.content
        assert asking.files.delete(upload.id).deleted
        large = asking.files.create(file=("large.mp4", bytes(16 * 1024**2)), purpose="user_data")  # in many pieces
        assert (tmp_path / "uploads" / f"{large.id}.bin").stat().st_size == large.bytes == 16 * 1024**2


def test_arguments_are_text_or_typed(tmp_path: Path) -> None:
    file = tmp_path / "serve.toml"
    file.write_text('model = "nano"\nmax_running = 2\nmax_waiting = 3\n')
    given = {
        "config": str(file),
        "max_running": "5",
        "remote_hosts": "a.example, b.example",
        "max_replicas": "9",
        "sticky": "true",
        "stall_ratio": 2,
    }
    options, config = read_arguments(given, {"SMOLVLM_SERVE_MAX_WAITING": "7", "SMOLVLM_SERVE_MAX_RUNNING": "8"})
    assert (config.model, config.max_running, config.max_waiting, config.stall_ratio) == ("nano", 5, 7, 2)
    assert config.remote_hosts == ("a.example", "b.example")
    assert (options.max_replicas, options.sticky) == (9, True)
    assert options.autoscaling(config)["target_ongoing_requests"] == 2.5
    made = app(given)._bound_deployment._deployment_config  # what Serve is told
    assert (made.max_ongoing_requests, made.max_queued_requests) == (5 + 3, 3)
    assert made.autoscaling_config.max_replicas == 9
    assert made.graceful_shutdown_timeout_s > config.drain_s
    assert made.request_router_config.request_router_class.endswith("ConsistentHashRouter")


def test_paths_are_whole_for_replicas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").symlink_to(resolve("nano"))
    monkeypatch.chdir(tmp_path)
    bound = app({"model": "here", "files_folder": "uploads"})._bound_deployment.init_args[0]
    assert (bound.model, bound.files_folder) == (str(tmp_path / "here"), str(tmp_path / "uploads"))
    assert app({"model": "nano"})._bound_deployment.init_args[0].model == "nano"


@pytest.mark.parametrize(
    ("args", "word"),
    [
        ({"model": "nano", "max_replica": "2"}, "max_replica: no argument"),
        ({"model": "nano", "port": "1"}, "Ray Serve itself listens"),
        ({"model": "nano", "max_running": "many"}, "MAX_RUNNING='many'"),
        ({"model": "nano", "max_running": 0}, "max_running=0"),
        ({"model": "nano", "replica_cpus": "none"}, "replica_cpus=none"),
        ({"model": "nano", "min_replicas": 3, "max_replicas": 2}, "min_replicas=3 is more"),
        ({"max_replicas": "2"}, "name the model"),
    ],
)
def test_a_wrong_argument_is_named(args: dict[str, Any], word: str) -> None:
    with pytest.raises(ParamsError, match=word) as refused:
        read_arguments(args, {})
    assert "\n" not in str(refused.value)


def test_what_cannot_be_deployed_is_said_at_once(tmp_path: Path) -> None:
    """Before anything is started: what fails in a replica ends up in a log."""
    with pytest.raises(ModelNotFoundError, match="none"):
        app({"model": str(tmp_path / "none")})
    with pytest.raises(ParamsError, match=r"keys\.json"):
        app({"model": "nano", "keys_file": str(tmp_path / "keys.json")})


# --- slow: two replicas -------------------------------------------------------------------------------------------------


@pytest.fixture
def two(url: str) -> Iterator[str]:
    with deployed(min_replicas=2, max_replicas=2):
        yield url


def replicas() -> list[psutil.Process]:
    """The living processes of this Ray's replicas."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # a zombie, too
            if "ServeReplica" in " ".join(process.cmdline()):
                found.append(process)
    return found


def wait_until(true: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def running() -> int:
    states = serve.status().applications["smolvlm"].deployments[NAME].replica_states
    return int(states.get("RUNNING", 0))


def drawn(number: int) -> dict[str, Any]:
    """The part of a message for a picture that no other number has."""
    stored = io.BytesIO()
    scene(number).save(stored, "PNG")
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{base64.b64encode(stored.getvalue()).decode()}"}}


def describe(asking: openai.OpenAI, number: int, question: str, **headers: str) -> Any:
    content: list[Any] = [drawn(number), {"type": "text", "text": question}]
    return asking.chat.completions.create(
        model="nano", messages=[{"role": "user", "content": content}], max_tokens=32, extra_headers=headers
    )


@pytest.mark.slow
def test_two_replicas_share_the_load(two: str, nano: SmolVLM) -> None:
    asking = client(two)
    before = {process.pid: process.cpu_times().user for process in replicas()}
    assert len(before) == 2
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda n: describe(asking, n, "Describe this picture.").choices[0].message.content, range(96)))
    assert answers == [str(nano.ask(scene(n), "Describe this picture.", max_new_tokens=32)) for n in range(96)]
    spent = [process.cpu_times().user - before[process.pid] for process in replicas()]
    print(f"\n96 pictures: {spent[0]:.1f} and {spent[1]:.1f} s of processor time in the two replicas")
    assert min(spent) > 0.2 * sum(spent)


@pytest.mark.slow
def test_a_session_comes_back_to_its_replica(url: str) -> None:
    asking = client(url)
    with deployed():  # the proxy learns to choose as usual, and must unlearn it
        describe(asking, 0, "Describe this picture.")
    with deployed(min_replicas=2, max_replicas=2, sticky=True):
        for number in range(100, 112):
            session = {"x-session-id": f"session-{number}"}
            first = describe(asking, number, "Describe this picture.", **session)
            again = describe(asking, number, "How many rings are there?", **session)
            assert first.usage.prompt_tokens_details.cached_tokens < 10
            assert again.usage.prompt_tokens_details.cached_tokens > 30  # the picture, at least


@pytest.mark.slow
def test_a_replica_is_killed_and_requests_go_on(two: str, nano: SmolVLM) -> None:
    """OpenAI's client asks again by itself: every answer comes, and each is the right one."""
    wanted = [str(nano.ask(scene(n), "Describe this picture.", max_new_tokens=32)) for n in range(16)]
    statuses: list[int] = []
    noting = httpx.Client(event_hooks={"response": [lambda response: statuses.append(response.status_code)]}, timeout=60)
    asking = client(two, max_retries=5, http_client=noting)
    killed = threading.Event()

    def ask(number: int) -> bool:
        answer = describe(asking, number % 16, "Describe this picture.").choices[0].message.content
        if number >= 50 and not killed.is_set():
            killed.set()
            replicas()[0].kill()
        return bool(answer == wanted[number % 16])

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, range(200))) == [True] * 200
    assert killed.is_set()
    assert set(statuses) <= {200, 500}
    print(f"\n200 requests, 200 right answers; {statuses.count(500)} of them failed once with 500 and were asked again")
    wait_until(lambda: running() == len(replicas()) == 2, 60)


@pytest.mark.slow
def test_answers_under_way_outlive_a_deployment(url: str) -> None:
    options: dict[str, Any] = {"max_tokens": 1200, "extra_body": {"ignore_eos": True, "loop_guard": False}}
    with deployed():
        stream = client(url).chat.completions.create(
            model="nano", messages=text("Say something."), stream=True, stream_options={"include_usage": True}, **options
        )
        chunks = iter(stream)
        next(chunks)
        ending = threading.Thread(target=serve.delete, args=("smolvlm",))
        ending.start()
        wait_until(lambda: httpx.get(f"{url}/ready").status_code == 404, 10)
        assert list(chunks)[-1].usage.completion_tokens == 1200
        ending.join(30)
        assert not replicas()


@pytest.mark.slow
def test_a_client_that_hangs_up_frees_its_place(url: str) -> None:
    options: dict[str, Any] = {"max_tokens": 1900, "extra_body": {"ignore_eos": True, "loop_guard": False}}
    with deployed():
        stream = client(url).chat.completions.create(model="nano", messages=text("Say something."), stream=True, **options)
        next(iter(stream))
        stream.close()
        wait_until(lambda: 'smolvlm_jobs_total{outcome="cancelled"} 1.0' in httpx.get(f"{url}/metrics").text, 10)


@pytest.mark.slow
def test_who_finds_all_places_taken_is_told_when_to_come_again(url: str) -> None:
    options: dict[str, Any] = {"max_tokens": 400, "extra_body": {"ignore_eos": True, "loop_guard": False}}

    def ask(_: int) -> float:
        """The seconds that a refused request should wait; 0 for one that is answered."""
        try:
            client(url).chat.completions.create(model="nano", messages=text("Say something."), **options)
        except openai.RateLimitError as error:
            return float(error.response.headers["retry-after"])
        return 0.0

    with deployed(max_running="1", max_waiting="1"), ThreadPoolExecutor(12) as pool:
        waits = list(pool.map(ask, range(12)))
    print(f"\n12 requests at once for 1 + 1 + 1 places: {waits.count(0)} answered, {12 - waits.count(0)} told to wait")
    assert 1 <= waits.count(0) < 12
    assert all(wait >= 1 for wait in waits if wait)


# --- slow: the command line and the file ----------------------------------------------------------------------------------

HOLD = """
import json, sys, ray
ray.init(address="local", num_cpus=3, object_store_memory=100 * 1024**2, include_dashboard=True, dashboard_port=int(sys.argv[1]))
print(json.dumps({"address": ray.get_runtime_context().gcs_address}), flush=True)
sys.stdin.read()
"""


@pytest.mark.slow
def test_the_example_file_scales_with_the_load(tmp_path: Path) -> None:
    """`serve deploy` of examples/ray_serve.yaml, made small; one replica becomes two; `serve run` beside it."""
    config = yaml.safe_load((ROOT / "examples" / "ray_serve.yaml").read_text(encoding="utf-8"))
    port, dashboard = free_port(), free_port()
    config["http_options"] = {"host": "127.0.0.1", "port": port}
    arguments = config["applications"][0]["args"]
    assert read_arguments(arguments, {})[0].max_replicas == 8
    arguments |= {
        "model": "nano",
        "device": "cpu",
        "media_workers": 1,
        "replica_cpus": 1,
        "max_replicas": 2,
        "upscale_delay_s": 1,
        "target_ongoing_requests": 1,
    }
    file = tmp_path / "ray_serve.yaml"
    file.write_text(yaml.safe_dump(config), encoding="utf-8")
    base = f"http://127.0.0.1:{port}"
    env = environment() | {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DASHBOARD_ADDRESS": f"http://127.0.0.1:{dashboard}"}

    def command(*args: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "ray.serve.scripts", *args], env=env, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def count() -> int:
        status = yaml.safe_load(command("status"))
        return int(status["applications"]["smolvlm"]["deployments"][f"{NAME}-sticky"]["replica_states"].get("RUNNING", 0))

    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(dashboard)],
        env=env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert holder.stdin is not None
        assert holder.stdout is not None
        address = json.loads(holder.stdout.readline())["address"]
        settings = tmp_path / "serve.toml"
        settings.write_text('device = "cpu"\nmedia_workers = 1\nport = 1\n')
        command("deploy", str(file))
        wait_until(lambda: answers(base), 90)
        assert count() == 1
        asking = client(base)
        began = time.monotonic()
        with ThreadPoolExecutor(8) as pool:
            while count() < 2:
                assert time.monotonic() - began < 120
                list(pool.map(lambda n: describe(asking, n, "Describe this picture."), range(64)))
        print(f"\nthe second replica was there after {time.monotonic() - began:.0f} s of load")
        command(
            "run",
            "--address",
            address,
            "--non-blocking",
            "--name",
            "other",
            "--route-prefix",
            "/other",
            "smolvlm.scale.ray_serve:app",
            "model=nano",
            "replica_cpus=1",
            "max_replicas=1",
            "served_name=second",
            f"config={settings}",
        )
        second = client(f"{base}/other").chat.completions.create(model="second", messages=text("Hello."), max_tokens=4)
        assert second.model == "second"
        arguments["model"] = str(tmp_path / "none")
        file.write_text(yaml.safe_dump(config), encoding="utf-8")
        command("deploy", str(file))
        wait_until(lambda: "none: no such folder" in " ".join(command("status").split()), 60)
    finally:
        holder.stdin.close()
        holder.wait(60)


def answers(base: str) -> bool:
    try:
        return httpx.get(f"{base}/ready").status_code == 200
    except httpx.TransportError:
        return False
