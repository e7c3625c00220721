"""What may go live: each check passes and fails for its own reason, and only proven spaces are read."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from lifelong.errors import ArtifactError, ConfigError, DataError, UnknownName
from lifelong.labels import LabelMap
from lifelong.models import build
from lifelong.release import gate as gates
from lifelong.release.compat import MEASURES, mean_average_precision
from lifelong.release.gate import Check, Gate, Report
from lifelong.release.snapshot import Snapshot
from lifelong.release.spaces import probe_id
from lifelong.release.spaces import proof as proven
from lifelong.types import Batch

NAMES = ["finite", "probe", "labels", "input", "accuracy", "forgetting", "compatibility"]


def blobs(classes=3, each=20, width=6, noise=0.3, seed=0):
    """Points around the corners of a simplex, class by class; axes that no class has are loud and say nothing."""
    random = torch.Generator().manual_seed(seed)
    y = torch.arange(classes).repeat_interleave(each)
    spread = torch.randn(len(y), width, generator=random)
    spread[:, classes:] *= 6
    return Batch.of(torch.eye(width)[y] + noise * spread, y)


def version(matrix, labels=3, *, version=None, head=None, training=None):
    """A snapshot whose features are `x @ matrix.T`, and whose logits are its first features."""
    matrix = torch.as_tensor(matrix, dtype=torch.float32)
    wide, narrow = matrix.shape
    spec = {
        "backbone": {"name": "mlp", "inputs": [narrow], "hidden": [], "features": wide},
        "head": head or {"name": "linear", "classes": labels},
    }
    model = build(spec)
    with torch.no_grad():
        model.backbone.layers[0].weight.copy_(matrix)
        model.backbone.layers[0].bias.zero_()
        if head is None:
            model.head.weight.copy_(torch.eye(wide)[:labels])
            model.head.bias.zero_()
    made = Snapshot.of(model, LabelMap(range(labels)), probe_x=torch.ones(2, narrow), training=training)
    return replace(made, version=version)


def named(report):
    return {check.name: check for check in report.checks}


def deaf(share):
    """An embedding that hears only the rest of the loud axes: the greater `share`, the better it retrieves."""
    return torch.diag(torch.tensor([1.0] * 3 + [1.0 - share] * 3))


EYE = deaf(0)
BETTER, BEST = deaf(0.5), deaf(0.9)
SWAPPED = EYE[[1, 2, 0, 3, 4, 5]]


def test_a_first_version_has_nothing_to_be_compared_with():
    candidate, report = Gate(blobs()).judge(version(EYE), None)
    assert [check.name for check in report.checks] == NAMES
    assert report.passed
    assert report.reasons == []
    checks = named(report)
    assert checks["compatibility"].detail == "no older space to read"
    assert checks["accuracy"].value > 0.8  # its own, to be seen
    assert candidate.space.reads == {candidate.space.id}
    assert candidate.proofs == ()


@pytest.mark.parametrize("measure", MEASURES)
def test_a_better_embedding_goes_live_and_reads_what_it_was_proven_to_read(measure):
    """The numbers in the proof are those of the measure on features made by hand."""
    held, old, new = blobs(), version(EYE, version=1), version(BETTER)
    candidate, report = Gate(held, measure=measure).judge(new, old)
    assert report.passed, report.reasons
    assert candidate.space.reads == {new.space.id, old.space.id}
    (proof,) = candidate.proofs
    written = torch.arange(60) % 2 == 0  # 20 rows of each class in a row: even rows are every other row of a class
    before, after = held.x @ EYE, held.x @ BETTER
    y = held.y
    want = [MEASURES[measure](q[~written], y[~written], before[written], y[written]) for q in (after, before)]
    assert want[0] > want[1]
    assert proof == {
        "space": old.space.id,
        "cross": pytest.approx(want[0]),
        "self": pytest.approx(want[1]),
        "measure": measure,
        "n": 30,
        "dim": 6,
        "probe": probe_id(held, torch.ones(60, dtype=torch.bool), written),
    }
    check = named(report)["compatibility"]
    assert (check.value, check.limit) == (proof["cross"], proof["self"])
    assert named(report)["accuracy"].passed


def test_an_embedding_that_cannot_read_the_old_one_is_refused():
    """Swapped axes keep every distance (and, with a swapped head, the accuracy), yet cross-retrieval is lost."""
    old, new = version(EYE, version=1), version(SWAPPED)
    new = with_head(new, SWAPPED.T[:3])
    candidate, report = Gate(blobs()).judge(new, old)
    assert not report.passed
    assert [check.name for check in report.checks if not check.passed] == ["compatibility"]
    assert "must be higher" in report.reasons[0]
    assert candidate.space.reads == {candidate.space.id}
    assert candidate.proofs == ()


def with_head(snapshot, weight):
    model = snapshot.build()
    with torch.no_grad():
        model.head.weight.copy_(weight)
    return Snapshot.of(model, LabelMap(snapshot.labels), probe_x=snapshot.probe.x)


def test_a_major_release_stops_reading_and_says_so():
    old, new = version(EYE, version=1), with_head(version(SWAPPED), SWAPPED.T[:3])
    candidate, report = Gate(blobs(), compatible=False).judge(new, old)
    assert report.passed
    assert "NOT READ ANY MORE" in named(report)["compatibility"].detail
    assert candidate.space.reads == {candidate.space.id}


def test_a_major_release_still_reads_what_it_can():
    old, new = version(EYE, version=1), version(BETTER)
    candidate, _ = Gate(blobs(), compatible=False).judge(new, old)
    assert old.space.id in candidate.space.reads


def test_a_patch_changes_neither_space_nor_labels():
    """The same embedding under a head that learned more."""
    old = version(EYE, version=1)
    candidate, report = Gate(blobs()).judge(with_head(old, 2 * EYE[:3]), old)
    assert (report.passed, report.level, candidate.level) == (True, "patch", "patch")
    assert candidate.space == old.space


def test_a_minor_release_reads_every_space_that_was_read():
    """A better embedding, also where an older space is read through the live version; and a class more."""
    one, two = version(EYE, version=1), version(BETTER, version=2)
    candidate, report = Gate(blobs()).judge(version(BEST), reading(two, one), [one])
    assert (report.passed, report.level, candidate.level) == (True, "minor", "minor")
    assert Gate(blobs(4)).judge(version(EYE, 4), version(EYE, 3, version=1))[1].level == "minor"
    assert Gate(blobs()).judge(version(EYE), None)[1].level == "minor"  # the first takes nothing away


def test_a_major_release_reads_less_and_is_passed_by_choice_only():
    old, new = version(EYE, version=1), with_head(version(SWAPPED), SWAPPED.T[:3])
    for choice, passed in ((True, False), (False, True)):
        candidate, report = Gate(blobs(), compatible=choice).judge(new, old)
        assert (report.passed, report.level, candidate.level) == (passed, "major", "major")
        assert old.space.id not in candidate.space.reads


def test_giving_up_one_old_space_of_several_is_major():
    gone, live = version(SWAPPED, version=1), version(EYE, version=2)
    candidate, report = Gate(blobs(), compatible=False).judge(version(BETTER), reading(live, gone), [gone])
    assert (report.level, candidate.space.reads) == ("major", {candidate.space.id, live.space.id})


def test_rows_of_either_version_can_be_read_by_both_where_both_directions_are_proven():
    """Stationary axes: the old version's queries find more in the better version's rows than in its own."""
    held, old, new = blobs(), version(EYE, version=1), version(BETTER)
    (there,), (back,) = (lambda c: (c.proofs, c.read_by))(Gate(held).judge(new, old)[0])
    written, y = torch.arange(60) % 2 == 0, held.y
    before, after = held.x @ EYE, held.x @ BETTER
    want = mean_average_precision(before[~written], y[~written], after[written], y[written])
    assert (there["space"], back["space"]) == (old.space.id, old.space.id)
    assert back == {**there, "cross": pytest.approx(want)}
    assert want > there["self"]


def test_a_wider_version_is_not_read_by_a_narrower_one():
    held = blobs()
    old, new = version(EYE, version=1), version(torch.cat([BETTER, torch.eye(6)[:1]]))
    candidate, report = Gate(held).judge(new, old)
    assert report.passed, report.reasons
    assert candidate.read_by == ()
    assert candidate.proofs[0]["dim"] == 6


def test_health_is_that_of_the_held_out_features():
    """Against NumPy, on the features as one matrix."""
    held, old, new = blobs(), version(EYE, version=1), version(BETTER)
    candidate, report = Gate(held).judge(new, old)
    z, before = (held.x @ BETTER).double().numpy(), held.x.double().numpy()
    values = np.linalg.svd(z, compute_uv=False)
    shares = values / values.sum()
    lengths = np.linalg.norm(z, axis=1)
    cosines = (z * before).sum(1) / lengths / np.linalg.norm(before, axis=1)
    assert report.health["effective_rank"] == pytest.approx(np.exp(-(shares * np.log(shares)).sum()))
    assert report.health["norm_mean"] == pytest.approx(lengths.mean())
    assert report.health["norm_sd"] == pytest.approx(lengths.std())
    assert report.health["cosine_shift"] == pytest.approx(1 - cosines.mean())
    assert candidate.metrics == {f"embedding_{name}": value for name, value in report.health.items()}
    assert "cka" not in Gate(held).judge(old, None)[1].health  # nothing to be compared with


def test_a_tie_is_refused():
    """A rotation by scale alone retrieves exactly as well; strictly better is asked for."""
    candidate, report = Gate(blobs()).judge(version(2 * EYE), version(EYE, version=1))
    check = named(report)["compatibility"]
    assert check.value == check.limit
    assert not report.passed
    assert candidate.proofs == ()


def test_an_unchanged_embedding_reads_its_own_space_without_proof():
    """A frozen encoder with a head that learned a class, or a trainer that repeats its last step."""
    old, new = version(EYE, 3, version=1), version(EYE, 4)
    candidate, report = Gate(blobs(4)).judge(new, old)
    assert report.passed, report.reasons
    assert "same space" in named(report)["compatibility"].detail
    assert candidate.space == old.space


def test_a_weight_that_is_not_finite_is_refused_and_all_checks_are_still_named():
    good = version(BETTER)
    name = next(iter(good.weights))
    bad = replace(good, weights=good.weights | {name: good.weights[name] * float("nan")})
    _, report = Gate(blobs()).judge(bad, version(EYE, version=1))
    assert [check.name for check in report.checks] == NAMES
    checks = named(report)
    assert not checks["finite"].passed
    assert checks["labels"].passed  # still computed
    assert checks["input"].passed
    for name in ("probe", "accuracy", "forgetting", "compatibility"):
        assert checks[name].detail == "skipped: finite failed"
    assert len(report.reasons) == 1
    assert "not finite" in report.reasons[0]


def test_a_major_release_does_not_excuse_a_broken_candidate():
    good = version(BETTER)
    bad = replace(good, weights={name: tensor + 1 for name, tensor in good.weights.items()})
    _, report = Gate(blobs(), compatible=False).judge(bad, version(EYE, version=1))
    assert [check.name for check in report.checks if not check.passed] == [
        "probe",
        "accuracy",
        "forgetting",
        "compatibility",
    ]
    assert len(report.reasons) == 1
    assert "not the recorded ones" in report.reasons[0]


@pytest.mark.parametrize(
    ("labels", "reason"), [((0, 2, 1), "class 1 is 1 in version 1 and 2"), ((0, 1), "class 2 is 2 in version 1 and no")]
)
def test_labels_may_only_be_appended(labels, reason):
    old, new = version(EYE, version=1), replace(version(BETTER), labels=labels)
    _, report = Gate(blobs()).judge(new, old)
    checks = named(report)
    assert reason in checks["labels"].detail
    assert "begin with the data that version 1 learned, or give it a registry of its own" in checks["labels"].detail
    assert (
        checks["accuracy"].detail
        == checks["forgetting"].detail
        == checks["compatibility"].detail
        == "skipped: labels failed"
    )
    assert report.reasons == [checks["labels"].detail]


def test_clients_need_not_change_what_they_send():
    _, report = Gate(blobs()).judge(version(EYE), version(torch.eye(7), version=1))
    assert [check.name for check in report.checks] == NAMES
    assert "clients would have to change" in report.reasons[0]
    assert len(report.reasons) == 1


def test_accuracy_may_drop_by_the_limit_and_no_more():
    """50 rows per class; the candidate gets exactly 3 of 100 rows wrong that the live version gets right."""
    y = torch.tensor([0, 1]).repeat_interleave(50)
    x = torch.eye(2)[y]
    x[:3, 1] = 1.5 * x[:3, 0]  # argmax says 1, unless axis 0 counts double
    doubled = torch.diag(torch.tensor([2.0, 1.0]))
    held, old, new = Batch.of(x, y), version(doubled, 2, version=1), version(torch.eye(2), 2)
    for limit, good in ((0.02, False), (0.029, False), (0.03, True), (0.04, True)):
        check = named(Gate(held, max_accuracy_drop=limit).judge(new, old)[1])["accuracy"]
        assert check.passed == good
        assert check.value == pytest.approx(0.97)
        assert check.limit == pytest.approx(1 - limit)


def test_accuracy_counts_all_classes_of_the_candidate_and_the_live_version_is_wrong_on_new_ones():
    """Four classes of equally many rows: the live version knows three, so it cannot be above 0.75."""
    held = blobs(4, noise=0.0)
    check = named(Gate(held).judge(version(EYE, 4), version(EYE, 3, version=1))[1])["accuracy"]
    assert (check.value, check.passed) == (1.0, True)
    assert check.limit == pytest.approx(0.75 - 0.02)
    broken = EYE.clone()
    broken[3] = 0
    check = named(Gate(held).judge(version(broken, 4), version(EYE, 4, version=1))[1])["accuracy"]
    assert (check.value, check.passed) == (0.75, False)


def test_forgetting_is_measured_on_the_classes_that_the_live_version_knows_among_themselves():
    """Class 3 is new: that rows are taken for it costs accuracy, but is no forgetting of classes 0 to 2."""
    held = blobs(4, noise=0.0)
    greedy = EYE.clone()
    greedy[3, :3] = 2  # rows of classes 0 to 2 look even more like class 3
    checks = named(Gate(held).judge(version(greedy, 4), version(EYE, 3, version=1))[1])
    assert checks["accuracy"].value == 0.25
    assert (checks["forgetting"].value, checks["forgetting"].passed) == (1.0, True)
    broken = EYE.clone()
    broken[2] = 0
    check = named(Gate(held).judge(version(broken, 4), version(EYE, 3, version=1))[1])["forgetting"]
    assert check.value == pytest.approx(2 / 3)
    assert not check.passed
    relaxed = Gate(held, max_forgetting=0.34)
    assert named(relaxed.judge(version(broken, 4), version(EYE, 3, version=1))[1])["forgetting"].passed


def test_rows_without_a_label_count_nowhere():
    held = blobs()
    odd = Batch.cat([held, Batch.of(torch.full((7, 6), 9.0), torch.full((7,), -1))])
    pair = version(BETTER), version(EYE, version=1)
    assert Gate(odd).judge(*pair)[1] == Gate(held).judge(*pair)[1]


def test_what_cannot_be_measured_is_not_passed():
    """Held-out rows hold no class that the live version knows."""
    held = blobs(4)
    new_only = held[held.y == 3]
    _, report = Gate(new_only).judge(version(BETTER, 4), version(EYE, 3, version=1))
    checks = named(report)
    assert not checks["forgetting"].passed
    assert not checks["compatibility"].passed
    assert "no held-out" in report.reasons[0]


def test_held_out_rows_of_a_wrong_shape_are_told():
    _, report = Gate(blobs(width=7)).judge(version(EYE), None)
    assert "held-out rows are" in report.reasons[0]


def test_another_family_is_not_even_measured():
    """Simplices of different K have no vertex in common."""
    old = version(torch.eye(3), version=1, head={"name": "simplex", "classes": 4})
    new = version(torch.cat([torch.eye(3), torch.zeros(1, 3)]), head={"name": "simplex", "classes": 5})
    _, report = Gate(blobs(width=3)).judge(new, old)
    assert f"its family is {old.space.family}" in named(report)["compatibility"].detail


def reading(snapshot, *others):
    """`snapshot`, proven to read `others`."""
    return snapshot.with_proofs([proven(o.space, 1.0, 0.5, "recall_at_1", 1, "") for o in others])


def test_each_space_that_is_read_today_is_proven_anew():
    one, two = version(EYE, version=1), version(BETTER, version=2)
    live, new = reading(two, one), version(BEST)
    candidate, report = Gate(blobs()).judge(new, live, [one])
    assert [check.name for check in report.checks] == [*NAMES, "compatibility"]
    assert report.passed, report.reasons
    assert candidate.space.reads == {new.space.id, two.space.id, one.space.id}
    assert [proof["space"] for proof in candidate.proofs] == [two.space.id, one.space.id]


def test_a_space_whose_version_is_not_given_is_not_silently_dropped():
    one, two = version(EYE, version=1), version(BETTER, version=2)
    _, report = Gate(blobs()).judge(version(BEST), reading(two, one))
    assert "no snapshot of it was given" in report.reasons[0]
    candidate, report = Gate(blobs(), compatible=False).judge(version(BEST), reading(two, one))
    assert report.passed
    assert candidate.space.reads == {candidate.space.id, two.space.id}


def test_a_space_that_is_not_read_today_is_ignored():
    gone, two = version(SWAPPED, version=1), version(EYE, version=2)
    candidate, report = Gate(blobs()).judge(version(BETTER), two, [gone])
    assert report.passed
    assert gone.space.id not in candidate.space.reads


def test_each_snapshot_embeds_the_held_out_rows_once(monkeypatch):
    """T extractions, not T^2; the version that is live is not embedded again as an old one."""
    calls = []

    def counted(model, x):
        calls.append(len(x))
        return outputs(model, x)

    outputs = gates.outputs
    monkeypatch.setattr(gates, "outputs", counted)
    old = [version(deaf(i / 10), version=i + 1) for i in range(5)]
    live = reading(old[4], *old[:4])
    Gate(blobs()).judge(version(BEST), live, old)
    assert calls == [60] * 6


def test_an_own_gallery_makes_all_held_out_rows_queries():
    old, new = version(EYE, version=1), version(BETTER)
    candidate, _ = Gate(blobs(seed=1), gallery=blobs(seed=2)).judge(new, old)
    assert candidate.proofs[0]["n"] == 60
    q, g = blobs(seed=1), blobs(seed=2)
    want = mean_average_precision(q.x @ BETTER, q.y, g.x @ EYE, g.y)
    assert candidate.proofs[0]["cross"] == pytest.approx(want)


def test_the_default_halves_hold_every_class_in_whatever_order_rows_come():
    """Classes that alternate row by row would be torn apart by even and odd rows of the whole."""
    held = blobs()
    order = torch.arange(60).view(3, 20).T.flatten()
    candidate, _ = Gate(held[order]).judge(version(BETTER), version(EYE, version=1))
    other, _ = Gate(held).judge(version(BETTER), version(EYE, version=1))
    assert [{**p, "probe": ""} for p in candidate.proofs] == [{**p, "probe": ""} for p in other.proofs]


def test_judging_changes_nothing():
    candidate, live = version(BETTER), version(EYE, version=1)
    before = {name: tensor.clone() for name, tensor in candidate.weights.items()}
    random = torch.random.get_rng_state()
    Gate(blobs()).judge(candidate, live)
    assert candidate.space.reads == {candidate.space.id}
    assert all(torch.equal(candidate.weights[name], before[name]) for name in before)
    assert torch.equal(torch.random.get_rng_state(), random)


def test_recall_at_its_ceiling_proves_nothing_where_the_mean_average_precision_still_does():
    """With easy classes every query finds a neighbour of its class: 1.0 cannot be beaten, the ranking can."""
    held, old, new = blobs(noise=0.1), version(EYE, version=1), version(BETTER)
    recall = named(Gate(held, measure="recall_at_1").judge(new, old)[1])["compatibility"]
    assert (recall.passed, recall.value, recall.limit) == (False, 1.0, 1.0)
    assert named(Gate(held).judge(new, old)[1])["compatibility"].passed


def test_a_gate_without_rows_or_with_an_odd_limit_is_refused():
    with pytest.raises(UnknownName, match="did you mean 'recall_at_1'"):
        Gate(blobs(), measure="recall")
    with pytest.raises(DataError, match="held-out"):
        Gate(blobs()[:0])
    with pytest.raises(DataError, match="held-out"):
        Gate(blobs(), gallery=blobs()[:0])
    with pytest.raises(ConfigError, match="share"):
        Gate(blobs(), max_accuracy_drop=2)


def test_a_report_survives_json():
    _, report = Gate(blobs()).judge(version(SWAPPED), version(EYE, version=1))
    assert Report.from_dict(json.loads(json.dumps(report.as_dict()))) == report


def test_a_report_without_checks_has_not_passed():
    assert not Report(()).passed


def test_numbers_that_json_does_not_know_are_left_out():
    assert Check("accuracy", False, "", float("nan"), float("inf")).value is None


GOOD = {"name": "finite", "passed": True, "detail": "", "value": None, "limit": None}


@pytest.mark.parametrize(
    "value",
    [
        {},
        [],
        None,
        {"passed": True, "checks": None},
        {"passed": True, "checks": [{}]},
        {"passed": False, "checks": [GOOD]},
        {"passed": True, "checks": [GOOD | {"passed": "yes"}]},
        {"passed": True, "checks": [GOOD | {"value": "0.5"}]},
        {"passed": True, "checks": [GOOD | {"odd": 1}]},
    ],
)
def test_only_reports_are_read_as_reports(value):
    assert Report.from_dict({"passed": True, "checks": [GOOD]}).passed
    with pytest.raises(ArtifactError, match="not a gate's report"):
        Report.from_dict(value)
