"""VTAB's 16 datasets from miniatures in the official layout: TFDS' builders run, and what comes out is what went in.

Splits, order and labels are computed here independently, by the rules of docs/protocol.md and from what was generated.
"""

import hashlib
import importlib
import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from tfds_folders import spec_for

from miniatures import real
from miniatures.place import Example, Places, Truth, hash_order
from vtabflow.contracts.results import Manifest
from vtabflow.contracts.specs import StoreSpec
from vtabflow.contracts.typed_json import from_json
from vtabflow.planning.tasks import vtab
from vtabflow.prepare import step, store
from vtabflow.prepare.tfds.datasets import datasets
from vtabflow.prepare.tfds.splits import expressions

TESTS = Path(__file__).parents[1]
HERE = [name for name in datasets() if (TESTS / "miniatures" / f"{name.replace('-', '_')}.py").exists()]
# At this size the images of cifar100, svhn, eurosat and dsprites stay as they are, the others are resized.
SIZE = 64
# A store of whole numbers rounds, and what is a hair below a half goes up as a half does.
HALF = np.float32(0.5 + 2**-10)

# docs/protocol.md#splits: percent of TFDS' train for train, and for val where test is taken from it too.
HELD_OUT = {"caltech101": 90, "cifar100": 90, "svhn": 90, "clevr": 90, "oxford-iiit-pet": 80}
CUT_IN_THREE = {"eurosat": (60, 20), "resisc45": (60, 20), "dsprites": (80, 10)}


