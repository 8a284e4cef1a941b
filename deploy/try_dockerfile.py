"""Runs the Dockerfile where no Docker engine is: its steps in a chroot, then the server inside. As root, on a Debian system:

    python deploy/try_dockerfile.py [--keep FOLDER]

debootstrap makes the base: Debian's own Python stands for the image `python:...-slim`, with a link so that it is found as
/usr/local/bin/python. RUN steps run in the root of their stage, COPY copies what .dockerignore lets through, ENV, ARG, USER,
WORKDIR, HEALTHCHECK, ENTRYPOINT and CMD are taken as they stand. The server then runs as the image's user, on a read-only
root, without capabilities and without any network but its own: what compose.yaml asks for, and a little more.

The mirror is the one that apt uses here, and pip has the settings that pip has here: they are passed on at run time, and
are written nowhere. Folders that they name are mounted while the build runs.
"""

from __future__ import annotations

import argparse
import ast
import base64
import http.client
import json
import os
import shlex
import shutil
import string
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGES = "ca-certificates,python3,python3-dev,python3-pip,python3-venv"
PICTURE = REPOSITORY / "examples" / "media" / "nano" / "scene.png"
MEGABYTE = 10**6
CHROOT = shutil.which("chroot") or "/usr/sbin/chroot"  # by its path: the PATH of a step is the image's


@dataclass
class Stage:
    """A root folder and what its steps have set."""

    root: Path
    env: dict[str, str] = field(default_factory=lambda: {"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"})
    user: str = "0:0"
    folder: str = "/"
    said: dict[str, str] = field(default_factory=dict)  # ENTRYPOINT, CMD and HEALTHCHECK as they stand


def steps(text: str) -> list[tuple[str, str]]:
    """(instruction, rest) of a Dockerfile."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [(word.upper(), rest.strip()) for word, _, rest in (line.partition(" ") for line in joined.splitlines()) if word]


def run(*command: str | Path, **options: object) -> None:
    subprocess.run([str(part) for part in command], check=True, **options)  # type: ignore[call-overload]


def size(folder: Path) -> float:
    """In units of 10^6 bytes, without what is mounted in it."""
    return int(subprocess.check_output(["du", "-sxB1", str(folder)], text=True).split()[0]) / MEGABYTE


def make_base(root: Path, suite: str) -> None:
    """A Debian with Python, from the mirror that apt uses here."""
    targets = subprocess.check_output(["apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE)", "Identifier: Packages"], text=True)
    mirror = next(uri for uri, release in (line.split() for line in targets.splitlines()) if release == suite)
    run("debootstrap", "--variant=minbase", f"--include={PACKAGES}", suite, root, mirror, stdout=subprocess.DEVNULL)
    (root / "usr/local/bin/python").symlink_to("/usr/bin/python3")
    shutil.rmtree(root / "var/cache/apt/archives")


def pip_settings() -> dict[str, str]:
    """This machine's settings of pip, as variables of the environment."""
    listed = subprocess.check_output([sys.executable, "-m", "pip", "config", "list"], text=True)
    found = {}
    for line in listed.splitlines():
        name, _, value = line.partition("=")
        found["PIP_" + name.rpartition(".")[2].upper().replace("-", "_")] = ast.literal_eval(value)
    return found


def mount_for_build(root: Path, settings: dict[str, str]) -> None:
    """/proc, the resolver, and the local folders and files that pip's settings name. Gone with this mount namespace."""
    run("mount", "-t", "proc", "proc", root / "proc")
    places = ["/etc/resolv.conf"]
    places += [word for value in settings.values() for word in value.split()]
    for name in places:
        place = Path(name.removeprefix("file://"))
        if name.startswith("file://"):
            place = place.parent  # an index of links to files that lie beside it
        if not place.is_absolute() or not place.exists():
            continue
        inside = root / str(place).lstrip("/")
        inside.parent.mkdir(parents=True, exist_ok=True)
        inside.mkdir(exist_ok=True) if place.is_dir() else inside.touch()
        run("mount", "--bind", "--options", "ro", place, inside)


