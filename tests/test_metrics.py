"""Every metric equals its hand-computed value, and refuses what it cannot be computed from."""

import json
import math

import numpy as np
import pytest
import torch

from lifelong.bench import metrics
from lifelong.bench.matrix import AccuracyMatrix
from lifelong.errors import DataError

_ = None
# Made up so that the libraries disagree by the amounts users have reported. Experience 1 is best in row 2
# (learned something later, then lost it); experience 2 ends better than it ever was.
DISAGREE = [
    [0.90, _, _, _],
    [0.70, 0.80, _, _],
    [0.62, 0.85, 0.70, _],
    [0.52, 0.75, 0.73, 0.60],
]
B = [0.10, 0.20, 0.05, 0.25]
FULL = [
    [0.90, 0.30, 0.10, 0.20],
    [0.70, 0.80, 0.15, 0.20],
    [0.62, 0.85, 0.70, 0.40],
    [0.52, 0.75, 0.73, 0.60],
]


@pytest.mark.parametrize(
    ("name", "value", "printed"),
    [
        # (.52-.90) + (.75-.80) + (.73-.70) = -.40, over 3
        ("bwt_gem", -0.40 / 3, "-0.133"),
        # (.70-.90) + (.62-.90) + (.85-.80) + (.52-.90) + (.75-.80) + (.73-.70) = -.83, over 6
        ("bwt_tri", -0.83 / 6, "-0.138"),
        ("forgetting_first_last", 0.40 / 3, "0.133"),
        # (.90-.52) + (.85-.75) + (.70-.73) = .45, over 3
        ("forgetting_chaudhry", 0.15, "0.150"),
        # (.90-.52) + (.85-.75) + (.73-.73) = .48, over 3
        ("forgetting_max_incl_last", 0.16, "0.160"),
        # (.52+.75+.73+.60) / 4
        ("acc_final", 0.65, "0.650"),
        # (.90 + .75 + 2.17/3 + .65) / 4
        # ages 4, 3, 2, 1: (.52/4 + .75/3 + .73/2 + .60) / (25/12) = 1.345 * 12/25
        ("need_weighted", 1.345 * 12 / 25, "0.646"),
        ("acc_avg_incremental", (0.90 + 0.75 + 2.17 / 3 + 0.65) / 4, "0.756"),
    ],
)
def test_one_matrix_five_answers(name, value, printed):
    """One matrix gives 0.133, 0.150 and 0.160 for "forgetting" and -0.133 and -0.138 for "BWT"; each has a name."""
    found = metrics.summary(DISAGREE)[name]
    assert found == pytest.approx(value, abs=1e-12)
    assert f"{found:.3f}" == printed


def test_what_needs_the_upper_triangle():
    """Forward transfer, anytime-all and test-then-train, by hand."""
    found = metrics.summary(FULL, B)
    assert found["fwt_gem"] == pytest.approx((0.30 - 0.20 + 0.15 - 0.05 + 0.40 - 0.25) / 3)
    assert found["anytime_all"] == pytest.approx((1.50 + 1.85 + 2.57 + 2.60) / 16)
    assert found["ttt"] == pytest.approx((0.10 + 0.30 + 0.15 + 0.40) / 4)
    assert set(found) == set(metrics.METRICS)


def test_rows_before_an_experience_count_where_measured():
    """Chaudhry's maximum goes over all earlier rows: an experience known before it came and then lost is forgotten."""
    known_before = [[0.9, 0.8, 0.5], [0.9, 0.6, 0.5], [0.9, 0.7, 0.5]]
    assert metrics.forgetting_chaudhry(known_before) == pytest.approx((0.0 + 0.1) / 2)
    unknown_before = [[0.9, _, _], [0.9, 0.6, _], [0.9, 0.7, 0.5]]
    assert metrics.forgetting_chaudhry(unknown_before) == pytest.approx((0.0 - 0.1) / 2)


