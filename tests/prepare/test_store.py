"""The store: what is written is what is read, and what is not right is refused by name."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from vtabflow.contracts.results import Manifest, SkippedFile
from vtabflow.contracts.specs import ImageSpec, Places, StandinSettings, StoreSpec
from vtabflow.contracts.typed_json import from_json, to_json
from vtabflow.errors import RunError, UserError
from vtabflow.prepare import store
from vtabflow.prepare.hidden_folder import move_into_place
from vtabflow.runtime.files import sha256

COUNTS = {"train": 13, "val": 5, "test": 7}


def spec_in(folder: Path, **changes) -> StoreSpec:
    spec = StoreSpec(
        key="k1",
        dataset="d",
        folder=str(folder / "stores/d/k1"),
        receipt=str(folder / "stores/d/k1.json"),
        manifest=str(folder / "manifests/d/k1.json"),
        source="procedural",
        settings=StandinSettings("d", 0, COUNTS),
        image=ImageSpec(6, "legacy"),
        rows="all",
        tasks=("one", "two"),
        classes={"one": 3, "two": 9},
        identity={},
        code="1",
    )
    return replace(spec, **changes)


def content(seed: int = 0, channels: int = 3) -> dict:
    rng = np.random.default_rng(seed)
    return {
        "arrays": {split: rng.integers(0, 256, (n, 6, 4, channels), np.uint8) for split, n in COUNTS.items()},
        "labels": {
            task: {split: rng.integers(0, classes, n) for split, n in COUNTS.items()}
            for task, classes in (("one", 3), ("two", 9))
        },
        "ids": {split: [f"{split}/é\u2028{i}" for i in range(n)] for split, n in COUNTS.items()},
        "classes": {"one": 3, "two": 9},
    }


def left_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.mark.parametrize("channels", [1, 3])
def test_what_is_written_is_what_is_read(tmp_path, channels):
    places = Places("here", "here", "here", None, {})
    spec, given = spec_in(tmp_path, places=places), content(channels=channels)
    manifest = store.write(spec, **given, class_names={"one": ["a", "b", "c"], "two": list("ihgfedcba")})
    opened = store.open_store(spec.folder)
    for split, count in COUNTS.items():
        images = opened.images(split)
        assert isinstance(images, np.memmap) and not images.flags.writeable
        assert images.dtype == np.uint8 and (images == given["arrays"][split]).all()
        assert opened.ids(split) == given["ids"][split]
        for task, classes in given["classes"].items():
            labels = opened.labels(task, split)
            assert labels.dtype == np.int64 and (labels == given["labels"][task][split]).all()
            counted = tuple(sum(int(label) == value for label in labels) for value in range(classes))
            assert manifest.histogram[task][split] == counted
        assert manifest.counts[split] == count and manifest.shape[split] == (6, 4, channels)
    assert manifest == opened.manifest == from_json(Manifest, json.loads(Path(spec.manifest).read_text()), "")
    assert from_json(StoreSpec, manifest.spec, "") == replace(spec, places=None) and manifest.class_names
    assert manifest.class_names["two"] == tuple("ihgfedcba")
    files = {str(path.relative_to(spec.folder)) for path in Path(spec.folder).rglob("*") if path.is_file()}
    assert set(manifest.sha256) == files - {"manifest.json"}
    assert all(sha256(Path(spec.folder) / name) == value for name, value in manifest.sha256.items())
    assert os.listdir(tmp_path / "stores/d") == ["k1"]


def test_an_empty_split(tmp_path):
    given = content()
    given["arrays"]["test"] = np.zeros((0, 6, 4, 3), np.uint8)
    given["ids"]["test"] = []
    given["labels"] = {task: {**by_split, "test": []} for task, by_split in given["labels"].items()}
    manifest = store.write(spec_in(tmp_path), **given)
    opened = store.open_store(spec_in(tmp_path).folder)
    assert opened.images("test").shape == (0, 6, 4, 3) and opened.ids("test") == []
    assert opened.labels("one", "test").shape == (0,) and manifest.histogram["one"]["test"] == (0, 0, 0)


def test_filling_in_place_and_keeping_fewer(tmp_path):
    spec, given = spec_in(tmp_path), content()
    with store.create_store(spec) as new:
        for split, array in given["arrays"].items():
            room = new.images(split, (1234, 6, 4, 3))
            room[: len(array)] = array
            new.keep(split, len(array))
        new.finish(given["labels"], given["ids"], given["classes"])
    streamed = store.open_store(spec.folder).manifest
    whole = store.write(spec_in(tmp_path / "other"), **given)
    assert streamed.sha256 == whole.sha256


@pytest.mark.parametrize("name", ["train.npy", "test.npy", "labels/two.val.npy", "val.ids.txt"])
def test_one_flipped_byte_is_refused_by_name_and_only_where_it_is_used(tmp_path, name):
    spec = spec_in(tmp_path)
    store.write(spec, **content())
    path = Path(spec.folder) / name
    data = bytearray(path.read_bytes())
    data[-2] ^= 4
    path.write_bytes(data)
    opened = store.open_store(spec.folder)
    uses: dict[str, Callable[[], object]] = {
        "train.npy": lambda: opened.images("train"),
        "test.npy": lambda: opened.images("test"),
    }
    uses |= {"labels/two.val.npy": lambda: opened.labels("two", "val"), "val.ids.txt": lambda: opened.ids("val")}
    for other, use in uses.items():
        if other != name:
            use()
    with pytest.raises(UserError, match=f"{spec.folder}.*{name}.*remove"):
        uses[name]()


def test_a_file_is_checked_once_a_store(tmp_path, monkeypatch):
    spec = spec_in(tmp_path)
    store.write(spec, **content())
    read = []

    def counting(path: Path) -> str:
        read.append(path.name)
        return sha256(path)

    monkeypatch.setattr(store, "sha256", counting)
    opened = store.open_store(spec.folder)
    assert read == []
    opened.images("train"), opened.images("train"), opened.labels("one", "val")
    assert read == ["train.npy", "one.val.npy"]


def test_missing_store_task_split_and_file(tmp_path):
    spec = spec_in(tmp_path)
    with pytest.raises(UserError, match="no complete store at .*k1"):
        store.open_store(spec.folder)
    store.write(spec, **content())
    with pytest.raises(UserError, match="three.*one, two"):
        store.open_store(spec.folder).labels("three", "train")
    (Path(spec.folder) / "val.npy").unlink()
    with pytest.raises(UserError, match="val.npy cannot be read"):
        store.open_store(spec.folder).images("val")
    (Path(spec.folder) / "manifest.json").write_text("{")
    with pytest.raises(UserError, match="manifest.json is not the manifest of a store.*remove .*k1 and prepare"):
        store.open_store(spec.folder)


def test_an_equal_manifest_that_was_pulled_survives(tmp_path):
    spec = spec_in(tmp_path)
    pulled = store.write(spec_in(tmp_path / "elsewhere"), **content())
    Path(spec.manifest).parent.mkdir(parents=True)
    Path(spec.manifest).write_text(json.dumps(to_json(pulled)))
    before = os.stat(spec.manifest)
    store.write(spec, **content())
    assert os.stat(spec.manifest).st_mtime_ns == before.st_mtime_ns and store.is_complete(spec.folder)


def test_another_manifest_refuses_the_store_and_leaves_nothing(tmp_path):
    spec = spec_in(tmp_path)
    pulled = store.write(spec_in(tmp_path / "elsewhere"), **content(seed=1))
    Path(spec.manifest).parent.mkdir(parents=True)
    Path(spec.manifest).write_text(json.dumps(to_json(pulled)))
    with pytest.raises(UserError, match=f"{spec.folder} does not match its manifest {spec.manifest} .*remove"):
        store.write(spec, **content())
    assert left_in(tmp_path / "stores") == ["d"]
    assert json.loads(Path(spec.manifest).read_text()) == to_json(pulled)


def test_file_names_are_free_in_a_folder_and_only_there(tmp_path):
    renamed = content()
    renamed["ids"] = {split: [f"new {name}" for name in names] for split, names in renamed["ids"].items()}
    for source in ("folder", "procedural"):
        spec = spec_in(tmp_path / source, source=source)
        store.write(spec, **content())
        os.rename(spec.folder, spec.folder + "-old")
        if source == "folder":
            store.write(spec, **renamed)
        else:
            with pytest.raises(UserError, match="ids.txt"):
                store.write(spec, **renamed)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "k1.json is not the manifest of a store.*dvc pull"),
        ("[]", "k1.json: the content is .* and should be an object"),
        ("{}", "k1.json: the field 'dataset' is missing"),
    ],
)
def test_a_file_that_is_no_manifest_is_named(tmp_path, text, message):
    spec = spec_in(tmp_path)
    Path(spec.manifest).parent.mkdir(parents=True)
    Path(spec.manifest).write_text(text)
    with pytest.raises(UserError, match=message):
        store.write(spec, **content())


def test_the_file_has_the_fields_of_its_source_and_older_files_are_read(tmp_path):
    spec, given = spec_in(tmp_path), content()
    skipped = [SkippedFile("a.png", "is empty")]
    with store.create_store(spec) as new:
        for split, array in given["arrays"].items():
            new.images(split, array.shape)[...] = array
        manifest = new.finish(given["labels"], given["ids"], given["classes"], None, skipped, tfds_counts={"train": 25})
    data = json.loads(Path(spec.manifest).read_text())
    first = "dataset source settings image rows counts shape classes class_names histogram sha256 skipped spec"
    assert set(data) == {*first.split(), "tfds_counts", "version"}
    assert data["skipped"] == [{"file": "a.png", "reason": "is empty"}] and data["class_names"] is None
    del data["version"]  # as it was written before there was one
    for path in (spec.manifest, spec.folder + "/manifest.json"):
        Path(path).write_text(json.dumps(data))
    store.keep_manifest(spec)
    assert store.open_store(spec.folder).manifest == manifest and manifest.tfds_counts == {"train": 25}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["arrays"].update(val=c["arrays"]["val"].astype(np.float64)), "float64"),
        (lambda c: c["arrays"].update(val=c["arrays"]["val"][..., :2]), "shape"),
        (lambda c: c["ids"]["val"].pop(), "5 images and 4"),
        (lambda c: c["ids"]["val"].__setitem__(0, c["ids"]["val"][1]), "4 different ids"),
        (lambda c: c["ids"]["val"].__setitem__(0, "a\nb"), "line break"),
        (lambda c: c["labels"]["two"].update(val=np.array([0, 1, 2, 9, 3])), "two outside 0..8"),
        (lambda c: c["labels"]["two"].update(val=np.array([0, -1, 2, 3, 3])), "two outside 0..8"),
        (lambda c: c["labels"]["two"].update(val=np.array([0])), "1 labels of two"),
    ],
)
def test_content_that_does_not_fit_leaves_nothing(tmp_path, change, message):
    given = content()
    change(given)
    with pytest.raises(RunError, match=message):
        store.write(spec_in(tmp_path), **given)
    assert left_in(tmp_path) == ["stores", "stores/d"]


def test_makers_at_the_same_time(tmp_path):
    spec, failures = spec_in(tmp_path), []

    def make():
        try:
            store.write(spec, **content())
        except Exception as error:
            failures.append(error)

    makers = [threading.Thread(target=make) for _ in range(8)]
    for maker in makers:
        maker.start()
    for maker in makers:
        maker.join()
    assert not failures and os.listdir(tmp_path / "stores/d") == ["k1"]
    assert (store.open_store(spec.folder).images("train") == content()["arrays"]["train"]).all()


def test_remains_without_a_manifest_are_replaced(tmp_path):
    spec = spec_in(tmp_path)
    Path(spec.folder).mkdir(parents=True)
    (Path(spec.folder) / "train.npy").write_bytes(b"half")
    store.write(spec, **content())
    assert store.open_store(spec.folder).images("train").shape == (13, 6, 4, 3)
    assert os.listdir(tmp_path / "stores/d") == ["k1"]


def test_a_store_that_another_process_completes_at_the_last_moment_stays(tmp_path):
    folder, mine = tmp_path / "k1", tmp_path / ".k1"
    for place in (folder, mine):
        place.mkdir()
        (place / "maker").write_text(place.name)

    def is_complete(place: Path) -> bool:
        complete = store.is_complete(place)
        (folder / "manifest.json").write_text("{}") if folder.exists() else None  # the other process, after the look
        return complete

    move_into_place(mine, folder, is_complete)
    assert (folder / "maker").read_text() == "k1" and store.is_complete(folder)
    assert sorted(os.listdir(tmp_path)) == [".k1", "k1"]


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="this system cannot reserve space")
def test_the_space_of_a_split_is_reserved_before_it_is_filled(tmp_path):
    """A write to a memory map on a full disk would kill the process without a message."""
    with store.create_store(spec_in(tmp_path)) as new:
        images = new.images("train", (500, 6, 4, 3))
        assert os.stat(new.folder / "train.npy").st_blocks * 512 >= images.nbytes


def test_permissions_follow_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        store.write(spec_in(tmp_path), **content())
    finally:
        os.umask(before)
    assert os.stat(spec_in(tmp_path).folder).st_mode & 0o777 == 0o750


def test_no_permission_is_a_sentence(tmp_path):
    (tmp_path / "stores").write_text("a file where a folder should be")
    with pytest.raises(RunError, match="cannot write store .*k1: .*run again"):
        store.write(spec_in(tmp_path), **content())


SCRIPT = """
import sys, resource
from dataclasses import replace
sys.path[:0] = [{src!r}, {here!r}]
from test_store import spec_in, content
from pathlib import Path
from vtabflow.prepare import store
from vtabflow.errors import RunError
"""


def script(body: str) -> list[str]:
    src = str(Path(store.__file__).parents[2])
    return [sys.executable, "-c", SCRIPT.format(src=src, here=str(Path(__file__).parent)) + body]


def test_a_full_disk_is_a_sentence_and_leaves_nothing(tmp_path):
    # A limit on the size of a file stands in for the full disk: the same call fails, at the same place.
    body = f"""
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    store.write(spec_in(Path({str(tmp_path)!r})), **content())
except RunError as error:
    print(error)
