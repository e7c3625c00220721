"""What is read ahead has a bound in bytes, whatever the source; what is learned does not depend on it."""

from __future__ import annotations

import pytest
import streams

from lifelong.checks import digest
from lifelong.following.dead import KEPT_BYTES, Letter
from lifelong.learning.checkpoint import Checkpoints
from lifelong.sources.base import Record
from lifelong.sources.log import Log


def test_a_log_returns_what_has_room_and_at_least_one(tmp_path):
    stream = streams.log(tmp_path / "log", [(f"r{i}", b"x" * 1000) for i in range(40)])
    with Log(stream) as log:
        log.room = 5_500
        assert len(log.poll(1000)) == 5
        log.room = 1
        assert [record.offset for record in log.poll(1000)] == [6]
        log.room = 10**6
        assert len(log.poll(7)) == 7
        assert len(log.poll(1000)) == 27


@pytest.mark.slow
@pytest.mark.parametrize("tells", [True, False], ids=["it goes by room", "it returns as many as were asked for"])
def test_the_queue_holds_no_more_bytes_than_was_said(tells, tmp_path, monkeypatch):
    bad = [(f"b{i}", b"?" * 900) for i in range(100)]
    stream = streams.log(tmp_path / "log", [*streams.samples(60), *bad, *streams.samples(60, seed=1)])
    whole = streams.follower(stream, tmp_path / "whole", settings={"max_dead": 1.0})
    whole.run()
    told = {"max_dead": 1.0, "record_bytes": 1000, "queue_bytes": 5_000}
    made, most = streams.follower(stream, tmp_path / "run", settings=told), []
    poll = made.intake.source.poll

    def polled(limit, timeout=0.0):
        made.intake.source.room = made.intake.source.room if tells else 10**9
        found = poll(limit, timeout)
        most.append(sum(len(record.payload) for record in found))
        return found

    monkeypatch.setattr(made.intake.source, "poll", polled)
    made.run()
    # Samples have less than 120 bytes: where records become larger, a source that cannot tell passes it once.
    assert sum(size > 5_000 for size in most) <= (0 if tells else 1)
    assert max(most) > 2_500
    states = [Checkpoints(tmp_path / run / "checkpoints").latest() for run in ("whole", "run")]
    assert digest(states[0]) == digest(states[1])


def test_a_letter_is_cut_when_it_is_written():
    letter = Letter.of(Record("p", 1, "s", bytes(KEPT_BYTES + 5), 0.0), "why")
    assert len(letter.record.payload) == KEPT_BYTES
    assert not letter.whole
    assert Letter.of(Record("p", 1, "s", b"x", 0.0), "why").whole
