"""The laws that every strategy obeys; `lifelong check NAME` runs them on any installed plug-in.

Each law takes a maker of fresh strategies and raises `AssertionError` with a sentence if it is broken. A strategy may
declare in `exempt` which law cannot hold for it, and why; the reason is shown.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from lifelong import files, plugins
from lifelong.errors import ConfigError, DataError, LifelongError
from lifelong.learning import Learner, Strategy
from lifelong.learning.checkpoint import Checkpoints, pack, unpack
from lifelong.trial import WIDTH, Toy, digest, learner
from lifelong.types import Batch

Make = Callable[..., Strategy]  # called with a constructor's keyword arguments, or none


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of one law: `holds`, `broken` or `exempt`, and why."""

    law: str
    outcome: str
    why: str = ""


def check(name_or_make: str | Make) -> list[Verdict]:
    """Return the verdict of every law on a strategy, by plug-in name or by its class."""
    make: Make = plugins.find("strategy", name_or_make) if isinstance(name_or_make, str) else name_or_make
    exempt: Mapping[str, str] = getattr(make, "exempt", {})
    return [_judged(law, test, make, exempt) for law, test in LAWS.items()]


def _judged(law: str, test: Callable[[Make], str | None], make: Make, exempt: Mapping[str, str]) -> Verdict:
    if law in exempt:
        return Verdict(law, "exempt", exempt[law])
    try:
        reason = test(make)
    except AssertionError as error:
        return Verdict(law, "broken", str(error))
    except (LifelongError, RuntimeError, TypeError, ValueError, AttributeError, KeyError, IndexError) as error:
        return Verdict(law, "broken", f"{type(error).__name__}: {error}")
    return Verdict(law, "exempt", reason) if reason else Verdict(law, "holds")


def _kind(make: Make) -> str:
    scenarios = make().needs.scenarios
    return "class-il" if "class-il" in scenarios else sorted(scenarios)[0]


def _trained(make: Make, like: Make | None = None, /, **arguments: Any) -> Learner:  # noqa: ANN401
    kind = _kind(like or make)
    made = learner(make(**arguments), kind)
    for experience in Toy(kind).experiences(2):
        made.fit(experience, 2)
    return made


class _Killed(Exception):
    pass


