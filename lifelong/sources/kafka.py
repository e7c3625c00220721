"""Kafka: the key of a message is the sample's id, the value its record; a partition is named by its number.

Offsets outside of what the broker has are an error here (`auto.offset.reset=error`): a consumer that starts over by
itself would repeat or lose samples without a word. Topics must not be compacted. Partitions that are added while
we read are seen after the next start.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

from lifelong.errors import NotFound, Unavailable
from lifelong.sources.base import LIMIT, Record, Source

try:
    from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
except ImportError as error:
    raise Unavailable("a Kafka source needs confluent-kafka: pip install 'lifelong[kafka]'") from error

ANSWER_SECONDS = 10.0


@final
class Kafka(Source):
    """All partitions of one topic; order is kept within each.

    Args:
        servers: Such as `localhost:9092`, several separated by commas.
        topic: Its name.
        on_gap: See `Source`.
        limit: See `Source`.
        group: Under which `commit_hint` commits, for the broker's own figures of lag.

    Raises:
        Unavailable: No broker answers.
        NotFound: There is no such topic.
    """

    def __init__(
        self, servers: str, topic: str, *, on_gap: str = "error", limit: int = LIMIT, group: str = "lifelong"
    ) -> None:
        super().__init__(on_gap, limit)
        self.servers, self.topic = servers, topic
        settings = {
            "bootstrap.servers": servers,
            "group.id": group,
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "error",
            "log_level": 0,
            "fetch.wait.max.ms": 100,  # questions wait behind a fetch
            "socket.timeout.ms": int(1000 * ANSWER_SECONDS),
        }
        self._consumer: Any = Consumer(settings)
        self._positions: dict[str, int] = {}  # of partitions that are read from a known position
        self._troubles: list[Any] = []
        self._closed = False
        try:
            self._partitions = self._listed()
            self.seek({})
        except BaseException:
            self.close()
            raise

    def poll(self, limit: int, timeout: float = 0.0) -> list[Record]:
        """See `Source.poll`."""
        while self._troubles:  # of the poll before: what came beside them was given first
            self._trouble(self._troubles.pop())
        try:
            messages = self._consumer.consume(limit, max(timeout, 0.05))
        except KafkaException as error:
            raise Unavailable(f"Kafka at {self.servers} does not answer: {error}; start it") from error
        self._troubles = [message for message in messages if message.error() is not None]
        found = [self._record(message) for message in messages if message.error() is None]
        for record in found:
            self._positions[record.partition] = record.offset
        return found or (self.poll(limit, timeout) if self._troubles else [])

    def seek(self, positions: Mapping[str, int]) -> None:
        """See `Source.seek`."""
        self._positions = {p: positions[p] for p in self._partitions if p in positions}
        starts, ends = self._ends()
        for partition, position in self._positions.items():
            if starts[partition] > position + 1 or ends[partition] < position + 1:
                self.gap(partition, position, starts[partition])
                self._positions[partition] = starts[partition] - 1
        at = {p: self._positions[p] + 1 if p in self._positions else starts[p] for p in self._partitions}
        self._consumer.assign([TopicPartition(self.topic, int(p), offset) for p, offset in at.items()])

    def first(self) -> dict[str, int]:
        """See `Source.first`."""
        starts, ends = self._ends()
        return {p: start for p, start in starts.items() if ends[p] > start}

    def last(self) -> dict[str, int]:
        """See `Source.last`."""
        starts, ends = self._ends()
        return {p: end - 1 for p, end in ends.items() if end > starts[p]}

    def commit_hint(self, positions: Mapping[str, int]) -> None:
        """Commit the offsets in the consumer group, without waiting for it."""
        offsets = [TopicPartition(self.topic, int(p), o + 1) for p, o in positions.items() if p in self._partitions]
        if offsets:
            self._consumer.commit(offsets=offsets, asynchronous=True)

    def close(self) -> None:
        """Leave the brokers."""
        if not self._closed:
            self._closed = True
            self._consumer.close()

    def _record(self, message: Any) -> Record:  # noqa: ANN401
        partition, offset = str(message.partition()), message.offset()
        sid = (message.key() or b"").decode(errors="replace") or f"{partition}:{offset}"
        payload = (message.value() or b"")[: self.limit + 1]
        return Record(partition, offset, sid, payload, max(0, message.timestamp()[1]) / 1000)

    def _trouble(self, message: Any) -> None:  # noqa: ANN401
        kind, partition = message.error().code(), str(message.partition())
        if kind in (KafkaError.OFFSET_OUT_OF_RANGE, KafkaError._AUTO_OFFSET_RESET):
            self.seek({p: o for p, o in self._positions.items() if p != partition} | self._known(partition))
        elif kind != KafkaError._PARTITION_EOF:
            raise Unavailable(f"Kafka at {self.servers}: {message.error().str()}; look at the brokers")

    def _known(self, partition: str) -> dict[str, int]:
        return {partition: self._positions[partition]} if partition in self._positions else {}

    def _listed(self) -> list[str]:
        try:
            topic = self._consumer.list_topics(self.topic, timeout=ANSWER_SECONDS).topics[self.topic]
        except KafkaException as error:
            raise Unavailable(f"Kafka at {self.servers} does not answer: {error}; start it") from error
        if topic.error is not None or not topic.partitions:
            raise NotFound(f"Kafka at {self.servers} has no topic {self.topic!r}; make it first")
        return sorted((str(p) for p in topic.partitions), key=int)

    def _ends(self) -> tuple[dict[str, int], dict[str, int]]:
        starts, ends = {}, {}
        for name in self._partitions:
            try:
                found = self._consumer.get_watermark_offsets(TopicPartition(self.topic, int(name)), ANSWER_SECONDS)
            except KafkaException as error:
                raise Unavailable(f"Kafka at {self.servers} does not answer: {error}; start it") from error
            if found is None:
                raise Unavailable(f"Kafka at {self.servers} did not say which offsets it has; try again")
            starts[name], ends[name] = found
        return starts, ends
