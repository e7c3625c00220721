"""The head of the key-value bottleneck: what it touches, what a step is, and how it grows."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from bottlenecks import BOOKS, PAIRS, WIDTH, generator, head, normal
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lifelong.errors import ConfigError, UnknownName
from lifelong.learning import Learner, Optim, Strategy
from lifelong.models import build
from lifelong.models.bottleneck import BottleneckHead
from lifelong.models.codebooks import flat

seeds = st.integers(0, 2**31)


def labels(count: int, classes: int = 3, seed: int = 0) -> Tensor:
    return torch.randint(classes, (count,), generator=generator(seed))


@settings(max_examples=40)
@given(
    count=st.integers(1, 9),
    top_k=st.integers(1, 3),
    even=st.booleans(),
    decoder=st.sampled_from(["vote", "linear", "mlp"]),
    seed=seeds,
)
def test_pairs_that_were_not_fetched_stay_bit_for_bit(
    count: int, top_k: int, even: bool, decoder: str, seed: int
) -> None:
    """After several steps, in any order of the samples: only rows in what the set fetched; keys never move."""
    made, z, y = head(seed=seed, top_k=top_k, decoder=decoder), normal(count, WIDTH, seed=seed), labels(count)
    fetched = made.found(z)
    free = torch.ones(BOOKS * PAIRS, dtype=torch.bool)
    free[flat(fetched, PAIRS).flatten()] = False
    before = {name: t.clone() for name, t in made.state_dict().items()}
    for step in range(3):
        order = torch.randperm(count, generator=generator(seed + step))
        for rows in order.split(2):
            made.learn(fetched[rows], y[rows], 0.7, smoothing=0.1, even=even)
    after, values = made.state_dict(), made.values.detach().flatten(0, 1)

    assert torch.equal(values[free], before["values"].flatten(0, 1)[free])
    assert (values[~free] != before["values"].flatten(0, 1)[~free]).any(1).all()
    assert all(torch.equal(after[name], before[name]) for name in after if name not in ("values", "touched"))


def dense(made: BottleneckHead, found: Tensor, y: Tensor, smoothing: float) -> tuple[Tensor, Tensor]:
    """Mean loss with a column for each of `reserve` classes from the start, and its gradient for all values."""
    v = made.values.detach().clone().requires_grad_()
    logits = v[torch.arange(BOOKS)[None, :, None], found].sum((1, 2)) / (BOOKS * (found.shape[2] // made.top_k))
    more = max(made.reserve - made.classes, 0)
    logits = torch.cat([logits[:, :-1], logits[:, -1:].detach().expand(-1, more)], 1)
    loss = torch.nn.functional.cross_entropy(logits, y, label_smoothing=smoothing)
    loss.backward()
    assert v.grad is not None
    return loss.detach(), v.grad


@settings(max_examples=40)
@given(
    count=st.integers(1, 9),
    tokens=st.integers(0, 4),
    top_k=st.integers(1, 3),
    smoothing=st.sampled_from([0.0, 0.1]),
    seed=seeds,
)
def test_a_step_in_closed_form_is_a_step_of_dense_sgd(
    count: int, tokens: int, top_k: int, smoothing: float, seed: int
) -> None:
    """Three steps, against autograd through all values, at lr * books; `even` divides by touches instead of N * T."""
    made, y = head(seed=seed, top_k=top_k, tokens=tokens > 0), labels(count)
    found = made.found(normal(count, *[tokens][:tokens], WIDTH, seed=seed))
    assert found.shape == (count, BOOKS, max(tokens, 1) * top_k)
    for even in (False, True, False):
        loss, gradient = dense(made, found, y, smoothing)
        touches = torch.zeros(BOOKS, PAIRS, dtype=torch.float64)
        for book in range(BOOKS):
            touches[book] = found[:, book].flatten().bincount(minlength=PAIRS)
        queries = count * max(tokens, 1)
        scale = BOOKS * queries / touches.clamp(min=1) if even else torch.full_like(touches, BOOKS)
        expected = made.values.detach() - 0.3 * scale[:, :, None] * gradient
        told = made.learn(found, y, 0.3, smoothing=smoothing, even=even)

        torch.testing.assert_close(made.values.detach()[:, :, :-1], expected[:, :, :-1], rtol=0, atol=1e-11)
        assert told == pytest.approx(loss.item(), abs=1e-11)


@pytest.mark.parametrize("tokens", [0, 3])
@pytest.mark.parametrize("decoder", ["linear", "mlp"])
def test_a_step_through_a_decoder_is_a_step_of_sgd_on_the_values(decoder: str, tokens: int) -> None:
    made, y = head(decoder=decoder, tokens=tokens > 0, top_k=2), labels(6)
    found = made.found(normal(6, *[tokens][:tokens], WIDTH))
    loss = torch.nn.functional.cross_entropy(made.decode(found), y)
    loss.backward()
    assert made.values.grad is not None
    expected = made.values.detach() - 0.3 * made.values.grad

    assert made.learn(found, y, 0.3, even=False) == pytest.approx(loss.item(), abs=1e-12)
    torch.testing.assert_close(made.values.detach(), expected, rtol=0, atol=1e-12)
    assert all(p.grad is None for name, p in made.named_parameters() if name != "values")


@settings(max_examples=40)
@given(
    count=st.integers(1, 6),
    tokens=st.integers(1, 4),
    top_k=st.integers(1, 2),
    even=st.booleans(),
    decoder=st.sampled_from(["vote", "linear", "mlp"]),
    seed=seeds,
)
def test_the_same_token_several_times_is_that_token_once(
    count: int, tokens: int, top_k: int, even: bool, decoder: str, seed: int
) -> None:
    """Pairs, logits, and what a step makes of the values; one token equals a pooled feature bit for bit."""
    z, y = normal(count, WIDTH, seed=seed), labels(count)
    pooled, several = (head(seed=seed, top_k=top_k, decoder=decoder, tokens=t) for t in (False, True))
    repeated = z[:, None].repeat(1, tokens, 1)
    atol = 0 if tokens == 1 else 1e-12
    torch.testing.assert_close(several(repeated), pooled(z), rtol=0, atol=atol)
    assert torch.equal(several.found(repeated), pooled.found(z).repeat(1, 1, tokens))
    for made, features in ((pooled, z), (several, repeated)):
        made.learn(made.found(features), y, 0.5, smoothing=0.1, even=even)

    torch.testing.assert_close(several.values, pooled.values, rtol=0, atol=atol)
    assert torch.equal(several.touched, pooled.touched * tokens)


def test_a_sample_learns_behind_the_keys_of_its_tokens_and_answers_with_their_mean() -> None:
    """Counted by hand: one book, two keys, a token at each; three tokens, two of them at the first key."""
    made = BottleneckHead(1, 2, books=1, pairs=2, dim_key=1, tokens=True, projection="chunk", reserve=2)
    made.reset(generator())
    made.codebooks.keys.copy_(torch.tensor([[[0.0], [1.0]]]))
    made.values.detach().copy_(torch.tensor([[[3.0, 0.0, 0.0], [0.0, 6.0, 0.0]]]))
    z = torch.tensor([[[0.1], [0.9], [-1.0]]])

    assert made.found(z).tolist() == [[[0, 1, 0]]]
    torch.testing.assert_close(made(z), torch.tensor([[2.0, 2.0]]))
    made.learn(made.found(z), torch.tensor([0]), 1.0)
    torch.testing.assert_close(made.values[0, :, :2], torch.tensor([[3.5, -0.5], [0.5, 5.5]]))
    assert made.touched.tolist() == [[2, 1]]


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_a_class_that_comes_late_finds_what_it_would_have_had_from_the_start(smoothing: float) -> None:
    """Growing 1, 3, 7 columns equals seven columns at once, to rounding; old columns keep their bits."""
    late, early = head(1), head(7)
    for made in (late, early):
        made.values.detach().zero_()
    z, random = normal(20, WIDTH), generator(4)
    found = late.found(z)
    for known in (1, 3, 7):
        old = late.values.detach().clone()
        late.grow(known, random)
        assert torch.equal(late.values[:, :, : old.shape[2] - 1], old[:, :, :-1])
        y = torch.randint(known, (20,), generator=random)
        for _ in range(3):
            losses = [made.learn(found, y, 0.5, smoothing=smoothing) for made in (late, early)]
            assert losses[0] == pytest.approx(losses[1], abs=1e-12)

    assert late.classes == early.classes == 7
    torch.testing.assert_close(late(z), early(z), rtol=0, atol=1e-12)


@given(count=st.integers(1, 9), classes=st.integers(0, 5), seed=seeds)
def test_empty_values_say_nothing(count: int, classes: int, seed: int) -> None:
    """Logits are 0, and the loss is that of guessing among all classes that are expected."""
    made = head(classes, seed=seed)
    made.values.detach().zero_()
    z = normal(count, WIDTH, seed=seed)

    assert torch.equal(made(z), torch.zeros(count, classes, dtype=torch.float64))
    if classes:
        loss = made.learn(made.found(z), labels(count, classes), 1.0)
        assert loss == pytest.approx(torch.tensor(7.0).double().log().item(), abs=1e-12)


@given(seed=seeds)
def test_the_order_of_pairs_in_a_book_does_not_matter(seed: int) -> None:
    made, z = head(seed=seed), normal(9, WIDTH, seed=seed)
    before = made(z)
    order = torch.stack([torch.randperm(PAIRS, generator=generator(seed + b)) for b in range(BOOKS)])
    book = torch.arange(BOOKS)[:, None]
    made.codebooks.keys.copy_(made.codebooks.keys[book, order])
    made.values.detach().copy_(made.values.detach()[book, order])

    torch.testing.assert_close(made(z), before, rtol=0, atol=1e-12)


@given(counts=st.lists(st.integers(1, 9), min_size=1, max_size=4), top_k=st.integers(1, 3), seed=seeds)
def test_every_query_is_counted_in_every_book(counts: list[int], top_k: int, seed: int) -> None:
    made = head(seed=seed, top_k=top_k)
    expected = torch.zeros(BOOKS, PAIRS, dtype=torch.int64)
    for i, count in enumerate(counts):
        found = made.found(normal(count, WIDTH, seed=seed + i))
        made.learn(found, labels(count), 0.1)
        for book, pair in [(b, int(p)) for row in found for b in range(BOOKS) for p in row[b]]:
            expected[book, pair] += 1

    assert torch.equal(made.touched, expected)
    assert (made.touched.sum(1) == sum(counts) * top_k).all()


def test_predicting_finds_only_pairs_that_were_met_where_there_are_any() -> None:
    """Training sees all keys."""
    made, z = head(), normal(30, WIDTH)
    open_search = made.found(z)
    made.touched[1:, 3] = 1
    made.touched[2, 8] = 5
    made.eval()
    masked = made.found(z)

    assert torch.equal(masked[:, 0], open_search[:, 0])
    assert (masked[:, 1] == 3).all()
    assert set(masked[:, 2].flatten().tolist()) <= {3, 8}
    kept = made.codebooks.keys[2][[3, 8]]
    nearer = torch.cdist(made.codebooks.queries(z)[2], kept).argmin(1)
    assert masked[:, 2, 0].tolist() == [(3, 8)[i] for i in nearer.tolist()]
    made.mask = False
    assert torch.equal(made.found(z), open_search)


def test_what_a_forward_found_is_reused_once_and_only_for_the_same_features() -> None:
    made, z = head(), normal(4, WIDTH)
    made(z)
    made.codebooks.keys.add_(normal(*made.codebooks.keys.shape, seed=8))
    twin = head()
    stale, fresh = made.found(z), made.found(z)

    assert torch.equal(stale, twin.found(z))
    assert not torch.equal(fresh, stale)
    made(z)
    assert torch.equal(made.found(z.clone()), fresh)


@pytest.mark.parametrize("more", [{}, {"projection": "chunk", "books": 2}, {"tokens": True}])
@pytest.mark.parametrize("decoder", ["vote", "linear", "mlp"])
def test_a_model_is_rebuilt_from_its_spec(decoder: str, more: dict[str, Any]) -> None:
    sizes = {"books": 4, "pairs": 8, "dim_key": 3, "reserve": 3}
    spec = {
        "backbone": {"name": "identity", "inputs": [WIDTH]},
        "head": {"name": "bottleneck", **sizes, "decoder": decoder, **more},
    }
    model = build(spec, seed=1)
    model.grow(5)
    z = normal(6, WIDTH, dtype=torch.float32)
    model.head.learn(model.head.found(model.backbone.tokens(z) if more.get("tokens") else z), labels(6, 5), 1.0)
    again = build(model.spec())
    again.load_state_dict(model.state_dict(), strict=True)

    assert model.classes == again.classes == 5
    assert torch.equal(again.eval()(z).logits, model.eval()(z).logits)
    assert model(z).logits.shape == (6, 5)


def test_values_can_be_trained_by_the_loop_as_well() -> None:
    """The head is an ordinary one: naive SGD lowers its loss, and trains nothing of it but the values."""
    spec = {"backbone": {"name": "identity", "inputs": [WIDTH]}, "head": {"name": "bottleneck", "books": 8}}
    made = Learner(build(spec), Strategy(), optim=Optim(lr=50.0), batch_size=8)
    x, y = normal(32, WIDTH, dtype=torch.float32), labels(32)
    for _ in range(5):
        made.partial_fit(x, y.tolist())

    assert list(made._parameters) == ["head.values"]
    assert made.predict(x) == y.tolist()


@pytest.mark.parametrize(
    ("name", "value"), [("books", 0), ("top_k", 13), ("top_k", 0), ("classes", -1), ("reserve", 0)]
)
def test_sizes_out_of_range_are_refused(name: str, value: int) -> None:
    with pytest.raises(ConfigError, match="got"):
        BottleneckHead(WIDTH, **{"pairs": PAIRS, name: value})


def test_an_unknown_decoder_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(UnknownName, match="did you mean 'vote'"):
        BottleneckHead(WIDTH, decoder="vot")
