"""What a learner knows when a stream has ended: each class, and how sure it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from lifelong.bench import calibration
from lifelong.errors import DataError
from lifelong.learning import Learner
from lifelong.streams.scenario import Scenario


def known(learner: Learner, stream: Scenario) -> dict[str, Any]:
    """Return the accuracy of each class that was learned, calibration error and logarithmic loss of all test samples.

    A sample of a class that never came, because a budget ended before, is answered wrong, as it is in the accuracy.

    Raises:
        DataError: The model answers with what is no number.
    """
    logits, truth = [], []
    for experience in stream:
        for batch in experience.batches(1024, None, learner.labels, test=True):
            task = int(batch.task[0]) if learner.model.by_task else -1
            logits.append(learner.outputs(batch.x, task).logits)
            truth.append(batch.y)
    said, y = torch.cat(logits), torch.cat(truth)
    if bool(said.isnan().any()):  # the last step broke it: the loss of no later one could tell
        raise DataError("the model ends with answers that are not numbers; lower the learning rate")
    came = y >= 0
    each = calibration.class_accuracies(said[came].argmax(1), y[came], len(learner.labels))
    sure: Mapping[str, float] = {}
    if bool(torch.isfinite(said).any(1).all()):
        sure = {
            "calibration_error": calibration.calibration_error(said.softmax(1), y),
            "log_loss": calibration.log_loss(said.softmax(1), y),
        }
    return {"classes": {str(c): a for c, a in zip(learner.labels.tolist(), each, strict=True)}, **sure}
