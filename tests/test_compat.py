"""Cross-version retrieval: recall by hand, and the field's summary numbers by hand."""

import math

import faiss
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lifelong.errors import DataError
from lifelong.release import compat
from lifelong.release.compat import (
    MEASURES,
    cross_matrix,
    improves,
    mean_average_precision,
    recall_at_1,
    recall_at_5,
    summary,
    templates,
)

nan = math.nan


def t(rows):
    return torch.tensor(rows, dtype=torch.float64)


def test_recall_on_five_points_with_a_duplicate():
    """Angles in degrees: gallery 0 (A), 0 again (B), 90 (B), 180 (A), 270 (C); the first of the duplicates counts."""
    gallery = t([[1, 0], [3, 0], [0, 2], [-1, 0], [0, -1]])
    labels = torch.tensor([0, 1, 1, 0, 2])
    queries = t([[5, 1], [1, 5], [-2, 0.1], [0.1, -3]])  # nearest: rows 0, 2, 3, 4
    assert recall_at_1(queries, torch.tensor([0, 1, 0, 2]), gallery, labels) == 1.0
    assert recall_at_1(queries, torch.tensor([1, 1, 0, 2]), gallery, labels) == 0.75
    assert recall_at_1(queries, torch.tensor([1, 0, 1, 0]), gallery, labels) == 0.0


@pytest.mark.parametrize("scale", [1e-44, 1e-30, 1.0, 3e38])
@pytest.mark.parametrize("measure", MEASURES.values())
def test_no_scale_of_rows_changes_what_is_near(measure, scale):
    """Unlike norms that over- or underflow in float32; of a scale that differs from row to row as well."""
    gallery, labels = torch.tensor([[1, 0.5], [0.5, 1], [-1, 0], [0.25, -1]]), torch.arange(4)
    queries, mixed = torch.tensor([[1, 0.25], [0.5, 0.75], [-0.5, 0.25], [0, -1.0]]), torch.tensor([[scale], [1]] * 2)
    assert measure(queries, labels, gallery, labels) == 1.0
    for left, right in [(scale, 1.0), (1.0, scale), (scale, scale), (1.0, mixed), (mixed, 1.0)]:
        assert measure(queries * left, labels, gallery * right, labels) == 1.0


@given(seed=st.integers(0, 2**31), exponent=st.integers(-20, 20))
def test_scaling_safely_changes_no_bit(seed, exponent):
    """Of what torch's own normalisation gives where that neither over- nor underflows."""
    rows = torch.randn(20, 7, generator=torch.Generator().manual_seed(seed)) * 2.0**exponent
    assert torch.equal(compat._unit(rows), torch.nn.functional.normalize(rows, dim=1))


def test_types_are_compared_in_the_wider_one_and_integers_are_refused():
    e, y = torch.eye(3), torch.arange(3)
    assert recall_at_1(e.double(), y, e, y) == recall_at_1(e, y, e.double(), y) == recall_at_1(e.half(), y, e, y) == 1
    for wrong in [(e.long(), y, e, y), (e, y, e.long(), y), (e, y.float(), e, y)]:
        with pytest.raises(DataError, match="floating point features and integer labels, got"):
            recall_at_1(*wrong)
    with pytest.raises(DataError, match="count from 0, got -1; leave unknown samples out"):
        templates(e, torch.tensor([0, -1, 1]))


@given(n=st.integers(1, 20), m=st.integers(1, 20), d=st.integers(1, 6), e=st.integers(1, 6), seed=st.integers(0, 2**31))
def test_recall_is_that_of_zero_padded_cosine(n, m, d, e, seed):
    """Against an exhaustive search by FAISS over unit rows that were really padded with zeros."""
    random = torch.Generator().manual_seed(seed)
    queries, gallery = torch.randn(n, d, generator=random), torch.randn(m, e, generator=random)
    ql, gl = torch.randint(3, (n,), generator=random), torch.randint(3, (m,), generator=random)
    padded = [np.zeros((len(rows), max(d, e)), np.float32) for rows in (queries, gallery)]
    for target, rows in zip(padded, (queries, gallery), strict=True):
        target[:, : rows.shape[1]] = rows.numpy()
        faiss.normalize_L2(target)
    index = faiss.IndexFlatIP(max(d, e))
    index.add(padded[1])
    scores, found = index.search(padded[0], min(2, m))
    if m > 1 and (scores[:, 0] - scores[:, 1] < 1e-5).any():
        return  # too near to call in float32
    want = (gl[torch.from_numpy(found[:, 0])] == ql).double().mean().item()
    assert recall_at_1(queries, ql, gallery, gl) == want


