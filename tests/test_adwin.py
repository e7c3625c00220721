"""ADWIN against the values themselves, its equation, and what it promises."""

from __future__ import annotations

import math
import random
from itertools import pairwise

import numpy as np
import pytest
import streams
from hypothesis import given, settings
from hypothesis import strategies as st

from lifelong.checks import digest
from lifelong.errors import ConfigError
from lifelong.following.adwin import BUCKETS, EVERY, Adwin
from lifelong.following.settings import Follow
from lifelong.learning.checkpoint import Checkpoints
from lifelong.sources.record import decode, encode


def errors(shares: list[float], each: int, seed: int = 0) -> list[float]:
    """Zeros and ones, so many of each share of ones."""
    drawn = random.Random(seed)
    return [float(drawn.random() < share) for share in shares for _ in range(each)]


def change(values: np.ndarray, sizes: list[int], delta: float) -> float:
    """Equation 3.1 on the values themselves, at every border between buckets, oldest first."""
    n, edges = len(values), np.cumsum(sizes)[:-1]
    for edge in edges:
        old, new = values[:edge], values[edge:]
        m = 1 / (1 / len(old) + 1 / len(new))
        level = math.log(2 / (delta / math.log(n)))
        bound = math.sqrt(2 / m * values.var() * level) + 2 / (3 * m) * level
        if abs(new.mean() - old.mean()) > bound:
            return float(new.mean() - old.mean())
    return 0.0


@settings(max_examples=25)
@given(
    shares=st.lists(st.floats(0, 1), min_size=1, max_size=4),
    each=st.integers(1, 120),
    delta=st.floats(0.01, 0.9),
    seed=st.integers(0, 99),
)
def test_its_window_is_the_last_values_and_is_cut_where_the_equation_says(shares, each, delta, seed):
    one, kept = Adwin(delta), list[float]()
    for value in errors(shares, each, seed):
        uncut = Adwin(delta)
        uncut.restore({**one.state(), "seen": 0})  # a look is not due
        kept.append(value)
        said = one.update(value)
        if one.seen % EVERY:
            assert not said
            continue
        uncut.update(value)
        sizes, rose = [size for size, _ in uncut._buckets()], False
        while found := change(np.array(kept), sizes, delta):
            rose |= found > 0
            del kept[: sizes.pop(0)]
        if rose:
            kept, sizes = [], []
        assert (said, one.width, one.total) == (rose, len(kept), sum(kept))
        edges = np.cumsum([0, *sizes])
        assert [total for _, total in one._buckets()] == [sum(kept[a:b]) for a, b in pairwise(edges)]


def test_it_holds_five_sums_for_each_doubling_of_the_window():
    one = Adwin(0.002)
    for value in errors([0.3], 20_000):
        one.update(value)
    assert one.width > 10_000
    assert sum(map(len, one.rows)) <= BUCKETS * math.log2(20_000)


@pytest.mark.parametrize("share", [0.02, 0.1, 0.5])
def test_where_nothing_changes_alarms_are_rarer_than_delta(share):
    """At each look at most `delta`; 5 streams of 4,000 values are 625 looks."""
    delta, said = 0.05, 0
    for seed in range(5):
        one = Adwin(delta)
        said += sum(one.update(value) for value in errors([share], 4_000, seed))
    assert said / (5 * 4_000 / EVERY) <= delta


@pytest.mark.parametrize(("before", "after", "within"), [(0.1, 0.5, 150), (0.2, 0.4, 500), (0.05, 0.15, 1200)])
def test_a_change_is_one_alarm_and_soon(before, after, within):
    one = Adwin(0.002)
    (found,) = [i for i, value in enumerate(errors([before, after], 4_000)) if one.update(value)]
    assert 4_000 < found < 4_000 + within
    assert one.width == 8_000 - found - 1
    assert one.total / one.width == pytest.approx(after, abs=0.03)


def test_errors_that_become_fewer_shorten_the_window_and_are_no_alarm():
    one = Adwin(0.002)
    assert not any(one.update(value) for value in errors([0.6, 0.1], 2_000))
    assert one.width < 2_100


def test_a_restored_one_goes_on_alike():
    values = errors([0.1, 0.5, 0.2, 0.6], 700)
    for at in (0, 1, 31, 1_450):
        one, two = Adwin(0.01), Adwin(0.01)
        for value in values[:at]:
            one.update(value)
        two.restore(one.state())
        assert [one.update(v) for v in values[at:]] == [two.update(v) for v in values[at:]]
        assert (digest(one.state()), one.total, one.width) == (digest(two.state()), two.total, two.width)


@pytest.mark.parametrize("window", ["adwin", "adwin:0", "adwin:1", "adwin:x"])
def test_a_probability_that_is_none_is_refused(window):
    with pytest.raises(ConfigError, match="adwin:DELTA"):
        Follow(window=window)


def swapped(count: int) -> list[tuple[str, bytes]]:
    """A stream of two classes whose labels are swapped half-way."""
    records = streams.samples(count, classes=2, seed=1)
    for sid, payload in streams.samples(count, classes=2, seed=2):
        sample = decode(payload)
        records.append((sid, encode(sample.x, 1 - int(sample.y))))
    return records


@pytest.mark.slow
def test_it_cuts_windows_of_a_stream_and_after_a_crash_the_same_ones(tmp_path):
    """One cut comes soon after the labels were swapped, none before; stopped in between, the bits are the same."""
    records = swapped(400)
    stream, cuts = streams.log(tmp_path / "log", records), dict[str, list[int]]()

    def followed(run, until=10**6):
        def notify(kind, facts):
            if kind == "boundary":
                cuts.setdefault(run, []).append(facts["samples"])
            if kind == "step" and facts["records"] >= until:
                raise KeyboardInterrupt

        return streams.follower(stream, tmp_path / run, settings={"window": "adwin:0.002"}, notify=notify)

    followed("whole").run()
    for until in (380, 450):
        with pytest.raises(KeyboardInterrupt):
            followed("parts", until).run()
    followed("parts").run()
    states = [Checkpoints(tmp_path / run / "checkpoints").latest() for run in ("whole", "parts")]
    assert digest(states[0]) == digest(states[1])
    assert len(cuts["whole"]) == 2
    assert 400 < cuts["whole"][0] < 520
