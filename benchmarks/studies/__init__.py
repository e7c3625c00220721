"""The studies behind `benchmarks/claims.py`, one module per family of methods."""

from studies import baselines, bottleneck, compatible, encoders, powerlaw, projection, stationary, widths
from studies.study import Study

STUDIES: list[Study] = [
    *bottleneck.STUDIES,
    *baselines.STUDIES,
    *powerlaw.STUDIES,
    *projection.STUDIES,
    *compatible.STUDIES,
    *encoders.STUDIES,
    *stationary.STUDIES,
    *widths.STUDIES,
]
