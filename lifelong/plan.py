"""What a run of the trainer is told, and what it has to show."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, final

from lifelong.errors import ConfigError


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How a scenario is run.

    Args:
        epochs: Passes over each experience.
        commit_every: Steps between two commits.
        held_out: Share (0..1) of each experience's training samples that only the gate sees; the test samples are
            for the report alone, nothing is ever decided on them.
        publish_every: Experiences between two candidates (streams of many tiny experiences want more than 1).
        max_accuracy_drop: See `lifelong.release.gate.Gate`.
        max_forgetting: Likewise.
        compatible: Likewise.
        measure: Likewise.
        seed: Of what is held out.
    """

    epochs: int = 1
    commit_every: int = 50
    held_out: float = 0.1
    publish_every: int = 1
    max_accuracy_drop: float = 0.02
    max_forgetting: float = 0.05
    compatible: bool = True
    measure: str = "map"
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.epochs, self.commit_every, self.publish_every) < 1:
            raise ConfigError(
                f"epochs, commit_every and publish_every must be at least 1, got {self.epochs}, "
                f"{self.commit_every} and {self.publish_every}"
            )


@final
@dataclass(slots=True)
class Progress:
    """What a run has to show: rows of the accuracy matrix, and what became of each candidate."""

    matrix: list[list[float]] = field(default_factory=list)
    versions: list[dict[str, Any]] = field(default_factory=list)
    parent: int | None = None  # the version that was live when the last experience had been learned
