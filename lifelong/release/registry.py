"""The registry: numbered versions, one pointer to the live one, and what happened; a folder, no server.

```
root/versions/000001/{manifest.json, weights.safetensors, probe.safetensors, report.json}   immutable
root/events/00000001.json                                                                   immutable
root/CURRENT                    {"seq": 3, "version": 2}, replaced as a whole
root/.lock                      held by whoever moves the pointer; readers never take it
```
A version appears by one rename, complete and verified; the event follows, then the pointer. Killed in between,
the next `publish` of the same content goes on where the last one stopped. Readers only read: a registry on a
read-only mount serves.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, final

from lifelong import files
from lifelong.errors import ArtifactError, ConfigError, DataError, NotFound, Refused
from lifelong.release import manifest as manifests
from lifelong.release.events import Event, lineage
from lifelong.release.remote import Remote
from lifelong.release.report import Report
from lifelong.release.snapshot import Snapshot
from lifelong.release.timeline import Pointer, Timeline
from lifelong.release.versions import Versions
from lifelong.types import Space

__all__ = ["Event", "Pointer", "Registry"]

REPORT = "report.json"


@final
class Registry:
    """The versions below a folder.

    Args:
        root: The folder, local or mounted; a read-only mount can be read.
        create: Make it if it is not there.
        remote: The store that the folder is a copy of (see `lifelong.release.locate`).

    Raises:
        NotFound: There is no registry, and `create` is not given.
    """

    def __init__(self, root: Path | str, *, create: bool = False, remote: Remote | None = None) -> None:
        self.root = Path(root)
        self._versions, self._timeline = self.root / "versions", Timeline(self.root, remote)
        self._kept = Versions(self._versions)
        if create:
            for folder in (self._versions, self._timeline.log.folder):
                folder.mkdir(parents=True, exist_ok=True)
        elif not self._versions.is_dir():
            raise NotFound(
                f"there is no registry in {self.root}; check the path, or let a trainer make it: "
                f"lifelong train --registry {self.root}"
            )

    def publish(
        self, snapshot: Snapshot, report: Report | None = None, *, who: str = "trainer", promote: bool = True
    ) -> int:
        """Store a snapshot under the next number, make it live, and return the number.

        If the newest version holds the same content already (model, weights, labels, training position) and reads
        at least the same spaces, that number is returned and only what is missing is done: a trainer that was
        killed may repeat its last step. What an operator rolled back since is not promoted again.

        Args:
            snapshot: As the gate returned it.
            report: The gate's; kept next to the snapshot.
            who: Program or person.
            promote: Make it live.

        Raises:
            Refused: The report says no.
            ArtifactError: The snapshot does not verify; nothing was stored.
        """
        if report is not None and not report.passed:
            raise Refused(f"the gate refused this snapshot: {'; '.join(report.reasons)}; nothing was published")
        self._writable()
        files.sweep(self._versions)
        with files.scratch(self._versions) as folder:
            snapshot.save(folder)
            if report is not None:
                files.write_new(folder / REPORT, files.canonical_json(report.as_dict()))
            Snapshot.load(folder)  # what does not verify must never get a number
            with self._timeline.writing():
                if version := self._same(folder):
                    self._timeline.resume(version, who, report, move=promote)
                else:
                    version = self._kept.commit(folder, self._told())
                    self._timeline.point("publish", version, who, _why(snapshot), report, move=promote)
        return version

    def refuse(self, snapshot: Snapshot, report: Report, who: str = "trainer") -> None:
        """Record that the gate refused a snapshot, and why; nothing else is stored."""
        self._writable()
        made = ", ".join(f"{key}={snapshot.training[key]}" for key in sorted(snapshot.training))
        why = "; ".join(report.reasons) + (f" ({made})" if made else "")
        with self._timeline.writing():
            live = self._timeline.live()
            self._timeline.log.append(kind="refuse", version=None, previous=live, who=who, why=why, report=report)

    def promote(self, version: int, who: str = "cli", why: str = "", key: str = "") -> None:
        """Make a version live after verifying it; `key` as of `rollback`.

        Raises:
            NotFound: There is no such version.
            ArtifactError: It is damaged; the live version stays.
        """
        self._writable()
        self.verify(version)
        with self._timeline.writing():
            if not self._timeline.repeated("promote", key, version):
                self._timeline.point("promote", version, who, why, key=key)

    def rollback(self, to: int | None = None, who: str = "cli", why: str = "", key: str = "") -> int:
        """Go back to a version, after verifying it, and return its number.

        Args:
            to: The version; None is the one that was live before the current one. Rolling back twice goes back
                twice, never to what the first rollback left.
            who: Program or person.
            why: For people.
            key: Of this call, if it may come twice: with the same key, nothing is done again.

        Raises:
            NotFound: There is no such version.
            ConfigError: Nothing was live before.
            ArtifactError: It is damaged; the live version stays.
            DataError: The key was used for something else.
        """
        self._writable()
        with self._timeline.writing():
            if done := self._timeline.repeated("rollback", key, to):
                return int(done.version or 0)
            if to is None:
                before = lineage(self.history())[:-1]
                if not before:
                    raise ConfigError("no version was live before it; name one: lifelong registry list REGISTRY")
                to = before[-1]
            self.verify(to)
            self._timeline.point("rollback", to, who, why, key=key)
        return to

    def done(self, key: str) -> Event | None:
        """Return what a call with this key did; None if nothing, or long ago."""
        return self._timeline.log.keyed(key)

    def pointer(self) -> Pointer | None:
        """Return what is live, or None if nothing was ever promoted.

        Raises:
            ArtifactError: The pointer is damaged.
            NotFound: It names a version that is not there.
        """
        found = self._timeline.pointer()
        if found is not None and not self._kept.folder(found.version).is_dir():
            raise NotFound(
                f"{self._timeline.path} names version {found.version}, which is not there; {self._timeline.remedy()}"
            )
        return found

    def current(self) -> int | None:
        """Return the live version, or None; raises like `pointer`."""
        found = self.pointer()
        return found.version if found else None

    def versions(self) -> list[int]:
        """Return all versions, oldest first."""
        return self._kept.numbers()

    def load(self, version: int, *, rebuild: bool = True) -> Snapshot:
        """Return a version, verified; see `Snapshot.load`, also for `rebuild`.

        It reads the spaces of its manifest, and those of later versions that proved that it reads them.

        Raises:
            NotFound: There is no such version.
            ArtifactError: It is damaged.
        """
        own = Snapshot.load(self._kept.found(version), rebuild=rebuild)
        return replace(own.with_proofs([*own.proofs, *self._kept.proven_later(version, own.space)]), version=version)

    def space(self, version: int) -> Space:
        """Return the space of a version and what it reads by now, without its weights; raises like `manifest`."""
        told = self.manifest(version)["space"]
        own = Space(told["id"], told["dim"], frozenset(told["reads"]), told["family"])
        return replace(own, reads=own.reads | {proof["space"] for proof in self._kept.proven_later(version, own)})

    def breaks(self, version: int, since: int | None) -> bool:
        """Return whether a major release lies on the way from `since` to `version`, it included."""
        return self._kept.breaks(version, since)

    def manifest(self, version: int) -> dict[str, Any]:
        """Return the verified manifest of a version without reading its weights; raises like `load`."""
        return self._kept.manifest(version)

    def report(self, version: int) -> Report | None:
        """Return what the gate said of a version, or None if it was published without; raises like `load`."""
        path = self._kept.found(version) / REPORT
        try:
            return Report.from_dict(files.parse_json(files.read_file(path)))
        except NotFound:
            return None
        except (ArtifactError, DataError) as error:
            raise manifests.damaged(path, str(error)) from error

    def verify(self, version: int) -> None:
        """Raise unless every file of a version is whole and its model answers as the trainer's did.

        Raises:
            NotFound: There is no such version.
            ArtifactError: It is damaged.
        """
        self.load(version)
        self.report(version)

    def history(self, newest: int | None = None) -> list[Event]:
        """Return what happened, oldest first; only the newest events, if a number is given.

        Raises:
            ArtifactError: An event file is damaged.
        """
        return self._timeline.history(newest)

    def _told(self) -> Iterator[int | None]:
        return (event.version for event in self._timeline.log.newest_first() if event.kind == "publish")

    def _writable(self) -> None:
        if not os.access(self._versions, os.W_OK):
            raise ConfigError(f"the registry {self.root} cannot be written from here; do it where it is not read-only")

    def _same(self, folder: Path) -> int | None:
        """Return the newest version if it already holds what is in `folder`, and is whole."""
        with suppress(ArtifactError):
            if newest := self._kept.newest_if_same(folder):
                self.verify(newest)
                return newest
        return None


def _why(snapshot: Snapshot) -> str:
    return "MAJOR: not every row that was read until now can be read from here on" if snapshot.level == "major" else ""
