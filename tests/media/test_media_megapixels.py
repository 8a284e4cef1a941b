"""Photos of 108 and 200 megapixels, as phones take them: read within a bound of memory that whole decoding would break."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

# In a process of its own, started by a small one: a peak is counted since the start, and a fork inherits its parent's.
_READ = """
import json, resource, sys
from smolvlm.media import MediaOptions, load_image
options = MediaOptions(max_pixels=int(sys.argv[2])) if len(sys.argv) > 2 else None
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
warnings = []
image = load_image(sys.argv[1], options=options, on_warning=warnings.append)
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps([image.size, image.getpixel((image.width // 2, 5)), warnings, (after - before) / 1024]))
"""
_SPAWN = "import subprocess, sys; sys.exit(subprocess.run([sys.executable, '-c', *sys.argv[1:]]).returncode)"


def _read(path: Path, *more: object) -> tuple[list[int], list[int], list[str], float]:
    command = [sys.executable, "-c", _SPAWN, _READ, str(path), *map(str, more)]
    result = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return result[0], result[1], result[2], result[3]


@pytest.mark.slow
@pytest.mark.parametrize(("width", "height", "options"), [(12000, 9000, {}), (16320, 12240, {}), (16320, 12240, {"progressive": True})])
def test_a_photo_beyond_the_limit_is_decoded_at_half_its_size(width: int, height: int, options: dict, tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    Image.new("RGB", (width, height), (200, 60, 30)).save(path, **options)
    size, color, warnings, peak_mb = _read(path)
    assert size == [width // 2, height // 2]
    assert all(abs(a - b) <= 2 for a, b in zip(color, (200, 60, 30), strict=True))
    assert len(warnings) == 1
    assert f"{width} x {height}" in warnings[0]
    # Two copies of the half-size picture, at four bytes a pixel in Pillow; before them a progressive file's coefficients (2
    # bytes x 1.5 a pixel).
    coefficients = width * height * 3 if options else 0
    assert peak_mb < (2 * 4 * width * height / 4 + coefficients) * 1.2 / 2**20 + 40


@pytest.mark.slow
def test_it_is_decoded_whole_where_the_limit_is_raised(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    Image.new("RGB", (12000, 9000), (200, 60, 30)).save(path)
    size, _, warnings, _ = _read(path, 200_000_000)
    assert (size, warnings) == ([12000, 9000], [])
