"""Folded gradients by one backward pass equal those of single samples, and are given only where that is so."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lifelong.learning.fisher import mean_gradient
from lifelong.learning.outer import summed
from lifelong.models import build
from lifelong.types import Batch, Output

D, C, N = 5, 3, 6


def model(backbone: dict[str, object]) -> nn.Module:
    return build({"backbone": backbone, "head": {"name": "linear", "classes": C}}, seed=1).double().eval()


def samples(*shape: int) -> Batch:
    random = torch.Generator().manual_seed(3)
    x = torch.randn(N, *shape, generator=random, dtype=torch.float64)
    return Batch.of(x, torch.randint(C, (N,), generator=random))


def value(out: Output, y: torch.Tensor) -> torch.Tensor:
    return out.logits.square().sum(1) + out.features.sin().sum(1) * (y + 1)


@pytest.mark.parametrize("fold", [torch.square, torch.abs])
def test_it_is_the_sum_over_single_samples(fold) -> None:
    """The other way to it looks at each sample by itself: it is taken for a fold that is not known."""
    made, batch = model({"name": "mlp", "inputs": [D], "hidden": [7], "features": 4}), samples(D)
    found = summed(made, batch, value, fold)
    single = mean_gradient(made, batch, value, lambda g: fold(g))

    assert found is not None
    torch.testing.assert_close({name: t / N for name, t in found.items()}, single)


def test_other_models_and_folds_are_left_to_the_general_way() -> None:
    """Convolutions, a bias that does not train, a weight used twice, a fold that does not multiply."""
    mlp = {"name": "mlp", "inputs": [D], "hidden": [D], "features": D}
    conv = model({"name": "conv", "inputs": [1, 4, 4], "channels": [2], "features": 3})
    frozen, tied = model(mlp), model(mlp)
    frozen.head.bias.requires_grad_(False)
    tied.backbone.layers[0].weight = tied.backbone.layers[2].weight

    assert summed(conv, samples(1, 4, 4), value, torch.square) is None
    assert summed(frozen, samples(D), value, torch.square) is None
    assert summed(tied, samples(D), value, torch.square) is None
    assert summed(model(mlp), samples(D), value, torch.exp) is None
