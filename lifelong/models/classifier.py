"""A backbone and a head as one model, and how to build it from plain values."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, cast, final

import torch
from torch import Tensor, nn

from lifelong import plugins
from lifelong.errors import ConfigError, DataError
from lifelong.models.scaling import Scaling
from lifelong.types import Output


@final
class Classifier(nn.Module):
    """What every strategy trains and every server serves: features and logits in one pass.

    Args:
        backbone: Maps inputs to features; has `input_shape`, `dim` and `spec()`.
        head: Maps features to logits; has `classes`, `family`, `grow()` and `spec()`.
        seed: Of the generator that draws new head columns.
    """

    def __init__(self, backbone: nn.Module, head: nn.Module, seed: int = 0) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head
        self.generator = torch.Generator().manual_seed(seed)
        self.scaling: Scaling | None = None  # of strategies that keep weights of their own for each task
        self.allowed: Tensor | None = None  # [T + 1, C]: what each task answers with; set by a learner, never saved

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one sample."""
        return tuple(self.backbone.input_shape)  # type: ignore[arg-type]

    @property
    def dim(self) -> int:
        """Width D of the features."""
        return int(self.backbone.dim)  # type: ignore[arg-type]

    @property
    def classes(self) -> int:
        """Columns C of the logits."""
        return int(self.head.classes)  # type: ignore[arg-type]

    @property
    def by_task(self) -> bool:
        """Whether its answers differ by task: each has weights, or classes to choose among, of its own."""
        return self.scaling is not None or self.allowed is not None

    @property
    def family(self) -> str:
        """What two models' embeddings must share before comparing them is worth measuring."""
        return str(self.head.family)

    @property
    def preprocessing(self) -> dict[str, Any]:
        """What is done to inputs before the first layer, as plain values."""
        found: dict[str, Any] = getattr(self.backbone, "preprocessing", {"scale": "none"})
        return found

    def spec(self) -> dict[str, Any]:
        """Return plain values from which `build` makes this model as it is now."""
        return {"backbone": self.backbone.spec(), "head": self.head.spec()}  # type: ignore[operator]

    def grow(self, classes: int) -> None:
        """Make room for `classes` classes; old columns stay as they are."""
        body, top = cast(Any, self.backbone), cast(Any, self.head)
        top.grow(classes, self.generator)
        if hasattr(body, "grow"):  # it trains with a classifier of its own
            body.grow(classes, self.generator)

    def become(self, spec: Mapping[str, Any]) -> None:
        """Take the shape that `spec` describes, with fresh weights; nothing happens if it has that shape."""
        if self.spec() != spec:
            other = build(spec, device=next((t.device for t in self.state_dict().values()), torch.device("cpu")))
            self.backbone, self.head = other.backbone, other.head

    def replace(self, other: Classifier) -> None:
        """Go on with another model's backbone (a better one, trained elsewhere) under this head.

        Call it between experiences. The other model is copied.

        Raises:
            ConfigError: Its features are not as wide as this head takes, or its inputs have another shape.
        """
        if other.dim != self.dim or other.input_shape != self.input_shape:
            raise ConfigError(
                f"a replacement must map {self.input_shape} to {self.dim} features, got one that maps "
                f"{other.input_shape} to {other.dim}; train it with the same interface"
            )
        self.backbone = other.baked().backbone.to(next((t.device for t in self.state_dict().values()), "cpu"))

    def baked(self, task: int = -1) -> Classifier:
        """Return a plain model of its own memory with the weights that `task` has here (-1: the shared ones)."""
        plain = build(self.spec())
        weights = dict(self.state_dict())
        if self.scaling is not None:
            weights |= self.scaling.weights(self, task)
        plain.to(next(iter(weights.values()), torch.empty(0)))
        plain.load_state_dict(weights)
        return plain.train(self.training)

    def with_head(self, name: str, **config: Any) -> None:  # noqa: ANN401 - a head's own arguments
        """Replace the head by a fresh one of another kind."""
        head = _module(name, {"dim": self.dim, **config})
        _initialise(head, self.generator)
        self.head = head.to(next((p.device for p in self.backbone.parameters()), torch.device("cpu")))

    def forward(self, x: Tensor, task: Tensor | None = None) -> Output:
        """Return features `[N, D]` and logits `[N, C]` of inputs `[N, ...]`.

        Args:
            x: Inputs.
            task: Of each input `[N]`; None or a task without weights of its own asks for the shared weights.
        """
        if self.scaling is not None and task is not None and len(x):
            own: Output = self.scaling(self, x, task)
            return own
        head = self.head
        if head.__dict__.get("tokens"):  # asked as an attribute, a module that has none raises: slow
            body: Any = self.backbone
            tokens = body.tokens(x)
            return Output(tokens.mean(1), head(tokens), tokens)
        features = self.backbone(x)
        return Output(features, head(features))


