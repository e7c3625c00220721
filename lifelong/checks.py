"""The laws that every strategy obeys; `lifelong check NAME` runs them on any installed plug-in.

Each law takes a maker of fresh strategies and raises `AssertionError` with a sentence if it is broken. A strategy may
declare in `exempt` which law cannot hold for it, and why; the reason is shown.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from lifelong import plugins
from lifelong.errors import LifelongError
from lifelong.laws import LAWS
from lifelong.trial import Make, Toy, digest, learner

__all__ = ["LAWS", "Make", "Toy", "Verdict", "check", "digest", "learner"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of one law: `holds`, `broken` or `exempt`, and why."""

    law: str
    outcome: str
    why: str = ""


def check(name_or_make: str | Make) -> list[Verdict]:
    """Return the verdict of every law on a strategy, by plug-in name or by its class."""
    make: Make = plugins.find("strategy", name_or_make) if isinstance(name_or_make, str) else name_or_make
    exempt: Mapping[str, str] = getattr(make, "exempt", {})
    return [_judged(law, test, make, exempt) for law, test in LAWS.items()]


def _judged(law: str, test: Callable[[Make], str | None], make: Make, exempt: Mapping[str, str]) -> Verdict:
    if law in exempt:
        return Verdict(law, "exempt", exempt[law])
    try:
        reason = test(make)
    except AssertionError as error:
        return Verdict(law, "broken", str(error))
    except (LifelongError, RuntimeError, TypeError, ValueError, AttributeError, KeyError, IndexError) as error:
        return Verdict(law, "broken", f"{type(error).__name__}: {error}")
    return Verdict(law, "exempt", reason) if reason else Verdict(law, "holds")
