"""A gallery by where it is: a folder, or connection strings of PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lifelong.errors import ConfigError
from lifelong.gallery.embedded import EmbeddedGallery
from lifelong.gallery.pgvector import PgVectorGallery

SCHEMES = ("postgresql://", "postgres://")


def remote(location: str | Path | Sequence[str]) -> list[str]:
    """Return the connection strings that a location consists of, none if it is a folder.

    Args:
        location: A folder; a connection string, or several separated by spaces; or a list of them.

    Raises:
        ConfigError: Some parts are connection strings and others are not.

    >>> remote("postgresql://one/db postgresql://two/db")
    ['postgresql://one/db', 'postgresql://two/db']
    >>> remote("runs/state/gallery")
    []
    """
    if isinstance(location, Path):
        return []
    several = not isinstance(location, str)
    parts = list(location) if several else str(location).split()
    strings = [part for part in parts if part.startswith(SCHEMES)]
    if len(strings) < len(parts) and (several or strings):
        raise ConfigError(
            f"a gallery is one folder, or connection strings that begin with {SCHEMES[0]}; "
            f"got {len(strings)} of {len(parts)} parts that do"
        )
    return strings


def opened(
    location: str | Path | Sequence[str], *, readonly: bool = False, threads: int | None = None
) -> EmbeddedGallery | PgVectorGallery:
    """Open the gallery at a location; `threads` is of FAISS, where it is used. Raises what the galleries raise."""
    if strings := remote(location):
        return PgVectorGallery(strings, readonly=readonly)
    return EmbeddedGallery(Path(str(location)), readonly=readonly, threads=threads)