def build(
    spec: Mapping[str, Any], *, seed: int = 0, device: torch.device | str = "cpu", draw: bool = True
) -> Classifier:
    """Return the model that `spec` describes, drawn from its own generator (global state is untouched).

    Args:
        spec: `{"backbone": {"name": ..., arguments}, "head": {"name": ..., arguments}}`; names are plug-ins of
            `lifelong.models`. The head's `dim` is the backbone's.
        seed: Of all weights that are drawn now, and of head columns that are drawn later.
        device: Where the model lives.
        draw: Without it plain layers hold whatever was in memory: for who loads a whole `state_dict` next.

    Raises:
        UnknownName: No such backbone or head.
        ConfigError: Arguments that it does not take.

    >>> model = build({"backbone": {"name": "mlp", "inputs": [4], "hidden": [8]}, "head": {"name": "linear"}})
    >>> model.grow(3)
    >>> model(torch.zeros(2, 4)).logits.shape
    torch.Size([2, 3])
    """
    missing = {"backbone", "head"} ^ set(spec)
    if missing:
        raise ConfigError(f"a model spec has exactly the keys 'backbone' and 'head', got {sorted(spec)}")
    body, top = _named(spec["backbone"]), _named(spec["head"])
    backbone = _module(**body)
    head = _module(top["name"], {"dim": backbone.dim, **top["config"]})
    model = Classifier(backbone, head, seed)
    _initialise(model, model.generator, draw=draw)
    return model.to(device)


@torch.inference_mode()
def outputs(
    model: nn.Module, x: Tensor, *, size: int = 1024, device: torch.device | str = "cpu", task: int = -1
) -> Output:
    """Return the outputs of `model` for inputs `[N, ...]`, in eval mode, `size` rows at a time, on the CPU.

    All inputs are of one `task`, if it is known; a model that answers by task is told it.
    """
    if not len(x):
        raise DataError("need at least one sample, got none")
    training = model.training
    model.eval()
    told = [] if task < 0 else [torch.full((len(x),), task)]
    parts = [model(*(t.to(device) for t in rows)) for rows in zip(*(t.split(size) for t in (x, *told)), strict=True)]
    model.train(training)
    return Output(torch.cat([p.features for p in parts]).cpu(), torch.cat([p.logits for p in parts]).cpu())


def _named(spec: object) -> dict[str, Any]:
    if not isinstance(spec, Mapping) or not isinstance(spec.get("name"), str):
        raise ConfigError(f"a backbone or head needs a 'name', got {spec!r}")
    return {"name": spec["name"], "config": {k: v for k, v in spec.items() if k != "name"}}


def _module(name: str, config: Mapping[str, Any]) -> nn.Module:
    kind = plugins.find("model", name)
    try:
        with torch.device("meta"):  # no memory is touched and no random number drawn until _initialise
            module = kind(**config)
    except TypeError as error:
        raise ConfigError(f"the model {name!r} does not take {dict(config)}: {error}") from error
    if not isinstance(module, nn.Module):
        raise ConfigError(f"the model plug-in {name!r} must make an nn.Module, got {type(module).__name__}")
    empty: nn.Module = module.to_empty(device="cpu")
    return empty


def _initialise(module: nn.Module, generator: torch.Generator, *, draw: bool = True) -> None:
    """Draw all weights, from the outside in; a module with `reset` answers for everything inside it."""
    if hasattr(module, "reset"):
        module.reset(generator)  # type: ignore[operator]
    elif isinstance(module, nn.Linear | nn.Conv2d):
        if not draw:
            return
        bound = 1 / math.sqrt(module.weight[0].numel())  # torch's own default, drawn from our generator
        nn.init.uniform_(module.weight, -bound, bound, generator=generator)
        if module.bias is not None:
            nn.init.uniform_(module.bias, -bound, bound, generator=generator)
    elif isinstance(module, nn.LayerNorm | nn.GroupNorm):
        module.reset_parameters()  # ones and zeros: nothing is drawn
    elif any(True for _ in module.parameters(recurse=False)):
        raise ConfigError(f"{type(module).__name__} has weights of its own and no reset(generator) that draws them")
    else:
        for part in module.children():
            _initialise(part, generator, draw=draw)