def test_laws_between_definitions():
    """On any full matrix: first-last is -GEM; no maximum is below first-last; a larger set has a larger maximum."""
    random = np.random.default_rng(0)
    for size in (2, 3, 5, 8):
        found = metrics.summary(random.random((size, size)), random.random(size))
        assert found["forgetting_first_last"] == pytest.approx(-found["bwt_gem"])
        assert found["forgetting_chaudhry"] >= found["forgetting_first_last"] - 1e-12
        assert found["forgetting_max_incl_last"] >= max(0.0, found["forgetting_chaudhry"] - 1e-12)
        assert found["anytime_seen"] == pytest.approx(found["acc_avg_incremental"])


def test_anytime_seen_takes_moments_within_experiences():
    """Three moments, the first two while experience 0 is learned: (.2 + .4 + (.3 + .5) / 2) / 3."""
    A = [[0.2, 0.0], [0.4, 0.0], [0.3, 0.5]]
    assert metrics.anytime_seen(A, [1, 1, 2]) == pytest.approx((0.2 + 0.4 + 0.4) / 3)
    assert metrics.anytime_all(A) == pytest.approx(1.4 / 6)
    with pytest.raises(DataError, match="how many of 2 experiences"):
        metrics.anytime_seen(A, [1, 1, 3])


@pytest.mark.parametrize(
    ("alpha", "value"),
    [
        (0.0, 0.65),  # acc_final
        (2.0, (0.52 / 16 + 0.75 / 9 + 0.73 / 4 + 0.60) / (1 / 16 + 1 / 9 + 1 / 4 + 1)),
        (500.0, 0.60),  # the youngest alone
    ],
)
def test_need_fades_as_a_power_of_time(alpha, value):
    """Only the last row counts; the youngest experience is 1 old, for it is the next moment that asks."""
    assert metrics.need_weighted(DISAGREE, alpha) == pytest.approx(value, abs=1e-12)
    with pytest.raises(DataError, match="finite alpha >= 0, got -1"):
        metrics.need_weighted(DISAGREE, -1.0)
    with pytest.raises(DataError, match=r"need_weighted needs R\[3\]\[1\]"):
        metrics.need_weighted([*DISAGREE[:3], [0.52, None, 0.73, 0.60]])


def test_tensors_arrays_and_lists_are_one():
    """The same numbers in any container give the same summary."""
    array = np.array(DISAGREE, dtype=float)
    assert metrics.summary(torch.tensor(array)) == metrics.summary(array) == metrics.summary(DISAGREE)


def test_one_experience_has_no_transfer():
    """With T = 1 there is an accuracy, and nothing to compare."""
    assert metrics.summary([[0.5]]) == dict.fromkeys(
        ("acc_final", "acc_avg_incremental", "anytime_seen", "anytime_all", "need_weighted"), 0.5
    )
    with pytest.raises(DataError, match="at least 2, got 1"):
        metrics.bwt_gem([[0.5]])


def test_a_missing_cell_is_named_and_never_guessed():
    """NaN in a needed cell raises with the cell; the summary leaves out exactly what needs it."""
    holed = [list(row) for row in DISAGREE]
    holed[2][0] = math.nan  # only the triangle, the maxima and the incremental mean look there
    for name in ("bwt_tri", "forgetting_chaudhry", "forgetting_max_incl_last", "acc_avg_incremental"):
        with pytest.raises(DataError, match=rf"{name} needs R\[2\]\[0\], which was not measured"):
            metrics.METRICS[name].function(holed)
    assert set(metrics.summary(holed)) == {"acc_final", "bwt_gem", "forgetting_first_last", "need_weighted"}
    with pytest.raises(DataError, match=r"fwt_gem needs b\[2\]"):
        metrics.fwt_gem(FULL, [0.1, 0.1, None, 0.1])