def copy(stage: Stage, stages: dict[str, Stage], rest: str) -> None:
    """COPY: between stages, or from the repository, of which .dockerignore names what may be seen."""
    words = shlex.split(rest)
    source = REPOSITORY
    if words[0].startswith("--from="):
        source = stages[words.pop(0).removeprefix("--from=")].root
    ignored = [line.strip() for line in (REPOSITORY / ".dockerignore").read_text().splitlines()]
    skip = shutil.ignore_patterns(*(line.removeprefix("**/") for line in ignored if line.startswith("**/")))
    *origins, target = words
    place = stage.root / os.path.join(stage.folder, target).lstrip("/")
    for origin in origins:
        if source is REPOSITORY and f"!{origin}" not in ignored:
            raise SystemExit(f"COPY {origin}: .dockerignore does not let it through.")
        found = source / origin.lstrip("/")
        if found.is_dir():
            shutil.copytree(found, place, symlinks=True, dirs_exist_ok=True, ignore=skip if source is REPOSITORY else None)
        else:
            place.mkdir(parents=True, exist_ok=True)
            shutil.copy2(found, place)


def build(work: Path) -> Stage:
    """Execute the Dockerfile; the last stage."""
    settings, stages, stage, said_before = pip_settings(), {}, None, {}
    for number, (word, rest) in enumerate(steps((REPOSITORY / "Dockerfile").read_text())):
        if word != "FROM":
            print(f"    {word} {rest[:110]}", flush=True)
        if word == "FROM":
            image, *name = string.Template(rest).substitute(said_before).split(" AS ")
            tag = image.partition("@")[0]  # a digest names what only a registry has
            base = work / "base"
            if not base.exists():
                make_base(base, tag.rpartition("-")[2])
            print(f"FROM {rest}: {size(base):.0f} MB, by debootstrap", flush=True)
            stage = Stage(work / f"stage-{number}")
            stages[name[0] if name else ""] = stage
            run("cp", "-a", base, stage.root)
        elif word == "RUN":
            try:
                mount_for_build(stage.root, settings)
                in_chroot(stage, ["/bin/sh", "-c", rest], settings)
            finally:
                for mounted in reversed(mounts_in(stage.root)):
                    run("umount", mounted)
        elif word == "COPY":
            copy(stage, stages, rest)
        elif word == "ENV":
            stage.env |= dict(pair.split("=", 1) for pair in shlex.split(rest))
        elif word == "USER":
            stage.user = rest
        elif word == "WORKDIR":
            stage.folder = rest
            (stage.root / rest.lstrip("/")).mkdir(parents=True, exist_ok=True)
        elif word in ("ENTRYPOINT", "CMD", "HEALTHCHECK"):
            stage.said[word] = rest
        elif word == "ARG" and stage is None:  # before the first FROM: what the bases are called
            said_before |= dict([rest.split("=", 1)])
        elif word not in ("ARG", "EXPOSE", "VOLUME"):
            raise SystemExit(f"{word}: this script does not know it.")
    return stage


def mounts_in(folder: Path) -> list[str]:
    """What is mounted below it."""
    places = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    return [place for place in places if place.startswith(f"{folder}/")]


