"""Processes that train one learner together. What two of them make is in tests/e2e/test_two_ranks.py."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import two_ranks
from torch import nn

from lifelong import plugins
from lifelong.checks import digest
from lifelong.errors import ConfigError
from lifelong.following.along import taken, taking
from lifelong.following.intake import Row
from lifelong.learning import Learner, Strategy
from lifelong.learning.ranks import ALONE, Together, joined
from lifelong.sources.base import Record
from lifelong.sources.record import Sample
from lifelong.types import Batch


@pytest.fixture
def together():
    """A group of this process and nobody else."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield Together()
    dist.destroy_process_group()


@pytest.mark.parametrize("name", ["naive", "replay", "ewc", "derpp", "cuber", "dkvb", "slda"])
def test_a_group_of_one_does_bit_for_bit_what_one_process_does(name, together):
    """Through the same exchanges as more of them: outputs, slopes, gradients, what else a backward pass leaves."""
    assert digest(two_ranks.trained(name, together).state()) == digest(two_ranks.trained(name).state())


def test_a_process_that_torchrun_did_not_start_is_alone():
    with joined(torch.device("cpu")) as ranks:
        assert ranks is ALONE
    assert (ranks.first, ranks.count, ranks.about) == (True, 1, {})
    assert not dist.is_initialized()


def test_the_page_names_the_strategies_that_do_not_declare_it():
    said = Path(__file__).parents[1].joinpath("docs", "distributed.md").read_text()
    missing = {name for name in plugins.names("strategy") if not plugins.find("strategy", name).needs.distributed}

    assert set(re.findall(r"^\* `(\w+)` (?!and)", said, re.MULTILINE)) == missing


class Undeclared(Strategy):
    """Says nothing of several processes."""


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (Undeclared, "Undeclared does not train in 1 processes; start one process for it"),
        (lambda: two_ranks.find("align"), "Align does not train"),
        (lambda: two_ranks.strategy("replay+cuber"), "CUBER trains in 1 processes only alone"),
    ],
)
def test_a_strategy_that_does_not_declare_it_is_refused(make, match, together):
    model = two_ranks.learner("naive").model
    with pytest.raises(ConfigError, match=match):
        Learner(model, make(), ranks=together)


def test_a_model_that_looks_at_whole_batches_is_refused(together):
    model = two_ranks.learner("naive").model
    model.backbone.add_module("norm", nn.BatchNorm1d(3))
    with pytest.raises(ConfigError, match="batch normalisation"):
        Learner(model, ranks=together)
    Learner(model)


def test_a_parameter_that_nobody_needed_keeps_no_gradient(together):
    """A gradient of zeros would be another thing: momentum and weight decay would move it."""
    model = two_ranks.learner("naive").model
    out = together.forward(model, Batch.of(torch.randn(5, 12, dtype=torch.float64), torch.zeros(5, dtype=torch.int64)))
    out.features.square().sum().backward()
    together.reduce(model.parameters(), tuple)

    assert model.head.weight.grad is None
    assert all(p.grad is not None for p in model.backbone.parameters())


def test_what_is_said_of_rows_is_what_a_trainee_needs_of_them():
    rows = [
        Row(7, Sample(torch.ones(3), "cat", 2), Record("p", 5, "s", b"...", 1.5)),
        Row(2**62, Sample(torch.zeros(3), 4), Record("p", 6, "t", b"", 2.0)),
    ]
    again = taken(taking(rows, careful=True))

    assert [(r.id, r.sample.y, r.sample.task, r.record.time) for r in again] == [
        (7, "cat", 2, 1.5),
        (2**62, 4, -1, 2.0),
    ]
    assert all(torch.equal(a.sample.x, b.sample.x) for a, b in zip(rows, again, strict=True))
