"""The learners that one process and two must train alike; run by torchrun, the first process saves what became of them.

Everything is float64, so that sums in another order differ by far less than any mistake would.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import torch
from methods import find

from lifelong.learning import Chain, Learner, Optim, Strategy
from lifelong.learning.checkpoint import Checkpoints
from lifelong.learning.ranks import ALONE, Ranks, joined
from lifelong.models import build
from lifelong.trial import FEATURES, WIDTH, Toy
from lifelong.types import Batch, Experience

SIZE = 13  # of a batch; 40 samples end with one of a single sample, of which a process has no share
SMALL = {"capacity": 25}
ARGUMENTS = {
    "dkvb": {"books": 8, "pairs": 16, "dim_key": 4, "init_samples": 30, "passes": 2},
    "cuber": {"samples": 40, "looks": 2}, "trgp": {"samples": 40, "looks": 2},
    "gpm": {"samples": 40}, "replay": SMALL, "er": SMALL, "powerlaw": SMALL, "der": SMALL, "derpp": SMALL,
    "er_ace": SMALL, "mir": SMALL, "agem": {"capacity": 30, "samples": 9}, "gem": {"capacity": 30}, "gdumb": SMALL,
    "icarl": SMALL, "ridge": {"width": 32},
}  # fmt: skip
SINGLE = {"bct", "dkvb", "icarl", "lwf", "simplex", "simplex_hoc"}  # what they build is float32
RESUMED = ("replay", "powerlaw", "cuber", "dkvb", "ewc")
CHAINS = ("replay+simplex", "replay+ewc", "mas+lwf+balanced")
EXPERIENCES = 3


def precision(name: str) -> torch.dtype:
    return torch.float32 if SINGLE.intersection(name.split("+")) else torch.float64


def strategy(name: str) -> Strategy:
    parts = [
        find("replay", **SMALL, policy="balanced") if n == "balanced" else find(n, **ARGUMENTS.get(n, {}))
        for n in name.split("+")
    ]
    return parts[0] if len(parts) == 1 else Chain(*parts)


def kind(made: Strategy) -> str:
    return "class-il" if "class-il" in made.needs.scenarios else "domain-il"


def learner(name: str, ranks: Ranks = ALONE) -> Learner:
    made = strategy(name)
    spec = {
        "backbone": {"name": "mlp", "inputs": [WIDTH], "hidden": [24], "features": FEATURES},
        "head": {"name": "linear"},
    }
    # Momentum would hide what a projection of the gradient does: half of the methods take plain steps.
    optim = Optim(lr=0.05, momentum=0.9 if len(name) % 2 else 0.0)
    model = build(spec, seed=1).to(precision(name))
    return Learner(model, made, optim=optim, batch_size=SIZE, seed=1, setting=Toy(kind(made)), ranks=ranks)


def experiences(made: Learner) -> list[Experience]:
    found, dtype = [], next(made.model.parameters()).dtype
    for e in Toy(kind(made.strategy)).experiences(EXPERIENCES, per_class=20):
        data = Batch(e.train.x.to(dtype), e.train.y, e.train.ids, e.train.task)
        found.append(Experience(e.index, e.name, e.classes, data, data, task=e.task, names=e.names))
    return found


def trained(name: str, ranks: Ranks = ALONE) -> Learner:
    made = learner(name, ranks)
    for experience in experiences(made):
        made.fit(experience, epochs=2)
    return made


def kept(made: Learner, states: list[dict]) -> None:
    states.append(made.state())


def resumed(name: str, ranks: Ranks) -> Learner:
    """The same, but stopped in the middle of the second experience, and gone on with by a fresh learner."""
    made, fresh = learner(name, ranks), learner(name, ranks)
    for experience in experiences(made):
        if experience.index == 1:
            states = list[dict]()
            made.fit(experience, epochs=2, on_step=partial(kept, made, states))
            fresh.restore(ranks.told(states[2]))
            made = fresh
        made.fit(experience, epochs=2)
    return made


def main(folder: Path, names: list[str]) -> None:
    """Save what became of each learner, as the first process has it and as the second one has it."""
    torch.set_num_threads(1)
    with joined(torch.device("cpu")) as ranks:
        for name in names:
            found = {"whole": trained(name, ranks).state()}
            if name in RESUMED:
                found["parts"] = resumed(name, ranks).state()
            with Checkpoints(folder / name / ("first" if ranks.first else "second")) as commits:
                commits.commit(found)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