def in_chroot(stage: Stage, command: list[str], more: dict[str, str]) -> None:
    """A build step: as root in the stage's root and folder. What it printed is shown when it fails."""
    done = subprocess.run(
        [CHROOT, stage.root, "/usr/bin/env", "--chdir", stage.folder, *command],
        env=stage.env | more,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode:
        raise SystemExit(f"{done.stdout[-4000:]}\nthe step ended with exit status {done.returncode}.")


def confined(stage: Stage, command: list[str]) -> subprocess.Popen[bytes]:
    """A process of the image: its user, its environment, no capability, and none to be had. It logs beside the root."""
    user, group = stage.user.split(":")
    with (stage.root.parent / "log").open("ab") as log:
        return subprocess.Popen(
            [
                CHROOT,
                stage.root,
                "/usr/bin/setpriv",
                f"--reuid={user}",
                f"--regid={group}",
                "--clear-groups",
                "--no-new-privs",
                "--bounding-set=-all",
                "--inh-caps=-all",
                "/usr/bin/env",
                "--chdir",
                stage.folder,
                *command,
            ],
            env=stage.env,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )


def seconds_until_ok(path: str, port: int, server: subprocess.Popen[bytes], log: Path) -> float:
    """How long it takes until the address answers 200."""
    started = time.monotonic()
    while ask("GET", path, port)[0] != 200:
        if server.poll() is not None or time.monotonic() - started > 120:
            raise SystemExit(f"{log.read_text()[-4000:]}\nthe server did not come up.")
        time.sleep(0.05)
    return time.monotonic() - started


def ask(method: str, path: str, port: int, body: object = None) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request(method, path, json.dumps(body) if body else None, {"Content-Type": "application/json"})
        reply = connection.getresponse()
        return reply.status, reply.read()
    except OSError:
        return 0, b""
    finally:
        connection.close()


def stop(server: subprocess.Popen[bytes]) -> int:
    server.terminate()
    return server.wait(30)


def use(stage: Stage) -> None:
    """Start what the image starts, check its health, ask it; then the page."""
    run("ip", "link", "set", "lo", "up")
    run("mount", "--bind", stage.root, stage.root)
    for kind, place in (("proc", "proc"), ("tmpfs", "tmp"), ("tmpfs", "cache")):
        run("mount", "-t", kind, kind, stage.root / place)
    run("mount", "--bind", "/dev", stage.root / "dev")
    user, group = (int(number) for number in stage.user.split(":"))
    os.chown(stage.root / "cache", user, group)
    run("mount", "-o", "remount,bind,ro", stage.root)
    log = stage.root.parent / "log"
    entrypoint, command, check = (json.loads(stage.said[word].rpartition("CMD ")[2]) for word in ("ENTRYPOINT", "CMD", "HEALTHCHECK"))
    server = confined(stage, entrypoint + command)
    print(f"ready after {seconds_until_ok('/ready', 8000, server, log):.1f} s", flush=True)
    print(f"HEALTHCHECK: exit status {confined(stage, check).wait()}", flush=True)
    image = "data:image/png;base64," + base64.b64encode(PICTURE.read_bytes()).decode()
    parts = [{"type": "image_url", "image_url": {"url": image}}, {"type": "text", "text": "Describe this picture."}]
    _, answer = ask("POST", "/v1/chat/completions", 8000, {"model": "nano", "messages": [{"role": "user", "content": parts}]})
    print(f"answer: {json.loads(answer)['choices'][0]['message']['content'].strip()}", flush=True)
    print(f"SIGTERM: exit status {stop(server)}", flush=True)
    print(f"HEALTHCHECK without a server: exit status {confined(stage, check).wait()}", flush=True)
    page = confined(stage, [*entrypoint, "ui", "--model", "nano", "--host", "0.0.0.0", "--no-browser"])  # noqa: S104
    print(f"the page answers on 7860 after {seconds_until_ok('/', 7860, page, log):.1f} s", flush=True)
    print(f"SIGTERM: exit status {stop(page)}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Run the Dockerfile in a chroot.")
    parser.add_argument("--keep", metavar="FOLDER", help="keep the roots there, and use the base that is there")
    parser.add_argument("--use", metavar="JSON", help=argparse.SUPPRESS)  # this script's own second half
    options = parser.parse_args()
    if options.use:
        use(Stage(**{**(made := json.loads(options.use)), "root": Path(made["root"])}))
        return
    if os.geteuid() or not shutil.which("debootstrap"):
        raise SystemExit("this needs root and debootstrap (apt-get install debootstrap).")
    if "SMOLVLM_TRY" not in os.environ:  # once more, in namespaces that take mounts and processes along when they end
        os.environ["SMOLVLM_TRY"] = "1"
        os.execvp("unshare", ["unshare", "--mount", "--pid", "--fork", "--kill-child", sys.executable, *sys.argv])  # noqa: S606
    work = Path(options.keep or tempfile.mkdtemp(prefix="smolvlm-image-")).resolve()
    try:
        work.mkdir(exist_ok=True)
        for old in work.glob("stage-*"):
            shutil.rmtree(old)
        stage = build(work)
        total, base = size(stage.root), size(work / "base")
        print(f"final root: {total:.0f} MB, of which {total - base:.0f} MB are ours", flush=True)
        made = json.dumps({**vars(stage), "root": str(stage.root)})
        run("unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", sys.executable, __file__, "--use", made)
    finally:
        if not options.keep and not mounts_in(work):  # never delete what lies elsewhere
            shutil.rmtree(work)


if __name__ == "__main__":
    main()
