"""Operations counted from shapes equal what torch counts while it computes."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from lifelong.bench.compute import forward_flops
from lifelong.errors import DataError
from lifelong.models import build

MODELS = {
    "mlp": (
        {"backbone": {"name": "mlp", "inputs": [784], "hidden": [256]}, "head": {"name": "linear", "classes": 10}},
        (7, 784),
    ),
    "conv": (
        {
            "backbone": {"name": "conv", "inputs": [1, 28, 28], "channels": [8, 16], "features": 32},
            "head": {"name": "linear", "classes": 10},
        },
        (3, 1, 28, 28),
    ),
}


def torch_counts(model, x):
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(x)
    return counter.get_total_flops()


@pytest.mark.parametrize("name", MODELS)
def test_our_models_cost_what_torch_counts(name):
    """Every layer of a classifier is counted, its head included."""
    spec, shape = MODELS[name]
    model, x = build(spec), torch.rand(shape)
    counts = forward_flops(model, x)
    assert sum(counts.values()) == torch_counts(model, x)
    assert "head" in counts


@pytest.mark.parametrize("options", [{}, {"stride": 2}, {"padding": 2}, {"groups": 3}, {"dilation": 2}])
def test_convolutions_of_all_kinds(options):
    """Stride, padding, groups and dilation change the count as they change the work."""
    model, x = nn.Sequential(nn.Conv2d(3, 6, (3, 5), **options), nn.ReLU()), torch.rand(2, 3, 16, 17)
    assert sum(forward_flops(model, x).values()) == torch_counts(model, x)


def test_a_layer_used_twice_counts_twice():
    """Shared weights are not shared work; leading axes beyond the first are samples too."""
    layer = nn.Linear(4, 4)
    model, x = nn.Sequential(layer, layer), torch.rand(2, 5, 4)
    assert sum(forward_flops(model, x).values()) == torch_counts(model, x) == 2 * 2 * 10 * 16


def test_counting_leaves_the_model_as_it_was():
    """No hook stays, the mode comes back, also when the forward pass fails; no sample is an error."""
    model = nn.Sequential(nn.Linear(4, 2)).train()
    with pytest.raises(RuntimeError):
        forward_flops(model, torch.rand(2, 5))
    with pytest.raises(DataError, match="at least one sample"):
        forward_flops(model, torch.rand(0, 4))
    forward_flops(model, torch.rand(2, 4))
    assert model.training and not model[0]._forward_hooks
