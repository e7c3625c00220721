"""Maps between two embeddings, and backbones one after the other."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import Ridge
from torch import Tensor

from lifelong.errors import ConfigError, DataError
from lifelong.labels import LabelMap
from lifelong.models import build
from lifelong.models.alignment import orthogonal_map, ridge_map
from lifelong.models.stacked import widened
from lifelong.release.snapshot import Snapshot


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def unit(z: Tensor) -> Tensor:
    return z / z.norm(dim=1, keepdim=True)


@given(dim=st.integers(1, 8), wider=st.integers(0, 4), seed=st.integers(0, 2**31))
def test_a_turned_copy_is_brought_back(dim: int, wider: int, seed: int) -> None:
    """Also where the old features are wider; angles among the new ones stay."""
    z = normal(30, dim, seed=seed)
    turn = torch.linalg.qr(normal(dim + wider, dim, seed=seed + 1)).Q
    found = orthogonal_map(z, z @ turn.T)

    torch.testing.assert_close(found, turn, rtol=0, atol=1e-8)
    torch.testing.assert_close((z @ found.T) @ (z @ found.T).T, z @ z.T, rtol=0, atol=1e-8)


def test_no_orthogonal_map_comes_nearer() -> None:
    """Against a thousand drawn ones."""
    z, old = unit(normal(50, 3)), unit(normal(50, 3, seed=1) + normal(50, 3))
    best = (z @ orthogonal_map(z, old).T - old).square().sum()
    for seed in range(1000):
        q = torch.linalg.qr(normal(3, 3, seed=seed)).Q
        assert (z @ q.T - old).square().sum() >= best - 1e-12


def test_the_ridge_map_is_ridge_regression_on_unit_features() -> None:
    z, old = normal(40, 5), normal(40, 3, seed=1)
    expected = Ridge(alpha=40 * 0.01, fit_intercept=False).fit(unit(z).numpy(), unit(old).numpy()).coef_
    np.testing.assert_allclose(ridge_map(z, old, 0.01).numpy(), expected, atol=1e-8)


def test_features_of_other_inputs_are_refused() -> None:
    for old in (normal(3, 2), normal(0, 2), normal(4)):
        with pytest.raises(DataError, match="same N"):
            orthogonal_map(normal(4, 2), old)


MLP = {"name": "mlp", "inputs": [4], "hidden": [6], "features": 3}
TOP = {"name": "mlp", "inputs": [3], "hidden": [], "features": 2}


def test_a_stack_is_its_parts_one_after_the_other() -> None:
    made = build({"backbone": {"name": "stack", "parts": [MLP, TOP]}, "head": {"name": "linear"}})
    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    first, second = made.backbone.parts
    assert torch.equal(made.backbone(x), second(first(x)))
    assert (made.input_shape, made.dim) == ((4,), 2)
    assert build(made.spec()).spec() == made.spec()


def test_the_last_part_of_a_stack_is_widened() -> None:
    assert widened({"name": "stack", "parts": [MLP, TOP]}, 9)["parts"] == [MLP, {**TOP, "features": 9}]
    with pytest.raises(ConfigError, match="put an mlp on top"):
        widened({"name": "lite", "inputs": [3, 32, 32]}, 9)


def test_columns_are_those_of_one_encoder() -> None:
    body = {"name": "columns", "inputs": [7], "first": 2, "count": 4}
    made = build({"backbone": {"name": "stack", "parts": [body, MLP]}, "head": {"name": "linear"}})
    x = torch.randn(5, 7, generator=torch.Generator().manual_seed(0))
    assert torch.equal(made.backbone(x), made.backbone.parts[1](x[:, 2:6]))
    assert made.spec()["backbone"]["parts"][0] == body
    for wrong in ({"first": -1}, {"count": 6}, {"count": 0}, {"inputs": [7, 7]}):
        with pytest.raises(ConfigError, match="not among those"):
            build({"backbone": {**body, **wrong}, "head": {"name": "linear"}})


def test_a_stack_that_does_not_fit_together_is_refused() -> None:
    for parts in ([], [MLP, {**TOP, "inputs": [5]}], [{"inputs": [3]}]):
        with pytest.raises(ConfigError, match=r"got|cannot follow"):
            build({"backbone": {"name": "stack", "parts": parts}, "head": {"name": "linear"}})


@pytest.mark.slow
def test_what_a_stack_on_one_encoder_wrote_is_of_the_family_of_a_stack_on_another() -> None:
    """So the gate measures whether one reads the other's vectors; bare encoders of two sizes are not even measured."""
    pytest.importorskip("efficientnet_lite_pytorch", reason="pip install lifelong[encoders]")
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    top = {"name": "mlp", "inputs": [1280], "hidden": [], "features": 5}
    families, bare = [], []
    for variant, size in (("lite0", 32), ("lite2", 48)):
        encoder = {"name": "lite", "inputs": [3, 32, 32], "variant": variant, "size": size}
        model = build(
            {"backbone": {"name": "stack", "parts": [encoder, top]}, "head": {"name": "linear", "classes": 2}}
        )
        first, last = model.backbone.parts
        assert torch.equal(model.backbone(x), last(first(x)))
        assert {name for name, p in model.backbone.named_parameters() if p.requires_grad} == {
            "parts.1.layers.0.weight",
            "parts.1.layers.0.bias",
        }
        labels = LabelMap(["a", "b"])
        families.append(Snapshot.of(model, labels, probe_x=x).space.family)
        alone = build({"backbone": encoder, "head": {"name": "linear", "classes": 2}})
        bare.append(Snapshot.of(alone, labels, probe_x=x).space.family)
    assert families[0] == families[1]
    assert bare[0] != bare[1]
