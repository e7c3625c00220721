"""One strategy of each kind, small: what the tests of the training loop run on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lifelong import plugins
from lifelong.learning import Chain, Strategy


def find(name: str, **arguments: Any) -> Strategy:
    made: Strategy = plugins.find("strategy", name)(**arguments)
    return made


def strategies(classes: int) -> dict[str, Callable[[], Strategy]]:
    """`classes` is what the simplex has room for."""
    return {
        "naive": lambda: find("naive"),
        "joint": lambda: find("joint"),
        "cumulative": lambda: find("cumulative"),
        "replay": lambda: find("replay", capacity=12),
        "balanced": lambda: find("replay", capacity=12, policy="balanced"),
        "powerlaw": lambda: find("powerlaw", capacity=12),
        "nmc": lambda: find("nmc"),
        "simplex": lambda: find("simplex", classes=classes),
        "chain": lambda: Chain(find("simplex", classes=classes), find("replay", capacity=12)),
    }
