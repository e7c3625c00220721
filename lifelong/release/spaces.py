"""Spaces: what they are called, how good is told from bad, and what later versions proved of earlier ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from lifelong import files, models
from lifelong.types import Batch, Space

Proof = dict[str, Any]


def space_of(model: models.Classifier, weights: Mapping[str, Tensor]) -> Space:
    """Return the space of a model's features.

    Its family is what must agree before measuring is worth while: method, number of pre-allocated classes and label
    placement (the head's `family`), and a hash of the preprocessing. Its id adds a hash of all that features depend
    on: the head changes logits, not features.
    """
    family = f"{model.family}-{files.digest(files.canonical_json(model.preprocessing))[:8]}"
    embedding = {name: tensor.contiguous() for name, tensor in weights.items() if not name.startswith("head.")}
    made_by = files.canonical_json(model.spec()["backbone"]) + save(embedding)
    return Space(f"{family}:{files.digest(made_by)[:8]}", model.dim, family=family)


def proof(of: Space, cross: float, own: float, measure: str, n: int, probe: str) -> Proof:
    """Return the record of a measurement in the rows of a space.

    Args:
        of: The space.
        cross: C[reader, writer].
        own: C[old, old].
        measure: Its name.
        n: Queries.
        probe: See `probe_id`.
    """
    return {"space": of.id, "dim": of.dim, "cross": cross, "self": own, "measure": measure, "n": n, "probe": probe}


def probe_id(rows: Batch, scored: Tensor, written: Tensor) -> str:
    """Return the SHA-256 of held-out samples, their labels, and which of them are queries and which gallery rows."""
    parts = (rows.x, rows.y, scored.to(torch.uint8), written.to(torch.uint8))
    return files.digest(save({str(i): part.contiguous() for i, part in enumerate(parts)}))


def proven_later(space: Space, manifests: Iterable[Mapping[str, Any]]) -> list[Proof]:
    """Return proofs that queries of `space` read the spaces of later versions, from what their manifests say."""
    return [
        {**said, "space": manifest["space"]["id"], "dim": manifest["space"]["dim"]}
        for manifest in manifests
        for said in manifest["read_by"]
        if said["space"] == space.id and manifest["space"]["id"] != space.id
    ]
