"""A snapshot: everything a server needs to answer like the trainer's model did, and the proof that it does.

```
folder/
  weights.safetensors   every tensor of the model, as the model names it
  probe.safetensors     x, and the features and logits that the trainer's model gave for it
  manifest.json         how to rebuild, labels, Space, size and SHA-256 of each file and of itself
```
The same weights and metadata give the same bytes: there is no wall clock and no pickle in it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from lifelong import files, models
from lifelong.errors import ArtifactError, ConfigError, DataError, LifelongError
from lifelong.labels import Label, LabelMap
from lifelong.release import manifest as manifests
from lifelong.release import rules
from lifelong.release.manifest import MANIFEST, PROBE, WEIGHTS, damaged
from lifelong.release.spaces import space_of
from lifelong.types import Output, Space

PLAIN = ("model", "input", "preprocessing", "parent", "training", "metrics", "level")
LISTS = ("labels", "proofs", "read_by")


@final
@dataclass(frozen=True, eq=False)
class Probe:
    """A few inputs and what the trainer's model said of them.

    Args:
        x: Inputs `[n, ...]`, n >= 1.
        features: `[n, D]`.
        logits: `[n, C]`; -inf is allowed (a class without samples).
    """

    x: Tensor
    features: Tensor
    logits: Tensor


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Snapshot:
    """One version of a model, complete and immutable.

    Args:
        model: The spec from which `lifelong.models.build` makes the model.
        weights: Every tensor of the model's `state_dict`.
        labels: In index order: column i of the logits means `labels[i]`. There may be fewer labels than columns
            (columns of classes that have not come yet), never more, and none twice.
        space: Where its features live, and whose vectors its queries may be compared with.
        input: `{"shape": [...], "dtype": "float32"}` of one sample.
        preprocessing: What is done to inputs before the first layer.
        probe: Inputs and outputs that a rebuilt model must reproduce.
        parent: The version that was live when this one was made.
        training: Where it comes from (scenario, strategy, seed, experience, step ...), as plain values.
        metrics: Numbers to show with it.
        level: `patch`, `minor` or `major` beside what was live when it was judged; None before that.
        proofs: Of each readable space but its own, `{"space", "dim", "cross", "self", "measure", "n", "probe"}`: that
            space and its width, C[new, old], C[old, old], how many queries, sha256 of the rows; `cross > self`.
        read_by: The same for versions whose queries find more in this one's rows than in their own: C[old, new] is
            `cross`. After a rollback to one of them, rows that this version wrote stay readable.
        version: Its number in a registry, once it has one; not part of the content.

    Raises:
        DataError: The parts contradict one another.
    """

    model: dict[str, Any]
    weights: dict[str, Tensor]
    labels: tuple[Label, ...]
    space: Space
    input: dict[str, Any]
    preprocessing: dict[str, Any]
    probe: Probe
    parent: int | None = None
    training: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    level: str | None = None
    proofs: tuple[dict[str, Any], ...] = ()
    read_by: tuple[dict[str, Any], ...] = ()
    version: int | None = None

    def __post_init__(self) -> None:
        rules.check_labels(self.labels, self.probe.logits)
        rules.check_probe(self.input, self.space, self.probe.x, self.probe.features, self.probe.logits)
        rules.check_level(self.level)
        rules.check_proofs(self.space, self.proofs, self.read_by)

    @classmethod
    def of(
        cls,
        model: models.Classifier,
        labels: LabelMap,
        *,
        probe_x: Tensor,
        parent: int | None = None,
        training: Mapping[str, Any] | None = None,
        metrics: Mapping[str, float] | None = None,
    ) -> Snapshot:
        """Return a snapshot of `model` as it is now: detached copies on the CPU, outputs taken in eval mode.

        Weights that are not finite are kept as they are: refusing them is the gate's business.

        Args:
            model: To be copied; it is not changed.
            labels: What its columns mean.
            probe_x: Inputs `[n, ...]` to remember the outputs of; a handful is enough.
            parent: The version that is live now.
            training: Where the model comes from.
            metrics: Numbers to show with it.

        Raises:
            ArtifactError: The model's spec does not rebuild it.
            DataError: Labels, probe or metadata do not fit the model.
        """
        spec, weights = model.spec(), {name: _private(tensor) for name, tensor in model.state_dict().items()}
        x = _private(probe_x)
        rules.check_input(model.input_shape, x)
        said: Output = models.outputs(_rebuilt(spec, weights), x)
        shape = {"shape": list(model.input_shape), "dtype": str(x.dtype).removeprefix("torch.")}
        return cls(
            model=spec,
            weights=weights,
            labels=tuple(labels.tolist()),
            space=space_of(model, weights),
            input=shape,
            preprocessing=dict(model.preprocessing),
            probe=Probe(x, _private(said.features), _private(said.logits)),
            parent=parent,
            training=dict(training or {}),
            metrics=dict(metrics or {}),
        )

    def save(self, folder: Path) -> None:
        """Write the three files, the manifest last, each flushed to disk; the folder must be new or empty.

        Raises:
            ConfigError: There is something in the folder.
            DataError: The metadata are not plain values.
        """
        parts = {WEIGHTS: _packed(self.weights), PROBE: _packed(vars(self.probe))}
        sealed = manifests.seal(self._fields(), parts)  # complains before anything is written
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise ConfigError(f"{folder} is not empty; a snapshot is never overwritten, choose another folder")
        for name, data in [*parts.items(), (MANIFEST, sealed)]:
            files.write_new(folder / name, data)
        files.sync(folder)

    @classmethod
    def load(cls, folder: Path, *, rebuild: bool = True) -> Snapshot:
        """Return the snapshot in `folder`, in private memory.

        With `rebuild` it is built once, to see that it answers right; who builds it next anyway leaves that out.

        Raises:
            ArtifactError: Anything is missing, altered or contradictory; the message names the file and the reason.
        """
        read = manifests.read_manifest(folder)
        weights, probe = (_unpacked(folder / n, manifests.read_part(folder, read, n)) for n in (WEIGHTS, PROBE))
        if set(probe) != {"x", "features", "logits"}:
            raise damaged(folder / PROBE, f"it holds {sorted(probe)}, not x, features and logits")
        kept: dict[str, Any] = {name: read[name] for name in PLAIN} | {name: tuple(read[name]) for name in LISTS}
        try:
            space = Space(read["space"]["id"], read["space"]["dim"], read["space"]["reads"], read["space"]["family"])
            found = cls(weights=weights, space=space, probe=Probe(**probe), **kept)
            if rebuild:
                found.build()
        except (DataError, TypeError) as error:
            raise damaged(folder / MANIFEST, str(error)) from error
        except ArtifactError as error:
            raise ArtifactError(f"{folder}/{error}") from error
        return found

    def build(self) -> models.Classifier:
        """Return the model, rebuilt, in eval mode, on the CPU; each call makes its own.

        Raises:
            ArtifactError: The weights do not fit or are not finite, or the probe's outputs are not reproduced.
        """
        rules.check_weights(self.weights)
        model = _rebuilt(self.model, self.weights)
        said = models.outputs(model, self.probe.x)
        rules.check_outputs("features", said.features, self.probe.features)
        rules.check_outputs("logits", said.logits, self.probe.logits)
        return model

    def with_proofs(self, proofs: Sequence[Mapping[str, Any]]) -> Snapshot:
        """Return this snapshot reading its own space and exactly the spaces of `proofs`."""
        reads = frozenset(str(proof["space"]) for proof in proofs)
        space = dataclasses.replace(self.space, reads=reads)
        return dataclasses.replace(self, space=space, proofs=tuple(dict(proof) for proof in proofs))

    def encode(self, labels: Tensor | Sequence[object]) -> Tensor:
        """Return class indices `[N]` i64 of `labels`; -1 for a label that this version does not know."""
        return LabelMap(self.labels).encode(labels)

    def decode(self, indices: Tensor | Iterable[int]) -> list[Label]:
        """Return the labels of class indices `[N]`.

        Raises:
            DataError: An index has no label.
        """
        listed = indices.tolist() if isinstance(indices, Tensor) else list(indices)
        if odd := [i for i in listed if not 0 <= i < len(self.labels)]:
            raise DataError(f"class indices run from 0 to {len(self.labels) - 1}, got {odd[0]}")
        return [self.labels[i] for i in listed]

    def _fields(self) -> dict[str, Any]:
        space = dataclasses.asdict(self.space) | {"reads": sorted(self.space.reads)}
        lists = {name: list(getattr(self, name)) for name in LISTS}
        return {**{name: getattr(self, name) for name in PLAIN}, **lists, "space": space}


def _rebuilt(spec: Mapping[str, Any], weights: Mapping[str, Tensor]) -> models.Classifier:
    try:
        model = models.build(spec, draw=False)
    except (LifelongError, TypeError, ValueError, KeyError, RuntimeError) as error:
        raise ArtifactError(f"{MANIFEST}: its model cannot be rebuilt: {error}; is its plug-in installed?") from error
    rules.check_weights(weights, model.state_dict())
    model.load_state_dict(dict(weights), strict=True)
    return model.eval()


def _private(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", copy=True).contiguous()


def _packed(tensors: Mapping[str, Tensor]) -> bytes:
    return safetensors.torch.save({name: tensor.contiguous() for name, tensor in tensors.items()})


def _unpacked(path: Path, data: bytes) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load(data)  # copies out of `data`: private memory, never a map of the file
    except (SafetensorError, KeyError, ValueError, RuntimeError) as error:
        raise damaged(path, f"not safetensors ({error})") from error
