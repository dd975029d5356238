"""The step: sources, receipts, stores that are there already, kills, and the real images."""

import json
import os
import random
import signal
import subprocess
import sys
import time
import types
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small_folders import classes_of, given_splits, spec_for, write_files

from vtabflow.contracts.specs import StandinSettings, StoreSpec
from vtabflow.contracts.typed_json import to_json
from vtabflow.errors import RunError, UserError
from vtabflow.prepare import step, store
from vtabflow.runtime.files import seed_of

SOURCE = Path(store.__file__).parents[2]


def drawn(rng: np.random.Generator, size: int) -> tuple[np.ndarray, dict[str, int]]:
    """A renderer: a grey level that is the class of one task, noise whose mean is irrelevant, a class for the other."""
    count = int(rng.integers(4))
    image = rng.integers(0, 256, (size, size, 1)).astype(np.uint8)
    image[0, 0, 0] = count
    return image, {"toy-count-standin": count, "toy-side-standin": int(image[0, 1, 0] > 127)}


@pytest.fixture
def toy(monkeypatch) -> types.ModuleType:
    """A renderer that this file brings, in the place where renderers are looked for."""
    module = types.ModuleType("vtabflow.standins.toy")
    module.__dict__.update(TASKS={"toy-count-standin": 4, "toy-side-standin": 2}, draw=drawn)
    module.__spec__ = types.SimpleNamespace(name=module.__name__)  # type: ignore[assignment]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module


def toy_spec(place: Path, rows: str = "all", seed: int = 0, module: str = "toy", **counts) -> StoreSpec:
    spec = spec_for(place, place, size=16, rows=rows)
    settings = StandinSettings(module, seed, {"train": 30, "val": 8, "test": 9, **counts})
    tasks = ("toy-count-standin", "toy-side-standin")
    return replace(spec, source="procedural", dataset="toy-standin", settings=settings, tasks=tasks)


def test_a_procedural_store_is_drawn_by_the_seeds_of_the_contract(tmp_path, toy):
    spec = toy_spec(tmp_path)
    step.run(spec)
    opened = store.open_store(spec.folder)
    assert opened.manifest.counts == {"train": 30, "val": 8, "test": 9}
    for split in store.SPLITS:
        for index in range(len(opened.images(split))):
            rng = np.random.default_rng(seed_of("procedural", "toy-standin", 0, split, index))
            image, classes = drawn(rng, 16)
            assert (opened.images(split)[index] == image).all()
            assert all(opened.labels(task, split)[index] == value for task, value in classes.items())
        assert len(set(opened.ids(split))) == len(opened.ids(split))


def test_counts_change_no_example_and_the_seed_changes_all(tmp_path, toy):
    first, more, other = toy_spec(tmp_path / "0"), toy_spec(tmp_path / "1", train=50), toy_spec(tmp_path / "2", seed=1)
    for spec in (first, more, other):
        step.run(spec)
    few, many, seeded = (store.open_store(spec.folder).images("train") for spec in (first, more, other))
    assert (few == many[:30]).all() and not (few == seeded).all(axis=(1, 2, 3)).any()


def test_the_rows_of_1k(tmp_path, toy):
    spec = toy_spec(tmp_path, rows="1k", train=810, val=201, test=9)
    step.run(spec)
    assert store.open_store(spec.folder).manifest.counts == {"train": 800, "val": 200, "test": 9}


def test_unknown_names_are_user_errors(tmp_path, toy):
    for module in ("nobody", "../toy"):
        with pytest.raises(UserError, match=f"no renderer '{module}'"):
            step.run(toy_spec(tmp_path, module=module))
    with pytest.raises(UserError, match="no task other.*toy-count-standin, toy-side-standin"):
        step.run(replace(toy_spec(tmp_path), tasks=("other",)))
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("image", "label", "message"),
    [
        (np.zeros((16, 16, 1)), 0, "drew float64"),
        (np.zeros((16, 15, 1), np.uint8), 0, r"\(16, 15, 1\)"),
        (np.zeros((16, 16), np.uint8), 0, r"\(16, 16\)"),
        (np.zeros((16, 16, 1), np.uint8), 4, "toy-count-standin outside 0..3"),
    ],
)
def test_a_renderer_outside_its_contract_leaves_nothing(tmp_path, toy, image, label, message):
    toy.__dict__["draw"] = lambda rng, size: (image, {"toy-count-standin": label, "toy-side-standin": 0})
    with pytest.raises(RunError, match=message):
        step.run(toy_spec(tmp_path))
    assert os.listdir(tmp_path) == []


