"""The metrics of one process; objects exist only where a process makes them. The list of all is `measured.py`."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, final

from lifelong.errors import ConfigError, UnknownName
from lifelong.measured import FAST, SERVING, TRAINING, Metric

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
    from prometheus_client.core import Metric as Family

__all__ = ["FAST", "SERVING", "TRAINING", "Metric", "Reading", "Telemetry", "forget_dead", "listen"]

Made = TypeVar("Made")


@final
@dataclass(frozen=True)
class Reading:
    """What a metric that is asked for says at this moment.

    Args:
        name: Of the metric.
        value: Of a gauge; of a histogram the sum of what was observed.
        labels: By name.
        counts: Of a histogram: how many fell into each bucket, and last those above every bound.
    """

    name: str
    value: float
    labels: tuple[tuple[str, str], ...] = ()
    counts: Sequence[int] = ()


@final
class Telemetry:
    """The metrics of one process.

    Args:
        metrics: What to make.
        folder: Where several processes share their numbers (`PROMETHEUS_MULTIPROC_DIR`, which must be set before
            `prometheus_client` is imported); None keeps them in this process.
        ask: Gives the readings of the metrics that are `asked` for, of all processes.
    """

    def __init__(
        self,
        metrics: Sequence[Metric] = SERVING,
        *,
        folder: Path | str | None = None,
        ask: Callable[[], Iterable[Reading]] = tuple,
    ) -> None:
        import prometheus_client as prometheus  # late: it decides on import where its values live

        self.registry: CollectorRegistry = prometheus.CollectorRegistry()
        self.folder = folder
        self._found: dict[tuple[object, ...], Any] = {}
        self._told: deque[tuple[Counter, float]] = deque()
        self._counters: dict[str, Counter] = {}
        self._gauges: dict[str, Gauge] = {}
        self._histograms: dict[str, Histogram] = {}
        self._asked = Asked([m for m in metrics if m.asked], ask)
        self.registry.register(self._asked)
        for m in metrics:
            if m.asked:
                continue
            if m.kind == "counter":
                self._counters[m.name] = prometheus.Counter(m.name, m.help, m.labels, registry=self.registry)
            elif m.kind == "gauge":
                gauge = prometheus.Gauge(m.name, m.help, m.labels, registry=self.registry, multiprocess_mode="liveall")
                self._gauges[m.name] = gauge
            else:
                histogram = prometheus.Histogram(m.name, m.help, m.labels, registry=self.registry, buckets=m.buckets)
                self._histograms[m.name] = histogram

    def count(self, name: str, amount: float = 1, **labels: str) -> None:
        """Add to a counter.

        Raises:
            UnknownName: No such counter.
        """
        self._of("counter", name, self._counters, labels).inc(amount)

    def tell(self, name: str, amount: float = 1, **labels: str) -> None:
        """Add to a counter with the next `flush`: for what happens at every request.

        Raises:
            UnknownName: No such counter.
        """
        self._told.append((self._of("counter", name, self._counters, labels), amount))

    def flush(self) -> None:
        """Add what was told; whoever asks this process for its metrics has that done first."""
        sums: dict[Counter, float] = {}
        with suppress(IndexError):  # it is empty; several threads may be at this
            while True:
                counter, amount = self._told.popleft()
                sums[counter] = sums.get(counter, 0) + amount
        for counter, amount in sums.items():
            counter.inc(amount)

    def close(self) -> None:
        """Write what was told and is not written yet."""
        self.flush()

    def gauge(self, name: str, value: float, **labels: str) -> None:
        """Set a gauge of this process.

        Raises:
            UnknownName: No such gauge.
        """
        self._of("gauge", name, self._gauges, labels).set(value)

    def observe(self, name: str, value: float, **labels: str) -> None:
        """Put a value into a histogram.

        Raises:
            UnknownName: No such histogram.
        """
        self._of("histogram", name, self._histograms, labels).observe(value)

    def _of(self, kind: str, name: str, made: dict[str, Made], labels: dict[str, str]) -> Made:
        """Return a metric with its labels; kept, because prometheus_client takes longer to find it again."""
        key = (name, *labels.items())
        if key not in self._found:
            metric: Any = _known(kind, name, made)
            self._found[key] = metric.labels(**labels) if labels else metric
        found: Made = self._found[key]
        return found

    def samples(self) -> list[tuple[str, dict[str, str], float]]:
        """Return name, labels and value of everything, summed over the processes that share a folder."""
        self.flush()
        return [(s.name, s.labels, s.value) for family in self._merged().collect() for s in family.samples]

    def exposition(self) -> bytes:
        """Return all metrics in the Prometheus text format; processes that died no longer count as live."""
        from prometheus_client import generate_latest

        self.flush()
        return generate_latest(self._merged())

    def _merged(self) -> CollectorRegistry:
        from prometheus_client import CollectorRegistry, multiprocess

        if self.folder is None:
            return self.registry
        forget_dead(Path(self.folder))
        merged = CollectorRegistry()
        multiprocess.MultiProcessCollector(merged, path=str(self.folder))  # type: ignore[no-untyped-call]
        merged.register(self._asked)
        return merged


@final
class Asked:
    """A collector of metrics that nobody keeps.

    Args:
        metrics: Those.
        ask: Gives their readings.
    """

    def __init__(self, metrics: Sequence[Metric], ask: Callable[[], Iterable[Reading]]) -> None:
        self.metrics, self._ask = metrics, ask

    def collect(self) -> Iterator[Family]:
        """Yield each metric that has readings."""
        from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily

        readings = list(self._ask())
        for metric in self.metrics:
            kind: Any = GaugeMetricFamily if metric.kind == "gauge" else HistogramMetricFamily
            family = kind(metric.name, metric.help, labels=metric.labels)
            for reading in (r for r in readings if r.name == metric.name):
                values = [dict(reading.labels)[label] for label in metric.labels]
                if metric.kind == "gauge":
                    family.add_metric(values, reading.value)
                else:
                    bounds = [*map(str, metric.buckets), "+Inf"]
                    counts = zip(bounds, accumulate(reading.counts), strict=True)
                    family.add_metric(values, list(counts), reading.value)
            yield family


def listen(telemetry: Telemetry, host: str, port: int) -> int:
    """Serve metrics under `/metrics` from a thread of its own; return the port, which is a free one for 0.

    Raises:
        ConfigError: Nobody may listen there.
    """
    import prometheus_client as prometheus

    try:
        server, _ = prometheus.start_http_server(port, host, telemetry.registry)
    except OSError as error:
        raise ConfigError(f"cannot serve metrics on {host}:{port}: {error.strerror}; choose another port") from error
    return int(server.server_port)


def forget_dead(folder: Path) -> list[int]:
    """Remove the live gauges of processes that are gone; return their ids.

    Nobody else does: after a worker was killed, its last live version would be reported for ever.
    """
    from prometheus_client import multiprocess

    owners = {int(end) for path in folder.glob("gauge_live*_*.db") if (end := path.stem.rpartition("_")[2]).isdigit()}
    dead = sorted(pid for pid in owners if not _alive(pid))
    for pid in dead:
        multiprocess.mark_process_dead(pid, str(folder))  # type: ignore[no-untyped-call]
    return dead


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _known(kind: str, name: str, made: dict[str, Made]) -> Made:
    if name not in made:
        raise UnknownName.among(kind, name, made)
    return made[name]
