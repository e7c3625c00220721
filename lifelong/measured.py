"""Every metric in one list: name, kind, meaning and labels.

Names end in their unit (`_seconds`, `_bytes`) or in `_total`. Labels take few values, known in
advance: route templates and never paths, outcomes and never reasons. Versions are a label only where
the value is asked for: what is answered or compared no more has no line.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

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
        asked: No process keeps it: its value is asked for whenever the metrics are read.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = FAST
    asked: bool = False


SERVING: tuple[Metric, ...] = (
    Metric("lifelong_requests_total", "counter", "Requests answered, by route template and status.", ("route", "code")),
    Metric("lifelong_request_seconds", "histogram", "Time from the first byte to the answer, in seconds.", ("route",)),
    Metric("lifelong_requests_in_flight", "gauge", "Requests that are being worked on."),
    Metric("lifelong_rows_total", "counter", "Samples, vectors or ids handled, by route template.", ("route",)),
    Metric("lifelong_swaps_total", "counter", "Pointer changes followed: live, rollback or rejected.", ("outcome",)),
    Metric("lifelong_swap_seconds", "histogram", "Time from a new pointer to the new live version, in seconds."),
    Metric("lifelong_swap_phase_seconds", "histogram", "Time of a part of a swap, in seconds.", ("phase",)),
    Metric("lifelong_rejected_total", "counter", "Versions that were not let in, by the gate that said no.", ("gate",)),
    Metric(
        "lifelong_version_seconds",
        "histogram",
        "Time in which a version answered, in seconds; only of those that answer or are compared now.",
        ("kind", "version", "pid"),
        asked=True,
    ),
    Metric("lifelong_version_skew", "gauge", "Different live versions among the workers of this server.", asked=True),
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
    Metric("lifelong_train_rejected_total", "counter", "Checks of the gate that candidates failed.", ("gate",)),
    Metric("lifelong_train_version", "gauge", "Newest version that this run published."),
    Metric("lifelong_train_version_since_seconds", "gauge", "When that was, in seconds since 1970."),
)
