"""Cross-version retrieval: can a new model's queries find what an old model wrote?

`C[t, k]` measures queries embedded by version t in a gallery written by version k <= t: recall at 1, or the mean
average precision, which looks at the whole ranking and so does not saturate on a few easy classes. The diagonal
is the self-test, everything below it the cross-test. Version t is compatible with version k when its cross-test
beats the old self-test: `C[t, k] > C[k, k]`.

Source: Shen et al., "Towards Backward-Compatible Representation Learning" (the empirical criterion); Biondi et al.,
    CL2R and IAM-CL2R (AC, AA and the transfer of compatibility).
Differs: recall is measured against every gallery row (class templates on request); ties are counted both ways.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from lifelong.errors import DataError

BLOCK = 1 << 22  # similarities held at once (16 MiB in float32)


def improves(cross: float, own: float) -> bool:
    """Return whether a cross-test proves compatibility: strictly better than the old self-test; a tie is no proof."""
    return cross > own


def recall_at_1(
    queries: Tensor, query_labels: Tensor, gallery: Tensor, gallery_labels: Tensor, *, same: bool = False
) -> float:
    """Return the share (0..1) of queries whose nearest gallery row, by cosine, has their label.

    Rows of different width are compared as if the narrower ones were padded with zeros: the inner product runs
    over the leading min(D, D') coordinates, the norms over all. A zero row is similar to nothing (cosine 0).
    Among equally near rows the first counts.

    Args:
        queries: `[N, D]` floating point, at least one row; of any scale.
        query_labels: `[N]` i64.
        gallery: `[M, D']` floating point, at least one row; the wider type of both is compared in.
        gallery_labels: `[M]` i64.
        same: Query i and gallery row i are the same sample: leave that pair out (then N = M >= 2).

    Raises:
        DataError: Shapes do not belong together, there is nothing to compare, features are no floating point numbers,
            or a value is not finite.

    >>> e = torch.eye(3)
    >>> recall_at_1(e[:, :2], torch.tensor([0, 1, 2]), e, torch.tensor([0, 1, 2]))  # the third query is zero
    0.6666666666666666
    """
    blocks = _similarities(queries, query_labels, gallery, gallery_labels, same)
    right = [gallery_labels[block.argmax(1)] == y for block, y in blocks]
    return torch.cat(right).double().mean().item()


def recall_at_5(
    queries: Tensor, query_labels: Tensor, gallery: Tensor, gallery_labels: Tensor, *, same: bool = False
) -> float:
    """Return the share (0..1) of queries that have a row of their label among the 5 nearest; as `recall_at_1`."""
    blocks = _similarities(queries, query_labels, gallery, gallery_labels, same)
    right = [
        (gallery_labels[block.topk(min(5, block.shape[1] - same), dim=1).indices] == y.unsqueeze(1)).any(1)
        for block, y in blocks
    ]
    return torch.cat(right).double().mean().item()


def mean_average_precision(
    queries: Tensor, query_labels: Tensor, gallery: Tensor, gallery_labels: Tensor, *, same: bool = False
) -> float:
    """Return the mean over queries of the average precision (0..1) of the whole gallery ranked by cosine.

    The average precision of a query is the mean, over the gallery rows of its label, of the share of its label among
    the rows ranked as high; a query whose label the gallery does not hold counts 0. Arguments and errors are those
    of `recall_at_1`.

    >>> e = torch.eye(3)
    >>> round(mean_average_precision(e[:1], torch.tensor([0]), e, torch.tensor([1, 0, 0])), 4)
    0.5833
    """
    scores: list[Tensor] = []
    for block, y in _similarities(queries, query_labels, gallery, gallery_labels, same):
        order = block.argsort(stable=True, dim=1, descending=True)
        hit = gallery_labels[order[:, : order.shape[1] - same]] == y.unsqueeze(1)  # a left-out pair comes last
        ranks = torch.arange(1, hit.shape[1] + 1, dtype=torch.float64)
        scores.append((hit.cumsum(1) / ranks * hit).sum(1) / hit.sum(1).clamp(min=1))
    return torch.cat(scores).mean().item()


Measure = Callable[..., float]  # of queries, their labels, gallery, its labels; and whether they are the same samples
MEASURES: dict[str, Measure] = {"recall_at_1": recall_at_1, "map": mean_average_precision}  # of a compatibility proof


def templates(features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return one row per class, `[C, D]` and its label `[C]`: the mean of its unit features, scaled to unit length.

    A gallery of templates makes `recall_at_1` a 1:N identification, as CL2R and IAM-CL2R measure it.

    Raises:
        DataError: As for `recall_at_1`; or a label is negative: samples of unknown labels are no class.
    """
    _check(features, labels, "features")
    if int(labels.min()) < 0:
        raise DataError(f"the labels of templates count from 0, got {int(labels.min())}; leave unknown samples out")
    unit, classes = _unit(features), labels.unique()
    means = torch.stack([unit[labels == label].mean(0) for label in classes])
    return _unit(means), classes


def _near_one(features: Tensor) -> Tensor:
    """Return rows times powers of two that bring their largest values near 1: lengths neither over- nor underflow."""
    exponent = features.abs().amax(1, keepdim=True).frexp().exponent.clamp(-126, 126)  # of 0, too: it stays 0
    return features.ldexp(-exponent)


def _unit(features: Tensor) -> Tensor:
    """Return rows `[N, D]` at length 1; zero rows stay zero."""
    return torch.nn.functional.normalize(_near_one(features), dim=1)


def _similarities(
    queries: Tensor, query_labels: Tensor, gallery: Tensor, gallery_labels: Tensor, same: bool
) -> Iterator[tuple[Tensor, Tensor]]:
    """Check what is to be compared, then yield `(similarities [n, M], labels [n])`, one block in memory at a time."""
    _check(queries, query_labels, "queries")
    _check(gallery, gallery_labels, "gallery")
    if same and (len(queries) < 2 or not torch.equal(query_labels, gallery_labels)):
        raise DataError("queries and gallery are not the same samples: there must be two or more, of the same labels")
    width, size = min(queries.shape[1], gallery.shape[1]), max(1, BLOCK // len(gallery))
    # The norm of a query scales all of its similarities alike, so only the gallery's norms can change the order.
    kind = torch.promote_types(torch.promote_types(queries.dtype, gallery.dtype), torch.float32)
    rows = _unit(gallery.to(kind))[:, :width].T
    blocks = zip(_near_one(queries[:, :width].to(kind)).split(size), query_labels.split(size), strict=True)
    products = ((block @ rows, y) for block, y in blocks)
    return _without_self(products, size) if same else products


def _without_self(blocks: Iterator[tuple[Tensor, Tensor]], size: int) -> Iterator[tuple[Tensor, Tensor]]:
    for i, (block, y) in enumerate(blocks):
        block.diagonal(i * size).fill_(-torch.inf)
        yield block, y


def cross_matrix(
    features_queries: Sequence[Tensor],
    features_gallery: Sequence[Tensor],
    query_labels: Tensor,
    gallery_labels: Tensor,
    *,
    measure: Measure = recall_at_1,
    same: bool = False,
) -> Tensor:
    """Return C `[T, T]` float64: the measure of version t's queries in version k's gallery; NaN above the diagonal.

    Each version embeds the queries and the gallery once (T extractions); only the products are quadratic in T.

    Args:
        features_queries: Features `[N, D_t]` of the same N queries by each of T versions.
        features_gallery: Features `[M, D_t]` of the same M gallery rows by each of T versions.
        query_labels: `[N]` i64.
        gallery_labels: `[M]` i64.
        measure: One of `MEASURES`.
        same: Queries and gallery are the same samples: no sample meets itself.
    """
    if len(features_queries) != len(features_gallery) or not features_queries:
        raise DataError(
            f"need queries and gallery of the same versions, got {len(features_queries)} and {len(features_gallery)}"
        )
    size = len(features_queries)
    matrix = torch.full((size, size), torch.nan, dtype=torch.float64)
    for t, queries in enumerate(features_queries):
        for k, gallery in enumerate(features_gallery[: t + 1]):
            matrix[t, k] = measure(queries, query_labels, gallery, gallery_labels, same=same)
    return matrix


def summary(matrix: Tensor) -> dict[str, float]:
    """Return the numbers that the field prints of C `[T, T]`; what is above the diagonal is ignored.

    * `ac_strict`: Share (0..1) of pairs k < t with `C[t, k] > C[k, k]` (IAM-CL2R: a tie is incompatible).
    * `ac_ties_compatible`: The same with `>=` (CL2R, CoReS); 1 for a model that never changes.
    * `aa`: Mean (0..1) of the lower triangle with its diagonal; a true 0 counts as 0.
    * `bc`: Mean over k < T of `C[T, k] - C[k, k]`: backward transfer of compatibility.
    * `fc`: Mean over t >= 2 of `C[t, t-1] - C[t, t]`: what the last upgrade costs against re-embedding.
    * `update_gain`: Of what all later versions could gain over the earlier ones by re-embedding, the share that they
      gain without it: sum of `C[t, k] - C[k, k]` over sum of `C[t, t] - C[k, k]`, all k < t; NaN if nothing is to gain.

    With a single version only `aa` is defined; the others are NaN.

    Raises:
        DataError: It is not a square matrix with finite values on and below its diagonal.
    """
    if matrix.dim() != 2 or matrix.shape[0] != matrix.shape[1] or not len(matrix):
        raise DataError(f"need C [T, T] with T >= 1, got shape {list(matrix.shape)}")
    c, size = matrix.double(), len(matrix)
    rows, columns = torch.tril_indices(size, size)
    if not torch.isfinite(c[rows, columns]).all():
        raise DataError("C has values that are not finite on or below its diagonal; measure every pair first")
    own, (late, early) = c.diagonal(), torch.tril_indices(size, size, -1)
    cross, possible = c[late, early], (own[late] - own[early]).sum()
    return {
        "ac_strict": (cross > own[early]).double().mean().item(),
        "ac_ties_compatible": (cross >= own[early]).double().mean().item(),
        "aa": c[rows, columns].mean().item(),
        "bc": (c[-1, :-1] - own[:-1]).mean().item(),
        "fc": (c.diagonal(-1) - own[1:]).mean().item(),
        "update_gain": ((cross - own[early]).sum() / possible).item() if possible > 0 else torch.nan,
    }


def _check(features: Tensor, labels: Tensor, what: str) -> None:
    if features.dim() != 2 or labels.shape != features.shape[:1] or not features.numel():
        raise DataError(
            f"{what} need features [N, D] and labels [N] with N, D >= 1, "
            f"got {list(features.shape)} and {list(labels.shape)}"
        )
    if not features.is_floating_point() or labels.is_floating_point():
        raise DataError(
            f"{what} need floating point features and integer labels, got {features.dtype} and {labels.dtype}"
        )
    if not torch.isfinite(features).all():
        raise DataError(f"the features of the {what} are not finite; check the model that made them")
