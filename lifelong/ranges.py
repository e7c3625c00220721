"""Settings that know their own range: one dataclass field says type, default and limits, in the words of JSON schema.

A field is made by `setting(default, minimum=1)`; `check` refuses an object that is out of range, `of` makes one of
plain values, and `schema` is the JSON schema (draft 2020-12) of the class. Descriptions come from its docstring.
"""

from __future__ import annotations

import inspect
import re
import types
from collections.abc import Callable, Mapping
from dataclasses import Field, field, fields, is_dataclass
from typing import Any, TypeVar, get_args, get_type_hints

from lifelong.errors import ConfigError, UnknownName

Made = TypeVar("Made")

NAMES = {str: "string", int: "integer", float: "number", bool: "boolean", dict: "object"}
WANTED = {str: "a text", int: "a whole number", float: "a number", bool: "true or false", dict: "a table"}
Limit = tuple[Callable[[float, float], bool], str]  # whether a value keeps to it, and how to say what is wanted
LIMITS: Mapping[str, Limit] = {
    "minimum": (lambda value, limit: value >= limit, "at least"),
    "exclusiveMinimum": (lambda value, limit: value > limit, "more than"),
    "maximum": (lambda value, limit: value <= limit, "at most"),
    "exclusiveMaximum": (lambda value, limit: value < limit, "less than"),
}


def setting(default: Any, **keywords: Any) -> Any:  # noqa: ANN401 - of any field
    """Return a dataclass field with limits.

    Args:
        default: Its value unless another is given.
        keywords: `minimum`, `exclusiveMinimum`, `maximum`, `exclusiveMaximum`, `enum` or `pattern`.
    """
    return field(default=default, metadata=keywords)


def check(settings: Any) -> None:  # noqa: ANN401 - a dataclass
    """Raise `ConfigError` for the first field that is out of its range: what is wanted, and what was got."""
    for one in fields(settings):
        value = getattr(settings, one.name)
        _check(one, value)


def truths(maker: Callable[..., Any], options: Mapping[str, Any]) -> None:
    """Raise `ConfigError` where `maker` takes true or false and `options` say else: the text `False` counts as true."""
    for key, value in options.items():
        default = inspect.signature(maker).parameters[key].default
        if isinstance(default, bool) and not isinstance(value, bool):
            raise ConfigError(f"{key} wants true or false, got {value!r}")


def of(cls: type[Made], values: Mapping[str, Any], what: str) -> Made:
    """Return an object of plain values by name, checked.

    Args:
        cls: A dataclass.
        values: Nested where a field is a dataclass itself.
        what: The values are, for messages: `setting of a stream`.

    Raises:
        UnknownName: There is no such field; the message names the nearest.
        ConfigError: A value is of another type, or out of range.
    """
    kinds, made = kinds_of(cls), dict[str, Any]()
    for name, value in values.items():
        if name not in kinds:
            raise UnknownName.among(what, name, kinds)
        kind = kinds[name]
        if isinstance(kind, type) and is_dataclass(kind) and isinstance(value, Mapping):
            made[name] = of(kind, value, f"setting in [{name}]")
            continue
        plain = dict if is_dataclass(kind) else kind
        if type(value) is not plain and not (plain is float and type(value) is int):
            raise ConfigError(f"{name} wants {WANTED[plain]}, got {value!r}")
        made[name] = value
    return cls(**made)


def schema(cls: type) -> dict[str, Any]:
    """Return the JSON schema of objects of `cls`: types, limits, defaults and descriptions of all its fields."""
    told, kinds, properties = _described(cls), kinds_of(cls), dict[str, Any]()
    for one in fields(cls):
        kind = kinds[one.name]
        if isinstance(kind, type) and is_dataclass(kind):
            properties[one.name] = {**schema(kind), "description": told.get(one.name, "")}
            continue
        default = {} if kind is dict or one.default is None else {"default": one.default}
        keywords = {key: list(v) if isinstance(v, tuple) else v for key, v in one.metadata.items()}
        properties[one.name] = {
            "type": NAMES[kind], **default, **keywords, "description": told.get(one.name, "")
        }  # fmt: skip
    return {"type": "object", "additionalProperties": False, "properties": properties}


def kinds_of(cls: Any) -> dict[str, Any]:  # noqa: ANN401 - a dataclass
    """Return the type of each field; of `dict[str, Any]` it is `dict`, of `int | None` it is `int`."""
    hints = get_type_hints(cls)
    every = {one.name: hints[one.name] for one in fields(cls)}
    every = {name: get_args(hint)[0] if isinstance(hint, types.UnionType) else hint for name, hint in every.items()}
    return {name: dict if isinstance(hint, types.GenericAlias) else hint for name, hint in every.items()}


def _check(one: Field[Any], value: Any) -> None:  # noqa: ANN401
    for key, limit in one.metadata.items():
        if value is None:
            return
        if key == "enum" and value not in limit:
            raise UnknownName.among(f"value of {one.name}", value, limit)
        if key == "pattern" and not re.search(limit, value):
            raise ConfigError(f"{one.name} must look like {limit}, got {value!r}")
        if key in LIMITS and not LIMITS[key][0](value, limit):
            raise ConfigError(f"{one.name} must be {LIMITS[key][1]} {limit}, got {value}")


def _described(cls: type) -> dict[str, str]:
    """Return what the docstring of a class says of each argument, in one line."""
    text = (cls.__doc__ or "").partition("Args:\n")[2]
    found = re.findall(r"^ {8}(\w+): (.*?)(?=^ {8}\w|\Z|^ {0,7}\S)", text, flags=re.M | re.S)
    return {name: " ".join(words.split()) for name, words in found}
