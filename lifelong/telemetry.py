"""Every metric in one list: name, kind, meaning and labels; objects exist only where a process makes them.

Names end in their unit (`_seconds`, `_bytes`) or in `_total`. Labels take few values, known in
advance: route templates and never paths, outcomes and never reasons, no versions.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, final

from lifelong.errors import ConfigError, UnknownName

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

Made = TypeVar("Made")
FAST = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)  # seconds


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric.

    Args:
        name: As exported; counters end in `_total`.
        kind: Counter (only grows), gauge (one value per process) or histogram.
        help: What it counts or measures, with its unit.
        labels: Names of its labels.
        buckets: Upper bounds of a histogram, in the unit of the metric.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = FAST


SERVING: tuple[Metric, ...] = (
    Metric("lifelong_requests_total", "counter", "Requests answered, by route template and status.", ("route", "code")),
    Metric("lifelong_request_seconds", "histogram", "Time from the first byte to the answer, in seconds.", ("route",)),
    Metric("lifelong_requests_in_flight", "gauge", "Requests that are being worked on."),
    Metric("lifelong_rows_total", "counter", "Samples, vectors or ids handled, by route template.", ("route",)),
    Metric("lifelong_swaps_total", "counter", "Pointer changes followed: live, rollback or rejected.", ("outcome",)),
    Metric("lifelong_swap_seconds", "histogram", "Time from a new pointer to the new live version, in seconds."),
    Metric("lifelong_live_version", "gauge", "Version that answers requests; 0 means none."),
    Metric("lifelong_pointer_version", "gauge", "Version the registry names; not the live one after a refusal."),
    Metric("lifelong_canary_version", "gauge", "Version that answers a share of the requests; 0 means none."),
    Metric("lifelong_canary_share", "gauge", "Share of the requests that the canary answers, 0..1."),
    Metric(
        "lifelong_canary_requests_total", "counter", "Requests to the canary: answered, error or nan.", ("outcome",)
    ),
    Metric("lifelong_shadow_version", "gauge", "Version that is asked as well and never answers; 0 means none."),
    Metric(
        "lifelong_compared_total",
        "counter",
        "Samples on which two versions were compared: agree, differ, failed or dropped.",
        ("kind", "outcome"),
    ),
    Metric("lifelong_compared_seconds", "histogram", "Time of the other version's answer, in seconds.", ("kind",)),
    Metric("lifelong_automatic_rollbacks_total", "counter", "Versions that a server took back itself.", ("kind",)),
    Metric("lifelong_feedback_total", "counter", "Labels by what became of them.", ("outcome",)),
    Metric(
        "lifelong_feedback_delay_seconds",
        "histogram",
        "Time from a prediction to its label, in seconds.",
        buckets=(1.0, 10.0, 60.0, 600.0, 3600.0, 6 * 3600.0, 86400.0, 7 * 86400.0),
    ),
    Metric("lifelong_forgotten_predictions_total", "counter", "Predictions forgotten before they were labelled."),
    Metric("lifelong_feedback_backlog", "gauge", "Labelled samples that no trainer has read yet."),
    Metric("lifelong_live_since_seconds", "gauge", "When the live version went live, in seconds since 1970."),
    Metric("lifelong_gallery_rows", "gauge", "Rows in the gallery."),
    Metric("lifelong_gallery_unreadable_rows", "gauge", "Rows in spaces that the live version does not read."),
    Metric("lifelong_gallery_sequence", "gauge", "Number of the gallery's last commit."),
    Metric("lifelong_embedding_effective_rank", "gauge", "Directions that the live version's features use, 1 to D."),
    Metric("lifelong_embedding_norm_mean", "gauge", "Mean length of the live version's features."),
    Metric("lifelong_embedding_norm_sd", "gauge", "Standard deviation of that length."),
    Metric(
        "lifelong_embedding_cosine_shift", "gauge", "1 - mean cosine with the features of the version before, 0 to 2."
    ),
    Metric("lifelong_embedding_cka", "gauge", "Linear alignment with the features of the version before, 0 to 1."),
    Metric("lifelong_gallery_space_rows", "gauge", "Rows in the gallery, by the space that made them.", ("space",)),
    Metric("lifelong_gallery_segments", "gauge", "Segments among which the rows are spread; indexes in PostgreSQL."),
    Metric("lifelong_gallery_bytes", "gauge", "Bytes that searches touch; in PostgreSQL, of tables and indexes."),
    Metric("lifelong_gallery_refused_segments", "gauge", "Damaged segments that this process does without."),
    Metric("lifelong_gallery_refused_rows_total", "counter", "Rows that were to be stored and were refused."),
)

TRAINING: tuple[Metric, ...] = (
    Metric("lifelong_train_samples_total", "counter", "Samples learned since the run began."),
    Metric("lifelong_train_duplicates_total", "counter", "Records left out because their sample had been learned."),
    Metric("lifelong_train_late_files_total", "counter", "Files that sort before what was read when they came."),
    Metric("lifelong_train_lag_records", "gauge", "Records that are there and were not learned yet."),
    Metric("lifelong_train_loss", "gauge", "Loss of the last step."),
    Metric("lifelong_train_accuracy", "gauge", "Share that was right before it was learned, 0..1.", ("who",)),
    Metric("lifelong_train_canary_accuracy", "gauge", "Accuracy on samples that are never learned, 0..1."),
    Metric("lifelong_train_canary_forgotten", "gauge", "What was lost of it since each class was best, 0..1."),
    Metric("lifelong_train_drifts_total", "counter", "Changes of the stream that were found."),
    Metric("lifelong_train_memory_samples", "gauge", "Samples in the strategy's memory."),
    Metric("lifelong_train_commit_seconds", "histogram", "Time that training waited for a commit, in seconds."),
    Metric("lifelong_train_commit_since_seconds", "gauge", "When the last commit was made, in seconds since 1970."),
    Metric("lifelong_train_rollbacks_total", "counter", "Ways back to the last commit, to find what broke a step."),
    Metric("lifelong_train_dead_letters_total", "counter", "Records that could not be learned.", ("reason",)),
    Metric("lifelong_train_candidates_total", "counter", "Candidates: published or refused.", ("outcome",)),
    Metric("lifelong_train_version", "gauge", "Newest version that this run published."),
    Metric("lifelong_train_version_since_seconds", "gauge", "When that was, in seconds since 1970."),
)


@final
class Telemetry:
    """The metrics of one process.

    Args:
        metrics: What to make.
        folder: Where several processes share their numbers (`PROMETHEUS_MULTIPROC_DIR`, which must be set before
            `prometheus_client` is imported); None keeps them in this process.
    """

    def __init__(self, metrics: Sequence[Metric] = SERVING, *, folder: Path | str | None = None) -> None:
        import prometheus_client as prometheus  # late: it decides on import where its values live

        self.registry: CollectorRegistry = prometheus.CollectorRegistry()
        self.folder = folder
        self._found: dict[tuple[object, ...], Any] = {}
        self._counters: dict[str, Counter] = {}
        self._gauges: dict[str, Gauge] = {}
        self._histograms: dict[str, Histogram] = {}
        for m in metrics:
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
        return [(s.name, s.labels, s.value) for family in self._merged().collect() for s in family.samples]

    def exposition(self) -> bytes:
        """Return all metrics in the Prometheus text format; processes that died no longer count as live."""
        from prometheus_client import generate_latest

        return generate_latest(self._merged())

    def _merged(self) -> CollectorRegistry:
        from prometheus_client import CollectorRegistry, multiprocess

        if self.folder is None:
            return self.registry
        forget_dead(Path(self.folder))
        merged = CollectorRegistry()
        multiprocess.MultiProcessCollector(merged, path=str(self.folder))  # type: ignore[no-untyped-call]
        return merged


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
