"""In Avalanche's loop and in ours, a strategy ends at the same weights, bit for bit."""

from types import SimpleNamespace

import pytest
import torch
from torch.utils.data import TensorDataset

from lifelong import data, plugins
from lifelong.errors import ConfigError
from lifelong.learning import Chain, Learner, Optim, Strategy
from lifelong.models import build
from lifelong.streams.scenarios import class_incremental

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # raised while avalanche and what it imports are imported
    pytest.mark.filterwarnings("ignore:No loggers specified:UserWarning"),  # which is what we want
]
ORDER = (7, 2, 9, 0, 4, 1)  # labels are no class indices, and future classes are in the test stream
SPEC = {
    "backbone": {"name": "mlp", "inputs": [784], "hidden": [32], "features": 16},
    "head": {"name": "linear"},
}


@pytest.fixture(scope="module")
def ava() -> SimpleNamespace:
    """The few names of avalanche that are used here, and the adapter; imported late, under the filters above."""
    pytest.importorskip("avalanche")
    from avalanche.benchmarks import benchmark_from_datasets, utils
    from avalanche.evaluation.metrics import accuracy_metrics
    from avalanche.training.plugins import EvaluationPlugin
    from avalanche.training.supervised import Naive

    from lifelong.adapters import avalanche as adapter

    return SimpleNamespace(
        benchmark=benchmark_from_datasets,
        dataset=utils.as_classification_dataset,
        metrics=accuracy_metrics,
        Evaluation=EvaluationPlugin,
        Naive=Naive,
        adapter=adapter,
    )


@pytest.fixture(scope="module")
def benchmark(ava: SimpleNamespace):
    """Three experiences of two classes each, 600 + 300 real images, two labels per experience in shuffled order."""
    found = data.load("fashion-mnist-small")

    def part(samples, labels, count):
        rows = torch.isin(samples.y, torch.tensor(labels)).nonzero().flatten()[:count]
        made = TensorDataset(samples.x[rows].flatten(1), samples.y[rows])
        made.targets = samples.y[rows].tolist()
        return ava.dataset(made)

    pairs = [ORDER[i : i + 2] for i in (0, 2, 4)]
    streams = {
        "train": [part(found.train, p, 200) for p in pairs],
        "test": [part(found.test, p, 100) for p in pairs],
    }
    return ava.benchmark(**streams)


def in_avalanche(ava, benchmark, strategy, optim, epochs):
    """Train in Avalanche's Naive, in the order of the data; return the weights and the last accuracies."""
    model = build(SPEC, seed=3)
    evaluator = ava.Evaluation(ava.metrics(experience=True), loggers=[])
    naive = ava.Naive(
        model=model,
        optimizer=optim.make(list(model.parameters())),
        train_mb_size=32,
        train_epochs=epochs,
        eval_mb_size=100,
        plugins=[ava.adapter.as_plugin(strategy)],
        evaluator=evaluator,
    )
    for experience in benchmark.train_stream:
        naive.train(experience, shuffle=False, eval_streams=[])
        found = naive.eval(benchmark.test_stream)
    return model.state_dict(), [v for k, v in sorted(found.items()) if k.startswith("Top1_Acc_Exp")]


def in_ours(scenario, strategy, optim, epochs):
    """Train in our loop, in the order of the data."""
    learner = Learner(build(SPEC, seed=3), strategy, optim=optim, shuffle=False, setting=scenario)
    for experience in scenario:
        learner.fit(experience, epochs)
    return learner.model.state_dict(), [learner.score(experience) for experience in scenario]


class Damped(Strategy):
    """Uses every hook that changes the step: a penalty, edited gradients and an edited update."""

    keeps_delta = True

    def penalty(self, model, batch, out):
        return 0.01 * out.features.square().mean()

    def project(self, model):
        for p in model.parameters():
            p.grad.clamp_(-0.05, 0.05)

    def project_delta(self, model, before):
        with torch.no_grad():
            for name, p in model.named_parameters():
                p.copy_(before[name] + 0.5 * (p - before[name]))


