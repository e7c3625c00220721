"""Labels that come later: from the id of a prediction to a sample in the stream that a trainer reads."""

from __future__ import annotations

from lifelong.errors import DataError
from serving import answers, decode, forms
from serving.endpoints import Routes, endpoint
from serving.remembered import Verdict

OUTCOMES = ("accepted", "corrected", "duplicate", "stale", "unknown")


class Feedback(Routes):
    """What is said of predictions."""

    @endpoint("/v1/feedback")
    def feedback(self, form: forms.FeedbackForm) -> answers.Labelled:
        """Take labels by the ids of their predictions; what is answered is on disk, in the trainer's stream."""
        verdicts = read(form.labels, self.runtime.settings.max_rows)
        stream, remembered, telemetry = self.runtime.stream, self.runtime.remembered, self.runtime.telemetry
        stream.check()
        counts = dict.fromkeys(OUTCOMES, 0)
        unknown: list[str] = []
        for verdict, (outcome, seconds) in zip(verdicts, remembered.label(verdicts, stream.append), strict=True):
            counts[outcome] += 1
            telemetry.count("lifelong_feedback_total", outcome=outcome)
            if outcome == "unknown":
                unknown.append(verdict.prediction)
            elif seconds:
                telemetry.observe("lifelong_feedback_delay_seconds", seconds)
        self.runtime.handled("/v1/feedback", len(verdicts))
        del counts["unknown"]
        return answers.Labelled(version=self.runtime.version(), request_id=form.request_id, **counts, unknown=unknown)


def read(labels: object, most: int) -> list[Verdict]:
    """Return the labels in the field `labels` of a request.

    Raises:
        DataError: Not a list of such objects; the message says which one is wrong.
    """
    found = []
    for at, entry in enumerate(decode.entries(labels, "labels", most)):
        if not isinstance(entry, dict) or not {"prediction", "label"} <= set(entry) <= {
            "prediction",
            "label",
            "revision",
        }:
            raise DataError(f"labels[{at}] must be an object with prediction and label, and revision if it has one")
        label, revision = entry["label"], entry.get("revision")
        if isinstance(label, bool) or not isinstance(label, str | int) or len(str(label)) > decode.LONGEST_ID:
            raise DataError(
                f"labels[{at}].label must be a string of at most {decode.LONGEST_ID} characters or an integer"
            )
        if isinstance(label, int) and abs(label) >= 2**63:
            raise DataError(f"labels[{at}].label must fit 64 bits")
        if revision is not None:
            decode.integer(revision, f"labels[{at}].revision", 1, 10**9)
        found.append(Verdict(decode.text(entry["prediction"], f"labels[{at}].prediction"), label, revision))
    return found
