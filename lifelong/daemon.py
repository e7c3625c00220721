"""The trainer: stream -> learner -> gate -> registry, killed and resumed at any moment without a trace.

A run lives in a folder: `checkpoints/` (see `lifelong.learning.checkpoint`), `run.json` (what is being run) and
`.lock` (held by the one process that writes). The checkpoint holds everything that the next step depends on; after
kill -9 the same command goes on from the last commit, and ends with the same bits.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from threading import Event
from typing import Any, final

from lifelong import files
from lifelong.errors import ConfigError, DataError
from lifelong.learning import Learner
from lifelong.learning.checkpoint import Checkpoints
from lifelong.locks import FileLock
from lifelong.plan import Plan, Progress
from lifelong.release.gate import Gate
from lifelong.release.registry import Registry
from lifelong.release.report import Report
from lifelong.release.snapshot import Snapshot
from lifelong.streams.scenario import Scenario
from lifelong.streams.validation import refuse_small, validation
from lifelong.types import Batch, Experience

log = logging.getLogger("lifelong.daemon")

Notify = Callable[[str, Mapping[str, Any]], None]
PROBE_ROWS = 8


class Stopped(Exception):
    """The run was asked to stop; everything is committed."""


@final
class Trainer:
    """Runs a learner over a scenario, commits as it goes, and publishes what the gate lets through.

    Args:
        learner: Fresh, made with the same arguments as before when a run goes on.
        scenario: The stream.
        run: Folder of the run.
        registry: Where versions go; None only trains.
        plan: How.
        notify: Told of `step`, `experience`, `published`, `refused` and `resumed`, for people and pictures.
        about: What is being run, as plain values; a run that goes on must agree with it.
    """

    def __init__(
        self,
        learner: Learner,
        scenario: Scenario,
        run: Path | str,
        *,
        registry: Registry | None = None,
        plan: Plan | None = None,
        notify: Notify | None = None,
        about: Mapping[str, Any] | None = None,
    ) -> None:
        self.learner, self.scenario, self.run_folder = learner, scenario, Path(run)
        self.registry, self.plan = registry, plan or Plan()
        self._notify = notify
        self.about = {"scenario": scenario.signature, **(about or {})}
        self.stop = Event()  # set it from a signal handler: the run commits and raises Stopped
        self.progress = Progress()
        self.first = learner.ranks.first  # of several processes only one looks, commits and publishes
        refuse_small(scenario)
        self._training = validation(scenario, self.plan.held_out, seed=self.plan.seed)

    def watch(self, notify: Notify) -> None:
        """Tell `notify` instead of whoever was told before."""
        self._notify = notify

    def run(self) -> Progress:
        """Run to the end of the scenario, from wherever the last commit left it.

        Raises:
            Locked: Another process runs in this folder.
            ConfigError: The folder holds a run of something else.
            Stopped: `stop` was set.
        """
        if not self.first:
            return self._run(None)
        self.run_folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self.run_folder / ".lock", "wait for it or use another folder"):
            same_run(self.run_folder, self.about)
            return self._run(Checkpoints(self.run_folder / "checkpoints"))

    def _run(self, commits: Checkpoints | None) -> Progress:
        self._resume(commits)
        for index in range(len(self.progress.matrix) * self.plan.publish_every, len(self.scenario)):
            if self.learner.position["experience"] == index:
                self._learn(self._training[index], commits)
                # What the candidate is compared with is committed first: repeated after a kill, the comparison
                # must not be with the candidate itself.
                self.progress.parent = self.registry.current() if self.registry else None
                self._commit(commits)
            if (index + 1) % self.plan.publish_every == 0 or index + 1 == len(self.scenario):
                self._finish(index)
                self._commit(commits)
        return self.progress

    def _learn(self, experience: Experience, commits: Checkpoints | None) -> None:
        def on_step() -> None:
            stopping = self.learner.ranks.agreed(self.stop.is_set())
            if stopping or self.learner.counters["steps"] % self.plan.commit_every == 0:
                self._commit(commits)
            self._tell("step", plain(self.learner))
            if stopping:
                raise Stopped(
                    f"stopped after step {self.learner.counters['steps']}; the same command goes on from there"
                )

        self.learner.fit(experience, self.plan.epochs, on_step=on_step)

    def _finish(self, index: int) -> None:
        if not self.first:
            return
        row = [self.learner.score(e) for e in self._tested()]
        if self.registry is not None:
            self._publish(self.registry, index, row)
        self.progress.matrix.append(row)
        self._tell("experience", {"index": index, "name": self.scenario[index].name, "row": row})

    def _tested(self) -> list[Experience]:
        """Return what to score on: every experience, or the one test set of a stream without boundaries."""
        every = list(self.scenario) if "boundaries" in self.scenario.provides else [self.scenario[0]]
        return [e for e in every if e.test is not None and not (isinstance(e.test, Batch) and not len(e.test))]

    def _publish(self, registry: Registry, index: int, row: list[float]) -> None:
        learner, parent = self.learner, self.progress.parent
        held_out = self._held_out(index)
        training = {**self.about, "experience": index, "position": dict(learner.counters)}
        snapshot = Snapshot.of(
            learner.model,
            learner.labels,
            probe_x=held_out.x[:PROBE_ROWS],
            parent=parent,
            training=training,
            metrics={"mean_test_accuracy_of_seen": sum(row[: index + 1]) / max(len(row[: index + 1]), 1)},
        )
        plan = self.plan
        gate = Gate(
            held_out,
            max_accuracy_drop=plan.max_accuracy_drop,
            max_forgetting=plan.max_forgetting,
            compatible=plan.compatible,
            measure=plan.measure,
        )
        live = registry.load(parent) if parent is not None else None
        snapshot, report = gate.judge(snapshot, live, readable(registry, live))
        self._record(registry, snapshot, report, index)

    def _record(self, registry: Registry, snapshot: Snapshot, report: Report, index: int) -> None:
        version = registry.publish(snapshot, report) if report.passed else None
        if version is None:
            registry.refuse(snapshot, report)
            log.warning("refused candidate of experience %d: %s", index, "; ".join(report.reasons))
        else:
            log.info("published version=%d experience=%d level=%s", version, index, snapshot.level)
            if snapshot.level == "major":
                log.warning("version=%d is a MAJOR release: not every row that was read can be read any more", version)
        facts = {"version": version, "experience": index, "space": snapshot.space.id, "report": report.as_dict()}
        self.progress.versions.append(facts)
        self._tell("published" if version else "refused", facts)

    def _held_out(self, index: int) -> Batch:
        """Return the samples that no training step has seen, of all experiences up to `index`."""
        parts = []
        for i in range(index + 1):
            experience = self._training[i]
            test = experience.test
            if not hasattr(test, "y"):
                raise DataError("the gate needs held-out samples in memory; cut the scenario from batches or from_data")
            batches = experience.batches(4096, None, self.learner.labels, test=True)
            parts += list(batches)
        return Batch.cat(parts)

    def _tell(self, kind: str, facts: Mapping[str, Any]) -> None:
        if self._notify:
            self._notify(kind, facts)

    def _commit(self, commits: Checkpoints | None) -> None:
        if commits:
            commits.commit({"learner": self.learner.state(), "progress": asdict(self.progress)})

    def _resume(self, commits: Checkpoints | None) -> None:
        state = self.learner.ranks.told(commits.latest() if commits else None)
        if state is None:
            return
        self.learner.restore(state["learner"])
        self.progress = Progress(**state["progress"])
        self._tell("resumed", plain(self.learner))
        log.info("resumed at step=%d", self.learner.counters["steps"])


def same_run(folder: Path, about: Mapping[str, Any]) -> None:
    """Note in `run.json` what is run in `folder`; raise `ConfigError` if it is something else by now."""
    path = folder / "run.json"
    about = files.parse_json(files.canonical_json(dict(about)))
    if not path.exists():
        files.write_atomic(path, files.canonical_json(about))
        return
    found = files.parse_json(files.read_file(path))
    different = sorted(k for k in {*about, *found} if about.get(k) != found.get(k))
    if different:
        raise ConfigError(
            f"{folder} holds another run (its {', '.join(different)} differ{'s' * (len(different) == 1)}); "
            f"use another --run folder, or delete this one"
        )


def readable(registry: Registry, live: Snapshot | None) -> list[Snapshot]:
    """Return the newest version of each older space that the live one reads."""
    if live is None:
        return []
    wanted, found = set(live.space.reads) - {live.space.id}, []
    for version in reversed(registry.versions()):
        if registry.manifest(version)["space"]["id"] in wanted:
            found.append(registry.load(version))
            wanted.discard(found[-1].space.id)
    return found


def plain(learner: Learner) -> dict[str, Any]:
    """Return the numbers of a learner that people watch: counters, position and its strategy's summary."""
    return {**learner.counters, **learner.position, **learner.strategy.summary()}
