"""What surrounds TFDS while it generates gives the same records, for less memory."""

import gzip
import json
import re
import sys
import tarfile
import threading
import time
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from tfds_folders import spec_for

from miniatures import diabetic_retinopathy, kitti
from miniatures.place import Places
from vtabflow.contracts.specs import ImagenetSettings
from vtabflow.errors import RunError, UserError
from vtabflow.prepare import step
from vtabflow.prepare.imagenet import source as imagenet
from vtabflow.prepare.tfds import generation, records
from vtabflow.prepare.tfds import source as tfds
from vtabflow.prepare.tfds.datasets import datasets
from vtabflow.prepare.tfds.datasets import imagenet as imagenet_dataset
from vtabflow.prepare.tfds.generation import load_clevr, mat_images


def clevr_file(folder, kind, entries):
    path = folder / f"CLEVR_val_{kind}.json"
    path.write_text(json.dumps({"info": {"split": "val"}, kind: entries}))
    return path


def test_clevr_is_read_entry_by_entry(tmp_path):
    """The numbers are those of json.load, and only what the builder uses is there."""
    rng = np.random.default_rng(0)
    objects = [{"pixel_coords": rng.normal(0, 100, 3).tolist(), "rotation": 1e-17, "size": "small"} for _ in range(50)]
    scenes = [{"objects": objects[i : i + 5], "directions": {"left": [0.1]}} for i in range(0, 50, 5)]
    with open(clevr_file(tmp_path, "scenes", scenes)) as stream:
        assert load_clevr(stream) == {"scenes": [{"objects": scene["objects"]} for scene in scenes]}
    question = {"question": "How many?", "image_filename": "a.png", "answer": "3", "program": [{"inputs": []}]}
    with open(
        clevr_file(tmp_path, "questions", [question, {**question, "answer": None} | {"split": "val"}][:1])
    ) as stream:
        found = load_clevr(stream)
    assert found == {"questions": [{"image_filename": "a.png", "answer": "3", "question": "How many?"}]}


def test_broken_json_of_clevr_is_refused(tmp_path):
    ijson = pytest.importorskip("ijson")
    path = clevr_file(tmp_path, "scenes", [{"objects": []}] * 5)
    text = path.read_text()
    for broken in (text[:-20], "", "[1]", text.replace('"scenes"', '"others"')):
        path.write_text(broken)
        with pytest.raises((ValueError, ijson.JSONError)), open(path) as stream:
            load_clevr(stream)


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("first", ["X", "y"])
def test_images_of_a_mat_file_are_scipys(tmp_path, compressed, first):
    io_ = pytest.importorskip("scipy.io")
    images = np.random.default_rng(0).integers(0, 256, (4, 5, 3, 7), np.uint8)
    variables = {"X": images, "y": np.arange(7, dtype=np.uint8)[:, None]}
    path = tmp_path / "a.mat"
    io_.savemat(path, {first: variables[first], **variables}, do_compression=compressed)
    found = np.stack(list(mat_images(path, "X")))
    assert np.array_equal(found, np.rollaxis(io_.loadmat(path)["X"], -1)) and np.array_equal(
        found, images.transpose(3, 0, 1, 2)
    )
    for name, says in (("Z", "no variable Z"), ("y", "not an array of four axes")):
        with pytest.raises(ValueError, match=says):
            list(mat_images(path, name))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2 + 100 * (first == "y")])
    with pytest.raises(ValueError, match="ends too early|no variable"):
        list(mat_images(path, "X"))


