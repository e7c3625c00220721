"""The manifest of a snapshot: strict JSON that vouches for every byte of its folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lifelong.errors import ArtifactError, DataError, NotFound
from lifelong.files import canonical_json, digest, parse_json, read_file

FORMAT = "lifelong-snapshot"
FORMAT_VERSION = 2
MANIFEST = "manifest.json"
WEIGHTS = "weights.safetensors"
PROBE = "probe.safetensors"
FIELDS: dict[str, tuple[type, ...]] = {
    "model": (dict,),
    "labels": (list,),
    "space": (dict,),
    "input": (dict,),
    "preprocessing": (dict,),
    "parent": (int, type(None)),
    "training": (dict,),
    "metrics": (dict,),
    "level": (str, type(None)),
    "proofs": (list,),
    "read_by": (list,),
    "files": (dict,),
    "format": (str,),
    "format_version": (int,),
    "sha256": (str,),
}
SPACE = {"id": str, "dim": int, "family": str, "reads": list}


def seal(fields: Mapping[str, Any], parts: Mapping[str, bytes]) -> bytes:
    """Return the manifest's bytes: `fields`, size and SHA-256 of each part, and its own SHA-256. No wall clock."""
    files = {name: {"sha256": digest(data), "size": len(data)} for name, data in parts.items()}
    body = {**fields, "files": files, "format": FORMAT, "format_version": FORMAT_VERSION}
    return canonical_json({**body, "sha256": digest(canonical_json(body))})


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return the verified manifest of the snapshot in `folder`.

    Raises:
        ArtifactError: It is missing, damaged, of another format or version, or names files it must not name.
    """
    path = folder / MANIFEST
    manifest = _parsed(path)
    _known_format(path, manifest)
    body = {key: value for key, value in manifest.items() if key != "sha256"}
    try:
        own = digest(canonical_json(body))
    except DataError as error:
        raise damaged(path, str(error)) from error
    if own != manifest.get("sha256"):
        raise damaged(path, f"its sha256 is {own[:8]}..., it says {str(manifest.get('sha256'))[:8]}...")
    _typed(path, manifest, FIELDS)
    _typed(path, manifest["space"], SPACE)
    _only_own_files(path, manifest["files"])
    return manifest


def read_part(folder: Path, manifest: Mapping[str, Any], name: str) -> bytes:
    """Return the bytes of a snapshot's file after its size and SHA-256 are checked: what was hashed is what is used.

    Raises:
        ArtifactError: The file is missing, a link, or not what the manifest says.
    """
    path, said = folder / name, manifest["files"][name]
    data = _bytes(path)
    if len(data) != said["size"]:
        raise damaged(path, f"it has {len(data)} bytes, the manifest says {said['size']}")
    if digest(data) != said["sha256"]:
        raise damaged(path, f"its sha256 is {digest(data)[:8]}..., the manifest says {str(said['sha256'])[:8]}...")
    return data


def content_id(manifest: Mapping[str, Any]) -> str:
    """Return the SHA-256 of what was learned: model, weights, labels, inputs and training position.

    Left out is what depends on when it was judged: parent, metrics, level, proofs and readable spaces. A trainer that
    was killed and repeats its last step makes the same content again, though its parent may be another now.
    """
    names = ("model", "labels", "input", "preprocessing", "training")
    learned = {name: manifest[name] for name in names}
    return digest(canonical_json({**learned, "weights": manifest["files"][WEIGHTS]["sha256"]}))


def damaged(path: Path, reason: str) -> ArtifactError:
    """Return the error for a snapshot's file."""
    return ArtifactError(f"{path} is damaged or foreign: {reason}; restore it from a copy or publish it again")


def _bytes(path: Path) -> bytes:
    try:
        return read_file(path)
    except (NotFound, DataError) as error:
        raise ArtifactError(f"{error}; restore it from a copy or publish it again") from error


def _parsed(path: Path) -> dict[str, Any]:
    try:
        manifest = parse_json(_bytes(path))
    except DataError as error:
        raise damaged(path, str(error)) from error
    if not isinstance(manifest, dict):
        raise damaged(path, f"it holds a JSON {type(manifest).__name__}, not an object")
    return manifest


def _known_format(path: Path, manifest: dict[str, Any]) -> None:
    found, version = manifest.get("format"), manifest.get("format_version")
    if found != FORMAT:
        raise damaged(path, f"its format is {str(found)[:40]!r}, not {FORMAT!r}")
    if version != FORMAT_VERSION:
        raise ArtifactError(
            f"{path} has format version {str(version)[:40]}, this program reads {FORMAT_VERSION}; "
            f"use the version of lifelong that wrote it"
        )


def _typed(path: Path, value: dict[str, Any], kinds: Mapping[str, type | tuple[type, ...]]) -> None:
    if odd := set(value) ^ set(kinds):
        raise damaged(path, f"it lacks or has in excess {sorted(odd)}")
    for name, kind in kinds.items():
        if isinstance(value[name], bool) or not isinstance(value[name], kind):
            raise damaged(path, f"{name!r} is a JSON {type(value[name]).__name__}")


def _only_own_files(path: Path, files: dict[str, Any]) -> None:
    """Accept exactly our two plain names: no folder, no '..', no absolute path can be reached."""
    if set(files) != {WEIGHTS, PROBE}:
        raise damaged(path, f"it names the files {sorted(files)}, a snapshot has exactly {sorted((WEIGHTS, PROBE))}")
    for name, said in files.items():
        if not isinstance(said, dict) or set(said) != {"sha256", "size"}:
            raise damaged(path, f"{name} needs exactly 'sha256' and 'size'")
