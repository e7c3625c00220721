"""Your own data: any map-style source of (x, y), labels of any kind, new labels as they come, saved and gone on with.

python examples/own_data.py
"""

import tempfile

import torch

from lifelong import Learner, Optim, build
from lifelong.learning.checkpoint import Checkpoints
from lifelong.streams.scenarios import class_incremental, from_data
from strategies.replay import Replay


class Readings:
    """Six sensors, four kinds of machine; no `.targets`, no task ids."""

    kinds = ("pump", "fan", "valve", "slider")

    def __init__(self, count: int, seed: int) -> None:
        self.noise = torch.randn(count, 6, generator=torch.Generator().manual_seed(seed))

    def __len__(self) -> int:
        return len(self.noise)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, str]:
        return 2 * torch.eye(4, 6)[i % 4] + self.noise[i], self.kinds[i % 4]


def learner() -> Learner:
    spec = {"backbone": {"name": "mlp", "inputs": [6], "hidden": [32]}, "head": {"name": "linear"}}
    return Learner(build(spec), Replay(capacity=100), optim=Optim(lr=0.1), batch_size=16)


def main() -> float:
    """Learn two kinds, save, go on in another learner with two more; return the final mean accuracy."""
    stream = class_incremental(from_data(Readings(800, 0), Readings(200, 1), classes=Readings.kinds), 2)
    first, second = learner(), learner()
    first.fit(stream[0], epochs=3)
    with tempfile.TemporaryDirectory() as folder:
        Checkpoints(folder).commit(first.state())
        second.restore(Checkpoints(folder).latest())
    second.fit(stream[1], epochs=3)
    second.partial_fit(torch.randn(16, 6), ["gearbox"] * 16)  # a kind that nobody announced
    print("labels:", second.labels.tolist())
    scores = [second.score(e) for e in stream]
    print("accuracy on each experience:", [round(s, 3) for s in scores])
    print("a new reading is a", second.predict(Readings(1, 2)[0][0].unsqueeze(0))[0])
    return sum(scores) / len(scores)


if __name__ == "__main__":
    main()
