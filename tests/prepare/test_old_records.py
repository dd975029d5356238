"""Records that TFDS cannot make again: of older versions, and of an older TFDS."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tensorflow_datasets", reason="the extra `tfds` is not installed")

import tensorflow_datasets as library
from tfds_folders import spec_for, write_folder

from miniatures.drawing import drawn
from miniatures.place import Places
from vtabflow.errors import RunError, UserError
from vtabflow.prepare import step, store
from vtabflow.prepare.tfds import records
from vtabflow.prepare.tfds import source as tfds
from vtabflow.prepare.tfds.datasets import datasets


def of_old(folder: Path) -> None:
    """What TFDS before 4.0.0 did not write: the features, and the form of the files."""
    (folder / "features.json").unlink()
    path = folder / "dataset_info.json"
    info = json.loads(path.read_text())
    for name in ("fileFormat", "moduleName"):
        del info[name]
    for split in info["splits"]:
        del split["filepathTemplate"]
    path.write_text(json.dumps(info))


def test_records_from_before_tfds_4_are_read_by_its_own_builder(tmp_path):
    kinds = (("Car", 5.0, 0), ("Van", 15.0, 1), ("Truck", 30.0, 2), ("Pedestrian", 4.0, 3))
    rng = np.random.default_rng(0)
    box = {"bbox": library.features.BBox(0.0, 0.0, 1.0, 1.0), "alpha": 0.0, "rotation_y": 0.0, "occluded": 0}
    expected, splits = {}, {}
    for split, name in (("train", "train"), ("val", "validation"), ("test", "test")):
        examples = []
        for i in range(8):
            kind, far, label = kinds[i % 4]
            thing = {**box, "type": kind, "truncated": 0.0, "dimensions": [1.0] * 3, "location": [0.0, 0.0, far]}
            picture = drawn(rng, 32, 32)
            examples.append((f"{i}.png", {"image": picture, "image/file_name": f"{i}.png", "objects": [thing]}))
            expected[split, f"{i}.png"] = picture, label
        splits[name] = examples
    places = Places.under(tmp_path)
    of_old(write_folder(places.tfds, "kitti", splits, "tfrecord", version="3.1.0"))
    spec = spec_for("kitti", places, tmp_path)
    spec = replace(spec, settings=replace(spec.settings, version="3.1.0"))
    step.run(spec)
    opened = store.open_store(tmp_path / "store")
    for split in store.SPLITS:
        assert len(opened.ids(split)) == 8
        for name, image, label in zip(
            opened.ids(split), opened.images(split), opened.labels("kitti-distance", split), strict=True
        ):
            picture, nearest = expected[split, name]
            assert np.array_equal(image, picture) and label == nearest


def test_what_tfds_cannot_make_again_is_not_to_be_removed(tmp_path):
    places = Places.under(tmp_path)
    examples = [(i, {"image": np.full((32, 32, 3), i, np.uint8), "label": i % 10, "id": f"{i}"}) for i in range(30)]
    folder = write_folder(places.tfds, "svhn", {"train": examples, "test": examples}, version="3.0.0")
    spec = spec_for("svhn", places, tmp_path)
    spec = replace(spec, settings=replace(spec.settings, version="3.0.0", counts="official"))
    entry = "remove its entry of `prepare.tfds.versions` to have 3.1.0 generated"
    way = f"copy {folder} completely, or move it away and {entry}"

    def refused() -> str:
        with pytest.raises((UserError, RunError)) as told:
            step.run(spec)
        assert "generated again" not in str(told.value)
        return str(told.value)

    assert way in refused()  # 30 images
    spec = replace(spec, settings=replace(spec.settings, counts="any"))
    shard = next(folder.glob("*train*"))
    data = shard.read_bytes()
    shard.write_bytes(data[: len(data) // 2])
    assert "is damaged" in refused() and way in refused()
    of_old(folder)  # TFDS' builder does not know version 3.0.0
    assert "cannot be read" in refused() and way in refused()


@pytest.mark.parametrize(("count", "good"), [(76_127, True), (76_128, True), (76_126, False), (76_129, False)])
def test_sun397_may_have_the_count_of_an_older_tfds(tmp_path, count, good):
    """docs/protocol.md#data: one image of train less since TFDS 4.9.10, under the same version."""
    picture = np.zeros((2, 2, 3), np.uint8)
    splits = {
        split: [("a", {"image": picture, "file_name": "a", "label": 0})] for split in ("train", "validation", "test")
    }
    folder = write_folder(tmp_path, "sun397", splits)
    path = folder / "dataset_info.json"
    info = json.loads(path.read_text())
    official = {"train": count, "validation": 10_875, "test": 21_750}
    for split in info["splits"]:
        split["shardLengths"] = [str(official[split["name"]])]
    path.write_text(json.dumps(info))
    opened = records.Records(folder, datasets()["sun397"])
    if good:
        tfds.check_counts(opened, official=True)
        return
    with pytest.raises(UserError, match=f"split train at .* has {count:,} examples and VTAB's has 76,127"):
        tfds.check_counts(opened, official=True)
