"""Plug-ins are found by entry point."""

from __future__ import annotations

import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from lifelong import plugins
from lifelong.errors import ConfigError, UnknownName

DECLARED = tomllib.loads(Path("pyproject.toml").read_text())["project"]["entry-points"]


@pytest.mark.parametrize("kind", sorted(plugins.KINDS))
def test_what_the_project_declares_is_installed_and_loads(kind: str) -> None:
    declared = DECLARED[plugins.KINDS[kind]]

    assert set(declared) <= set(plugins.names(kind))
    for name, target in declared.items():
        found = plugins.find(kind, name)
        assert f"{found.__module__}:{found.__name__}" == target


def test_names_are_sorted() -> None:
    assert plugins.names("strategy") == sorted(plugins.names("strategy"))


def test_an_unknown_name_is_refused_with_a_near_miss() -> None:
    with pytest.raises(UnknownName, match="no strategy is called 'powrlaw'; did you mean 'powerlaw'"):
        plugins.find("strategy", "powrlaw")


@pytest.mark.parametrize("target", ["no.such.module:Thing", "lifelong.errors:NoSuchThing"])
def test_a_plug_in_that_cannot_be_imported_is_an_error_that_names_it(
    target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = {"broken": EntryPoint("broken", target, "lifelong.models")}
    monkeypatch.setattr(plugins, "_installed", lambda kind: broken)

    with pytest.raises(ConfigError, match=f"the model 'broken' \\({target}\\) cannot be loaded"):
        plugins.find("model", "broken")
