"""The README's table is what the results say, and every installed strategy is in it or left out with a reason."""

import json
import re
from pathlib import Path

import leaderboard as board
import pytest

from lifelong import plugins

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def body():
    return json.loads((board.RESULTS / "results.json").read_text())


def test_the_table_is_made_from_the_results(body):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert board.readme(body, text) == text, "stale: python benchmarks/leaderboard.py table"


def test_a_changed_result_makes_the_table_stale(body):
    changed = json.loads(json.dumps(body))
    row = next(row for row in changed["standings"] if row["seeds"])
    row["metrics"][row["leading"]][0] += 0.1
    assert board.table(changed) != board.table(body)


def test_every_strategy_is_listed_or_left_out_with_a_reason(body):
    """Installed today, whatever was when the results were made: a new strategy asks for a new run."""
    listed = {row["strategy"] for row in body["standings"]}
    assert listed | set(body["excluded"]) == set(plugins.names("strategy"))
    assert not listed & set(board.EXCLUDED)
    assert all(len(reason) > 20 for reason in board.EXCLUDED.values())
    for row in body["standings"]:
        assert row["seeds"] + row["failed"] + row["excluded"] + row["missing"] == board.SEEDS
        assert row["reason"] or not row["failed"] + row["excluded"]


def test_enough_is_compared_and_each_column_names_its_protocol(body):
    assert len(board.GRIDS) >= 6
    shown = list(dict.fromkeys(row["scenario"] for row in body["standings"]))
    assert set(shown) <= set(board.GRIDS)
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (line,) = re.findall(r"^\| \*protocol\* \|.*$", text, re.MULTILINE)
    assert [cell.strip(" *") for cell in line.split("|")[2:-1]] == [board.GRIDS[name] for name in shown]


def test_rows_say_how_cells_ended():
    """By hand: the best that is bounded is bold, fewer seeds are told, exclusion and failure are not mixed up."""
    done = {"leading": "acc_final", "failed": 0, "excluded": 0, "missing": 0, "reason": "", "protocol": "two-phase"}

    def row(strategy, mean, seeds=5, **more):
        metrics = {"acc_final": [mean, 0.01, 0, 1, seeds]} if seeds else {}
        return {**done, "scenario": "s", "strategy": strategy, "seeds": seeds, "metrics": metrics, **more}

    rows = [row("joint", 0.9), row("ewc", 0.5, 3, failed=2), row("replay", 0.7), row("trgp", 0, 0, excluded=5)]
    rows.append(row("gem", 0, 0, failed=5))
    lines = board.table({"standings": rows, "excluded": {"bct": "why"}}).splitlines()
    assert [line.split("|")[2].strip() for line in lines[3:8]] == [
        "90.0 ± 1.0", "**70.0 ± 1.0**", "50.0 ± 1.0 (3 of 5)", "failed", "n/a"
    ]  # fmt: skip
