"""The gallery's rows: add or overwrite, get, remove."""

from __future__ import annotations

from lifelong.errors import DataError, LifelongError
from serving import answers, decode, forms
from serving.endpoints import Routes, endpoint


class Storing(Routes):
    """What writes rows, and reads them by id. Rows are always written by the live version, never by a canary."""

    @endpoint("/v1/gallery/add")
    def add(self, form: forms.AddForm) -> answers.Added:
        """Embed samples with the live version and store them; the answer names the commit that holds them."""
        slot, most = self.runtime.slot, self.runtime.settings.max_rows
        ids = decode.identifiers(form.ids, most)
        x = self.samples(form.x, slot.live, "/v1/gallery/add")
        if len(x) != len(ids):
            raise DataError(f"need one sample per id, got {len(x)} samples and {len(ids)} ids")
        try:
            live, sequence = slot.add(ids, x, decode.payloads(form.payload, len(ids)))
        except LifelongError:
            self.runtime.telemetry.count("lifelong_gallery_refused_rows_total", len(ids))
            raise
        return answers.Added(
            version=live.version, request_id=form.request_id, space=live.space.id, added=len(ids), sequence=sequence
        )

    @endpoint("/v1/gallery/get")
    def get(self, form: forms.GetForm) -> answers.Rows:
        """Return stored rows by id; ids that are not there are left out."""
        slot, ids = self.runtime.slot, decode.identifiers(form.ids, self.runtime.settings.max_rows)
        slot.shelf.reach(form.exchange.change)
        live, found = slot.live, slot.shelf.get(ids)
        self.runtime.handled("/v1/gallery/get", len(ids))
        with_vectors = decode.boolean(form.vectors, "vectors")
        rows = [
            answers.Stored(
                id=row.id,
                sequence=row.seq,
                space=row.space,
                payload=row.payload,
                vector=row.vector.tolist() if with_vectors else None,
            )
            for row in found
            if row is not None
        ]
        return answers.Rows(version=live.version, request_id=form.request_id, rows=rows, missing=len(ids) - len(rows))

    @endpoint("/v1/gallery/remove")
    def remove(self, form: forms.RemoveForm) -> answers.Removed:
        """Forget rows; ids that are not there are counted and are no error."""
        slot = self.runtime.slot
        live, ids = slot.live, decode.identifiers(form.ids, self.runtime.settings.max_rows)
        removed = slot.shelf.remove(ids)
        self.runtime.handled("/v1/gallery/remove", len(ids))
        return answers.Removed(
            version=live.version,
            request_id=form.request_id,
            removed=removed,
            missing=len(ids) - removed,
            sequence=slot.shelf.view().sequence,
        )
