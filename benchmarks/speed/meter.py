"""What counting operations adds to a run, as a share of the run: seconds above what the same steps cost uncounted.

Measured within one run, so that what else runs on the machine slows both sides: CPU seconds while a step is counted,
less what as many other steps of that run cost, and what the meter does after every step. Five passes over the packaged
part of Fashion-MNIST are 1,250 steps, a third of the default run on the whole set: the shorter a run, the more counting
weighs. What a strategy does around an experience is counted in full; for `ewc` and `gdumb` that is shown as the CPU
time of whole runs, with a meter over without, and has no goal.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Iterator
from typing import Any

from figures import figure, seconds

from lifelong import compose
from lifelong.bench.meter import Meter
from lifelong.learning import Learner, Optim
from lifelong.models import build
from lifelong.streams.scenario import Scenario
from lifelong.streams.scenarios import scenario

TURNS, EPOCHS, BATCH = 3, 5, 32
STREAMS = {"split": ("split-fmnist-small", EPOCHS), "online": ("online-fmnist-small", 1)}
RUNS = [("split", "naive"), ("split", "replay"), ("online", "naive"), ("online", "replay")]
AROUND = {
    "ewc": "its Fisher information is counted in full",
    "gdumb": "it trains a network anew at the end of each experience, and that is counted in full",
}


def learner(name: str, stream: Scenario) -> Learner:
    """Return a fresh learner of an MLP."""
    spec = compose.model_spec("mlp", tuple(stream[0].train.x.shape[1:]), name)
    return Learner(build(spec), compose.strategy(name), optim=Optim(lr=0.05), batch_size=BATCH, setting=stream)


def share(name: str, stream: Scenario, epochs: int) -> float:
    """Return the seconds that counting added to one run, over all others of it."""
    made = learner(name, stream)
    meter = Meter(made)
    counted, after, begun = [], [0.0], [0.0]
    enter, leave, stepped = meter._enter, meter._leave, meter._stepped

    def timed_enter() -> None:
        begun[0] = time.process_time()
        enter()

    def timed_leave() -> int | None:
        if meter._mode is not None:
            counted.append(time.process_time() - begun[0])
        return leave()

    def timed_stepped() -> None:
        before = time.process_time()
        stepped()
        after[0] += time.process_time() - before

    meter._enter, meter._leave, meter._stepped = timed_enter, timed_leave, timed_stepped
    gc.collect()
    total = 0.0
    for experience in stream:
        _ = experience.train  # cut now: that is no part of a step
        total += seconds(lambda e=experience: meter.fit(e, epochs))
    plain = (total - sum(counted) - after[0]) / (made.counters["steps"] - len(counted))
    added = sum(counted) - len(counted) * plain + after[0]
    return added / (total - added)


def whole(name: str, stream: Scenario) -> float:
    """Return the CPU seconds of a run with a meter over those of one without; experience by experience, in turns."""
    plain, made = learner(name, stream), learner(name, stream)
    meter, spent = Meter(made), [0.0, 0.0]
    for turn, experience in enumerate(stream):
        runs = [(0, lambda e=experience: plain.fit(e)), (1, lambda e=experience: meter.fit(e, 1))]
        for which, run in runs if turn % 2 else runs[::-1]:
            spent[which] += seconds(run)
    return spent[1] / spent[0]


def rows() -> Iterator[dict[str, Any]]:
    """Yield one row per strategy and kind of stream."""
    for kind, name in RUNS:
        id_, epochs = STREAMS[kind]
        found = statistics.median(share(name, scenario(id_), epochs) for _ in range(TURNS))
        yield figure(f"meter_{kind}_{name}_added_share", found, "share", "<=", 0.03)
    for name, why in AROUND.items():
        row = figure(f"meter_{name}_over_uncounted", whole(name, scenario(STREAMS["split"][0])), "ratio")
        yield row | {"exempt": why}
