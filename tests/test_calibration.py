"""Calibration and accuracy by class, by hand."""

import math

import pytest
import torch

from lifelong.bench.calibration import calibration_error, class_accuracies, log_loss
from lifelong.errors import DataError


def t(rows):
    return torch.tensor(rows, dtype=torch.float64)


def test_calibration_by_hand():
    """Two bins: .6 .6 in the upper with one right of two (gap .1), .5 in the lower and right (gap .5)."""
    p = t([[0.6, 0.4], [0.4, 0.6], [0.5, 0.5]])
    assert calibration_error(p, torch.tensor([0, 0, 0]), bins=2) == pytest.approx((2 * 0.1 + 1 * 0.5) / 3)


def test_honest_confidence_has_no_error():
    p = t([[0.75, 0.25]] * 4)
    assert calibration_error(p, torch.tensor([0, 0, 0, 1])) == pytest.approx(0)
    assert calibration_error(t([[1.0, 0.0]]), torch.tensor([0])) == 0.0


def test_log_loss_by_hand():
    assert log_loss(t([[0.5, 0.5], [0.25, 0.75]]), torch.tensor([0, 1])) == pytest.approx(
        -(math.log(0.5) + math.log(0.75)) / 2
    )
    assert log_loss(t([[1.0, 0.0]]), torch.tensor([1])) == pytest.approx(-math.log(1e-12))


def test_a_sample_of_a_class_without_a_column_is_answered_wrong():
    """By hand: sure of .9 and right of one, sure of .8 and wrong of the other; nothing was given to its class."""
    said, y = torch.tensor([[0.9, 0.1], [0.2, 0.8]], dtype=torch.float64), torch.tensor([0, -1])
    assert calibration_error(said, y) == pytest.approx((0.1 + 0.8) / 2)
    assert log_loss(said, y) == pytest.approx((-math.log(0.9) - math.log(1e-12)) / 2)


def test_each_class_by_hand():
    assert class_accuracies(torch.tensor([0, 1, 1, 0]), torch.tensor([0, 1, 0, 0]), 3) == [2 / 3, 1.0, None]


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(DataError, match=r"got \[2, 2\] and \[3\]"):
        calibration_error(t([[0.5, 0.5]] * 2), torch.tensor([0, 1, 0]))
