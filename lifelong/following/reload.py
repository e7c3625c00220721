"""Settings that may change while a run goes on: what they touch is not part of what was learned so far."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

from lifelong.errors import ConfigError
from lifelong.following.settings import Follow

if TYPE_CHECKING:
    from lifelong.following.intake import Intake
    from lifelong.following.trainee import Trainee

MAY_CHANGE = (
    "commit_seconds", "dead_letters", "keep", "max_dead", "publish_improvement", "publish_samples", "publish_seconds",
)  # fmt: skip


def changes(now: Follow, wanted: Follow) -> dict[str, Any]:
    """Return what is to change, by name.

    Raises:
        ConfigError: Something may not change in the middle of a run; then nothing changes.
    """
    found = {one.name: getattr(wanted, one.name) for one in fields(Follow)}
    found = {name: value for name, value in found.items() if value != getattr(now, name)}
    if fixed := sorted(set(found) - set(MAY_CHANGE)):
        raise ConfigError(
            f"{', '.join(fixed)} may not change while it runs, so nothing was changed; "
            f"these may: {', '.join(MAY_CHANGE)}"
        )
    return found


def apply(settings: Follow, trainee: Trainee, intake: Intake) -> None:
    """Have every part go by `settings` from now on."""
    trainee.settings = trainee.publisher.settings = intake.settings = settings
    intake.dead.capacity = settings.dead_letters
