"""Experience replay: train on new samples mixed with a bounded memory of old ones.

Source: Chaudhry et al. 2019, "On Tiny Episodic Memories in Continual Learning"; Vitter 1985 (reservoir).
Differs: the memory is drawn from before the new batch enters it, so a step never rehearses its own samples;
    only the first pass over an experience is offered to the memory.
Checked: reservoir uniformity by chi-square, equal shares of the balanced memory (tests/test_buffers.py);
    ratio 0 equals naive bit for bit (laws).
"""

from __future__ import annotations

from typing import final

from lifelong.errors import ConfigError
from lifelong.learning import Needs
from lifelong.learning.allowance import allowed
from lifelong.learning.buffers import make_buffer
from lifelong.learning.remembering import Remembering
from lifelong.types import Batch


@final
class Replay(Remembering):
    """Follow each batch by `ratio` remembered samples for each new one. Needs no boundaries.

    Args:
        capacity: Samples kept, over all classes and tasks.
        ratio: Remembered samples per new one; 0 keeps a memory but never trains on it.
        policy: `reservoir` (a uniform sample of the past) or `balanced` (equal room for each class).
        seed: Of the memory's own generator.
    """

    needs = Needs(distributed=True)
    strength = "ratio"

    def __init__(self, capacity: int = 1000, ratio: float = 1.0, policy: str = "reservoir", seed: int = 0) -> None:
        if ratio < 0:
            raise ConfigError(f"ratio must be at least 0, got {ratio}")
        super().__init__(make_buffer(policy, capacity, seed))
        self.ratio = ratio

    def augment(self, batch: Batch) -> Batch:
        """Return `batch` followed by round(ratio * N) remembered samples."""
        count = allowed(self.allowance, round(self.ratio * len(batch))) if len(self.memory) else 0
        if not count:
            return batch
        return Batch.cat([batch, self.memory.draw(count).to(batch.x.device)])
