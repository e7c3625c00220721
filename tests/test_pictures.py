"""Pictures show what they are given, and what they measure themselves is measured right."""

import sys

import pytest
import torch

from lifelong.commands import demo_report, pictures
from lifelong.errors import ConfigError
from lifelong.models import build
from lifelong.types import Batch

pytestmark = pytest.mark.slow  # matplotlib takes a second to import
C = [[0.9], [0.8, 0.7], [0.95, 0.75, 0.6]]


def texts(monkeypatch, draw):
    """What is written in the axes of the picture that `draw` draws, its frames, and the path it asks for."""
    found = []
    plain = pictures._saved

    def saved(path, into, size):
        def spied(axes):
            into(axes)
            found.append((sorted(t.get_text() for t in axes.texts), len(axes.patches)))

        plain(path, spied, size)

    monkeypatch.setattr(pictures, "_saved", saved)
    draw()
    return found[0]


def test_the_matrix_shows_every_number_and_frames_what_does_not_beat_the_old_version(tmp_path, monkeypatch):
    """Of three pairs only (2, 1), .8 against .9, is framed."""
    shown, frames = texts(monkeypatch, lambda: pictures.matrix(tmp_path / "a" / "c.png", C, "C"))
    assert shown == sorted(f"{v:.3f}" for row in C for v in row)
    assert frames == 1
    assert (tmp_path / "a" / "c.png").stat().st_size > 1000


def test_lines_and_bars_are_labelled_with_their_values(tmp_path, monkeypatch):
    series = {"a": [0.5, 0.25], "b": [0.75]}
    shown, _ = texts(monkeypatch, lambda: pictures.over_versions(tmp_path / "v.png", series, "t", "y"))
    assert shown == ["0.25", "0.75"]
    shown, bars = texts(monkeypatch, lambda: pictures.backfill(tmp_path / "b.png", [10, 1000], [0.05, 0.06], 1.0, "t"))
    assert shown == ["0.05 s", "0.06 s", "10 s", "17 min"]
    assert bars == 4


def test_without_matplotlib_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ConfigError, match=r"lifelong\[plot\]"):
        pictures.matrix(tmp_path / "c.png", C, "C")


def test_rows_are_asked_for_as_they_were_stored_and_as_they_would_be_now():
    """Two maps that are rotations of each other: the second finds nothing that the first stored, and all of its own."""
    spec = {"backbone": {"name": "mlp", "inputs": [2], "hidden": [], "features": 2}, "head": {"name": "linear"}}
    models = [build(spec), build(spec)]
    with torch.no_grad():
        for model, matrix in zip(models, ([[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [1.0, 0.0]]), strict=True):
            model.backbone.layers[0].weight.copy_(torch.tensor(matrix))
            model.backbone.layers[0].bias.zero_()
    rows = [Batch.of(torch.eye(2), torch.tensor([0, 1])), Batch.of(-torch.eye(2), torch.tensor([2, 3]))]
    test = Batch.of(torch.cat([torch.eye(2), -torch.eye(2)]), torch.arange(4))
    found = demo_report.by_version(models, rows, test)
    assert found == {"as_stored": [1.0, 0.5], "re-embedded": [1.0, 1.0]}
