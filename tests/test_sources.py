"""Every source obeys the same laws: what was written comes in order, from any position, or the gap is named."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import brokers
import pytest
from brokers import number, opened, pairs

from lifelong.errors import (
    ArtifactError,
    ConfigError,
    DataError,
    NotFound,
    RetentionGap,
    TooLarge,
    Unavailable,
    UnknownName,
)
from lifelong.sources.log import Log
from lifelong.sources.record import decode

REAL = [pytest.mark.e2e, pytest.mark.slow]
KINDS = [
    pytest.param(brokers.LogBroker, id="log"),
    pytest.param(brokers.FolderBroker, id="folder"),
    pytest.param(brokers.NatsBroker, id="nats", marks=REAL),
    pytest.param(brokers.RedisBroker, id="redis", marks=REAL),
    pytest.param(brokers.KafkaBroker, id="kafka", marks=REAL),
]


@pytest.fixture(params=KINDS)
def broker(request, tmp_path):
    if request.param is brokers.FolderBroker:
        pytest.importorskip("pyarrow")
    made = request.param(tmp_path)
    yield made
    made.close()


def drained(source, count, size=5):
    """Poll until `count` records came, or none came for a while."""
    found, misses = [], 0
    while len(found) < count and misses < 20:
        got = source.poll(size, 0.3)
        assert len(got) <= size
        misses = 0 if got else misses + 1
        found += got
    return found


def test_everything_comes_once_in_order_with_its_id(broker):
    broker.put(pairs(range(12)))
    with opened(broker.where) as source:
        found = drained(source, 12)
        assert [(r.sid, r.payload) for r in found] == pairs(range(12))
        assert source.poll(5) == []
        offsets = [(r.partition, r.offset) for r in found]
        assert offsets == sorted(set(offsets))

        broker.put(pairs(range(12, 16)))  # it grows under the reader
        assert [number(r.payload) for r in drained(source, 4)] == [12, 13, 14, 15]


def test_from_any_position_exactly_the_rest_comes_also_to_a_new_reader(broker):
    broker.put(pairs(range(10)))
    with opened(broker.where) as source:
        found = drained(source, 10)
        for at in (0, 4, 9):
            source.seek({found[at].partition: found[at].offset})
            assert [number(r.payload) for r in drained(source, 9 - at) + source.poll(1)] == list(range(at + 1, 10))
        source.seek({})
        assert drained(source, 10) == found
    with opened(broker.where) as other:
        other.seek({found[6].partition: found[6].offset})
        assert drained(other, 3) == found[7:]


def test_first_and_last_say_what_is_there(broker):
    with opened(broker.where) as source:
        assert source.first() == source.last() == {}
        broker.put(pairs(range(4)))
        found = drained(source, 4)
        assert source.first() == {found[0].partition: found[0].offset}
        assert source.last() == {found[3].partition: found[3].offset}


def test_a_hint_never_moves_a_reader(broker):
    broker.put(pairs(range(4)))
    with opened(broker.where) as source:
        found = drained(source, 4)
        source.commit_hint({found[2].partition: found[2].offset})
        source.commit_hint({found[1].partition: found[1].offset})
    source.close()  # a second time
    with opened(broker.where) as source:
        assert drained(source, 4) == found


def test_what_was_deleted_unread_is_an_error_and_the_position_stays(broker):
    broker.put(pairs(range(12)))
    with opened(broker.where) as source:
        found = drained(source, 12)
        broker.drop_first(8)
        source.seek({found[3].partition: found[3].offset}) if not isinstance(broker, brokers.KafkaBroker) else None
        for _ in range(2):
            with pytest.raises(RetentionGap, match="lost records after offset"):
                source.seek({found[3].partition: found[3].offset})
                drained(source, 1)
        assert source.gaps == 0


def test_by_choice_a_gap_is_counted_and_what_is_left_comes(broker):
    broker.put(pairs(range(12)))
    with opened(broker.where, on_gap="skip") as source:
        found = drained(source, 12)
        broker.drop_first(8)
        source.seek({found[3].partition: found[3].offset})
        rest = drained(source, 4)
        assert source.gaps == 1
        first = found[8] if not isinstance(broker, brokers.KafkaBroker) else None
        assert first is None or rest == found[8:]
        assert rest[0].offset == source.first()[rest[0].partition]


def test_what_was_read_may_be_deleted(broker):
    """Redis keeps one more: the entry at the position proves that nothing after it is lost."""
    if isinstance(broker, brokers.KafkaBroker):
        pytest.skip("the mock deletes by size only")
    broker.put(pairs(range(12)))
    with opened(broker.where) as source:
        found = drained(source, 12)
        source.seek({found[8].partition: found[8].offset})
        broker.drop_first(8)
        assert drained(source, 3) == found[9:]


def test_an_unknown_way_to_treat_a_gap_is_refused(tmp_path):
    with pytest.raises(UnknownName, match="did you mean 'skip'"):
        Log(tmp_path, create=True, on_gap="skp")


@pytest.mark.e2e
@pytest.mark.slow
@pytest.mark.parametrize("kind", [brokers.NatsBroker, brokers.RedisBroker], ids=["nats", "redis"])
def test_a_broker_that_was_killed_is_missed_by_name_and_found_again(kind, tmp_path):
    """Reading goes on after the record where it stopped; what was acknowledged to producers is there."""
    broker = kind(tmp_path)
    try:
        broker.put(pairs(range(6)))
        with opened(broker.where) as source:
            found = drained(source, 3, size=3)
            broker.server.stop()
            with pytest.raises(Unavailable, match=r"does not answer|forgot"):
                for _ in range(3):
                    source.poll(3, 0.1)
            with pytest.raises(Unavailable):
                opened(broker.where)
            broker.server.start()
            rest, deadline = [], time.monotonic() + 30
            while len(rest) < 3 and time.monotonic() < deadline:
                try:
                    rest += source.poll(3, 0.3)
                except Unavailable:
                    time.sleep(0.05)
            assert [number(r.payload) for r in [*found, *rest]] == list(range(6))
    finally:
        broker.close()


# ---- the log


def test_an_id_is_there_once_whoever_sends_it(tmp_path):
    with Log(tmp_path, create=True) as log, Log(tmp_path) as other:
        assert log.append(pairs(range(3))) == 3
        assert other.append(pairs(range(1, 5))) == 2
        assert [number(r.payload) for r in log.poll(10)] == [0, 1, 2, 3, 4]


@pytest.mark.e2e
@pytest.mark.slow
def test_several_producers_lose_and_repeat_nothing(tmp_path):
    """Three processes append at once, in small steps, overlapping; one is killed in the middle."""
    Log(tmp_path, create=True).close()
    script = (
        "import sys, pathlib; from lifelong.sources.log import Log; log = Log(sys.argv[1])\n"
        "for i in range(int(sys.argv[2]), int(sys.argv[3])):\n"
        "    log.append([(f's{i}', b'x'), (f's{i+1}', b'x')]); print(i, flush=True)\n"
    )
    root = Path(__file__).resolve().parents[1]
    ranges = [(0, 60), (40, 100), (80, 100_000)]
    lines = [[sys.executable, "-c", script, str(tmp_path), str(a), str(b)] for a, b in ranges]
    running = [subprocess.Popen(line, cwd=root, stdout=subprocess.PIPE) for line in lines]
    said = [running[2].stdout.readline() for _ in range(5)]
    running[2].kill()
    said += running[2].communicate()[0].splitlines()
    acknowledged = {int(line) for line in said if line.strip().isdigit()}
    for process in running[:2]:
        process.communicate(timeout=60)
        assert process.returncode == 0

    with Log(tmp_path) as log:
        sids = [r.sid for r in log.poll(100_000)]
    assert len(sids) == len(set(sids))
    assert {f"s{i}" for i in [*range(101), *acknowledged]} <= set(sids)


def test_trimming_keeps_the_newest_and_never_frees_an_offset(tmp_path):
    with Log(tmp_path, create=True) as log:
        log.append(pairs(range(10)))
        assert log.trim(keep=3) == 7
        assert [r.offset for r in log.poll(10)] == [8, 9, 10]
        assert log.trim(keep=0) == 3
        log.append(pairs(range(20, 22)))
        assert [r.offset for r in log.poll(10)] == [11, 12]
        assert log.trim(through=99) == 2  # offsets that nobody has written are not lost
        log.append(pairs(range(30, 31)))
        assert [r.offset for r in log.poll(10)] == [13]
        with pytest.raises(ConfigError, match="either keep"):
            log.trim()


def test_what_a_log_will_not_hold_is_refused_whole(tmp_path):
    with Log(tmp_path, create=True, limit=50) as log:
        with pytest.raises(TooLarge, match="'b' has 51 bytes"):
            log.append([("a", b"x"), ("b", bytes(51))])
        with pytest.raises(DataError, match="id is empty"):
            log.append([("a", b"x"), ("", b"x")])
        assert log.last() == {}


def test_of_a_record_over_the_limit_only_the_beginning_is_read(tmp_path):
    """A producer with a higher limit wrote it: it is seen to be too large without being read."""
    with Log(tmp_path, create=True, limit=10_000) as producer, Log(tmp_path, limit=100) as reader:
        producer.append([("large", bytes(9_000))])
        assert len(reader.poll(1)[0].payload) == 101


def test_a_file_that_is_no_log_is_refused(tmp_path):
    (tmp_path / "log.sqlite").write_bytes(b"something else, long enough to be looked at" * 10)
    with pytest.raises(ArtifactError, match="damaged or no log"):
        Log(tmp_path)
    with pytest.raises(NotFound, match="there is no log"):
        Log(tmp_path / "nowhere")


def test_a_full_disk_is_named_and_nothing_is_half_there(tmp_path):
    """SQLite's own limit on pages stands in for a full disk: it fails the same way."""
    with Log(tmp_path, create=True) as log:
        log.append(pairs(range(2)))
        pages = log._db.execute("PRAGMA page_count").fetchone()[0]
        log._db.execute(f"PRAGMA max_page_count={pages + 2}")
        with pytest.raises(Unavailable, match="full"):
            log.append([(f"big-{i}", bytes(10_000)) for i in range(20)])
        log._db.execute("PRAGMA max_page_count=100000")
        assert log.append(pairs(range(2, 4))) == 2
        assert [number(r.payload) for r in log.poll(10)] == [0, 1, 2, 3]


