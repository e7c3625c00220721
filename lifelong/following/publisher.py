"""When a candidate goes to the gate, and what the gate judges it on: samples that were never learned."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any, final

from lifelong.daemon import PROBE_ROWS, Notify, readable
from lifelong.errors import ConfigError, LifelongError
from lifelong.following.merge import Merger
from lifelong.following.origin import origin
from lifelong.following.settings import Follow
from lifelong.learning import ClassBalanced, Learner
from lifelong.plan import Plan
from lifelong.release.gate import Gate
from lifelong.release.registry import Registry
from lifelong.release.report import Report
from lifelong.release.snapshot import Snapshot
from lifelong.types import Batch

log = logging.getLogger("lifelong.following")

RETRY_SECONDS = 30.0  # after a registry could not be written
KEPT = ("samples", "asked", "due", "parent", "last", "published", "refused", "accuracy", "lowest")
SHARES = 10_007  # prime: ids are cut into that many parts


@final
class Publisher:
    """Keeps the gate's samples, and publishes when it is time.

    Args:
        registry: Where versions go; None publishes nothing.
        settings: `publish_samples`, `publish_seconds`, `publish_improvement` and `held_out_capacity`.
        plan: What the gate is told, and the share that is held out.
        about: What is being run, as plain values.
        notify: Told of `published` and `refused`.
    """

    def __init__(
        self, registry: Registry | None, settings: Follow, plan: Plan, about: Mapping[str, Any], notify: Notify
    ) -> None:
        self.registry, self.settings, self.plan, self.about, self._notify = registry, settings, plan, about, notify
        self.share = plan.held_out if registry else 0.0
        if registry and not 0 < plan.held_out < 1:
            raise ConfigError(f"publishing needs a share to hold out between 0 and 1, got {plan.held_out}")
        self.held_out = ClassBalanced(settings.held_out_capacity, plan.seed)
        self.merger = Merger(settings)
        self.samples = 0  # learned since the last candidate
        self.asked = False  # a candidate is wanted, whatever the numbers
        self.due = False  # a candidate was decided on, and not yet judged
        self.parent: int | None = None  # the version that was live then
        self.last: int | None = None  # the newest version that was published
        self.published = self.refused = 0
        self.accuracy = self.lowest = 0.0  # when it was looked at last, and at the worst since the last candidate
        self._since, self._not_before = time.monotonic(), 0.0

    def holds(self, number: int) -> bool:
        """Return whether the sample with this id is the gate's, and must not be learned."""
        return number % SHARES < round(self.share * SHARES)

    def look(self, steps: int, accuracy: Callable[[], float]) -> None:
        """Ask for a candidate if the accuracy has risen by enough.

        Args:
            steps: So many were taken; it is looked at every `commit_every` of them, whatever the clock says.
            accuracy: Returns the share (0..1) that is right.
        """
        rise = self.settings.publish_improvement
        if rise and not steps % self.plan.commit_every:
            self.accuracy = accuracy()
            self.lowest = min(self.lowest, self.accuracy)
            self.asked = self.asked or self.accuracy - self.lowest >= rise

    def wants(self, ended: bool = False) -> bool:
        """Return whether a candidate is due: after enough samples, enough time, or a boundary that asks for one."""
        if not self.registry or not len(self.held_out) or time.monotonic() < self._not_before:
            return False
        every, seconds = self.settings.publish_samples, self.settings.publish_seconds
        enough = bool(every) and self.samples >= every
        late = bool(seconds) and time.monotonic() - self._since >= seconds
        return self.due or (self.samples > 0 and (enough or late or ended or self.asked))

    def decide(self) -> None:
        """Note what the candidate will be compared with; saved before it is judged, so that a repeat is the same."""
        assert self.registry is not None
        if not self.due:
            self.parent, self.due = self.registry.current(), True

    def publish(self, learner: Learner, metrics: Mapping[str, float], data: Mapping[str, Any]) -> None:
        """Have the candidate judged; whatever comes of it, training goes on, and another one is due later.

        Args:
            learner: Whose model it is.
            metrics: Numbers to show with it.
            data: Which records were learned, as `Intake.range` says it.
        """
        assert self.registry is not None
        registry, plan = self.registry, self.plan
        try:
            with self.merger.merged(learner.model, self.held_out.store.all) as (rows, merged):
                if self.merger.how == "ema" and merged["merged"] > 1:
                    merged["merged_with"] = self.last
                training = {**self.about, "position": dict(learner.counters), **origin(learner, data), **merged}
                snapshot = Snapshot.of(
                    learner.model, learner.labels, probe_x=rows.x[:PROBE_ROWS], parent=self.parent,
                    training=training, metrics=dict(metrics),
                )  # fmt: skip
            gate = Gate(
                rows, max_accuracy_drop=plan.max_accuracy_drop, max_forgetting=plan.max_forgetting,
                compatible=plan.compatible, measure=plan.measure,
            )  # fmt: skip
            live = registry.load(self.parent) if self.parent is not None else None
            self.merger.accept(self._record(registry, *gate.judge(snapshot, live, readable(registry, live))))
        except (OSError, LifelongError) as error:
            self._not_before = time.monotonic() + RETRY_SECONDS
            self.due = False
            log.warning("no candidate could be published now: %s; training goes on", error)
            return
        self.samples, self.due, self.asked, self._since = 0, False, False, time.monotonic()
        self.lowest = self.accuracy

    def _record(self, registry: Registry, snapshot: Snapshot, report: Report) -> bool:
        version = registry.publish(snapshot, report) if report.passed else None
        if version is None:
            registry.refuse(snapshot, report)
            self.refused += 1
            log.warning("refused a candidate: %s", "; ".join(report.reasons))
        else:
            self.last, self.published = version, self.published + 1
        facts = {"version": version, "space": snapshot.space.id, "report": report.as_dict()}
        self._notify("published" if version else "refused", facts)
        return report.passed

    def take(self, batch: Batch) -> None:
        """Keep samples for the gate."""
        self.held_out.add(batch)

    def state(self) -> dict[str, Any]:
        """Return the gate's samples, and how far the next candidate is."""
        parts = {"held_out": self.held_out.state(), "merger": self.merger.state()}
        return {**parts, **{name: getattr(self, name) for name in KEPT}}

    def restore(self, state: dict[str, Any]) -> None:
        """Take back what `state()` gave."""
        for name in KEPT:
            setattr(self, name, state.get(name, 0.0))  # older commits have no accuracy
        self.held_out.restore(state["held_out"])
        self.merger.restore(state["merger"])
