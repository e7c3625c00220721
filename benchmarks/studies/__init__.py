"""The studies behind `benchmarks/claims.py`, one module per family of methods."""

from studies import compatible, encoders, stationary
from studies.study import Study

STUDIES: list[Study] = [*compatible.STUDIES, *encoders.STUDIES, *stationary.STUDIES]
