"""Backbones: shapes, arguments, and the numbers of a hand-written network."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lifelong.errors import ConfigError
from lifelong.models.networks import MLP, Conv, Identity


@pytest.fixture(autouse=True)
def same_weights_every_time() -> Iterator[None]:
    """Modules that are made by hand draw from torch's global state."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


MADE: list[Callable[[], Any]] = [
    lambda: Identity([2, 3]),
    lambda: Identity([2, 3], pool=True),
    lambda: MLP([2, 3], [5, 4], 7),
    lambda: MLP([6], [], 3),
    lambda: MLP([6], [4]),
    lambda: Conv([3, 8, 8], [4, 6], 5),
    lambda: Conv([1, 9, 5], [4], 5),
]


@pytest.mark.parametrize("make", MADE)
def test_it_knows_its_shapes_and_the_arguments_that_rebuild_it(make: Callable[[], Any]) -> None:
    net = make()
    spec = net.spec()
    again = type(net)(**{k: v for k, v in spec.items() if k != "name"})
    again.load_state_dict(net.state_dict())
    x = torch.rand(3, *net.input_shape)

    assert again.spec() == spec
    assert net(x).shape == (3, net.dim)
    assert torch.equal(again(x), net(x))


def test_features_of_tokens_are_their_mean() -> None:
    """And without pooling there is one token: the features."""
    x = torch.rand(4, 2, 3)
    side_by_side, pooled = Identity([2, 3]), Identity([2, 3], pool=True)

    assert (side_by_side.dim, pooled.dim) == (6, 3)
    assert torch.equal(pooled.tokens(x), x)
    torch.testing.assert_close(pooled(x), (x[:, 0] + x[:, 1]) / 2)
    assert torch.equal(side_by_side.tokens(x)[:, 0], side_by_side(x))
    with pytest.raises(ConfigError, match=r"\(tokens, width\)"):
        Identity([4], pool=True)


@pytest.mark.parametrize("make", MADE)
def test_flat_rows_are_taken_for_samples(make: Callable[[], Any]) -> None:
    net = make()
    x = torch.rand(3, *net.input_shape)

    assert torch.equal(net(x.flatten(1)), net(x))


@pytest.mark.parametrize("make", MADE)
def test_the_answer_to_a_sample_does_not_depend_on_its_neighbours(make: Callable[[], Any]) -> None:
    net = make().double()
    x = torch.rand(4, *net.input_shape, dtype=torch.float64)

    torch.testing.assert_close(torch.cat([net(x[i : i + 1]) for i in range(4)]), net(x), rtol=1e-12, atol=1e-12)


def test_mlp_is_linear_layers_with_relu_between_them() -> None:
    """The last layer is linear if features are asked for, else the last ReLU is the end."""
    net, short = MLP([3], [5], 2), MLP([3], [5])
    first, last = net.layers[0], net.layers[2]
    short.layers[0].load_state_dict(first.state_dict())
    x = torch.randn(4, 3)
    hidden = (x @ first.weight.T + first.bias).clamp(min=0)

    torch.testing.assert_close(net(x), hidden @ last.weight.T + last.bias)
    torch.testing.assert_close(short(x), hidden)
    assert (net(x) < 0).any()


def test_conv_is_convolution_relu_and_pooling() -> None:
    net = Conv([1, 4, 4], [2], 3)
    x = torch.randn(2, 1, 4, 4)
    maps = F.conv2d(F.pad(x, (1, 1, 1, 1)), net.convolutions[0].weight, net.convolutions[0].bias).clamp(min=0)
    pooled = maps.unfold(2, 2, 2).unfold(3, 2, 2).amax((4, 5)).flatten(1)

    torch.testing.assert_close(net(x), pooled @ net.out.weight.T + net.out.bias)


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        (Identity, {"inputs": []}),
        (Identity, {"inputs": [0]}),
        (MLP, {"inputs": [4], "hidden": []}),
        (MLP, {"inputs": [4], "hidden": [0]}),
        (MLP, {"inputs": [4], "hidden": [3], "features": 0}),
        (MLP, {"inputs": [4], "features": -1}),
        (MLP, {"inputs": [2.5]}),
        (MLP, {"inputs": "4"}),
        (Conv, {"inputs": [8, 8]}),
        (Conv, {"inputs": [1, 3, 8]}),
        (Conv, {"inputs": [1, 8, 8], "channels": []}),
        (Conv, {"inputs": [1, 8, 8], "features": 0}),
    ],
)
def test_arguments_out_of_range_are_refused(kind: type[nn.Module], arguments: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"got|mlp needs"):
        kind(**arguments)
