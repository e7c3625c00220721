"""The algebra of protected subspaces, against singular value decompositions, loops and closed forms."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from lifelong.errors import ConfigError
from lifelong.learning import projection
from lifelong.learning.projection import added, grown, own
from lifelong.models.layers import layers, matrix, parts, rows, width
from lifelong.models.products import follow, hold, inside
from lifelong.models.rails import Along, Rail, scaled_now
from lifelong.models.scaling import scaled

sizes = st.integers(1, 9)
seeds = st.integers(0, 2**31)
shares = st.floats(0.05, 0.999)


def drawn(*shape: int, seed: int) -> Tensor:
    """Numbers whose columns fall off in size, so that ranks below full matter."""
    random = torch.Generator().manual_seed(seed)
    found = torch.randn(*shape, generator=random, dtype=torch.float64)
    return found * 0.6 ** torch.arange(shape[-1], dtype=torch.float64)


def orthonormal(wide: int, rank: int, seed: int) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(wide, min(rank, wide), generator=random, dtype=torch.float64)).Q


def held(basis: Tensor, gram: Tensor) -> float:
    """Share of the energy inside a span."""
    return float((basis.T @ gram @ basis).trace() / gram.trace())


def by_svd(memory: Tensor, inputs: Tensor, share: float) -> Tensor:
    """The memory grown as in the paper: from the singular vectors of what is left of the inputs `[I, n]`."""
    left = inputs - memory @ (memory.T @ inputs)
    u, s, _ = torch.linalg.svd(left, full_matrices=False)
    total, rank = float(inputs.square().sum()), 0
    while (total - left.square().sum() + s[:rank].square().sum()) / total < share and rank < len(s):
        rank += 1
    return torch.cat([memory, u[:, :rank]], 1)


@given(wide=sizes, count=st.integers(1, 30), rank=st.integers(0, 4), share=shares, seed=seeds)
def test_the_basis_is_the_one_of_a_singular_value_decomposition(wide, count, rank, share, seed):
    """The same rank and the same span, with and without a memory."""
    memory = orthonormal(wide, rank, seed) if rank else torch.zeros(wide, 0, dtype=torch.float64)
    inputs = drawn(count, wide, seed=seed + 1)
    found, expected = grown(memory, inputs.T @ inputs, share), by_svd(memory, inputs.T, share)

    assert found.shape == expected.shape
    torch.testing.assert_close(found @ found.T, expected @ expected.T, atol=1e-7, rtol=0)


@given(wide=sizes, tasks=st.integers(1, 4), share=shares, seed=seeds)
def test_a_memory_stays_orthonormal_and_holds_what_it_must_with_no_column_too_many(wide, tasks, share, seed):
    memory = torch.zeros(wide, 0, dtype=torch.float64)
    for task in range(tasks):
        inputs = drawn(12, wide, seed=seed + task)
        gram = inputs.T @ inputs
        more = grown(memory, gram, share)

        assert memory.shape[1] <= more.shape[1] <= wide
        assert torch.equal(more[:, : memory.shape[1]], memory)
        torch.testing.assert_close(more.T @ more, torch.eye(more.shape[1], dtype=torch.float64), atol=1e-12, rtol=0)
        assert held(more, gram) >= share - 1e-12
        if more.shape[1] > memory.shape[1]:
            assert held(more[:, :-1], gram) < share
        memory = more


@given(wide=sizes, share=shares, seed=seeds)
def test_an_own_basis_is_the_smallest_set_of_columns_that_holds_its_share(wide, share, seed):
    """Old columns and new ones compete; whatever is new and chosen is in the memory afterwards."""
    first, second = drawn(12, wide, seed=seed), drawn(12, wide, seed=seed + 1)[:, torch.arange(wide).flip(0)]
    memory, ids = own(torch.zeros(wide, 0, dtype=torch.float64), first.T @ first, share)
    assert ids.tolist() == list(range(memory.shape[1]))
    gram = second.T @ second
    more, chosen = own(memory, gram, share)
    energies = [held(more[:, i : i + 1], gram) for i in chosen.tolist()]

    assert ids.dtype == chosen.dtype == torch.int32
    assert set(range(memory.shape[1], more.shape[1])) <= set(chosen.tolist())
    assert sum(energies) >= share - 1e-9
    assert sum(energies) - min(energies) < share + 1e-9


def test_the_strongest_new_direction_is_protected():
    """Not the second strongest: this is where published code is off by one."""
    memory = torch.eye(5, dtype=torch.float64)[:, :1]
    gram = torch.diag(torch.tensor([1.0, 9.0, 4.0, 0.1, 0.0], dtype=torch.float64))
    grows, (owns, ids) = grown(memory, gram, 0.6), own(memory, gram, 0.6)

    for basis in (grows, owns):
        torch.testing.assert_close(basis.abs(), torch.eye(5, dtype=torch.float64)[:, :2])
    assert ids.tolist() == [1]


def test_dropping_the_strongest_direction_is_caught(monkeypatch):
    """The laws above are not empty: with the published mistake the share is missed."""
    gram = torch.diag(torch.tensor([9.0, 4.0, 1.0], dtype=torch.float64))
    right = projection.residual
    monkeypatch.setattr(projection, "residual", lambda m, g: tuple(t[..., 1:] for t in right(m, g)))

    assert held(grown(torch.zeros(3, 0, dtype=torch.float64), gram, 0.6), gram) < 0.6


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_nothing_and_everything(share):
    """A share of 0 protects nothing; a share of 1 protects the span that is there, and no rounding errors."""
    inputs = drawn(20, 3, seed=3) @ drawn(3, 8, seed=4)
    basis = grown(torch.zeros(8, 0, dtype=torch.float64), inputs.T @ inputs, share)

    assert basis.shape[1] == (3 if share else 0)
    assert own(torch.zeros(8, 0, dtype=torch.float64), torch.zeros(8, 8, dtype=torch.float64), share)[1].tolist() == []


def layer_of(out: int, wide: int, bias: bool, seed: int) -> nn.Linear:
    layer = nn.Linear(wide, out, bias=bias).double()
    with torch.no_grad():
        for p in layer.parameters():
            p.copy_(drawn(*p.shape, seed=seed))
    return layer


@given(out=sizes, wide=sizes, rank=sizes, bias=st.booleans(), seed=seeds)
def test_an_old_input_never_feels_an_update(out, wide, rank, bias, seed):
    """What is left of a step is its part outside of the span; holding twice is holding once; it is never longer."""
    layer = layer_of(out, wide, bias, seed)
    basis = orthonormal(width(layer), rank, seed)
    held, before = follow(layer, basis, layer.weight.new_zeros(0, 0)), matrix(layer).detach().clone()
    step = drawn(out, width(layer), seed=seed + 1)
    with torch.no_grad():
        for name, part in parts(layer, before + step).items():
            getattr(layer, name).copy_(part)
    hold(layer, basis, held.clone(), out)
    kept = matrix(layer).detach() - before

    torch.testing.assert_close(held, before @ basis)
    assert (kept @ basis).abs().max() <= 1e-12
    torch.testing.assert_close(kept, step @ (torch.eye(width(layer), dtype=torch.float64) - basis @ basis.T))
    assert kept.norm() <= step.norm() * (1 + 1e-12)
    once = matrix(layer).detach().clone()
    hold(layer, basis, held, out)
    torch.testing.assert_close(matrix(layer).detach(), once, atol=1e-12, rtol=0)


def test_free_rows_and_columns_may_move_and_are_noted():
    """Later rows are free along everything, free columns in all rows; the rest is as it was."""
    layer, basis = layer_of(4, 5, True, 0), orthonormal(6, 3, 1)
    held, before = follow(layer, basis, layer.weight.new_zeros(0, 0)), matrix(layer).detach().clone()
    with torch.no_grad():
        layer.weight += drawn(4, 5, seed=2)
        layer.bias -= 1
    moved = matrix(layer).detach().clone()
    hold(layer, basis, held, 3, torch.tensor([False, True, False]))
    now = matrix(layer).detach()

    torch.testing.assert_close(now[3], moved[3], atol=0, rtol=0)
    torch.testing.assert_close(now @ basis[:, 1], moved @ basis[:, 1])
    torch.testing.assert_close((now @ basis)[:3, [0, 2]], (before @ basis)[:3, [0, 2]])
    torch.testing.assert_close(held, now @ basis)
    assert (moved @ basis - now @ basis).abs().max() > 0.1


def test_where_a_layer_is_held_follows_new_columns_and_rows():
    layer, basis = layer_of(3, 5, True, 0), orthonormal(6, 4, 1)
    old = torch.full((2, 3), 7.0, dtype=torch.float64)
    found = follow(layer, basis, old)

    assert torch.equal(found[:2, :3], old)
    assert torch.equal(found[2:], inside(layer.weight, layer.bias, basis)[2:])
    assert torch.equal(found[:, 3:], inside(layer.weight, layer.bias, basis)[:, 3:])
    assert follow(layer, basis, found) is found


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("free", [None, [1, 4]])
@pytest.mark.parametrize("outputs", [4, 3])
def test_scaled_weights_in_training_and_their_gradients_are_those_of_the_formula(bias, free, outputs):
    """Of W + sum_j (W B_j) D_j B_j', where W B_j is a constant unless its row or its column is free."""
    layer, other = layer_of(4, 6, bias, 0), drawn(4, 6 + bias, seed=5)
    memory, bases = orthonormal(6 + bias, 5, 1), [torch.tensor([0, 1, 4]), torch.tensor([1, 2])]
    offsets = drawn(2, 3, 3, seed=2).requires_grad_()
    mask = None if free is None else torch.isin(torch.arange(5), torch.tensor(free))
    weights = [layer.weight] + ([layer.bias] if bias else [])
    held = follow(layer, memory, layer.weight.new_zeros(0, 0))
    along = Along.of(memory, bases, [0.5, 0.25], offsets.detach())
    weight, shift = scaled_now(layer, offsets, Rail(memory, held, along, outputs, mask))
    made = torch.cat([weight, shift[:, None]], 1) if bias else weight
    found = torch.autograd.grad((made * other).sum(), [*weights, offsets])

    known = matrix(layer) @ memory
    moves = torch.zeros_like(known, dtype=torch.bool)
    moves[outputs:] = True
    moves[:, [] if free is None else free] = True
    known = torch.where(moves, known, known.detach())
    expected = matrix(layer)
    for basis, block, unit in zip(bases, offsets, [0.5, 0.25], strict=True):
        k = len(basis)
        expected = expected + unit * known[:, basis] @ block[:k, :k] @ memory[:, basis].T
    torch.testing.assert_close(made, expected)
    for ours, theirs in zip(found, torch.autograd.grad((expected * other).sum(), [*weights, offsets]), strict=True):
        torch.testing.assert_close(ours, theirs)


