"""One cell of a grid: a job is run, and everything that it measured is returned as plain values."""

from __future__ import annotations

import importlib.metadata
import inspect
import math
import platform
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy
import torch

from lifelong import compose, plugins
from lifelong.bench import ending, metrics, peak, prequential
from lifelong.bench.job import Job, revision
from lifelong.bench.meter import Meter
from lifelong.errors import ConfigError, DataError
from lifelong.labels import LabelMap
from lifelong.learning import Learner, Optim
from lifelong.learning.checkpoint import pack
from lifelong.models import Classifier, build, outputs
from lifelong.streams.scenario import Scenario
from lifelong.streams.scenarios import scenario as make_scenario
from lifelong.streams.validation import validation
from lifelong.types import Batch, Experience


class Outcome(NamedTuple):
    """What a run gives: `result` is the same wherever and whenever it is run, `cost` is not."""

    result: dict[str, Any]
    cost: dict[str, Any]


ROOM = 16_384  # bytes that a strategy keeps beside its samples: generators, counts


class _Spent(Exception):
    """A budget, which is named, is used up."""


def run(job: Job, root: Path | None = None) -> Outcome:
    """Run `job` in this process, on one thread, and return what it measured.

    Args:
        job: What to run.
        root: Data root, see `lifelong.data.load`.

    Raises:
        ConfigError: The strategy is not meant for this scenario, or an argument is refused.
    """
    torch.set_num_threads(1)
    library, colon, _ = job.strategy.partition(":")
    if colon:
        found: Outcome = plugins.find("runner", library)(job, root)
        return found
    stream = stream_of(job, root)
    learner = _learner(job, stream)
    return outcome(job, stream, lambda: (_matrix if "boundaries" in stream.provides else _online)(job, learner, stream))


def outcome(job: Job, stream: Scenario, measure: Callable[[], dict[str, Any]]) -> Outcome:
    """Call `measure`, and return what it gives with what `job` is and what it cost."""
    peak.begin()
    wall, cpu = time.perf_counter(), time.process_time()
    found = measure()
    cost = {
        "seconds": time.perf_counter() - wall,
        "cpu_seconds": time.process_time() - cpu,
        "peak_bytes": peak.peak_bytes(),
        "lifelong": importlib.metadata.version("lifelong"),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": numpy.__version__,
        "machine": platform.machine(),
    }
    named = {
        "job": job.plain(),
        "digest": job.digest,
        "revision": revision(job),
        "signature": stream.signature,
    }
    return Outcome({**named, **found}, cost)


def stream_of(job: Job, root: Path | None) -> Scenario:
    """Return the part of the scenario that `job` is measured on."""
    stream = make_scenario(job.scenario, root, job.seed, **job.options)
    if job.part == "test":
        return stream
    held_out = validation(stream, seed=job.seed)
    if job.part == "first-task":
        return replace(held_out, experiences=held_out.experiences[:1])
    return held_out


def _learner(job: Job, stream: Scenario) -> Learner:
    made = compose.strategy(job.strategy, _settings(job, stream), seed=job.seed)
    made.needs.refuse_unless(stream.kind, stream.provides, job.strategy)
    optim = Optim(name=job.optimizer, lr=job.lr, momentum=job.momentum)
    model = build(_spec(job, stream), seed=job.seed)
    return Learner(model, made, optim=optim, batch_size=job.batch_size, seed=job.seed, setting=stream)


