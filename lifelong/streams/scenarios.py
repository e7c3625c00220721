"""The scenarios: the ways to cut data into a stream, and how one is made by its name.

Each draws from a generator of its own: the same seed gives the same stream, and global random state stays untouched.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from lifelong import plugins, ranges
from lifelong.datauser import find
from lifelong.errors import ConfigError, UnknownName
from lifelong.streams.classes import class_incremental, few_shot, recurring, task_incremental
from lifelong.streams.domains import domains, permuted, rotated
from lifelong.streams.overlaps import overlapping
from lifelong.streams.parts import from_data
from lifelong.streams.pieces import blurry, data_incremental, online, periods
from lifelong.streams.recipes import KINDS, SCENARIOS, Recipe
from lifelong.streams.scenario import Scenario
from lifelong.streams.validation import validation

__all__ = [
    "KINDS", "SCENARIOS", "Recipe", "Scenario", "blurry", "class_incremental", "data_incremental", "domains",
    "few_shot", "from_data", "known", "online", "overlapping", "periods", "permuted", "recurring", "rotated",
    "scenario", "task_incremental", "validation",
]  # fmt: skip


def scenario(name: str, root: Path | str | None = None, seed: int = 0, **options: Any) -> Scenario:  # noqa: ANN401
    """Return the scenario called `name`.

    Where only the packaged part of Fashion-MNIST is there, the result is named `...-small`, for it is another stream.

    Args:
        name: A permanent id (a key of `SCENARIOS`); `KIND:DATA`, a key of `KINDS` and what `lifelong.datauser.find`
            finds, such as `split:my.npz`; or `PLUGIN:NAME` of a plug-in of `lifelong.scenarios`, such as
            `avalanche:SplitFMNIST`.
        root: Data root, see `lifelong.data.load`.
        seed: Of everything that is drawn.
        options: Of the maker, e.g. `experiences=10`; they are quoted in the signature.

    Raises:
        UnknownName: No scenario, or no option of it, is called so.
        ConfigError: An option's value is refused.
    """
    kind, colon, rest = name.partition(":")
    if colon and kind in KINDS:
        return _other(name, KINDS[kind], rest, root, seed, options)
    if colon and kind in plugins.names("scenario"):
        made: Scenario = plugins.find("scenario", kind)(rest, root=root, seed=seed, **options)
        return replace(made, name=name)
    if name not in SCENARIOS:
        raise _unknown(name)
    recipe = SCENARIOS[name]
    asked = _options(name, recipe.make, seed, {**recipe.options, **options})
    sets = [find(part, root=root) for part in (recipe.data, *recipe.more)]
    made = _cut(name, recipe.make, sets if recipe.more else sets[0], asked)
    own = name if sets[0].name == recipe.data else f"{name}-small"
    return replace(made, name=own)


def known(name: str, options: Mapping[str, Any] | None = None) -> None:
    """Raise `UnknownName` unless `scenario` knows `name`, and options so called; its data may still be missing."""
    kind, colon, _ = name.partition(":")
    if name in SCENARIOS or (colon and kind in KINDS):
        _options(name, SCENARIOS[name].make if name in SCENARIOS else KINDS[kind], 0, dict(options or {}))
    elif not colon or kind not in plugins.names("scenario"):
        raise _unknown(name)


def _unknown(name: str) -> UnknownName:
    kind, colon, _ = name.partition(":")
    if colon:
        return UnknownName.among("kind of scenario", kind, [*KINDS, *plugins.names("scenario")])
    return UnknownName.among("scenario", name, SCENARIOS)


def _other(
    name: str, make: Callable[..., Scenario], data: str, root: Path | str | None, seed: int, options: dict[str, Any]
) -> Scenario:
    asked = _options(name, make, seed, options)
    return replace(_cut(name, make, find(data, root=root), asked), name=name)


def _cut(name: str, make: Callable[..., Scenario], data: Any, asked: dict[str, Any]) -> Scenario:  # noqa: ANN401
    try:
        return make(data, **asked)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigError(f"{name} cannot be cut with {asked}: {' '.join(str(error).split())[:200]}") from error


def _options(name: str, make: Callable[..., Scenario], seed: int, options: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of `make`, its seed among them where it has one."""
    takes = set(inspect.signature(make).parameters) - {"data"}
    for option in options:
        if option not in takes - {"seed"}:
            raise UnknownName.among(f"option of {name}", option, takes - {"seed"})
    ranges.truths(make, options)
    return {**options, **({"seed": seed} if "seed" in takes else {})}
