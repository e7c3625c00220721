"""One atomic commit of everything a run needs to go on, bit for bit.

```
folder/00000042/state.safetensors   every tensor of the state, by its path
folder/00000042/manifest.json       the plain values, size and sha256 of the tensors, sha256 of itself
```
A commit is written aside, flushed, and renamed: a kill -9 at any moment leaves the old commits, or these and the
new one. Loading verifies, and falls back to the newest commit that does, saying so.
"""

from __future__ import annotations

import logging
import shutil
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self, final

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from lifelong import files
from lifelong.errors import ArtifactError, ConfigError, DataError, LifelongError

log = logging.getLogger("lifelong.checkpoint")

FORMAT = "lifelong-checkpoint-1"
TENSORS, MANIFEST = "state.safetensors", "manifest.json"
MARK = "$tensor"

State = dict[str, Any]


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

    def commit(self, state: State) -> int:
        """Write `state` (nested dicts and lists of tensors and plain values); return its number."""
        self.wait()
        return self._write(*pack(state, copy=False))

    def start(self, state: State) -> None:
        """Write `state` in a thread while the caller goes on; `wait` says what came of it.

        Args:
            state: Not to be changed any more; what a `state()` of ours gives is a copy, and stays as it is.

        Raises:
            OSError: The commit before this one could not be written; nothing was started.
        """
        self.wait()
        self._running = self._writer.submit(self._write, *pack(state, copy=False))

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

    def _write(self, tensors: dict[str, Tensor], plain: Any) -> int:  # noqa: ANN401 - what was packed
        numbers = self.numbers()
        number = numbers[-1] + 1 if numbers else 1
        data = safetensors.torch.save(tensors)
        body = {"format": FORMAT, "state": plain, "sha256": files.digest(data), "size": len(data)}
        with files.scratch(self.folder) as aside:
            files.write_new(aside / TENSORS, data)
            files.write_new(
                aside / MANIFEST, files.canonical_json({**body, "self": files.digest(files.canonical_json(body))})
            )
            files.commit_folder(aside, self._path(number))
        for old in self.numbers()[: -self.keep]:
            shutil.rmtree(self._path(old), ignore_errors=True)
        return number

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
            state = unpack(tensors, body["state"])
        except (SafetensorError, KeyError) as error:
            raise ArtifactError(f"{path / TENSORS} does not hold what the manifest lists: {error}") from error
        assert isinstance(state, dict)
        return state

    def numbers(self) -> list[int]:
        """Return the numbers of all commits, oldest first."""
        return sorted(int(p.name) for p in self.folder.iterdir() if p.name.isdecimal() and p.is_dir())

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:08d}"


def pack(state: State, copy: bool = True) -> tuple[dict[str, Tensor], Any]:
    """Return the tensors of a nested state by path, and the rest with a mark where each tensor was.

    Args:
        state: Nested dicts and lists of tensors and plain values.
        copy: Of every tensor; else only of those that share memory with others, or are not contiguous on the CPU.

    Raises:
        DataError: A key is no string, or the mark itself. (A value that is neither a tensor nor plain is refused when
            the rest is written as JSON.)
    """
    tensors: dict[str, Tensor] = {}
    seen: set[int] = set()  # where the memory of those that were not copied begins

    def walk(value: object, path: str) -> object:
        if isinstance(value, Tensor):
            mine = value.detach().cpu()
            memory = mine.untyped_storage()
            alone = memory.nbytes() == mine.nbytes and memory.data_ptr() not in seen
            tensors[path] = mine if alone and mine.is_contiguous() and not copy else mine.clone().contiguous()
            seen.add(memory.data_ptr())
            return {MARK: path}
        if isinstance(value, dict):
            if odd := [key for key in value if not isinstance(key, str) or key == MARK]:
                raise DataError(f"the state has the key {odd[0]!r} in {path or 'its top'}; use other names")
            return {key: walk(item, f"{path}/{_escaped(key)}") for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [walk(item, f"{path}/{i}") for i, item in enumerate(value)]
        return value

    return tensors, walk(state, "")


def _escaped(key: str) -> str:
    return key.replace("~", "~0").replace("/", "~1")  # as in a JSON pointer: two keys never make the same path


def unpack(tensors: dict[str, Tensor], plain: Any) -> Any:  # noqa: ANN401 - what was packed
    """Return the nested state that `pack` took apart (tuples come back as lists)."""
    if isinstance(plain, dict):
        if set(plain) == {MARK}:
            return tensors[plain[MARK]]
        return {key: unpack(tensors, value) for key, value in plain.items()}
    if isinstance(plain, list):
        return [unpack(tensors, value) for value in plain]
    return plain
