"""The pointer to the live version, and the events that explain how it got there.

The event is written first, then the pointer: who is killed in between leaves a pointer that is one step behind its
events, and both can be read all the time.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import final

from lifelong import files
from lifelong.errors import ArtifactError, ConfigError, DataError, NotFound
from lifelong.locks import FileLock
from lifelong.release.events import Event, EventLog
from lifelong.release.remote import COPY_OF, Remote
from lifelong.release.report import Report


@final
@dataclass(frozen=True)
class Pointer:
    """What is live: a version, and `seq`, which rises by one with each change."""

    version: int
    seq: int


@final
class Timeline:
    """The pointer `CURRENT`, the folder `events` and the writers' lock in a registry.

    Args:
        root: The registry's folder.
        remote: The store that the folder is a copy of.
    """

    def __init__(self, root: Path, remote: Remote | None = None) -> None:
        self.path, self.log, self._lock = root / "CURRENT", EventLog(root / "events"), root / ".lock"
        self._remote = remote

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Let one writer at a time move the pointer; the lock goes with its process, however that ends.

        Raises:
            ConfigError: The folder is a copy of a store, and was not opened as one.
            Unavailable: The store cannot be reached; what was written here is brought there the next time.
        """
        if self._remote is None and (self.path.parent / COPY_OF).exists():
            where = files.read_file(self.path.parent / COPY_OF).decode().strip()
            raise ConfigError(f"{self.path.parent} is a copy of {where}; write there: lifelong registry ... {where}")
        with FileLock(self._lock):
            for folder in (self.path.parent, self.log.folder):
                files.sweep(folder)
            if self._remote:
                self._remote.pull()
            yield
            if self._remote:
                self._remote.push()

    def remedy(self) -> str:
        """Return what to do about a pointer that leads nowhere."""
        return f"choose a version: lifelong registry promote {self.path.parent} VERSION"

    def pointer(self) -> Pointer | None:
        """Return the pointer, or None if there is none.

        Raises:
            ArtifactError: It is damaged.
        """
        try:
            value = files.parse_json(files.read_file(self.path))
        except NotFound:
            return None
        except DataError as error:
            raise ArtifactError(f"the pointer {self.path} is damaged: {error}; {self.remedy()}") from error
        if not isinstance(value, dict) or set(value) != {"version", "seq"}:
            raise ArtifactError(f"the pointer {self.path} does not hold a version and a seq; {self.remedy()}")
        if any(type(number) is not int or number < 1 for number in value.values()):
            raise ArtifactError(f"the pointer {self.path} holds {value}, not two numbers from 1; {self.remedy()}")
        return Pointer(**value)

    def live(self) -> int | None:
        """Return the version that the pointer names; None if there is none or it is damaged."""
        with suppress(ArtifactError):
            found = self.pointer()
            return found.version if found else None
        return None

    def repeated(self, kind: str, key: str, version: int | None = None) -> Event | None:
        """Return the event of an earlier call with this key, complete; None if there is none, or it was undone.

        The caller holds the lock: a pointer that was not moved, because the first call was killed, is moved now.

        Raises:
            DataError: The key was used for something else.
        """
        found = self.log.keyed(key)
        if found is None or (found.kind == "stop" != kind):
            return None
        if found.kind != kind or version not in (None, found.version):
            raise DataError(
                f"the key {key!r} was used before, to {found.kind} version {found.version}; make one per call"
            )
        moved = next((event for event in self.log.newest_first() if event.pointer), None)
        if moved == found and found.version and self.live() != found.version:
            self._set(Pointer(found.version, found.pointer or 1))
        return found

    def point(
        self,
        kind: str,
        version: int,
        who: str,
        why: str = "",
        report: Report | None = None,
        *,
        move: bool = True,
        key: str = "",
    ) -> None:
        """Write an event about `version`, then (with `move`) make it live. The caller holds the lock.

        Raises:
            ArtifactError: A folder is where the pointer should be.
        """
        if self.path.is_dir():
            raise ArtifactError(f"the pointer {self.path} is a folder; remove it, then {self.remedy()}")
        seq = self._last_seq() + 1 if move else None
        about = {"kind": kind, "version": version, "previous": self.live(), "pointer": seq}
        self.log.append(**about, who=who, why=why, report=report, key=key)
        if seq is not None:
            self._set(Pointer(version, seq))

    def resume(self, version: int, who: str, report: Report | None, *, move: bool) -> None:
        """Do what a killed `point("publish", version, ...)` left undone. The caller holds the lock.

        Nothing is undone that happened since: if it was live once, it is not made live again.
        """
        events = list(self.log.newest_first())
        if not any(event.kind == "publish" and event.version == version for event in events):
            self.point("publish", version, who, report=report, move=move)
            return
        moves = [event for event in events if event.pointer is not None]
        if move and not any(event.version == version for event in moves):
            self.point("promote", version, who, "published again, to be live")
        elif move and moves[0].version == version and self.live() != version:
            self._set(Pointer(version, moves[0].pointer or 1))  # its event was written, the pointer was not

    def history(self, newest: int | None = None) -> list[Event]:
        """Return the `newest` events, or all, oldest first."""
        return [*islice(self.log.newest_first(), newest)][::-1]

    def _last_seq(self) -> int:
        told = next((event.pointer for event in self.log.newest_first() if event.pointer), 0)
        with suppress(ArtifactError):
            found = self.pointer()
            return max(told, found.seq if found else 0)
        return told

    def _set(self, pointer: Pointer) -> None:
        files.write_atomic(self.path, files.canonical_json(vars(pointer)))
