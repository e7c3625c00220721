"""From what a person types to objects: `replay+simplex` with `replay.capacity=500`."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from lifelong import plugins, ranges
from lifelong.errors import ConfigError, UnknownName
from lifelong.learning import Chain, Optim, Strategy
from lifelong.learning.budgets import Budget
from lifelong.learning.rates import Rate

Options = dict[str, dict[str, Any]]


def parse(settings: Sequence[str], names: Sequence[str]) -> Options:
    """Return arguments by name from `name.key=value` (or `key=value` where there is one name).

    Values are JSON where they can be (`3`, `0.5`, `true`, `[64, 64]`, `null`), else text.

    >>> parse(["capacity=500"], ["replay"])
    {'replay': {'capacity': 500}}
    """
    found: Options = {name: {} for name in names}
    for setting in settings:
        path, separator, text = setting.partition("=")
        name, dot, key = path.rpartition(".")
        if not separator or not key or (not dot and len(names) != 1):
            raise ConfigError(f"write a setting as {'NAME.' if len(names) != 1 else ''}KEY=VALUE, got {setting!r}")
        name = name if dot else names[0]
        if name not in found:
            raise UnknownName.among("part of this strategy", name, names)
        try:
            found[name][key] = json.loads(text, parse_constant=_finite)
        except json.JSONDecodeError:
            found[name][key] = text
    return found


def _finite(constant: str) -> float:
    raise ConfigError(f"a setting is a finite number, got {constant}")


def cut(scenario: str, settings: Sequence[str]) -> dict[str, Any]:
    """Return the options of `scenario` among `SCENARIO.KEY=VALUE`, and `KEY=VALUE` which are for all."""
    mine = [text for text in settings if text.partition("=")[0].rpartition(".")[0] in ("", scenario)]
    return parse(mine, [scenario])[scenario]


def strategy(text: str, settings: Sequence[str] = (), *, seed: int | None = None) -> Strategy:
    """Return the strategy that `text` names: plug-ins joined by `+` are chained in that order.

    Args:
        text: Names of plug-ins.
        settings: Arguments of theirs, see `parse`.
        seed: Of what they draw, where they take a seed and `settings` say none.

    Raises:
        UnknownName: No plug-in of that name, or no such argument.
        ConfigError: An argument's value is refused.
    """
    names = [name.strip() for name in text.split("+")]
    options = parse(settings, names)
    for name, own in options.items():
        if seed is not None and "seed" in _arguments("strategy", name):
            own.setdefault("seed", seed)
    made = [construct("strategy", name, options[name]) for name in names]
    return made[0] if len(made) == 1 else Chain(*made)


def construct(kind: str, name: str, options: Mapping[str, Any]) -> Any:  # noqa: ANN401 - whatever the plug-in is
    """Return the plug-in `name` of `kind`, constructed with `options`; unknown ones are named."""
    known = _arguments(kind, name)
    for key in options:
        if key not in known:
            raise UnknownName.among(f"argument of {name}", key, known)
    maker = plugins.find(kind, name)
    ranges.truths(maker, options)
    try:
        return maker(**options)
    except (TypeError, ValueError, RuntimeError, AssertionError) as error:
        raise ConfigError(f"{name} cannot be made of {dict(options)}: {str(error) or type(error).__name__}") from error


def _arguments(kind: str, name: str) -> list[str]:
    return [p for p in inspect.signature(plugins.find(kind, name)).parameters if p != "self"]


def model_spec(name: str, inputs: Sequence[int], strategy_text: str, settings: Sequence[str] = ()) -> dict[str, Any]:
    """Return the spec of a backbone `name` for samples of shape `inputs`, as wide as the strategy's head wants it.

    A simplex of K classes wants K - 1 features; other strategies take the backbone's default.
    """
    names = strategy_text.split("+")
    backbone: dict[str, Any] = {"name": name, "inputs": list(inputs), **parse(settings, [name])[name]}
    if {"simplex", "simplex_hoc"} & set(names):
        backbone.setdefault("features", 63)
    return {"backbone": backbone, "head": {"name": "linear"}}


def optim(name: str, lr: float, momentum: float, weight_decay: float, rate: Sequence[str]) -> Optim:
    """Return an optimizer with a learning rate that changes as `KEY=VALUE` pairs say."""
    told = ranges.of(Rate, parse(rate, ["rate"])["rate"], "setting of the learning rate")
    return Optim(name=name, lr=lr, momentum=momentum, weight_decay=weight_decay, rate=told)


def budget(pairs: Sequence[str]) -> Budget:
    """Return what a step may cost by `KEY=VALUE` pairs."""
    return ranges.of(Budget, parse(pairs, ["budget"])["budget"], "kind of budget")


def besides(rate: Rate, budget: Budget) -> dict[str, Any]:
    """Return what is to be noted of a run's learning rate and budget, nothing where they do nothing."""
    noted: dict[str, Any] = {"rate": asdict(rate)} if rate.moves else {}
    return {**noted, "budget": {**asdict(budget), "deterministic": budget.deterministic}} if budget else noted