@given(count=st.integers(1, 20), wide=sizes, cut=st.integers(0, 20), seed=seeds)
def test_a_gram_matrix_adds_up_over_batches(count, wide, cut, seed):
    inputs = drawn(count, wide, seed=seed)
    gram = None
    for part in (inputs[:cut], inputs[cut:]):
        gram = added(gram, part)

    torch.testing.assert_close(gram, inputs.T @ inputs)


@pytest.mark.parametrize(("count", "wide"), [(3000, 40), (700, 300)])
def test_products_in_single_precision_give_the_basis_of_a_decomposition_in_double(count, wide):
    """The same rank and the same span, energies to 1e-8 of their sum; with a mean far from 0, as inputs have."""
    inputs = (drawn(count, wide, seed=0) * 1.6 ** torch.arange(wide, dtype=torch.float64) + 0.3).float()
    gram = None
    for part in inputs.split(1500):
        gram = added(gram, part)
    exact = inputs.double()
    u, s, _ = torch.linalg.svd(exact.T, full_matrices=False)
    share = s.square().cumsum(0) / s.square().sum()

    assert gram.dtype == torch.float64
    assert torch.equal(gram, gram.T)
    assert (torch.linalg.eigvalsh(gram).flip(0)[: len(s)] - s.square()).abs().max() <= 1e-8 * s.square().sum()
    for wanted in (0.9, 0.97, 0.99):
        found = grown(torch.zeros(wide, 0, dtype=torch.float64), gram, wanted)
        expected = u[:, : int((share < wanted).sum()) + 1]
        assert found.shape == expected.shape
        torch.testing.assert_close(found @ found.T, expected @ expected.T, atol=1e-4, rtol=0)


