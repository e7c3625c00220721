"""What the server is compared with: the same model and answer on bare Starlette, and on BentoML as it comes.

`serving_peers:app` is for uvicorn, `serving_peers:Plain` for `bentoml serve`; both read LIFELONG_REGISTRY.
"""

import os
import uuid
from pathlib import Path

import bentoml
import numpy as np
import torch
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from lifelong.release.registry import Registry

torch.set_num_threads(1)
snapshot = Registry(Path(os.environ["LIFELONG_REGISTRY"])).load(1)
model, labels = snapshot.build(), list(snapshot.labels)


def answered(x: np.ndarray, top_k: int) -> dict:
    """Forward, softmax over the labels, best `top_k`."""
    with torch.inference_mode():
        shares = model(torch.from_numpy(x)).logits[:, : len(labels)].softmax(1)
    best = shares.topk(top_k, 1)
    rows = zip(best.values.tolist(), best.indices.tolist(), strict=True)
    tops = [[{"label": labels[i], "probability": p} for p, i in zip(*row, strict=True)] for row in rows]
    return {
        "version": 1,
        "request_id": uuid.uuid4().hex,
        "predictions": [{**top[0], "top": top} for top in tops],
    }


async def predict(request: Request) -> JSONResponse:
    """JSON or float32 bytes."""
    if request.headers["content-type"] == "application/json":
        body = await request.json()
        return JSONResponse(answered(np.array(body["x"], dtype=np.float32), body["top_k"]))
    x = np.frombuffer(await request.body(), dtype="<f4").reshape(-1, 512)
    return JSONResponse(answered(x.copy(), int(request.query_params["top_k"])))


app = Starlette(routes=[Route("/v1/predict", predict, methods=["POST"])])


@bentoml.service(name="plain")
class Plain:
    """As the documentation of BentoML writes it."""

    @bentoml.api(route="/v1/predict")
    def predict(self, x: np.ndarray, top_k: int = 1) -> dict:
        """Answer."""
        return answered(x.astype(np.float32), top_k)
