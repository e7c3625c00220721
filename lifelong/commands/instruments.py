"""The trainer's metrics, from the numbers of a run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, final

from lifelong.release.report import Report
from lifelong.telemetry import TRAINING, Telemetry

GAUGES = {"lag": "lifelong_train_lag_records", "loss": "lifelong_train_loss", "memory": "lifelong_train_memory_samples",
          "canary": "lifelong_train_canary_accuracy", "canary_forgotten": "lifelong_train_canary_forgotten",
          "version": "lifelong_train_version", "version_since": "lifelong_train_version_since_seconds",
          "last_commit": "lifelong_train_commit_since_seconds"}  # fmt: skip
GATES = ("finite", "probe", "labels", "input", "accuracy", "forgetting", "compatibility")
ACCURACIES = ("model", "recent", "majority", "no_change")


@final
class Instruments:
    """Sets gauges with each beat, and adds to counters what has come since the last one."""

    def __init__(self) -> None:
        self.telemetry = Telemetry(TRAINING)
        self._seen: dict[tuple[str, str], float] = {}
        for name in GAUGES.values():
            self.telemetry.gauge(name, math.nan)  # not known is not 0
        for gate in GATES:
            self.telemetry.count("lifelong_train_rejected_total", 0, gate=gate)

    def beat(self, vital: Mapping[str, Any], now: bool = False) -> None:
        """Take over what is known."""
        for key, name in GAUGES.items():
            if vital.get(key) is not None:
                self.telemetry.gauge(name, float(vital[key]))
        for who in ACCURACIES:
            self.telemetry.gauge("lifelong_train_accuracy", vital[who], who=who)
        self._grown("lifelong_train_samples_total", vital["samples"])
        self._grown("lifelong_train_duplicates_total", vital["duplicates"])
        self._grown("lifelong_train_late_files_total", vital["late"])
        for outcome in ("published", "refused"):
            self._grown("lifelong_train_candidates_total", vital[outcome], outcome=outcome)
        for reason, count in vital["reasons"].items():
            self._grown("lifelong_train_dead_letters_total", count, reason=reason)

    def happened(self, kind: str, facts: Mapping[str, Any]) -> None:
        """Count commits and their time, ways back, changes of the stream, and what the gate refused."""
        if kind == "committed":
            self.telemetry.observe("lifelong_train_commit_seconds", facts["seconds"])
        elif kind == "rollback":
            self.telemetry.count("lifelong_train_rollbacks_total")
        elif kind == "refused":
            for gate in Report.from_dict(facts["report"]).gates:
                self.telemetry.count("lifelong_train_rejected_total", gate=gate)
        elif kind == "drift":
            self.telemetry.count("lifelong_train_drifts_total")

    def _grown(self, name: str, total: float, **labels: str) -> None:
        key = name, "".join(labels.values())
        before = self._seen.get(key, 0.0)
        if total > before or key not in self._seen:  # after a way back it is less for a while
            self.telemetry.count(name, max(0.0, total - before), **labels)
            self._seen[key] = total
