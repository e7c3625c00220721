"""Changed rows: with the old weights they give the new ones, bit for bit, and they are never larger."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lifelong.errors import ArtifactError
from lifelong.models import build
from lifelong.release.delta import apply, changed_rows

TYPES = [torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.bool, torch.uint8]
shapes = st.lists(st.integers(0, 5), max_size=3).map(tuple)
seeds = st.integers(0, 2**31)


def bits(tensor: Tensor) -> tuple[object, ...]:
    return tensor.dtype, tuple(tensor.shape), tensor.detach().contiguous().reshape(-1).view(torch.uint8).tolist()


def drawn(shape: tuple[int, ...], dtype: torch.dtype, random: torch.Generator) -> Tensor:
    return torch.randint(-3, 4, shape, generator=random).to(dtype)


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return {n: bits(t) for n, t in one.items()} == {n: bits(t) for n, t in other.items()}


@settings(max_examples=200)
@given(
    before=st.dictionaries(st.sampled_from("abcd"), st.tuples(shapes, st.sampled_from(TYPES))),
    after=st.dictionaries(st.sampled_from("abcd"), st.tuples(shapes, st.sampled_from(TYPES))),
    kept=st.sets(st.sampled_from("abcd")),
    seed=seeds,
)
@pytest.mark.slow
def test_old_weights_and_the_delta_give_the_new_weights(before, after, kept, seed) -> None:
    """Whatever came, went, grew, shrank, changed its type or stayed; `old` is not written to."""
    random = torch.Generator().manual_seed(seed)
    old = {name: drawn(shape, dtype, random) for name, (shape, dtype) in before.items()}
    new = {name: drawn(shape, dtype, random) for name, (shape, dtype) in after.items()}
    new |= {name: old[name].clone() for name in kept & set(old)}
    for name in kept & set(old):
        if new[name].numel():
            first = new[name].view(-1)[:1].view(torch.uint8)
            first ^= 1
    saved = {name: tensor.clone() for name, tensor in old.items()}
    delta = changed_rows(old, new)
    made = apply(old, delta)

    assert same(made, new)
    assert same(old, saved)
    assert delta.nbytes <= sum(tensor.nbytes for tensor in new.values())
    assert not {t.data_ptr() for t in made.values() if t.numel()} & {t.data_ptr() for t in old.values() if t.numel()}


@given(rows=st.integers(1, 30), width=st.integers(1, 6), touched=st.sets(st.integers(0, 29)), seed=seeds)
def test_only_rows_that_changed_are_shipped(rows: int, width: int, touched: set[int], seed: int) -> None:
    """Counted by hand: a number of 4 bytes and w values for each, or all values where that is less."""
    old = torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))
    new, hit = old.clone(), sorted(i for i in touched if i < rows)
    new[hit] += 1
    delta = changed_rows({"values": old}, {"values": new})

    assert delta.nbytes == min(len(hit) * 4 * (1 + width), new.nbytes)
    if 0 < delta.nbytes < new.nbytes:
        assert delta.rows["values"][0].tolist() == hit


def test_single_values_are_shipped_where_whole_rows_would_be_larger() -> None:
    old = {"counts": torch.zeros(3, 1000, dtype=torch.int64)}
    new = {"counts": old["counts"].clone()}
    new["counts"][:, 5] = 1

    assert changed_rows(old, new).nbytes == 3 * (4 + 8)


def test_equal_means_equal_bits() -> None:
    """0.0 == -0.0 and NaN != NaN, but bits are what is shipped."""
    old = {"w": torch.tensor([[0.0], [torch.nan], [1.0]] * 3)}
    new = {"w": old["w"].clone()}
    new["w"][0] = -0.0
    delta = changed_rows(old, new)

    assert delta.rows["w"][0].tolist() == [0]
    assert same(apply(old, delta), new)


def test_new_classes_cost_only_the_rows_that_learned_something() -> None:
    """A bottleneck that grows repeats its last column in every row; that is not a change of every row."""
    spec = {
        "backbone": {"name": "identity", "inputs": [4]},
        "head": {"name": "bottleneck", "classes": 2, "books": 8, "pairs": 64, "dim_key": 3},
    }
    model = build(spec)
    z = torch.randn(20, 4, generator=torch.Generator().manual_seed(1))

    def learn(classes: int) -> dict[str, Tensor]:
        model.grow(classes)
        y = torch.arange(20) % classes
        model.head.learn(model.head.found(z), y, 0.1)
        return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}

    old, new = learn(2), learn(5)
    delta = changed_rows(old, new)
    fetched = int((new["head.touched"] != old["head.touched"]).sum())

    assert same(apply(old, delta), new)
    assert delta.nbytes == fetched * (4 + 6 * 4) + fetched * (4 + 8)
    assert set(delta.rows) == {"head.values", "head.touched"}
    assert not delta.whole


@pytest.mark.parametrize(
    "other", [{}, {"w": torch.zeros(9, 5)}, {"w": torch.zeros(36)}, {"w": torch.zeros(9, 4, dtype=torch.float64)}]
)
def test_a_delta_of_other_weights_is_refused(other: dict[str, Tensor]) -> None:
    old, new = {"w": torch.zeros(9, 4)}, {"w": torch.zeros(9, 4)}
    new["w"][1] = 1

    with pytest.raises(ArtifactError, match="other weights"):
        apply(other, changed_rows(old, new))
