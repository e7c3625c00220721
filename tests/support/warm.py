"""What every life would load anew: imported, and used once, by the process that they are forked from."""

import torch
from lives import make

torch.set_num_threads(1)
make("replay").partial_fit(torch.zeros(2, 6), [0, 1])
