"""The laws of the streams: nothing is lost, nothing is seen twice, and a seed decides everything."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lifelong.data import DataSet
from lifelong.datatable import KNOWN
from lifelong.errors import ConfigError, DataError, NotFound, UnknownName
from lifelong.labels import LabelMap
from lifelong.streams import transforms
from lifelong.streams.scenario import PROVIDES, TESTS
from lifelong.streams.scenarios import (
    SCENARIOS,
    Scenario,
    class_incremental,
    data_incremental,
    domains,
    from_data,
    online,
    overlapping,
    permuted,
    rotated,
    scenario,
    task_incremental,
    validation,
)
from lifelong.types import Batch, Experience

NAMES = ("ant", "bee", "cat", "dog", "elk", "fox", "gnu")


def images(train=60, test=20, classes=5, seed=0, shape=(1, 4, 4)):
    """Return a small data set of random images in which every class occurs."""
    random = torch.Generator().manual_seed(seed)

    def part(count, first):
        y = torch.cat([torch.arange(classes), torch.randint(classes, (count - classes,), generator=random)])
        y = y[torch.randperm(count, generator=random)]
        return Batch.of(torch.rand(count, *shape, generator=random), y, ids=torch.arange(first, first + count))

    return DataSet("toy", part(train, 0), part(test, train), NAMES[:classes], "made for a test", "0" * 64)


class MapStyle:
    """The least a map-style data set can be: no `.targets`, no base class."""

    def __init__(self, items):
        self.items, self.reads = items, 0

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        self.reads += 1
        return self.items[index]


def map_style(data):
    """Return `data` as map-style `(x, string label)` items."""
    return MapStyle([(x, data.classes[y]) for x, y in zip(data.x, data.y.tolist(), strict=True)])


data_sets = st.builds(
    images, train=st.integers(10, 80), test=st.integers(7, 30), classes=st.integers(1, 7), seed=st.integers(0, 99)
)
seeds = st.integers(0, 2**31)

MAKERS = {
    "class-il": class_incremental,
    "task-il": task_incremental,
    "data-il": data_incremental,
    "domain-il permuted": permuted,
    "domain-il rotated": rotated,
    "online": online,
}


def ids(stream, part="train"):
    return torch.cat([getattr(e, part).ids for e in stream]).tolist()


def assert_same_stream(first, second):
    for a, b in zip(first, second, strict=True):
        assert (a.name, a.classes, a.task) == (b.name, b.classes, b.task)
        assert all(torch.equal(a.train.state()[key], b.train.state()[key]) for key in a.train.state())


@given(data=data_sets, seed=seeds, draw=st.data())
def test_classes_are_split_without_loss_or_overlap(data, seed, draw):
    """Each training and each test sample lands in exactly one experience, the one that brings its class."""
    experiences = draw.draw(st.integers(1, len(data.classes)))
    stream = class_incremental(data, experiences, order="seed", seed=seed)

    assert sorted(ids(stream)) == data.train.ids.tolist()
    assert sorted(ids(stream, "test")) == data.test.ids.tolist()
    assert [label for e in stream for label in e.classes] == list(stream.classes)
    assert sorted(stream.classes) == sorted(data.classes)
    sizes = [len(e.classes) for e in stream]
    assert max(sizes) - min(sizes) <= 1
    for e in stream:
        for part in (e.train, e.test):
            assert {data.classes[y] for y in part.y.tolist()} <= set(e.classes)
        assert {data.classes[y] for y in e.train.y.tolist()} == set(e.classes)
        assert torch.equal(e.train.x, data.train.x[e.train.ids])


def test_class_order_and_sizes_are_what_was_asked_for():
    order = ["elk", "ant", "dog", "cat", "bee"]
    stream = class_incremental(images(), [3, 1, 1], order=order)

    assert [list(e.classes) for e in stream] == [["elk", "ant", "dog"], ["cat"], ["bee"]]
    assert [list(e.classes) for e in class_incremental(images(), 2)] == [["ant", "bee", "cat"], ["dog", "elk"]]
    assert stream.signature["options"] == {"order": order, "split": [3, 1, 1]}


def test_tasks_count_up_and_reach_every_batch():
    """Only the task-incremental scenario tells task ids; ids that the data brings are dropped."""
    data = images()
    tagged = replace(data, train=replace(data.train, task=torch.full((60,), 9)))
    for make, expected in [(task_incremental, [0, 1, 2, 3, 4]), (class_incremental, [-1] * 5)]:
        stream = make(tagged, 5)
        labels = LabelMap(stream.classes)
        seen = [{int(t) for b in e.batches(7, None, labels) for t in b.task} for e in stream]
        assert seen == [{task} for task in expected]


def test_batches_carry_indices_of_the_labels():
    """An experience encodes its integers through the names of the data."""
    data = images()
    stream = class_incremental(data, 5, order=list(reversed(data.classes)))
    labels = LabelMap(stream.classes)
    for index, experience in enumerate(stream):
        for test in (False, True):
            assert {int(y) for b in experience.batches(4, None, labels, test=test) for y in b.y} == {index}


@given(data=data_sets, seed=seeds, draw=st.data())
def test_iid_parts_hold_every_sample_once(data, seed, draw):
    """The parts are a partition, of equal size up to one, each tested on everything."""
    stream = data_incremental(data, draw.draw(st.integers(1, 10)), seed=seed)

    assert sorted(ids(stream)) == data.train.ids.tolist()
    sizes = [len(e.train) for e in stream]
    assert max(sizes) - min(sizes) <= 1
    assert all(torch.equal(e.test.x, data.test.x) for e in stream)
    assert all({data.classes[y] for y in e.train.y.tolist()} == set(e.classes) for e in stream)


@given(data=data_sets, size=st.integers(1, 30), seed=seeds, order=st.sampled_from(["shuffled", "file", "classes"]))
def test_online_shows_each_sample_once_in_the_stated_order(data, size, seed, order):
    """All pieces but the last have the size; file order is kept, class order does not go back."""
    stream = online(data, size, order=order, seed=seed)

    assert sorted(ids(stream)) == data.train.ids.tolist()
    assert [len(e.train) for e in stream][:-1] == [size] * (len(stream) - 1)
    assert len(stream) == -(-len(data.train) // size)
    if order == "file":
        assert ids(stream) == data.train.ids.tolist()
    if order == "classes":
        y = torch.cat([e.train.y for e in stream]).tolist()
        assert y == sorted(y)
    assert stream.provides.isdisjoint({"boundaries", "task_id", "epochs"})
    assert all(e.task == -1 for e in stream)


def test_online_in_file_order_copies_nothing():
    data = images()
    first = online(data, 10, order="file")[2].train

    assert first.x.data_ptr() == data.train.x[20:].data_ptr()
    assert online(data, 10, test=False)[0].test is None
    assert online((data.train, None), 10)[0].test is None


@given(data=data_sets, seed=seeds, count=st.integers(1, 4))
def test_permuting_keeps_the_values_of_each_image_and_starts_with_none(data, seed, count):
    """Same values per image, same labels; experience 0 is the data itself; train and test share one order."""
    stream = permuted(data, count, seed=seed)

    assert torch.equal(stream[0].train.x, data.train.x)
    for e in stream:
        for new, old in [(e.train, data.train), (e.test, data.test)]:
            assert new.x.shape == old.x.shape
            assert torch.equal(new.x.flatten(1).sort(1).values, old.x.flatten(1).sort(1).values)
            assert torch.equal(new.y, old.y)
        values = data.train.x[0].flatten().tolist()
        order = [values.index(v) for v in e.train.x[0].flatten().tolist()]
        assert torch.equal(e.test.x.flatten(1), data.test.x.flatten(1)[:, order])


@pytest.mark.parametrize("make", [permuted, rotated])
def test_a_changed_sample_is_another_sample(make):
    """No id occurs twice in a stream whose inputs change, or rehearsal would take copies for one sample."""
    stream = make(images(), 4)
    everything = ids(stream) + ids(stream, "test")
    assert len(set(everything)) == len(everything) == 4 * 80
    assert torch.equal(stream[0].train.ids, images().train.ids)


@pytest.mark.parametrize("make", [permuted, rotated])
def test_what_is_held_out_is_cut_once_and_no_more_than_ten_parts_are_kept(make):
    """All are asked for after each experience; a long stream must not pile up in memory."""
    short, long = make(images(), 3), make(images(), TESTS + 1)
    for stream in (short, validation(short)):
        assert all(a is b for a, b in zip([e.test for e in stream], [e.test for e in stream], strict=True))
    for stream in (long, validation(long)):
        assert all(a is not b for a, b in zip([e.test for e in stream], [e.test for e in stream], strict=True))


@pytest.mark.parametrize("make", [permuted, rotated])
def test_domains_tell_their_number_if_asked_to_and_are_else_the_same_stream(make):
    """Still domain-incremental; the signature says so, and only then; validation keeps it."""
    plain, told = make(images(), 3, seed=4), make(images(), 3, seed=4, task_ids=True)
    labels = LabelMap(told.classes)

    assert told.kind == plain.kind == "domain-il"
    assert told.provides - plain.provides == {"task_id"}
    assert told.signature["options"] == {**plain.signature["options"], "task_ids": True}
    assert validation(told).provides == told.provides
    for a, b in zip(told, plain, strict=True):
        assert (a.name, a.classes, b.task) == (b.name, b.classes, -1)
        assert torch.equal(a.train.x, b.train.x)
        for test in (False, True):
            assert {int(t) for batch in a.batches(9, None, labels, test=test) for t in batch.task} == {a.index}
    assert [e.task for e in validation(told)] == [0, 1, 2]


GROUPS = [[0, 1, 2], [2, 3], [0, 2]]


@given(per_class=st.one_of(st.none(), st.integers(1, 4)), seed=seeds, train=st.integers(50, 90))
def test_overlapping_tasks_share_classes_but_no_image(per_class, seed, train):
    """Each label is a column of its own, of the right class; no training image occurs twice."""
    data = images(train=train, classes=4, seed=1)
    counts = data.train.y.bincount(minlength=4).tolist()
    if per_class and any(n < 3 * per_class for n in counts):
        return
    stream = overlapping(data, GROUPS, per_class=per_class, seed=seed)
    labels, seen = LabelMap(stream.classes), ids(stream)

    assert (stream.kind, len(set(stream.classes))) == ("task-il", 7)
    assert [e.classes for e in stream][1] == ("t1:cat", "t1:dog")
    assert len(set(seen)) == len(seen)
    assert len(set(ids(stream, "test"))) == len(ids(stream, "test"))
    assert set(ids(stream, "test")).isdisjoint(seen)
    for e, group in zip(stream, GROUPS, strict=True):
        assert torch.equal(e.train.x, data.train.x[e.train.ids])
        assert e.train.y.unique().tolist() == sorted(group)
        for c in group:
            places = sum(c in g for g in GROUPS)
            assert int((e.train.y == c).sum()) == (per_class or counts[c] // places)
        assert len(e.test) == int(torch.isin(data.test.y, torch.tensor(group)).sum())
        (batch,) = e.batches(1000, None, labels)
        assert labels.decode(batch.y) == [f"t{e.index}:{data.classes[y]}" for y in e.train.y.tolist()]
        assert batch.task.unique().tolist() == [e.index]
    assert_same_stream(stream, overlapping(data, GROUPS, per_class=per_class, seed=seed))


@given(x=st.integers(0, 99), quarters=st.integers(-5, 5))
def test_quarter_turns_are_exact(x, quarters):
    """A turn by 90 degrees is `rot90`; by 0, nothing."""
    image = torch.rand(3, 2, 5, 5, generator=torch.Generator().manual_seed(x))
    assert torch.equal(transforms.rotated(image, 90.0 * quarters), torch.rot90(image, quarters, (-2, -1)))
    assert torch.equal(transforms.rotated(image, 0), image)


@pytest.mark.parametrize("quarters", [0, 1, 2, 3])
@pytest.mark.parametrize("side", [5, 8])
@pytest.mark.slow
def test_interpolated_turns_meet_the_exact_ones(quarters, side):
    """The bilinear path, a hair off a quarter turn, is `rot90`: same direction, same centre."""
    image = torch.rand(2, 3, side, side, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = torch.rot90(image, quarters, (-2, -1))
    torch.testing.assert_close(transforms.rotated(image, 90 * quarters + 1e-7), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("shape", [(23, 23), (22, 31)])
@pytest.mark.parametrize("angle", [17.0, 45.0, 90.0, 121.5])
def test_turns_agree_with_scipy(shape, angle):
    """Away from the border, where the two libraries fill differently."""
    ndimage = pytest.importorskip("scipy.ndimage")
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    smooth = np.exp(-((rows - shape[0] / 2 + 3) ** 2 + (columns - shape[1] / 2) ** 2) / 4)  # off centre, dark border
    expected = ndimage.rotate(smooth, angle, reshape=False, order=1)

    found = transforms.rotated(torch.from_numpy(smooth)[None], angle)[0].numpy()

    np.testing.assert_allclose(found, expected, atol=5e-3)
    assert np.abs(expected - smooth).max() > 0.1


def test_angles_are_given_or_drawn_one_from_each_part_of_180_degrees():
    drawn = rotated(images(), 6, seed=3).signature["options"]["angles"]

    assert drawn[0] == 0
    assert all(30 * i <= angle < 30 * (i + 1) for i, angle in enumerate(drawn))
    turned = rotated(images(), angles=[90, 0])
    assert torch.equal(turned[0].train.x, torch.rot90(images().train.x, 1, (-2, -1)))
    assert torch.equal(turned[1].test.x, images().test.x)


def test_data_sets_become_domains_in_order():
    """Labels keep their names although the sets number them differently."""
    first, second = images(classes=3), replace(images(classes=3, seed=1), name="other", classes=("cat", "yak", "ant"))
    stream = domains([first, second])

    assert stream.classes == ("ant", "bee", "cat", "yak")
    assert stream.signature["counts"] == {"experiences": 2, "classes": 4, "train": 120, "test": 40}
    labels = LabelMap(stream.classes)
    (batch,) = stream[1].batches(100, None, labels)
    assert labels.decode(batch.y) == [second.classes[y] for y in second.train.y.tolist()]
    assert len(set(ids(stream) + ids(stream, "test"))) == 160
    with pytest.raises(DataError, match="must share the shape"):
        domains([first, images(shape=(1, 5, 5))])


@given(seed=st.integers(0, 999))
def test_a_column_splits_a_table_into_domains(seed):
    """Each row is in the domain of its value, and one-hot columns say the same as one column of numbers."""
    random = torch.Generator().manual_seed(seed)
    area = torch.cat([torch.arange(3), torch.randint(3, (20,), generator=random)])
    table = torch.cat([torch.rand(23, 2, generator=random), torch.eye(3)[area], area[:, None].float()], 1)
    data = (Batch.of(table, torch.randint(2, (23,), generator=random)), None)

    by_value, by_code = domains(data, column=5), domains(data, column=[2, 3, 4])

    assert_same_stream(by_value, by_code)
    assert [e.train.ids.tolist() for e in by_value] == [(area == a).nonzero().flatten().tolist() for a in range(3)]


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
@settings(max_examples=15)
@given(data=data_sets, seed=st.integers(0, 2**31))
def test_a_seed_decides_the_stream_and_global_randomness_is_untouched(make, data, seed):
    """Made twice, iterated twice: bit for bit the same; and torch's and numpy's own generators do not move."""
    options = {"experiences": 1} if make in (class_incremental, task_incremental) else {}
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()
    stream = make(data, seed=seed, **options)

    assert_same_stream(stream, make(data, seed=seed, **options))
    assert_same_stream(stream, stream)
    assert torch.equal(torch.get_rng_state(), before)
    assert (np.random.get_state()[1] == numpy_before).all()
    json.dumps(stream.signature)
    assert stream.signature["seed"] == seed
    assert stream.provides == PROVIDES[stream.kind]
    assert len(stream) == len(list(stream)) == stream.signature["counts"]["experiences"]


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (class_incremental, {"order": "seed"}),
        (task_incremental, {"order": "seed"}),
        (data_incremental, {}),
        (permuted, {}),
        (rotated, {}),
        (online, {}),
    ],
)
def test_another_seed_is_another_stream(make, options):
    first, second = make(images(), seed=0, **options), make(images(), seed=1, **options)
    assert any(not torch.equal(a.train.x[:5], b.train.x[:5]) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
@settings(max_examples=15)
@given(data=data_sets, share=st.floats(0.01, 0.99), seed=seeds)
@pytest.mark.slow
def test_validation_splits_train_and_never_reaches_test(make, data, share, seed):
    """Kept and held-out samples are a partition of each experience's training samples."""
    options = {"experiences": 1} if make in (class_incremental, task_incremental) else {}
    if make is online:  # no last piece of one sample
        data, options = replace(data, train=data.train[: len(data.train) // 5 * 5]), {"size": 5}
    whole = make(data, **options)
    tuning = validation(whole, share, seed=seed)
    forbidden = set(ids(whole, "test"))

    assert (tuning.kind, tuning.classes, len(tuning)) == (whole.kind, whole.classes, len(whole))
    for e, old in zip(tuning, whole, strict=True):
        kept, held = e.train.ids.tolist(), e.test.ids.tolist()
        assert len(held) >= 1
        assert sorted(kept + held) == sorted(old.train.ids.tolist())
        assert forbidden.isdisjoint(kept + held)
        lost = set(old.train.y.tolist()) - set(e.train.y.tolist())
        assert not lost or len(old.train.y.unique()) == len(old.train)
    assert_same_stream(tuning, validation(whole, share, seed=seed))


def test_validation_holds_out_the_share_of_each_class():
    y = torch.arange(5).repeat_interleave(torch.tensor([100, 50, 20, 10, 1]))
    data = (Batch.of(torch.rand(181, 3), y), None)
    (experience,) = validation(data_incremental(data, 1), 0.2)

    assert experience.test.y.bincount(minlength=5).tolist() == [20, 10, 4, 2, 0]
    with pytest.raises(DataError, match="1 samples cannot be split"):
        _ = validation(online(data, 1), 0.2)[0].train


@given(data=data_sets, draw=st.data())
def test_map_style_data_streams_like_a_batch(data, draw):
    """String labels, no `.targets`: the same samples, ids and class indices as from memory."""
    make = draw.draw(st.sampled_from([class_incremental, data_incremental, online, task_incremental]))
    options = {"experiences": 1} if make in (class_incremental, task_incremental) else {}
    mapped = from_data(
        *(map_style(replace_classes(part, data)) for part in (data.train, data.test)), classes=data.classes
    )
    labels = LabelMap(data.classes)

    for ours, theirs in zip(make(data, **options), make(mapped, **options), strict=True):
        assert ours.classes == theirs.classes
        for test in (False, True):
            expected, found = (list(e.batches(6, None, labels, test=test)) for e in (ours, theirs))
            for a, b in zip(expected, found, strict=True):
                assert all(torch.equal(a.state()[key], b.state()[key]) for key in a.state())


def replace_classes(part, data):
    """Return a part that knows what its labels stand for."""

    class Named:
        x, y, classes = part.x, part.y, data.classes

    return Named


def test_map_style_data_is_read_only_when_it_is_asked_for():
    """One look at each label (none if labels are given); then an item is read when its batch is."""
    items = [(torch.tensor([float(i)]), "ab"[i % 2]) for i in range(10)]
    for labels, looks in [(None, 10), (["a", "b"] * 5, 0)]:
        data = MapStyle(items)
        stream = class_incremental(from_data(data, labels=labels), 2)
        assert data.reads == looks
        known = LabelMap(stream.classes)
        batch = next(stream[1].batches(2, None, known))
        assert data.reads == looks + 2
        assert batch.x.flatten().tolist() == [1, 3]
        assert known.decode(batch.y) == ["b", "b"]


def test_an_iterable_a_list_and_three_columns_will_do():
    """A generator, a list of triples: the scenario decides on the task, not the data."""
    items = [(np.full(2, i, np.float32), i % 3 + 10, 7) for i in range(9)]
    for data in (items, (item for item in items)):
        stream = class_incremental(from_data(data), 3)
        assert stream.classes == (10, 11, 12)
        (batch,) = stream[2].batches(9, None, LabelMap(stream.classes))
        assert batch.x[:, 0].tolist() == [2, 5, 8]
        assert batch.task.tolist() == [-1] * 3


@pytest.mark.parametrize("make", [permuted, lambda data: rotated(data, angles=[0, 30])])
def test_map_style_images_change_like_those_in_memory(make):
    data = images(shape=(1, 6, 6))
    mapped = from_data(map_style(replace_classes(data.train, data)), None, classes=data.classes)
    labels = LabelMap(data.classes)
    for ours, theirs in zip(make((data.train, None)), make(mapped), strict=True):
        expected, found = (Batch.cat(list(e.batches(16, None, labels))) for e in (ours, theirs))
        torch.testing.assert_close(found.x, expected.x)
        assert len(set(found.ids.tolist())) == len(found)
    assert torch.equal(found.y, data.train.y)
    split = validation(make(mapped), 0.2)[1]
    assert len(split.train) + len(split.test) == 60
    assert set(split.train.ids.tolist()).isdisjoint(split.test.ids.tolist())


def test_batches_with_clashing_ids_get_test_ids_of_their_own():
    parts = from_data(
        Batch.of(torch.rand(4, 2), torch.tensor([5, 9, 5, 9])), Batch.of(torch.rand(2, 2), torch.tensor([9, 5]))
    )

    assert parts.classes == (5, 9)
    assert parts.train.y.tolist() == [0, 1, 0, 1]
    assert set(parts.train.ids.tolist()).isdisjoint(parts.test.ids.tolist())


def test_a_class_without_training_samples_and_foreign_labels_are_named():
    y = torch.tensor([0, 0, 1])
    with pytest.raises(DataError, match="class 'c' of data has no training sample"):
        class_incremental(from_data([(0.0, "a"), (1.0, "b")], classes=["a", "b", "c"]), 2)
    with pytest.raises(DataError, match="label 1 is not among the classes"):
        from_data(Batch.of(torch.rand(3, 1), y), classes=[0])
    with pytest.raises(DataError, match=r"a label must be a string or an integer, got 0\.5"):
        from_data([(1.0, 0.5)])
    with pytest.raises(DataError, match="holds no training sample"):
        from_data([])
    with pytest.raises(DataError, match="need one label per sample, got 2 labels for 1 samples"):
        from_data([(1.0, "a")], labels=["a", "b"])
    with pytest.raises(DataError, match="need a DataSet or"):
        class_incremental([1, 2, 3])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda d: class_incremental(d, 6), "5 classes make 1 to 5 experiences, got 6"),
        (lambda d: class_incremental(d, 0), "got 0"),
        (lambda d: class_incremental(d, [2, 2]), "must add up to 5"),
        (lambda d: class_incremental(d, [5, 0]), "must add up to 5"),
        (lambda d: class_incremental(d, order="sed"), "order is None, 'seed', .* or each class exactly once"),
        (lambda d: class_incremental(d, order=["ant", "ant", "bee", "cat", "dog"]), "exactly once"),
        (lambda d: data_incremental(d, 61), "got 61"),
        (lambda d: online(d, 0), "size >= 1"),
        (lambda d: online(d, order="random"), "got size=10 and order='random'"),
        (lambda d: permuted(d, 0), "at least 1 experience, got 0"),
        (lambda d: overlapping(d, [[0, 5]]), r"distinct classes out of 0..4, got \[0, 5\]"),
        (lambda d: overlapping(d, [[0], []]), r"got \[\]"),
        (lambda d: overlapping(d, [[1, 1]]), r"got \[1, 1\]"),
        (lambda d: overlapping(d, []), "at least one task"),
        (lambda d: overlapping(d, [[0]], per_class=0), "per_class >= 1"),
        (lambda d: rotated(d, angles=[]), "at least 1 experience, got 0"),
        (lambda d: domains(d), "need a list of data sets"),
        (lambda d: validation(online(d), 1.0), "between 0 and 1, got 1.0"),
        (lambda d: Scenario("x", "clas-il", (), (), 0, {}), "got 'clas-il'"),
    ],
)
def test_a_wrong_argument_is_answered_with_what_to_do(call, message):
    with pytest.raises(ConfigError, match=message):
        call(images())


