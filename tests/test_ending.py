"""How a worker ends: what a first SIGTERM does, what a second one, and what the end of the parent."""

from __future__ import annotations

import os
import signal
import time

import pytest

from serving.ending import Ending


@pytest.fixture
def told():
    """What the handler that was there before us is told."""
    found: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: found.append(number))
    yield found
    signal.signal(signal.SIGTERM, before)


def until(condition):
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.005)


def test_the_first_signal_drains_and_the_pause_ends_it(told):
    """Not ready at once; who handled SIGTERM before hears of it after the pause, and once."""
    ending = Ending(0.05)
    ending.start()
    assert not ending.draining
    signal.raise_signal(signal.SIGTERM)
    assert ending.draining and told == []
    until(lambda: told)
    ending.stop()

    assert told == [signal.SIGTERM]
    signal.raise_signal(signal.SIGTERM)
    assert len(told) == 2  # given back


@pytest.mark.parametrize("seconds", [0, 3600])
def test_a_second_signal_or_no_pause_ends_at_once(told, seconds):
    ending = Ending(seconds)
    ending.start()
    if seconds:
        signal.raise_signal(signal.SIGTERM)
        assert told == []
    signal.raise_signal(signal.SIGTERM)
    ending.stop()

    assert ending.draining and told == [signal.SIGTERM]


def test_an_orphan_ends_at_once_and_once(told):
    """Whatever the pause: nobody would take its place while it holds the port."""
    ending = Ending(3600, parent=os.getppid())
    ending.start()
    ending.check()
    assert told == []
    ending.parent = os.getpid()  # not our parent: as if ours had gone
    ending.check()
    until(lambda: told)
    ending.check()
    ending.stop()

    assert told == [signal.SIGTERM]
