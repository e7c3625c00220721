"""The table of claims: means over seeds are judged, costs stand beside them, and the small version still holds."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import claims
import pytest
from studies import STUDIES
from studies.study import Claim

FIGURES = [
    {"gpm.acc": 0.90, "naive.acc": 0.70, "gpm.rehearsed": 0.0, "gpm.seconds": 2.0, "gpm.flops": 1e9},
    {"gpm.acc": 0.80, "naive.acc": 0.74, "gpm.rehearsed": 0.0, "gpm.seconds": 4.0, "gpm.flops": 1e9},
]


def gain(one: dict[str, float]) -> float:
    return one["gpm.acc"] - one["naive.acc"]


def test_a_row_holds_if_the_mean_over_seeds_does() -> None:
    """.20 and .06 have the mean .13 and the standard deviation .0990 (by hand: .14 / sqrt(2))."""
    row = Claim("gain", "gpm beats naive", gain, ">", 0.1, paper="+18.9", methods=["gpm"]).row(FIGURES)

    assert (row["ours"], row["sd"], row["seeds"], row["holds"]) == (0.13, 0.09899, 2, True)
    assert row["ci95"] == [-0.75943, 1.01943]  # 12.7062 standard errors of .07 to either side: one degree of freedom
    assert row["cost"] == {"gpm": {"rehearsed": 0.0, "seconds": 3.0, "flops": 1e9}}
    assert {"name", "paper", "ours", "sd", "seeds", "holds"} <= set(row)


def test_a_mean_below_the_limit_does_not_hold_though_one_seed_is_above() -> None:
    row = Claim("gain", "gpm beats naive", gain, ">", 0.15).row(FIGURES)

    assert row["holds"] is False and max(row["values"]) > 0.15


def test_names_are_permanent_so_they_are_unique() -> None:
    found = [(study.name, claim.name) for study in STUDIES for claim in study.claims]

    assert len(found) == len(set(found)) and len({study.name for study in STUDIES}) == len(STUDIES)


def test_every_study_says_how_it_was_tuned_and_runs_five_seeds() -> None:
    for study in STUDIES:
        assert study.tuned and len(study.seeds) >= 5, study.name


def test_the_committed_table_has_every_claim() -> None:
    """`make claims` was run after the last claim was added, on five seeds each."""
    kept = json.loads((Path(claims.__file__).parent / "results" / "claims.json").read_text())

    assert {(row["study"], row["name"]) for row in kept["claims"]} == {
        (study.name, claim.name) for study in STUDIES for claim in study.claims
    }
    assert all(row["seeds"] >= 5 for row in kept["claims"])


@pytest.mark.slow
def test_the_small_version_holds(tmp_path: Path) -> None:
    """What is expected to hold on small data does, and every study runs to its end on the packaged data alone."""
    command = [sys.executable, claims.__file__, "--smoke", "--json", "--out", tmp_path / "claims.json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)

    assert done.returncode == 0, done.stdout + done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert rows == json.loads((tmp_path / "claims.json").read_text())["claims"]
    assert any(row["required"] for row in rows)
