"""The studies behind `benchmarks/claims.py`, one module per family of methods."""

from studies import powerlaw, projection
from studies.study import Study

STUDIES: list[Study] = [*powerlaw.STUDIES, *projection.STUDIES]
