"""Books of keys: which key of each book is nearest to a feature's projection, and how keys are placed.

Source: Träuble et al. 2023, "Discrete Key-Value Bottleneck" (random projections, keys by moving averages); van den Oord
    et al. 2017, "Neural Discrete Representation Learning" (the averages).
Differs: a key that is replaced takes its average and its weight along, so the next step does not undo it; keys start
    with that same small weight, so their random first positions leave no trace in keys that were used. Of keys that
    end upon each other one is left, the others are put out of reach. Projections are
    drawn or cut, never learned: that would need a loss, and labels, before the keys are there.
Checked: search against brute force and FAISS, averages against their definition (tests/test_codebooks.py).
"""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lifelong.errors import ConfigError, DataError, UnknownName
from lifelong.models.networks import positive

BLOCK = 1 << 20  # scores held at a time: 4 MiB stay in a core's cache, and memory does not grow with books or samples
ROWS = 256  # queries per block
EPSILON = 1e-5  # keeps a key without samples from being divided by 0
PROJECTIONS = ("random", "chunk")
STARTS = ("normal", "kmeans")
ROUNDS = 10  # of k-means
DOUBLE = 1e-3  # keys nearer to each other than this share of their length would be told apart by rounding alone
FAR = 1e4  # times the longest key: where no query goes

# In shapes below: N samples (or their tokens), D feature width, B books, J keys per book, k width of a key, K nearest.