def test_average_precision_by_hand():
    """One query, five rows in the order of their angle, of which the first, third and fifth are right."""
    angles = torch.tensor([10.0, 20.0, 30.0, 40.0, 50.0], dtype=torch.float64).deg2rad()
    gallery = torch.stack([angles.cos(), angles.sin()], 1)
    right, query = torch.tensor([1, 0, 1, 0, 1]), t([[2, 0]])
    want = (1 / 1 + 2 / 3 + 3 / 5) / 3
    assert mean_average_precision(query, torch.tensor([1]), gallery, right) == pytest.approx(want)
    assert mean_average_precision(query, torch.tensor([7]), gallery, right) == 0  # the gallery has none of it


@pytest.mark.slow  # scikit-learn alone takes seconds to import
@given(n=st.integers(1, 12), m=st.integers(1, 12), d=st.integers(1, 5), e=st.integers(1, 5), seed=st.integers(0, 2**31))
def test_average_precision_is_that_of_scikit_learn(n, m, d, e, seed):
    from sklearn.metrics import average_precision_score

    random = torch.Generator().manual_seed(seed)
    queries = torch.randn(n, d, generator=random, dtype=torch.float64)
    gallery = torch.randn(m, e, generator=random, dtype=torch.float64)
    ql, gl = torch.randint(3, (n,), generator=random), torch.randint(3, (m,), generator=random)
    q, g = (torch.nn.functional.pad(rows, (0, max(d, e) - rows.shape[1])) for rows in (queries, gallery))
    scores = torch.nn.functional.cosine_similarity(q.unsqueeze(1), g, dim=2)
    if any(len(row.round(decimals=9).unique()) < m for row in scores):
        return  # ties, as there are in one dimension, are ranked by position here and averaged there
    want = [average_precision_score(gl == y, row) if y in gl else 0.0 for y, row in zip(ql, scores, strict=True)]
    assert mean_average_precision(queries, ql, gallery, gl) == pytest.approx(np.mean(want))


@pytest.mark.parametrize("measure", MEASURES.values(), ids=MEASURES)
def test_a_measure_does_not_depend_on_how_it_is_cut_into_blocks(monkeypatch, measure):
    random = torch.Generator().manual_seed(0)
    queries, gallery = torch.randn(50, 8, generator=random), torch.randn(40, 8, generator=random)
    ql, gl = torch.randint(3, (50,), generator=random), torch.randint(3, (40,), generator=random)
    whole = measure(queries, ql, gallery, gl)
    monkeypatch.setattr(compat, "BLOCK", 7 * 40)
    assert measure(queries, ql, gallery, gl) == pytest.approx(whole, abs=1e-6)


def test_scale_of_rows_does_not_matter():
    """A long row of another direction would win by inner product; by cosine it does not."""
    gallery = t([[1, 0], [60, 80]])
    for measure in MEASURES.values():
        assert measure(t([[1, 0.1]]), torch.tensor([0]), gallery, torch.tensor([0, 1])) == 1.0


@pytest.mark.parametrize(
    ("queries", "labels"), [(torch.zeros(0, 2), []), (torch.zeros(1, 2), [0, 1]), (t([[nan, 0]]), [0])]
)
def test_what_cannot_be_compared_is_refused(queries, labels):
    gallery, known = t([[1, 0]]), torch.tensor([0])
    labels = torch.tensor(labels, dtype=torch.int64)
    for measure in MEASURES.values():
        with pytest.raises(DataError):
            measure(queries.double(), labels, gallery, known)
        with pytest.raises(DataError):
            measure(gallery, known, queries.double(), labels)


def test_the_cross_matrix_holds_every_pair_below_its_diagonal():
    """Versions: the identity, a swap of the two axes, and the identity again, wider by one coordinate."""
    e = torch.eye(2)
    versions = [e, e.flip(1), torch.cat([e, torch.zeros(2, 1)], 1)]
    y = torch.tensor([0, 1])
    c = cross_matrix(versions, versions, y, y)
    assert c.dtype == torch.float64
    torch.testing.assert_close(c, t([[1, nan, nan], [0, 1, nan], [1, 0, 1]]), equal_nan=True)
    by_rank = cross_matrix(versions, versions, y, y, measure=mean_average_precision)
    torch.testing.assert_close(by_rank, t([[1, nan, nan], [0.5, 1, nan], [1, 0.5, 1]]), equal_nan=True)


