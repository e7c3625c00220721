"""Heads that are solved, not trained: sums of what was seen, and the weights that follow from them.

The sums are float64 and additive, so neither the order of samples nor their batches matter, and a sample is forgotten
by subtracting it. Weights are solved for when they are first asked for in eval mode, and kept until a sum changes.
While training the logits are zeros: a solution per batch would cost the cube of the width, and nobody reads it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lifelong.errors import ConfigError

Layer = tuple[Tensor, Tensor]  # weight [C, M], bias [C], float64


@final
class _Solution:
    """The layer that follows from a head's sums, until they change."""

    def __init__(self, solve: Callable[[], Layer]) -> None:
        self.solve = solve
        self.layer: Layer | None = None

    def drop(self, *_: object) -> None:
        """Forget the layer: a sum has changed."""
        self.layer = None

    def __call__(self, z: Tensor, counts: Tensor, training: bool) -> Tensor:
        """Return logits of lifted features `[N, M]`, -inf for a class without samples."""
        if training:
            return z.new_zeros(len(z), len(counts))
        if self.layer is None or self.layer[0].device != z.device:
            with torch.inference_mode(False), torch.no_grad():  # so that the layer can be used outside of it too
                self.layer = self.solve()
        weight, bias = self.layer
        return F.linear(z, weight.to(z), bias.to(z)).masked_fill(counts == 0, -torch.inf)


@final
class LDAHead(nn.Module):
    """Linear discriminant analysis with one covariance for all classes, from sums.

    Logits are the log-posteriors of equal priors up to a constant: W z + b with W = means P, b = -1/2 diag(W means^T)
    and P = ((1 - s) Sigma + s I)^-1, Sigma the covariance of samples around their class means.

    Args:
        dim: Feature width D.
        classes: Rows to start with.
        shrinkage: s, 0 < s <= 1.
    """

    family = "slda"
    sums: Tensor
    counts: Tensor
    moment: Tensor

    def __init__(self, dim: int, classes: int = 0, shrinkage: float = 1e-2) -> None:
        super().__init__()
        if dim < 1 or classes < 0 or not 0 < shrinkage <= 1:
            raise ConfigError(
                f"an slda head needs dim >= 1, classes >= 0 and 0 < shrinkage <= 1, "
                f"got dim={dim}, classes={classes}, shrinkage={shrinkage}"
            )
        self.dim, self.shrinkage = dim, shrinkage
        self.register_buffer("sums", torch.zeros(classes, dim, dtype=torch.float64))
        self.register_buffer("counts", torch.zeros(classes, dtype=torch.int64))
        self.register_buffer("moment", torch.zeros(dim, dim, dtype=torch.float64))
        self._solution = _Solution(self._solve)
        nn.Module.register_load_state_dict_post_hook(self, self._solution.drop)

    @property
    def classes(self) -> int:
        """How many classes it has rows for."""
        return len(self.counts)

    def spec(self) -> dict[str, Any]:
        """Return the arguments that rebuild this head as it is now."""
        return {"name": "slda", "classes": self.classes, "shrinkage": self.shrinkage}

    def reset(self, generator: torch.Generator) -> None:
        """Forget everything."""
        for tensor in (self.sums, self.counts, self.moment):
            tensor.zero_()
        self._solution.drop()

    def grow(self, classes: int, generator: torch.Generator) -> None:
        """Add empty rows until there are `classes`."""
        new = max(classes - self.classes, 0)
        self.sums = torch.cat([self.sums, self.sums.new_zeros(new, self.dim)])
        self.counts = torch.cat([self.counts, self.counts.new_zeros(new)])
        self._solution.drop()

    def update(self, features: Tensor, y: Tensor, sign: int = 1) -> None:
        """Add (or with `sign=-1` take back) features `[N, D]` of class indices `y` `[N]`."""
        z = features.detach().double()
        self.sums.index_add_(0, y, z * sign)
        self.counts.index_add_(0, y, torch.full_like(y, sign))
        self.moment.addmm_(z.T, z, alpha=sign)
        self._solution.drop()

    def forward(self, features: Tensor) -> Tensor:
        """Return logits `[N, C]`, -inf for a class without samples."""
        return self._solution(features, self.counts, self.training)

    def _solve(self) -> Layer:
        n = self.counts.clamp(min=1).unsqueeze(1)
        means = self.sums / n
        within = (self.moment - self.sums.T @ means) / self.counts.sum().clamp(min=1)
        eye = torch.eye(self.dim, dtype=within.dtype, device=within.device)
        weight = torch.linalg.solve((1 - self.shrinkage) * within + self.shrinkage * eye, means.T).T
        return weight, -0.5 * (weight * means).sum(1)


