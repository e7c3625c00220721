"""Basis transformation (BT2): features that hold an older version's space in their first coordinates, and lose nothing.

Widths: D of the new model by itself, D_o of the old one, A added; W = max(D, D_o) + A in all, K = W - D of them new.

    b = part(x) [D + D_o],  p = b[:D] / |b[:D]|,  psi = expand(relu(b)) / |.| [K]
    features = blockdiag(O, I) blockdiag(I, P) [psi; C p],  O and P orthogonal, so |features|^2 = 1 + C^2

The first D_o coordinates are compared with what the old version wrote, all of them with what this one writes. Both
maps are one orthogonal W x W matrix, and the served model has nothing but that matrix.

Source: Zhou et al. 2023, "BT2: Backward-compatible Training with Basis Transformation", and its code.
Differs: W3 has only the K rows that are used; K = max(D_o - D, 0) + A follows from the widths, which gives the paper's
    K = A for D = D_o and makes a chain of updates grow by A each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lifelong.errors import ConfigError
from lifelong.models.classifier import Classifier, build
from lifelong.models.matrices import Fixed, Rotation
from lifelong.models.stacked import part, widened


def folded(turn: Tensor, rotate: Tensor, width: int) -> Tensor:
    """Return blockdiag(O, I) blockdiag(I, P) `[W, W]` of O `[D_o, D_o]` and P `[D, D]`."""
    rest = [torch.eye(width - len(m)).to(m) for m in (turn, rotate)]
    made: Tensor = torch.block_diag(turn, rest[0]) @ torch.block_diag(rest[1], rotate)
    return made


@final
class Basis(nn.Module):
    """The backbone of a finished update, as it is served: one fixed orthogonal matrix after the network.

    Args:
        inner: Spec of a backbone of D + D_o features.
        old: D_o, width of the older version's features.
        extra: A, coordinates added, >= 1.
        c: C, weight of the new model's own embedding against the new coordinates, > 0.
        older: Widths of the versions before that one, whose spaces stand in its first coordinates, narrowest first.
    """

    matrix: Tensor

    def __init__(
        self, inner: Mapping[str, Any], old: int, extra: int, c: float = 2.0, older: Sequence[int] = ()
    ) -> None:
        super().__init__()
        self.net = Network(inner, old, extra, c, older)
        self.input_shape, self.dim = self.net.input_shape, self.net.width
        self.fixed = Fixed(self.dim)

    def spec(self) -> dict[str, Any]:
        """Return the arguments that rebuild this backbone."""
        return {"name": "basis", **self.net.told()}

    def forward(self, x: Tensor) -> Tensor:
        """Return features `[N, W]`, each of squared length 1 + C^2."""
        return self.net.turned(x, self.fixed.matrix)


@final
class LearnedBasis(nn.Module):
    """The backbone of an update while it trains: the two orthogonal maps apart, and the new model by itself beside it.

    Args:
        inner: Spec of a backbone of D + D_o features.
        old: D_o, width of the older version's features.
        extra: A, coordinates added, >= 1.
        c: C, weight of the new model's own embedding against the new coordinates, > 0.
        twin: Spec of the new model by itself, D features; None has `inner`'s, with D features.
        head: Spec of what the twin is trained with; None is a linear head.
        trained: Whether the twin has been trained already: then it stays as it is.
        older: Widths of the versions before that one, whose spaces stand in its first coordinates, narrowest first.
    """

    def __init__(
        self,
        inner: Mapping[str, Any],
        old: int,
        extra: int,
        c: float = 2.0,
        twin: Mapping[str, Any] | None = None,
        head: Mapping[str, Any] | None = None,
        trained: bool = False,
        older: Sequence[int] = (),
    ) -> None:
        super().__init__()
        self.net = Network(inner, old, extra, c, older)
        self.input_shape, self.dim, self.trained = self.net.input_shape, self.net.width, trained
        self.turn, self.rotate = Rotation(old), Rotation(self.net.own)
        self.last: Tensor | None = None  # the matrix of the last pass: solving for it twice a step is the dear part
        self.twin: Any = part(twin or widened(inner, self.net.own))
        if self.twin.dim != self.net.own:
            raise ConfigError(f"the new model by itself must have {self.net.own} features, got {self.twin.dim}")
        self.twin_head: Any = part(head or {"name": "linear"}, dim=self.net.own)
        self.twin.requires_grad_(not trained)
        self.twin_head.requires_grad_(not trained)

    def spec(self) -> dict[str, Any]:
        """Return the arguments that rebuild this backbone."""
        twin = {"twin": self.twin.spec(), "head": self.twin_head.spec(), "trained": self.trained}
        return {"name": "learned_basis", **self.net.told(), **twin}

    def grow(self, classes: int, generator: torch.Generator) -> None:
        """Make room for `classes` in what the twin is trained with."""
        self.twin_head.grow(classes, generator)

    def matrix(self) -> Tensor:
        """Return both maps as one orthogonal matrix `[W, W]`."""
        return folded(self.turn(), self.rotate(), self.dim)

    def forward(self, x: Tensor) -> Tensor:
        """Return features `[N, W]`, each of squared length 1 + C^2."""
        self.last = self.matrix()
        return self.net.turned(x, self.last)

    def own(self, features: Tensor) -> Tensor:
        """Return p `[N, D]`, exactly, out of the features `[N, W]` of the last forward pass."""
        assert self.last is not None, "own() follows forward()"
        return features @ self.last[:, self.dim - self.net.own :] / self.net.c

    @torch.no_grad()
    def served(self) -> Basis:
        """Return the same network with both maps folded into one; it does not train."""
        with torch.device("meta"):
            made = Basis(**self.net.told())
        made.net, made.fixed.matrix = self.net, self.matrix()
        return made.requires_grad_(False)


@final
class Network(nn.Module):
    """[psi; C p] of inputs: what comes before the orthogonal maps.

    Args:
        inner: Spec of a backbone of D + D_o features.
        old: D_o.
        extra: A.
        c: C.
        older: Widths of versions before the old one.
    """

    def __init__(self, inner: Mapping[str, Any], old: int, extra: int, c: float, older: Sequence[int]) -> None:
        super().__init__()
        self.inner: Any = part(inner)
        self.old, self.extra, self.c, self.own = old, extra, c, self.inner.dim - old
        self.older = tuple(older)
        if min(old, extra, self.own) < 1 or not c > 0:
            raise ConfigError(
                f"a basis needs old, extra >= 1, c > 0 and a backbone wider than old, got old={old}, extra={extra}, "
                f"c={c} and {self.inner.dim} features"
            )
        if list(older) != sorted({width for width in older if 0 < width < old}):
            raise ConfigError(f"widths of older versions grow and stay below old={old}, got {list(older)}")
        self.input_shape = tuple(self.inner.input_shape)
        self.width = max(self.own, old) + extra
        self.expand = nn.Linear(self.own + old, self.width - self.own)

    def told(self) -> dict[str, Any]:
        """Return its arguments."""
        older = {"older": list(self.older)} if self.older else {}  # left out where it says nothing
        return {"inner": self.inner.spec(), "old": self.old, "extra": self.extra, "c": self.c, **older}

    def turned(self, x: Tensor, matrix: Tensor) -> Tensor:
        """Return [psi; C p] of inputs, two unit vectors, the second C times as long, under `matrix` `[W, W]`."""
        b = self.inner(x)
        psi, p = F.normalize(self.expand(F.relu(b)), dim=1), F.normalize(b[:, : self.own], dim=1)
        return torch.cat([psi, self.c * p], 1) @ matrix.T


def spaces(model: Classifier) -> list[int]:
    """Return the widths of the versions whose spaces stand in the first coordinates of `model`'s, its own last."""
    body = model.backbone
    return [*body.net.older, body.net.old, body.dim] if isinstance(body, Basis) else [model.dim]


