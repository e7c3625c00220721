"""Laws about bits: what is saved, drawn and asked changes nothing that it should not."""

from __future__ import annotations

import tempfile

import torch

from lifelong import files
from lifelong.learning import Learner, Strategy
from lifelong.learning.checkpoint import Checkpoints, pack, unpack
from lifelong.trial import WIDTH, Make, Toy, digest, kind, learner, trained


class _Killed(Exception):
    pass


def exact_resume(make: Make) -> str | None:
    """Killed at any step and restored from the commit on disk, it ends where the uninterrupted run ends."""
    whole = trained(make)
    steps = whole.counters["steps"]
    for stop in sorted({1, steps // 3, steps // 2, 3 * steps // 4, steps - 1}):
        with tempfile.TemporaryDirectory() as folder:
            commits = Checkpoints(folder)
            first = learner(make(), kind(make))

            def commit(first: Learner = first, commits: Checkpoints = commits, stop: int = stop) -> None:
                if first.counters["steps"] == stop:
                    commits.commit(first.state())
                    raise _Killed

            try:
                for experience in Toy(kind(make)).experiences(2):
                    first.fit(experience, 2, on_step=commit)
            except _Killed:
                pass
            second, saved = learner(make(), kind(make), seed=1), commits.latest()
            assert saved is not None
            second.restore(saved)
        for experience in list(Toy(kind(make)).experiences(2))[second.position["experience"] :]:
            second.fit(experience, 2)
        assert digest(whole.state()) == digest(second.state()), f"resumed at step {stop} it ends in another state"
    return None


def inert_at_zero(make: Make) -> str | None:
    """With strength 0 it is naive training, bit for bit."""
    strength = getattr(make, "strength", None)
    if strength is None:
        return "it has no strength that could be 0"
    plain, zero = trained(Strategy, make), trained(make, **{strength: 0})
    same = digest(plain.state()["model"]) == digest(zero.state()["model"])
    assert same, f"{strength}=0 changes the weights"
    return None


def effective_above_zero(make: Make) -> str | None:
    """It changes the weights against strength 0, or against naive training."""
    strength = getattr(make, "strength", None)
    without = trained(make, **{strength: 0}) if strength else trained(Strategy, make)
    same = digest(without.state()["model"]) == digest(trained(make).state()["model"])
    assert not same, "it ends at the weights of training without it: a silent no-op"
    return None


def predict_is_pure(make: Make) -> str | None:
    """Predicting and embedding change nothing, not even a random state."""
    made = trained(make)
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
    first = digest(trained(make).state())
    assert torch.equal(before, torch.random.get_rng_state()), "it touched the global random state"
    torch.randint(10, (1,))
    assert first == digest(trained(make).state()), "two runs of one seed differ: it reads global random state"
    return None


def independent_clone(make: Make) -> str | None:
    """A learner restored from another's state shares no memory with it."""
    made = trained(make)
    saved = made.state()
    before = digest(saved)
    other = learner(make(), kind(make), seed=1)
    other.restore(saved)
    other.fit(list(Toy(kind(make)).experiences(3))[2])
    assert before == digest(made.state()), "training the clone changed the original"
    assert before == digest(saved), "training the clone changed the saved state"
    return None


def state_round_trip(make: Make) -> str | None:
    """Its state survives safetensors and JSON, bit for bit."""
    state = trained(make).strategy.state()
    tensors, plain = pack(state)
    back = unpack(tensors, files.parse_json(files.canonical_json(plain)))
    assert digest(state) == digest(back), "the state changed on the way to disk and back"
    return None