@final
class RidgeHead(nn.Module):
    """Ridge regression onto one-hot classes, over fixed random ReLU features, from Gram matrices.

    W = (G + ridge I)^-1 B with G = sum h h^T, B = sum h onehot(y)^T and h = relu(z R), R drawn once.

    Args:
        dim: Feature width D.
        classes: Columns to start with.
        width: M random features; 0 regresses on the features themselves.
        ridge: Added to the diagonal of G, > 0.
    """

    family = "ridge"
    lift: Tensor
    gram: Tensor
    targets: Tensor
    counts: Tensor
    room: Tensor

    def __init__(self, dim: int, classes: int = 0, width: int = 1000, ridge: float = 1.0) -> None:
        super().__init__()
        if dim < 1 or classes < 0 or width < 0 or not ridge > 0:
            raise ConfigError(
                f"a ridge head needs dim >= 1, classes >= 0, width >= 0 and ridge > 0, "
                f"got dim={dim}, classes={classes}, width={width}, ridge={ridge}"
            )
        self.dim, self.width, self.ridge = dim, width, ridge
        lifted = width or dim
        self.register_buffer("lift", torch.zeros(dim, width))
        self.register_buffer("gram", torch.zeros(lifted, lifted, dtype=torch.float64))
        self.register_buffer("targets", torch.zeros(classes, lifted, dtype=torch.float64))
        self.register_buffer("counts", torch.zeros(classes, dtype=torch.int64))
        # Solutions follow each other batch by batch: with matrices made and freed for each, memory would swing.
        self.register_buffer("room", torch.empty(0, 0, dtype=torch.float64), persistent=False)
        self._solution = _Solution(self._solve)
        nn.Module.register_load_state_dict_post_hook(self, self._solution.drop)

    @property
    def classes(self) -> int:
        """How many classes it has columns for."""
        return len(self.counts)

    def spec(self) -> dict[str, Any]:
        """Return the arguments that rebuild this head as it is now."""
        return {"name": "ridge", "classes": self.classes, "width": self.width, "ridge": self.ridge}

    def reset(self, generator: torch.Generator) -> None:
        """Forget everything and draw new random features."""
        for tensor in (self.gram, self.targets, self.counts):
            tensor.zero_()
        self.lift.normal_(generator=generator).div_(self.dim**0.5)  # unit features stay of unit scale
        self._solution.drop()

    def grow(self, classes: int, generator: torch.Generator) -> None:
        """Add empty columns until there are `classes`."""
        new = max(classes - self.classes, 0)
        self.targets = torch.cat([self.targets, self.targets.new_zeros(new, self.targets.shape[1])])
        self.counts = torch.cat([self.counts, self.counts.new_zeros(new)])
        self._solution.drop()

    def lifted(self, features: Tensor) -> Tensor:
        """Return h `[N, M]` of features `[N, D]`."""
        return (features @ self.lift.to(features)).relu() if self.width else features

    def update(self, features: Tensor, y: Tensor, sign: int = 1) -> None:
        """Add (or with `sign=-1` take back) features `[N, D]` of class indices `y` `[N]`."""
        h = self.lifted(features.detach()).double()
        self.gram.addmm_(h.T, h, alpha=sign)
        self.targets.index_add_(0, y, h * sign)
        self.counts.index_add_(0, y, torch.full_like(y, sign))
        self._solution.drop()

    def forward(self, features: Tensor) -> Tensor:
        """Return logits `[N, C]`, -inf for a class without samples."""
        return self._solution(self.lifted(features), self.counts, self.training)

    def _solve(self) -> Layer:
        if self.room.shape != self.gram.shape:
            self.room = torch.empty_like(self.gram)
        damped = self.room.copy_(self.gram).T  # symmetric; of the layout that a factor is written in without a copy
        damped.diagonal().add_(self.ridge)
        failed = torch.empty((), dtype=torch.int32, device=damped.device)
        torch.linalg.cholesky_ex(damped, out=(damped, failed))
        if failed:  # a ridge so small that rounding made it indefinite
            eye = torch.eye(len(self.gram), dtype=self.gram.dtype, device=self.gram.device)
            weight = torch.linalg.solve(self.gram + self.ridge * eye, self.targets.T).T
        else:
            half = torch.linalg.solve_triangular(damped, self.targets.T, upper=False)
            weight = torch.linalg.solve_triangular(damped.T, half, upper=True).T
        return weight, weight.new_zeros(len(weight))
