"""Records of TFDS become a store: order, pixels, formats, what is broken, kills, and memory."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tensorflow_datasets", reason="the extra `tfds` is not installed")

from tfds_folders import spec_for, textures, write_folder

from miniatures import cifar100
from miniatures.drawing import decoded, drawn, jpeg
from miniatures.place import Places, hash_order
from vtabflow.contracts.typed_json import to_json
from vtabflow.errors import RunError, UserError
from vtabflow.prepare import step, store
from vtabflow.prepare.tfds import generation, records
from vtabflow.prepare.tfds.datasets import datasets
from vtabflow.prepare.tfds.splits import expressions

COUNTS = {"train": 120, "validation": 50, "test": 40}


def in_order(split, examples):
    """docs/protocol.md#data: ascending MD5 of the split's name and the key."""
    return sorted(examples, key=lambda pair: hashlib.md5(f"{split}{pair[0]}".encode()).digest())


def resized(data, size=32):
    import tensorflow as tf

    return tf.compat.v1.image.resize(decoded(data), [size, size]).numpy()


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The same records as three shards of array_record and as one tfrecord."""
    examples = textures(COUNTS)
    places = {}
    for form, shards in (("array_record", 3), ("tfrecord", 1)):
        places[form] = Places.under(tmp_path_factory.mktemp(form))
        write_folder(places[form].tfds, "dtd", examples, form, shards)
    names = {path.name for path in (places["array_record"].tfds / "dtd/3.0.1").iterdir()}
    assert "dtd-train.array_record-00002-of-00003" in names
    return examples, places


@pytest.mark.parametrize("form", ["array_record", "tfrecord"])
@pytest.mark.parametrize("numbers", ["uint8", "float32"])
def test_order_pixels_and_labels(written, tmp_path, form, numbers):
    examples, places = written
    before = {path: path.stat().st_mtime_ns for path in places[form].tfds.rglob("*")}
    image = {} if numbers == "uint8" else {"numbers": numbers}
    step.run(spec_for("dtd", places[form], tmp_path, **image))
    opened = store.open_store(tmp_path / "store")
    for split, name in (("train", "train"), ("val", "validation"), ("test", "test")):
        expected = in_order(name, examples[name])
        assert opened.ids(split) == [example["file_name"] for _, example in expected]
        assert opened.labels("dtd", split).tolist() == [example["label"] for _, example in expected]
        exact = np.stack([resized(example["image"]) for _, example in expected])
        found = opened.images(split)
        assert found.dtype == np.dtype(numbers)
        if numbers == "float32":
            assert np.array_equal(found, exact)
        else:
            assert np.array_equal(found, np.floor(exact + 0.5 + 2**-10).clip(0, 255))
    manifest = opened.manifest
    assert manifest.splits == expressions("given", COUNTS) and manifest.skipped == ()
    assert manifest.class_names["dtd"][:2] == ("banded", "blotchy")
    assert {path: path.stat().st_mtime_ns for path in places[form].tfds.rglob("*")} == before


def test_both_formats_give_the_same_store(written, tmp_path):
    digests = []
    for form, places in written[1].items():
        step.run(spec_for("dtd", places, tmp_path / form))
        digests.append(store.open_store(tmp_path / form / "store").manifest.sha256)
    assert digests[0] == digests[1]


@pytest.mark.parametrize("form", ["array_record", "tfrecord"])
@pytest.mark.parametrize("ends", [(0, 120), (0, 7), (39, 43), (81, 120), (119, 120), (5, 5)])
def test_a_stretch_is_read_in_order_across_shards(written, form, ends):
    examples, places = written
    opened = records.Records(places[form].tfds / "dtd/3.0.1", datasets()["dtd"])
    parse = opened.parser()
    found = [parse(raw)["file_name"].decode() for raw in opened.raw("train", *ends)]
    assert found == [key for key, _ in in_order("train", examples["train"])[slice(*ends)]]


def test_1k_is_the_prefix_of_the_whole(tmp_path, monkeypatch):
    places = Places.under(tmp_path)
    monkeypatch.setattr(generation, "SHUFFLE_BYTES", 1 << 16)  # TFDS sorts on the disk, as it does large sets
    truth = cifar100.make(places)
    for rows in ("1k", "all"):
        step.run(spec_for("cifar100", places, tmp_path / rows, rows))
    some, whole = (store.open_store(tmp_path / rows / "store") for rows in ("1k", "all"))
    assert some.manifest.counts == {"train": 800, "val": 200, "test": 300}
    assert whole.manifest.counts == {"train": 1800, "val": 200, "test": 300}
    ordered = hash_order("train", truth["train"])
    for split, rows in (("train", ordered[:1800]), ("val", ordered[1800:])):
        few = len(some.ids(split))
        assert some.ids(split) == whole.ids(split)[:few]
        assert np.array_equal(some.images(split), whole.images(split)[:few])
        # 32 pixels are no more than the target: as they are, without a resize.
        assert np.array_equal(whole.images(split), np.stack([example.pixels for example in rows]))
        assert whole.labels("cifar100", split).tolist() == [example.labels["cifar100"] for example in rows]
    receipt = json.loads((tmp_path / "all/receipt.json").read_text())
    assert receipt["made"] is True
    shutil.rmtree(places.tfds)
    step.run(spec_for("cifar100", places, tmp_path / "all"))
    assert json.loads((tmp_path / "all/receipt.json").read_text())["made"] is False and not places.tfds.exists()


def test_sprites_are_stretched_and_their_ids_are_the_integer_keys(tmp_path):
    rng = np.random.default_rng(0)
    samples = rng.integers(0, 2, (60, 64, 64, 1), np.uint8)
    values = dict.fromkeys(
        (f"value_{name}" for name in ("shape", "scale", "orientation", "x_position", "y_position")), 0.0
    )
    examples = [
        (i, {"image": samples[i], "label_shape": 0, "label_scale": 0, "label_orientation": i % 40}
            | {"label_x_position": i % 32, "label_y_position": 0} | values)
        for i in range(60)
    ]  # fmt: skip
    places = Places.under(tmp_path)
    write_folder(places.tfds, "dsprites", {"train": examples}, shards=2)
    # Whole numbers, whatever is asked for resized images.
    step.run(spec_for("dsprites", places, tmp_path, size=64, numbers="float32"))
    opened = store.open_store(tmp_path / "store")
    order = [key for key, _ in in_order("train", examples)]
    assert [opened.ids(split) for split in store.SPLITS] == [
        [str(key) for key in part] for part in (order[:48], order[48:54], order[54:])
    ]
    assert opened.images("test").dtype == np.uint8
    assert np.array_equal(opened.images("test"), samples[order[54:]] * 255)
    assert set(np.unique(opened.images("train"))) == {0, 255} and opened.images("train").shape[3] == 1
    assert opened.labels("dsprites-location", "val").tolist() == [key % 32 // 2 for key in order[48:54]]


@pytest.mark.parametrize("tasks", [("location", "orientation"), ("orientation", "location")])
def test_each_task_of_a_dataset_has_its_own_labels_in_whatever_order_they_are_named(tmp_path, tasks):
    rng = np.random.default_rng(0)
    values = dict.fromkeys(
        (f"value_{name}" for name in ("shape", "scale", "orientation", "x_position", "y_position")), 0.0
    )
    examples = [
        (i, {"image": rng.integers(0, 2, (64, 64, 1), np.uint8), "label_shape": 0, "label_scale": 0}
            | {"label_orientation": (3 * i + 1) % 40, "label_x_position": i % 32, "label_y_position": 0} | values)
        for i in range(40)
    ]  # fmt: skip
    places = Places.under(tmp_path)
    write_folder(places.tfds, "dsprites", {"train": examples})
    spec = spec_for("dsprites", places, tmp_path, size=64)
    names = tuple(f"dsprites-{task}" for task in tasks)
    step.run(replace(spec, tasks=names, classes=dict.fromkeys(names, 16)))
    opened = store.open_store(tmp_path / "store")
    keys = [key for key, _ in in_order("train", examples)][:32]
    # docs/protocol.md#labels: 32 positions and 40 angles in 16 bins each.
    assert opened.labels("dsprites-location", "train").tolist() == [key % 32 // 2 for key in keys]
    assert opened.labels("dsprites-orientation", "train").tolist() == [(3 * key + 1) % 40 * 16 // 40 for key in keys]


def test_an_image_that_does_not_decode_is_named_and_leaves_no_gap(tmp_path, capsys, monkeypatch):
    examples = textures(COUNTS)
    keys = [in_order("train", examples["train"])[i][0] for i in (3, 4, 119)]
    whole = dict(examples["train"])[keys[0]]["image"]
    bad = {keys[0]: whole[: len(whole) // 2], keys[1]: b"GIF89a", keys[2]: b""}
    for key, example in examples["train"]:
        example["image"] = bad.get(key, example["image"])
    places = Places.under(tmp_path)
    write_folder(places.tfds, "dtd", examples, shards=2)
    step.run(spec_for("dtd", places, tmp_path))
    opened = store.open_store(tmp_path / "store")
    kept = [(key, example) for key, example in in_order("train", examples["train"]) if key not in bad]
    assert opened.ids("train") == [key for key, _ in kept] and opened.images("train").shape[0] == 117
    assert opened.labels("dtd", "train").tolist() == [example["label"] for _, example in kept]
    exact = np.stack([resized(example["image"]) for _, example in kept])
    assert np.array_equal(opened.images("train"), np.floor(exact + 0.5 + 2**-10).clip(0, 255))
    assert [entry.file for entry in opened.manifest.skipped] == [f"train/{key}" for key in keys]
    assert all(entry.reason.startswith("does not decode (") for entry in opened.manifest.skipped)
    assert f"dtd: 3 images left out, first train/{keys[0]}, which does not decode" in capsys.readouterr().out
    # The 1k budget's rows are the first of all that decode, and as many as ever.
    monkeypatch.setitem(store.ROWS_1K, "train", 20)
    step.run(
        replace(
            spec_for("dtd", places, tmp_path, rows="1k"),
            folder=str(tmp_path / "small"),
            manifest=str(tmp_path / "small.json"),
        )
    )
    small = store.open_store(tmp_path / "small")
    assert small.ids("train") == opened.ids("train")[:20] and len(small.manifest.skipped) == 2
    assert np.array_equal(small.images("train"), opened.images("train")[:20])
    assert np.array_equal(small.labels("dtd", "train"), opened.labels("dtd", "train")[:20])


def test_a_split_without_a_readable_image_is_refused(tmp_path):
    examples = textures({"train": 8, "validation": 4, "test": 4})
    for _, example in examples["test"]:
        example["image"] = b"nothing"
    places = Places.under(tmp_path)
    write_folder(places.tfds, "dtd", examples)
    with pytest.raises(RunError, match="dtd: 4 images left out.*none is left for test: copy .* or remove"):
        step.run(spec_for("dtd", places, tmp_path))
    assert not (tmp_path / "store").exists() and not list(tmp_path.glob(".store*"))


@pytest.mark.parametrize("form", ["array_record", "tfrecord"])
@pytest.mark.parametrize("harm", ["cut", "flip", "gone", "swapped"])
def test_a_damaged_shard_is_named_and_a_whole_one_cures(written, tmp_path, form, harm):
    places = Places.under(tmp_path)
    shutil.copytree(written[1][form].tfds, places.tfds, dirs_exist_ok=True)
    shard = sorted(places.tfds.glob("dtd/3.0.1/dtd-train.*"))[-1]
    data = shard.read_bytes()
    middle = len(data) // 2
    if harm == "gone":
        shard.unlink()
    elif harm == "swapped":
        shutil.copy(next(places.tfds.glob("dtd/3.0.1/dtd-test.*-00000-*")), shard)
    else:
        shard.write_bytes(data[:middle] if harm == "cut" else data[:middle] + bytes(512) + data[middle + 512 :])
    with pytest.raises(RunError, match=f"dataset dtd: .*{shard.name} is damaged .*remove .* run again"):
        step.run(spec_for("dtd", places, tmp_path))
    assert not (tmp_path / "store").exists() and not list(tmp_path.glob(".store*"))
    shard.write_bytes(data)
    step.run(spec_for("dtd", places, tmp_path))
    assert store.open_store(tmp_path / "store").manifest.counts["train"] == 120


def test_counts_and_classes_are_held_against_vtabs(written, tmp_path, monkeypatch):
    _, places = written
    spec = spec_for("dtd", places["array_record"], tmp_path)
    spec = replace(spec, settings=replace(spec.settings, counts="official"))
    with pytest.raises(UserError, match=r"dtd: split train at .* has 120 examples and VTAB's has 1,880.*counts: any"):
        step.run(spec)
    known = datasets()["dtd"]
    monkeypatch.setitem(datasets(), "dtd", replace(known, counts=COUNTS))
    step.run(spec)  # 47 classes in 120 + 50
    shutil.rmtree(tmp_path / "store")
    few = Places.under(tmp_path / "few")
    changed = textures(COUNTS)
    for split in ("train", "validation"):
        changed[split] = [(key, {**example, "label": max(example["label"], 2)}) for key, example in changed[split]]
    write_folder(few.tfds, "dtd", changed)
    spec = replace(spec, places=few.spec(), manifest=str(tmp_path / "other.json"))
    with pytest.raises(UserError, match="class 0 and 1 more of task dtd has no image in train and val"):
        step.run(spec)
    step.run(replace(spec, rows="1k"))  # of 800 images nobody promises all classes


def test_versions(written, tmp_path):
    places = Places.under(tmp_path)
    spec = spec_for("svhn", places, tmp_path)
    examples = [(i, {"image": np.full((32, 32, 3), i, np.uint8), "label": i % 10, "id": f"{i}"}) for i in range(30)]
    write_folder(places.tfds, "svhn", {"train": examples, "test": examples}, version="3.0.0")
    with pytest.raises(UserError, match=r"has version 3.0.0 and not 3.1.0: set `prepare.tfds.versions.svhn: 3.0.0`"):
        step.run(spec)
    spec = replace(spec, settings=replace(spec.settings, version="3.0.0"))
    step.run(spec)
    assert store.open_store(tmp_path / "store").manifest.counts == {"train": 27, "val": 3, "test": 30}
    kitti = spec_for("kitti", places, tmp_path / "kitti")
    kitti = replace(kitti, settings=replace(kitti.settings, version="3.1.0"))
    with pytest.raises(UserError, match=r"kitti: version 3.1.0 is not at .*can only generate 3.3.0"):
        step.run(kitti)


def test_an_image_of_another_size_than_the_datasets_is_refused(tmp_path):
    import tensorflow_datasets as tfds_library

    features = tfds_library.features.FeaturesDict(
        {
            "image": tfds_library.features.Image(),
            "label": tfds_library.features.ClassLabel(num_classes=10),
            "filename": tfds_library.features.Text(),
        }
    )
    splits = {"train": [(i, {"image": jpeg(drawn(np.random.default_rng(i), 20, 20)), "label": 0, "filename": f"{i}"})
                        for i in range(10)]}  # fmt: skip
    places = Places.under(tmp_path)
    tfds_library.dataset_builders.store_as_tfds_dataset(
        name="eurosat", version="2.0.0", config="rgb", features=features, split_datasets=splits, data_dir=places.tfds,
        file_format="array_record",
    )  # fmt: skip
    with pytest.raises(RunError, match=r"eurosat: \d+ has shape \(20, 20, 3\) and all its images have \(64, 64, 3\)"):
        step.run(spec_for("eurosat", places, tmp_path, size=64))


@pytest.mark.parametrize("spelling", ["pythonClassName", "python_class_name"])
def test_a_description_that_names_other_code_is_refused(written, tmp_path, spelling):
    places = Places.under(tmp_path)
    shutil.copytree(written[1]["tfrecord"].tfds, places.tfds, dirs_exist_ok=True)
    path = places.tfds / "dtd/3.0.1/features.json"
    text = path.read_text().replace('"pythonClassName"', f'"{spelling}"')
    path.write_text(text.replace("tensorflow_datasets.core.features.text_feature.Text", "antigravity.Text", 1))
    with pytest.raises(UserError, match=r"dtd: .*features.json names antigravity.Text, which is not a feature of TFDS"):
        step.run(spec_for("dtd", places, tmp_path))
    assert "antigravity" not in sys.modules
    path.write_text(text[:50])
    with pytest.raises(UserError, match="features.json cannot be read"):
        step.run(spec_for("dtd", places, tmp_path))


def test_a_cut_archive_is_a_sentence_and_leaves_nothing(tmp_path):
    places = Places.under(tmp_path)
    cifar100.make(places)
    archive = next(path for path in (places.downloads / "cifar100").iterdir() if path.suffix != ".INFO")
    whole = archive.read_bytes()
    known = json.loads(places.checksums.read_text())

    def register(data: bytes) -> None:
        archive.write_bytes(data)
        known[cifar100.URL] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
        places.checksums.write_text(json.dumps(known))

    register(whole[: len(whole) // 2])
    with pytest.raises(
        RunError, match="cifar100: TFDS cannot generate its records: an archive is truncated or broken"
    ) as told:
        step.run(spec_for("cifar100", places, tmp_path))
    assert archive.name in str(told.value) and "\n" not in str(told.value)
    assert not [path for path in places.tfds.rglob("*") if path.suffix != ".lock" and path.is_file()]
    register(whole)
    step.run(spec_for("cifar100", places, tmp_path))
    assert store.open_store(tmp_path / "store").manifest.counts["train"] == 1800


KILLED = """
import json, sys
from vtabflow.contracts.specs import StoreSpec
from vtabflow.contracts.typed_json import from_json
from vtabflow.prepare import step
step.run(from_json(StoreSpec, json.load(open(sys.argv[1])), 'test'))
"""


@pytest.mark.parametrize("sign", ["tfds/cifar100/incomplete.*", ".store.*/train.npy"])
def test_killed_in_the_middle_it_leaves_nothing_half_written(tmp_path, sign):
    places = Places.under(tmp_path)
    cifar100.make(places)
    spec = spec_for("cifar100", places, tmp_path)
    (tmp_path / "spec.json").write_text(json.dumps(to_json(spec)))
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    run = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path / "spec.json")], env=environment)
    while not list(tmp_path.glob(sign)) and run.poll() is None:
        time.sleep(0.002)
    run.send_signal(signal.SIGKILL)
    assert run.wait() == -signal.SIGKILL
    assert list(tmp_path.glob(sign)) and not (tmp_path / "store").exists()
    step.run(spec)
    opened = store.open_store(tmp_path / "store")
    assert opened.manifest.counts == {"train": 1800, "val": 200, "test": 300}
    assert not list(tmp_path.rglob("incomplete.*")) and not list(tmp_path.glob(".store*"))


HUNGRY = """
import json, sys
from vtabflow.contracts.specs import StoreSpec
from vtabflow.contracts.typed_json import from_json
from pathlib import Path
from vtabflow.prepare.tfds import generation, records
from vtabflow.prepare import step
from vtabflow.prepare.tfds.datasets import datasets

