"""One version, ready to answer, and the rules by which it may follow another."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import Any, final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from lifelong.errors import ArtifactError, NotFinite, SpaceError, Unavailable
from lifelong.gallery.base import Hit, View, Where
from lifelong.labels import Label
from lifelong.models.straight import straight
from lifelong.release.health import FIGURES
from lifelong.release.registry import Registry
from lifelong.release.snapshot import Snapshot
from lifelong.types import Output, Space
from serving.steps import step

Floats = npt.NDArray[np.float32]
WILD = "the model's answer to x is not finite; scale x to the range it was trained on"
WARM_ROWS = (1, 64)  # batch sizes that are run before a version goes live


@final
@dataclass(frozen=True, eq=False)
class Live:
    """What one request uses from its first line to its last.

    Args:
        version: Its number in the registry.
        sha256: Of its manifest: what the number stood for when it was loaded.
        model: In eval mode; never changed again.
        run: Its forward pass: see `straight`.
        labels: In index order; the logits may have more columns.
        space: Where its vectors live, and what they may be compared with.
        shape: Shape of one input sample.
        level: `major` if it could not read what was read before it; see `lifelong.release.report.Report`.
        health: Figures of its embedding, as the gate found them; see `lifelong.release.health`.
        view: The gallery at the moment the request began; None outside a request.
        took: Seconds that it took to `fetch`, `build` and `warm` it, in this worker.
    """

    version: int
    sha256: str
    model: nn.Module
    run: Callable[[Tensor], Output]
    labels: tuple[Label, ...]
    space: Space
    shape: tuple[int, ...]
    level: str | None = None
    health: Mapping[str, float] = field(default_factory=dict)
    view: View | None = None
    took: Mapping[str, float] = field(default_factory=dict)

    def bound(self, view: View | None) -> Live:
        """Return this version with the gallery as a request finds it."""
        made = object.__new__(Live)  # `dataclasses.replace` takes five times as long, and it is done for each request
        vars(made).update(vars(self), view=view)
        return made

    def embed(self, x: Floats) -> Floats:
        """Return vectors `[N, D]` of samples `[N, *shape]`.

        Raises:
            NotFinite: The samples are too large for the model: its answer is not finite.
        """
        with torch.inference_mode():
            features = self._run(x).features
        # A sum costs a fifth of a look at each number; it may overflow where none of them did.
        if not isfinite(features.sum()) and not features.isfinite().all():
            raise NotFinite(WILD)
        found: Floats = features.numpy()
        return found

    def predict(self, x: Floats, top: int) -> tuple[list[list[float]], list[list[int]]]:
        """Return probabilities and label indices, N lists of min(top, labels), likeliest first.

        Columns that wait for labels to come take no share of the probability.

        Raises:
            Unavailable: The version knows no label.
            NotFinite: The samples are too large for the model: its answer is not finite.
        """
        known = len(self.labels)
        if not known:
            raise Unavailable(f"version {self.version} knows no label yet; publish one that was trained on some")
        with torch.inference_mode():
            found = self._run(x).logits[:, :known].softmax(dim=1).topk(min(top, known), dim=1)
            shares, indices = found.values.tolist(), found.indices.tolist()
        if not all(isfinite(row[0]) for row in shares):  # one NaN among the logits makes all shares of that row NaN
            raise NotFinite(WILD)
        return shares, indices

    def search(self, queries: Floats, k: int, where: Where | None, offset: int = 0) -> list[list[Hit]]:
        """Return up to `k` hits of each query `[N, D]`, best first, from the rows this version reads."""
        return self._gallery().search(queries, self.space, k, where, offset=offset)

    def unreadable(self) -> list[str]:
        """Return the spaces that have rows and that this version does not read, sorted."""
        return sorted(self._gallery().spaces - self.space.reads)

    def unreadable_rows(self) -> int:
        """Return how many rows are in those spaces."""
        return unreadable(self, self._gallery().stats().by_space) if self.unreadable() else 0

    def _gallery(self) -> View:
        if self.view is None:
            raise Unavailable("this version is not bound to a request; take it from slot.live")
        return self.view

    def _run(self, x: Floats) -> Output:
        return self.run(torch.from_numpy(x))


def manifest_id(registry: Registry, version: int) -> str:
    """Return the SHA-256 of a version's manifest; raises what reading it raises."""
    with step("fetch"):
        return str(registry.manifest(version)["sha256"])


