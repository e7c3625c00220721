"""A deliberately wrong service: it looks at the live version twice. The mixed-version detector must catch it."""

from __future__ import annotations

import os
import time

from serving import answers, decode, forms
from serving.asking import prediction
from serving.endpoints import endpoint
from serving.service import Endpoints, make
from serving.settings import Settings, metrics_folder


class Naive(Endpoints):
    """Reads `slot.live` once for the answer's version and once for the model."""

    @endpoint("/v1/predict")
    def predict(self, form: forms.PredictForm) -> answers.Predictions:
        """Mix."""
        version = self.runtime.slot.live.version
        time.sleep(0.005)  # real work between the two looks
        live = self.runtime.slot.live
        x = decode.samples(form.x, live.shape, 256)
        rows = zip(*live.predict(x, form.top_k), strict=True)
        predictions = [prediction(live, *row) for row in rows]
        told = {"version": version, "request_id": form.request_id, "predictions": predictions}
        return answers.Predictions.model_validate(told)


NaiveService = make(Settings.load(os.environ), multiprocess=metrics_folder(os.environ), endpoints=Naive)
