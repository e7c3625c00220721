"""One run of one strategy on one scenario with one seed: everything that decides its result, as plain values."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, final

from lifelong import files
from lifelong.errors import ConfigError

PROTOCOLS = ("conventional", "two-phase", "first-task")
LATER = ("rehearsals", "memory")  # left out where they say nothing: a job is named by the digest of its fields
REVISION = 2  # of what a cell gives: raise it with a change of code that changes results, and cells are run anew
# likewise, of the cells of one strategy alone; 3: products added in place are counted; 4: its draws follow the seed
_DRAW = "agem align cuber der derpp dkvb er er_ace ewc gdumb gem gpm icarl mas mir powerlaw replay trgp"
REVISED = {"slda": 3, "ridge": 3, **dict.fromkeys(_DRAW.split(), 4)}
PARTS = ("test", "validation", "first-task")


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What a cell of a grid computes. Two jobs with equal fields give equal results, bit for bit, on one machine.

    Args:
        scenario: Permanent id.
        strategy: Plug-ins joined by `+`.
        seed: Of the stream, the first weights and every draw.
        options: Of the scenario, over what its id stands for.
        settings: Arguments of the strategy, `key=value` or `name.key=value`.
        model: Backbone; `auto` is an MLP, or the samples themselves where the strategy trains no backbone.
        model_settings: Arguments of the backbone, `key=value`.
        epochs: Passes over each experience.
        batch_size: New samples in a step.
        optimizer: `sgd`, `adam` or `adamw`.
        lr: Learning rate.
        momentum: Of SGD.
        protocol: A member of `PROTOCOLS`: how the settings came about. It is part of the result.
        tuned: Where the settings come from: data, trials, seeds, score; empty if nothing was tuned.
        part: `test` measures on test samples; `validation` and `first-task` (its first experience alone) never reach
            them: they measure on training samples held out.
        label: What tells it from other jobs of the same scenario, strategy and seed, in its key.
        flops: Budget of floating-point operations for training; it stops when they are used up. None is no limit.
        rehearsals: Budget of remembered samples that are trained on again, likewise.
        memory: Budget of what the strategy keeps beside the model, in bytes: a memory of samples is made as large as
            fits, unless `settings` say how large; what still outgrows it stops learning.

    Raises:
        ConfigError: A value is refused.
    """

    scenario: str
    strategy: str
    seed: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)
    settings: tuple[str, ...] = ()
    model: str = "auto"
    model_settings: tuple[str, ...] = ()
    epochs: int = 1
    batch_size: int = 32
    optimizer: str = "sgd"
    lr: float = 0.05
    momentum: float = 0.0
    protocol: str = "conventional"
    tuned: Mapping[str, Any] = field(default_factory=dict)
    part: str = "test"
    label: str = ""
    flops: float | None = None
    rehearsals: int | None = None
    memory: int | None = None

    def __post_init__(self) -> None:
        if self.protocol not in PROTOCOLS or self.part not in PARTS:
            raise ConfigError(
                f"protocol is one of {', '.join(PROTOCOLS)} and part one of {', '.join(PARTS)}, "
                f"got {self.protocol!r} and {self.part!r}"
            )
        if min(self.epochs, self.batch_size) < 1 or self.seed < 0:
            raise ConfigError(
                f"need epochs >= 1, batch_size >= 1 and seed >= 0, got {self.epochs}, {self.batch_size} and {self.seed}"
            )
        if not (self.lr > 0 and math.isfinite(self.lr)) or not 0 <= self.momentum < 1:
            raise ConfigError(f"need lr > 0 and 0 <= momentum < 1, got lr={self.lr} and momentum={self.momentum}")
        if self.flops is not None and not self.flops > 0:
            raise ConfigError(f"a budget of operations is above 0, got {self.flops}")
        if any(budget is not None and budget < 1 for budget in (self.rehearsals, self.memory)):
            raise ConfigError(f"budgets are at least 1, got rehearsals={self.rehearsals} and memory={self.memory}")
        if self.part == "test" and self.protocol != "conventional" and not self.tuned:
            raise ConfigError(f"{self.protocol} needs settings that were tuned, got none; use lifelong.bench.tuning")

    @property
    def key(self) -> str:
        """Return `scenario/strategy/seed`, or with the label instead of the seed, fit for a path."""
        return f"{safe(self.scenario)}/{safe(self.strategy)}/{safe(self.label) or self.seed}"

    @property
    def digest(self) -> str:
        """Return the SHA-256 of all fields."""
        return files.digest(files.canonical_json(self.plain()))

    def plain(self) -> dict[str, Any]:
        """Return all fields as JSON values; `Job.of` reads them."""
        told = {**asdict(self), "settings": list(self.settings), "model_settings": list(self.model_settings)}
        return {key: value for key, value in told.items() if key not in LATER or value is not None}

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> Job:
        """Return the job that `plain()` was called on.

        Raises:
            ConfigError: A field is missing or unknown.
        """
        try:
            listed = {key: tuple(plain[key]) for key in ("settings", "model_settings")}
            return cls(**{**plain, **listed})
        except (KeyError, TypeError) as error:
            raise ConfigError(
                f"no job can be read from {sorted(plain)}: {error}; was it written by this version?"
            ) from error


def revision(job: Job) -> int:
    """Return the revision of what `job` gives now; of a strategy of several parts that of the newest."""
    newest = max(REVISED.get(name.strip(), REVISION) for name in job.strategy.split("+"))
    held_out_anew = job.part == "validation" and job.scenario.startswith(("permuted", "rotated"))
    return newest + held_out_anew  # the same samples in all experiences


def safe(name: str) -> str:
    """Return `name` as a file name, with another one for each other name."""
    plain = re.sub(r"[^A-Za-z0-9_.+-]", "_", name)
    return plain if plain == name else f"{plain}-{files.digest(name.encode())[:8]}"
