"""A snapshot answers like the model it was taken of, or it is refused with the file and the reason."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save

from lifelong.errors import ArtifactError, ConfigError, DataError
from lifelong.files import canonical_json, digest
from lifelong.labels import LabelMap
from lifelong.models import build
from lifelong.release.manifest import content_id, read_manifest, seal
from lifelong.release.snapshot import Probe, Snapshot
from lifelong.release.spaces import proof as proven
from lifelong.types import Space

SIMPLEX = {"name": "simplex", "classes": 8}
LABELS = ("boot", "shirt", 7)


def make(head=None, *, seed=0, labels=LABELS, **kwargs):
    """A small model of 4 inputs and 7 features, with a snapshot of it."""
    spec = {"backbone": {"name": "mlp", "inputs": [4], "hidden": [5], "features": 7}, "head": head or SIMPLEX}
    model = build(spec, seed=seed)
    x = torch.rand(3, 4, generator=torch.Generator().manual_seed(1))
    return model, Snapshot.of(model, LabelMap(labels), probe_x=x, **kwargs)


def saved(tmp_path, snapshot=None):
    folder = tmp_path / "snapshot"
    (snapshot or make()[1]).save(folder)
    return folder


def reseal(folder, *, weights=None, probe=None, **fields):
    """Write other content under a manifest whose checksums are right."""
    manifest = json.loads((folder / "manifest.json").read_bytes())
    kept = {k: v for k, v in manifest.items() if k not in ("sha256", "format", "format_version", "files")}
    parts = {}
    for name, change in (("weights.safetensors", weights), ("probe.safetensors", probe)):
        tensors = load_file(folder / name)
        parts[name] = save((change or (lambda t: t))(tensors))
        (folder / name).write_bytes(parts[name])
    (folder / "manifest.json").write_bytes(seal({**kept, **fields}, parts))


def bytes_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_loaded_snapshot_is_the_saved_one(tmp_path):
    model, made = make(parent=3, training={"seed": 0, "step": 12}, metrics={"anytime_seen": 0.5})
    read = Snapshot.load(saved(tmp_path, made))
    for name in (
        "model",
        "labels",
        "space",
        "input",
        "preprocessing",
        "parent",
        "training",
        "metrics",
        "level",
        "proofs",
        "read_by",
    ):
        assert getattr(read, name) == getattr(made, name)
    assert read.labels == LABELS  # 7 is still a number
    assert read.input == {"shape": [4], "dtype": "float32"}
    assert {k: v.tolist() for k, v in read.weights.items()} == {k: v.tolist() for k, v in model.state_dict().items()}
    x = torch.rand(10, 4)
    built, said = read.build()(x), model(x)
    assert torch.equal(built.features, said.features)
    assert torch.equal(built.logits, said.logits)


@pytest.mark.parametrize("head", [SIMPLEX, {"name": "linear", "classes": 3}, {"name": "prototype", "classes": 4}])
def test_every_head_survives_the_way_to_disk_and_back(tmp_path, head):
    """A prototype head says -inf for a class without samples; that is an answer, not damage."""
    model, _ = make(head)
    if head["name"] == "prototype":
        model.head.update(torch.rand(6, 7), torch.tensor([0, 1, 2, 0, 1, 2]))
    made = Snapshot.of(model, LabelMap(LABELS), probe_x=torch.rand(2, 4))
    read = Snapshot.load(saved(tmp_path, made))
    assert torch.equal(read.probe.logits, model(made.probe.x).logits)


def test_a_grown_head_is_saved_as_it_is_now(tmp_path):
    model, _ = make({"name": "linear", "classes": 0}, labels=())
    model.grow(5)
    read = Snapshot.load(saved(tmp_path, Snapshot.of(model, LabelMap(range(5)), probe_x=torch.rand(2, 4))))
    assert read.build().classes == 5


def test_the_same_weights_and_metadata_give_the_same_bytes(tmp_path):
    one, two = (make(training={"b": 1, "a": 2})[1] for _ in range(2))
    two = replace(two, weights=dict(reversed(two.weights.items())), training={"a": 2, "b": 1})
    one.save(tmp_path / "one")
    two.save(tmp_path / "two")
    assert bytes_of(tmp_path / "one") == bytes_of(tmp_path / "two")
    assert sorted(bytes_of(tmp_path / "one")) == ["manifest.json", "probe.safetensors", "weights.safetensors"]


def test_a_snapshot_shares_no_memory_with_the_model():
    model, made = make()
    before = {name: tensor.clone() for name, tensor in made.weights.items()}
    built = made.build()
    with torch.no_grad():
        for tensor in [*model.parameters(), *built.parameters()]:
            tensor.add_(1)
    assert all(torch.equal(made.weights[name], before[name]) for name in before)
    assert not any(tensor.requires_grad for tensor in made.weights.values())


def test_a_loaded_snapshot_does_not_lean_on_its_files(tmp_path):
    """Truncating a mapped file kills the process; private memory does not notice."""
    folder = saved(tmp_path)
    read = Snapshot.load(folder)
    for name in ("weights.safetensors", "probe.safetensors"):
        with (folder / name).open("r+b") as file:
            file.truncate(0)
    read.build()


def test_taking_a_snapshot_changes_neither_the_model_nor_global_random_state():
    model, _ = make()
    model.train()
    state = torch.random.get_rng_state()
    Snapshot.of(model, LabelMap(LABELS), probe_x=torch.rand(2, 4, generator=torch.Generator()))
    assert model.training
    assert torch.equal(torch.random.get_rng_state(), state)


def test_the_space_follows_the_embedding_and_not_the_head():
    """Other weights or other preprocessing are another space; a head that learns more classes is not."""
    model, made = make({"name": "linear", "classes": 3})
    model.grow(4)
    grown = Snapshot.of(model, LabelMap([*LABELS, "hat"]), probe_x=made.probe.x)
    assert grown.space == made.space
    assert grown.space.reads == {made.space.id}
    assert made.space.family.startswith("linear-")
    assert made.space.id.startswith(f"{made.space.family}:")
    assert make({"name": "linear", "classes": 3}, seed=1)[1].space.id != made.space.id
    model.backbone.preprocessing = {"scale": "minus_one_to_one"}
    assert Snapshot.of(model, LabelMap(LABELS), probe_x=made.probe.x).space.family != made.space.family


def test_identity_backbones_of_different_width_write_into_different_spaces():
    """They have no weights to tell them apart."""
    head = {"name": "linear", "classes": 1}
    two, three = (
        Snapshot.of(build({"backbone": {"name": "identity", "inputs": [n]}, "head": head}), LabelMap([0]), probe_x=x)
        for n, x in ((2, torch.rand(1, 2)), (3, torch.rand(1, 3)))
    )
    assert two.space.id != three.space.id


def test_labels_are_encoded_and_decoded_by_index():
    _, made = make()
    assert made.encode(["shirt", 7, "hat"]).tolist() == [1, 2, -1]
    assert made.decode(torch.tensor([2, 0])) == [7, "boot"]
    with pytest.raises(DataError, match="from 0 to 2, got 3"):
        made.decode([3])
    with pytest.raises(DataError, match="got -1"):
        made.decode([-1])


def test_there_may_be_fewer_labels_than_columns_never_more_and_none_twice():
    assert make(labels=range(8))[1].probe.logits.shape[1] == 8
    with pytest.raises(DataError, match="9 labels do not fit"):
        make(labels=range(9))
    made = make()[1]
    with pytest.raises(DataError, match="twice"):
        replace(made, labels=("a", "a"))
    with pytest.raises(DataError, match=r"got 1\.5"):
        replace(made, labels=(1.5,))


def test_a_space_is_readable_only_with_a_proof():
    made = make()[1]
    proof = proven(Space("old", 4), 0.5, 0.4, "recall_at_1", 10, "")
    assert made.with_proofs([proof]).space.reads == {made.space.id, "old"}
    with pytest.raises(DataError, match="old"):
        replace(made, space=Space(made.space.id, 7, frozenset({"old"})))
    with pytest.raises(DataError, match="old"):
        replace(made, proofs=(proof,))
    for number in (0.4, 0.3, float("nan")):
        with pytest.raises(DataError, match="does not beat"):
            made.with_proofs([{**proof, "cross": number}])
    with pytest.raises(DataError, match="a proof has"):
        made.with_proofs([{"space": "old"}])


@pytest.mark.parametrize("x", [torch.rand(2, 5), torch.rand(0, 4)])
def test_a_probe_that_does_not_fit_the_model_is_refused_when_it_is_taken(x):
    with pytest.raises(DataError, match=r"rows of shape \[4\]"):
        Snapshot.of(make()[0], LabelMap(LABELS), probe_x=x)


def test_metadata_that_are_not_plain_are_refused_before_anything_is_written(tmp_path):
    for bad in ({"loss": float("nan")}, {"loss": torch.tensor(1.0)}):
        with pytest.raises(DataError):
            make(metrics=bad)[1].save(tmp_path / "bad")
    assert not (tmp_path / "bad").exists()


def test_a_snapshot_is_never_overwritten(tmp_path):
    folder = saved(tmp_path)
    before = bytes_of(folder)
    with pytest.raises(ConfigError, match="not empty"):
        make(seed=1)[1].save(folder)
    assert bytes_of(folder) == before


def test_the_content_id_is_that_of_what_was_learned(tmp_path):
    """Who repeats a step after kill -9 finds another parent and other proofs, and has made the same thing."""
    ids = []
    proof = proven(Space("old", 4), 0.5, 0.4, "recall_at_1", 10, "")
    again = make(parent=2, metrics={"a": 1.0}, training={"step": 1})[1].with_proofs([proof])
    for i, made in enumerate((make(training={"step": 1})[1], again, make(training={"step": 2})[1])):
        made.save(tmp_path / str(i))
        ids.append(content_id(read_manifest(tmp_path / str(i))))
    assert ids[0] == ids[1] != ids[2]


def first(weights):
    return sorted(weights)[0]


def put(name, value):
    def change(weights):
        weights[name].view(-1)[0] = value
        return weights

    return change


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def link(folder):
    (folder / "weights.safetensors").rename(folder.parent / "elsewhere")
    (folder / "weights.safetensors").symlink_to(folder.parent / "elsewhere")


def resign(folder, **fields):
    """Change the manifest and sign it again."""
    body = json.loads((folder / "manifest.json").read_bytes()) | fields
    body = {key: value for key, value in body.items() if key != "sha256" and value is not ...}
    (folder / "manifest.json").write_bytes(canonical_json({**body, "sha256": digest(canonical_json(body))}))


def files_of(folder):
    return json.loads((folder / "manifest.json").read_bytes())["files"]


W, P, M = "weights.safetensors", "probe.safetensors", "manifest.json"
WEIGHT = "backbone.layers.0.weight"
DAMAGE = {
    "flipped byte": (lambda f: flip(f / W), f"{W}.*sha256"),
    "flipped byte in the probe": (lambda f: flip(f / P), f"{P}.*sha256"),
    "flipped byte in the manifest": (lambda f: flip(f / M), M),
    "truncated": (lambda f: (f / W).write_bytes((f / W).read_bytes()[:-1]), f"{W}.*bytes"),
    "empty": (lambda f: (f / W).write_bytes(b""), f"{W}.*0 bytes"),
    "random bytes": (lambda f: (f / W).write_bytes(bytes(range(256)) * 9), f"{W}.*bytes"),
    "random bytes, well signed": (
        lambda f: (
            (f / W).write_bytes(b"x" * 99),
            resign(f, files=files_of(f) | {W: {"sha256": digest(b"x" * 99), "size": 99}}),
        ),
        f"{W}.*not safetensors",
    ),
    "no manifest": (lambda f: (f / M).unlink(), f"{M} is missing"),
    "no weights": (lambda f: (f / W).unlink(), f"{W} is missing"),
    "no probe": (lambda f: (f / P).unlink(), f"{P} is missing"),
    "NaN weight": (lambda f: reseal(f, weights=put(WEIGHT, float("nan"))), f"{W}.*{WEIGHT}.*not finite"),
    "Inf weight": (lambda f: reseal(f, weights=put(WEIGHT, float("inf"))), f"{W}.*not finite"),
    "wrong width": (
        lambda f: reseal(f, weights=lambda w: w | {WEIGHT: torch.zeros(6, 4)}),
        rf"{W}.*{WEIGHT}.*\[6, 4\].*\[5, 4\]",
    ),
    "missing key": (lambda f: reseal(f, weights=lambda w: {k: w[k] for k in w if k != WEIGHT}), f"{W}.*is missing"),
    "extra key": (lambda f: reseal(f, weights=lambda w: w | {"odd": torch.zeros(1)}), f"{W}.*'odd' is not in"),
    "half precision": (lambda f: reseal(f, weights=lambda w: {k: w[k].half() for k in w}), f"{W}.*float16"),
    "other weights": (lambda f: reseal(f, weights=put(WEIGHT, 9.0)), f"{P}.*features.*not the recorded"),
    "other probe": (lambda f: reseal(f, probe=put("logits", 9.0)), f"{P}.*logits.*not the recorded"),
    "NaN in the probe": (lambda f: reseal(f, probe=put("features", float("nan"))), f"{P}.*features"),
    "probe without logits": (lambda f: reseal(f, probe=lambda p: {"x": p["x"]}), f"{P}.*holds"),
    "probe of another width": (lambda f: reseal(f, probe=lambda p: p | {"x": torch.zeros(3, 9)}), f"{M}.*probe"),
    "more labels than columns": (lambda f: reseal(f, labels=list(range(9))), f"{M}.*9 labels"),
    "a label twice": (lambda f: reseal(f, labels=["a", "a"]), f"{M}.*twice"),
    "a label of another type": (lambda f: reseal(f, labels=[None]), f"{M}.*label"),
    "an unproven space": (
        lambda f: reseal(f, space={"id": "a", "dim": 7, "family": "", "reads": ["a", "b"]}),
        f"{M}.*proven",
    ),
    "a space of another width": (
        lambda f: reseal(f, space={"id": "a", "dim": 6, "family": "", "reads": ["a"]}),
        f"{M}.*width 6",
    ),
    "another model": (
        lambda f: reseal(
            f, model={"backbone": {"name": "mlp", "inputs": [4], "hidden": [6], "features": 7}, "head": SIMPLEX}
        ),
        W,
    ),
    "a model nobody has": (lambda f: reseal(f, model={"backbone": {"name": "mpl"}, "head": SIMPLEX}), f"{M}.*mpl"),
    "a model with odd arguments": (
        lambda f: reseal(f, model={"backbone": {"name": "mlp", "inputs": "4"}, "head": SIMPLEX}),
        f"{M}.*rebuilt",
    ),
    "an unsigned change": (
        lambda f: (f / M).write_bytes((f / M).read_bytes().replace(b'"boot"', b'"root"')),
        f"{M}.*sha256",
    ),
    "no JSON": (lambda f: (f / M).write_bytes(b"{"), f"{M}.*not JSON"),
    "an empty manifest": (lambda f: (f / M).write_bytes(b""), f"{M}.*not JSON"),
    "a JSON list": (lambda f: (f / M).write_bytes(b"[]"), f"{M}.*list"),
    "another format": (lambda f: resign(f, format="pickle"), f"{M}.*format"),
    "a newer format": (lambda f: resign(f, format_version=3), f"{M}.*format version 3.*reads 2"),
    "a field less": (lambda f: resign(f, labels=...), f"{M}.*labels"),
    "a field more": (lambda f: resign(f, odd=1), f"{M}.*odd"),
    "a field of a wrong type": (lambda f: resign(f, parent=True), f"{M}.*parent.*bool"),
    "a link": (link, f"{W}.*symbolic link"),
    "a path out": (lambda f: resign(f, files=files_of(f) | {"../x": {"sha256": "", "size": 0}}), f"{M}.*names the"),
    "an absolute path": (lambda f: resign(f, files={W: files_of(f)[W], "/etc/passwd": {}}), f"{M}.*names the"),
    "an unfinished file entry": (lambda f: resign(f, files=files_of(f) | {W: {}}), f"{M}.*needs exactly"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_refused_with_the_file_and_the_reason(tmp_path, kind):
    """One line, of one class, that says what is wrong; the undamaged folder loads."""
    damage, reason = DAMAGE[kind]
    folder = saved(tmp_path)
    Snapshot.load(folder)
    damage(folder)
    with pytest.raises(ArtifactError, match=reason) as caught:
        Snapshot.load(folder)
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ArtifactError, match=r"none/manifest\.json is missing"):
        Snapshot.load(tmp_path / "none")


@pytest.mark.slow
def test_any_flipped_byte_anywhere_is_refused(tmp_path):
    """All bytes of the manifest and every 7th of the others, each with one bit turned."""
    folder = saved(tmp_path)
    for path in folder.iterdir():
        whole = path.read_bytes()
        for at in range(0, len(whole), 1 if path.name == M else 7):
            path.write_bytes(whole[:at] + bytes([whole[at] ^ (1 << at % 8)]) + whole[at + 1 :])
            with pytest.raises(ArtifactError):
                Snapshot.load(folder)
        path.write_bytes(whole)
    Snapshot.load(folder)


def test_a_probe_is_reproduced_up_to_rounding_and_no_further():
    made = make()[1]
    scale = made.probe.features.abs().max()
    for share, good in ((1e-5, True), (1e-2, False)):
        shifted = replace(made, probe=Probe(made.probe.x, made.probe.features + share * scale, made.probe.logits))
        if good:
            shifted.build()
        else:
            with pytest.raises(ArtifactError, match="features"):
                shifted.build()
