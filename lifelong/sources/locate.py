"""From what a person types to a source."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from lifelong.errors import ConfigError, NotFound, UnknownName
from lifelong.sources.base import LIMIT, Source
from lifelong.sources.folder import Folder
from lifelong.sources.log import NAME, Log

FORMS = "a folder, nats://HOST:PORT/STREAM, redis://HOST:PORT/DB/KEY or kafka://HOST:PORT/TOPIC"
SCHEMES = ("nats", "redis", "kafka")


def locate(where: str, *, on_gap: str = "error", limit: int = LIMIT) -> Source:
    """Return the source that `where` names.

    Args:
        where: A folder with an embedded log or with `.npz` and `.parquet` files, or an address: `nats://HOST:PORT/STREAM`,
            `redis://HOST:PORT/DB/KEY`, `kafka://HOST:PORT/TOPIC`.
        on_gap: See `Source`.
        limit: See `Source`.

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
    if parts.scheme == "nats":
        from lifelong.sources.jetstream import JetStream

        return JetStream(server, path, on_gap=on_gap, limit=limit)
    if parts.scheme == "redis":
        from lifelong.sources.redisstream import RedisStream

        database, _, key = path.partition("/")
        return RedisStream(f"{server}/{database}", key, on_gap=on_gap, limit=limit)
    from lifelong.sources.kafka import Kafka

    return Kafka(parts.netloc, path, on_gap=on_gap, limit=limit)


def _folder(path: Path, on_gap: str, limit: int) -> Source:
    if (path / NAME).exists():
        return Log(path, on_gap=on_gap, limit=limit)
    if not path.is_dir():
        raise NotFound(f"there is no source {path}; a source is {FORMS}; lifelong stream append makes a log")
    return Folder(path, on_gap=on_gap, limit=limit)
