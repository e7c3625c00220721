"""Intervals and tests equal SciPy's, and what cannot be known is NaN."""

import math

import pytest
from scipy import stats

from lifelong.bench.spread import holm, paired, spread
from lifelong.errors import DataError

A = {0: 0.81, 1: 0.79, 2: 0.84, 3: 0.80, 4: 0.83}
B = {0: 0.78, 1: 0.77, 2: 0.80, 3: 0.80, 4: 0.79}


def test_the_interval_is_that_of_student():
    found = spread(list(A.values()))
    low, high = stats.t.interval(0.95, 4, loc=found.mean, scale=stats.sem(list(A.values())))
    assert (found.low, found.high) == pytest.approx((low, high))
    assert found.sd == pytest.approx(stats.tstd(list(A.values())))


def test_one_seed_says_nothing_about_spread():
    found = spread([0.5])
    assert found.mean == 0.5
    assert all(math.isnan(v) for v in (found.sd, found.low, found.high))
    with pytest.raises(DataError, match="every run failed"):
        spread([])


def test_the_paired_test_is_scipys_on_common_seeds():
    expected = stats.ttest_rel(list(A.values()), list(B.values())).pvalue
    assert paired(A, B) == pytest.approx(expected)
    assert paired({**A, 9: 0.1}, B) == pytest.approx(expected)


def test_pairs_that_say_nothing():
    assert math.isnan(paired({0: 1.0}, {0: 0.5}))
    assert math.isnan(paired({0: 1.0, 1: 1.0}, {2: 0.5, 3: 0.5}))
    assert paired(A, A) == 1.0


def test_runs_that_draw_nothing_are_one_run_however_many_seeds():
    """Two strategies without chance differ by the same at each seed: five copies of one number prove nothing."""
    assert math.isnan(paired(dict.fromkeys(range(5), 0.8645), dict.fromkeys(range(5), 0.754)))
    assert math.isnan(paired({0: 0.5, 1: 0.75}, {0: 0.25, 1: 0.5}))
    bits = {seed: 0.8645 + seed * 1e-16 for seed in range(5)}  # the same numbers, added up in another order
    assert math.isnan(paired(bits, dict.fromkeys(range(5), 0.754)))
    assert paired(bits, dict.fromkeys(range(5), 0.8645)) == 1.0


def test_holm_by_hand():
    """Sorted .01 .02 .03 .04 times 4 3 2 1, never falling: .04 .06 .06 .06."""
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    found = holm([0.5, math.nan, 0.6])
    assert found[0] == 1.0
    assert math.isnan(found[1])