def exact_resume(make: Make) -> str | None:
    """Killed at any step and restored from the commit on disk, it ends where the uninterrupted run ends."""
    whole = _trained(make)
    steps = whole.counters["steps"]
    for stop in sorted({1, steps // 3, steps // 2, 3 * steps // 4, steps - 1}):
        with tempfile.TemporaryDirectory() as folder:
            commits = Checkpoints(folder)
            first = learner(make(), _kind(make))

            def commit(first: Learner = first, commits: Checkpoints = commits, stop: int = stop) -> None:
                if first.counters["steps"] == stop:
                    commits.commit(first.state())
                    raise _Killed

            try:
                for experience in Toy(_kind(make)).experiences(2):
                    first.fit(experience, 2, on_step=commit)
            except _Killed:
                pass
            second, saved = learner(make(), _kind(make), seed=1), commits.latest()
            assert saved is not None
            second.restore(saved)
        for experience in list(Toy(_kind(make)).experiences(2))[second.position["experience"] :]:
            second.fit(experience, 2)
        assert digest(whole.state()) == digest(second.state()), f"resumed at step {stop} it ends in another state"
    return None


def inert_at_zero(make: Make) -> str | None:
    """With strength 0 it is naive training, bit for bit."""
    strength = getattr(make, "strength", None)
    if strength is None:
        return "it has no strength that could be 0"
    plain, zero = _trained(Strategy, make), _trained(make, **{strength: 0})
    same = digest(plain.state()["model"]) == digest(zero.state()["model"])
    assert same, f"{strength}=0 changes the weights"
    return None


def effective_above_zero(make: Make) -> str | None:
    """It changes the weights against strength 0, or against naive training."""
    strength = getattr(make, "strength", None)
    without = _trained(make, **{strength: 0}) if strength else _trained(Strategy, make)
    same = digest(without.state()["model"]) == digest(_trained(make).state()["model"])
    assert not same, "it ends at the weights of training without it: a silent no-op"
    return None


def predict_is_pure(make: Make) -> str | None:
    """Predicting and embedding change nothing, not even a random state."""
    made = _trained(make)
    x = torch.randn(5, WIDTH, generator=torch.Generator().manual_seed(1))
    before, first = digest(made.state()), made.predict(x)
    made.embed(x)
    assert first == made.predict(x), "two predictions differ"
    assert before == digest(made.state()), "predict changed the state"
    return None


def deterministic(make: Make) -> str | None:
    """The same seed gives the same bits; global random state is neither read nor touched."""
    torch.randint(10, (1,))
    before = torch.random.get_rng_state()
    first = digest(_trained(make).state())
    assert torch.equal(before, torch.random.get_rng_state()), "it touched the global random state"
    torch.randint(10, (1,))
    assert first == digest(_trained(make).state()), "two runs of one seed differ: it reads global random state"
    return None


def bounded_memory(make: Make) -> str | None:
    """Its state is no larger after ten times as many samples."""
    if not make().needs.bounded:
        return "it declares that it keeps everything"

    def size(per_class: int) -> int:
        made = learner(_small(make), _kind(make))
        for experience in Toy(_kind(make)).experiences(2, per_class):
            made.fit(experience)
        tensors, _ = pack(made.strategy.state())
        return sum(t.nbytes for t in tensors.values())

    few, many = size(60), size(600)
    assert many <= few * 1.05 + 4096, f"its state grew from {few} to {many} bytes on a stream ten times longer"
    return None


def new_labels(make: Make) -> str | None:
    """Classes that appear in mid-stream are learned, and old class indices keep their meaning."""
    made = learner(make(), _kind(make))
    seen: list[object] = []
    for experience in Toy(_kind(make)).experiences(3):
        made.fit(experience, 4)
        assert made.labels.tolist()[: len(seen)] == seen, "an old class index changed its meaning"
        seen = list(made.labels.tolist())
        assert made.score(experience) > 0, f"nothing of {experience.name} is predicted right after learning it"
    return None


def nan_refused(make: Make) -> str | None:
    """A batch with NaN is refused with a `DataError`, and nothing has changed."""
    made = _trained(make)
    before = digest(made.state())
    x = torch.full((4, WIDTH), torch.nan)
    try:
        made.step(Batch.of(x, torch.zeros(4, dtype=torch.int64)))
    except DataError:
        assert before == digest(made.state()), "the refused batch left a trace"
        return None
    raise AssertionError("a batch of NaN was learned")


def independent_clone(make: Make) -> str | None:
    """A learner restored from another's state shares no memory with it."""
    made = _trained(make)
    saved = made.state()
    before = digest(saved)
    other = learner(make(), _kind(make), seed=1)
    other.restore(saved)
    other.fit(list(Toy(_kind(make)).experiences(3))[2])
    assert before == digest(made.state()), "training the clone changed the original"
    assert before == digest(saved), "training the clone changed the saved state"
    return None


def state_round_trip(make: Make) -> str | None:
    """Its state survives safetensors and JSON, bit for bit."""
    state = _trained(make).strategy.state()
    tensors, plain = pack(state)
    back = unpack(tensors, files.parse_json(files.canonical_json(plain)))
    assert digest(state) == digest(back), "the state changed on the way to disk and back"
    return None


def needs_enforced(make: Make) -> str | None:
    """A scenario that does not provide what it needs, or that it is not meant for, is refused at construction."""
    needs = make().needs
    poor = Toy("online", frozenset())
    wants = needs.boundaries or needs.task_id or needs.known_classes or needs.epochs or "online" not in needs.scenarios
    try:
        Learner(learner(Strategy()).model, make(), setting=poor)
    except ConfigError:
        assert wants, "it refuses an online stream, and declares no need that would explain it"
        return None
    assert not wants, "it accepts an online stream that does not provide what it needs"
    return None


def beats_naive(make: Make) -> str | None:
    """In a scenario that it is meant for, it keeps more than naive training does."""
    scores = []
    for maker in (Strategy, make):
        made = learner(maker(), _kind(make))
        stream = list(Toy(_kind(make)).experiences(3))
        for experience in stream:
            made.fit(experience, 4)
        scores.append(sum(made.score(e) for e in stream) / len(stream))
    assert scores[1] > scores[0], f"final mean accuracy {scores[1]:.3f}, naive training has {scores[0]:.3f}"
    return None


def _small(make: Make) -> Strategy:
    """Return a strategy with a memory that the toy stream fills."""
    try:
        return make(capacity=50)
    except TypeError:
        return make()


LAWS: dict[str, Callable[[Make], str | None]] = {
    "exact resume": exact_resume,
    "inert at zero": inert_at_zero,
    "effective above zero": effective_above_zero,
    "predict is pure": predict_is_pure,
    "deterministic": deterministic,
    "bounded memory": bounded_memory,
    "new labels": new_labels,
    "NaN refused": nan_refused,
    "independent clone": independent_clone,
    "state round trip": state_round_trip,
    "needs enforced": needs_enforced,
    "beats naive": beats_naive,
}