def test_three_versions_by_hand():
    """Pairs: (1,0) .5 > .4 yes; (2,0) .4 = .4 tie; (2,1) .55 < .6 no."""
    c = t([[0.4, nan, nan], [0.5, 0.6, nan], [0.4, 0.55, 0.8]])
    s = summary(c)
    assert s["ac_strict"] == pytest.approx(1 / 3)
    assert s["ac_ties_compatible"] == pytest.approx(2 / 3)
    assert s["aa"] == pytest.approx((0.4 + 0.5 + 0.6 + 0.4 + 0.55 + 0.8) / 6)
    assert s["bc"] == pytest.approx(((0.4 - 0.4) + (0.55 - 0.6)) / 2)
    assert s["fc"] == pytest.approx(((0.5 - 0.6) + (0.55 - 0.8)) / 2)


def test_four_versions_by_hand_with_a_true_zero():
    """A zero in the triangle is a measurement like any other; what is above the diagonal is not looked at."""
    c = t([[0.2, 9, 9, 9], [0.0, 0.4, 9, 9], [0.3, 0.5, 0.6, 9], [0.25, 0.4, 0.7, 0.8]])
    s = summary(c)
    assert s["ac_strict"] == pytest.approx(4 / 6)  # (2,0) (2,1) (3,0) (3,2)
    assert s["ac_ties_compatible"] == pytest.approx(5 / 6)  # and (3,1)
    assert s["aa"] == pytest.approx((0.2 + 0 + 0.4 + 0.3 + 0.5 + 0.6 + 0.25 + 0.4 + 0.7 + 0.8) / 10)
    assert s["bc"] == pytest.approx((0.05 + 0.0 + 0.1) / 3)
    assert s["fc"] == pytest.approx((-0.4 - 0.1 - 0.1) / 3)


HOC = """
.58892
.597   .6156
.6305  .65276 .69314
.63336 .65298 .70626 .72374
.65006 .67872 .70754 .72114 .73828
.6408  .67188 .71166 .72712 .74704 .76194
.6314  .6635  .72096 .73496 .75232 .76652 .77164
"""
REPLAY = """
.6342
.61556 .63092
.11708 .1123  .72734
.1143  .1053  .69232 .703
.0908  .07756 .09296 .08552 .74464
.08512 .07364 .10338 .09524 .7226  .72312
.09718 .08578 .0975  .09748 .70352 .7063  .71544
"""


def triangle(text):
    rows = [[float(word) for word in line.split()] for line in text.strip().splitlines()]
    return t([[*row, *[nan] * (len(rows) - len(row))] for row in rows])


@pytest.mark.parametrize(("text", "ac", "am"), [(HOC, 0.95, 68.899), (REPLAY, 0.0, 35.179)])
def test_the_published_matrices_give_the_published_numbers(text, ac, am):
    """Seven tasks on CIFAR-100R/10, d-Simplex-HOC and replay, as in the outputs of miccunifi/iamcl2r's notebooks."""
    s = summary(triangle(text))
    assert f"{s['ac_strict']:.2f}" == f"{ac:.2f}"
    assert f"{100 * s['aa']:.3f}" == f"{am:.3f}"


def test_transfer_of_the_published_matrix_by_hand():
    """Last row minus diagonal, what is below the diagonal minus it; one violation: the fifth in the fourth's rows."""
    s = summary(triangle(HOC))
    assert s["ac_strict"] == s["ac_ties_compatible"] == pytest.approx(20 / 21)
    assert s["bc"] == pytest.approx((0.04248 + 0.0479 + 0.02782 + 0.01122 + 0.01404 + 0.00458) / 6)
    assert s["fc"] == pytest.approx(-(0.0186 + 0.04038 + 0.01748 + 0.01714 + 0.0149 + 0.00512) / 6)


