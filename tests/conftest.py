"""Shared by all test files; it imports nothing heavy, for the process that hands out tests to others loads it too."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import settings

settings.register_profile("lifelong", deadline=None)  # no test may fail because the machine is busy
settings.register_profile("fast", settings.get_profile("lifelong"), max_examples=20)  # of `make fast`
settings.load_profile("lifelong")


@pytest.fixture(scope="session")
def kit() -> SimpleNamespace:
    """What the tests of the server share."""
    import numbered as made

    return SimpleNamespace(
        labels=made.LABELS,
        numbered=made.numbered,
        numbered_model=made.numbered_model,
        number_in=made.number_in,
        publish=made.publish_numbered,
        forge=made.forge,
        forge_nan=made.forge_nan,
    )


@pytest.fixture
def registry(tmp_path: Path) -> Any:
    """An empty registry."""
    from lifelong.release.registry import Registry

    return Registry(tmp_path / "registry", create=True)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Any]:
    """A PostgreSQL server with pgvector."""
    from postgres import served

    with served() as server:
        yield server
