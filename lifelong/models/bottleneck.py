"""The head of a discrete key-value bottleneck: a feature picks keys, and only the values behind them answer and learn.

Source: Träuble et al. 2023, "Discrete Key-Value Bottleneck" (ICML).
Differs: steps are in closed form; classes need not be known from the start: those to come share one column of each
    value, which each takes as its own when it comes. That equals having had all columns from the start; a softmax over
    the known classes alone would let late classes push early ones down.
    A decoder that is not voting is drawn once, for all classes, and stays as it is.
Checked: locality bit for bit, steps against autograd (tests/test_bottleneck.py).
"""

from __future__ import annotations

from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lifelong.errors import ConfigError, UnknownName
from lifelong.models.codebooks import Codebooks, flat
from lifelong.models.heads import LinearHead
from lifelong.models.networks import positive

DECODERS = ("vote", "linear", "mlp")
HIDDEN = 128  # width of the mlp decoder


@final
class BottleneckHead(nn.Module):
    """B books of J key-value pairs; the nearest keys of each book fetch their values, a decoder makes logits of them.

    With `vote` a value is a row of C logits and the answer is the mean over books and tokens. A sample touches at most
    `top_k` pairs of each book per token (T, 1 for pooled features), and learning from it leaves all others as they are,
    bit for bit. Values start at 0.

    Args:
        dim: Feature width D.
        classes: C to start with; 0 is allowed.
        books: B.
        pairs: J, per book.
        dim_key: k, width of a key.
        decoder: `vote` (nothing drawn), `linear` or `mlp` (drawn once, never trained).
        width: Of a value, for the decoders that are not `vote`.
        top_k: Pairs fetched per book.
        reserve: Classes expected in all; those that have not come yet are wrong answers in the softmax of `learn`.
        mask: When predicting, find only keys that were met in training, in books where there are any.
        projection: `random` or `chunk` (see `Codebooks`).
        tokens: Reads one feature per position of a sample, instead of their mean.

    Raises:
        UnknownName: No such decoder or projection.
        ConfigError: A size is out of range.
    """

    family = "bottleneck"
    touched: Tensor

    def __init__(
        self,
        dim: int,
        classes: int = 0,
        *,
        books: int = 64,
        pairs: int = 256,
        dim_key: int = 8,
        decoder: str = "vote",
        width: int = 10,
        top_k: int = 1,
        reserve: int = 64,
        mask: bool = True,
        projection: str = "random",
        tokens: bool = False,
    ) -> None:
        super().__init__()
        if decoder not in DECODERS:
            raise UnknownName.among("decoder", decoder, DECODERS)
        positive(width=width, top_k=top_k, reserve=reserve)
        self.codebooks = Codebooks(dim, books, pairs, dim_key, projection)
        if classes < 0 or top_k > pairs:
            raise ConfigError(f"need classes >= 0 and top_k <= pairs, got classes={classes}, {top_k=}, {pairs=}")
        self.dim, self.decoder, self.width, self.top_k = dim, decoder, width, top_k
        self.reserve, self.mask, self.tokens = reserve, mask, tokens
        self.values = nn.Parameter(torch.empty(books, pairs, classes + 1 if decoder == "vote" else width))
        self.register_buffer("touched", torch.empty(books, pairs, dtype=torch.int64))
        wide = books * width
        self.hidden = nn.Linear(wide, HIDDEN).requires_grad_(False) if decoder == "mlp" else None
        self.out = None if decoder == "vote" else LinearHead(HIDDEN if self.hidden else wide, max(classes, reserve))
        if self.out is not None:
            self.out.requires_grad_(False)
        self._found: tuple[Tensor, Tensor] | None = None

    @property
    def classes(self) -> int:
        """How many classes it has room for."""
        return self.values.shape[2] - 1 if self.out is None else self.out.classes

    def spec(self) -> dict[str, Any]:
        """Return the arguments that rebuild this head as it is now."""
        keys = self.codebooks
        sizes = {"books": keys.books, "pairs": keys.pairs, "dim_key": keys.dim_key}
        how = {"decoder": self.decoder, "width": self.width, "top_k": self.top_k}
        room = {"classes": self.classes, "reserve": self.reserve}
        reads = {"mask": self.mask, "projection": keys.how, "tokens": self.tokens}
        return {"name": "bottleneck", **room, **sizes, **how, **reads}

    @torch.no_grad()
    def reset(self, generator: torch.Generator) -> None:
        """Draw projections, keys and a decoder that is not voting anew; empty the values."""
        self.codebooks.reset(generator)
        self.values.zero_()
        self.touched.zero_()
        self._found = None
        if self.hidden is not None:
            bound = self.hidden.in_features**-0.5
            nn.init.uniform_(self.hidden.weight, -bound, bound, generator=generator)
            nn.init.uniform_(self.hidden.bias, -bound, bound, generator=generator)  # or empty values would stay so
        if self.out is not None:
            self.out.reset(generator)

    def grow(self, classes: int, generator: torch.Generator) -> None:
        """Add columns until there are `classes`; old ones keep their values bit for bit."""
        if self.out is not None:
            self.out.grow(classes, generator)
            self.out.requires_grad_(False)
        elif classes > self.classes:
            old, more = self.values.detach(), classes - self.classes
            new = torch.cat(
                [old, old[:, :, -1:].expand(-1, -1, more)], 2
            )  # the last column stays that of classes to come
            self.values = nn.Parameter(new, requires_grad=self.values.requires_grad)

    def forward(self, features: Tensor) -> Tensor:
        """Return logits `[N, C]` of features `[N, D]` or tokens `[N, T, D]`."""
        found = self._search(features)
        if self.training:
            self._found = features, found
        return self.decode(found)

    def found(self, features: Tensor) -> Tensor:
        """Return the pairs `[N, B, K]` i64 of features `[N, D]`, or `[N, B, T * K]` of tokens `[N, T, D]`.

        What a forward in training found for the same tensor is reused.
        """
        kept, self._found = self._found, None
        return kept[1] if kept is not None and kept[0] is features else self._search(features)

    def place(self, features: Tensor, **how: Any) -> None:  # noqa: ANN401 - as Codebooks.fit has them
        """Place the keys by unlabelled features or tokens (see `Codebooks.fit`) and empty the values."""
        self._found = None
        self.codebooks.fit(features.detach(), **how)
        self.values.detach().zero_()
        self.touched.zero_()

    def decode(self, found: Tensor) -> Tensor:
        """Return logits `[N, C]` of fetched pairs, as `found` gives them."""
        rows = flat(found, self.codebooks.pairs).flatten(1)
        return (
            self._voted(rows)[:, :-1]
            if self.out is None
            else self._decoded(F.embedding(rows, self.values.flatten(0, 1)))
        )

    @torch.no_grad()
    def learn(self, found: Tensor, y: Tensor, lr: float, *, smoothing: float = 0.0, even: bool = True) -> float:
        """Take one step of gradient descent on the values of fetched pairs, touching no other; return the loss before.

        A pair moves by `lr` times the mean over the samples that fetched it of the gradient of cross-entropy with
        respect to one fetched value, times T, and times the number of books if they vote (the mean divides by both).
        So a sample moves its own logits by less than `top_k * lr`, whatever the batch, the tokens and the books.

        Args:
            found: Pairs of N samples, as `found` gives them.
            y: Class indices `[N]`.
            lr: Step, > 0.
            smoothing: Share (0..1) of the target that is spread over all classes.
            even: Mean over the samples (or tokens) that fetched a pair; False divides by N (N * T) instead, as plain
                SGD does: then a step equals one of SGD at `lr * books` (voting) or `lr` on the mean loss.
        """
        rows = flat(found, self.codebooks.pairs).flatten(1)
        loss, pull = self._vote_pull(rows, y, smoothing) if self.out is None else self._pull(rows, y, smoothing)
        cells, order = rows.flatten().int().sort(stable=True)  # half the bytes to sort; there are never 2**31 pairs
        fetched, times = cells.unique_consecutive(return_counts=True)
        fetched = fetched.long()
        whose = order // (
            rows.numel() // len(pull)
        )  # voting pulls all pairs of a sample alike: one row stands for them
        moved = F.embedding_bag(whose, pull, times.cumsum(0) - times, mode="mean" if even else "sum")
        values = self.values.detach().flatten(0, 1)
        new = values.index_select(0, fetched).sub_(moved, alpha=lr if even else lr / (len(rows) * self._per_book(rows)))
        values.index_copy_(0, fetched, new)  # twice as fast as adding in place
        self.touched.view(-1).scatter_add_(0, fetched, times)
        return loss

    def _vote_pull(self, rows: Tensor, y: Tensor, smoothing: float) -> tuple[float, Tensor]:
        """Return the mean loss and B * T times each sample's gradient for any pair that it fetched `[N, C + 1]`.

        Classes to come have equal logits at all times, so one column and their number stand for them all.
        """
        logits = self._voted(rows)
        times = torch.ones(logits.shape[1], dtype=logits.dtype, device=logits.device)
        times[-1] = max(self.reserve - self.classes, 0)
        total = (logits + times.log()).logsumexp(1, keepdim=True)
        log_p = logits - total  # of one class each
        goal = torch.full_like(log_p, smoothing / times.sum().item())
        goal.scatter_add_(1, y.unsqueeze(1), goal.new_full((len(y), 1), 1 - smoothing))
        loss = -(goal * log_p * times).sum(1).mean().item()
        return loss, (log_p.exp() - goal) * times.clamp(max=1)

    def _pull(self, rows: Tensor, y: Tensor, smoothing: float) -> tuple[float, Tensor]:
        """Return the mean loss and T times the gradient for each pair of each sample `[N * B * T * K, v]`."""
        with torch.enable_grad():
            fetched = F.embedding(rows, self.values.detach().flatten(0, 1)).requires_grad_()
            loss = F.cross_entropy(self._decoded(fetched), y, label_smoothing=smoothing, reduction="sum")
            (pull,) = torch.autograd.grad(loss, fetched)
        return loss.item() / len(y), pull.flatten(0, 1) * self._per_book(rows)

    def _voted(self, rows: Tensor) -> Tensor:
        """Return mean values `[N, C + 1]` of rows `[N, B * T * K]`: logits, the last that of any class to come."""
        divisor = self.codebooks.books * self._per_book(rows)
        return F.embedding_bag(rows, self.values.flatten(0, 1), mode="sum") / divisor

    def _decoded(self, fetched: Tensor) -> Tensor:
        """Return logits of values `[N, B * T * K, v]`: sum over K, mean over T, books side by side, decoder."""
        assert self.out is not None
        wide = (fetched.unflatten(1, (self.codebooks.books, -1)).sum(2) / self._per_book(fetched)).flatten(1)
        logits: Tensor = self.out(wide if self.hidden is None else F.relu(self.hidden(wide)))
        return logits

    def _search(self, features: Tensor) -> Tensor:
        hidden = None
        if self.mask and not self.training:
            met = self.touched > 0
            hidden = met.any(1, keepdim=True) & ~met
        found = self.codebooks.nearest(self.codebooks.queries(features.detach()), self.top_k, hidden)
        if not self.tokens:
            return found
        by_book: Tensor = found.unflatten(0, (len(features), -1)).transpose(1, 2)  # [N, B, T, K]
        return by_book.flatten(2)

    def _per_book(self, rows: Tensor) -> int:
        """Return T of what was fetched `[N, B * T * K, ...]`."""
        return rows.shape[1] // (self.codebooks.books * self.top_k)
