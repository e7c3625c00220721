"""Redis Streams: entries with the fields `sid` and `record`, read from the position we keep.

An entry id `MILLISECONDS-NUMBER` becomes the offset `MILLISECONDS * 2**64 + NUMBER`, in one partition named like the
key. Redis does not say which entries were trimmed: whoever trims must keep the entry at the trainer's position, for
only while that one is there is it sure that nothing after it was lost.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, final

from lifelong.errors import ConfigError, Unavailable
from lifelong.sources.base import LIMIT, PAUSE, Record, Source

try:
    import redis
except ImportError as error:
    raise Unavailable("a Redis source needs redis-py: pip install 'lifelong[redis]'") from error


@final
class RedisStream(Source):
    """One stream of a Redis server.

    Args:
        server: Such as `redis://localhost:6379/0`.
        key: Of the stream.
        on_gap: See `Source`.
        limit: See `Source`.
        group: Consumer group whose position `commit_hint` sets, for Redis' own figures of lag.

    Raises:
        Unavailable: The server cannot be reached.
        ConfigError: The key holds something else.
    """

    counted = False  # they are times

    def __init__(
        self, server: str, key: str, *, on_gap: str = "error", limit: int = LIMIT, group: str = "lifelong"
    ) -> None:
        super().__init__(on_gap, limit)
        self.server, self.key, self.group = server, key, group
        self._position = -1
        self._client: Any = redis.Redis.from_url(server, socket_timeout=10, socket_connect_timeout=5)
        with self._translated():
            kind: Any = self._client.type(key)
        if kind not in (b"none", b"stream"):
            raise ConfigError(f"the key {key!r} holds a {kind.decode()}, not a stream; name another")

    def poll(self, limit: int, timeout: float = 0.0) -> list[Record]:
        """See `Source.poll`."""
        deadline = time.monotonic() + timeout
        while not (found := self._read(limit)) and (left := deadline - time.monotonic()) > 0:
            time.sleep(min(PAUSE, left))
        if found:
            self._position = found[-1].offset
        return found

    def seek(self, positions: Mapping[str, int]) -> None:
        """See `Source.seek`."""
        self._position = positions.get(self.key, -1)

    def first(self) -> dict[str, int]:
        """See `Source.first`."""
        with self._translated():
            found = self._client.xrange(self.key, count=1)
        return {self.key: _offset(found[0][0])} if found else {}

    def last(self) -> dict[str, int]:
        """See `Source.last`."""
        with self._translated():
            found = self._client.xrevrange(self.key, count=1)
        return {self.key: _offset(found[0][0])} if found else {}

    def commit_hint(self, positions: Mapping[str, int]) -> None:
        """Set the position of the consumer group."""
        if self.key in positions:
            with self._translated():
                try:
                    self._client.xgroup_setid(self.key, self.group, _entry(positions[self.key]))
                except redis.ResponseError:  # there is no such group yet
                    self._client.xgroup_create(self.key, self.group, _entry(positions[self.key]), mkstream=True)

    def close(self) -> None:
        """Leave the server."""
        self._client.close()

    def _read(self, limit: int) -> list[Record]:
        with self._translated():
            if self._position < 0:
                return [self._record(e, f) for e, f in self._client.xrange(self.key, count=limit)]
            # One command gives the entry at the position and what follows it: nothing can be trimmed in between.
            entries = self._client.xrange(self.key, min=_entry(self._position), count=limit + 1)
            if entries and _offset(entries[0][0]) == self._position:
                return [self._record(e, f) for e, f in entries[1:]]
            if not entries and not self._after():
                return []
        first = _offset(entries[0][0]) if entries else None
        self.gap(self.key, self._position, first)
        if first is None:
            with self._translated():
                self._position = self._after()
            return []
        return [self._record(e, f) for e, f in entries[:limit]]

    def _after(self) -> int:
        """Return the offset of the last entry that was ever added, if it comes after the position, else 0."""
        try:
            newest = _offset(self._client.xinfo_stream(self.key)["last-generated-id"])
        except redis.ResponseError:  # the key is gone, and whatever it held
            newest = self._position + 1
        return newest if newest > self._position else 0

    def _record(self, entry: bytes, fields: Mapping[bytes, bytes]) -> Record:
        offset = _offset(entry)
        sid = fields.get(b"sid", b"").decode(errors="replace") or f"{self.key}:{offset}"
        return Record(self.key, offset, sid, fields.get(b"record", b"")[: self.limit + 1], (offset >> 64) / 1000)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (redis.ConnectionError, redis.TimeoutError, redis.BusyLoadingError) as error:
            raise Unavailable(f"the Redis server {self.server} does not answer: {error}; start it") from error


def _offset(entry: bytes) -> int:
    high, _, low = entry.decode().partition("-")
    return (int(high) << 64) + int(low)


def _entry(offset: int) -> str:
    return f"{offset >> 64}-{offset & (1 << 64) - 1}"
