"""Snapshots whose every answer gives away their number, and forgeries of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from lifelong.labels import LabelMap
from lifelong.models import Classifier, build
from lifelong.release import manifest as manifests
from lifelong.release.registry import Registry
from lifelong.release.snapshot import Snapshot
from lifelong.release.spaces import proof

LABELS = ("ant", "bee", "cat")


def numbered_model(number: int, *, inputs: int = 4, columns: int = 8) -> Classifier:
    """A model in whose features[0] and in whose odds of the first two labels `number` can be read."""
    spec = {
        "backbone": {"name": "mlp", "inputs": [inputs], "hidden": [8], "features": 4},
        "head": {"name": "linear", "classes": columns},
    }
    model = build(spec, seed=7)
    with torch.no_grad():
        last = model.backbone.layers[-1]
        last.weight[0] = 0
        last.bias[0] = number
        model.head.weight.zero_()
        model.head.bias.zero_()
        model.head.bias[0] = number / 100
        model.head.bias[len(LABELS) :] = 9  # columns without labels would win if they were asked
    return model


def numbered(
    number: int, *, labels: Sequence[object] = LABELS, inputs: int = 4, reads: Sequence[Snapshot] = ()
) -> Snapshot:
    """The snapshot of `numbered_model`; it says it has proven to read the spaces of `reads`."""
    random = torch.Generator().manual_seed(number)
    model = numbered_model(number, inputs=inputs)
    made = Snapshot.of(model, LabelMap(labels), probe_x=torch.rand(3, inputs, generator=random))
    proofs = {s.space.id: proof(s.space, 1.0, 0.5, "test", 9, "") for s in reads}
    return made.with_proofs([proven for space, proven in proofs.items() if space != made.space.id])


def number_in(prediction: dict[str, object]) -> int:
    """The number of the version that made a prediction with top_k >= 2."""
    shares = {guess["label"]: guess["probability"] for guess in prediction["top"]}  # type: ignore[attr-defined]
    return round(100 * math.log(shares[LABELS[0]] / shares[LABELS[1]]))


def publish_numbered(registry: Registry, count: int, *, promote: bool = False) -> list[Snapshot]:
    """Publish versions 1..count; each reads all that came before it."""
    made: list[Snapshot] = []
    for number in range(1, count + 1):
        made.append(numbered(number, reads=made))
        assert registry.publish(made[-1], promote=promote) == number
    return made


def forge(folder: Path, change: Callable[[dict[str, Any], dict[str, bytes]], None]) -> None:
    """Replace a published version by a consistent forgery: every checksum is right, only the content is bad."""
    fields = manifests.read_manifest(folder)
    parts = {name: (folder / name).read_bytes() for name in (manifests.WEIGHTS, manifests.PROBE)}
    for key in ("files", "format", "format_version", "sha256"):
        fields.pop(key)
    change(fields, parts)
    (folder / manifests.MANIFEST).write_bytes(manifests.seal(fields, parts))
    for name, data in parts.items():
        (folder / name).write_bytes(data)


def forge_nan(folder: Path) -> None:
    """Put a NaN into the weights of a published version, under right checksums."""

    def poison(fields: dict[str, Any], parts: dict[str, bytes]) -> None:
        weights = safetensors.torch.load(parts[manifests.WEIGHTS])
        weights["head.bias"][2] = torch.nan
        parts[manifests.WEIGHTS] = safetensors.torch.save(weights)

    forge(folder, poison)
