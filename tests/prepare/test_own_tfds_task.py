"""A TFDS task of one's own is one YAML file: it is planned, and changes nothing of VTAB's 19 or of other keys."""

import gzip
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from miniatures.place import Places, put
from vtabflow.errors import UserError
from vtabflow.planning.tasks import tfds_tasks, vtab
from vtabflow.prepare.store import open_store
from vtabflow.prepare.tfds.datasets import datasets, read
from vtabflow.prepare.tfds.records import integer_keys

ROOT = Path(__file__).parents[2]
MNIST = """\
builder: mnist
version: 3.0.1
split: 90/10
counts: {train: 60_000, test: 10_000}
native: [28, 28, 1]
tasks:
  mnist:
    display: MNIST
    group: own
    classes: 10
"""
STUDY = """\
study: own
methods: [from-scratch]
tasks: [%s]
budgets: [1k]
"""
CODE = """
import json
from vtabflow.planning.keys import plan
from vtabflow.planning.study import load
found = plan(load("params.yaml"))
stores = {spec.dataset: [spec.key, spec.source, list(spec.tasks)] for spec in found.stores.values()}
print(json.dumps({"stores": stores, "cells": sorted(found.cells), "vtab": found.page.left_out.vtab}))
"""


def planned(package: Path, work: Path, tasks: str) -> dict:
    work.mkdir(exist_ok=True)
    (work / "params.yaml").write_text(STUDY % tasks)
    shutil.copy(ROOT / "code.lock", work)
    env = {**os.environ, "PYTHONPATH": str(package)}
    run = subprocess.run([sys.executable, "-c", CODE], cwd=work, env=env, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def test_vtab_has_19_tasks_in_the_papers_order():
    assert len(vtab()) == 19 and [*vtab()][::18] == ["caltech101", "smallnorb-elevation"]
    places = [task.vtab for dataset in datasets().values() for task in dataset.tasks.values() if task.vtab]
    assert sorted(places) == list(range(1, 20))
    assert [task.group for task in vtab().values()] == ["natural"] * 7 + ["specialized"] * 4 + ["structured"] * 8
    assert list(tfds_tasks())[:19] == list(vtab())


def test_a_twentieth_task_is_one_file(tmp_path):
    package = tmp_path / "src"
    shutil.copytree(ROOT / "src", package, ignore=shutil.ignore_patterns("__pycache__"))
    before = planned(package, tmp_path / "before", "svhn, clevr-count")
    (package / "vtabflow/prepare/tfds/datasets/mnist.yaml").write_text(MNIST)
    assert planned(package, tmp_path / "again", "svhn, clevr-count") == before, "no key depends on the new file"
    after = planned(package, tmp_path / "after", "svhn, clevr-count, mnist")
    assert after["stores"]["mnist"][1:] == ["tfds", ["mnist"]]
    assert {name: spec for name, spec in after["stores"].items() if name != "mnist"} == before["stores"]
    assert set(before["cells"]) < set(after["cells"]) and len(after["cells"]) == 3
    assert after["vtab"] == before["vtab"] and len(after["vtab"]) == 17
    assert planned(package, tmp_path / "alone", "mnist")["vtab"] == []


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (MNIST.replace("builder: mnist\n", ""), "mnist.yaml: the field 'builder' is missing.*correct it"),
        (MNIST + "colour: blue\n", "mnist.yaml: the field 'colour' is not known.*correct it"),
        (MNIST.replace("[28, 28, 1]", "28"), "mnist.yaml: native is 28 .*correct it"),
        ("[1, 2]", "mnist.yaml should hold the fields of a dataset"),
        ("{", "mnist.yaml cannot be read"),
    ],
)
def test_a_file_that_describes_no_dataset_is_named(tmp_path, text, fault):
    (tmp_path / "mnist.yaml").write_text(text)
    with pytest.raises(UserError, match=f"(?s){fault}"):
        read(tmp_path / "mnist.yaml", "mnist")


URL = "https://storage.googleapis.com/cvdf-datasets/mnist/"
PREPARE = """
from vtabflow.planning import keys, state, study
from vtabflow.prepare import step

for spec in keys.plan(study.load("params.yaml")).stores.values():
    step.run(spec)
"""


def mnist_files(split: str, count: int) -> tuple[dict[str, bytes], np.ndarray, np.ndarray]:
    """MNIST's two files of a split, whose images have their number in the first pixels, and images and labels."""
    images = np.zeros((count, 28, 28), np.uint8)
    images.reshape(count, -1)[:, :4] = np.arange(count, dtype=">u4").view(np.uint8).reshape(count, 4)
    labels = (np.arange(count) * 7 % 10).astype(np.uint8)
    prefix = {"train": "train", "test": "t10k"}[split]
    files = {
        f"{prefix}-images-idx3-ubyte.gz": np.array([2051, count, 28, 28], ">u4").tobytes() + images.tobytes(),
        f"{prefix}-labels-idx1-ubyte.gz": np.array([2049, count], ">u4").tobytes() + labels.tobytes(),
    }
    return {name: gzip.compress(data, 1) for name, data in files.items()}, images, labels


def test_a_task_from_tfds_without_archives_is_prepared_by_the_unmodified_builder(tmp_path):
    """From MNIST's own file format to the store: TFDS finds the files in its cache instead of downloading them."""
    pytest.importorskip("tensorflow_datasets")
    places, truth = Places.under(tmp_path), {}
    for split, count in (("train", 60_000), ("test", 10_000)):
        files, *truth[split] = mnist_files(split, count)
        for name, data in files.items():
            put(places, "mnist", URL + name, data, name)
    package = tmp_path / "src"
    shutil.copytree(ROOT / "src", package, ignore=shutil.ignore_patterns("__pycache__"))
    (package / "vtabflow/prepare/tfds/datasets/mnist.yaml").write_text(MNIST)
    folders = {"folder": str(places.tfds), "downloads": str(places.downloads), "manual": str(places.manual)}
    (tmp_path / "params.yaml").write_text(STUDY % "mnist" + json.dumps({"prepare": {"tfds": folders}})[1:-1] + "\n")
    shutil.copy(ROOT / "code.lock", tmp_path)
    env = {**os.environ, "PYTHONPATH": str(package)}
    run = subprocess.run([sys.executable, "-c", PREPARE], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    (manifest,) = tmp_path.glob("data/stores/mnist/*/manifest.json")
    store = open_store(manifest.parent)
    assert store.manifest.counts == {"train": 800, "val": 200, "test": 10_000}
    shares = {"train": ("train", 0), "val": ("train", 54_000), "test": ("test", 0)}
    for split, (source, first) in shares.items():
        images, labels = truth[source]
        rows = integer_keys(source, len(images))[first : first + store.manifest.counts[split]]
        assert np.array_equal(store.labels("mnist", split), labels[rows])
        # 28 px are resized to the study's 32: the corner pixel keeps its value in the legacy resize.
        assert np.array_equal(store.images(split)[:, 0, 0, 0], images[rows, 0, 0])