def peak():
    # Not getrusage, whose maximum begins with that of the process that started this one.
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))

spec = from_json(StoreSpec, json.load(open(sys.argv[1])), 'test')
opened = records.Records(Path(spec.places.tfds, "dmlab", "2.0.1"), datasets()["dmlab"])
opened.decode(opened.parser()(next(opened.raw("test", 0, 1)))["image"])
before = peak()
step.run(spec)
print(before, peak())
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system does not say a process's memory")
def test_memory_does_not_grow_with_the_dataset(tmp_path):
    """A store of 360 MB, from 2,400 JPEGs of 360x480: its pages are let go as they are written.

    Each JPEG has 250 kB behind its end, so that records which wait are seen as well: 600 MB of them.
    """
    samples = [
        jpeg(drawn(np.random.default_rng(i), 360, 480)) + np.random.default_rng(i).bytes(250_000) for i in range(8)
    ]

    def examples(split, count):
        return [
            (f"{split}{i}", {"image": samples[i % 8], "filename": f"{split}{i}", "label": i % 6}) for i in range(count)
        ]

    places = Places.under(tmp_path)
    counts = {"train": 2400, "validation": 4, "test": 4}
    write_folder(places.tfds, "dmlab", {split: examples(split, count) for split, count in counts.items()})
    (tmp_path / "spec.json").write_text(json.dumps(to_json(spec_for("dmlab", places, tmp_path, size=224))))
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "2"}
    run = subprocess.run(
        [sys.executable, "-c", HUNGRY, str(tmp_path / "spec.json")],
        env=environment,
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert run.returncode == 0, run.stderr
    before, peak = (int(word) * 1024 for word in run.stdout.splitlines()[-1].split())
    size = (tmp_path / "store/train.npy").stat().st_size
    assert size > 360e6 and peak - before < 350e6 and peak < 2e9, (before, peak)


def test_integer_keys_are_in_the_order_of_tfds():
    hashing = pytest.importorskip("tensorflow_datasets.core.hashing")
    keys = records.integer_keys("train", 500)
    assert keys == sorted(range(500), key=hashing.Hasher("train").hash_key)
    digests = [hashlib.md5(f"train{key}".encode()).hexdigest() for key in keys]
    assert digests == sorted(digests) and keys != records.integer_keys("test", 500)