@final
class Codebooks(nn.Module):
    """B books of J keys, each book behind a projection of its own; everything is a buffer.

    Args:
        dim: Feature width D.
        books: B.
        pairs: J, keys per book.
        dim_key: k, width of a key.
        projection: `random`, or `chunk`: each book gets the next k of the D = B * k values of a feature.

    Raises:
        UnknownName: No such projection.
        ConfigError: A size is out of range, or chunks do not make up a feature.
    """

    projection: Tensor | None
    keys: Tensor
    average: Tensor
    weight: Tensor

    def __init__(self, dim: int, books: int, pairs: int, dim_key: int, projection: str = "random") -> None:
        super().__init__()
        positive(dim=dim, books=books, pairs=pairs, dim_key=dim_key)
        if projection not in PROJECTIONS:
            raise UnknownName.among("projection", projection, PROJECTIONS)
        if projection == "chunk" and books * dim_key != dim:
            raise ConfigError(
                f"chunks of {dim_key} values for {books} books make up features of width {books * dim_key}, "
                f"got {dim}; choose books * dim_key = {dim}, or projection='random'"
            )
        self.dim, self.books, self.pairs, self.dim_key, self.how = dim, books, pairs, dim_key, projection
        self.register_buffer("projection", None if projection == "chunk" else torch.empty(dim, books * dim_key))
        self.register_buffer("keys", torch.empty(books, pairs, dim_key))
        self.register_buffer("average", torch.empty(books, pairs, dim_key))
        self.register_buffer("weight", torch.empty(books, pairs))

    def reset(self, generator: torch.Generator) -> None:
        """Draw projections (columns of unit norm) and keys (normal) anew; averages have no weight yet."""
        if self.projection is not None:
            self.projection.copy_(F.normalize(torch.randn(self.projection.shape, generator=generator), dim=0))
        self.keys.copy_(torch.randn(self.keys.shape, generator=generator))
        self.average.zero_()
        self.weight.zero_()

    def queries(self, features: Tensor) -> Tensor:
        """Return the projections `[B, N, k]` of features `[N, D]`, or `[B, N * T, k]` of tokens `[N, T, D]`."""
        rows = features.reshape(-1, self.dim)
        wide = rows if self.projection is None else rows @ self.projection
        return wide.view(-1, self.books, self.dim_key).transpose(0, 1)

    def nearest(self, queries: Tensor, top_k: int = 1, hidden: Tensor | None = None) -> Tensor:
        """Return the numbers `[N, B, K]` i64 of the keys nearest to queries `[B, N, k]`, nearest first.

        Args:
            queries: From `queries()`.
            top_k: K, how many per book.
            hidden: Keys `[B, J]` bool that may not be found while there are others.
        """
        return nearest(queries, self.keys, top_k, hidden)

    def fit(
        self,
        features: Tensor,
        *,
        epochs: int,
        size: int,
        decay: float,
        threshold: float,
        generator: torch.Generator,
        start: str = "normal",
    ) -> None:
        """Place the keys where unlabelled features are: moving averages, and unused keys are replaced.

        Args:
            features: `[N, D]`, or tokens `[N, T, D]`; all samples are passed over in a new order each time.
            epochs: Passes.
            size: Samples per step.
            decay: Of the averages, per step, 0..1.
            threshold: A key is unused below this share of an even share of a step's samples (tokens, if there are).
            generator: Draws the orders and the replacements.
            start: `normal` starts from the keys as they are, `kmeans` from the centres of the first step's samples.

        Raises:
            DataError: There are no features, or some are not finite.
        """
        if not len(features) or not bool(features.isfinite().all()):
            raise DataError(f"keys need finite features to be placed by, got {len(features)} rows; drop bad samples")
        tokens = features[0].numel() // self.dim
        least = threshold * min(size, len(features)) * tokens / self.pairs
        self.weight.fill_(least)
        self.average.copy_(self.keys * least)
        for epoch in range(epochs):
            order = torch.randperm(len(features), generator=generator).to(features.device)
            for step, rows in enumerate(order.split(size)):
                queries = self.queries(features[rows])
                if epoch == step == 0 and start == "kmeans":
                    self.cluster(queries, least, generator)
                self.move(queries, self.nearest(queries)[:, :, 0], decay)
                self.refresh(queries, least, generator)
        self.park()

    def park(self) -> None:
        """Move all but one of keys that lie upon each other (refreshed by one sample, say) far away from all queries.

        Which of them is found would hang on the last bit of a query: on its batch, on threads, on the processor.
        """
        length = self.keys.norm(dim=2)
        order = self.keys.double().sum(2).argsort(1)  # keys that lie upon each other are close in any one direction
        sorted_keys = self.keys.gather(1, order.unsqueeze(2).expand_as(self.keys))
        limit, double = DOUBLE * length.gather(1, order), torch.zeros_like(order, dtype=torch.bool)
        for back in range(1, min(8, self.pairs)):
            apart = (sorted_keys[:, back:] - sorted_keys[:, :-back]).norm(dim=2)
            double[:, back:] |= apart <= limit[:, back:]
        far = FAR * length.amax(1).view(-1, 1, 1).clamp(min=1.0)
        doubles = torch.zeros_like(double).scatter(1, order, double).unsqueeze(2)
        self.keys.copy_(torch.where(doubles, far, self.keys))

    def cluster(self, queries: Tensor, least: float, generator: torch.Generator) -> None:
        """Put the keys at the centres of k-means among queries `[B, N, k]`, each weighing as many as it has.

        A centre that has none stays where it was drawn, at a query, and weighs `least`.
        """
        many = queries.shape[1]
        drawn = torch.rand(self.books, max(many, self.pairs), generator=generator).argsort(1)[:, : self.pairs] % many
        self.keys.copy_(queries.gather(1, drawn.to(queries.device).unsqueeze(2).expand(-1, -1, self.dim_key)))
        for _ in range(ROUNDS):
            count, total = self._gathered(queries, self.nearest(queries)[:, :, 0])
            met = (count > 0).unsqueeze(2)
            self.keys.copy_(torch.where(met, total / count.clamp(min=1).unsqueeze(2), self.keys))
        self.weight.copy_(count.to(self.weight).clamp(min=least))
        self.average.copy_(self.keys * self.weight.unsqueeze(2))

    def move(self, queries: Tensor, found: Tensor, decay: float) -> None:
        """Take one step of the moving averages.

        Per book, weights become decay * weight + (1 - decay) * samples, averages likewise with the sum of samples, and
        a key is its average over its weight (smoothed by `EPSILON`); a key that never had any weight stays.

        Args:
            queries: `[B, N, k]`.
            found: The one nearest key of each query `[N, B]` i64.
            decay: 0..1.
        """
        count, total = self._gathered(queries, found)
        self.weight.mul_(decay).add_(count, alpha=1 - decay)
        self.average.mul_(decay).add_(total, alpha=1 - decay)
        whole = self.weight.sum(1, keepdim=True)
        smooth = (self.weight + EPSILON) / (whole + self.pairs * EPSILON) * whole
        placed = self.average / smooth.unsqueeze(2)
        self.keys.copy_(torch.where((self.weight > 0).unsqueeze(2), placed, self.keys))

    def refresh(self, queries: Tensor, least: float, generator: torch.Generator) -> None:
        """Replace each key whose weight is below `least` by a random query `[B, N, k]` of its book."""
        dead = self.weight < least
        book = dead.nonzero()[:, 0]
        drawn = torch.randint(queries.shape[1], (len(book),), generator=generator).to(book.device)
        new = queries[book, drawn]
        self.keys[dead] = new
        self.average[dead] = new * least  # or the next step would put the key back to where it was
        self.weight[dead] = least

    def _gathered(self, queries: Tensor, found: Tensor) -> tuple[Tensor, Tensor]:
        """Return how many queries found each key `[B, J]`, and their sums `[B, J, k]`."""
        cells = flat(found, self.pairs).T.flatten()  # book by book, as queries are
        count = cells.bincount(minlength=self.books * self.pairs).view_as(self.weight)
        total = torch.zeros_like(self.average).view(-1, self.dim_key).index_add_(0, cells, queries.flatten(0, 1))
        return count, total.view_as(self.average)


