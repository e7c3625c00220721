"""A run in a file: every option of `lifelong train` by its long name, checked before anything is made."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

from lifelong import files, ranges
from lifelong.errors import ConfigError, DataError
from lifelong.following.settings import Follow
from lifelong.learning.budgets import Budget
from lifelong.learning.rates import Rate
from lifelong.ranges import setting

DRAFT = "https://json-schema.org/draft/2020-12/schema"
TABLES = (
    "scenario_set",
    "follow",
    "set",
    "model_set",
    "rate",
    "budget",
)  # which the command line takes as repeated KEY=VALUE


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Everything that a run of the trainer is told; names are those of the command line, with _ for -.

    Args:
        scenario: Id of the stream: lifelong scenarios.
        scenario_set: Options of the scenario.
        source: Follow a stream instead: a log, a folder of files, or a broker's address.
        strategy: Plug-in, or several chained by +.
        model: Backbone: mlp, conv, identity or lite.
        run: Folder of this run.
        registry: Where versions are published; none if empty.
        epochs: Passes over each experience of a scenario.
        batch_size: New samples per step.
        optimizer: sgd, adam or adamw.
        lr: Learning rate.
        momentum: Of sgd.
        weight_decay: L2 factor.
        rate: How the learning rate changes.
        budget: What one step may cost.
        commit_every: Steps between two commits.
        publish_every: Experiences of a scenario between two candidates.
        held_out: Share of training samples for the gate alone.
        measure: Of compatibility: map or recall_at_1.
        max_accuracy_drop: Share (0..1) of accuracy on all classes that an update may cost.
        max_forgetting: The same, on the live version's classes among themselves.
        allow_major: Let a version go live that cannot read older rows: a major release.
        health_file: Says how a followed stream is; in the folder of the run if empty.
        metrics_port: Serve Prometheus metrics of a followed stream there; 0 takes a free port, without it none.
        metrics_host: Address for them.
        device: cpu, cuda, ...
        threads: Of torch; small models are fastest with 1.
        data_root: Folder of data sets; without it, installed and packaged ones.
        seed: Of everything that is drawn.
        follow: How a stream is followed.
        set: Arguments of the strategy; in a chain, a table for each of its parts.
        model_set: Arguments of the backbone.
    """

    scenario: str = "split-fmnist"
    scenario_set: dict[str, Any] = field(default_factory=dict)
    source: str = ""
    strategy: str = "replay"
    model: str = "mlp"
    run: str = ""
    registry: str = ""
    epochs: int = setting(2, minimum=1)
    batch_size: int = setting(32, minimum=1)
    optimizer: str = setting("sgd", enum=("sgd", "adam", "adamw"))
    lr: float = setting(0.05, exclusiveMinimum=0)
    momentum: float = setting(0.0, minimum=0, exclusiveMaximum=1)
    weight_decay: float = setting(0.0, minimum=0)
    rate: Rate = field(default_factory=Rate)
    budget: Budget = field(default_factory=Budget)
    commit_every: int = setting(50, minimum=1)
    publish_every: int = setting(1, minimum=1)
    held_out: float = setting(0.1, minimum=0, exclusiveMaximum=1)
    measure: str = setting("map", enum=("map", "recall_at_1"))
    max_accuracy_drop: float = setting(0.02, minimum=0, maximum=1)
    max_forgetting: float = setting(0.05, minimum=0, maximum=1)
    allow_major: bool = False
    health_file: str = ""
    metrics_port: int | None = setting(None, minimum=0, maximum=65535)
    metrics_host: str = "127.0.0.1"
    device: str = "cpu"
    threads: int = setting(1, minimum=1)
    data_root: str = ""
    seed: int = 0
    follow: Follow = field(default_factory=Follow)
    set: dict[str, Any] = field(default_factory=dict)
    model_set: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        ranges.check(self)


def schema() -> dict[str, Any]:
    """Return the JSON schema of a file, as plain values."""
    return {"$schema": DRAFT, "title": "lifelong train", **ranges.schema(Config)}


def read(path: Path) -> dict[str, Any]:
    """Return what a TOML file sets, as plain values by name; all of it is checked.

    Raises:
        NotFound: There is no such file.
        UnknownName: It sets something that does not exist; the message names the nearest.
        ConfigError: It is no TOML, or a value is of another type or out of range.
    """
    try:
        values = tomllib.loads(files.read_file(path).decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is no TOML: {error}") from error
    try:
        ranges.of(Config, values, "setting")
        files.canonical_json(values)  # the free tables: no dates
    except (ConfigError, DataError) as error:
        kind = type(error) if isinstance(error, ConfigError) else ConfigError
        raise kind(f"{path}: {error}") from error
    return values


def options(values: dict[str, Any]) -> dict[str, Any]:
    """Return options by name, `KEY=VALUE` lists for tables, from what `read` gave; an empty text is not set."""
    found = {name: value for name, value in values.items() if name not in TABLES and value != ""}
    return found | {name: pairs(values.get(name, {})) for name in TABLES}


def pairs(table: dict[str, Any], prefix: str = "") -> list[str]:
    """Return a table as `KEY=VALUE`, and tables in it as `NAME.KEY=VALUE`; values are JSON.

    >>> pairs({"replay": {"capacity": 500}, "hidden": [64]})
    ['replay.capacity=500', 'hidden=[64]']
    """
    found = list[str]()
    for key, value in table.items():
        if isinstance(value, dict) and not prefix:
            found += pairs(value, f"{key}.")
        else:
            found.append(f"{prefix}{key}={json.dumps(value)}")
    return found


def joined(given: Sequence[str], typed: Sequence[str]) -> list[str]:
    """Return the `KEY=VALUE` of a file followed by those that were typed, which win."""
    won = {pair.partition("=")[0] for pair in typed}
    return [*(pair for pair in given if pair.partition("=")[0] not in won), *typed]