@pytest.mark.parametrize("same", [True, False])
def test_images_of_a_mat_file_are_not_held(tmp_path, same):
    """98 MB of pixels: a few pieces of 1 MiB at a time, also if a piece unpacks to 1,000 times its size."""
    io_ = pytest.importorskip("scipy.io")
    path, shape = tmp_path / "a.mat", (32, 32, 3, 32_000)
    pixels = np.zeros(shape, np.uint8) if same else np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    io_.savemat(path, {"X": pixels}, do_compression=True)
    del pixels
    tracemalloc.start()
    count = sum(1 for _ in mat_images(path, "X"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 32_000 and peak < 8 << 20


@pytest.mark.parametrize("rows", [1, 3, 10])
def test_rows_of_an_hdf5_file_are_read_as_they_are_used(tmp_path, rows, monkeypatch):
    h5py = pytest.importorskip("h5py")
    monkeypatch.setattr(generation, "ROWS", rows)
    values = np.random.default_rng(0).integers(0, 2, (10, 5, 7), np.uint8)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["imgs"] = values
    found = list(generation._binary_rows(str(tmp_path / "a.h5"), "/imgs"))
    assert np.array_equal(found, values) and found[0].dtype == np.uint8 and found[0].shape == (5, 7)
    with h5py.File(tmp_path / "a.h5", "a") as file:
        file["imgs"][7, 0, 0] = 2
    with pytest.raises(ValueError, match="other values than 0 and 1"):
        list(generation._binary_rows(str(tmp_path / "a.h5"), "/imgs"))


def test_attributes_are_as_before_after_a_failure():
    class Holder:
        kept = 1

    holder = Holder()
    with pytest.raises(ValueError), generation._attributes([(Holder, "kept", 2), (holder, "new", 3)]):
        assert (holder.kept, holder.new) == (2, 3)
        raise ValueError
    assert holder.kept == 1 and not hasattr(holder, "new")


def test_unpacking_waits_for_the_disk_and_streams_gzip(tmp_path, monkeypatch):
    extractor = pytest.importorskip("tensorflow_datasets.core.download.extractor")
    monkeypatch.setattr(generation, "UNWRITTEN", 5)
    gate, written = threading.Event(), []

    def slow(data, target):
        gate.wait()
        written.append((data, target))

    pool = generation._Unpacking(slow)
    submitted = []

    def read_ahead():
        for i in range(20):
            pool.submit(pool.copy, b"x", str(i))
            submitted.append(i)

    reader = threading.Thread(target=read_ahead)
    reader.start()
    time.sleep(0.2)
    assert len(submitted) == 5
    gate.set()
    reader.join()
    path, content = tmp_path / "a.gz", np.random.default_rng(0).bytes(3 << 20)
    path.write_bytes(gzip.compress(content, 1))
    ((name, handle),) = generation._whole_gzip(path)
    pool.submit(pool.copy, handle.read(), str(tmp_path / "a")).result()
    pool.shutdown()
    assert name == "" and (tmp_path / "a").read_bytes() == content and len(written) == 20
    # What stands in for TFDS' own still has its names.
    assert callable(extractor._copy) and callable(extractor.get_extractor()._extract)


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (OSError(28, "No space left on device"), RunError, "no space below .*free some"),
        (OSError("Not enough disk space. Needed: 39 GiB"), RunError, "no space below"),
        (
            FileNotFoundError(2, "No such file", "train/1.jpeg"),
            UserError,
            "a file is missing below .*manual downloads.*train/1.jpeg",
        ),
        (PermissionError(13, "Permission denied", "x"), RunError, "Permission denied.*correct the permission"),
        (ValueError("Invalid magic value for data type!"), RunError, r"\(Invalid magic value for data type!\): check"),
    ],
)
def test_what_tfds_raises_is_told_in_a_sentence(tmp_path, error, kind, words):
    dataset, places = datasets()["sun397"], Places.under(tmp_path).spec()
    wrapped = RuntimeError("Failed to encode example:\n{...}\n")
    wrapped.__cause__ = error
    for raised in (error, wrapped):
        told = tfds.explained(dataset, places, raised)
        assert isinstance(told, kind) and re.search(f"^dataset sun397: .*{words}", str(told)), told
        assert "\n" not in str(told)


def test_a_picture_of_an_archive_that_does_not_decode_is_named(tmp_path):
    pytest.importorskip("tensorflow_datasets")
    places = Places.under(tmp_path)
    kitti.make(places, broken=7)
    with pytest.raises(RunError, match=r"kitti: .*\(training/image_2/000007.png in its archive: .*\): check the files"):
        step.run(spec_for("kitti", places, tmp_path))


@pytest.mark.parametrize("broken", ["train/11_left", "test/20_right"])
def test_a_picture_of_a_folder_that_does_not_decode_is_named(tmp_path, broken):
    pytest.importorskip("tensorflow_datasets")
    places = Places.under(tmp_path)
    diabetic_retinopathy.make(places)
    path = places.manual / f"{broken}.jpeg"
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(RunError, match=rf"diabetic-retinopathy: .*\({path}: .*\): check the files"):
        step.run(spec_for("diabetic-retinopathy", places, tmp_path))


