"""A change that alters what a strategy learns shows here, in either direction; see `make golden`."""

import importlib.util
import json
from pathlib import Path

import pytest

HERE = Path(__file__).with_name("golden")
spec = importlib.util.spec_from_file_location("golden_make", HERE / "make.py")
make = importlib.util.module_from_spec(spec)
spec.loader.exec_module(make)
EXPECTED = json.loads(make.FILE.read_text())


FAST = "replay+simplex"  # two methods at once; the others are for `make test`


@pytest.mark.parametrize("name", [pytest.param(n, marks=[] if n == FAST else pytest.mark.slow) for n in make.NAMES])
def test_a_figure_is_the_recorded_one(name):
    """Two-sided: other processors add floats in another order, which moves this figure by less than 2 points."""
    assert make.golden(name) == pytest.approx(EXPECTED[name], abs=0.02)
