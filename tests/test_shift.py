"""What is done when a stream changes, and what a canary set says of forgetting."""

from __future__ import annotations

import math

import pytest
import streams
import torch
from scipy.stats import ks_2samp

from lifelong.checks import digest
from lifelong.errors import ConfigError, UnknownName
from lifelong.following.canary import Canary
from lifelong.following.intake import identity
from lifelong.following.settings import Follow
from lifelong.following.shift import Shift
from lifelong.learning import Optim
from lifelong.learning.checkpoint import Checkpoints
from lifelong.learning.rates import Rate
from lifelong.release.registry import Registry
from lifelong.sources.record import decode, encode
from strategies.replay import Replay


class Crash(BaseException):
    """Not an error of ours."""


def moved(count: int, at: int, by: float = 3.0) -> list[tuple[str, bytes]]:
    """A stream whose inputs are moved from one sample on; labels stay what they were."""
    found = []
    for i, (sid, payload) in enumerate(streams.samples(count)):
        sample = decode(payload)
        found.append((sid, encode(sample.x + (by if i >= at else 0.0), sample.y)))
    return found


def same(x: torch.Tensor) -> torch.Tensor:
    return x


# ---- Kolmogorov-Smirnov


def test_the_level_is_the_smallest_of_all_coordinates_corrected():
    """Second source: SciPy's own vectorised test, along an axis."""
    random = torch.Generator().manual_seed(0)
    one, two = (
        torch.randn(60, 5, generator=random),
        torch.randn(60, 5, generator=random) + torch.tensor([0, 0, 0.6, 0, 0]),
    )
    shift = Shift(0.01, rows=60)
    shift.reference, shift.recent = list(one), list(two)
    expected = ks_2samp(one.double().numpy(), two.double().numpy(), axis=0, method="asymp").pvalue.min() * 5
    assert shift.level(same) == pytest.approx(min(1.0, float(expected)), rel=1e-9)


def test_a_shift_is_found_within_two_samples_of_it_and_none_before():
    random = torch.Generator().manual_seed(1)
    shift, found = Shift(1e-4, rows=50), []
    for i in range(1000):
        x = torch.randn(4, generator=random) + (1.5 if i >= 600 else 0.0)
        if shift.update([x], same):
            found.append(i)
    assert len(found) in (1, 2)  # a sample half of which is new is a shift, and so is the next one
    assert all(600 <= i < 700 for i in found)


def test_a_model_that_has_changed_is_no_shift():
    """Both samples are embedded by the same model, whatever it has become since the first was taken."""
    random = torch.Generator().manual_seed(2)
    shift = Shift(1e-4, rows=50)
    turned = [shift.update([torch.randn(4, generator=random)], lambda x, k=k: 5.0 * k - 2 * x) for k in range(400)]
    assert not any(turned)


def test_a_restored_one_goes_on_alike():
    random = torch.Generator().manual_seed(3)
    one, two = Shift(0.5, rows=20), Shift(0.5, rows=20)
    rows = list(torch.randn(150, 3, generator=random))
    one.update(rows[:31], same)
    two.restore(one.state())
    assert [one.update([x], same) for x in rows[31:]] == [two.update([x], same) for x in rows[31:]]
    assert digest(one.state()) == digest(two.state())


# ---- actions


def test_actions_are_checked_by_name_and_refused_where_they_would_do_nothing(tmp_path):
    with pytest.raises(UnknownName, match="did you mean 'publish'"):
        Follow(window="drift:5", on_drift="publsh")
    with pytest.raises(ConfigError, match="needs window=drift"):
        Follow(window="count:5", on_drift="alert")
    source = streams.log(tmp_path / "log", [])
    with pytest.raises(ConfigError, match="constant learning rate"):
        streams.follower(source, tmp_path / "run", settings={"window": "drift:5", "on_drift": "rewarm"})
    with pytest.raises(ConfigError, match="needs a registry"):
        streams.follower(source, tmp_path / "run", settings={"window": "drift:5", "on_drift": "publish,alert"})
    assert not Follow(window="drift:5", on_drift="alert").provides
    assert Follow(window="drift:5", on_drift="alert").named_kind == "online"
    assert Follow(window="shift:0.01", on_drift="alert,consolidate").provides == {"boundaries"}


def followed(tmp_path, name, on_drift, notify=None, at=300, count=600):
    told = {"window": "shift:0.0001", "on_drift": on_drift}
    follow = Follow(**told)
    rate = Rate(policy="power", scale=0.5)

    def make():
        return streams.learner(Replay(40), follow, optim=Optim(lr=0.2, rate=rate))

    source = tmp_path / "log"
    if not source.exists():
        streams.log(source, moved(count, at))
    registry = Registry(tmp_path / f"registry-{name}", create=True)
    return streams.follower(source, tmp_path / name, make, settings=told, registry=registry, notify=notify), registry


