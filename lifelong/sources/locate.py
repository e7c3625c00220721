"""From what a person types to a source."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from lifelong.errors import ConfigError, NotFound, UnknownName
from lifelong.sources.base import LIMIT, Source
from lifelong.sources.folder import Folder
from lifelong.sources.later import Later
from lifelong.sources.log import NAME, Log

FORMS = "a folder, nats://HOST:PORT/STREAM, redis://HOST:PORT/DB/KEY or kafka://HOST:PORT/TOPIC"
SCHEMES = ("nats", "redis", "kafka")


def locate(where: str, *, on_gap: str = "error", limit: int = LIMIT, patient: bool = False) -> Source:
    """Return the source that `where` names.

    Args:
        where: A folder with an embedded log or with `.npz` and `.parquet` files, or an address: `nats://HOST:PORT/STREAM`,
            `redis://HOST:PORT/DB/KEY`, `kafka://HOST:PORT/TOPIC`.
        on_gap: See `Source`.
        limit: See `Source`.
        patient: Return a source all the same where nobody answers: then its methods raise `Unavailable` until somebody
            does.

    Raises:
        ConfigError: The address is not complete.
        NotFound: There is no such folder.
        Unavailable: Nobody answers there, or its client is not installed.
    """
    if "://" not in where:
        return _folder(Path(where), on_gap, limit)
    parts = urlsplit(where)
    server, path = f"{parts.scheme}://{parts.netloc}", parts.path.strip("/")
    if parts.scheme not in SCHEMES:
        raise UnknownName.among("kind of source", parts.scheme, SCHEMES)
    if not parts.netloc or not path or (parts.scheme == "redis" and "/" not in path):
        raise ConfigError(f"{where!r} is not complete; a source is {FORMS}")
    make = _broker(parts.scheme, server, path, on_gap, limit)
    return Later(make, on_gap, limit) if patient else make()


def _broker(scheme: str, server: str, path: str, on_gap: str, limit: int) -> Callable[[], Source]:
    """Return what reaches a broker; its client is imported before."""
    if scheme == "nats":
        from lifelong.sources.jetstream import JetStream

        return lambda: JetStream(server, path, on_gap=on_gap, limit=limit)
    if scheme == "redis":
        from lifelong.sources.redisstream import RedisStream

        database, _, key = path.partition("/")
        return lambda: RedisStream(f"{server}/{database}", key, on_gap=on_gap, limit=limit)
    from lifelong.sources.kafka import Kafka

    return lambda: Kafka(server.removeprefix("kafka://"), path, on_gap=on_gap, limit=limit)


def _folder(path: Path, on_gap: str, limit: int) -> Source:
    if (path / NAME).exists():
        return Log(path, on_gap=on_gap, limit=limit)
    if not path.is_dir():
        raise NotFound(f"there is no source {path}; a source is {FORMS}; lifelong stream append makes a log")
    return Folder(path, on_gap=on_gap, limit=limit)
