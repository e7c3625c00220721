"""The classifier for scikit-learn: what it says is what the server says, in the order that the metrics expect."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from sklearn import metrics

from lifelong.errors import ConfigError, DataError
from lifelong.estimator import Classifier

with warnings.catch_warnings():  # bentoml's own imports
    warnings.simplefilter("ignore")
    from inprocess import checked, running

LOGITS = np.log([[0.5, 0.2, 0.3], [0.1, 0.2, 0.7], [0.3, 0.6, 0.1], [0.2, 0.1, 0.7], [0.6, 0.3, 0.1]])


class Said:
    """A server that reads the logits out of the sample; its labels are in no order, and change with the version."""

    def __init__(self, labels):
        self.versions, self.asked = labels, []

    def labels(self, *, version=None):
        version = version or max(self.versions)
        return {"version": version, "labels": self.versions[version]}

    def predict(self, x, *, top_k, version=None):
        version = version or max(self.versions)
        self.asked.append((len(x), version))
        known, rows = self.versions[version], []
        for sample in x:
            shares = np.exp(sample[: len(known)]) / np.exp(sample[: len(known)]).sum()
            top = [{"label": known[at], "probability": shares[at]} for at in np.argsort(-shares)][:top_k]
            rows.append({**top[0], "top": top})
        return {"version": version, "predictions": rows}


@pytest.mark.parametrize("labels", [["cat", "ant", "bee"], [7, 3, 5]])
def test_columns_are_in_the_order_of_the_classes_as_the_metrics_expect(labels):
    """Against scikit-learn on the same numbers, columns sorted by hand."""
    model, order = Classifier(Said({1: labels}), batch=2), [1, 2, 0]
    truth = [labels[at] for at in (0, 2, 1, 0, 1)]
    assert model.classes_.tolist() == sorted(labels)
    shares = model.predict_proba(LOGITS)
    np.testing.assert_allclose(shares, np.exp(LOGITS)[:, order])
    assert model.predict(LOGITS).tolist() == [labels[at] for at in (0, 2, 1, 2, 0)]
    assert (model.predict(LOGITS) == model.classes_[shares.argmax(1)]).all()
    assert model.score(LOGITS, truth) == 3 / 5 == metrics.accuracy_score(truth, model.predict(LOGITS))
    expected = -np.log([0.5, 0.7, 0.6, 0.2, 0.3]).mean()
    assert metrics.log_loss(truth, shares, labels=model.classes_) == pytest.approx(expected)
    assert 0 <= metrics.roc_auc_score(truth, shares, multi_class="ovr", labels=model.classes_) <= 1


def test_one_version_answers_a_call_and_new_classes_come_with_the_next():
    """In batches, while versions come; the classes are those of the last probabilities. A pinned one stays."""
    server = Said({1: ["b", "a"]})
    model, pinned = Classifier(server, batch=2), Classifier(server, version=1)
    assert model.predict_proba(LOGITS[:, :2]).shape == (5, 2)
    assert server.asked == [(2, 1), (2, 1), (1, 1)]
    server.versions[2] = ["b", "a", 4]
    assert model.classes_.tolist() == ["a", "b"]
    assert model.predict_proba(LOGITS).shape == (5, 3)
    assert model.classes_.tolist() == [4, "a", "b"]  # numbers stay numbers
    assert pinned.predict_proba(LOGITS).shape == (5, 2)
    assert model.predict_proba(LOGITS[:0]).shape == (0, 3)


def test_what_cannot_be_scored_is_refused():
    model = Classifier(Said({1: ["a"]}))
    for x, y in (([[1.0]], ["a", "b"]), ([], [])):
        with pytest.raises(DataError, match="one label for each"):
            model.score(x, y)
    with pytest.raises(ConfigError, match="batch"):
        Classifier(Said({1: ["a"]}), batch=0)


@pytest.mark.slow
def test_the_server_names_the_labels_of_the_version_that_is_asked(registry, tmp_path, kit):
    with running(registry, tmp_path) as client:
        checked(client.get("/v1/labels"), 503)
    registry.publish(kit.numbered(1))
    registry.publish(kit.numbered(2, labels=[*kit.labels, 4]))
    with running(registry, tmp_path) as client:
        assert checked(client.get("/v1/labels"))["labels"] == [*kit.labels, 4]
        checked(client.get("/v1/labels", headers={"x-model-version": "9"}), 404)
