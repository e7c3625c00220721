"""The engine benchmark compares equal work, and says what it left out."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import engine
from lifelong.types import Batch

ROWS = 12 * 200


def small() -> Batch:
    random = torch.Generator().manual_seed(1)
    return Batch.of(torch.rand(ROWS, 784, generator=random), torch.randint(10, (ROWS,), generator=random))


@pytest.mark.slow
def test_ours_and_the_loop_by_hand_do_the_same_work():
    """One figure per line of the table; what was not measured is skipped, not zero."""
    seconds = engine.measure(small(), {"ours": engine.ours, "by_hand": engine.by_hand}, passes=2)
    assert {name: [len(parts) for parts in passes] for name, passes in seconds.items()} == {
        "ours": [8, 8],
        "by_hand": [8, 8],
    }
    rows = {row["name"]: row for row in engine.figures(seconds, ROWS)}
    assert rows["engine_ours_over_by_hand"]["holds"] in (True, False)
    left_out = rows["engine_ours_over_avalanche"]
    assert left_out["value"] is None and left_out["holds"] is None and "not installed" in left_out["skipped"]


@pytest.mark.slow
def test_unequal_work_is_refused(monkeypatch):
    """If ours ended elsewhere than the loop by hand, there would be nothing to compare."""
    monkeypatch.setattr(engine, "LR", 0.01)
    other = engine.by_hand([small()])

    def elsewhere(parts):
        return engine.Contender(engine.by_hand(parts).train, other.weights)

    with pytest.raises(SystemExit, match="different weights"):
        engine.measure(small(), {"ours": engine.ours, "by_hand": elsewhere}, passes=1)


@pytest.mark.slow
def test_the_command_prints_json_and_keeps_a_result(tmp_path):
    """One JSON line per figure on stdout; the file holds the same, with data and commit."""
    out = tmp_path / "engine.json"
    command = [sys.executable, engine.__file__, "--json", "--no-avalanche", "--rows", "2400", "--passes", "1"]
    here = Path(engine.__file__).parent.parent
    done = subprocess.run([*command, "--out", out], cwd=here, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr  # 1: a goal was missed, which a busy machine may do
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    kept = json.loads(out.read_text())
    assert kept["figures"] == lines and {"name", "value", "unit", "goal", "holds"} <= set(lines[0])
    assert kept["data"]["rows"] == 2400 and "commit" in kept
