"""Strategies, the one training loop, buffers and checkpoints."""

from lifelong.learning.buffers import ClassBalanced, Reservoir
from lifelong.learning.chain import Chain
from lifelong.learning.learner import Learner
from lifelong.learning.optimizers import Optim
from lifelong.learning.strategy import Needs, Strategy

__all__ = ["Chain", "ClassBalanced", "Learner", "Needs", "Optim", "Reservoir", "Strategy"]