def flat(found: Tensor, pairs: int) -> Tensor:
    """Return key numbers `[N, B, ...]` of B books as row numbers of all `B * pairs` keys, in the same shape."""
    first = torch.arange(found.shape[1], device=found.device) * pairs
    return found + first.view(-1, *[1] * (found.dim() - 2))


def nearest(queries: Tensor, keys: Tensor, top_k: int = 1, hidden: Tensor | None = None) -> Tensor:
    """Return the numbers `[N, B, K]` of the `top_k` keys `[B, J, k]` nearest to queries `[B, N, k]`, nearest first.

    |h - key|^2 is |key|^2 - 2 h key + |h|^2, and |h|^2 changes no order: one multiplication per block of books and
    queries, into memory that is used again. A tie goes to the lower number (for top_k = 1). The keys that a query finds
    do not depend on what else is asked; two keys that are equally near to rounding may change places where the query
    itself was computed in another batch, on other threads or another processor.
    """
    books, count, width = queries.shape
    pairs = keys.shape[1]
    rows = max(1, min(ROWS, count, BLOCK // pairs))
    many = max(1, min(books, BLOCK // (max(rows, width) * pairs)))
    room = queries.new_empty(many * rows * pairs)
    found = torch.empty(books, count, top_k, dtype=torch.int64, device=queries.device)
    for b in range(0, books, many):
        part_keys = keys[b : b + many]
        norm, turned = part_keys.square().sum(2), part_keys.transpose(1, 2)
        norm = norm if hidden is None else norm.masked_fill(hidden[b : b + many], torch.inf)
        for n in range(0, count, rows):
            part = queries[b : b + many, n : n + rows]
            shape = (part.shape[0], part.shape[1], pairs)
            scores = room[: shape[0] * shape[1] * pairs].view(shape)
            torch.baddbmm(norm.unsqueeze(1), part, turned, alpha=-2, out=scores)
            found[b : b + many, n : n + rows] = _lowest(scores, top_k)
    return found.transpose(0, 1)


def _lowest(scores: Tensor, top_k: int) -> Tensor:
    if top_k > 1:
        return scores.topk(top_k, largest=False).indices
    if scores.device.type == "cpu":  # numpy's argmin uses vector instructions, torch's does not: 3 times as fast
        return torch.from_numpy(scores.numpy().argmin(2)).unsqueeze(2)
    return scores.argmin(2, keepdim=True)
