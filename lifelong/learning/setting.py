"""What a learner is told of the stream that it is for."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol


class Setting(Protocol):
    """What a scenario says about itself, so that a strategy that needs more is refused early."""

    @property
    def kind(self) -> str:
        """One of `class-il`, `domain-il`, `task-il`, `data-il`, `online`."""

    @property
    def provides(self) -> Collection[str]:
        """Facts among `boundaries`, `task_id`, `known_classes`, `epochs`."""
