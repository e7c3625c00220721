"""The daemon over a source: what is in the stream is learned once, and a crash leaves no trace."""

from __future__ import annotations

import pytest
import streams
import torch
from streams import follower, learner, log, messy, samples

from lifelong.checks import digest
from lifelong.daemon import Stopped
from lifelong.errors import (
    ConfigError,
    DataError,
    Locked,
    NotFound,
    RetentionGap,
    Unavailable,
    UnknownName,
)
from lifelong.following.dead import DeadLetters, Letter
from lifelong.following.portion import identity
from lifelong.following.settings import Follow
from lifelong.following.windows import PageHinkley
from lifelong.learning import Optim
from lifelong.learning.checkpoint import Checkpoints
from lifelong.learning.prequential import Prequential
from lifelong.release.registry import Registry
from lifelong.sources.base import Record
from lifelong.sources.record import decode, encode
from strategies.cuber import CUBER
from strategies.dkvb import DiscreteKeyValueBottleneck
from strategies.joint import Joint
from strategies.powerlaw import PowerLawRehearsal
from strategies.replay import Replay
from strategies.simplex import Simplex

pytestmark = pytest.mark.slow  # together too long for `make fast`


class Crash(BaseException):
    """Not an error of ours: nothing may catch it."""


def crash_at(step):
    def notify(kind, facts):
        if kind == "step" and facts["steps"] == step:
            raise Crash

    return notify


def outcome(made):
    """Everything that a run leaves, by its newest commit."""
    return digest(Checkpoints(made.run_folder / "checkpoints").latest())


def learned(made):
    """Note the ids of the samples in the order in which they are trained on."""
    seen = []
    make = made.trainee._make

    def noted():
        one = make()
        step = one.step
        one.step = lambda batch: (seen.extend(batch.ids.tolist()), step(batch))[1]
        return one

    made.trainee._make = noted
    made.trainee.learner = noted()
    return seen


# ---- once, in order


@pytest.mark.slow
def test_each_sample_is_learned_once_and_in_order_whatever_is_sent_twice(tmp_path):
    made = follower(log(tmp_path / "log", messy(300)), tmp_path / "run")
    seen = learned(made)
    made.run()

    assert seen == [identity(sid) for sid, _ in samples(300)]
    facts = made.facts()
    assert facts["records"] == len(messy(300))
    assert facts["duplicates"] + facts["dead"] == len(messy(300)) - 300
    assert facts["samples"] == 300


def test_a_window_of_ids_forgets_the_oldest(tmp_path):
    """A duplicate farther back than the window is learned again: bounded memory has this price."""
    clean = samples(40)
    made = follower(log(tmp_path / "log", [*clean, clean[39], clean[0]]), tmp_path / "run", settings={"dedup": 16})
    seen = learned(made)
    made.run()
    assert seen == [identity(sid) for sid, _ in [*clean, clean[0]]]
    assert len(made.intake.state()["known"]) == 16