@pytest.mark.parametrize(
    ("matrix", "says"),
    [
        ([[0.5, 0.5]], r"accuracy matrix \[T, T\], got \[1, 2\]"),
        ([0.5, 0.5], r"got shape \[2\]"),
        ([], r"got shape \[0\]"),
        ([[0.5], [0.5, 0.5]], "of numbers"),
        ([["high"]], "of numbers"),
        ([[90.0]], "divide percentages by 100"),
        ([[-0.1]], "shares in 0..1"),
        ([[math.inf]], "shares in 0..1"),
    ],
)
def test_what_is_no_accuracy_matrix_is_refused(matrix, says):
    """Shapes and values are checked before anything is computed."""
    with pytest.raises(DataError, match=says):
        metrics.summary(matrix)


def test_a_wrong_base_is_refused():
    """b has one accuracy per experience."""
    with pytest.raises(DataError, match=r"a row \[4\]"):
        metrics.summary(FULL, [0.1])


def test_the_table_names_definitions_and_nothing_is_called_accuracy():
    """Each row has a one-line definition and a citation; each function documents its formula."""
    for name, metric in metrics.METRICS.items():
        assert metric.function.__name__ == name != "accuracy"
        assert metric.function.__doc__.startswith("Return ")
        assert metric.definition and "\n" not in metric.definition and metric.citation


def test_a_matrix_grows_row_by_row():
    """At every moment the summary is that of the part that was learned."""
    matrix = AccuracyMatrix(4, base=B)
    for i, row in enumerate(FULL):
        matrix.add(row)
        part = [r[: i + 1] for r in FULL[: i + 1]]
        assert matrix.summary() == metrics.summary(part, B[: i + 1])
    np.testing.assert_array_equal(matrix.values, FULL)


def test_a_matrix_of_unknown_width_takes_longer_rows():
    """An endless stream adds columns as it goes; early rows are NaN there."""
    matrix = AccuracyMatrix()
    matrix.add([0.5])
    matrix.add([0.4, 0.6])
    np.testing.assert_array_equal(matrix.values, [[0.5, np.nan], [0.4, 0.6]])
    assert matrix.summary()["bwt_gem"] == pytest.approx(-0.1)


def test_a_matrix_survives_json():
    """State is strict JSON (NaN is null) and comes back as the same matrix, which goes on growing."""
    matrix = AccuracyMatrix(4, base=[0.1, None, 0.1, 0.1])
    matrix.add(DISAGREE[0])
    text = json.dumps(matrix.state(), allow_nan=False)
    back = AccuracyMatrix.of(json.loads(text))
    assert json.dumps(back.state()) == text
    for m in (matrix, back):
        m.add(DISAGREE[1])
    np.testing.assert_array_equal(back.values, matrix.values)


def test_a_matrix_refuses_what_does_not_fit():
    """Too many rows or columns, no row, percentages, a foreign state."""
    matrix = AccuracyMatrix(1)
    with pytest.raises(DataError, match="got a row of 2"):
        matrix.add([0.5, 0.5])
    with pytest.raises(DataError, match="at least one"):
        matrix.add([])
    with pytest.raises(DataError, match="divide percentages"):
        matrix.add([50])
    assert len(matrix) == 0
    matrix.add([0.5])
    with pytest.raises(DataError, match="of which 1 have rows"):
        matrix.add([0.5])
    with pytest.raises(DataError, match="experiences, base and rows"):
        AccuracyMatrix.of({"rows": []})
    with pytest.raises(DataError, match="at least 1 experience"):
        AccuracyMatrix(0)


# What other libraries print for the same matrix, written from their documented formulas in their own way: loops over
# a padded list of lists, as they have it, and none of our code.


def mammoth(results, random_results):
    """`utils/metrics.py`: zeros above the diagonal, the maximum over all rows."""
    padded = np.array([[0.0 if v is None else v for v in row] for row in results])
    last = len(padded) - 1
    return {
        "backward_transfer": float(np.mean([padded[last][i] - padded[i][i] for i in range(last)])),
        "forgetting": float(np.mean(np.max(padded, 0)[:last] - padded[last][:last])),
        "forward_transfer": float(np.mean([results[i - 1][i] - random_results[i] for i in range(1, last + 1)])),
    }