@given(out=sizes, wide=sizes, rank=sizes, seed=seeds)
def test_scaled_weights_are_their_formula(out, wide, rank, seed):
    """W B (Q - I) B' added to W is W (I + B (Q - I) B'); Q = I adds nothing at all."""
    weight, basis = drawn(out, wide, seed=seed), orthonormal(wide, rank, seed)
    k = basis.shape[1]
    q = torch.eye(k, dtype=torch.float64) + drawn(k, k, seed=seed + 1)
    dense = weight @ (torch.eye(wide, dtype=torch.float64) + basis @ (q - torch.eye(k)) @ basis.T)

    torch.testing.assert_close(weight + scaled(weight, basis, q - torch.eye(k)), dense)
    assert torch.equal(weight + scaled(weight, basis, torch.zeros(k, k, dtype=torch.float64)), weight)


def by_loop(layer: nn.Conv2d, x: Tensor) -> Tensor:
    """Patches one by one: sample, then row, then column."""
    (up, left), (down, right) = layer.padding, layer.stride
    height, wide = layer.kernel_size
    padded = nn.functional.pad(x, (left, left, up, up))
    found = []
    for image in padded:
        for top in range(0, image.shape[1] - height + 1, down):
            across = range(0, image.shape[2] - wide + 1, right)
            found += [image[:, top : top + height, side : side + wide].flatten() for side in across]
    return torch.stack(found)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("kernel", "stride", "padding"), [(3, 1, 1), ((2, 3), (2, 1), (0, 2))])
