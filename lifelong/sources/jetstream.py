"""NATS JetStream: sequence numbers without holes, so that a gap is seen exactly.

The producer sends one record per message, with the sample's id in the header `Nats-Msg-Id` (the server then drops what
is sent twice within its window). Offsets are the stream's sequence numbers, in one partition named like the stream.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Mapping
from contextlib import suppress
from typing import Any, TypeVar, final

from lifelong.errors import NotFound, Unavailable
from lifelong.sources.base import LIMIT, Record, Source

try:
    import nats
    from nats.errors import Error as NatsError
    from nats.errors import TimeoutError as NatsTimeout
    from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy
    from nats.js.errors import NotFoundError
except ImportError as error:
    raise Unavailable("a NATS source needs nats-py: pip install 'lifelong[nats]'") from error

T = TypeVar("T")
ANSWER_SECONDS = 3.0  # for the server, beyond what a poll may wait
IDLE_SECONDS = 300.0  # until the server forgets a reader that was killed


@final
class JetStream(Source):
    """One stream of a NATS server; it is read without acknowledgements, from the position we keep.

    Args:
        server: Such as `nats://localhost:4222`.
        stream: Its name.
        on_gap: See `Source`.
        limit: See `Source`.

    Raises:
        Unavailable: The server cannot be reached.
        NotFound: It has no such stream.
    """

    def __init__(self, server: str, stream: str, *, on_gap: str = "error", limit: int = LIMIT) -> None:
        super().__init__(on_gap, limit)
        self.server, self.stream = server, stream
        self._position, self._at_start = 0, True
        self._reader: Any = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="nats", daemon=True)
        self._thread.start()
        try:
            self._client: Any = self._wait(self._connect())
            self._js = self._client.jetstream(timeout=ANSWER_SECONDS)
            self._state()
        except BaseException:
            self.close()
            raise

    def poll(self, limit: int, timeout: float = 0.0) -> list[Record]:
        """See `Source.poll`."""
        fresh = self._reader is None
        found = self._wait(self._fetch(limit, max(timeout, 0.05)), timeout)
        if not found or not _whole(self._position, found):
            state = self._state()
            if not self._at_start and state.first_seq > self._position + 1:
                self._reader = None  # what it gave comes after the gap
                self.gap(self.stream, self._position, state.first_seq)
                self._position = state.first_seq - 1
                return self.poll(limit, timeout)
            if found and not fresh:  # lost on the way; only what a new reader leaves out was deleted one by one
                self._forget()
                return self.poll(limit, timeout)
        if found:
            self._position, self._at_start = found[-1].offset, False
        return found

    def seek(self, positions: Mapping[str, int]) -> None:
        """See `Source.seek`."""
        self._position, self._at_start = positions.get(self.stream, 0), self.stream not in positions
        self._forget()

    def first(self) -> dict[str, int]:
        """See `Source.first`."""
        state = self._state()
        return {self.stream: state.first_seq} if state.messages else {}

    def last(self) -> dict[str, int]:
        """See `Source.last`."""
        state = self._state()
        return {self.stream: state.last_seq} if state.messages else {}

    def close(self) -> None:
        """Leave the server."""
        if self._loop.is_closed():
            return
        client = getattr(self, "_client", None)
        if client is not None:
            with suppress(Unavailable):
                self._wait(client.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _connect(self) -> Any:  # noqa: ANN401 - a client
        async def quiet(_: Exception) -> None:
            """Leave the telling to the call that fails."""

        return await nats.connect(self.server, max_reconnect_attempts=-1, reconnect_time_wait=0.5, error_cb=quiet)

    async def _fetch(self, limit: int, timeout: float) -> list[Record]:
        if self._reader is None:
            start = ConsumerConfig(
                deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
                opt_start_seq=self._position + 1,
                ack_policy=AckPolicy.NONE,
                inactive_threshold=IDLE_SECONDS,
            )
            self._reader = await self._js.pull_subscribe("", stream=self.stream, config=start)
        with suppress(NatsTimeout):
            return [self._record(m) for m in await self._reader.fetch(limit, timeout=timeout)]
        return []

    def _record(self, message: Any) -> Record:  # noqa: ANN401
        meta = message.metadata
        offset = meta.sequence.stream
        sid = (message.headers or {}).get("Nats-Msg-Id") or f"{self.stream}:{offset}"
        return Record(self.stream, offset, sid, message.data[: self.limit + 1], meta.timestamp.timestamp())

    def _state(self) -> Any:  # noqa: ANN401
        return self._wait(self._js.stream_info(self.stream)).state

    def _forget(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            with suppress(Unavailable):
                self._wait(reader.unsubscribe())

    def _wait(self, work: Coroutine[Any, Any, T], timeout: float = 0.0) -> T:
        client = getattr(self, "_client", None)
        if client is not None and client.is_reconnecting:  # it would wait, and say nothing
            work.close()
            raise Unavailable(f"the NATS server {self.server} does not answer: the connection is lost; start it")
        in_time = asyncio.wait_for(work, ANSWER_SECONDS + timeout)
        try:
            return asyncio.run_coroutine_threadsafe(in_time, self._loop).result()
        except NotFoundError as error:
            if self._reader is None:
                raise NotFound(f"{self.server} has no stream {self.stream!r}; make it first") from error
            self._reader = None  # the server forgot the reader, not the stream: the next poll makes another
            raise Unavailable(f"{self.server} forgot where we were; the position is ours, asking again") from error
        except (NatsError, OSError, TimeoutError) as error:
            self._reader = None
            said = str(error) or type(error).__name__
            raise Unavailable(f"the NATS server {self.server} does not answer: {said}; start it") from error


def _whole(position: int, found: list[Record]) -> bool:
    return [record.offset for record in found] == list(range(position + 1, position + 1 + len(found)))