def continuum(results):
    """`continuum/metrics`: transfer summed over the lower triangle, forgetting against the best row before the last."""
    size, total = len(results), 0.0
    for i in range(1, size):
        for j in range(i):
            total += results[i][j] - results[j][j]
    best = [max(results[k][j] for k in range(j, size - 1)) for j in range(size - 1)]
    return {
        "backward_transfer": total / (size * (size - 1) / 2),
        "forgetting": sum(b - results[-1][j] for j, b in enumerate(best)) / (size - 1),
        "accuracy": sum(results[-1]) / size,
        "average_incremental_accuracy": sum(sum(row[: i + 1]) / (i + 1) for i, row in enumerate(results)) / size,
    }


def capymoa(results):
    """`capymoa.ocl`: the lower triangle for transfer, and accuracies at each moment over seen or all experiences."""
    size = len(results)
    pairs = [(i, j) for i in range(size) for j in range(size) if j < i]
    return {
        "backward_transfer": sum(results[i][j] - results[j][j] for i, j in pairs) / len(pairs),
        "anytime_accuracy_seen_avg": float(np.mean([np.mean(results[i][: i + 1]) for i in range(size)])),
        "anytime_accuracy_all_avg": float(np.mean(results)),
        "accuracy_final": float(np.mean(results[-1])),
    }


@pytest.mark.parametrize(
    ("printed", "theirs", "ours"),
    [
        (mammoth(FULL, B), "backward_transfer", "bwt_gem"),
        (mammoth(FULL, B), "forgetting", "forgetting_max_incl_last"),
        (mammoth(FULL, B), "forward_transfer", "fwt_gem"),
        (continuum(FULL), "backward_transfer", "bwt_tri"),
        (continuum(FULL), "forgetting", "forgetting_chaudhry"),
        (continuum(FULL), "accuracy", "acc_final"),
        (continuum(FULL), "average_incremental_accuracy", "acc_avg_incremental"),
        (capymoa(FULL), "backward_transfer", "bwt_tri"),
        (capymoa(FULL), "anytime_accuracy_seen_avg", "anytime_seen"),
        (capymoa(FULL), "anytime_accuracy_all_avg", "anytime_all"),
        (capymoa(FULL), "accuracy_final", "acc_final"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_other_libraries_print_has_a_name_here(printed, theirs, ours):
    assert metrics.summary(FULL, B)[ours] == pytest.approx(printed[theirs], abs=1e-12)


def test_the_same_word_is_not_the_same_number():
    """For one matrix three values of "forgetting" and two of "backward transfer"."""
    forgetting = {mammoth(FULL, B)["forgetting"], continuum(FULL)["forgetting"], -mammoth(FULL, B)["backward_transfer"]}
    assert sorted(round(v, 3) for v in forgetting) == [0.133, 0.15, 0.16]
    transfer = {mammoth(FULL, B)["backward_transfer"], continuum(FULL)["backward_transfer"]}
    assert sorted(round(v, 3) for v in transfer) == [-0.138, -0.133]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # raised while avalanche and what it imports are imported
def test_avalanche_itself_prints_first_minus_last():
    """Its own classes, fed the matrix as an evaluation after each experience feeds them."""
    found = pytest.importorskip("avalanche.evaluation.metrics", exc_type=ImportError)
    for name, ours in (("Forgetting", "forgetting_first_last"), ("BWT", "bwt_gem")):
        metric = getattr(found, name)()
        for i, row in enumerate(DISAGREE):
            for j in range(i + 1):
                metric.update(j, row[j], initial=i == j)
        printed = metric.result()
        assert np.mean([printed[j] for j in range(3)]) == pytest.approx(metrics.summary(DISAGREE)[ours], abs=1e-12)
