"""Prints the figures of docs/scale.md on planning and merging: `pytest tests/scale/test_scale_speed.py -m slow -s`."""

from __future__ import annotations

import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from smolvlm.scale.folder import RunFolder
from smolvlm.scale.inputs import Inputs
from smolvlm.scale.merging import merge
from smolvlm.scale.plan import Plan, write_plan

pytestmark = pytest.mark.slow
ROWS = 200_000
LEAST_A_SECOND = 5_000  # a tenth of what was measured: something that goes wrong with size is far below


def test_planning_and_merging_keep_up(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": pa.array([b"x"] * ROWS)}), tmp_path / "bytes.parquet")
    paths = [f"/data/camera-{i % 97:02d}/{i:09d}.jpg" for i in range(ROWS)]
    pq.write_table(pa.table({"path": paths}), tmp_path / "paths.parquet")
    folder = RunFolder(tmp_path)
    for name in ("bytes", "paths"):
        began = time.process_time()
        assert write_plan(folder.plan, Inputs([str(tmp_path / f"{name}.parquet")]), 1000) == ROWS
        speed = ROWS / (time.process_time() - began)
        print(f"\nplanning {name}: {speed:,.0f} rows a second, {folder.plan.stat().st_size / ROWS:.0f} bytes a row")
        assert speed > LEAST_A_SECOND
    plan = Plan(folder.plan)
    same = {
        "question": "Describe this in detail.",
        "finish_reason": "stop",
        "prompt_tokens": 80,
        "completion_tokens": 24,
        "seconds": 0.5,
        "error": None,
        "model": "256m",
    }
    for part in range(plan.parts):
        items = plan.items(part)
        folder.write_rows(part, [{"id": i.id, "source": i.source, "answer": f"a ring and {i.id[:8]}", **same} for i in items])
    began = time.process_time()
    merged = merge(folder, plan, 1, tmp_path / "out.parquet", overwrite=False)
    speed = ROWS / (time.process_time() - began)
    print(f"merging: {speed:,.0f} rows a second")
    assert (merged.rows, merged.errors, merged.seconds) == (ROWS, 0, ROWS * 0.5)
    assert speed > LEAST_A_SECOND
    assert [row["source"] for row in pq.read_table(tmp_path / "out.parquet").slice(ROWS - 2).to_pylist()] == paths[-2:]
