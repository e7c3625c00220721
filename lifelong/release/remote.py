"""A registry in an object store: a folder on this machine that is its copy, read from and written to as a whole.

Whatever works with a registry works with the folder. `pull` brings what is new in the store, verified, into the folder;
`push` brings what is new in the folder into the store. In both directions a version's manifest comes after its files,
events after versions, and CURRENT, replaced as one object, last: whoever looks at the store at any moment sees versions
that are whole. What is there already is never written again; what somebody else has written is not overwritten.

One program at a time should write: two writers that meet are told so, unless they do it within the same moment.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, final

from lifelong import files
from lifelong.errors import DataError, LifelongError, Locked, NotFound, Unavailable
from lifelong.locks import FileLock
from lifelong.release.manifest import MANIFEST, PROBE, WEIGHTS, read_manifest, read_part

log = logging.getLogger("lifelong.registry")

CURRENT, COPY_OF, LOCK = "CURRENT", "COPY_OF", ".pull"
FOLDERS = ("versions", "events")
NEWEST = 3  # that are compared before something is written: two writers meet at the end


@final
class Remote:
    """The copy of a store in a folder.

    Args:
        where: `s3://BUCKET/PREFIX`, `gs://BUCKET/PREFIX`, `memory://NAME`: what fsspec knows.
        folder: Of the copy; made if it is not there.

    Raises:
        Unavailable: The client of this kind of store is not installed, or it refuses its settings.
    """

    def __init__(self, where: str, folder: Path) -> None:
        self.where, self.folder = where, folder
        for name in FOLDERS:
            (folder / name).mkdir(parents=True, exist_ok=True)
        with self._asked():
            import fsspec

            self._store, self._root = fsspec.core.url_to_fs(where)
        self._root = self._root.rstrip("/")
        if not (folder / COPY_OF).exists():
            files.write_atomic(folder / COPY_OF, f"{where}\n".encode())

    def pull(self) -> bool:
        """Bring what is new in the store here; return whether CURRENT has moved (False if another process is at it).

        Raises:
            Unavailable: The store cannot be reached; what is here stays as it is.
        """
        try:
            lock = FileLock(self.folder / LOCK, "it is copying; wait for it")
        except Locked:
            return False
        with lock, self._asked():
            names = self._names()
            for version in sorted({name.split("/")[1] for name in names if name.startswith("versions/")}):
                self._pull_version(version, [name for name in names if name.startswith(f"versions/{version}/")])
            for name in sorted(name for name in names if name.startswith("events/")):
                if not (self.folder / name).exists():
                    with suppress(FileExistsError):
                        files.create_exclusive(self.folder / name, self._get(name))
            return CURRENT in names and self._pull_current()

    def push(self) -> None:
        """Bring what is new here into the store.

        Raises:
            Unavailable: The store cannot be reached; what is here is brought by the next push.
            Locked: Somebody else has written there; what was written here is forgotten, and the copy made anew.
        """
        with self._asked():
            there = set(self._names())
            here = [p.relative_to(self.folder).as_posix() for name in FOLDERS for p in (self.folder / name).rglob("*")]
            new = sorted((name for name in here if self._is_new(name, there)), key=_order)
            if other := self._contradiction(there):
                self._forget()
                raise Locked(f"somebody else wrote {other} to {self.where} at the same time; try again")
            for name in new:
                self._put(name, (self.folder / name).read_bytes())
            with suppress(NotFound):
                self._put(CURRENT, files.read_file(self.folder / CURRENT))

    def _is_new(self, name: str, there: set[str]) -> bool:
        hidden = any(part.startswith(".") for part in name.split("/"))
        return not hidden and name not in there and (self.folder / name).is_file()

    def _contradiction(self, there: set[str]) -> str:
        """Return an event or a version that is another one there than here, empty if there is none."""
        for pattern in ("events/*.json", f"versions/*/{MANIFEST}"):
            mine = {path.relative_to(self.folder).as_posix() for path in self.folder.glob(pattern)}
            for name in sorted(mine & there)[-NEWEST:]:
                if self._get(name) != (self.folder / name).read_bytes():
                    return name
            if pattern.startswith("events") and (lost := {n for n in there if n.startswith("events/")} - mine):
                return min(lost)
        return ""

    def _forget(self) -> None:
        (self.folder / CURRENT).unlink(missing_ok=True)
        for name in FOLDERS:
            shutil.rmtree(self.folder / name)
            (self.folder / name).mkdir()

    def _pull_version(self, version: str, names: list[str]) -> None:
        final = self.folder / "versions" / version
        if final.exists() or f"versions/{version}/{MANIFEST}" not in names:
            return
        with files.scratch(self.folder / "versions") as aside:
            for name in names:
                if "/" not in (plain := name.removeprefix(f"versions/{version}/")):
                    files.write_new(aside / plain, self._get(name))
            try:
                manifest = read_manifest(aside)
                for part in (WEIGHTS, PROBE):
                    read_part(aside, manifest, part)
            except LifelongError as error:
                log.warning(
                    "version %s of %s is left out: %s", version, self.where, str(error).replace(str(aside), "it")
                )
                return
            with suppress(FileExistsError):
                files.commit_folder(aside, final)

    def _pull_current(self) -> bool:
        data = self._get(CURRENT)
        theirs, mine = _pointer(data), _pointer_of(self.folder / CURRENT)
        if theirs is None or (mine and mine["seq"] >= theirs["seq"]):
            return False
        if not (self.folder / "versions" / f"{theirs['version']:06d}").is_dir():
            raise NotFound(f"{self.where}/{CURRENT} names version {theirs['version']}, which is not there or not whole")
        files.write_atomic(self.folder / CURRENT, data)
        return True

    def _names(self) -> list[str]:
        self._store.invalidate_cache()
        found = self._store.find(self._root) if self._store.exists(self._root) else []
        return [str(name)[str(name).find(self._root) + len(self._root) :].lstrip("/") for name in found]

    def _get(self, name: str) -> bytes:
        data: bytes = self._store.cat_file(f"{self._root}/{name}")
        return data

    def _put(self, name: str, data: bytes) -> None:
        self._store.pipe_file(f"{self._root}/{name}", data)

    @contextmanager
    def _asked(self) -> Iterator[None]:
        try:
            yield
        except LifelongError:
            raise
        except ImportError as error:
            raise Unavailable(f"{self.where}: {error}; pip install 'lifelong[remote]'") from error
        except Exception as error:  # each store has errors of its own
            raise Unavailable(
                f"{self.where} cannot be reached: {type(error).__name__}: {error}; look at address and credentials"
            ) from error


def _order(name: str) -> tuple[bool, str, bool, str]:
    """Versions before events; in each version the manifest last."""
    folder, _, last = name.rpartition("/")
    return name.startswith("events/"), folder, last == MANIFEST, last


def _pointer(data: bytes) -> dict[str, Any] | None:
    with suppress(DataError):
        found = files.parse_json(data)
        if isinstance(found, dict) and all(type(found.get(key)) is int for key in ("version", "seq")):
            return found
    return None


def _pointer_of(path: Path) -> dict[str, Any] | None:
    with suppress(LifelongError):
        return _pointer(files.read_file(path))
    return None
