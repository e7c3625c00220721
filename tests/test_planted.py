"""Errors of the kind that published code has had, planted one at a time: each makes the test named beside it fail."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Planted:
    """What is changed where, and the test that notices."""

    about: str
    file: str
    right: str
    wrong: str
    caught_by: str


PLANTED = [
    Planted(
        "the projection is scaled by .99",
        "lifelong/models/products.py",
        "    add(layer.weight, layer.bias, off, memory_IK)",
        "    add(layer.weight, layer.bias, 0.99 * off, memory_IK)",
        "tests/test_projection.py::test_an_old_input_never_feels_an_update",
    ),
    Planted(
        "the projection of a gradient is scaled by .99",
        "lifelong/models/products.py",
        "    add(weight, bias, part, memory_IK)",
        "    add(weight, bias, 0.99 * part, memory_IK)",
        "tests/test_rails.py::test_projected_gradients_lead_where_putting_the_weights_back_does",
    ),
    Planted(
        "the largest new singular vector is dropped (TRGP's public code)",
        "lifelong/learning/projection.py",
        "return _with(memory_IK, directions[:, :new]), ids.int()",
        "return _with(memory_IK, directions[:, 1:new]), ids[ids != memory_IK.shape[1]].int()",
        "tests/test_projection.py::test_an_own_basis_is_the_smallest_set_of_columns_that_holds_its_share",
    ),
    Planted(
        "one vector fewer than the threshold asks for (GPM's public code)",
        "lifelong/learning/projection.py",
        "return min(int((energy.cumsum(0) < wanted).sum()) + 1, len(energy))",
        "return min(int((energy.cumsum(0) < wanted).sum()), len(energy))",
        "tests/test_projection.py::test_the_basis_is_the_one_of_a_singular_value_decomposition",
    ),
    Planted(
        "keys are averages that are not divided by their weight",
        "lifelong/models/codebooks.py",
        "placed = self.average / smooth.unsqueeze(2)",
        "placed = self.average",
        "tests/test_codebooks.py::test_averages_follow_their_definition",
    ),
    Planted(
        "a replaced key leaves its average behind (the bottleneck's public code)",
        "lifelong/models/codebooks.py",
        "self.average[dead] = new * least",
        "new * least",
        "tests/test_codebooks.py::test_a_replaced_key_is_not_put_back_by_the_next_step",
    ),
    Planted(
        "the Fisher information of a batch's mean gradient, through convolutions",
        "lifelong/learning/fisher.py",
        "return {name: fold(g).sum(0) for name, g in",
        "return {name: fold(g.mean(0)) * len(g) for name, g in",
        "tests/test_fisher.py::test_a_convolutional_model_is_measured_sample_by_sample_too",
    ),
    Planted(
        "the Fisher information of a batch's mean gradient",
        "lifelong/learning/outer.py",
        "folded.T @ fold(given)",
        "fold(slope.T @ given)",
        "tests/test_fisher.py::test_the_empirical_fisher_of_logistic_regression_is_the_closed_form",
    ),
    Planted(
        "the clock of a task is set back by rehearsal",
        "lifelong/learning/aged.py",
        "return torch.arange(len(self.sizes), 0, -1)",
        "return torch.ones_like(self.sizes)",
        "tests/test_powerlaw.py::test_rehearsal_does_not_make_a_task_younger",
    ),
    Planted(
        "the clock of a sample is not set back by rehearsal",
        "lifelong/learning/aged.py",
        "self.last[rows] = self.last[self._drawn] = self.step",
        "self.last[rows] = self.step",
        "tests/test_powerlaw.py::test_without_boundaries_a_sample_that_was_rehearsed_is_young_again",
    ),
]


def copied(to: Path) -> Path:
    for part in ("lifelong", "strategies", "tests", "benchmarks"):
        shutil.copytree(ROOT / part, to / part, ignore=shutil.ignore_patterns("__pycache__", "e2e"))
    shutil.copy(ROOT / "pyproject.toml", to)
    return to


def judged(folder: Path, *tests: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-x", "-p", "no:cacheprovider", *tests]
    quiet = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(command, cwd=folder, env=quiet, capture_output=True, text=True, check=False)


def test_each_is_listed_where_promises_are_with_the_test_that_notices() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    assert [error.about for error in PLANTED if f"| {error.about} | `{error.caught_by}` |" not in page] == []


@pytest.mark.slow
def test_the_copy_is_whole(tmp_path: Path) -> None:
    """Nothing planted: the tests that are named pass there, so that a failure below is the planted error's."""
    done = judged(copied(tmp_path), *sorted({error.caught_by for error in PLANTED}))

    assert done.returncode == 0, done.stdout[-2000:]


@pytest.mark.slow
@pytest.mark.parametrize("error", PLANTED, ids=lambda error: error.about)
def test_a_planted_error_is_caught(error: Planted, tmp_path: Path) -> None:
    file = copied(tmp_path) / error.file
    text = file.read_text()
    assert text.count(error.right) == 1, f"{error.file} no longer says {error.right!r}; plant this error anew"
    file.write_text(text.replace(error.right, error.wrong))

    done = judged(tmp_path, error.caught_by)

    assert done.returncode == 1, done.stdout[-2000:]
    assert "FAILED" in done.stdout