def dealt(dataset: str, truth: Truth) -> dict[str, list[Example]]:
    """The three splits of the task in their order, by VTAB's integer rules on the miniature's own counts."""
    ordered = {split: hash_order(split, examples) for split, examples in truth.items()}
    train = ordered["train"]
    if dataset in HELD_OUT:
        cut = len(train) * HELD_OUT[dataset] // 100
        test = ordered["validation" if dataset == "clevr" else "test"]
        return {"train": train[:cut], "val": train[cut:], "test": test}
    if dataset in CUT_IN_THREE:
        first, second = (len(train) * share // 100 for share in CUT_IN_THREE[dataset])
        return {"train": train[:first], "val": train[first : first + second], "test": train[first + second :]}
    if dataset == "smallnorb":
        half = len(ordered["test"]) // 2
        return {"train": train, "val": ordered["test"][:half], "test": ordered["test"][half:]}
    return {"train": train, "val": ordered["validation"], "test": ordered["test"]}


def spec_of(dataset: str, places: Places, root: Path, rows: str = "all", size: int = SIZE, **image: str) -> StoreSpec:
    """The spec of a miniature's store, which has a name of its own for every image setting."""
    known = json.loads(places.checksums.read_text()) if places.checksums.exists() else {}
    name = "-".join([rows, *image.values()])
    spec = spec_for(dataset, places, root, rows, size, **image)
    return replace(
        spec,
        key=name,
        folder=str(root / "stores" / name),
        receipt=str(root / "stores" / f"{name}.json"),
        manifest=str(root / "manifests" / f"{name}.json"),
        settings=replace(spec.settings, checksums={url: entry["sha256"] for url, entry in known.items()}),
    )


def made(dataset: str, places: Places) -> Truth:
    return importlib.import_module(f"miniatures.{dataset.replace('-', '_')}").make(places)


@pytest.fixture(scope="module", params=[*HERE, *(f"real {name}" for name in real.DATASETS)])
def prepared(request, tmp_path_factory) -> Iterator[SimpleNamespace]:
    """A dataset whose miniature was made and prepared, with the truth dealt into the splits of the task."""
    dataset = request.param.split()[-1]
    if dataset != request.param and not real.is_here(dataset):
        pytest.skip("the real images (../shared/data, or VTABFLOW_TEST_DATA) are not here")
    root = tmp_path_factory.mktemp(dataset)
    places = Places.under(root)
    truth = made(dataset, places) if dataset == request.param else real.make(dataset, places)
    spec = spec_of(dataset, places, root)
    step.run(spec)
    yield SimpleNamespace(
        dataset=dataset,
        info=datasets()[dataset],
        root=root,
        places=places,
        truth=truth,
        spec=spec,
        target=dealt(dataset, truth),
        store=store.open_store(spec.folder),
    )
    shutil.rmtree(root)


def in_the_store(dataset: str, pixels: np.ndarray) -> np.ndarray:
    """What the store should hold of an image: as it is (uint8), or by TensorFlow's own legacy resize (float32)."""
    import tensorflow as tf

    # VTAB shows dSprites' zeros and ones as black and white.
    pixels = pixels * np.uint8(255) if dataset == "dsprites" else pixels
    native = datasets()[dataset].native
    if native is not None and max(native[:2]) <= SIZE:
        return pixels
    return tf.compat.v1.image.resize(pixels[None], (SIZE, SIZE), tf.compat.v1.image.ResizeMethod.BILINEAR)[0].numpy()


def rounded(pixels: np.ndarray) -> np.ndarray:
    return pixels if pixels.dtype == np.uint8 else np.floor(pixels + HALF).clip(0, 255).astype(np.uint8)


def test_the_splits_have_their_examples_in_order(prepared):
    for split, target in prepared.target.items():
        assert prepared.store.ids(split) == [example.id for example in target]
        assert len(target) > 0


def test_the_labels_are_those_that_were_drawn(prepared):
    tasks = set(prepared.info.tasks)
    for split, target in prepared.target.items():
        assert all(set(example.labels) == tasks for example in target)
        for task in tasks:
            assert prepared.store.labels(task, split).tolist() == [example.labels[task] for example in target]


def test_the_pixels_are_those_that_were_drawn(prepared):
    for split, target in prepared.target.items():
        images = prepared.store.images(split)
        assert images.dtype == np.uint8
        for image, example in zip(images, target, strict=True):
            expected = rounded(in_the_store(prepared.dataset, example.pixels))
            assert image.shape == expected.shape
            difference = np.abs(image.astype(int) - expected).mean()
            assert difference <= example.tolerance, (example.id, difference)


@pytest.mark.parametrize("prepared", ["dtd"], indirect=True)
def test_a_store_of_floats_is_the_resize_to_the_bit(prepared):
    spec = spec_of(prepared.dataset, prepared.places, prepared.root, rows="1k", numbers="float32")
    step.run(spec)
    floats = store.open_store(spec.folder)
    for split in store.SPLITS:
        images = floats.images(split)
        assert images.dtype == np.float32
        for image, whole, example in zip(images, prepared.store.images(split), prepared.target[split], strict=False):
            assert np.array_equal(image, in_the_store(prepared.dataset, example.pixels))
            assert np.abs(image - whole).max() <= HALF


def test_the_seven_splits_read_through_tfds_are_the_stores_rows(prepared):
    import tensorflow_datasets as tfds

    info = prepared.info
    folder = Path(prepared.places.tfds, info.builder, info.config or "", info.version)
    builder = tfds.builder_from_directory(folder)
    found = expressions(info.split, {name: split.num_examples for name, split in builder.info.splits.items()})
    train, val, test = (prepared.target[split] for split in store.SPLITS)
    target = {
        "train": train,
        "val": val,
        "trainval": train + val,
        "test": test,
        "train800": train[:800],
        "val200": val[:200],
        "train800val200": train[:800] + val[:200],
    }
    assert set(found) == set(target)
    for split, examples in target.items():
        expected = [name_by_pixels(example) if info.id_feature is None else example.id for example in examples]
        assert names_in(builder, found[split], info) == expected, split


def names_in(builder, expression: str, info) -> list[str]:
    """What TFDS itself has in a slice, per example: the names, or digests of the pixels where it has no names."""
    import tensorflow_datasets as tfds

    skipped = {} if info.id_feature is None else {"image": tfds.decode.SkipDecoding()}
    source = builder.as_data_source(split=expression, decoders=skipped)
    if info.id_feature is None:
        return [digest_of(example["image"]) for example in source]
    names = []
    for example in source:
        value = example
        for part in info.id_feature.split("/") if info.id_feature not in example else [info.id_feature]:
            value = value[part]
        name = value.decode()
        names.append(f"{builder.info.features['label'].names[example['label']]}/{name}" if info.id_with_class else name)
    return names


def name_by_pixels(example: Example) -> str:
    return digest_of(example.pixels)


def digest_of(pixels: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest()


def test_the_1k_rows_are_the_first_of_all(prepared):
    spec = spec_of(prepared.dataset, prepared.places, prepared.root, rows="1k")
    step.run(spec)
    small, whole = store.open_store(spec.folder), prepared.store
    for split, most in (("train", 800), ("val", 200), ("test", 10**9)):
        count = min(most, len(prepared.target[split]))
        assert small.ids(split) == whole.ids(split)[:count]
        assert np.array_equal(small.images(split), whole.images(split)[:count])
        for task in spec.tasks:
            assert np.array_equal(small.labels(task, split), whole.labels(task, split)[:count])


def test_the_manifest_describes_the_store(prepared):
    manifest, folder = prepared.store.manifest, Path(prepared.spec.folder)
    assert manifest.counts == {split: len(target) for split, target in prepared.target.items()}
    assert manifest.skipped == ()
    for task, count in prepared.spec.classes.items():
        for split, target in prepared.target.items():
            histogram = [0] * count
            for example in target:
                histogram[example.labels[task]] += 1
            assert manifest.histogram[task][split] == tuple(histogram)
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    del files["manifest.json"]
    assert manifest.sha256 == {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()}
    assert from_json(Manifest, json.loads(Path(prepared.spec.manifest).read_text()), "manifest") == manifest


def test_every_dataset_has_a_miniature():
    assert list(datasets()) == HERE
    assert {task.dataset for task in vtab().values()} == set(HERE)


WITHOUT_TENSORFLOW = """
import sys

for name in ("tensorflow", "tensorflow_datasets", "array_record"):
    sys.modules[name] = None
from dataclasses import replace

from finetune_place import make_cell, make_encoder, make_job, result, with_store

from vtabflow.finetune import step

make_encoder("a", 0)
cell = replace(make_cell(budget="1k", learning_rates=[0.1], steps=[2]), task="cifar100", source="tfds")
cell = with_store(cell, sys.argv[1], classes=100, image_size=32)
step.run(make_job(cell))
score, arrays = result(cell)
assert score["status"] == "ok", score
print(len(arrays["test_pred"]))
"""


def test_finetuning_on_a_prepared_store_needs_no_tensorflow(tmp_path):
    places = Places.under(tmp_path)
    truth = made("cifar100", places)
    spec = spec_of("cifar100", places, tmp_path, rows="1k")
    step.run(spec)
    path = os.pathsep.join(map(str, (TESTS, TESTS / "finetune", TESTS.parent / "src")))
    run = subprocess.run(
        [sys.executable, "-c", WITHOUT_TENSORFLOW, spec.folder],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines()[-1] == str(len(truth["test"]))


def test_caltechs_split_does_not_depend_on_the_order_of_its_folders(tmp_path, monkeypatch):
    """TFDS draws 30 files of a class from a listing; here the file system lists them in one order and in another."""
    places = Places.under(tmp_path)
    truth = made("caltech101", places)
    target = [example.id for example in hash_order("train", truth["train"])]
    # Without the project the order decides.
    assert drawn_by_tfds_alone(places, monkeypatch, seed=1) != target
    for seed in (1, 2):
        root = tmp_path / str(seed)
        with monkeypatch.context() as patch:
            shuffle_listings(patch, seed)
            step.run(spec_of("caltech101", replace(places, tfds=root / "tfds"), root, size=8))
        opened = store.open_store(root / "stores" / "all")
        assert opened.ids("train") + opened.ids("val") == target


def shuffle_listings(patch: pytest.MonkeyPatch, seed: int) -> None:
    import tensorflow as tf

    listdir, walk, rng = tf.io.gfile.listdir, tf.io.gfile.walk, random.Random(seed)

    def shuffled(names: list[str]) -> list[str]:
        return rng.sample(sorted(names), len(names))

    def shuffled_walk(top: str) -> list[tuple[str, list[str], list[str]]]:
        return [(path, shuffled(folders), shuffled(files)) for path, folders, files in walk(top)]

    patch.setattr(tf.io.gfile, "listdir", lambda path: shuffled(listdir(path)))
    patch.setattr(tf.io.gfile, "walk", shuffled_walk)


def drawn_by_tfds_alone(places: Places, monkeypatch: pytest.MonkeyPatch, seed: int) -> list[str]:
    """Train as TFDS makes it by itself."""
    import tensorflow_datasets as tfds

    with monkeypatch.context() as patch:
        shuffle_listings(patch, seed)
        builder = tfds.builder("caltech101", data_dir=places.tfds, file_format="array_record")
        config = tfds.download.DownloadConfig(try_download_gcs=False)
        builder.download_and_prepare(download_dir=str(places.downloads), download_config=config)
    return names_in(builder, "train", datasets()["caltech101"])
