"""The daemon over a source: every sample is learned once, whatever is killed and whenever.

One commit holds model, optimizer, strategy, buffers, generators, labels, the ids seen, dead letters, the gate's
samples, counts and the positions in the source. After a crash the same command goes on from the newest commit that
verifies; what had been learned since is learned again, from the same records, to the same bits.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from threading import Event
from typing import Any, final

from lifelong.daemon import Notify, Stopped, same_run
from lifelong.following.facts import facts
from lifelong.following.guard import finite
from lifelong.following.intake import Intake
from lifelong.following.portion import Portion
from lifelong.following.publisher import Publisher
from lifelong.following.reload import apply, changes
from lifelong.following.salvage import salvage
from lifelong.following.saving import LOCKED, introduce, pin, until_written
from lifelong.following.schema import Schema
from lifelong.following.settings import Follow
from lifelong.following.trainee import Trainee
from lifelong.learning import Learner
from lifelong.learning.checkpoint import Checkpoints, State, copied
from lifelong.locks import FileLock
from lifelong.plan import Plan
from lifelong.release.registry import Registry
from lifelong.sources.base import Source

log = logging.getLogger("lifelong.following")


@final
class Follower:
    """Follows a source with a learner.

    Args:
        make: Returns a fresh learner, always with the same arguments.
        source: Of the samples; closed by its owner.
        run: Folder of the run.
        registry: Where versions go; None only trains.
        plan: `commit_every`, `held_out`, `seed` and what the gate is told; the rest is for scenarios.
        settings: How the stream is followed.
        notify: Told of `step`, `boundary`, `drift`, `published`, `refused`, `resumed`, `rollback`, `committed`, ...
        about: What is being run, as plain values; a run that goes on must agree with it.
        recipe: What the learner is made of, for whoever makes a version again.
    """

    def __init__(
        self,
        make: Callable[[], Learner],
        source: Source,
        run: Path | str,
        *,
        registry: Registry | None = None,
        plan: Plan | None = None,
        settings: Follow | None = None,
        notify: Notify | None = None,
        about: Mapping[str, Any] | None = None,
        recipe: Mapping[str, Any] | None = None,
    ) -> None:
        self.plan, self.settings = plan or Plan(), settings or Follow()
        self.run_folder, self.about, self.stop, self._notify = Path(run), dict(about or {}), Event(), notify
        told = {**self.about, "recipe": dict(recipe)} if recipe else self.about
        publisher = Publisher(registry, self.settings, self.plan, told, self._tell)
        self.trainee = Trainee(make, self.settings, publisher)
        schema = Schema.of(self.trainee.learner.model, self.settings.max_classes)
        self.intake = Intake(source, schema, self.settings, self.stop, self._idle)
        self._careful = -1  # up to this step every one is taken so that it can be taken back
        self._committed = 0.0, 0  # when, and after how many steps
        self._saved: dict[str, int] = {}  # positions of that commit

    def watch(self, notify: Notify) -> None:
        """Tell `notify` instead of whoever was told before."""
        self._notify = notify

    def run(self) -> dict[str, float]:
        """Follow the stream to its end, if it has one; return the test-then-train figures.

        Raises:
            Locked: Another process runs in this folder.
            ConfigError: The folder holds a run of something else.
            RetentionGap: Records were deleted before they were learned.
            Halted: Too many records cannot be learned, in this life or in the one before.
            Stopped: `stop` was set; everything is committed.
        """
        self.run_folder.mkdir(parents=True, exist_ok=True)
        commits = self.run_folder / "checkpoints"
        with (
            FileLock(self.run_folder / ".lock", LOCKED),
            Checkpoints(commits, self.settings.keep) as self._commits,
        ):
            same_run(self.run_folder, self.about)
            introduce(self.intake.source, self.run_folder)
            self._resume()
            while (portion := self._next()) is not None:
                self._learn(portion)
                self._when_due()
            if not self.stop.is_set():
                self.intake.finish()
                self._close()
                if self.trainee.publisher.wants(ended=True):
                    self._publish()
            self._commit()
            self.intake.hint(self._saved)
        if self.stop.is_set():
            raise Stopped(f"stopped after {self.facts()['samples']} samples; the same command goes on from there")
        return self.trainee.prequential.figures()

    def facts(self) -> dict[str, Any]:
        """Return the numbers that people watch."""
        return facts(self.trainee, self.intake)

    def change(self, settings: Follow) -> dict[str, Any]:
        """Go on with other settings, from a commit on; return what changed, by name.

        Raises:
            ConfigError: Something may not change while it runs; nothing has changed.
        """
        found = changes(self.settings, settings)
        if found:
            self._commit()  # what is repeated after a crash is repeated with the settings that it had
            self.settings, self._commits.keep = settings, settings.keep
            apply(settings, self.trainee, self.intake)
        return found

    @property
    def _steps(self) -> int:
        return self.trainee.learner.counters["steps"]

    def _next(self) -> Portion | None:
        learner = self.trainee.learner
        return self.intake.next(learner.batch_size, self.trainee.windows, learner.labels.tolist())

    def _learn(self, portion: Portion) -> None:
        before = self._copy() if self._steps < self._careful else None
        why, wrong = self.trainee.take(portion.rows, careful=before is not None)
        if why:
            if before is None:
                self._go_back(why)
                return
            self._restore(before)
            portion.rows, letters = salvage(portion.rows, why, self.trainee, self._copy, self._restore)
            portion.dead += letters
        self.intake.accept(portion)
        ends, drifted = self.trainee.ends(portion, wrong)
        if drifted:
            self._tell("drift", {"index": self.trainee.windows.index, "samples": self.facts()["samples"]})
        if ends:
            self._close()

    def _close(self) -> None:
        if samples := self.trainee.close():
            self._tell("boundary", {"index": self.trainee.windows.index - 1, "samples": samples})

    def _when_due(self) -> None:
        """Publish and commit if it is time, and say how far we are."""
        if self.intake.halted:
            self._commit()
            self.intake.refuse_if_halted(self.run_folder)
        if self.trainee.publisher.wants():  # before a commit: one that is due must never look as if it were not
            self._publish()
        if self._late() or self._steps - self._committed[1] >= self.plan.commit_every:
            self._commit(wait=False)
        self._tell("step", self.facts())

    def _late(self) -> bool:
        return time.monotonic() - self._committed[0] >= self.settings.commit_seconds > 0

    def _idle(self, why: str) -> None:
        """Say that there is nothing to learn, and do what the clock asks for all the same."""
        self._waits(why)
        if self.trainee.publisher.wants():
            self._publish()
        elif self._late() and (self._steps, self.intake.positions) != (self._committed[1], self._saved):
            self._commit(wait=False)

    def _publish(self) -> None:
        publisher, before = self.trainee.publisher, self.trainee.publisher.published
        publisher.decide()
        if self._commit():
            publisher.publish(self.trainee.learner, self.trainee.prequential.figures(), self.intake.range())
            if publisher.published > before and publisher.registry and publisher.last:
                pin(self._commits, publisher.registry, publisher.last, self.stop, self._waits)
            self._commit()

    def _commit(self, wait: bool = True) -> bool:
        """Save everything, at once or while training goes on; False if we are back at the last commit instead."""
        if not finite(self.trainee.learner.model):
            self._go_back("a weight is not a number")
            return False
        began = time.monotonic()
        until_written(self._commits.wait, self.stop, self._waits)
        self.intake.hint(self._saved)
        save = self._commits.commit if wait else self._commits.start
        until_written(lambda: save(self._state()), self.stop, self._waits)
        self._committed, self._saved = (time.monotonic(), self._steps), dict(self.intake.positions)
        self._tell("committed", {"seconds": time.monotonic() - began})
        return True

    def _resume(self) -> None:
        state = self._commits.latest()
        if state is None:
            self.intake.seek()
            self._commit()
            return
        self._restore(state)
        self.intake.refuse_if_halted(self.run_folder)
        self._committed, self._saved = (time.monotonic(), self._steps), dict(self.intake.positions)
        self.intake.seek()
        self._tell("resumed", self.facts())
        if self.trainee.publisher.due:
            self._publish()

    def _go_back(self, why: str) -> None:
        """Restore the last commit; from there to here, every step is taken with care."""
        steps = self._steps + 1
        log.warning("step %d: %s; going back to the last commit to find the samples", steps, why)
        self._tell("rollback", {"step": steps, "why": why})
        with suppress(OSError):  # then an older one has to do
            self._commits.wait()
        state = self._commits.latest()
        assert state is not None  # the first thing a run does is to commit
        self._restore(state)
        self.intake.seek()
        self._careful = steps

    def _state(self) -> State:
        return {**self.trainee.state(), "intake": self.intake.state()}

    def _copy(self) -> State:
        return copied(self._state())

    def _restore(self, state: State) -> None:
        self.trainee.restore(state)
        self.intake.restore(state["intake"])

    def _waits(self, why: str) -> None:
        self._tell("waiting", {"why": why})

    def _tell(self, kind: str, facts: Mapping[str, Any]) -> None:
        if self._notify:
            self._notify(kind, facts)
