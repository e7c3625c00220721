"""Which answers are given in the event loop: those that are known to be quick, and only while they are."""

from __future__ import annotations

import time
from types import SimpleNamespace

from serving.pace import QUICK_SECONDS, Pace

ONE, LARGE = 10_000, 1_000_000  # bytes
PLAIN = SimpleNamespace(remember=False)


def busy(seconds: float) -> str:
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass
    return "said"


def quick(pace: Pace, size: int = ONE) -> bool:
    return pace.quick("/v1/predict", size, PLAIN)


def learned() -> Pace:
    """One that has seen many quick answers."""
    pace = Pace()
    for _ in range(200):
        assert pace.timed("/v1/predict", ONE, lambda: "said") == "said"
    return pace


def test_nothing_is_quick_until_it_is_known_to_be():
    assert not quick(Pace())
    assert quick(learned())


def test_size_counts():
    """A body a hundred times as large is likely to take a hundred times as long."""
    pace = learned()
    for _ in range(200):
        pace.timed("/v1/predict", ONE, lambda: busy(QUICK_SECONDS / 50))

    assert quick(pace)
    assert not quick(pace, LARGE)


def test_a_slow_model_is_noticed_within_a_few_answers_and_quickness_takes_longer():
    pace = learned()
    slow = 0
    while quick(pace):
        slow += 1
        pace.timed("/v1/predict", ONE, lambda: busy(2 * QUICK_SECONDS))
        assert slow <= 8
    pace.timed("/v1/predict", ONE, lambda: "said")

    assert not quick(pace)


def test_what_waits_for_a_disk_is_never_quick():
    pace = learned()
    for _ in range(200):
        pace.timed("/v1/gallery/add", ONE, lambda: "said")

    assert not pace.quick("/v1/gallery/add", ONE, PLAIN)
    assert not pace.quick("/v1/predict", ONE, SimpleNamespace(remember=True))
