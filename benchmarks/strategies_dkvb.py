"""What the key-value bottleneck costs: key search against the plain way, and a step with and without remembered pairs.

    python benchmarks/strategies_dkvb.py                   # the paper's sizes: 256 books of 4096 keys, batches of 256
    python benchmarks/strategies_dkvb.py --books 64        # a quarter of the memory and time

Prints one JSON line per figure. CPU time is counted, on one thread; contenders take turns, and the median of their
ratios is reported. The two searches must find the same keys, or the comparison is refused.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lifelong.models import build
from lifelong.models.bottleneck import BottleneckHead
from lifelong.models.codebooks import nearest

CLASSES, INPUTS, WIDTH = 10, 784, 256


def seconds(run: Callable[[], object]) -> float:
    """Return the CPU seconds of one call."""
    begun = time.process_time()
    run()
    return time.process_time() - begun


def ratio(slow: Callable[[], object], fast: Callable[[], object], repeats: int) -> tuple[float, float, float]:
    """Return the median of slow / fast over `repeats` turns, and the median seconds of each."""
    fast(), slow()  # allocator, caches
    pairs = [(seconds(slow), statistics.median(seconds(fast) for _ in range(3))) for _ in range(repeats)]
    return statistics.median(a / b for a, b in pairs), *(statistics.median(one) for one in zip(*pairs, strict=True))


def plain_search(queries: Tensor, keys: Tensor) -> Tensor:
    """One distance matrix per book, then its smallest entries: what one would write."""
    return torch.stack([torch.cdist(q, k).argmin(1) for q, k in zip(queries, keys, strict=True)], 1)


def search(books: int, pairs: int, dim_key: int, batch: int, repeats: int) -> list[dict[str, Any]]:
    """Return the figures of searching the nearest key of each book."""
    random = torch.Generator().manual_seed(0)
    queries = torch.randn(books, batch, dim_key, generator=random)
    keys = torch.randn(books, pairs, dim_key, generator=random)
    same = (plain_search(queries, keys) == nearest(queries, keys)[:, :, 0]).double().mean().item()
    if same < 0.999:  # two keys may be equally near to rounding
        raise SystemExit(f"strategies_dkvb: the searches agree on {same:.4f} of the keys only; they are not comparable")
    times, plain, ours = ratio(lambda: plain_search(queries, keys), lambda: nearest(queries, keys), repeats)
    at = f"{books}x{pairs}x{dim_key}_batch{batch}"
    return [
        figure(f"dkvb_search_plain_{at}", plain, "s"),
        figure(f"dkvb_search_{at}", ours, "s"),
        figure(f"dkvb_search_plain_over_ours_{at}", times, "ratio", 2.5),
    ]


def step(books: int, pairs: int, dim_key: int, batch: int, repeats: int) -> list[dict[str, Any]]:
    """Return the figures of one training step: backbone, search and values, or values by remembered pairs alone."""
    keys = {"books": books, "pairs": pairs, "dim_key": dim_key}
    spec = {
        "backbone": {"name": "mlp", "inputs": [INPUTS], "hidden": [WIDTH]},
        "head": {"name": "bottleneck", "classes": CLASSES, **keys},
    }
    model = build(spec).requires_grad_(False).train()
    head = model.head
    assert isinstance(head, BottleneckHead)
    random = torch.Generator().manual_seed(0)
    x, y = torch.rand(batch, INPUTS, generator=random), torch.randint(CLASSES, (batch,), generator=random)
    kept = head.found(model.backbone(x)).to(torch.int16)

    def whole() -> None:
        head.learn(head.found(model(x).features), y, 0.1, smoothing=0.1)

    def remembered() -> None:
        head.learn(kept.long(), y, 0.1, smoothing=0.1)

    def plainly() -> None:
        found = plain_search(head.codebooks.queries(model.backbone(x)), head.codebooks.keys)
        head.learn(found.unsqueeze(2), y, 0.1, smoothing=0.1)

    times, slow, fast = ratio(whole, remembered, repeats)
    more, _, _ = ratio(plainly, remembered, repeats)
    at = f"{books}x{pairs}x{dim_key}_batch{batch}"
    return [
        figure(f"dkvb_step_{at}", slow, "s"),
        figure(f"dkvb_step_remembered_{at}", fast, "s"),
        figure(f"dkvb_step_over_remembered_{at}", times, "ratio", 50),
        figure(f"dkvb_step_with_plain_search_over_remembered_{at}", more, "ratio"),
    ]


def figure(name: str, value: float, unit: str, goal: float | None = None) -> dict[str, Any]:
    """Return one row; a goal is a least value."""
    holds = None if goal is None else value >= goal
    return {"name": name, "value": float(f"{value:.4g}"), "unit": unit, "goal": goal and f">= {goal}", "holds": holds}


def main() -> int:
    """Measure, print, and exit 1 if a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--books", type=int, default=256)
    parser.add_argument("--pairs", type=int, default=4096)
    parser.add_argument("--dim-key", type=int, default=14)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(1)
    sizes = (args.books, args.pairs, args.dim_key, args.batch, args.repeats)
    missed = False
    for measure in (search, step):
        for row in measure(*sizes):
            print(json.dumps(row), flush=True)
            missed |= row["holds"] is False
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