CASES = {
    "task-free": ({}, lambda s: learner(Replay(40), s)),
    "powerlaw": ({"window": "count:50"}, lambda s: learner(PowerLawRehearsal(30), s)),
    "stochastic": ({}, lambda s: learner(PowerLawRehearsal(30, mode="stochastic"), s)),
    "simplex": ({"window": "count:50"}, lambda s: learner(Simplex(classes=8), s, features=7)),
    "dkvb": ({"window": "time:60"}, lambda s: learner(DiscreteKeyValueBottleneck(4, 16, 2, init_samples=30), s)),
    "cuber": ({"window": "count:60", "kind": "domain-il"}, lambda s: learner(CUBER(samples=20), s)),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_crashed_at_any_step_it_ends_with_the_same_bits(case, tmp_path):
    """Four crashes without a word, one with SIGTERM's stop; then everything equals the run that had none."""
    settings, make = CASES[case]
    follow, stream = Follow(**settings), log(tmp_path / "log", messy(260))

    def started(folder, notify=None):
        return follower(stream, tmp_path / folder, lambda: make(follow), settings=settings, notify=notify)

    whole = started("whole")
    whole.run()
    for step in (3, 9, 16, 25):
        with pytest.raises(Crash):
            started("parts", crash_at(step)).run()
    polite = started("parts")
    polite.watch(lambda kind, facts: polite.stop.set() if facts.get("steps") == 28 else None)
    with pytest.raises(Stopped, match="goes on from there"):
        polite.run()
    last = started("parts")
    last.run()

    assert outcome(last) == outcome(whole)
    assert last.facts() == whole.facts()


@pytest.mark.slow
def test_what_is_added_later_is_learned_by_the_same_command(tmp_path):
    clean = samples(96)
    one, two = log(tmp_path / "one", clean), log(tmp_path / "two", clean[:40])
    follower(one, tmp_path / "whole").run()
    follower(two, tmp_path / "parts").run()
    with streams.Log(two) as more:
        more.append(clean[40:])
    again = follower(two, tmp_path / "parts")
    again.run()
    assert again.facts()["samples"] == 96  # 40 is a multiple of the batch: the cuts are the same, and so are the bits
    a, b = (Checkpoints(tmp_path / run / "checkpoints").latest()["learner"] for run in ("whole", "parts"))
    assert digest(a) == digest(b)


@pytest.mark.slow
def test_a_damaged_commit_is_left_out_and_said(tmp_path, caplog):
    stream = log(tmp_path / "log", messy(120))
    whole, parts = follower(stream, tmp_path / "whole"), follower(stream, tmp_path / "parts", notify=crash_at(15))
    whole.run()
    with pytest.raises(Crash):
        parts.run()
    commits = Checkpoints(tmp_path / "parts" / "checkpoints", keep=3)
    assert len(commits.numbers()) == 3
    newest = commits.folder / f"{commits.numbers()[-1]:08d}" / "state.safetensors"
    newest.write_bytes(newest.read_bytes()[:-3] + b"bad")
    again = follower(stream, tmp_path / "parts")
    again.run()
    assert "damaged" in caplog.text
    assert outcome(again) == outcome(whole)


def test_two_in_one_folder_and_another_run_are_refused(tmp_path):
    stream = log(tmp_path / "log", samples(16))
    first = follower(stream, tmp_path / "run", about={"lr": 1})

    def second(kind, facts):
        with pytest.raises(Locked, match="is being written by process"):
            follower(stream, tmp_path / "run", about={"lr": 1}).run()

    first.watch(second)
    first.run()
    with pytest.raises(ConfigError, match="its lr differs"):
        follower(stream, tmp_path / "run", about={"lr": 2}).run()


# ---- what goes wrong outside


@pytest.mark.slow
def test_a_source_that_is_gone_for_a_while_is_waited_for_and_nothing_is_lost(tmp_path, caplog, monkeypatch):
    stream = log(tmp_path / "log", messy(120))
    whole, made = follower(stream, tmp_path / "whole"), follower(stream, tmp_path / "run")
    whole.run()
    source, poll, calls = made.intake.source, made.intake.source.poll, []

    def sometimes(limit, timeout=0.0):
        calls.append(1)
        if len(calls) in (1, 2, 4):
            raise Unavailable("the broker is gone")
        return poll(min(limit, 30), timeout)

    monkeypatch.setattr(source, "poll", sometimes)
    monkeypatch.setattr(made.stop, "wait", lambda seconds: False)
    made.run()
    assert outcome(made) == outcome(whole)
    assert caplog.text.count("the broker is gone") == 2
    assert caplog.text.count("answers again") == 2


@pytest.mark.slow
def test_a_full_disk_is_waited_for_and_nothing_is_lost(tmp_path, caplog, monkeypatch):
    stream = log(tmp_path / "log", messy(120))
    whole, made = follower(stream, tmp_path / "whole"), follower(stream, tmp_path / "run")
    whole.run()
    commit, calls = Checkpoints.commit, []

    def full(self, state):
        calls.append(1)
        if len(calls) in (2, 3):
            raise OSError(28, "No space left on device")
        return commit(self, state)

    monkeypatch.setattr(Checkpoints, "commit", full)
    monkeypatch.setattr(made.stop, "wait", lambda seconds: False)
    made.run()
    assert outcome(made) == outcome(whole)
    assert caplog.text.count("cannot commit: [Errno 28] No space left on device") == 2


def test_a_gap_stops_the_run_or_is_counted_by_choice(tmp_path):
    stream = log(tmp_path / "log", samples(80))
    with pytest.raises(Crash):
        follower(stream, tmp_path / "run", notify=crash_at(8)).run()
    with streams.Log(stream) as trimmed:
        trimmed.trim(keep=16)
    with pytest.raises(RetentionGap, match="lost records after offset"):
        follower(stream, tmp_path / "run").run()
    made = follower(stream, tmp_path / "run", settings={"on_gap": "skip"})
    made.run()
    assert made.facts()["gaps"] == 1
    assert made.facts()["samples"] == 7 * 8 + 16  # committed before the crash, and what is left


def test_a_stream_that_ends_before_the_run_is_refused_or_counted_by_choice(tmp_path):
    """Restored from an older copy: what is appended would get numbers that the run has read already."""
    whole, older, later = log(tmp_path / "log", samples(80)), log(tmp_path / "older", samples(40)), samples(16, seed=9)
    follower(whole, tmp_path / "run").run()
    for _ in range(2):
        with pytest.raises(RetentionGap, match="ends at offset 40, this run has read up to 80"):
            follower(older, tmp_path / "run").run()
    follower(older, tmp_path / "run", settings={"on_gap": "skip"}).run()
    with streams.Log(older) as again:
        again._db.executemany("INSERT INTO records(sid, time, payload) VALUES (?, 0, ?)", later)
    made = follower(older, tmp_path / "run")
    made.run()
    assert (made.facts()["gaps"], made.facts()["samples"]) == (1, 80 + len(later))


# ---- poison


def bad_records():
    return [
        ("bytes", b"nothing"),
        ("shape", encode(torch.zeros(WIDTH + 1), 0)),
        ("dtype", encode(torch.zeros(WIDTH, dtype=torch.float64), 0)),
        ("nan", encode(torch.full((WIDTH,), torch.nan), 0)),
        ("label", encode(torch.zeros(WIDTH), "text")),
        ("large", b"LLR1" + bytes(5000)),
    ]


WIDTH = streams.WIDTH


def test_each_kind_of_poison_is_put_aside_with_its_reason_and_the_rest_is_learned(tmp_path):
    clean = samples(40)
    stream = log(tmp_path / "log", [*clean[:20], *bad_records(), *clean[20:]])
    made = follower(stream, tmp_path / "run", settings={"record_bytes": 4000})
    seen = learned(made)
    made.run()
    letters = {letter.record.sid: letter for letter in made.intake.dead.letters}

    assert seen == [identity(sid) for sid, _ in clean]
    reasons = {"bytes": "not a record", "shape": "shape [6]", "dtype": "float64", "nan": "NaN", "label": "'text'"}
    for sid, reason in {**reasons, "large": "over the limit of 4000"}.items():
        assert reason in letters[sid].error, sid
    assert not letters["large"].whole


def test_more_classes_than_allowed_are_poison(tmp_path):
    made = follower(log(tmp_path / "log", samples(64, classes=5)), tmp_path / "run", settings={"max_classes": 3})
    made.run()
    assert len(made.trainee.learner.labels) == 3
    assert "one more than max_classes=3" in made.intake.dead.letters[0].error


@pytest.mark.slow
def test_a_stream_of_poison_stops_the_run_and_says_where_to_look(tmp_path):
    poison = [(f"p{i}", b"x") for i in range(1100)]
    made = follower(log(tmp_path / "log", [*samples(8), *poison]), tmp_path / "run")
    with pytest.raises(DataError, match="lifelong dead list"):
        made.run()
    assert Checkpoints(tmp_path / "run" / "checkpoints").latest()["intake"]["counts"]["dead"] >= 1000


@pytest.mark.slow
def test_replayed_letters_are_learned_once_the_reason_is_gone(tmp_path):
    """The limit on classes was too low: with a higher one all letters are learned, and none is left."""
    stream = log(tmp_path / "log", samples(64, classes=5))
    follower(stream, tmp_path / "run", settings={"max_classes": 3}).run()
    commits = Checkpoints(tmp_path / "run" / "checkpoints")
    state, dead = commits.latest(), DeadLetters(1000)
    dead.restore(state["intake"]["dead"])
    count = dead.replay([])
    commits.commit({**state, "intake": {**state["intake"], "dead": dead.state()}})

    made = follower(stream, tmp_path / "run", settings={"max_classes": 5})
    seen = learned(made)
    made.run()
    assert count == len(seen) > 0
    assert made.intake.dead.letters == made.intake.dead.again == []
    assert made.facts()["samples"] == 64


def test_letters_are_numbered_bounded_and_survive_a_commit():
    dead = DeadLetters(3)
    dead.add(Letter(Record("p", 2**70 + i, f"s{i}", bytes([i]) * i, 1.5), f"why {i}") for i in range(5))
    again = DeadLetters(3)
    again.restore(dead.state())
    assert again == dead
    assert [(letter.number, letter.error) for letter in dead.letters] == [(3, "why 2"), (4, "why 3"), (5, "why 4")]
    assert dead.lost == 2
    assert dead.drop([4]) == 1
    assert [letter.number for letter in dead.letters] == [3, 5]
    with pytest.raises(NotFound, match="no dead letter 4"):
        dead.replay([4])
    dead.add([Letter(Record("p", 1, "cut", b"x", 0.0), "why", whole=False)])
    with pytest.raises(ConfigError, match="only the beginning"):
        dead.replay([])


# ---- what must not be learned


@pytest.mark.slow
@pytest.mark.parametrize("window", ["none", "count:40"])
def test_a_sample_that_breaks_the_loss_is_found_among_the_others_and_left_out(window, tmp_path, caplog):
    """Huge but finite: it passes the schema, and makes the loss NaN. All others are learned."""
    clean, huge = samples(160), encode(torch.full((WIDTH,), 3e38), 1)
    stream = log(tmp_path / "log", [*clean[:90], ("huge", huge), *clean[90:]])
    results, follow = [], Follow(window=window)
    for run in ("one", "two"):
        made = follower(stream, tmp_path / run, lambda: learner(Replay(30), follow), settings={"window": window})
        made.run()
        (letter,) = made.intake.dead.letters
        assert letter.record.sid == "huge"
        assert "became" in letter.error
        assert made.facts()["samples"] == 160
        assert "going back to the last commit" in caplog.text
        results.append(outcome(made))
    assert results[0] == results[1]


@pytest.mark.slow
def test_a_leap_of_the_loss_is_taken_back_where_that_is_asked_for(tmp_path):
    clean, far = samples(160), encode(torch.full((WIDTH,), 1e4), 1)
    stream = log(tmp_path / "log", [*clean[:120], ("far", far), *clean[120:]])
    made = follower(stream, tmp_path / "run", settings={"spike": 20.0})
    made.run()
    assert [letter.record.sid for letter in made.intake.dead.letters] in ([], ["far"])
    other = follower(stream, tmp_path / "other")
    other.run()
    assert made.facts()["recent"] >= other.facts()["recent"]


@pytest.mark.slow
def test_a_class_for_which_there_is_no_room_is_a_dead_letter(tmp_path):
    """A simplex of 3 classes cannot learn a fourth; the stream may bring one all the same."""
    stream = log(tmp_path / "log", samples(80, classes=4))
    follow = Follow(window="count:40")
    made = follower(
        stream,
        tmp_path / "run",
        lambda: learner(Simplex(classes=3), follow, features=2),
        settings={"window": "count:40"},
    )
    made.run()
    assert made.intake.dead.letters
    assert len(made.trainee.learner.labels) == 3


def test_a_strategy_that_needs_all_data_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="Joint passes over all data"):
        follower(log(tmp_path / "log", []), tmp_path / "run", lambda: learner(Joint()))


