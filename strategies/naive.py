"""Plain fine-tuning: the lower line of every comparison.

Source: the usual baseline ("fine-tuning", "SGD").
Differs: nothing.
Checked: ends at the weights of a hand-written torch loop, bit for bit (tests/test_learner.py).
"""

from __future__ import annotations

from typing import final

from lifelong.learning import Needs, Strategy


@final
class Naive(Strategy):
    """Train on what comes, keep nothing."""

    needs = Needs(distributed=True)
    exempt = {  # noqa: RUF012 - a constant
        "effective above zero": "it is what the others are compared with",
        "beats naive": "it is naive",
    }
