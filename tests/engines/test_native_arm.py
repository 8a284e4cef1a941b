"""`kernels_test`, the kernels against double precision without Python: cross-built for ARM, in an emulator, and built as here."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow  # a compiler and an emulator

NATIVE = Path(__file__).parents[2] / "native"
# beside the interpreter: cmake and ninja from PyPI in an environment that nobody activated
PATH = os.pathsep.join((os.environ.get("PATH", ""), str(Path(sys.executable).parent)))


def need(program: str, package: str) -> str:
    found = shutil.which(program, path=PATH)
    if found is None:
        pytest.skip(f"{program} is not here (Debian: apt-get install {package})")
    return found


def build(folder: Path, *options: str) -> Path:
    cmake, ninja = need("cmake", "cmake"), need("ninja", "ninja-build")
    options += ("-DSMOLVLM_PYTHON=OFF", "-DSMOLVLM_TESTS=ON", f"-DCMAKE_MAKE_PROGRAM={ninja}")
    for command in (
        [cmake, "-S", str(NATIVE), "-B", str(folder), "-G", "Ninja", *options],
        [cmake, "--build", str(folder), "--target", "kernels_test", "--parallel", "2"],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return folder / "kernels_test"


def run(*command: str | Path) -> list[str]:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = done.stdout.splitlines()
    wrong = [line for line in lines if "WRONG" in line]
    assert done.returncode == 0, "\n".join([*wrong, done.stderr[-2000:]])
    assert lines[-1] == "every kernel is right"
    return lines


def _emulator() -> str:
    return shutil.which("qemu-aarch64-static") or need("qemu-aarch64", "qemu-user")


@pytest.fixture(scope="module")
def arm_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    need("aarch64-linux-gnu-g++", "g++-aarch64-linux-gnu")
    return build(tmp_path_factory.mktemp("arm"), f"-DCMAKE_TOOLCHAIN_FILE={NATIVE / 'aarch64.cmake'}")


# What each processor has, the best first, and which of it is left to this processor to check.
@pytest.mark.parametrize(
    ("processor", "usable", "checked"),
    [
        ("cortex-a53", ["neon", "scalar"], ["neon", "scalar"]),
        ("neoverse-n1", ["neon_dotprod", "neon", "scalar"], ["neon_dotprod"]),
        ("max", ["neon_bf16", "neon_dotprod", "neon", "scalar"], ["neon_bf16"]),
    ],
)
def test_arm_kernels(arm_program: Path, processor: str, usable: list[str], checked: list[str]) -> None:
    emulator = _emulator()
    first, *lines, _ = run(emulator, "-cpu", processor, arm_program, *checked)
    assert first == "usable here: " + " ".join(usable)
    assert {line.split()[0] for line in lines} == set(checked)


def test_a_set_that_the_processor_lacks_is_refused_by_name(arm_program: Path) -> None:
    emulator = _emulator()
    command = [emulator, "-cpu", "cortex-a53", str(arm_program), "neon_dotprod"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "'neon_dotprod' cannot run here; this machine has neon, scalar" in done.stderr


def test_the_kernels_of_this_machine(tmp_path: Path) -> None:
    """What `test_native_kernels.py` checks through Python, and that the program itself builds here."""
    need("c++", "g++")
    program = build(tmp_path)
    first, *lines, _ = run(program)
    assert first.startswith("usable here: ")
    assert [*dict.fromkeys(line.split()[0] for line in lines)] == first.split()[2:]
    if "avx512_bf16" in first.split():
        run(program, "amx_emulated")
