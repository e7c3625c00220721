"""Versions that this worker holds ready beside the live one: canary, shadow, and what is about to go live."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import final

from lifelong import files
from lifelong.errors import LifelongError
from lifelong.release.registry import Registry
from lifelong.release.rollout import FILE, Rollout, Rollouts
from serving.live import Live, brought, check_succession, manifest_id
from serving.rejected import Rejection, reason
from serving.shelf import Shelf
from serving.steps import gate

log = logging.getLogger("lifelong.serving")


@final
@dataclass(frozen=True, eq=False)
class Beside:
    """What is tried at one moment; replaced as a whole.

    Args:
        rollout: What the registry says.
        held: Versions that are loaded, warmed up, and fit the live one.
        refused: Why others are not.
    """

    rollout: Rollout = field(default_factory=Rollout)
    held: Mapping[int, Live] = field(default_factory=dict)
    refused: Mapping[int, str] = field(default_factory=dict)

    @property
    def canary(self) -> Live | None:
        """The canary, if it is ready."""
        trial = self.rollout.canary
        return self.held.get(trial.version) if trial else None

    @property
    def shadow(self) -> Live | None:
        """The shadow, if it is ready."""
        trial = self.rollout.shadow
        return self.held.get(trial.version) if trial else None


@final
class Trials:
    """Follows the registry's `ROLLOUT`.

    Args:
        shelf: The gallery, whose rows a candidate must read.
        reject: Is told of a candidate that was not let in.
    """

    def __init__(self, shelf: Shelf, reject: Callable[[Rejection], None]) -> None:
        self.shelf, self._reject = shelf, reject
        self.beside = Beside()
        self._seen: tuple[object, ...] = ()

    def find(self, version: int, sha256: str) -> Live | None:
        """Return a version that is ready, if it is the one with that checksum."""
        found = self.beside.held.get(version)
        return found if found and found.sha256 == sha256 else None

    def refresh(self, registry: Registry, live: Live | None) -> None:
        """Follow the file if it, or the live version, changed: load what is new, let go of what is not wanted."""
        stamp = files.signature(registry.root / FILE)
        seen = (stamp, live.version if live else None)
        if seen == self._seen:
            return
        self._seen = seen
        try:
            rollout = Rollouts(registry).read() if stamp else Rollout()
        except LifelongError as error:
            self._reject(Rejection(None, None, reason(error)))
            rollout = Rollout()
        self._follow(registry, rollout, live)

    def veto(self, version: int) -> None:
        """Stop a canary in this worker at once; the registry is told by who calls this."""
        rollout = self.beside.rollout
        if rollout.canary and rollout.canary.version == version:
            self.beside = replace(self.beside, rollout=replace(rollout, canary=None))

    def _follow(self, registry: Registry, rollout: Rollout, live: Live | None) -> None:
        wanted = {trial.version for trial in (rollout.canary, rollout.shadow) if trial} | {rollout.prepare}
        held: dict[int, Live] = {}
        refused: dict[int, str] = {}
        for version in sorted(wanted - {None, live.version if live else None}, key=lambda v: v or 0):
            assert version is not None
            try:
                held[version] = self._ready(registry, version, live)
            except Exception as error:  # noqa: BLE001 - whatever a bad artifact raises, the live version stays
                refused[version] = reason(error)
                self._reject(Rejection(version, None, reason(error), True, gate(error)))
        self.beside = Beside(rollout, held, refused)
        log.info("rollout seq=%d held=%s refused=%s", rollout.seq, sorted(held), sorted(refused))

    def _ready(self, registry: Registry, version: int, live: Live | None) -> Live:
        sha256 = manifest_id(registry, version)
        candidate = self.find(version, sha256) or brought(registry, version, sha256)
        back = live is not None and version < live.version
        rows = self.shelf.view().stats().by_space
        check_succession(
            candidate, live, rows, back=back, major=lambda: registry.breaks(version, live.version if live else None)
        )
        return replace(candidate, space=registry.space(version))