def brought(registry: Registry, version: int, sha256: str) -> Live:
    """Read, rebuild, check and warm up a version; raises like `prepare`, and what reading raises."""
    took: dict[str, float] = {}
    with step("fetch", took):
        snapshot = registry.load(version, rebuild=False)
    return prepare(snapshot, version, sha256, took)


def prepare(snapshot: Snapshot, version: int, sha256: str, took: dict[str, float]) -> Live:
    """Rebuild, check and warm up a version; nothing is shared with what is live.

    Args:
        snapshot: Of the version.
        version: Its number.
        sha256: Of its manifest.
        took: Is told how long it took.

    Raises:
        ArtifactError: It cannot be rebuilt, is not finite, or does not answer as it should.
    """
    with step("input"):
        if snapshot.input.get("dtype", "float32") != "float32":
            got = snapshot.input["dtype"]
            raise ArtifactError(f"its input is {got}, this server feeds float32; train it on float32")
    shape = tuple(int(n) for n in snapshot.input["shape"])
    known = {name: snapshot.metrics[f"embedding_{name}"] for name in FIGURES if f"embedding_{name}" in snapshot.metrics}
    with step("build", took):
        built, labels = snapshot.build(), tuple(snapshot.labels)
    told = (labels, snapshot.space, shape, snapshot.level, known)
    live = Live(version, sha256, built, straight(built), *told, took=took)
    with step("warm", took):
        for rows in WARM_ROWS:
            repeats = -(-rows // len(snapshot.probe.x))
            _warm(live, snapshot.probe.x.repeat(repeats, *[1] * len(shape))[:rows])
    return live


def check_succession(
    candidate: Live, live: Live | None, rows: Mapping[str, int], *, back: bool, major: Callable[[], bool]
) -> None:
    """Refuse a version after which labels, inputs or old rows would silently mean something else.

    Args:
        candidate: Wants to go live.
        live: What is live, if anything.
        rows: Rows in the gallery, by space.
        back: It was live before (a rollback, a restart): fewer labels are then in order, and so are rows that newer
            versions wrote and it does not read; they are kept, counted as unreadable, and read again later. Nor do
            such rows keep out what follows a rollback: it must read what can be read now.
        major: Says whether it, or a version between the two, was published as a major release: somebody chose to
            give old rows up.

    Raises:
        ArtifactError: Labels were changed and not appended, or another input shape.
        SpaceError: Rows of the gallery are in spaces that the candidate does not read.
    """
    if live is not None:
        old, new = (candidate, live) if back else (live, candidate)
        with step("labels"):
            if new.labels[: len(old.labels)] != old.labels:
                raise ArtifactError(f"labels may only be appended; {_first_difference(old.labels, new.labels)}")
        with step("input"):
            if candidate.shape != live.shape:
                raise ArtifactError(f"its input shape is {list(candidate.shape)}, clients send {list(live.shape)}")
    readable = set(rows) if live is None else set(rows) & live.space.reads
    unread = sorted(readable - candidate.space.reads)
    if unread and not back and not major():
        lost = sum(rows[space] for space in unread)
        with step("compatibility"):
            raise SpaceError(
                f"{lost} rows of the gallery are in spaces it does not read ({', '.join(unread)[:200]}); "
                "publish one that was proven compatible, or choose a major release (--allow-major), or remove the rows"
            )


def unreadable(live: Live, rows: Mapping[str, int]) -> int:
    """Return how many rows are in spaces that `live` does not read."""
    return sum(count for space, count in rows.items() if space not in live.space.reads)


def _warm(live: Live, x: Tensor) -> None:
    with torch.inference_mode():
        said: Any = live.run(x)
    sizes = tuple(said.features.shape), said.logits.shape[0]
    if sizes != ((len(x), live.space.dim), len(x)) or said.logits.shape[1] < len(live.labels):
        raise ArtifactError(
            f"{len(x)} samples give features {list(said.features.shape)} and logits {list(said.logits.shape)}, "
            f"its manifest says D={live.space.dim} and {len(live.labels)} labels"
        )


def _first_difference(old: tuple[Label, ...], new: tuple[Label, ...]) -> str:
    for index, label in enumerate(old):
        if index >= len(new) or new[index] != label:
            got = repr(new[index]) if index < len(new) else "nothing"
            return f"index {index} meant {label!r} and would mean {got}"
    return "nothing differs"
