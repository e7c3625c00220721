"""The numbered folders of a registry: which there are, what their manifests say, and what follows from it."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, final

from lifelong import files
from lifelong.errors import ArtifactError, NotFound
from lifelong.release import manifest as manifests
from lifelong.release.spaces import Proof, proven_later
from lifelong.types import Space


@final
class Versions:
    """The folder `versions` of a registry.

    Args:
        root: The folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def numbers(self) -> list[int]:
        """Return all versions, oldest first."""
        names = [path.name for path in self.root.iterdir() if path.name.isdecimal()]
        return sorted(int(name) for name in names if name == f"{int(name):06d}")

    def folder(self, version: int) -> Path:
        """Return where a version is, or would be."""
        return self.root / f"{version:06d}"

    def found(self, version: int) -> Path:
        """Return where a version is.

        Raises:
            NotFound: There is no such version.
        """
        folder = self.folder(version)
        if not folder.is_dir():
            have = self.numbers()
            span = f"it has {len(have)}, from {have[0]} to {have[-1]}" if have else "it has none"
            raise NotFound(f"there is no version {version} in {self.root.parent}; {span}")
        return folder

    def manifest(self, version: int) -> dict[str, Any]:
        """Return the verified manifest of a version; raises like `found`, and `ArtifactError` if it is damaged."""
        return manifests.read_manifest(self.found(version))

    def newest_if_same(self, folder: Path) -> int | None:
        """Return the newest version if it has the content of `folder` and reads what that reads, else None."""
        newest = max(self.numbers(), default=None)
        if newest is None:
            return None
        ours = manifests.read_manifest(folder)
        with suppress(ArtifactError):
            theirs = self.manifest(newest)
            more = set(ours["space"]["reads"]) - set(theirs["space"]["reads"])
            return newest if manifests.content_id(ours) == manifests.content_id(theirs) and not more else None
        return None

    def commit(self, folder: Path, told: Iterable[int | None]) -> int:
        """Give the next number to a finished folder, and return it.

        Args:
            folder: Becomes the version.
            told: Numbers that were given before, newest first: none is used twice.
        """
        version = max([next(iter(told), None) or 0, *self.numbers()]) + 1
        while True:
            try:
                files.commit_folder(folder, self.folder(version))
            except FileExistsError:  # a writer that our lock does not reach
                version += 1
            else:
                return version

    def proven_later(self, version: int, space: Space) -> list[Proof]:
        """Return what later versions proved that queries of `space`, of `version`, read."""
        later = []
        for number in self.numbers():
            if number > version:
                with suppress(ArtifactError, NotFound):  # it says nothing, then
                    later.append(self.manifest(number))
        return proven_later(space, later)

    def breaks(self, version: int, since: int | None) -> bool:
        """Return whether `version`, or one that it descends from after `since`, is a major release.

        One whose manifest cannot be read says nothing, nor do those before it.
        """
        at: int | None = version
        with suppress(ArtifactError, NotFound):
            while at is not None and at != since:
                said = self.manifest(at)
                if said["level"] == "major":
                    return True
                at = said["parent"] if (said["parent"] or at) < at else None
        return False
