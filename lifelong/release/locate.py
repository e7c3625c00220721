"""From what a person types to a registry."""

from __future__ import annotations

from pathlib import Path

from lifelong import files
from lifelong.errors import ConfigError, NotFound
from lifelong.release.registry import Registry
from lifelong.release.remote import Remote


def is_remote(where: Path | str) -> bool:
    """Return whether `where` is an address and not a folder."""
    return "://" in str(where) and not str(where).startswith("file://")


def locate(where: Path | str, *, create: bool = False, copy: Path | None = None) -> Registry:
    """Return the registry that `where` names.

    Args:
        where: A folder, or the address of a store that fsspec knows, such as `s3://BUCKET/PREFIX`.
        create: Make it if it is not there.
        copy: Folder for the copy of a store; by default one below `~/.cache/lifelong`.

    Raises:
        NotFound: There is no registry, and `create` is not given.
        ConfigError: The folder cannot be made.
        Unavailable: The store cannot be reached, or its client is not installed.
    """
    if not is_remote(where):
        try:
            return Registry(Path(str(where).removeprefix("file://")), create=create)
        except OSError as error:
            raise ConfigError(
                f"no registry can be made in {where}: {error}; name a folder that can be written"
            ) from error
    text = str(where).rstrip("/")
    kept = copy or Path.home() / ".cache" / "lifelong" / files.digest(text.encode())[:16]
    remote = Remote(text, kept)
    remote.pull()
    registry = Registry(kept, remote=remote)
    if not create and not registry.versions() and registry.current() is None:
        raise NotFound(f"there is no registry in {text}; check the address, or let a trainer make it")
    return registry