def _settings(job: Job, stream: Scenario) -> tuple[str, ...]:
    """Return the job's settings, with capacities that fit its budget of memory where they say none."""
    names = job.strategy.split("+")
    keep = [name for name in names if "capacity" in inspect.signature(plugins.find("strategy", name)).parameters]
    if job.memory is None or not keep or any("capacity=" in setting for setting in job.settings):
        return job.settings
    sample = 4 * math.prod(shape_of(stream)) + 4 * len(stream.classes) + 24  # values, logits, label, id and task
    each = max(1, (job.memory // len(keep) - ROOM) // sample)
    return job.settings + tuple(f"{name}.capacity={each}" for name in keep)


def shape_of(stream: Scenario) -> tuple[int, ...]:
    """Return the shape of one sample of `stream`, whose experiences must be batches."""
    first = stream[0].train
    if not isinstance(first, Batch):
        raise ConfigError(f"{stream.name} does not come in batches; cut it with lifelong.streams")
    return tuple(first.x.shape[1:])


def _spec(job: Job, stream: Scenario) -> dict[str, Any]:
    shape = shape_of(stream)
    if job.model != "auto":
        return compose.model_spec(job.model, shape, job.strategy, job.model_settings)
    if _trains_backbone(job, shape):
        return compose.model_spec("mlp", shape, job.strategy, job.model_settings)
    return compose.model_spec("identity", shape, job.strategy)


def _trains_backbone(job: Job, shape: tuple[int, ...]) -> bool:
    """Whether the strategy leaves any weight of an MLP to be trained: on random features none would be of use."""
    probe = build(compose.model_spec("mlp", shape, job.strategy), seed=0)
    (strategy := compose.strategy(job.strategy, job.settings)).adapt(probe)
    late = any(part.trains_late for part in strategy.parts)
    return late or any(p.requires_grad for p in probe.backbone.parameters())


def _matrix(job: Job, learner: Learner, stream: Scenario) -> dict[str, Any]:
    base = untrained(build(_spec(job, stream), seed=job.seed), stream)
    meter, rows, flops, spent = Meter(learner), [], [], ""
    for experience in stream:
        spent = spent or _fit(job, meter, learner, experience)
        rows.append([learner.score(e) for e in stream])
        flops.append(meter.total)
    return {
        "matrix": rows,
        "base": base,
        "metrics": metrics.summary(torch.tensor(rows, dtype=torch.float64), base),
        **ending.known(learner, stream),
        **_spending(learner, meter, spent),
        "flops_after": flops,
    }


def untrained(model: Classifier, stream: Scenario) -> list[float]:
    """Return what a fresh network with all columns has right of each experience: what transfer is compared with.

    With task ids it chooses among the classes of the experience, as what was trained does.

    Raises:
        DataError: An experience has no test sample: its accuracies would all be 0, and so part of every mean.
    """
    labels, found = LabelMap(stream.classes), []
    model.grow(len(labels))
    for experience in stream:
        right = total = 0
        own = labels.encode(experience.classes if stream.kind == "task-il" else stream.classes)
        for batch in experience.batches(1024, None, labels, test=True):
            said = own[outputs(model, batch.x).logits[:, own].argmax(1)]
            right, total = right + int((said == batch.y).sum()), total + len(batch)
        if not total:
            raise DataError(f"{experience.name!r} has no test sample of {list(experience.classes)}; leave them out")
        found.append(right / total)
    return found


def _online(job: Job, learner: Learner, stream: Scenario) -> dict[str, Any]:
    meter, spent = Meter(learner), ""

    def fit(experience: Experience) -> None:
        nonlocal spent
        spent = spent or _fit(job, meter, learner, experience)

    found = prequential.run(learner, stream, fit)
    shares = {name: found.pop(name) for name in ("prequential", "majority", "no_change")}
    return {"metrics": shares, "online": found, **_spending(learner, meter, spent)}


def _fit(job: Job, meter: Meter, learner: Learner, experience: Experience) -> str:
    """Learn, and return the name of the budget that is used up, nothing where none is."""

    def within() -> None:
        if job.flops is not None and meter.total >= job.flops:
            raise _Spent("flops")
        if job.rehearsals is not None and learner.counters["rehearsed"] >= job.rehearsals:
            raise _Spent("rehearsals")

    try:
        meter.fit(experience, job.epochs, within)
    except _Spent as spent:
        return str(spent)
    looked = (
        experience.index % 100 == 0 or experience.index < 100
    )  # a long stream of small experiences is not weighed after each
    return "memory" if job.memory is not None and looked and _kept(learner) > job.memory else ""


def _kept(learner: Learner) -> int:
    """Return the bytes that the strategy keeps."""
    return sum(t.nbytes for t in pack(learner.strategy.state())[0].values())


def _spending(learner: Learner, meter: Meter, spent: str) -> dict[str, Any]:
    return {
        "counters": dict(learner.counters),
        "flops": meter.total,
        "flops_around": meter.around,
        "budget_spent": bool(spent),
        **({"stopped_by": spent} if spent else {}),
        "bytes": {"model": sum(t.nbytes for t in learner.model.state_dict().values()), "strategy": _kept(learner)},
    }
