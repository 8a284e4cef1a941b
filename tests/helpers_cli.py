"""Where the command line's tests find the example media, and how they lay out the Hub's cache."""

from __future__ import annotations

from pathlib import Path

from smolvlm import hub

ROOT = Path(__file__).resolve().parents[1]
PHOTO = ROOT / "examples/media/chelsea.png"  # 451 x 300
ROCKET = ROOT / "examples/media/rocket.jpg"
CLIP = ROOT / "examples/media/bigbuckbunny.mp4"


def put_into_cache(repo: str, checkpoint: Path) -> None:
    """Make the checkpoint's files look like the newest snapshot of `repo`, as the Hub's client lays it out."""
    root = hub.cache_folder() / f"models--{repo.replace('/', '--')}"
    snapshot = root / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text("0" * 40)
    for file in checkpoint.iterdir():
        (snapshot / file.name).symlink_to(file)