def update(
    model: Classifier, before: Sequence[int], extra: int, c: float, new: Classifier | None = None
) -> LearnedBasis:
    """Return what trains next in place of `model`'s backbone, going on from its weights.

    Args:
        model: What there is now: an ordinary backbone (D features), or the finished update before this one.
        before: `spaces()` of the older version; the last of them is D_o.
        extra: A.
        c: C.
        new: The new model by itself, if it has been trained already; D is its width then.

    Raises:
        ConfigError: The backbone's width cannot be chosen.
    """
    finished = model.backbone.net if isinstance(model.backbone, Basis) else None
    source: Any = model.backbone if finished is None else finished.inner
    alone: Any = new.backbone if new else source
    own = new.dim if new else finished.own if finished else model.dim
    *older, old = before
    inner = widened(source.spec(), own + old)
    twin = alone.spec() if new else widened(inner, own)
    told = {"inner": inner, "old": old, "extra": extra, "c": c, "twin": twin, "trained": new is not None}
    told |= {"older": older} if older else {}
    told["head"] = cast(Any, model.head).spec()
    seed = int(torch.randint(2**31, (1,), generator=model.generator))
    place = next((t.device for t in model.state_dict().values()), torch.device("cpu"))
    spec = {"backbone": {"name": "learned_basis", **told}, "head": {"name": "linear"}}
    made = build(spec, seed=seed, device=place).backbone
    assert isinstance(made, LearnedBasis)
    inherit(made.net.inner, source)
    inherit(made.twin, alone)
    made.grow(model.classes, model.generator)
    return made


@torch.no_grad()
def inherit(module: nn.Module, source: nn.Module) -> None:
    """Copy the tensors of `source` into those of the same name, or into their first rows; others stay as they are."""
    given = source.state_dict()
    for name, tensor in module.state_dict().items():
        if name in given and given[name].shape[1:] == tensor.shape[1:]:
            rows = given[name][: len(tensor)] if tensor.dim() else given[name]
            (tensor[: len(rows)] if tensor.dim() else tensor).copy_(rows)
