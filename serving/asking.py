"""Predict, embed, search: one version answers all of a request."""

from __future__ import annotations

from typing import Any

from lifelong.errors import DataError, Forbidden, SpaceError
from serving import answers, decode, forms
from serving.endpoints import Routes, endpoint
from serving.live import Floats, Live


class Asking(Routes):
    """What only reads."""

    @endpoint("/v1/predict")
    def predict(self, form: forms.PredictForm) -> dict[str, Any]:
        """Return the likeliest labels of each sample: the fields of `answers.Predictions`."""
        limits, router = self.runtime.settings, self.runtime.router
        top = decode.integer(form.top_k, "top_k", 1, limits.max_k)
        remember = decode.boolean(form.remember, "remember")
        if remember and not form.exchange.writes:  # whoever fills the table takes open predictions from others
            raise Forbidden("remember keeps the samples, which needs a token of the scope write; this one may read")

        def ask(live: Live) -> tuple[Floats, list[list[float]], list[list[int]]]:
            x = self.samples(form.x, live, "/v1/predict")
            return x, *live.predict(x, top)

        live, (x, shares, indices) = router.answer(form, ask)
        router.told(form, live, x, [row[0] for row in indices])
        rows = [prediction(live, *row) for row in zip(shares, indices, strict=True)]
        if remember:
            names = self.runtime.remembered.add(live.version, [row["label"] for row in rows], x)
            rows = [{**row, "id": name} for row, name in zip(rows, names, strict=True)]
        return {"version": live.version, "request_id": form.request_id, "predictions": rows}

    @endpoint("/v1/embed")
    def embed(self, form: forms.EmbedForm) -> answers.Embeddings:
        """Return the vector of each sample, and the space it is in."""
        ask = self.runtime.router.answer
        live, vectors = ask(form, lambda live: live.embed(self.samples(form.x, live, "/v1/embed")))
        return answers.Embeddings(
            version=live.version, request_id=form.request_id, space=live.space.id, vectors=vectors.tolist()
        )

    @endpoint("/v1/search")
    def search(self, form: forms.SearchForm) -> answers.Hits:
        """Return the nearest stored rows of each sample or vector, whichever readable version stored them."""
        most = self.runtime.settings.max_k
        k = decode.integer(form.k, "k", 1, most)
        offset = decode.integer(form.offset, "offset", 0, most * 100)
        where = decode.conditions(form.where)
        space = form.space if isinstance(form.space, str) else None
        self.runtime.slot.shelf.reach(form.exchange.change)
        live, hits = self.runtime.router.answer(
            form, lambda live: live.search(self._queries(form, live), k, where, offset), space
        )
        return answers.Hits(
            version=live.version,
            request_id=form.request_id,
            space=live.space.id,
            hits=[[answers.Found(**hit._asdict()) for hit in row] for row in hits],
            unreadable=live.unreadable(),
            unreadable_rows=live.unreadable_rows(),
        )

    def _queries(self, form: forms.SearchForm, live: Live) -> Floats:
        if (form.x is None) == (form.vectors is None):
            raise DataError("a search needs either x or vectors, and not both")
        if form.x is not None:
            return live.embed(self.samples(form.x, live, "/v1/search"))
        space = decode.text(form.space, "space (which /v1/embed names, and which must come with vectors)")
        if space != live.space.id:
            raise SpaceError(
                f"the vectors are of {space!r}, version {live.version} writes {live.space.id!r}; embed again"
            )
        rows = decode.samples(form.vectors, (live.space.dim,), self.runtime.settings.max_rows, "vectors")
        self.runtime.handled("/v1/search", len(rows))
        return rows


def prediction(live: Live, shares: list[float], indices: list[int]) -> dict[str, Any]:
    """Return the fields of an `answers.Prediction` of one sample, likeliest label first."""
    top = [{"label": live.labels[i], "probability": p} for p, i in zip(shares, indices, strict=True)]
    return {**top[0], "id": None, "top": top}
