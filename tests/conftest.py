"""Shared by all test files; it imports nothing heavy, for the process that hands out tests to others loads it too."""

from __future__ import annotations

import uuid
import warnings
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


@pytest.fixture
def database(postgres: Any) -> str:
    """The location of a database of that server with nothing in it."""
    import psycopg

    name = f"d{uuid.uuid4().hex}"
    with psycopg.connect(postgres.dsn(), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return str(postgres.dsn(name))


@pytest.fixture(scope="session")
def s3() -> Iterator[str]:
    """An S3 in this process, on loopback; its address is in the environment, as an operator would have it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import boto3
        from moto.server import ThreadedMotoServer
    with pytest.MonkeyPatch.context() as patch:
        server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        server.start()
        host, port = server.get_host_and_port()
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        boto3.client("s3").create_bucket(Bucket="models")
        yield "s3://models"
        server.stop()
