"""What the key-value bottleneck costs, at the paper's sizes: 256 books of 4096 keys of width 14, batches of 256.

The search against a distance matrix per book; a training step against one from remembered pair numbers; the largest
tensor of a search against all scores at once; and the bytes of the rows that one experience changed against those of
all weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from figures import figure, ratio
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from lifelong.models import build
from lifelong.models.bottleneck import BottleneckHead
from lifelong.models.codebooks import nearest
from lifelong.release.delta import apply, changed_rows

BOOKS, PAIRS, DIM_KEY, BATCH = 256, 4096, 14, 256
CLASSES, INPUTS, WIDTH = 10, 784, 256
TURNS, BATCHES = 3, 8
NEW = 600  # samples of the experience whose changed rows are counted


class _Largest(TorchDispatchMode):
    """Remembers the bytes of the largest tensor that is computed, and is no view of what was given."""

    def __init__(self, given: tuple[Tensor, ...]) -> None:
        super().__init__()
        self.given, self.nbytes = {tensor.untyped_storage().data_ptr() for tensor in given}, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
        made = func(*args, **(kwargs or {}))
        if isinstance(made, Tensor) and made.untyped_storage().data_ptr() not in self.given:
            self.nbytes = max(self.nbytes, made.untyped_storage().nbytes())
        return made


def largest(run: Callable[[], object], *given: Tensor) -> int:
    """Return the bytes of the largest tensor that `run` makes, views of `given` aside."""
    with _Largest(given) as seen:
        run()
    return seen.nbytes


def plain(queries: Tensor, keys: Tensor) -> Tensor:
    """One distance matrix per book, then its smallest entries: what one would write."""
    return torch.stack([torch.cdist(q, k).argmin(1) for q, k in zip(queries, keys, strict=True)], 1)


def search(books: int, pairs: int, dim_key: int, batch: int) -> Iterator[dict[str, Any]]:
    """Yield the figures of searching the nearest key of each book; both ways must find the same keys."""
    random = torch.Generator().manual_seed(0)
    queries = torch.randn(books, batch, dim_key, generator=random)
    keys = torch.randn(books, pairs, dim_key, generator=random)
    same = (plain(queries, keys) == nearest(queries, keys)[:, :, 0]).double().mean().item()
    if same < 0.999:  # two keys may be equally near to rounding
        raise SystemExit(f"dkvb: the searches agree on {same:.4f} of the keys only; they are not comparable")
    times, slow, fast = ratio(lambda: plain(queries, keys), lambda: nearest(queries, keys), TURNS)
    held = largest(lambda: nearest(queries, keys), queries, keys)
    yield figure("dkvb_search_plain", slow, "s")
    yield figure("dkvb_search", fast, "s")
    yield figure("dkvb_search_plain_over_ours", times, "ratio", ">=", 2.5)
    yield figure("dkvb_search_largest_tensor", held, "bytes")
    yield figure("dkvb_search_largest_tensor_over_all_scores", held / (4 * books * batch * pairs), "ratio", "<=", 0.01)


def step(books: int, pairs: int, dim_key: int, batch: int) -> Iterator[dict[str, Any]]:
    """Yield the figures of one training step (backbone, search, values), and of one from remembered pairs alone."""
    model = build(
        {
            "backbone": {"name": "mlp", "inputs": [INPUTS], "hidden": [WIDTH]},
            "head": {"name": "bottleneck", "classes": CLASSES, "books": books, "pairs": pairs, "dim_key": dim_key},
        }
    ).requires_grad_(False)
    head = model.train().head
    assert isinstance(head, BottleneckHead)
    random = torch.Generator().manual_seed(0)
    x = torch.rand(BATCHES, batch, INPUTS, generator=random)
    y = torch.randint(CLASSES, (BATCHES, batch), generator=random)
    kept = [head.found(model.backbone(rows)).to(torch.int16) for rows in x]

    def whole() -> None:
        head.learn(head.found(model(x[0]).features), y[0], 0.1, smoothing=0.1)

    def remembered() -> None:  # as a further pass does: other samples in each step, and nothing in between
        for pairs_of, labels in zip(kept, y, strict=True):
            head.learn(pairs_of.long(), labels, 0.1, smoothing=0.1)

    times, slow, fast = ratio(whole, remembered, TURNS)
    yield figure("dkvb_step", slow, "s")
    yield figure("dkvb_step_remembered", fast / BATCHES, "s")
    yield figure("dkvb_step_over_remembered", times * BATCHES, "ratio", ">=", 50)
    yield from shipped(head, random)


def shipped(head: BottleneckHead, random: torch.Generator) -> Iterator[dict[str, Any]]:
    """Yield what the rows changed by one experience of two new classes weigh, against all weights."""
    old = {name: tensor.detach().clone() for name, tensor in head.state_dict().items()}
    head.grow(CLASSES + 2, random)
    centres = torch.rand(2, WIDTH, generator=random)
    y = torch.arange(NEW) % 2
    found = head.found(centres[y] + 0.3 * torch.randn(NEW, WIDTH, generator=random))
    head.learn(found, y + CLASSES, 0.1, smoothing=0.1)
    new = head.state_dict()
    delta = changed_rows(old, new)
    if not all(torch.equal(tensor, new[name]) for name, tensor in apply(old, delta).items()):
        raise SystemExit("dkvb: the changed rows do not give the new weights")
    full = sum(tensor.nbytes for tensor in new.values())
    yield figure("dkvb_weights", full, "bytes")
    yield figure("dkvb_changed_rows", delta.nbytes, "bytes")
    yield figure("dkvb_changed_rows_over_weights", delta.nbytes / full, "ratio", "<=", 0.2)


def rows() -> Iterator[dict[str, Any]]:
    """Yield all figures."""
    yield from search(BOOKS, PAIRS, DIM_KEY, BATCH)
    yield from step(BOOKS, PAIRS, DIM_KEY, BATCH)