"""
    done = subprocess.run(script(body), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "cannot write store" in done.stdout and "free the disk" in done.stdout, done
    assert left_in(tmp_path) == ["stores", "stores/d"]


def test_killed_at_any_moment_leaves_nothing_or_a_whole_store(tmp_path):
    # The process writes one store after another and is killed at a random time.
    body = """
print("ready", flush=True)
for number in range(100000):
    spec = spec_in(Path(sys.argv[1]))
    store.write(replace(spec, folder=f"{spec.folder}{number}", manifest=f"{spec.manifest}{number}"), **content())
"""
    rng, whole, torn = random.Random(0), 0, 0
    for turn in range(40):
        if turn >= 8 and whole and torn > 2:
            break
        place = tmp_path / str(turn)
        maker = subprocess.Popen([*script(body), str(place)], stdout=subprocess.PIPE)
        assert maker.stdout is not None
        maker.stdout.readline()
        time.sleep(rng.uniform(0, 0.3))
        maker.send_signal(signal.SIGKILL)
        maker.wait()
        for folder in (place / "stores/d").glob("[!.]*"):
            opened = store.open_store(folder)
            for split in COUNTS:
                assert len(opened.images(split)) == len(opened.labels("two", split)) == len(opened.ids(split))
            whole += 1
        # The next process that makes a store removes what a killed one left of it.
        for remains in list((place / "stores/d").glob(".*")):
            folder = remains.parent / remains.name[1:].split(".")[0]
            store.write(replace(spec_in(place), folder=str(folder)), **content())
            assert not remains.exists() and store.is_complete(folder)
            torn += 1
    assert whole and torn > 2
