"""Hyper-parameters found on other data than they are judged on, with as many trials for one strategy as for another.

Source: Cha & Cho 2024, "Hyperparameters in Continual Learning: A Reality Check" (two phases: a search on one data set,
one evaluation on another data set with the same signature of the scenario); arXiv 2404.06466 for tuning on the first
task alone.
Differs: all trials are drawn at once (random search, by Optuna), so that they can be run in any order, on any number of
machines, and be gone on with after a crash, always with the same outcome.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from lifelong import files
from lifelong.bench.job import Job
from lifelong.errors import ConfigError


class Range(NamedTuple):
    """Where a hyper-parameter is looked for, both ends included.

    Args:
        low: Smallest value.
        high: Largest value.
        log: Whether orders of magnitude are equally likely, instead of values.
    """

    low: float
    high: float
    log: bool = True


LR = Range(0.003, 0.3)
# Of strategies whose result hangs on more than the learner's rate. Memory sizes are budgets, not hyper-parameters.
SPACES: Mapping[str, Mapping[str, Range]] = {
    "dkvb": {"lr": Range(0.01, 1.0)},  # these two train at a rate of their own, whatever the learner's is
    "gdumb": {"lr": LR},
    "ewc": {"pull": Range(1.0, 1e4)},
    "si": {"pull": Range(0.01, 100.0)},
    "mas": {"pull": Range(0.01, 100.0)},
    "lwf": {"pull": Range(0.1, 10.0)},
    "der": {"alpha": Range(0.05, 2.0)},
    "derpp": {"alpha": Range(0.05, 2.0), "beta": Range(0.1, 2.0)},
    "powerlaw": {"alpha": Range(0.1, 2.0)},
    "slda": {"shrinkage": Range(1e-4, 0.5)},
    "ridge": {"ridge": Range(1e-2, 1e4)},
    # Avalanche's, in its own terms, as wide as ours: its penalty of EWC has no 1/2, its LwF no squared temperature
    "avalanche:EWC": {"ewc_lambda": Range(0.5, 5e3)},
    "avalanche:SynapticIntelligence": {"si_lambda": Range(0.01, 100.0)},
    "avalanche:MAS": {"lambda_reg": Range(0.01, 100.0)},
    "avalanche:LwF": {"alpha": Range(0.4, 40.0)},
    "avalanche:DER": {"alpha": Range(0.05, 2.0), "beta": Range(0.1, 2.0)},
    "avalanche:StreamingLDA": {"shrinkage_param": Range(1e-4, 0.5)},
}
_CUTS = ("split-{}-seeded", "rotated-{}", "fewshot-{}", "blurry-{}", "lite0-{}", "lite2-{}")
# What a scenario's settings are searched on: another data set, cut the same way.
SIBLINGS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "split-fmnist": ("split-mnist10k", {}),
    "permuted-fmnist": ("permuted-mnist10k", {"experiences": 5}),
    "permuted-fmnist-tasks": ("permuted-mnist10k-tasks", {}),
    "split-fmnist-small": ("split-digits", {}),
    "permuted-fmnist-small": ("permuted-mnist10k", {"experiences": 5}),
    "permuted-fmnist-tasks-small": ("permuted-mnist10k-tasks", {}),
    "split-mnist10k": ("split-fmnist-small", {}),  # the packaged part: as many samples, and nothing to download
    "permuted-mnist10k": ("permuted-fmnist-small", {"experiences": 10}),
    "permuted-mnist10k-tasks": ("permuted-fmnist-tasks-small", {}),
    "split-digits": ("split-fmnist-small", {}),
    "permuted-digits": ("permuted-fmnist-small", {"experiences": 10}),
    "rotated-digits": ("rotated-fmnist-small", {}),
    "online-elec-scaled": ("online-weather-scaled", {}),
    "online-weather-scaled": ("online-elec-scaled", {}),
    **{cut.format("fmnist") + part: (cut.format("mnist10k"), {}) for cut in _CUTS for part in ("", "-small")},
    **{cut.format("mnist10k"): (cut.format("fmnist") + "-small", {}) for cut in _CUTS},
}


def sibling(scenario: str) -> tuple[str, dict[str, Any]]:
    """Return the scenario, and its options, that settings for `scenario` are searched on.

    Raises:
        ConfigError: None is known.
    """
    if scenario not in SIBLINGS:
        raise ConfigError(
            f"no scenario is known to search settings for {scenario} on; name one with --tune-on, or choose --protocol "
            "first-task or conventional"
        )
    name, options = SIBLINGS[scenario]
    return name, dict(options)


def trials(job: Job, count: int, *, on: tuple[str, Mapping[str, Any]] | None, seed: int = 1000) -> list[Job]:
    """Return the jobs that try `count` settings for `job`; they never see its seed or its test samples.

    Args:
        job: What is tuned for.
        count: Trials, the same for every strategy.
        on: Scenario and options to search on (two phases); None searches on the first experience of the job's own.
        seed: Of the search, and of all runs of it: evaluation takes small ones.
    """
    if count < 1:
        raise ConfigError(f"a search takes at least 1 trial, got {count}")
    scenario, options = on or (job.scenario, job.options)
    cut = f"-{files.digest(files.canonical_json(dict(options)))[:8]}" if options else ""
    made = []
    space = _space(job.strategy)
    alone = f"{job.strategy}."  # with one strategy, its name before an argument says nothing more
    fixed = {setting.partition("=")[0].removeprefix(alone) for setting in job.settings}
    space = {name: r for name, r in space.items() if name == "lr" or name.removeprefix(alone) not in fixed}
    for number, values in enumerate(_draws(space, count, seed)):
        lr = values.pop("lr")
        settings = tuple(f"{name}={value:.6g}" for name, value in values.items())
        made.append(
            replace(
                job,
                scenario=scenario,
                options=dict(options),
                settings=job.settings + settings,
                lr=lr,
                seed=seed,
                label=f"trial-{number}{cut}",
                part="validation" if on else "first-task",
                protocol="conventional",
                tuned={},
            )
        )
    return made


def settle(job: Job, tried: Sequence[tuple[Job, Mapping[str, Any]]], protocol: str) -> Job:
    """Return `job` with the settings of the trial that ended best, and with the record of where they come from.

    Args:
        job: What was tuned for.
        tried: Trials and their results; ties go to the earlier.
        protocol: `two-phase` or `first-task`.

    Raises:
        ConfigError: No trial gave a result.
    """
    if not tried:
        raise ConfigError(f"no trial of {job.strategy} on {job.scenario} gave a result; see the failed folder")
    scores = [score(result) for _, result in tried]
    best = max(range(len(tried)), key=lambda i: (scores[i], -i))
    found = tried[best][0]
    record = {
        "scenario": found.scenario,
        "part": found.part,
        "data": dict(tried[best][1]["signature"]["data"]),
        "trials": len(tried),
        "score": scores[best],
        "median_score": statistics.median(scores),
        "flops": sum(result["flops"] for _, result in tried),
        "sha256": files.digest(files.canonical_json({"lr": found.lr, "settings": list(found.settings)})),
    }
    return replace(job, lr=found.lr, settings=found.settings, protocol=protocol, tuned=record)


def score(result: Mapping[str, Any]) -> float:
    """Return what a search maximises: final accuracy, or prequential accuracy of a stream without boundaries."""
    found = result["metrics"]
    return float(found["acc_final"] if "acc_final" in found else found["prequential"])


def _space(strategy: str) -> dict[str, Range]:
    """Return what is searched; a strategy's own arguments by name, with the strategy's where it is needed to tell."""
    names = strategy.split("+")
    own = {(n, key): r for n in names for key, r in SPACES.get(n, {}).items()}
    return {"lr": LR, **{f"{n}.{key}" if names[1:] or key == "lr" else key: r for (n, key), r in own.items()}}


def _draws(space: Mapping[str, Range], count: int, seed: int) -> list[dict[str, float]]:
    """Return `count` points of `space`, the same for the same seed."""
    try:
        import optuna
    except ImportError as error:
        raise ConfigError("a search needs Optuna: pip install 'lifelong[bench]'") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed), direction="maximize")
    spread: dict[str, Any] = {
        n: optuna.distributions.FloatDistribution(r.low, r.high, log=r.log) for n, r in space.items()
    }
    points = []
    for _ in range(count):
        trial = study.ask(spread)
        points.append({name: float(f"{value:.4g}") for name, value in trial.params.items()})
        study.tell(trial, 0.0)
    return points
