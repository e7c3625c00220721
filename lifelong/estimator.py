"""What a server says in the form that scikit-learn's metrics take: arrays, and a column for each class.

```
model = Classifier(Client("http://127.0.0.1:3000"))
sklearn.metrics.log_loss(y, model.predict_proba(x), labels=model.classes_)
```
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, final

import numpy as np
import numpy.typing as npt

from lifelong.client import Answer, Client
from lifelong.errors import ConfigError, DataError

Array = npt.NDArray[Any]


@final
class Classifier:
    """A classifier that somebody else has trained and serves; there is nothing to fit.

    All samples of one call are answered by one version. Which one may change between two calls, and with it
    `classes_`, unless `version` names one.

    Args:
        client: Asks the server.
        version: Ask this version and no other; it has to be held there.
        batch: Samples in one request, at most `LIFELONG_MAX_ROWS` of the server.

    Raises:
        ConfigError: `batch` is below 1.
    """

    def __init__(self, client: Client, *, version: int | None = None, batch: int = 256) -> None:
        if batch < 1:
            raise ConfigError(f"need batch >= 1, got {batch}")
        self.client, self.version, self.batch = client, version, batch
        self._classes: Array | None = None

    @property
    def classes_(self) -> Array:
        """The labels `[C]`, sorted, of the last `predict_proba`; before there was one, of the version that answers."""
        return self._look()[1] if self._classes is None else self._classes

    def predict(self, x: Any) -> Array:  # noqa: ANN401 - samples in any form
        """Return the likeliest label of each sample `[N, ...]`, as an array `[N]`; raises like `Client.predict`."""
        return _array([said["label"] for answer in self._ask(x, 1, self.version) for said in answer["predictions"]])

    def predict_proba(self, x: Any) -> Array:  # noqa: ANN401 - samples in any form
        """Return probabilities `[N, C]`, float64, columns in the order of `classes_`; rows sum to 1 in float32.

        Raises:
            DataError: There are more classes than the server names in one answer (`LIFELONG_MAX_K`), or as of
                `Client.predict`.
        """
        version, classes = self._look()
        column = {label: at for at, label in enumerate(classes.tolist())}
        rows = [said["top"] for answer in self._ask(x, len(classes), version) for said in answer["predictions"]]
        shares = np.zeros((len(rows), len(classes)))
        for row, top in zip(shares, rows, strict=True):
            row[[column[guess["label"]] for guess in top]] = [guess["probability"] for guess in top]
        self._classes = classes
        return shares

    def score(self, x: Any, y: Any) -> float:  # noqa: ANN401 - samples and labels in any form
        """Return the share (0..1) of samples `[N, ...]` whose likeliest label is the one in `y` `[N]`.

        Raises:
            DataError: There are no samples, or not one label for each; or as of `Client.predict`.
        """
        truth = np.asarray(y).tolist()
        if not truth or len(truth) != len(x):
            raise DataError(f"need one label for each of at least one sample, got {len(truth)} for {len(x)}")
        return float(np.mean([said == label for said, label in zip(self.predict(x).tolist(), truth, strict=True)]))

    def _look(self) -> tuple[int, Array]:
        said = self.client.labels(version=self.version)
        return said["version"], _array(sorted(said["labels"], key=lambda label: (isinstance(label, str), label)))

    def _ask(self, x: Any, top: int, version: int | None) -> Iterator[Answer]:  # noqa: ANN401
        for start in range(0, len(x), self.batch):
            answer = self.client.predict(x[start : start + self.batch], top_k=top, version=version)
            version = answer["version"]
            yield answer


def _array(labels: list[str | int]) -> Array:
    """Return labels `[N]`; numbers stay numbers where there are words as well."""
    return np.array(labels, dtype=object if len({type(label) for label in labels}) > 1 else None)
