"""What the gate found: named checks, in order, as plain values."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, final

from lifelong.errors import ArtifactError

SKIPPED = "skipped: "
LEVELS = ("patch", "minor", "major")


@final
@dataclass(frozen=True)
class Check:
    """One question the gate asked.

    Args:
        name: `finite`, `probe`, `labels`, `input`, `accuracy` or `compatibility` (one for each space).
        passed: The answer. A check that could not be computed has not passed.
        detail: What was found, for people; starts with `skipped: ` where it could not be computed.
        value: The number that was measured, if there is one.
        limit: What it was compared with.
    """

    name: str
    passed: bool
    detail: str
    value: float | None = None
    limit: float | None = None

    def __post_init__(self) -> None:
        for name in ("value", "limit"):  # JSON knows no NaN
            number = getattr(self, name)
            if number is not None and not math.isfinite(number):
                object.__setattr__(self, name, None)


@final
@dataclass(frozen=True)
class Report:
    """All checks of one candidate, in the order in which they were made.

    Args:
        checks: The questions.
        level: What it is beside what was served: `patch` (same space, same labels), `minor` (reads every space that was
            read), `major` (does not: old rows cannot be read); None where that could not be said.
        health: Figures of its embedding on held-out rows, see `lifelong.release.health`.
    """

    checks: tuple[Check, ...]
    level: str | None = None
    health: Mapping[str, float] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether every check passed; a report without checks has not."""
        return bool(self.checks) and all(check.passed for check in self.checks)

    @property
    def reasons(self) -> list[str]:
        """Details of the checks that failed; what was skipped because of them is left out."""
        failed = [check.detail for check in self.checks if not check.passed]
        return [detail for detail in failed if not detail.startswith(SKIPPED)] or failed

    @property
    def gates(self) -> list[str]:
        """Names of the checks that failed, each once; what was skipped because of them is left out."""
        failed = [check for check in self.checks if not check.passed]
        asked = [check.name for check in failed if not check.detail.startswith(SKIPPED)]
        return list(dict.fromkeys(asked or [check.name for check in failed]))

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        checks = [asdict(check) for check in self.checks]
        return {"passed": self.passed, "checks": checks, "level": self.level, "health": dict(self.health)}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Report:
        """Return the report that `as_dict` wrote.

        Raises:
            ArtifactError: It did not write this.
        """
        try:
            level, health = value.get("level"), value.get("health", {})  # reports were written without them once
            if level not in (None, *LEVELS) or not all(isinstance(n, int | float) for n in health.values()):
                raise ValueError(f"its level is {level!r} and its health {health}")
            report = cls(tuple(_check(item) for item in value["checks"]), level, dict(health))
            if value["passed"] is not report.passed:
                raise ValueError("its verdict contradicts its checks")
        except (TypeError, KeyError, ValueError, AttributeError) as error:
            raise ArtifactError(f"not a gate's report: {error}; judge the candidate again") from error
        return report


def _check(item: Mapping[str, Any]) -> Check:
    check = Check(**item)
    numbers = (check.value, check.limit)
    if (
        not isinstance(check.name, str)
        or not isinstance(check.detail, str)
        or not isinstance(check.passed, bool)
        or any(not isinstance(n, int | float | None) or isinstance(n, bool) for n in numbers)
    ):
        raise TypeError(f"a check has fields of a wrong type: {sorted(item)}")
    return check