# ---- windows


def cuts(tmp_path, records, window, lr=0.1):
    told = []
    source = log(tmp_path / "log", records)
    made = follower(
        source, tmp_path / "run", lambda: learner(optim=Optim(lr=lr)), settings={"window": window}, commit_every=99
    )
    made.watch(lambda kind, facts: told.append(facts["samples"]) if kind == "boundary" else None)
    made.run()
    return told


def test_windows_are_cut_by_count(tmp_path):
    assert cuts(tmp_path, messy(100), "count:30") == [30, 30, 30, 10]


def test_windows_are_cut_by_the_records_own_time(tmp_path):
    """One record a second: whatever the clock of this machine does, 25 seconds are 25 records."""
    assert cuts(tmp_path, samples(60), "time:25") == [25, 25, 10]


def test_windows_are_cut_where_the_stream_says_so(tmp_path):
    """A duplicate of an old part does not open it again."""
    tasks = [0] * 11 + [1] * 20 + [0] * 5
    records = [(f"s{i}", encode(torch.randn(WIDTH), i % 2, task)) for i, task in enumerate(tasks)]
    assert cuts(tmp_path, [*records[:15], records[2], *records[15:]], "declared") == [11, 20, 5]


@pytest.mark.slow
def test_windows_are_cut_where_the_errors_rise(tmp_path):
    """Labels are swapped half-way: one cut comes soon after, none before."""
    first = samples(600, classes=2, seed=1)
    swapped = []
    for sid, payload in samples(600, classes=2, seed=2):
        sample = decode(payload)
        swapped.append((sid, encode(sample.x, 1 - sample.y)))
    sizes = cuts(tmp_path, [*first, *swapped], "drift:20", lr=0.02)
    assert sum(sizes) == 1200
    assert 600 < sizes[0] < 800