@given(size=st.integers(2, 8), value=st.floats(0, 1), seed=st.integers(0, 2**31))
def test_identical_models_are_compatible_only_by_the_convention_of_ties(size, value, seed):
    own = torch.rand(size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    s = summary(own.repeat(size, 1))
    assert (s["ac_strict"], s["ac_ties_compatible"], s["bc"]) == (0, 1, 0)
    assert summary(torch.full((size, size), value))["aa"] == pytest.approx(value)


def test_one_version_has_nothing_to_be_compatible_with():
    s = summary(t([[0.7]]))
    assert s["aa"] == 0.7
    assert all(math.isnan(s[name]) for name in ("ac_strict", "ac_ties_compatible", "bc", "fc"))


@pytest.mark.parametrize("c", [torch.zeros(2, 3), torch.zeros(0, 0), torch.zeros(3), t([[1, 2], [nan, 1]])])
def test_a_matrix_with_holes_is_refused(c):
    with pytest.raises(DataError):
        summary(c)


def test_a_tie_is_no_proof():
    assert improves(0.5, 0.4)
    assert not improves(0.5, 0.5)


def brute(x, y, measure):
    """Recall at 1 and 5 and the average precision of each sample among all others, one by one."""
    unit = x / x.norm(dim=1, keepdim=True)
    found = []
    for i in range(len(x)):
        others = [j for j in range(len(x)) if j != i]
        ranked = sorted(others, key=lambda j: -(unit[i] @ unit[j]).item())
        hits = [int(y[j] == y[i]) for j in ranked]
        precision = [sum(hits[: r + 1]) / (r + 1) for r, hit in enumerate(hits) if hit]
        found.append({1: hits[0], 5: max(hits[:5]), "map": sum(precision) / max(len(precision), 1)}[measure])
    return sum(found) / len(found)


@settings(deadline=None, max_examples=25)
@given(count=st.integers(2, 12), classes=st.integers(1, 4), seed=st.integers(0, 2**31))
def test_no_sample_meets_itself_when_queries_are_the_gallery(count, classes, seed):
    random = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 6, generator=random, dtype=torch.float64)
    y = torch.randint(classes, (count,), generator=random)
    for measure, key in ((recall_at_1, 1), (recall_at_5, 5), (mean_average_precision, "map")):
        assert measure(x, y, x, y, same=True) == pytest.approx(brute(x, y, key), abs=1e-12)


def test_blocks_leave_out_their_own_pairs(monkeypatch):
    x = torch.randn(9, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = torch.arange(9) % 3
    whole = recall_at_1(x, y, x, y, same=True)
    monkeypatch.setattr(compat, "BLOCK", 18)  # two rows at a time
    assert recall_at_1(x, y, x, y, same=True) == whole == pytest.approx(brute(x, y, 1))


def test_a_duplicate_of_a_query_is_found_though_the_query_itself_is_left_out():
    """Five points, two of them equal: the copy is the nearest, of another class."""
    x = t([[1, 0], [1, 0], [0.9, 0.1], [0, 1], [0.1, 0.9]])
    y = torch.tensor([0, 1, 0, 2, 2])
    assert recall_at_1(x, y, x, y) == pytest.approx(4 / 5)  # the second meets its copy first
    assert recall_at_1(x, y, x, y, same=True) == pytest.approx(3 / 5)  # 0 and 1 find each other; 2 finds 0
    assert recall_at_5(x, y, x, y, same=True) == pytest.approx(4 / 5)  # 1 has nobody of its class


@pytest.mark.parametrize("labels", [[0, 1], [0, 1, 1]])
def test_samples_that_are_not_the_same_cannot_be_left_out(labels):
    x = torch.eye(3)
    with pytest.raises(DataError, match="not the same samples"):
        recall_at_1(x, torch.tensor([0, 1, 2]), x[: len(labels)], torch.tensor(labels), same=True)


def test_templates_are_unit_means_of_unit_features_by_class():
    rows, classes = templates(t([[2, 0], [0, 5], [0, -3]]), torch.tensor([4, 4, 1]))
    assert classes.tolist() == [1, 4]
    torch.testing.assert_close(rows, t([[0, -1], [0.5**0.5, 0.5**0.5]]))


def test_update_gain_by_hand():
    """Earlier self-tests .4 .4 .6 and later ones .6 .8 .8; gained .1 + 0 - .05 of .2 + .4 + .2."""
    c = t([[0.4, nan, nan], [0.5, 0.6, nan], [0.4, 0.55, 0.8]])
    assert summary(c)["update_gain"] == pytest.approx(0.05 / 0.8)
    assert math.isnan(summary(torch.ones(3, 3))["update_gain"])