def test_a_convolution_is_a_product_with_patches(kernel, stride, padding, bias):
    """Column for column those of a loop, and the product is what the layer says."""
    layer = nn.Conv2d(2, 4, kernel, stride, padding, bias=bias).double()
    x = drawn(3, 2, 6, 5, seed=0)
    found = rows(layer, x)
    said = found @ matrix(layer).T

    assert torch.equal(found[:, : found.shape[1] - bias], by_loop(layer, x))
    assert width(layer) == found.shape[1] == matrix(layer).shape[1]
    torch.testing.assert_close(said, layer(x).permute(0, 2, 3, 1).reshape(-1, 4))
    for name, part in parts(layer, matrix(layer)).items():
        assert torch.equal(part, getattr(layer, name))


def test_a_linear_layer_is_a_product_with_its_inputs_and_a_one():
    layer, x = nn.Linear(4, 3).double(), drawn(5, 4, seed=1)

    torch.testing.assert_close(rows(layer, x) @ matrix(layer).T, layer(x))


def test_only_layers_that_train_are_looked_at_and_odd_convolutions_are_refused():
    model = nn.Sequential(nn.Linear(2, 2).requires_grad_(False), nn.Linear(2, 2), nn.LayerNorm(2))
    assert list(layers(model)) == ["1"]
    for odd in (
        nn.Conv2d(2, 2, 1, groups=2),
        nn.Conv2d(2, 2, 3, padding="same"),
        nn.Conv2d(2, 2, 3, padding=1, padding_mode="circular"),
    ):
        with pytest.raises(ConfigError, match="matrices"):
            layers(nn.Sequential(odd))
