"""Avalanche's own strategies as rows of our table: `lifelong bench run --strategies avalanche:EWC,ewc`.

A row gets the samples, the experiences, the first weights, the optimizer and the passes that ours get, and its answers
are measured by us; what Avalanche prints of the same run stands beside it (`avalanche` in the result).
Differs: the head has all its columns from the start (ours grow), and Avalanche draws from global random state, which
is set before and put back after. Methods that need arguments of their own making (networks that grow) are refused.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lifelong import compose
from lifelong.adapters.counting import Counter, apart, held
from lifelong.bench import cell, metrics
from lifelong.bench.job import Job
from lifelong.bench.matrix import AccuracyMatrix
from lifelong.errors import ConfigError, DataError, Unavailable, UnknownName
from lifelong.labels import LabelMap
from lifelong.learning import Optim
from lifelong.models import build
from lifelong.models.plain import Features, Logits
from lifelong.streams.scenario import Scenario
from lifelong.types import Batch

try:
    from avalanche.benchmarks import tensors_benchmark
    from avalanche.evaluation import metrics as theirs
    from avalanche.training import supervised
    from avalanche.training.plugins import EvaluationPlugin
except ImportError as error:
    raise Unavailable(f"avalanche cannot be imported ({error}); pip install 'lifelong[bench]'") from error

# Arguments that Avalanche has no default for, or another than ours has: as ours, in Avalanche's own terms and units.
METHODS: Mapping[str, Mapping[str, Any]] = {
    "Naive": {}, "Cumulative": {}, "FromScratchTraining": {},
    "Replay": {"mem_size": 1000},
    "EWC": {"ewc_lambda": 50.0, "mode": "online", "decay_factor": 1.0},  # its penalty has no 1/2
    "SynapticIntelligence": {"si_lambda": 2.0, "eps": 0.1},
    "MAS": {"lambda_reg": 0.02},
    "LwF": {"alpha": 4.0, "temperature": 2.0},  # ours is multiplied by the squared temperature
    "GEM": {"patterns_per_exp": 256},
    "AGEM": {"patterns_per_exp": 200, "sample_size": 256},
    "GDumb": {"mem_size": 1000},
    "DER": {"mem_size": 1000}, "ER_ACE": {"mem_size": 1000}, "MIR": {"mem_size": 1000, "subsample": 50},
    "StreamingLDA": {"shrinkage_param": 1e-2},
}  # fmt: skip
# Why a row may not agree with ours; measured in benchmarks/studies/baselines.py, told in docs/log.md.
NOTES: Mapping[str, str] = {
    "Replay": "takes samples into its memory when an experience has ended, ours at every step, which costs ours 2 to "
    "6 points where boundaries are known",
    "EWC": "squares the mean gradient of a batch, so its Fisher information shrinks with the batch size; ours takes "
    "single samples",
    "SynapticIntelligence": "equals Naive bit for bit on a CPU: the old weights that it compares with alias the "
    "live ones",
    "MAS": "averages gradients over a batch before it takes their size, and importances over experiences; ours takes "
    "single samples and adds up",
    "AGEM": "keeps a part of fixed size for each experience; ours shares its memory among those there are",
    "GEM": "needs quadprog, which Avalanche does not install",
    "GDumb": "trains as many passes as an experience has; ours takes 30 with a falling learning rate",
    "DER": "is DER++ (beta .5, compare derpp), keeps the logits of an experience's end; ours renews those it keeps",
    "ER_ACE": "takes half of the sum of both losses, so half a step; the paper and ours take the sum",
    "MIR": "leaves the classes of the experience that has just ended out of what it rehearses",
    "Cumulative": "trains on from the weights it has, as cumulative does; joint begins anew",
}

HEAD = "all columns of the head are there from the start, ours grow: that matters where experiences are short"


def run(job: Job, root: Path | None = None) -> cell.Outcome:
    """Run the strategy of Avalanche that `job` names, `avalanche:NAME`; settings are arguments of its constructor.

    Args:
        job: What to run.
        root: Data root.

    Raises:
        UnknownName: Avalanche has no such strategy, or it no such argument.
        ConfigError: It cannot be run on this stream.
    """
    name = job.strategy.partition(":")[2]
    if name not in METHODS:
        raise UnknownName.among("strategy of avalanche that can be a row", name, METHODS)
    stream = cell.stream_of(job, root)
    if stream.kind in ("online", "task-il"):
        raise ConfigError(f"rows of avalanche are class-il, domain-il or data-il streams, got {stream.kind}")
    if job.rehearsals is not None or job.memory is not None:
        raise ConfigError("rows of avalanche can have a budget of operations only; leave --rehearsals and --memory out")
    with apart(job.seed):
        return cell.outcome(job, stream, lambda: _measure(job, name, stream))


def _measure(job: Job, name: str, stream: Scenario) -> dict[str, Any]:
    labels = LabelMap(stream.classes)
    sides = [[_plain(e, labels, test) for e in stream] for test in (False, True)]
    benchmark = tensors_benchmark(train_tensors=sides[0], test_tensors=sides[1], task_labels=[0] * len(stream))
    counter = Counter(job.flops)
    strategy, answer = _made(job, name, stream, counter)
    base = [_score(answer, x, y) for x, y in sides[1]] if name != "StreamingLDA" else None  # which knows nothing yet
    counter.wrap(strategy)
    matrix, flops, printed, fresh = AccuracyMatrix(len(stream)), [], {}, 0
    passes = 1 if name == "StreamingLDA" else job.epochs
    for experience, (_, y) in zip(benchmark.train_stream, sides[0], strict=True):
        if not counter.spent:
            before = counter.steps
            strategy.train(experience, eval_streams=[])
            some = (counter.steps - before) * job.batch_size if counter.spent else len(y) * passes
            fresh += min(some, len(y) * passes)
        strategy.model.eval()
        matrix.add([_score(answer, x, y) for x, y in sides[1]])
        flops.append(counter.total)
        printed = strategy.eval(benchmark.test_stream)
    weights = sum(t.nbytes for t in strategy.model.state_dict().values())
    return {
        "matrix": matrix.state()["rows"],
        "base": base,
        "metrics": metrics.summary(matrix.learned, base),
        "avalanche": {key: float(value) for key, value in sorted(printed.items()) if isinstance(value, float)},
        "note": f"{NOTES[name]}; {HEAD}" if name in NOTES else HEAD,
        "counters": {"steps": counter.steps, "samples": fresh, "rehearsed": max(0, counter.presented - fresh)},
        "flops": counter.total,
        "flops_around": counter.around,
        "flops_after": flops,
        "budget_spent": counter.spent,
        **({"stopped_by": "flops"} if counter.spent else {}),
        "bytes": {"model": weights, "strategy": held(strategy, sides[0][0][0][:1].nbytes)},
    }


def _plain(experience: Any, labels: LabelMap, test: bool) -> tuple[Tensor, Tensor]:  # noqa: ANN401
    data = experience.test if test else experience.train
    if not isinstance(data, Batch):
        raise DataError(f"experience {experience.name!r} has no batch to {'test' if test else 'train'} on")
    known = experience.encoded(data, labels)
    return known.x, known.y


def _made(job: Job, name: str, stream: Scenario, counter: Counter) -> tuple[Any, Callable[[Tensor], Tensor]]:
    """Return the strategy, and what maps inputs to scores `[N, C]`."""
    bare = job.model == "auto" and name == "StreamingLDA"
    kind_of = "identity" if bare else "mlp" if job.model == "auto" else job.model
    spec = compose.model_spec(kind_of, cell.shape_of(stream), "naive", () if bare else job.model_settings)
    model = build(spec, seed=job.seed)
    model.grow(len(stream.classes))
    kind = getattr(supervised, name)
    own = {**METHODS[name], **compose.parse(job.settings, [job.strategy])[job.strategy]}
    takes = [p for p in inspect.signature(kind).parameters if p not in _COMMON]
    for key in own:
        if key not in takes:
            raise UnknownName.among(f"argument of {job.strategy}", key, takes)
    if "batch_size_mem" in takes:
        own.setdefault("batch_size_mem", job.batch_size)
    shown = [theirs.accuracy_metrics(experience=True, stream=True), theirs.forgetting_metrics(stream=True)]
    common: dict[str, Any] = {
        "criterion": nn.CrossEntropyLoss(), "train_mb_size": job.batch_size, "eval_mb_size": 512, "plugins": [counter],
        "evaluator": EvaluationPlugin(*shown, theirs.bwt_metrics(stream=True), loggers=[]),
    }  # fmt: skip
    if name == "StreamingLDA":
        sizes = {"input_size": model.dim, "num_classes": model.classes}
        made = kind(slda_model=Features(model), **sizes, **common, **own)
        return made, lambda x: made.predict(made.model(x))
    plain = Logits(model)
    optimizer = Optim(name=job.optimizer, lr=job.lr, momentum=job.momentum).make(list(plain.parameters()))
    return kind(model=plain, optimizer=optimizer, train_epochs=job.epochs, **common, **own), plain


_COMMON = {"model", "optimizer", "criterion", "train_mb_size", "train_epochs", "eval_mb_size", "device", "plugins",
           "evaluator", "eval_every", "base_kwargs", "kwargs", "slda_model", "input_size", "num_classes"}  # fmt: skip


@torch.no_grad()
def _score(answer: Callable[[Tensor], Tensor], x: Tensor, y: Tensor) -> float:
    parts = zip(x.split(1024), y.split(1024), strict=True)
    return sum(int((answer(a).argmax(1) == b).sum()) for a, b in parts) / len(y)