def test_page_hinkley_counted_by_hand():
    """After n zeros, ones add 1 - mean - delta each: the alarm comes when that sum passes the threshold."""
    test = PageHinkley(delta=0.0, threshold=3.0, burn_in=1)
    said = [test.update(v) for v in [0] * 10 + [1] * 6]
    # means after each one: 1/11, 2/12, 3/13, 4/14 -> excess .909 + .833 + .769 + .714 = 3.226 > 3
    assert said.index(True) == 13
    assert sum(said) == 1


def test_settings_of_a_stream_are_checked_by_name():
    with pytest.raises(UnknownName, match="did you mean 'window'"):
        Follow.of({"windw": "count:5"})
    with pytest.raises(ConfigError, match="dedup wants a whole number, got '5'"):
        Follow.of({"dedup": "5"})
    for bad in (
        {"window": "count"},
        {"window": "count:x"},
        {"window": "declared:3"},
        {"window": "drift:-3"},
        {"dedup": 0},
        {"max_dead": 2.0},
    ):
        with pytest.raises(ConfigError):
            Follow(**bad)
    assert Follow.of({"linger": 2}).linger == 2
    assert Follow(window="count:5").provides == {"boundaries"}


# ---- figures


def test_test_then_train_figures_counted_by_hand():
    figures = Prequential()
    wrong = figures.add([None, "a", "b", "a"], ["a", "b", "b", "a"])
    assert wrong == [True, True, False, False]
    found = figures.figures()
    # majority says nothing, a, a (1:1, the first stays), b; no_change says nothing, a, b, b
    assert (found["model"], found["majority"], found["no_change"]) == (0.5, 0.0, 0.25)
    again = Prequential()
    again.restore(figures.state())
    assert again.state() == figures.state()


