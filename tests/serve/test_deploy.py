"""Dockerfile, compose file and systemd unit agree with the program that they start, and with each other.

Whether the image's steps run is `python deploy/try_dockerfile.py`, which takes minutes and root.
"""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from helpers_serve import Server
from smolvlm.cli.main import main
from smolvlm.engines.native_engine import THREADS_VARIABLE
from smolvlm.serve.config import ServeConfig
from smolvlm.serve.server import CLOSING_S
from smolvlm.ui.config import PageConfig

ROOT = Path(__file__).resolve().parents[2]
COMPOSE = (ROOT / "compose.yaml").read_text(encoding="utf-8")
UNIT = (ROOT / "deploy" / "smolvlm.service").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def trial() -> ModuleType:
    """deploy/try_dockerfile.py, for its reading of Dockerfiles."""
    spec = importlib.util.spec_from_file_location("try_dockerfile", ROOT / "deploy" / "try_dockerfile.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def image(trial: ModuleType) -> dict[str, str]:
    """The last word of each instruction of the Dockerfile: that of the final stage."""
    return dict(trial.steps((ROOT / "Dockerfile").read_text(encoding="utf-8")))


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    return dict(yaml.safe_load(COMPOSE)["services"])


def environ_of(service: dict[str, Any]) -> dict[str, str]:
    """As compose sets it where nothing else is said: ${NAME:-default} is the default."""
    return {name: default_of(str(value)) for name, value in service.get("environment", {}).items()}


def default_of(text: str) -> str:
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)


def flags_of(command: list[str], capsys: pytest.CaptureFixture[str]) -> dict[str, str | None]:
    """Flags of a command line and their values; each stands in the command's own help."""
    assert main([command[0], "--help"]) == 0
    known = set(re.findall(r"--[a-z][a-z-]*", capsys.readouterr().out))
    flags: dict[str, str | None] = {}
    for word, following in zip(command[1:], [*command[2:], "--"], strict=True):
        if word.startswith("--"):
            assert word in known, f"{word} is no flag of smolvlm {command[0]}"
            flags[word] = None if following.startswith("--") else default_of(following)
    return flags


def test_the_image_serves_on_the_programs_ports(image: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert [int(port) for port in image["EXPOSE"].split()] == [ServeConfig().port, PageConfig().port]
    assert json.loads(image["ENTRYPOINT"]) == ["smolvlm"]
    flags = flags_of(json.loads(image["CMD"]), capsys)
    assert flags == {"--model": "nano", "--host": "0.0.0.0", "--port": str(ServeConfig().port)}


def test_the_image_is_nobodys_root(image: dict[str, str]) -> None:
    user, group = image["USER"].split(":")
    assert int(user) > 1000
    assert int(group) > 1000
    assert f"--uid {user}" in image["RUN"], "the folders' owner"
    assert json.loads(image["VOLUME"]) == ["/models", "/cache"]


def test_the_health_check_tells_a_server_from_none(image: dict[str, str], server: Server) -> None:
    check = json.loads(image["HEALTHCHECK"].partition("CMD ")[2])
    assert check[:2] == ["python", "-c"]
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        for port, healthy in ((server.url.rpartition(":")[2], True), (str(silent.getsockname()[1]), False)):
            code = check[2].replace(str(ServeConfig().port), port)
            assert port in code
            done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=30)
            assert (done.returncode == 0) == healthy


def test_the_build_sees_what_it_copies_and_no_secret(trial: ModuleType) -> None:
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*", "all that is not named stays outside"
    seen = {rule[1:] for rule in rules if rule.startswith("!")}
    copied = [rest.split()[:-1] for word, rest in trial.steps((ROOT / "Dockerfile").read_text()) if word == "COPY"]
    assert seen == {source for sources in copied for source in sources if not sources[0].startswith("--from")}
    assert all((ROOT / source).exists() for source in seen)


def test_the_base_can_be_named_by_its_content(trial: ModuleType) -> None:
    """One argument for both stages: a tag by default, a digest where somebody wants the same bytes again."""
    steps = trial.steps((ROOT / "Dockerfile").read_text(encoding="utf-8"))
    assert steps[0] == ("ARG", "PYTHON_IMAGE=python:3.11-slim-bookworm")
    assert [rest for word, rest in steps if word == "FROM"] == ["${PYTHON_IMAGE} AS build", "${PYTHON_IMAGE}"]


def test_the_image_installs_extras_that_exist() -> None:
    asked = re.search(r'"smolvlm\[([a-z,]+)\]"', (ROOT / "Dockerfile").read_text(encoding="utf-8"))
    assert asked is not None
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for extra in asked.group(1).split(","):
        assert re.search(rf"^{extra} = \[", project, re.MULTILINE), extra