def test_reasons_of_tensorflow_are_told_without_its_own_places():
    text = (
        "{{function_node __wrapped__DecodeImage_device_/job:localhost}} Unknown format. [Op:DecodeImage] name: \nmore"
    )
    assert records._first_line(ValueError(text)) == "Unknown format"
    assert records._first_line(ValueError("[Errno 2] No such file")) == "[Errno 2] No such file"
    assert records._first_line(ValueError()) == "ValueError"


@pytest.mark.parametrize("module", ["tensorflow", "tensorflow_datasets"])
def test_without_tensorflow_the_way_to_it_is_named(tmp_path, monkeypatch, module):
    monkeypatch.setitem(sys.modules, module, None)
    spec = spec_for("cifar100", Places.under(tmp_path), tmp_path)
    settings = ImagenetSettings("tfds", "5.1.0", "any")
    for start in (tfds.make, lambda spec: imagenet.TfdsRecords(spec, settings)):
        with pytest.raises(UserError, match=r"not installed here .*with `make tfds`, then"):
            start(spec)


def test_a_generation_that_fails_leaves_nothing_half_made(tmp_path):
    """Least of all where the disk is full. What another dataset is unpacking stays."""
    dataset, places = datasets()["cifar100"], Places.under(tmp_path).spec()
    records = dataset.records(places.tfds)
    (name,) = tfds._archives(dataset)
    extracted = tmp_path / "downloads/extracted"
    half = [records.with_name(f"incomplete.AB12_{records.name}"), extracted / f"incomplete.1f_TAR_GZ.{name}"]
    whole = [extracted / f"TAR_GZ.{name}", extracted / "incomplete.1f_ZIP.another.zip"]
    with pytest.raises(RunError, match="no space"), tfds._generation_locks(dataset, places):
        for folder in (*half, *whole):
            folder.mkdir(parents=True)
        raise RunError("no space")
    assert not any(folder.exists() for folder in half) and all(folder.exists() for folder in whole)


def test_two_projects_with_one_folder_of_archives_take_turns(tmp_path):
    """Neither removes what the other is unpacking, and one folder for everything is no reason to wait for oneself."""
    dataset, places = datasets()["cifar100"], Places.under(tmp_path).spec()
    (name,) = tfds._archives(dataset)
    half = tmp_path / f"downloads/extracted/incomplete.1f_TAR_GZ.{name}"
    entered = threading.Event()

    def another():
        with tfds._generation_locks(dataset, replace(places, tfds=places.downloads)):
            entered.set()

    thread = threading.Thread(target=another)
    with tfds._generation_locks(dataset, places):
        half.mkdir(parents=True)
        thread.start()
        assert not entered.wait(0.5) and half.exists()
    assert entered.wait(30) and not half.exists()
    thread.join()


def test_what_is_unpacked_stays_where_no_lock_can_be_had(tmp_path):
    dataset, places = datasets()["cifar100"], Places.under(tmp_path).spec()
    (name,) = tfds._archives(dataset)
    half = tmp_path / f"downloads/extracted/incomplete.1f_TAR_GZ.{name}"
    half.mkdir(parents=True)
    (tmp_path / "downloads/.cifar100.unpacking.lock").mkdir()
    with tfds._generation_locks(dataset, places):
        assert half.exists()
    assert half.exists()


def test_a_broken_archive_is_sought_where_it_lies(tmp_path):
    places = Places.under(tmp_path).spec()
    told = str(tfds.explained(imagenet_dataset(), places, tarfile.ReadError("unexpected end of data"), "n01440764.tar"))
    assert (
        f"truncated or broken (at n01440764.tar: unexpected end of data); download it again to {places.manual}" in told
    )
    assert f"remove it from {places.downloads}" in str(tfds.explained(datasets()["clevr"], places, EOFError("x")))


def test_a_nested_tree_is_not_to_be_removed(tmp_path):
    places = Places.under(tmp_path / "places")
    (tmp_path / "train/train/n01440764").mkdir(parents=True)
    with pytest.raises(UserError, match="is nested; move what is in it one level up"):
        imagenet.Tree(replace(spec_for("cifar100", places, tmp_path), places=places.spec(tmp_path)))