def test_more_samples_than_there_are_cannot_be_spread():
    with pytest.raises(DataError, match=r"class .bee. of toy has .* too few for 2 tasks of 60"):
        overlapping(images(), [[1, 2], [1]], per_class=60)


def test_data_that_cannot_change_is_refused():
    table = (Batch.of(torch.rand(2000, 3), torch.zeros(2000, dtype=torch.int64)), None)
    with pytest.raises(DataError, match=r"only images turn, got samples of shape \[3\]"):
        rotated(table)
    with pytest.raises(DataError, match="at most 1000 are domains"):
        domains(table, column=0)
    with pytest.raises(ConfigError, match="columns count from 0 to 2, got 3"):
        domains(table, column=3)
    with pytest.raises(DataError, match="only a table in memory"):
        domains(images(), column=0)


def test_experiences_are_cut_when_asked_for_and_remembered_once():
    """Holding all experiences holds no samples; asking twice in a row cuts once."""
    stream = permuted(images(), 3)
    held = list(stream)

    assert all(isinstance(e, Experience) for e in held)
    assert held[1].train is held[1].train
    again = held[1].train
    assert held[2].train is not again
    assert held[1].train is not again
    assert torch.equal(held[1].train.x, again.x)
    assert [e.index for e in stream.experiences[1:]] == [1, 2]
    assert stream[-1].index == 2
    with pytest.raises(IndexError):
        stream[3]