def test_receipts_and_a_store_that_is_there(tmp_path, toy):
    spec = toy_spec(tmp_path)
    step.run(spec)
    assert json.loads(Path(spec.receipt).read_text()) == {"key": "k", "folder": spec.folder, "made": True}
    toy.__dict__["draw"] = None
    before = os.stat(Path(spec.folder) / "train.npy")
    Path(spec.receipt).unlink()
    manifest = Path(spec.manifest).read_text()
    Path(spec.manifest).unlink()
    step.run(spec)
    assert json.loads(Path(spec.receipt).read_text())["made"] is False
    assert Path(spec.manifest).read_text() == manifest
    assert os.stat(Path(spec.folder) / "train.npy") == before
    changed = json.loads(manifest)
    changed["sha256"]["val.npy"] = "0" * 64
    Path(spec.manifest).write_text(json.dumps(changed))
    Path(spec.receipt).unlink()
    with pytest.raises(UserError, match=r"store does not match its manifest .*val.npy"):
        step.run(spec)
    assert not Path(spec.receipt).exists()


def test_a_store_that_is_there_costs_no_import_of_a_source(tmp_path):
    path = write_files(tmp_path / "in", classes_of({"a": 4, "b": 4}))
    spec = spec_for(path, tmp_path)
    step.run(spec)
    code = (
        "import sys, json; from vtabflow.prepare import step; from vtabflow.contracts.specs import StoreSpec;"
        "from vtabflow.contracts.typed_json import from_json; step.run(from_json(StoreSpec, json.load(sys.stdin), ''));"
        "print([name for name in ('torch', 'PIL', 'pydantic', 'yaml', 'pandas') if name in sys.modules])"
    )
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    run = [sys.executable, "-c", code]
    done = subprocess.run(
        run, input=json.dumps(to_json(spec)), text=True, capture_output=True, env=environment, timeout=60
    )
    assert done.stdout.strip() == "[]", done
    # Images that keep their size are made without torch as well.
    spec = spec_for(path, tmp_path / "2")
    done = subprocess.run(
        run, input=json.dumps(to_json(spec)), text=True, capture_output=True, env=environment, timeout=60
    )
    assert done.stdout.strip().endswith("['PIL']"), done


def test_a_killed_step_leaves_nothing_or_a_whole_store(tmp_path):
    path = write_files(tmp_path / "in", given_splits(n=60))
    code = (
        "import sys, json; from vtabflow.prepare.step import run; from vtabflow.contracts.specs import StoreSpec;"
        "from vtabflow.contracts.typed_json import from_json; print(1, flush=True);"
        "run(from_json(StoreSpec, json.load(sys.stdin), ''))"
    )
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    rng = random.Random(1)
    found: set[bool] = set()
    longest = 1.0  # seconds until the kill; longer where a busy machine never gets to the end
    for turn in range(30):
        if turn >= 8 and len(found) == 2:
            break
        spec = spec_for(path, tmp_path / f"{turn}")
        run = subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True
        )
        assert run.stdin is not None and run.stdout is not None
        run.stdout.readline()
        run.stdin.write(json.dumps(to_json(spec)))
        run.stdin.close()
        time.sleep(rng.uniform(0, longest))
        run.send_signal(signal.SIGKILL)
        run.wait()
        run.stdout.close()
        whole = store.is_complete(spec.folder)
        assert whole or not Path(spec.folder).exists()
        assert whole or not Path(spec.receipt).exists()
        found.add(whole)
        longest *= 1 if whole else 1.2
        if whole:
            opened = store.open_store(spec.folder)
            assert [len(opened.images(split)) for split in store.SPLITS] == [180, 180, 180]
        # The run that follows finishes the work and clears the remains of the killed one.
        if turn % 4 == 0:
            step.run(spec)
            assert sorted(os.listdir(tmp_path / f"{turn}")) == ["manifest.json", "store", "store.json"]
    assert found == {True, False}


@pytest.mark.parametrize(
    ("name", "counts", "shape"),
    [
        ("coil20_azimuth", {"train": 864, "val": 288, "test": 288}, (32, 32, 1)),
        ("eurosat", {"train": 2100, "val": 700, "test": 700}, (64, 64, 3)),
    ],
)
def test_real_images(tmp_path, real_data, name, counts, shape):
    spec = replace(spec_for(real_data / f"{name}.zip", tmp_path, size=64), dataset=name, tasks=(name,))
    step.run(spec)
    opened = store.open_store(spec.folder)
    assert opened.manifest.counts == counts and opened.manifest.shape["train"] == shape
    assert opened.manifest.skipped == ()
    for split, count in counts.items():
        histogram = opened.manifest.histogram[name][split]
        assert min(histogram) == max(histogram) == count // len(histogram)
