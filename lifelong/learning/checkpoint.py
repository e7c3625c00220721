"""One atomic commit of everything a run needs to go on, bit for bit.

```
folder/00000042/state.safetensors   every tensor of the state, by its path; of a large memory the rows that changed
folder/00000042/manifest.json       the plain values, size and sha256 of the tensors, sha256 of itself
folder/bases/SHA256.safetensors     a large memory as it was once; shared by the commits whose manifests name it
folder/pins.json                    which commit each version was made from that the registry still wants
```
A commit is written aside, flushed, and renamed: a kill -9 at any moment leaves the old commits, or these and the
new one. Loading verifies, and falls back to the newest commit that does, saying so. A base that nobody names goes.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Collection, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, Self, final

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from lifelong import files
from lifelong.errors import ArtifactError, ConfigError, LifelongError
from lifelong.learning.bases import Bases
from lifelong.learning.packing import MARK, State, copied, pack, unpack, write_tensors
from lifelong.learning.patched import Patched

__all__ = ["MARK", "Checkpoints", "State", "copied", "pack", "unpack"]

log = logging.getLogger("lifelong.checkpoint")

FORMAT = "lifelong-checkpoint-2"
TENSORS, MANIFEST, PINS = "state.safetensors", "manifest.json", "pins.json"


@final
class Checkpoints:
    """The commits of one run.

    Args:
        folder: Where they live; made if it is not there.
        keep: How many to retain, >= 1; more than one leaves something to fall back to.
    """

    def __init__(self, folder: Path | str, keep: int = 2) -> None:
        if keep < 1:
            raise ConfigError(f"keep at least 1 checkpoint, got keep={keep}")
        self.folder, self.keep = Path(folder), keep
        self.folder.mkdir(parents=True, exist_ok=True)
        files.sweep(self.folder)
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="commit")
        self._running: Future[int] | None = None
        self._bases, self._names = Bases(self.folder / "bases"), dict[int, Collection[str]]()

    def commit(self, state: State) -> int:
        """Write `state` (nested dicts and lists of tensors and plain values); return its number."""
        self.wait()
        return self._write(*_packed(state))

    def start(self, state: State) -> None:
        """Write `state` in a thread while the caller goes on; `wait` says what came of it.

        Args:
            state: Not to be changed any more; what a `state()` of ours gives is a copy, and stays as it is.

        Raises:
            OSError: The commit before this one could not be written; nothing was started.
        """
        self.wait()
        self._running = self._writer.submit(self._write, *_packed(state))

    def wait(self) -> None:
        """Wait for the commit that was started, if there is one.

        Raises:
            OSError: It could not be written; the ones before it are there.
        """
        running, self._running = self._running, None
        if running is not None:
            running.result()

    def __enter__(self) -> Self:
        """Return the commits."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the thread, and with it the commit that is being written."""
        self._writer.shutdown()

    def pin(self, versions: Mapping[int, int]) -> None:
        """Keep the commits that versions were made from, beside the last ones; those that are not named go in time.

        Args:
            versions: Number of a commit, by version.
        """
        files.write_atomic(self.folder / PINS, files.canonical_json({str(v): n for v, n in versions.items()}))

    def pins(self) -> dict[int, int]:
        """Return the number of the commit of each version that is pinned."""
        try:
            found = files.parse_json(files.read_file(self.folder / PINS))
            return {int(version): int(number) for version, number in found.items()}
        except (LifelongError, AttributeError, TypeError, ValueError):  # lost or damaged: nothing is kept longer
            return {}

    def _write(self, tensors: dict[str, Tensor], plain: Any, bases: Mapping[str, Patched]) -> int:  # noqa: ANN401
        numbers = self.numbers()
        number = numbers[-1] + 1 if numbers else 1
        named = {path: self._bases.keep(copy) for path, copy in bases.items()}
        with files.scratch(self.folder) as aside:
            sha256, size = write_tensors(aside / TENSORS, tensors)
            body = {"format": FORMAT, "state": plain, "sha256": sha256, "size": size, "bases": named}
            files.write_new(
                aside / MANIFEST, files.canonical_json({**body, "self": files.digest(files.canonical_json(body))})
            )
            files.commit_folder(aside, self._path(number))
        self._retain()
        return number

    def _retain(self) -> None:
        """Remove the commits that are too many, and the bases that none of the others names."""
        wanted = {*self.numbers()[-self.keep :], *self.pins().values()}
        for old in set(self.numbers()) - wanted:
            shutil.rmtree(self._path(old), ignore_errors=True)
        self._bases.sweep(name for number in self.numbers() for name in self._named(number))

    def _named(self, number: int) -> Collection[str]:
        """Return the bases that a commit names; manifests do not change, so each is read once."""
        if number not in self._names:
            with suppress(LifelongError, AttributeError, TypeError):  # what is damaged needs nothing any more
                found = files.parse_json(files.read_file(self._path(number) / MANIFEST))
                self._names[number] = frozenset(found.get("bases", {}).values())
        return self._names.get(number, ())

    def latest(self) -> State | None:
        """Return the newest state that verifies, None if there never was one.

        Raises:
            ArtifactError: There are commits, and none verifies.
        """
        broken: list[str] = []
        for number in reversed(self.numbers()):
            try:
                state = self.load(number)
            except ArtifactError as error:
                broken.append(str(error))
                log.warning("checkpoint %d is damaged, going back to the one before: %s", number, error)
            else:
                return state
        if broken:
            raise ArtifactError(f"no checkpoint in {self.folder} verifies: {broken[0]}; start anew in another folder")
        return None

    def load(self, number: int) -> State:
        """Return the state of commit `number`, verified.

        Raises:
            ArtifactError: A file is missing, altered, or not ours.
        """
        path = self._path(number)
        try:
            manifest = files.parse_json(files.read_file(path / MANIFEST))
            data = files.read_file(path / TENSORS)
            body = {k: v for k, v in manifest.items() if k != "self"} if isinstance(manifest, dict) else {}
            seal = files.digest(files.canonical_json(body))
        except LifelongError as error:
            raise ArtifactError(f"{path}: {error}") from error
        if body.get("format") != FORMAT or seal != manifest.get("self"):
            raise ArtifactError(f"{path / MANIFEST} is altered, or not a checkpoint of this version")
        if files.digest(data) != body["sha256"]:
            raise ArtifactError(f"{path / TENSORS} is altered: its sha256 is not the one in the manifest")
        try:
            # Copies: what was read lies anywhere in memory, and sums may round otherwise where it is not aligned.
            tensors = {name: tensor.clone() for name, tensor in safetensors.torch.load(data).items()}
            bases = {at: self._bases.load(name) for at, name in body["bases"].items()}
            state = unpack(tensors, body["state"], bases)
        except (SafetensorError, KeyError) as error:
            raise ArtifactError(f"{path / TENSORS} does not hold what the manifest lists: {error}") from error
        assert isinstance(state, dict)
        return state

    def numbers(self) -> list[int]:
        """Return the numbers of all commits, oldest first."""
        return sorted(int(p.name) for p in self.folder.iterdir() if p.name.isdecimal() and p.is_dir())

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:08d}"


def _packed(state: State) -> tuple[dict[str, Tensor], Any, dict[str, Patched]]:
    """Return tensors, plain values, and what comes in parts, of a state that nobody changes in place."""
    bases: dict[str, Patched] = {}
    return *pack(state, copy=False, bases=bases), bases