def test_the_image_installs_nothing_that_is_not_named_by_its_content(trial: ModuleType) -> None:
    """Each line of the locks has a hash, none an address, and their versions are those that the tests run with."""
    constraints = dict(re.findall(r"^([\w.-]+)==([\w.+-]+)", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE))
    for name in ("requirements.lock", "build.lock"):
        text = (ROOT / "deploy" / name).read_text(encoding="utf-8")
        lines = [line for line in text.replace("\\\n", " ").splitlines() if not line.startswith("#")]
        assert lines
        for line in lines:
            assert re.fullmatch(r"([\w-]+)==([\w.]+)( ; [^-]+?)?(\s+--hash=sha256:[0-9a-f]{64})+", line.strip()), line
            package, version = line.split(" ")[0].split("==")
            assert constraints.get(package, constraints.get(package.replace("-", "_"), version)) == version, line
    runs = [rest for word, rest in trial.steps((ROOT / "Dockerfile").read_text(encoding="utf-8")) if word == "RUN" and "pip" in rest]
    for command in re.findall(r"pip\S* (?:--python \S+ )?(?:install|wheel) [^&]+", " ".join(runs)):
        safe = ("--require-hashes", "--no-index", "--no-build-isolation")
        assert any(flag in command for flag in safe), f"{command}: takes whatever the index has"


def test_compose_starts_commands_that_exist(services: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    api, page = services["api"], services["ui"]
    for service, port in ((api, ServeConfig().port), (page, PageConfig().port)):
        assert flags_of(service["command"], capsys)["--port"] == str(port)
        assert [text.rpartition(":")[2] for text in service["ports"]] == [str(port)]
    assert page["ports"][0].startswith("127.0.0.1:"), "the page asks for no key"
    assert str(PageConfig().port) in page["healthcheck"]["test"][-1]
    config = ServeConfig.gather({}, None, environ_of(api))
    assert config.keys_file == f"/run/secrets/{api['secrets'][0]}"
    assert config.drain_s + CLOSING_S <= int(api["stop_grace_period"].rstrip("s"))


def test_compose_confines_its_services(services: dict[str, Any]) -> None:
    for service in services.values():
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["init"] is True, "SIGTERM must reach a process that still loads its model"
        assert re.fullmatch(r"\d+g", default_of(service["mem_limit"]))
        assert not {"privileged", "cap_add", "network_mode", "pid", "user"} & set(service)
        assert "./models:/models:ro" in service["volumes"]
    secret = yaml.safe_load(COMPOSE)["secrets"][services["api"]["secrets"][0]]
    assert secret == {"file": "./keys.json"}


def of_unit(name: str) -> list[str]:
    return re.findall(rf"^{name}=(.*)$", UNIT, re.MULTILINE)


def test_the_unit_starts_the_server_and_lets_it_drain(capsys: pytest.CaptureFixture[str]) -> None:
    (start,) = of_unit("ExecStart")
    flags = flags_of(start.split()[1:], capsys)
    assert flags == {"--config": "/etc/smolvlm/smolvlm.toml"}
    settings = dict(pair.split("=", 1) for line in of_unit("Environment") for pair in line.split())
    served = {name: value for name, value in settings.items() if name.startswith("SMOLVLM_")}
    config = ServeConfig.gather({}, str(ROOT / "deploy" / "smolvlm.toml"), served)
    assert config.host == "127.0.0.1"
    assert config.drain_s + CLOSING_S < int(of_unit("TimeoutStopSec")[0])
    assert of_unit("KillMode") == ["mixed"], "decoding processes take SIGTERM for their end"
    assert of_unit("Type") == ["exec"], "the program does not notify"
    assert of_unit("RestartPreventExitStatus") == ["2"]
    assert config.keys_file == "%d/" + of_unit("LoadCredential")[0].partition(":")[0]
    named = set(re.findall(r"^# (\w+)=", (ROOT / "deploy" / "smolvlm.env").read_text(encoding="utf-8"), re.MULTILINE))
    assert named == {THREADS_VARIABLE, "HF_HUB_OFFLINE", "HF_TOKEN"}


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="this system has no systemd-analyze")
def test_systemd_understands_the_unit(tmp_path: Path) -> None:
    (program,) = of_unit("ExecStart")
    unit = tmp_path / "smolvlm.service"
    unit.write_text(UNIT.replace(program.split()[0], sys.executable), encoding="utf-8")  # verify looks for the program
    done = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    unit.write_text(unit.read_text(encoding="utf-8") + "[Service]\nProtectSystem=maybe\n", encoding="utf-8")
    done = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, timeout=60)
    assert "protect system" in done.stderr, "a fault would be seen"


def test_the_guides_are_linked() -> None:
    for guide, page in (("deploy.md", "serve.md"), ("deploy.zh-CN.md", "serve.zh-CN.md")):
        assert (ROOT / "docs" / guide).is_file()
        assert f"({guide})" in (ROOT / "docs" / page).read_text(encoding="utf-8")
