"""What is tried beside the live version: a canary that answers some requests, a shadow that only listens.

One file in the registry, `ROLLOUT`, replaced as a whole; all workers of all servers follow it as they follow `CURRENT`.
The event is written before the file: who, when, from which live version, to which, with what share, and why.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, final

from lifelong import files
from lifelong.errors import ArtifactError, ConfigError, DataError, NotFound
from lifelong.release.registry import Event, Registry
from lifelong.release.timeline import Timeline

FILE = "ROLLOUT"
Kind = Literal["canary", "shadow"]


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """When a canary is stopped by the server that runs it.

    Args:
        errors: Share (0..1) of its requests that may fail; the live version answers those.
        nans: Answers that may be NaN or infinite where the live version's is not.
        agreement: Share (0..1) of compared samples on which it must name the live version's label.
        least: Requests, and compared samples, before a share counts.
    """

    errors: float = 0.02
    nans: int = 0
    agreement: float = 0.0
    least: int = 50

    def __post_init__(self) -> None:
        shares = (self.errors, self.agreement)
        if not all(0 <= share <= 1 for share in shares) or self.nans < 0 or self.least < 1:
            raise ConfigError(f"limits need shares in 0..1, nans from 0 and least from 1, got {asdict(self)}")


@final
@dataclass(frozen=True, slots=True)
class Trial:
    """A version beside the live one, and the share (0..1) of the requests that it gets."""

    version: int
    share: float


@final
@dataclass(frozen=True, slots=True)
class Rollout:
    """What is tried.

    Args:
        seq: Rises by one with each change.
        canary: Answers its share of the requests; None if there is none.
        shadow: Is asked as well, and its answers are compared; None if there is none.
        prepare: A version that every worker is to load, because it is about to go live.
        limits: Of the canary.
    """

    seq: int = 0
    canary: Trial | None = None
    shadow: Trial | None = None
    prepare: int | None = None
    limits: Limits = Limits()


@final
class Rollouts:
    """The file `ROLLOUT` of a registry.

    Args:
        registry: Whose versions are tried.
    """

    def __init__(self, registry: Registry) -> None:
        self.registry, self.path = registry, registry.root / FILE
        self._timeline = Timeline(registry.root)

    def read(self) -> Rollout:
        """Return what is tried; nothing, if there is no file.

        Raises:
            ArtifactError: The file is damaged.
        """
        try:
            value = files.parse_json(files.read_file(self.path))
            trials = {kind: Trial(**value[kind]) if value[kind] else None for kind in ("canary", "shadow")}
            return Rollout(value["seq"], **trials, prepare=value["prepare"], limits=Limits(**value["limits"]))
        except NotFound:
            return Rollout()
        except (DataError, ConfigError, KeyError, TypeError) as error:
            raise ArtifactError(f"{self.path} is damaged: {error}; remove it to stop all trials") from error

    def start(
        self,
        kind: Kind,
        version: int,
        share: float,
        *,
        who: str,
        why: str = "",
        limits: Limits | None = None,
        key: str = "",
    ) -> Rollout:
        """Try a version, after verifying it; what was tried in its place is stopped.

        With the `key` of an earlier call nothing is done again, unless what that call began was stopped under its key.

        Raises:
            DataError: The key was used for something else.
            ConfigError: The share is not in 0..1, or the version is live.
            NotFound: There is no such version.
            ArtifactError: It is damaged.
        """
        if not 0 < share <= 1:
            raise ConfigError(f"the share of a {kind} must be above 0 and at most 1, got {share}")
        self.registry.verify(version)
        self._writable()
        with self._timeline.writing():
            done = self._timeline.repeated(kind, key, version)
            if done and done != self._newest(kind):
                return self._read_or_nothing()
            if version == self._timeline.live():
                raise ConfigError(f"version {version} is live already; a {kind} is another one")
            if not done:
                about = {"kind": kind, "version": version, "previous": self._timeline.live(), "share": share}
                self._timeline.log.append(**about, who=who, why=why, key=key)
            fields: dict[str, Any] = {kind: Trial(version, share)}
            return self._write(**fields, **({"limits": limits or Limits()} if kind == "canary" else {}))

    def stop(self, kind: Kind, *, who: str, why: str, version: int | None = None, key: str = "") -> bool:
        """Stop a trial; return whether there was one (with `version`: of that version); `key` as of `start`."""
        self._writable()
        with self._timeline.writing():
            trial: Trial | None = getattr(self._read_or_nothing(), kind)
            done = self._timeline.log.keyed(key)
            repeated = done is not None and done.kind == "stop"
            if trial is None or version not in (None, trial.version) or (repeated and done != self._newest(kind)):
                return False
            about = {"kind": "stop", "version": trial.version, "previous": self._timeline.live(), "share": 0.0}
            if not repeated:
                self._timeline.log.append(**about, who=who, why=f"{kind}: {why}", key=key)
            fields: dict[str, Any] = {kind: None}
            self._write(**fields)
            return True

    def prepare(self, version: int | None) -> Rollout:
        """Ask every worker to load a version (None: no more); no event, for nothing that is served changes."""
        self._writable()
        with self._timeline.writing():
            return self._write(prepare=version)

    def _newest(self, kind: Kind) -> Event | None:
        """Return the last event about a kind of trial: whoever was killed after it left the file behind it."""
        ended = f"{kind}: "
        events = self._timeline.log.newest_first()
        return next((e for e in events if e.kind == kind or (e.kind == "stop" and e.why.startswith(ended))), None)

    def _writable(self) -> None:
        if not os.access(self.registry.root, os.W_OK):
            raise ConfigError(f"the registry {self.registry.root} cannot be written from here; mount it writable")

    def _read_or_nothing(self) -> Rollout:
        try:
            return self.read()
        except ArtifactError:
            return Rollout()

    def _write(self, **fields: Any) -> Rollout:  # noqa: ANN401 - the fields of Rollout
        before = self._read_or_nothing()
        made = replace(before, **fields, seq=before.seq + 1)
        files.write_atomic(self.path, files.canonical_json(asdict(made)))
        return made
