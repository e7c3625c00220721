"""The mathematics of the heads, in float64."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lifelong.errors import ConfigError
from lifelong.models.heads import LinearHead, PrototypeHead, SimplexHead

seeds = st.integers(0, 2**31)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@given(classes=st.integers(2, 128))
def test_the_vertices_are_those_of_a_regular_simplex(classes: int) -> None:
    """Unit norms, pairwise cosine -1/(K-1), centre at 0."""
    w = SimplexHead(classes - 1, classes).vertices()
    expected = torch.full((classes, classes), -1 / (classes - 1), dtype=torch.float64)
    expected.fill_diagonal_(1.0)

    assert w.shape == (classes, classes - 1)
    torch.testing.assert_close(w @ w.T, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(w.sum(0), torch.zeros(classes - 1, dtype=torch.float64), rtol=0, atol=1e-12)


@given(classes=st.integers(2, 128), rows=st.integers(0, 5), scale=st.none() | st.floats(0.1, 100), seed=seeds)
def test_fast_logits_are_the_product_with_the_vertices(classes: int, rows: int, scale: float | None, seed: int) -> None:
    """With a scale, of unit features."""
    head, z = SimplexHead(classes - 1, classes, scale), normal(rows, classes - 1, seed=seed)
    unit = z if scale is None else scale * z / z.norm(dim=1, keepdim=True)

    torch.testing.assert_close(head(z), unit @ head.vertices().T, rtol=1e-10, atol=1e-10)


def test_two_classes_are_the_ends_of_a_line() -> None:
    head = SimplexHead(1, 2)

    torch.testing.assert_close(head.vertices(), torch.tensor([[1.0], [-1.0]], dtype=torch.float64))
    assert head(torch.tensor([[3.0], [-2.0]])).argmax(1).tolist() == [0, 1]


def test_a_scaled_simplex_of_a_zero_feature_is_undecided_not_nan() -> None:
    torch.testing.assert_close(SimplexHead(3, 4, 5.0)(torch.zeros(1, 3)), torch.zeros(1, 4))


def test_the_simplex_holds_nothing_and_cannot_grow() -> None:
    head, generator = SimplexHead(3, 4), torch.Generator()

    assert not head.state_dict()
    head.grow(4, generator)
    with pytest.raises(ConfigError, match="4 pre-allocated classes and needs 5"):
        head.grow(5, generator)


@pytest.mark.parametrize(("dim", "classes", "scale"), [(4, 4, None), (0, 1, None), (3, 4, 0.0), (3, 4, -1.0)])
def test_a_simplex_needs_features_of_width_k_minus_1(dim: int, classes: int, scale: float | None) -> None:
    with pytest.raises(ConfigError, match="got"):
        SimplexHead(dim, classes, scale)


@given(dim=st.integers(1, 8), sizes=st.lists(st.integers(0, 12), max_size=5), seed=seeds)
def test_old_columns_of_the_linear_head_stay_bit_identical(dim: int, sizes: list[int], seed: int) -> None:
    """Growing appends columns (never takes any away); their bias is 0 and their weights lie within 1/sqrt(D)."""
    generator, head = torch.Generator().manual_seed(seed), LinearHead(dim)
    for size in sizes:
        weight, bias = head.weight.detach().clone(), head.bias.detach().clone()
        head.grow(size, generator)

        assert head.classes == max(size, len(bias)) == head.spec()["classes"]
        assert torch.equal(head.weight[: len(bias)], weight)
        assert torch.equal(head.bias[: len(bias)], bias)
        assert not head.bias[len(bias) :].any()
        assert (head.weight.abs() <= dim**-0.5).all()
        with torch.no_grad():
            head.bias += 1


def test_a_head_that_is_large_enough_draws_nothing() -> None:
    head, generator = LinearHead(3, 4), torch.Generator().manual_seed(0)
    before = generator.get_state()
    head.grow(4, generator)

    assert torch.equal(generator.get_state(), before)


@pytest.mark.parametrize("kind", [LinearHead, PrototypeHead])
@pytest.mark.parametrize(("dim", "classes"), [(0, 1), (3, -1)])
def test_a_head_needs_a_width(kind: type[LinearHead], dim: int, classes: int) -> None:
    with pytest.raises(ConfigError, match=r"needs dim >= 1 and classes >= 0"):
        kind(dim, classes)


def taught(z: Tensor, y: Tensor, cuts: list[int], classes: int = 4, normalise: bool = True) -> PrototypeHead:
    head = PrototypeHead(z.shape[1], classes, normalise)
    for part_z, part_y in zip(z.tensor_split(cuts), y.tensor_split(cuts), strict=True):
        head.update(part_z, part_y)
    return head


@given(count=st.integers(1, 30), cuts=st.lists(st.integers(0, 30), max_size=4), normalise=st.booleans(), seed=seeds)
def test_means_depend_on_neither_order_nor_batches(count: int, cuts: list[int], normalise: bool, seed: int) -> None:
    """Against the mean of each class, taken at once by its definition."""
    z, y = normal(count, 5, seed=seed), torch.arange(count) * 7 % 3
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    scaled = z / z.norm(dim=1, keepdim=True) if normalise else z
    expected = torch.stack([scaled[y == c].mean(0) if (y == c).any() else torch.zeros(5).double() for c in range(4)])

    head = taught(z[order], y[order], sorted(cuts), normalise=normalise)

    assert head.counts.tolist() == y.bincount(minlength=4).tolist()
    means = head.sums / head.counts.clamp(min=1).unsqueeze(1)
    torch.testing.assert_close(means, expected, rtol=0, atol=1e-12)
    known = head.counts > 0
    distance = ((scaled[:, None] - expected[None]) ** 2).sum(2)
    torch.testing.assert_close(head(z)[:, known], -distance[:, known], rtol=0, atol=1e-9)


@given(kept=st.integers(0, 20), forgotten=st.integers(1, 20), seed=seeds)
def test_forgetting_equals_never_having_seen(kept: int, forgotten: int, seed: int) -> None:
    z = normal(kept + forgotten, 5, seed=seed)
    y = torch.arange(kept + forgotten) % 3
    head, never = taught(z, y, [kept]), taught(z[:kept], y[:kept], [])
    head.update(z[kept:], y[kept:], sign=-1)

    assert torch.equal(head.counts, never.counts)
    torch.testing.assert_close(head.sums, never.sums, rtol=0, atol=1e-12)


@settings(max_examples=30)
@given(seed=seeds, empty=st.integers(0, 3))
def test_a_class_without_samples_is_never_predicted(seed: int, empty: int) -> None:
    """Not even for a feature at the origin, where an empty mean would be."""
    z = torch.cat([normal(20, 5, seed=seed), torch.zeros(1, 5, dtype=torch.float64)])
    y = (torch.arange(20) % 3 + empty + 1) % 4
    logits = taught(z[:20], y, [])(z)

    assert not logits.isnan().any()
    assert (logits[:, empty] == -torch.inf).all()
    assert (logits.argmax(1) != empty).all()


def test_a_zero_feature_is_a_zero_vector_not_nan() -> None:
    head = taught(torch.tensor([[0.0, 0.0], [2.0, 0.0]]), torch.tensor([0, 0]), [], classes=1)

    assert head.sums.tolist() == [[1.0, 0.0]]
    torch.testing.assert_close(head(torch.zeros(1, 2)), torch.tensor([[-0.25]]))


def test_growing_the_prototype_head_keeps_its_means() -> None:
    head = taught(normal(6, 5), torch.arange(6) % 2, [], classes=2)
    sums = head.sums.clone()
    head.grow(4, torch.Generator())
    head.grow(1, torch.Generator())

    assert torch.equal(head.sums[:2], sums)
    assert head.counts.tolist() == [3, 3, 0, 0]
    assert head.spec() == {"name": "prototype", "classes": 4, "normalise": True}
    head.reset(torch.Generator())
    assert not head.sums.any()
