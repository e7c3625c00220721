"""Every setting of the server, each an environment variable: the only file that reads the environment."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from lifelong.errors import ConfigError

PREFIX = "LIFELONG_"
_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}
ELSEWHERE = frozenset({"LIFELONG_DATA"})  # read by other parts: not a typing error of ours


def _about(meaning: str, low: float = 0, high: float = math.inf) -> dict[str, Any]:
    """Return what the documentation and the checks need to know of a setting."""
    return {"meaning": meaning, "low": low, "high": high}


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """What the server is told once, when it starts; the variable of `max_rows` is `LIFELONG_MAX_ROWS`.

    Raises:
        ConfigError: A value is out of its range.
    """

    registry: Path = field(
        default=Path("registry"), metadata=_about("folder of the registry; may be mounted read-only")
    )
    remote: str = field(
        default="", metadata=_about("store that the registry's folder is a copy of, e.g. s3://bucket/prefix")
    )
    remote_seconds: float = field(default=5.0, metadata=_about("seconds between two looks at that store", 0.01, 3600))
    state: Path = field(
        default=Path("state"), metadata=_about("folder of the gallery and of LAST_GOOD; must be writable")
    )
    gallery: str = field(
        default="",
        repr=False,  # it may hold a password
        metadata=_about("connection strings of PostgreSQL, separated by spaces; a folder below the state if empty"),
    )
    poll_seconds: float = field(
        default=0.05, metadata=_about("seconds between two looks at the registry's pointer", 0.001, 3600)
    )
    keep_retired: int = field(
        default=2, metadata=_about("replaced versions kept in memory, for an instant rollback", high=100)
    )
    max_body_bytes: int = field(
        default=8 * 2**20, metadata=_about("largest request body in bytes; more is answered 413", 1024)
    )
    max_rows: int = field(default=256, metadata=_about("most samples, vectors or ids in one request", 1, 65536))
    max_k: int = field(
        default=100, metadata=_about("largest k of a search and largest top_k of a prediction", 1, 10000)
    )
    timeout_seconds: float = field(
        default=10.0, metadata=_about("seconds until a slow body (408) or a slow answer (504) is given up", 0.1)
    )
    drain_seconds: float = field(
        default=0.0,
        metadata=_about("seconds between SIGTERM, with which /readyz turns 503, and the end of new connections", 0, 15),
    )
    max_concurrency: int = field(
        default=256, metadata=_about("requests in flight per worker; more are answered 429", 1)
    )
    workers: int = field(
        default=1, metadata=_about("server processes; each polls, swaps and holds the model for itself", 1, 64)
    )
    stream: str = field(
        default="",
        metadata=_about("folder of the log that feedback is written to; empty: `stream` of the state folder"),
    )
    remember: int = field(
        default=100_000, metadata=_about("predictions that can still be labelled; the oldest are forgotten", 1, 10**9)
    )
    feedback_backlog: int = field(
        default=1_000_000, metadata=_about("labels that may wait for the trainer; more are answered 429", 1)
    )
    guard_errors: float = field(
        default=0.5,
        metadata=_about(
            "share of requests that fail and the version before answers, over which that is put back", 0, 1
        ),
    )
    guard_least: int = field(default=20, metadata=_about("requests before that share counts", 1))
    rate_per_second: float = field(
        default=0.0, metadata=_about("requests per second and client over time; more are answered 429, 0 is no limit")
    )
    rate_burst: int = field(
        default=20, metadata=_about("requests that a client may make at once after a pause", 1, 10**6)
    )
    tokens_file: str = field(default="", metadata=_about("file of tokens, a line NAME SCOPE SHA256 each"))
    tokens: str = field(default="", metadata=_about("the same lines, separated by ;"))
    tls_cert: str = field(default="", metadata=_about("certificate (PEM); the server then speaks https"))
    tls_key: str = field(default="", metadata=_about("its private key (PEM)"))
    log_json: bool = field(default=False, metadata=_about("logs as JSON, a line each"))
    access_log: bool = field(default=False, metadata=_about("log each request, except for health and metrics"))
    otlp_endpoint: str = field(
        default="",
        metadata=_about("address of an OpenTelemetry collector (OTLP over HTTP) that gets a span per request"),
    )
    public_read: bool = field(default=False, metadata=_about("reading needs no token, though tokens are set"))
    insecure: bool = field(
        default=False, metadata=_about("no tokens: who connects over loopback may write and administrate")
    )
    threads: int = field(default=2, metadata=_about("handler threads per worker", 1, 256))

    def __post_init__(self) -> None:
        for each in fields(self):
            value, low, high = getattr(self, each.name), each.metadata["low"], each.metadata["high"]
            if isinstance(value, int | float) and not low <= value <= high:
                raise ConfigError(f"{variable(each.name)} must be in {low}..{high}, got {value}")

    def tls(self) -> dict[str, Any]:
        """Return what BentoML must know to speak https.

        Raises:
            ConfigError: One of certificate and key is not set, or not there.
        """
        paths = [path for path in (self.tls_cert, self.tls_key) if path]
        if len(paths) == 1:
            raise ConfigError("LIFELONG_TLS_CERT and LIFELONG_TLS_KEY belong together; set both")
        for path in paths:
            if not Path(path).is_file():
                raise ConfigError(f"{path} is missing; TLS needs a certificate and its private key in PEM files")
        return {"enabled": True, "certfile": self.tls_cert, "keyfile": self.tls_key} if paths else {"enabled": False}

    @classmethod
    def load(cls, environment: Mapping[str, str]) -> Settings:
        """Return the settings of an `environment` (in production `os.environ`).

        Raises:
            ConfigError: A value cannot be read, is out of range, or a variable's name is a near miss of ours.

        >>> Settings.load({"LIFELONG_MAX_ROWS": "32"}).max_rows
        32
        """
        known = {variable(each.name): each for each in fields(cls)}
        _refuse_near_misses(environment, known)
        given = {
            each.name: _parse(name, environment[name], each.default)
            for name, each in known.items()
            if name in environment
        }
        return cls(**given)  # type: ignore[arg-type]  # _parse returns the type of the default


def metrics_folder(environment: Mapping[str, str]) -> str | None:
    """Return where the workers of one server share their metrics; BentoML makes it and says so."""
    return environment.get("PROMETHEUS_MULTIPROC_DIR") or None


def variable(name: str) -> str:
    """Return the environment variable of a setting.

    >>> variable("max_rows")
    'LIFELONG_MAX_ROWS'
    """
    return PREFIX + name.upper()


def table() -> list[tuple[str, str, str]]:
    """Return (variable, default, meaning) of every setting, in the order of the class."""
    return [(variable(each.name), _shown(each.default), each.metadata["meaning"]) for each in fields(Settings)]


def _shown(default: object) -> str:
    return str(default).lower() if isinstance(default, bool) else str(default)


def _refuse_near_misses(environment: Mapping[str, str], known: Mapping[str, object]) -> None:
    """Variables that are far from all of ours belong to others (the daemon, the data resolver)."""
    for name in sorted(environment):
        if name.startswith(PREFIX) and name not in known and name not in ELSEWHERE:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.85)
            if near:
                raise ConfigError(f"there is no setting {name}; did you mean {near[0]}?")


def _parse(name: str, text: str, default: object) -> object:
    kind = type(default)
    if kind is str:
        return text.strip()
    if isinstance(default, Path):
        if not text.strip():
            raise ConfigError(f"{name} must name a folder, got an empty text")
        return Path(text).expanduser()
    if isinstance(default, bool):
        if text.lower() not in _BOOLEANS:
            raise ConfigError(f"{name} must be true or false, got {text!r}")
        return _BOOLEANS[text.lower()]
    if isinstance(default, str):
        return text
    try:
        value = kind(text)  # type: ignore[call-arg]
    except ValueError:
        wanted = "a whole number" if kind is int else "a number"
        raise ConfigError(f"{name} must be {wanted}, got {text!r}") from None
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{name} must be finite, got {text!r}")
    return value
