"""The studies behind `benchmarks/claims.py`, one module per family of methods."""

from studies import bottleneck
from studies.study import Study

STUDIES: list[Study] = [*bottleneck.STUDIES]
