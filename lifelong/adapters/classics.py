"""Avalanche's benchmarks by name, and our metrics of what it evaluated."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lifelong.adapters.avalanche import from_benchmark
from lifelong.adapters.counting import apart
from lifelong.bench.matrix import AccuracyMatrix
from lifelong.datauser import find
from lifelong.errors import DataError, Unavailable, UnknownName
from lifelong.streams.scenario import Scenario

try:
    from avalanche.benchmarks import classic
except ImportError as error:
    raise Unavailable(f"avalanche cannot be imported ({error}); pip install 'lifelong[bench]'") from error

CLASSICS = {
    "SplitMNIST": "MNIST", "PermutedMNIST": "MNIST", "RotatedMNIST": "MNIST", "SplitFMNIST": "FashionMNIST",
    "SplitCIFAR10": "CIFAR10", "SplitCIFAR100": "CIFAR100",
}  # fmt: skip


def benchmark(name: str, *, root: Path | str | None = None, seed: int = 0, **options: Any) -> Scenario:  # noqa: ANN401
    """Return one of Avalanche's classic benchmarks as a scenario; what `avalanche:NAME` stands for.

    Args:
        name: A key of `CLASSICS`.
        root: Data root with torchvision's own layout; nothing is fetched.
        seed: Of the benchmark.
        options: Of its maker, e.g. `n_experiences=5` (the default).

    Raises:
        UnknownName: No such benchmark, or it has no such option.
        NotFound: Its data are not there.
    """
    if name not in CLASSICS:
        raise UnknownName.among("benchmark of avalanche", name, CLASSICS)
    make = getattr(classic, name)
    takes = set(inspect.signature(make).parameters) - {"seed", "dataset_root"}
    for option in options:
        if option not in takes:
            raise UnknownName.among(f"option of avalanche:{name}", option, takes)
    data = find(f"torchvision.{CLASSICS[name]}", root=root)
    with apart(seed):
        made = make(**{"n_experiences": 5, **options}, seed=seed, dataset_root=root)
        kind = "task-il" if options.get("return_task_id") else "class-il" if name.startswith("Split") else "domain-il"
        found = from_benchmark(made, name=f"avalanche:{name}", kind=kind, seed=seed, in_memory=True)
    told = {"name": data.name, "sha256": data.sha256}
    return replace(found, data=told, options={**found.options, **options})


def matrix_of(evaluations: Sequence[Mapping[str, Any]], stream: str = "test_stream") -> AccuracyMatrix:
    """Return the accuracy matrix of what Avalanche's `eval` returned after each experience: our metrics of its run.

    Args:
        evaluations: One after each experience, with accuracies by experience (`accuracy_metrics(experience=True)`).
        stream: What was evaluated.

    Raises:
        DataError: There are no such accuracies in one of them.
    """
    rows = []
    for found in evaluations:
        keys = sorted(key for key in found if key.startswith(f"Top1_Acc_Exp/eval_phase/{stream}/"))
        if not keys:
            raise DataError(
                f"an evaluation has no Top1_Acc_Exp/eval_phase/{stream}; use accuracy_metrics(experience=True)"
            )
        rows.append([float(found[key]) for key in sorted(keys, key=lambda key: int(key.rpartition("Exp")[2]))])
    matrix = AccuracyMatrix(len(rows[0]) if rows else None)
    for accuracies in rows:
        matrix.add(accuracies)
    return matrix
