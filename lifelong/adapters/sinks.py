"""A finished grid in the tool that somebody already looks at: TensorBoard, Weights & Biases, MLflow.

Each through its own library, each cell as a run of its own: what decides it as parameters, its metrics at the end, and
the curve of the stream (accuracy on what was seen so far after each experience, or over windows of a stream without).
Nothing leaves the machine: Weights & Biases writes in its offline mode, MLflow into a folder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from lifelong.bench.job import safe
from lifelong.bench.store import Store
from lifelong.errors import ConfigError, Unavailable, UnknownName


class Run(NamedTuple):
    """One cell, as every one of the tools wants it.

    Args:
        name: `scenario/strategy/seed`.
        parameters: What decides it, as text.
        metrics: At the end, by name.
        curve: (step, values by name) in order.
    """

    name: str
    parameters: Mapping[str, str]
    metrics: Mapping[str, float]
    curve: list[tuple[int, dict[str, float]]]


def send(store: Store, where: str) -> int:
    """Write every finished cell of `store` to `where`, `KIND:FOLDER`; return how many there were.

    Args:
        store: Of a grid.
        where: KIND is a key of `SINKS`; what its folder holds of other grids stays.

    Raises:
        ConfigError: It is not of this form.
        UnknownName: There is no such sink.
        Unavailable: Its library is not installed.
    """
    kind, folder = parted(where)
    runs = list(_runs(store))
    path = Path(folder).absolute()
    path.mkdir(parents=True, exist_ok=True)
    try:
        SINKS[kind](runs, path)
    except ImportError as error:
        raise Unavailable(f"the sink {kind} needs {LIBRARY[kind]}: pip install {LIBRARY[kind]} ({error})") from error
    return len(runs)


def parted(where: str) -> tuple[str, str]:
    """Return kind and folder of `where`, or raise what `send` would raise over it."""
    kind, colon, folder = where.partition(":")
    if not colon or not folder:
        raise ConfigError(f"write a sink as KIND:FOLDER with KIND one of {', '.join(SINKS)}, got {where!r}")
    if kind not in SINKS:
        raise UnknownName.among("sink", kind, SINKS)
    return kind, folder


def _runs(store: Store) -> Iterator[Run]:
    for job in store.jobs():
        result = store.result(job)
        if result is None:
            continue
        told = {key: str(value) for key, value in job.plain().items() if value not in ("", None, [], {})}
        told |= {"digest": job.digest, "data_sha256": str(result["signature"]["data"].get("sha256", ""))}
        found = {**result["metrics"], "flops": float(result["flops"])}
        cost = {name: value for name, value in store.cost(job).items() if isinstance(value, int | float)}
        yield Run(job.key, told, {**found, **cost}, _curve(result))


def _curve(result: Mapping[str, Any]) -> list[tuple[int, dict[str, float]]]:
    if "matrix" not in result:
        names = ("prequential", "majority", "no_change")
        return [(int(n), dict(zip(names, values, strict=True))) for n, *values in result["online"]["curve"]]
    rows = enumerate(zip(result["matrix"], result["flops_after"], strict=True))
    return [(i, {"acc_seen": sum(row[: i + 1]) / (i + 1), "flops_so_far": float(flops)}) for i, (row, flops) in rows]


def _tensorboard(runs: list[Run], folder: Path) -> None:
    from torch.utils.tensorboard import SummaryWriter

    for run in runs:
        with SummaryWriter(folder / run.name) as writer:
            for step, values in run.curve:
                for name, value in values.items():
                    writer.add_scalar(f"stream/{name}", value, step)
            for name, value in run.metrics.items():
                writer.add_scalar(f"end/{name}", value, 0)
            writer.add_text("job", "\n".join(f"    {key}: {value}" for key, value in run.parameters.items()))


def _wandb(runs: list[Run], folder: Path) -> None:
    import wandb

    for run in runs:
        with wandb.init(
            project="lifelong", name=run.name, dir=folder, mode="offline", config=dict(run.parameters),
            settings=wandb.Settings(silent=True, console="off", x_disable_stats=True),
        ) as live:  # fmt: skip
            for step, values in run.curve:
                live.log(values, step=step)
            live.summary.update(dict(run.metrics))


def _mlflow(runs: list[Run], folder: Path) -> None:
    from mlflow import environment_variables
    from mlflow.tracking import MlflowClient

    if allowed := getattr(environment_variables, "MLFLOW_ALLOW_FILE_STORE", None):  # since 3.10 it asks for consent
        allowed.set(True)
    client = MlflowClient(tracking_uri=folder.as_uri())
    for run in runs:
        title = run.name.rpartition("/")[0].replace("/", " ")
        found = client.get_experiment_by_name(title)
        experiment = found.experiment_id if found else client.create_experiment(title)
        made = client.create_run(experiment, run_name=run.name).info.run_id
        for key, text in run.parameters.items():
            client.log_param(made, safe(key), text[:500])
        for name, value in run.metrics.items():
            client.log_metric(made, name, value)
        for step, values in run.curve:
            for name, value in values.items():
                client.log_metric(made, f"stream_{name}", value, step=step)
        client.set_terminated(made)


SINKS: Mapping[str, Callable[[list[Run], Path], None]] = {
    "tensorboard": _tensorboard, "wandb": _wandb, "mlflow": _mlflow,
}  # fmt: skip
LIBRARY = {"tensorboard": "tensorboard", "wandb": "wandb", "mlflow": "mlflow-skinny"}
