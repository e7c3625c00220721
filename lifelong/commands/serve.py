"""`lifelong serve`: BentoML's own server with our service, in this process's place."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from lifelong.errors import ConfigError, NotFound

LOOPBACK = ("127.0.0.1", "::1", "localhost")
SERVICE = "serving.service:LifelongService"


def command(host: str, port: int) -> list[str]:
    """Return the command line of the server."""
    if not 0 < port < 65536:
        raise ConfigError(f"a port lies in 1..65535, got {port}")
    return [sys.executable, "-m", "bentoml", "serve", SERVICE, "--host", host, "--port", str(port)]


def environment(
    registry: Path | str,
    state: Path,
    base: Mapping[str, str],
    gallery: str = "",
    *,
    insecure: bool = False,
    tls: tuple[Path, Path] | None = None,
) -> dict[str, str]:
    """Return the environment of the server: threads bound before torch is imported, nothing phoned home.

    Args:
        registry: Its folder, or the address of a store.
        state: Folder of the server.
        base: Environment to start from.
        gallery: Connection strings, if it is not in the state folder.
        insecure: No tokens.
        tls: Certificate and private key.
    """
    folder = registry if isinstance(registry, Path) else state / "registry"  # of a store, its copy
    fixed = {"LIFELONG_REGISTRY": str(folder.absolute()), "LIFELONG_STATE": str(state.absolute())}
    if not isinstance(registry, Path):
        fixed["LIFELONG_REMOTE"] = registry
    if gallery:
        fixed["LIFELONG_GALLERY"] = gallery
    if tls:
        fixed |= {"LIFELONG_TLS_CERT": str(tls[0]), "LIFELONG_TLS_KEY": str(tls[1])}
    defaults = {
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "BENTOML_DO_NOT_TRACK": "true",
        "BENTOML_HOME": str(state.absolute() / "bentoml"),
    }
    return {**defaults, **base, **fixed, **({"LIFELONG_INSECURE": "true"} if insecure else {})}


def run(
    *,
    registry: Path | str,
    state: Path,
    gallery: str,
    host: str,
    port: int,
    insecure: bool,
    tls_cert: Path | None,
    tls_key: Path | None,
) -> None:
    """Become the server; does not return."""
    if insecure and host not in LOOPBACK:
        raise ConfigError(f"--insecure is for loopback only, got --host {host}; make a token: lifelong token NAME")
    tls = (tls_cert.absolute(), tls_key.absolute()) if tls_cert and tls_key else None
    if (tls_cert or tls_key) and not tls:
        raise ConfigError("--tls-cert and --tls-key belong together; give both")
    for path in tls or ():
        if not path.is_file():
            raise NotFound(f"{path} is missing; TLS needs a certificate and its private key in PEM files")
    state.mkdir(parents=True, exist_ok=True)
    line = command(host, port)
    os.execve(line[0], line, environment(registry, state, os.environ, gallery, insecure=insecure, tls=tls))
