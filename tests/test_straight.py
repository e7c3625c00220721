"""A model as one function: the same bits as the model, and only where it is known to be so."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from lifelong.models import build
from lifelong.models.straight import straight

MLPS: list[dict[str, Any]] = [
    {"name": "mlp", "inputs": [6], "hidden": [5, 4], "features": 3},
    {"name": "mlp", "inputs": [2, 3], "hidden": [5]},
    {"name": "mlp", "inputs": [6], "hidden": [], "features": 3},
]
HEADS: list[dict[str, Any]] = [
    {"name": "linear", "classes": 4},
    {"name": "linear", "classes": 0},
    {"name": "simplex", "classes": 4},
    {"name": "cosine", "classes": 4},
]


def model(backbone: dict[str, Any], head: dict[str, Any]) -> Any:
    if head["name"] == "simplex":
        backbone = {**backbone, "features": 3}  # as many as it has vertices, less one
    return build({"backbone": backbone, "head": head}, seed=1).eval()


@pytest.mark.parametrize("head", HEADS, ids=lambda head: f"{head['name']}{head['classes']}")
@pytest.mark.parametrize("backbone", MLPS, ids=lambda spec: f"{spec['inputs']}{spec['hidden']}")
@pytest.mark.parametrize("rows", [1, 3, 64])
def test_it_answers_with_the_bits_of_the_model(backbone: dict[str, Any], head: dict[str, Any], rows: int) -> None:
    net = model(backbone, head)
    x = torch.randn(rows, *backbone["inputs"])
    with torch.inference_mode():
        found, told = straight(net)(x), net(x)

    assert straight(net) is not net
    assert torch.equal(found.features, told.features)
    assert torch.equal(found.logits, told.logits)


def test_what_is_hooked_or_of_another_kind_is_asked_itself() -> None:
    conv = build({"backbone": {"name": "conv", "inputs": [1, 8, 8]}, "head": HEADS[0]}, seed=1).eval()
    hooked, watched = model(MLPS[0], HEADS[0]), model(MLPS[0], HEADS[0])
    hooked.backbone.layers[0].register_forward_hook(lambda _module, _x, y: y + 1)
    watched.backbone.register_forward_pre_hook(lambda _module, x: x)

    assert all(straight(net) is net for net in (conv, hooked, watched, torch.nn.ReLU()))