@pytest.mark.slow
def test_each_action_does_what_it_says_once_the_inputs_have_moved(tmp_path, caplog):
    events = []
    made, _ = followed(tmp_path, "all", "consolidate,rewarm,publish,alert")
    made.watch(lambda kind, facts: events.append((kind, dict(facts))) if kind in ("drift", "boundary", "published",
                                                                               "refused") else None)  # fmt: skip
    made.run()
    kinds = [kind for kind, _ in events]
    assert kinds[:3] in (["drift", "boundary", "published"], ["drift", "boundary", "refused"])
    first = events[0][1]["samples"]
    assert 230 < first < 600  # samples learned; every fifth is the gate's
    assert "the stream has changed" in caplog.text
    learner = made.trainee.learner
    assert learner.position["warmed"] >= first - 8
    since = learner.counters["samples"] - 8 - learner.position["warmed"]
    assert learner._optimizer.param_groups[0]["lr"] == pytest.approx(min(0.2, 8 * 0.5 * since**-0.51), rel=0.05)

    caplog.clear()
    events.clear()
    quiet, _ = followed(tmp_path, "quiet", "alert")
    quiet.watch(lambda kind, facts: events.append((kind, facts)) if kind in ("drift", "boundary") else None)
    quiet.run()
    assert {kind for kind, _ in events} == {"drift"}
    assert quiet.trainee.learner.position.get("warmed", 0) == 0


@pytest.mark.slow
def test_crashed_around_a_drift_it_ends_with_the_same_bits(tmp_path):
    whole, one = followed(tmp_path, "whole", "consolidate,rewarm,publish")
    whole.run()

    def crash(steps, kinds):
        def notify(kind, facts):
            if kind in kinds or (kind == "step" and facts["steps"] == steps):
                raise Crash

        return notify

    for notify in (crash(37, ()), crash(60, ()), crash(0, ("published", "refused"))):
        made, _ = followed(tmp_path, "parts", "consolidate,rewarm,publish", notify)
        with pytest.raises(Crash):
            made.run()
    made, two = followed(tmp_path, "parts", "consolidate,rewarm,publish")
    made.run()
    states = [Checkpoints(tmp_path / run / "checkpoints").latest() for run in ("whole", "parts")]
    assert digest(states[0]) == digest(states[1])
    assert [one.manifest(v)["sha256"] for v in one.versions()] == [two.manifest(v)["sha256"] for v in two.versions()]
    assert states[0]["windows"]["index"] >= 2


@pytest.mark.slow
def test_a_candidate_that_was_asked_for_and_could_not_be_made_yet_is_part_of_a_commit(tmp_path):
    """The registry may be gone just then: after a crash it is still wanted."""
    one, two = (followed(tmp_path, name, "publish")[0].trainee.publisher for name in ("one", "two"))
    one.asked = True
    two.restore(one.state())
    assert two.asked


# ---- the canary


def test_forgetting_counted_by_hand():
    canary = Canary(2)
    for i, label in enumerate("aabb"):
        assert canary.take(10 * i, torch.tensor([float(i)]), label)
    assert not canary.take(50, torch.zeros(1), "a")  # full
    assert not canary.take(51, torch.zeros(1), "c")  # not of this tenth
    said = {1000: "aabb", 2000: "abbb", 3000: "abab"}
    for samples, answer in said.items():
        canary.look(samples, lambda x, answer=answer: list(answer))
        canary.look(samples + 1, lambda x: pytest.fail("too early"))
    # a: 1, then 1/2; b: 1, 1, then 1/2 -> now 1/2 each, best 1 each
    assert canary.figures() == {"canary": 0.5, "canary_forgotten": 0.5}
    again = Canary(2)
    again.restore(canary.state())
    assert digest(again.state()) == digest(canary.state())
    assert Canary(2).figures() == {}


@pytest.mark.slow
def test_a_canary_is_never_learned_and_shows_what_is_forgotten(tmp_path, monkeypatch):
    """The first half of the stream brings classes 0 and 1, the second half 2 and 3: naive training forgets."""
    monkeypatch.setattr("lifelong.following.canary.EVERY", 60)
    records = [r for r in streams.samples(400, classes=4) if decode(r[1]).y < 2]
    records += [r for r in streams.samples(400, classes=4, seed=1) if decode(r[1]).y >= 2]
    stream = streams.log(tmp_path / "log", records)
    made = streams.follower(stream, tmp_path / "run", settings={"canary": 5}, commit_every=300)
    seen = []
    step = made.trainee.learner.step
    made.trainee.learner.step = lambda batch: (seen.extend(batch.ids.tolist()), step(batch))[1]
    made.run()
    facts = made.facts()
    first = {y: [identity(sid) for sid, p in records if decode(p).y == y and not identity(sid) % 10] for y in range(4)}
    assert not {number for numbers in first.values() for number in numbers[:5]} & set(seen)
    assert len(made.trainee.canary.y) == 20
    assert facts["samples"] == len(seen) == len(records) - 20
    assert facts["canary_forgotten"] > 0.3
    assert math.isclose(facts["canary"], sum(made.trainee.canary.now.values()) / 4)
