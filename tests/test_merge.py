"""Averages for the gate: closed forms, a greedy choice, and training that knows nothing of them."""

from __future__ import annotations

import pytest
import streams
import torch

from lifelong.checks import digest
from lifelong.errors import ConfigError
from lifelong.following.merge import Merger, between, greedy, load, mean, trained
from lifelong.following.settings import Follow
from lifelong.learning.checkpoint import Checkpoints
from lifelong.models import outputs
from lifelong.release.registry import Registry
from lifelong.types import Batch
from strategies.replay import Replay
from strategies.slda import StreamingLDA


class Crash(BaseException):
    """Not an error of ours."""


def weights(seed: int, rows: int = 3) -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    return {"w": torch.randn(rows, 4, generator=random), "b": torch.randn(rows, generator=random)}


def test_between_by_hand_and_what_has_grown_keeps_its_new_rows():
    old, now = weights(1), weights(2, rows=5)
    found = between(old, now, 0.25)
    torch.testing.assert_close(found["w"][:3], 0.25 * old["w"] + 0.75 * now["w"][:3])
    assert torch.equal(found["w"][3:], now["w"][3:])
    assert torch.equal(between(now, weights(1), 0.5)["w"], old["w"])  # it has shrunk: another model
    assert torch.equal(between({}, now, 0.5)["b"], now["b"])


@pytest.mark.parametrize("count", [2, 3, 7])
def test_the_average_of_equal_weights_is_these_bit_for_bit(count):
    one = weights(3)
    assert digest(mean([one] * count)) == digest(one)
    assert digest(between(one, one, 0.3)) == digest(one)


def test_the_mean_does_not_depend_on_the_order_beyond_rounding():
    every = [weights(seed) for seed in range(4)]
    torch.testing.assert_close(mean(every), mean(every[::-1]))
    torch.testing.assert_close(mean(every)["w"], sum(w["w"] for w in every) / 4)


def some_model():
    made = streams.learner(Replay(30))
    random = torch.Generator().manual_seed(0)
    y = torch.randint(3, (90,), generator=random)
    x = 2 * torch.eye(3, streams.WIDTH)[y] + 0.7 * torch.randn(90, streams.WIDTH, generator=random)
    for _ in range(6):
        made.partial_fit(x[:30], y[:30])
    rows = Batch.of(x[30:], made.labels.encode(y[30:].tolist()))
    return made, rows


def test_a_greedy_soup_is_the_one_of_a_loop_written_out_and_never_worse_than_the_best():
    """Second source: the algorithm in words, over candidates that are disturbed more and more."""
    made, rows = some_model()
    base = trained(made.model)
    random = torch.Generator().manual_seed(4)
    every = [
        {n: w + s * torch.randn(w.shape, generator=random) for n, w in base.items()} for s in (0.3, 0.25, 0.6, 0.2)
    ]

    def right(found):
        load(made.model, found)
        return int((outputs(made.model, rows.x).logits.argmax(1) == rows.y).sum())

    alone = [right(w) for w in every]
    order = sorted(range(4), key=lambda i: (-alone[i], -i))
    pot, best = [order[0]], alone[order[0]]
    for i in order[1:]:
        together = right(mean([every[j] for j in [*pot, i]]))
        if together > best:
            pot, best = [*pot, i], together
    found, count = greedy(made.model, every, rows)
    assert count == len(pot)
    assert right(found) == best >= max(alone)
    assert count > 1, "the case shows nothing if nothing is added"


@pytest.mark.parametrize("how", ["ema", "soup"])
def test_the_model_is_as_it_was_afterwards_and_an_error_changes_nothing(how):
    made, rows = some_model()
    merger, before = Merger(Follow(merge=how, merge_weight=0.25)), digest(made.state())
    first = trained(made.model)
    with merger.merged(made.model, rows):
        merger.accept(True)
    assert digest(made.state()) == before
    made.partial_fit(rows.x[:40], [made.labels.tolist()[i] for i in rows.y[:40].tolist()])
    second = trained(made.model)
    with merger.merged(made.model, rows) as (left, note):
        inside = trained(made.model)
    if how == "ema":
        torch.testing.assert_close(inside, {n: 0.25 * first[n] + 0.75 * second[n] for n in first})
        assert len(left) == len(rows)
        assert note == {"merge": "ema", "merged": 2}
    else:
        assert left.ids.tolist() == rows.ids.tolist()[1::2]
    with pytest.raises(Crash), merger.merged(made.model, rows):
        raise Crash
    assert digest(trained(made.model)) == digest(second)


def test_what_cannot_be_averaged_is_refused():
    merger = Merger(Follow(merge="ema"))
    with pytest.raises(ConfigError, match="trains nothing"):
        merger.refuse_unless_fit(streams.learner(StreamingLDA()).model)
    with pytest.raises(ConfigError, match="batch norm"):
        merger.refuse_unless_fit(torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2)))
    Merger(Follow()).refuse_unless_fit(torch.nn.Sequential())


@pytest.mark.slow
@pytest.mark.parametrize("how", ["ema", "soup"])
def test_crashed_anywhere_the_versions_are_the_same_and_training_knows_nothing_of_them(how, tmp_path):
    stream = streams.log(tmp_path / "log", streams.messy(400))

    def started(name, notify=None, merge=how):
        registry = Registry(tmp_path / f"registry-{name}", create=True)
        settings = {"publish_samples": 60, "merge": merge, "merge_weight": 0.3}
        return streams.follower(stream, tmp_path / name, settings=settings, registry=registry, notify=notify), registry

    def crash_at(kinds, number):
        seen = []

        def notify(kind, facts):
            seen.extend([1] if kind in kinds else [])
            if len(seen) == number:
                raise Crash

        return notify

    whole, one = started("whole")
    whole.run()
    for notify in (crash_at({"published", "refused"}, 2), crash_at({"step"}, 9), crash_at({"published"}, 1)):
        with pytest.raises(Crash):
            started("parts", notify)[0].run()
    made, two = started("parts")
    made.run()
    plain, _ = started("plain", merge="none")
    plain.run()

    assert len(one.versions()) >= 2
    assert [one.manifest(v)["sha256"] for v in one.versions()] == [two.manifest(v)["sha256"] for v in two.versions()]
    states = [Checkpoints(tmp_path / run / "checkpoints").latest() for run in ("whole", "parts", "plain")]
    assert digest(states[0]) == digest(states[1])
    assert digest(states[0]["learner"]) == digest(states[2]["learner"])
    assert one.manifest(one.versions()[-1])["training"]["merge"] == how
    same = digest(one.load(one.versions()[-1]).weights) == digest(dict(states[0]["learner"]["model"]))
    assert not (same and how == "ema")  # a soup may be the one candidate that is best alone