@pytest.mark.parametrize(
    "name",
    ["split-fmnist", "task-fmnist", "permuted-fmnist", "rotated-fmnist", "data-fmnist", "online-fmnist",
     "permuted-fmnist-tasks", "overlap-fmnist"],
)  # fmt: skip
def test_permanent_ids_say_which_data_they_used(name):
    """The packaged part makes another stream, and its name says so."""
    stream = scenario(f"{name}-small", seed=5)

    assert stream.name == f"{name}-small"
    assert stream.signature["data"]["name"] == "fashion-mnist-small"
    assert stream.seed == 5
    assert len(stream) == {"online-fmnist": 800, "permuted-fmnist-tasks": 10}.get(name, 5)
    assert stream.signature["counts"]["train"] == 8000


def test_an_id_without_its_data_takes_the_packaged_part_by_name_or_fails(tmp_path, monkeypatch):
    monkeypatch.setattr("lifelong.data.SYSTEM", tmp_path)
    assert scenario("split-fmnist").name == "split-fmnist-small"
    with pytest.raises(NotFound, match="fashion-mnist is not in"):
        scenario("split-fmnist", root=tmp_path)


def test_every_recipe_names_known_data_and_options():
    for name, recipe in SCENARIOS.items():
        assert {recipe.data, *recipe.more} <= set(KNOWN), name
        with pytest.raises(UnknownName, match=f"no option of {name} is called"):
            scenario(name, no_such_option=1)


def test_unknown_ids_and_options_get_the_nearest_name():
    with pytest.raises(UnknownName, match="no scenario is called 'split-fmnits'; did you mean 'split-fmnist'"):
        scenario("split-fmnits")
    with pytest.raises(UnknownName, match="called 'experience'; did you mean 'experiences'"):
        scenario("split-fmnist-small", experience=2)
    assert len(scenario("split-fmnist-small", experiences=2)) == 2
