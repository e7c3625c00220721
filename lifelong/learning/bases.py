"""Large tensors in files that are named by their content, and stay as long as somebody names them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import final

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from lifelong import files
from lifelong.errors import ArtifactError, LifelongError
from lifelong.learning.packing import write_tensors
from lifelong.learning.patched import Base, Patched

NAME, SUFFIX = "base", ".safetensors"


@final
class Bases:
    """The files of a folder, which is made when the first one is kept.

    Args:
        folder: Where they are.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def keep(self, copy: Patched) -> str:
        """Write the base of a copy (a new one, if it is wanted) unless it is there already; return its sha256."""
        base = Base(copy.whole()) if copy.wish else copy.base
        if not base.sha256 or not self._path(base.sha256).exists():
            self.folder.mkdir(exist_ok=True)
            with files.scratch(self.folder) as aside:
                base.sha256, _ = write_tensors(aside / NAME, {NAME: base.tensor.cpu().contiguous()})
                (aside / NAME).replace(self._path(base.sha256))
            files.sync(self.folder)
        if copy.wish:
            copy.wish.base = base
        return base.sha256

    def load(self, sha256: str) -> Tensor:
        """Return a base, verified.

        Raises:
            ArtifactError: It is missing or altered.
        """
        path = self._path(sha256)
        try:
            data = files.read_file(path)
            if files.digest(data) != sha256:
                raise ArtifactError(f"{path} is altered: its sha256 is not its name")
            return safetensors.torch.load(data)[NAME]
        except (LifelongError, SafetensorError, KeyError) as error:
            raise ArtifactError(f"{path}: {error}") from error

    def sweep(self, wanted: Iterable[str]) -> None:
        """Remove what is not wanted, and what killed writers left."""
        if not self.folder.is_dir():
            return
        files.sweep(self.folder)
        names = {self._path(sha256).name for sha256 in wanted}
        for path in self.folder.glob(f"*{SUFFIX}"):
            if path.name not in names:
                path.unlink(missing_ok=True)

    def _path(self, sha256: str) -> Path:
        return self.folder / f"{sha256}{SUFFIX}"
