"""What the studies of cross-version search share: data, training of one version, and searching with each other."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from lifelong.data import load
from lifelong.learning import Learner, Optim, Strategy
from lifelong.models import Classifier, build, outputs
from lifelong.models.alignment import MAPS
from lifelong.release.compat import mean_average_precision, recall_at_1, recall_at_5, summary
from lifelong.types import Batch, Experience

COSINE = {"name": "cosine", "scale": 10.0}


def drawn(root: str | None, seed: int, train: int, test: int, held: int = 0) -> tuple[Batch, Batch, Batch]:
    """Return images of Fashion-MNIST: to train on, to test on, and (of the training split, never trained on) more."""
    data = load("fashion-mnist" if root else "fashion-mnist-small", root=root)
    assert data.test is not None
    random = torch.Generator().manual_seed(1000 + seed)
    rows, asked = (torch.randperm(len(b), generator=random) for b in (data.train, data.test))
    return data.train.take(rows[:train]), data.test.take(asked[:test]), data.train.take(rows[train : train + held])


def of_classes(batch: Batch, classes: Sequence[int]) -> Batch:
    """Return the samples of some classes."""
    return batch[torch.isin(batch.y, torch.tensor(list(classes)))]


def version(
    spec: Mapping[str, Any], strategy: Strategy | None, data: Batch, *, epochs: int, seed: int, lr: float = 1e-3
) -> tuple[Classifier, float]:
    """Return a model trained anew on `data`, and the CPU seconds of it."""
    optim = Optim(name="adam", lr=lr)
    learner = Learner(build(spec, seed=seed), strategy, optim=optim, batch_size=64, seed=seed)
    begun = time.process_time()
    learner.fit(Experience(0, "all", data.y.unique().tolist(), data), epochs)
    return learner.model, time.process_time() - begun


def further(
    model: Classifier, strategy: Strategy, data: Batch, *, epochs: int, seed: int, lr: float = 3e-3
) -> tuple[Classifier, float]:
    """Return a copy of a trained model that went on with `strategy` on the same data, and the CPU seconds of it."""
    learner = Learner(model.baked(), strategy, optim=Optim(name="adam", lr=lr), batch_size=64, seed=seed)
    begun = time.process_time()
    learner.fit(Experience(0, "all", data.y.unique().tolist(), data), epochs)
    return learner.model, time.process_time() - begun


def aligned(name: str, new: Classifier, old: Classifier, train: Batch, test: Batch) -> dict[str, float]:
    """Return what queries find that are mapped onto the old features by either map, fitted on training images."""
    pairs, asked, z = train[:2000], embedded(new, test), embedded(old, test)
    found = {}
    for kind, fitted in MAPS.items():
        turn = fitted(embedded(new, pairs), embedded(old, pairs))
        found |= searched(f"{name}_{kind}", asked @ turn.T, z, test.y)
    return found


def embedded(model: Classifier, batch: Batch) -> Tensor:
    """Return the features `[N, D]`."""
    return outputs(model, batch.x).features


def summed_up(name: str, c: Tensor) -> dict[str, float]:
    """Return what is defined of the summary of C, and the last version's self-test."""
    known = {f"{name}.{key}": value for key, value in summary(c).items() if value == value}
    return known | {f"{name}.last": c[-1, -1].item()}


def searched(name: str, new: Tensor, old: Tensor, y: Tensor) -> dict[str, float]:
    """Return recall at 1 and 5 and mean average precision of new queries in the old gallery and in their own.

    The same samples are queries and gallery; none meets itself.
    """
    measures = {"r1": recall_at_1, "r5": recall_at_5, "map": mean_average_precision}
    pairs = {"cross": (new, old), "own": (new, new)}
    return {
        f"{name}.{pair}_{key}": measure(q, y, g, y, same=True)
        for pair, (q, g) in pairs.items()
        for key, measure in measures.items()
    }


def mixed(new: Tensor, old: Tensor, y: Tensor, new_held: Tensor, old_held: Tensor, y_held: Tensor) -> dict[str, float]:
    """Return recall at 1 and mean average precision in galleries that both versions wrote.

    Either every other row is the old version's (`mixed`), or the rows of its five classes are (`classes`). Scores of
    the narrower rows: `padded` (cosine as if they ended in zeros), `slice` (cosine of the query's first coordinates),
    and two that map both cosines to one scale, fitted on held-out samples: `znorm` (mean 0 and deviation 1 over pairs
    of different samples) and `platt` (log-odds of the same class).
    """
    width, writers = old.shape[1], {"mixed": torch.arange(len(y)) % 2 == 0, "classes": y < 5}
    unit = F.normalize(new, dim=1)
    full, padded = unit @ unit.T, unit[:, :width] @ F.normalize(old, dim=1).T
    narrow = F.normalize(new[:, :width], dim=1) @ F.normalize(old, dim=1).T
    held_full = F.normalize(new_held, dim=1) @ F.normalize(new_held, dim=1).T
    held_narrow = F.normalize(new_held[:, :width], dim=1) @ F.normalize(old_held, dim=1).T
    others = ~torch.eye(len(y_held), dtype=torch.bool)
    same = (y_held[:, None] == y_held[None, :])[others]
    maps = [(_moments(s[others]), _log_odds(s[others], same)) for s in (held_narrow, held_full)]
    (z_narrow, p_narrow), (z_full, p_full) = maps
    scores = {
        "padded": (padded, full),
        "slice": (narrow, full),
        "znorm": (_line(narrow, z_narrow), _line(full, z_full)),
        "platt": (_line(narrow, p_narrow), _line(full, p_full)),
    }
    found = {}
    for name, (of_old, of_new) in scores.items():
        for gallery, wrote in writers.items():
            score = torch.where(wrote, of_old, of_new)
            found |= {f"{gallery}.{name}_{key}": value for key, value in _ranked(score, y, wrote).items()}
    return found


def _ranked(score: Tensor, y: Tensor, wrote: Tensor) -> dict[str, float]:
    order = score.clone().fill_diagonal_(-torch.inf).argsort(1, descending=True)[:, :-1]
    hit = y[order] == y[:, None]
    precision = hit.cumsum(1) / torch.arange(1, hit.shape[1] + 1)
    ap = (precision * hit).sum(1) / hit.sum(1).clamp(min=1)
    return {
        "r1": hit[:, 0].double().mean().item(),
        "map": ap.double().mean().item(),
        "old_share": wrote[order[:, :10]].double().mean().item(),  # among the first ten
    }


def _moments(scores: Tensor) -> tuple[float, float]:
    return 1 / scores.std().item(), -(scores.mean() / scores.std()).item()


def _log_odds(scores: Tensor, same: Tensor, steps: int = 25) -> tuple[float, float]:
    """Return slope and offset of the logistic regression of `same` on the scores (Newton's method)."""
    x = torch.stack([scores.double(), torch.ones_like(scores, dtype=torch.float64)], 1)
    w = torch.zeros(2, dtype=torch.float64)
    for _ in range(steps):
        p = (x @ w).sigmoid()
        w = w + torch.linalg.solve((x * (p * (1 - p))[:, None]).T @ x, x.T @ (same.double() - p))
    return w[0].item(), w[1].item()


def _line(scores: Tensor, line: tuple[float, float]) -> Tensor:
    return line[0] * scores + line[1]
