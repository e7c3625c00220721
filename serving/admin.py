"""Which version is served: every call writes to the registry, and every worker of every server follows it there.

A promotion has two steps: all workers of this server load the version, warm it up and say so; then the pointer
moves. If one of them refuses it, nothing moves. A call with an idempotency key is done once, whichever worker it
reaches how often: the key is in the registry's event.
"""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any

from lifelong.errors import LifelongError, NotFound, Refused, Unavailable
from lifelong.release.registry import Registry
from lifelong.release.rollout import Kind, Limits, Rollout, Rollouts
from serving import answers, decode, forms
from serving.crew import Crew
from serving.endpoints import Routes, endpoint
from serving.runtime import Runtime

PAUSE = 0.01  # seconds between two looks at what the workers say


class Admin(Routes):
    """What changes what is served."""

    @endpoint("/v1/admin/promote")
    def promote(self, form: forms.PromoteForm) -> answers.Moved:
        """Let every worker load a version, then make it live; refused if one of them does not let it in."""
        version, why = decode.integer(form.version, "version", 1, 10**9), decode.note(form.why)
        registry, who, key = self.runtime.registry(), _who(form), form.exchange.once
        rollouts, before = Rollouts(registry), registry.current()
        registry.manifest(version)  # there is such a version
        rollout = rollouts.prepare(version)
        try:
            prepared(self.runtime.crew, rollout, version, self.runtime.settings.timeout_seconds / 2)
            registry.promote(version, who=who, why=why, key=key)
        finally:
            rollouts.prepare(None)
        _end_trials(rollouts, registry.current(), who)
        return self._moved(form, registry, version, before)

    @endpoint("/v1/admin/rollback")
    def rollback(self, form: forms.RollbackForm) -> answers.Moved:
        """Go back to a version, by default the one that was live before; at once where it is still in memory."""
        registry, why = self.runtime.registry(), decode.note(form.why)
        to = None if form.to is None else decode.integer(form.to, "to", 1, 10**9)
        before = registry.current()
        version = registry.rollback(to, who=_who(form), why=why, key=form.exchange.once)
        _end_trials(Rollouts(registry), registry.current(), _who(form))
        return self._moved(form, registry, version, before)

    @endpoint("/v1/admin/canary")
    def canary(self, form: forms.CanaryForm) -> answers.RolloutState:
        """Let a version answer a share of the requests; share 0 ends it."""
        limits = Limits(
            errors=decode.share(form.errors, "errors"),
            nans=decode.integer(form.nans, "nans", 0, 10**9),
            agreement=decode.share(form.agreement, "agreement"),
            least=decode.integer(form.least, "least", 1, 10**9),
        )
        return self._try("canary", form, limits)

    @endpoint("/v1/admin/shadow")
    def shadow(self, form: forms.ShadowForm) -> answers.RolloutState:
        """Ask a version as well, and compare what it says; clients never see it. Share 0 ends it."""
        return self._try("shadow", form, None)

    def _try(self, kind: Kind, form: forms.TrialForm, limits: Limits | None) -> answers.RolloutState:
        rollouts, why = Rollouts(self.runtime.registry()), decode.note(form.why)
        share, key = decode.share(form.share, "share"), form.exchange.once
        if share == 0:
            rollouts.stop(kind, who=_who(form), why=why, key=key)
        else:
            version = decode.integer(form.version, "version", 1, 10**9)
            rollout = rollouts.start(kind, version, share, who=_who(form), why=why, limits=limits, key=key)
            try:
                prepared(self.runtime.crew, rollout, version, self.runtime.settings.timeout_seconds / 2)
            except LifelongError as error:
                rollouts.stop(kind, who=_who(form), why=str(error), version=version, key=key)
                raise
        return rollout_state(self.runtime, form.request_id)

    def _moved(self, form: forms.Form, registry: Registry, version: int, before: int | None) -> answers.Moved:
        pointer, done = registry.pointer(), registry.done(form.exchange.once)
        return answers.Moved(
            version=self.runtime.version(),
            request_id=form.request_id,
            live=version,
            previous=done.previous if done else before,
            sequence=(done.pointer if done else pointer.seq if pointer else None) or 0,
        )


def prepared(crew: Crew, rollout: Rollout, version: int, seconds: float) -> None:
    """Wait until every worker of this server holds `version` ready.

    Raises:
        Refused: One of them did not let it in; the message says why.
        Unavailable: It took too long.
    """
    until = time.monotonic() + seconds
    while True:
        reports = crew.read()
        for report in reports:
            if report.rollout >= rollout.seq and str(version) in report.refused:
                raise Refused(f"worker {report.pid} refused version {version}: {report.refused[str(version)]}")
        if reports and all(r.rollout >= rollout.seq and version in (*r.ready, r.version) for r in reports):
            return
        if time.monotonic() > until:
            raise Unavailable(f"version {version} was not ready in every worker in {seconds:g} s; nothing was changed")
        time.sleep(PAUSE)


def rollout_state(runtime: Runtime, request_id: str) -> answers.RolloutState:
    """Return what is tried beside the live version, and what this worker saw of it."""
    try:
        rollout = Rollouts(runtime.registry()).read()
    except NotFound:  # no registry yet
        rollout = Rollout()
    told = {key: tally.numbers() for key, tally in list(runtime.mirror.tallies.items())}

    def trial(kind: Kind) -> answers.Trial | None:
        found = getattr(rollout, kind)
        seen: dict[str, Any] = told.get((kind, found.version), {}) if found else {}
        return answers.Trial(version=found.version, share=found.share, seen=seen) if found else None

    return answers.RolloutState(
        version=runtime.version(),
        request_id=request_id,
        sequence=rollout.seq,
        live=_live(runtime, told),
        canary=trial("canary"),
        shadow=trial("shadow"),
        limits=asdict(rollout.limits),
        workers=[answers.Worker(**asdict(report)) for report in runtime.crew.read()],
    )


def _live(runtime: Runtime, told: dict[tuple[str, int], dict[str, Any]]) -> answers.Trial | None:
    version = runtime.version()
    return answers.Trial(version=version, share=1.0, seen=told.get(("live", version), {})) if version else None


def _end_trials(rollouts: Rollouts, version: int | None, who: str) -> None:
    for kind in ("canary", "shadow"):
        rollouts.stop(kind, who=who, why="it is live now", version=version)


def _who(form: forms.Form) -> str:
    return f"http:{form.exchange.who or 'anybody'}"
