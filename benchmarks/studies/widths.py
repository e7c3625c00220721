"""Which score lets rows of an old, narrower version and of a new one compete fairly in one answer.

Fashion-MNIST; test images are queries and gallery, each left out for itself. An MLP of five classes is followed by one
of ten through `bt2`; rows of the gallery are the old version's, or the new one's: every other row (`mixed`), or those
of the old version's classes (`classes`). `slice` is what a gallery does; see `studies.retrieval.mixed` for the others.
"""

from __future__ import annotations

from studies.compatible import mlp, updated
from studies.retrieval import drawn, embedded, mixed, of_classes, version
from studies.study import Claim, Figures, Study

OTHERS = {"padded": "the padded cosine", "znorm": "mean 0, deviation 1", "platt": "log-odds of the same class"}
GALLERIES = {"mixed": "every other row is old", "classes": "rows of the old classes are old"}
MEASURES = {"r1": "recall at 1", "map": "mean average precision"}


def scores(seed: int, root: str | None, small: bool) -> Figures:
    """Train both versions, and rank galleries of both by each score."""
    train, test, held = drawn(root, seed, 1500 if small else 6000, 500 if small else 2000, 500)
    epochs, more = (4, 3) if small else (10, 6)
    old, _ = version(mlp(), None, of_classes(train, range(5)), epochs=epochs, seed=seed)
    alone, _ = version(mlp(), None, train, epochs=epochs, seed=seed + 100)
    new, _ = updated("bt2", old, alone, train, test, more, seed)
    z, y = embedded(old, test), test.y
    return mixed(embedded(new, test), z, y, embedded(new, held), embedded(old, held), held.y)


def _claim(gallery: str, other: str, measure: str, *, required: bool) -> Claim:
    what = f"{GALLERIES[gallery]}: slice against {OTHERS[other]}, {MEASURES[measure]}"
    keys = [f"{gallery}.{score}_{measure}" for score in ("slice", other)]
    return Claim(f"widths/{gallery}-{other}-{measure}", what, lambda f: f[keys[0]] - f[keys[1]], ">", 0.0,
                 required=required, smoke=False)  # fmt: skip


STUDIES: list[Study] = [
    Study(
        "widths",
        scores,
        [
            _claim(gallery, other, measure, required=gallery == "classes")
            for gallery in GALLERIES
            for other in OTHERS
            for measure in MEASURES
        ],
        "the scales of znorm and platt on 500 training images held out; nothing else",
    ),
]