def make(name: str) -> Strategy:
    """A fresh strategy; the same every time."""
    if name == "damped+replay":
        return Chain(Damped(), plugins.find("strategy", "replay")(capacity=60, seed=5))
    options = {
        "replay": {"capacity": 60, "seed": 5},
        "powerlaw": {"capacity": 60, "seed": 5},
        "simplex": {"classes": 17},  # replaces the head in `adapt`, distils in `penalty`
    }
    return plugins.find("strategy", name)(**options.get(name, {}))


@pytest.mark.parametrize("optim", [Optim(lr=0.05), Optim(lr=0.05, momentum=0.9), Optim(name="adam", lr=1e-3)], ids=str)
@pytest.mark.parametrize("name", ["naive", "replay", "powerlaw", "nmc", "simplex", "damped+replay"])
def test_a_strategy_is_the_same_in_both_loops(ava, benchmark, name, optim):
    """Same model, data and order: equal weights and equal scores, old momenta included when the head grows."""
    theirs, scores = in_avalanche(ava, benchmark, make(name), optim, epochs=2)
    ours, expected = in_ours(ava.adapter.from_benchmark(benchmark), make(name), optim, epochs=2)

    assert list(theirs) == list(ours)
    for key in ours:
        assert torch.equal(theirs[key], ours[key]), key
    assert scores == pytest.approx(expected)


def test_the_comparison_can_fail(ava, benchmark):
    """Rehearsal and plain training do not end at equal weights: the equality above is no accident."""
    scenario = ava.adapter.from_benchmark(benchmark, in_memory=True)
    weights = [in_ours(scenario, make(name), Optim(), 1)[0]["head.weight"] for name in ("naive", "replay", "powerlaw")]
    assert not any(torch.equal(a, b) for a, b in zip(weights, weights[1:] + weights[:1], strict=True))


def test_a_benchmark_becomes_a_scenario(ava, benchmark):
    """Same samples and classes in the same order; read from memory or one by one makes no difference."""
    lazy = ava.adapter.from_benchmark(benchmark)
    held = ava.adapter.from_benchmark(benchmark, in_memory=True)
    assert [e.classes for e in lazy] == [(2, 7), (0, 9), (1, 4)]
    assert lazy.classes == (2, 7, 0, 9, 1, 4)
    assert lazy.signature == held.signature
    assert dict(lazy.counts) == {"experiences": 3, "classes": 6, "train": 600, "test": 300}

    a, b = (in_ours(s, make("naive"), Optim(), 1)[0] for s in (lazy, held))
    assert all(torch.equal(a[key], b[key]) for key in a)


def test_a_native_stream_ends_at_the_same_weights_as_the_converted_one(ava, benchmark):
    """The converted benchmark is the stream that our own scenario cuts from the same samples."""
    held = ava.adapter.from_benchmark(benchmark, in_memory=True)
    train, test = (
        tuple(torch.cat([getattr(getattr(e, side), part) for e in held]) for part in ("x", "y"))
        for side in ("train", "test")
    )
    native = class_incremental(
        (list(zip(*train, strict=True)), list(zip(*test, strict=True))), 3, order=[2, 7, 0, 9, 1, 4]
    )
    a, b = (in_ours(s, make("naive"), Optim(), 1)[0] for s in (held, native))
    assert all(torch.equal(a[key], b[key]) for key in a)


def test_what_avalanche_cannot_give_is_refused(ava, benchmark):
    """Task ids, an unknown kind, boundaries in an online stream, a model that is not ours."""
    with pytest.raises(ConfigError, match="passes no task id"):
        ava.adapter.as_plugin(Strategy(), "task-il")
    with pytest.raises(ConfigError, match="did you mean 'class-il'"):
        ava.adapter.as_plugin(Strategy(), "clas-il")
    with pytest.raises(ConfigError, match="needs boundaries"):
        ava.adapter.as_plugin(make("powerlaw"), "online")
    model = torch.nn.Linear(784, 10)
    naive = ava.Naive(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        plugins=[ava.adapter.as_plugin(Strategy())],
        evaluator=ava.Evaluation(loggers=[]),
    )
    with pytest.raises(ConfigError, match="got a Linear"):
        naive.train(benchmark.train_stream[0])