# ---- candidates


@pytest.mark.slow
def test_versions_come_every_so_many_samples_and_a_crash_repeats_none(tmp_path):
    """The gate's samples are never learned; crashed before, during and after a publish, the versions are the same."""
    stream = log(tmp_path / "log", messy(400))

    def started(name, notify=None):
        registry = Registry(tmp_path / f"registry-{name}", create=True)
        settings = {"publish_samples": 100, "window": "count:80"}
        return follower(stream, tmp_path / name, settings=settings, registry=registry, notify=notify), registry

    whole, one = started("whole")
    seen = learned(whole)
    whole.run()
    crashes = [lambda k, f: (_ for _ in ()).throw(Crash) if k in ("published", "refused") else None, crash_at(30)]
    for notify in crashes:
        made, two = started("parts", notify)
        with pytest.raises(Crash):
            made.run()
    made, two = started("parts")
    made.run()

    held = set(whole.trainee.publisher.held_out.store.all.ids.tolist())
    assert held
    assert not held & set(seen)
    assert len(held | set(seen)) == 400
    assert one.versions()
    assert [one.manifest(v)["sha256"] for v in one.versions()] == [two.manifest(v)["sha256"] for v in two.versions()]
    assert outcome(made) == outcome(whole)


@pytest.mark.slow
def test_a_refused_candidate_and_a_registry_that_is_gone_do_not_stop_training(tmp_path, caplog, monkeypatch):
    stream = log(tmp_path / "log", samples(240))
    registry = Registry(tmp_path / "registry", create=True)
    made = follower(
        stream,
        tmp_path / "run",
        lambda: learner(optim=Optim(lr=1e-9)),
        settings={"publish_samples": 60},
        registry=registry,
    )
    made.trainee.publisher.plan = type(made.plan)(max_accuracy_drop=0.0, max_forgetting=0.0, held_out=0.2)
    publish, calls = Registry.publish, []

    def sometimes(self, *args, **options):
        calls.append(1)
        if len(calls) == 1:
            raise OSError(30, "Read-only file system")
        return publish(self, *args, **options)

    monkeypatch.setattr(Registry, "publish", sometimes)
    monkeypatch.setattr("lifelong.following.publisher.RETRY_SECONDS", 0.0)
    made.run()
    assert made.facts()["samples"] > 150
    assert "Read-only file system; training goes on" in caplog.text
    assert registry.versions()
