"""Versions that were not let in, and why: what is broken is never tried twice."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import final

from lifelong.errors import LifelongError
from serving.steps import POINTER

MOST = 100  # refusals that are remembered; the oldest are forgotten first


@final
@dataclass(frozen=True)
class Rejection:
    """A version that was not let in.

    Args:
        version: Its number; None where the pointer itself could not be read.
        sha256: Of its manifest; None where that could not be read.
        reason: One line.
        gate: What refused it: `pointer` (it cannot be read), `fetch` (files missing or altered), `build` (not finite,
            or it does not answer like the trainer's), `warm`, `labels`, `input` or `compatibility`.
        again: Try it again when the pointer is set to it anew: what was wrong was not in its files but in how it
            fits the live version or the gallery, or in the disk.
    """

    version: int | None
    sha256: str | None
    reason: str
    again: bool = False
    gate: str = POINTER


@final
class Rejections:
    """What was refused, by version and SHA-256 of its manifest."""

    def __init__(self) -> None:
        self._found: OrderedDict[tuple[int | None, str | None], Rejection] = OrderedDict()

    def __contains__(self, key: object) -> bool:
        found = self._found.get(key)  # type: ignore[call-overload]
        return found is not None and not found.again

    def put(self, rejection: Rejection) -> None:
        """Remember a refusal."""
        key = rejection.version, rejection.sha256
        self._found[key] = rejection
        self._found.move_to_end(key)
        while len(self._found) > MOST:
            self._found.popitem(last=False)

    def newest_first(self) -> list[Rejection]:
        """Return all that are remembered."""
        return list(self._found.values())[::-1]


def reason(error: Exception) -> str:
    """Return one line; what is not an error of ours is named by its class."""
    text = " ".join(str(error).split()) or "no message"
    return text if isinstance(error, LifelongError) else f"{type(error).__name__}: {text}"