# ---- what a person types


@pytest.mark.parametrize(
    ("where", "error", "said"),
    [
        ("nowhere", NotFound, "stream append makes a log"),
        ("natz://a:1/s", UnknownName, "did you mean 'nats'"),
        ("nats://localhost:4222", ConfigError, "not complete"),
        ("redis://localhost:6379/key", ConfigError, "not complete"),
        ("kafka:///topic", ConfigError, "not complete"),
    ],
)
def test_an_address_that_leads_nowhere_is_refused(where, error, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=said):
        opened(where)


def test_a_row_that_cannot_be_written_comes_as_what_cannot_be_read(tmp_path):
    """A label that is no label must not end the stream: it becomes a dead letter further on."""
    import numpy as np

    np.savez(tmp_path / "a.npz", x=np.zeros((2, 3), np.float32), y=np.array([1.5, 2.0]))
    with opened(str(tmp_path)) as source:
        found = source.poll(5)
    assert len(found) == 2
    assert b"label" in found[0].payload


def parts(folder, *names):
    """Files of two rows each; the ids are those of the files."""
    import numpy as np

    for name in names:
        np.savez(folder / f"{name}.npz", x=np.zeros((2, 3), np.float32), y=np.array([0, 1]))


def cut(path):
    """Half a file, since a minute ago."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    os.utime(path, (time.time() - 60,) * 2)


def test_a_file_that_is_damaged_is_put_aside_by_name_and_the_next_one_is_read(tmp_path, caplog):
    parts(tmp_path, "a", "b", "c")
    cut(tmp_path / "b.npz")
    with opened(str(tmp_path)) as source:
        found = source.poll(10)
        assert [(r.partition, r.offset) for r in found] == [
            ("a.npz", 0), ("a.npz", 1), ("b.npz", 0), ("c.npz", 0), ("c.npz", 1),
        ]  # fmt: skip
        with pytest.raises(DataError, match=r"b\.npz is put aside: .*b\.npz cannot be read"):
            decode(found[2].payload)
        assert caplog.text.count("it is put aside as a dead letter") == 1
        assert source.poll(10) == []
        assert source.last() == {"a.npz": 1, "b.npz": 0, "c.npz": 1}
        source.seek({"b.npz": 0})
        assert [r.partition for r in source.poll(10)] == ["c.npz", "c.npz"]


def test_a_file_that_is_still_being_written_is_waited_for(tmp_path, caplog):
    parts(tmp_path, "a", "b", "c")
    whole = (tmp_path / "b.npz").read_bytes()
    (tmp_path / "b.npz").write_bytes(whole[:100])
    with opened(str(tmp_path)) as source:
        assert [r.partition for r in source.poll(10)] == ["a.npz", "a.npz"]
        assert source.poll(10) == []
        assert caplog.text.count("looked at again") == 1
        (tmp_path / "b.npz").write_bytes(whole)
        assert [r.partition for r in source.poll(10)] == ["b.npz", "b.npz", "c.npz", "c.npz"]


def test_a_file_that_comes_too_late_for_its_name_is_said_and_counted_once(tmp_path, caplog):
    """While somebody reads, and while nobody did; those that were there before are no news."""
    parts(tmp_path, "part-08", "part-9")
    with opened(str(tmp_path)) as source:
        assert len(source.poll(10)) == 4
        parts(tmp_path, "part-10")
        assert source.poll(10) == source.poll(10) == []
        assert source.late == 1
        assert caplog.text.count("part-10.npz sorts before part-9.npz and came after it") == 1
        parts(tmp_path, "part-91")
        assert [r.partition for r in source.poll(10)] == ["part-91.npz"] * 2
    time.sleep(0.05)
    left = time.time()
    time.sleep(0.05)
    parts(tmp_path, "part-11")
    with opened(str(tmp_path)) as source:
        source.left = left
        source.seek({"part-91.npz": 1})
        assert source.poll(10) == []
        assert source.late == 1
        assert "part-11.npz sorts before part-91.npz" in caplog.text


def test_a_poll_of_files_stops_where_there_is_no_more_room(tmp_path):
    parts(tmp_path, "a", "b")
    with opened(str(tmp_path)) as source:
        source.room = 1
        assert [len(source.poll(10)) for _ in range(5)] == [1, 1, 1, 1, 0]
