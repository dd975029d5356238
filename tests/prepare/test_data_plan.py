"""The plan of what has to be fetched: sizes, states, room, and what is removed when nothing needs it any more."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from vtabflow.prepare import acquire, archives, data_plan, store
from vtabflow.prepare.datasets import DATASETS

TASKS = {
    "cifar100": {"cifar100": 100},
    "clevr": {"clevr-count": 8, "clevr-distance": 6},
    "dsprites": {"dsprites-location": 16},
}


def spec_of(root: Path, dataset: str, size: int = 224, rows: str = "all", **image) -> dict:
    """A store's spec as the study plans it, with places below `root`."""
    known = DATASETS.get(dataset)
    tasks = TASKS.get(dataset, {dataset: 10})
    imagenet = {"form": "packed", "side": None, "quality": None, **image}
    return {
        "step": "prepare",
        "key": "0123456789abcdef",
        "dataset": dataset,
        "folder": str(root / "stores" / dataset / "0123456789abcdef"),
        "manifest": str(root / "manifests" / f"{dataset}.json"),
        "source": "tfds" if known else "imagenet",
        "settings": {"version": known.version if known else "5.1.0", "counts": "official", "checksums": {}},
        "image": {"size": size, "resize": "legacy", **image} if known else imagenet,
        "rows": rows,
        "tasks": list(tasks),
        "classes": tasks,
        "places": {
            **{name: str(root / name) for name in ("tfds", "downloads", "manual")},
            "checksums": None,
            "mirrors": {},
        },
    }


@pytest.fixture(autouse=True)
def large_disk(monkeypatch):
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(acquire.shutil, "disk_usage", lambda _: usage._replace(free=10**13))


def lay_store(spec: dict) -> None:
    shape = (2, 4, 4, 3)
    labels = {task: dict.fromkeys(store.SPLITS, np.array([0, 1])) for task in spec["tasks"]}
    ids = {split: [f"{split}{i}" for i in range(2)] for split in store.SPLITS}
    store.write(spec, dict.fromkeys(store.SPLITS, np.zeros(shape, np.uint8)), labels, ids, spec["classes"])


def lay_records(spec: dict, ours: bool) -> Path:
    folder = data_plan.records_folder(spec)
    folder.mkdir(parents=True)
    (folder / "dataset_info.json").write_text("{}")
    (folder / "x.array_record").write_bytes(b"r" * 1000)
    if ours:
        acquire.generated(spec["places"], data_plan.spec_id(spec), folder)
    return folder


def state(spec: dict) -> str:
    text, _ = data_plan.plan_text([spec])
    return text.splitlines()[2]


def test_sizes_of_stores_follow_from_counts_and_pixels(tmp_path):
    labels = 8 + 24
    # Native pixels are kept up to the target; anything else becomes size x size.
    assert data_plan.store_bytes(spec_of(tmp_path, "cifar100")) == 60_000 * (32 * 32 * 3 + labels)
    assert data_plan.store_bytes(spec_of(tmp_path, "cifar100", size=16)) == 60_000 * (16 * 16 * 3 + labels)
    assert data_plan.store_bytes(spec_of(tmp_path, "cifar100", rows="1k")) == 11_000 * (32 * 32 * 3 + labels)
    assert data_plan.store_bytes(spec_of(tmp_path, "dsprites")) == 737_280 * (64 * 64 + labels)
    assert data_plan.store_bytes(spec_of(tmp_path, "clevr")) == 85_000 * (224 * 224 * 3 + 2 * 8 + 24)
    assert data_plan.store_bytes(spec_of(tmp_path, "dtd")) == 5_640 * (224 * 224 * 3 + labels)
    floats = data_plan.store_bytes(spec_of(tmp_path, "dtd", numbers="float32"))
    assert floats == 5_640 * (4 * 224 * 224 * 3 + labels)
    whole = data_plan.store_bytes(spec_of(tmp_path, "imagenet"))
    assert data_plan.store_bytes(spec_of(tmp_path, "imagenet", side=250)) == whole / 4


def test_a_real_store_has_the_planned_size(tmp_path):
    spec = spec_of(tmp_path, "cifar100", rows="1k")
    counts = {"train": 800, "val": 200, "test": 10_000}
    labels = {"cifar100": {split: np.arange(n) % 100 for split, n in counts.items()}}
    ids = {split: [f"{split}_{i:06d}" for i in range(n)] for split, n in counts.items()}
    store.write(spec, {s: np.zeros((n, 32, 32, 3), np.uint8) for s, n in counts.items()}, labels, ids, spec["classes"])
    found = sum(path.stat().st_size for path in Path(spec["folder"]).rglob("*.*") if path.name != "manifest.json")
    assert abs(found / data_plan.store_bytes(spec) - 1) < 0.01


def test_all_of_vtab(tmp_path, capsys):
    stores = [spec_of(tmp_path, dataset) for dataset in (*DATASETS, "imagenet")]
    assert data_plan.show(stores) == 0
    text = capsys.readouterr().out
    lines = text.splitlines()
    assert [line.split()[0] for line in lines[2:20]] == [*DATASETS, "imagenet", "all"]
    # protocol.md 1.4 says "roughly 175 GB" of downloads, to which the two tars of ImageNet come.
    assert "85.8 GB" not in lines[19] and "328.8 GB" in lines[19]
    for part in (
        "ILSVRC2012_img_train.tar (147,897,477,120 bytes)",
        "NWPU-RESISC45.rar",
        "kaggle.com",
        "image-net.org",
    ):
        assert part in text
    assert "the disk has room for them" in text
    assert data_plan.plan_text([{"source": "procedural"}]) == (
        "nothing to fetch: no dataset of this study comes through TFDS",
        0,
    )


def test_the_states_of_a_dataset(tmp_path, monkeypatch):
    data = b"archive" * 1000
    old = archives.ARCHIVES["cifar100"][0]
    small = archives.Archive(old.url, old.name, len(data), hashlib.sha256(data).hexdigest())
    monkeypatch.setitem(archives.ARCHIVES, "cifar100", (small,))
    spec = spec_of(tmp_path, "cifar100")
    assert "to fetch" in state(spec) and "7.0 kB / 7.0 kB" in state(spec)
    target = acquire.wanted(DATASETS["cifar100"], spec["places"])[0].path
    target.parent.mkdir(parents=True)
    target.with_name(f"{target.name}.part").write_bytes(data[:3000])
    assert "4.0 kB / 7.0 kB" in state(spec)
    (tmp_path / "downloads" / small.name).write_bytes(data)
    acquire.fetch(DATASETS["cifar100"], spec["places"])
    assert "archives there" in state(spec) and "0 bytes / 7.0 kB" in state(spec)
    lay_records(spec, ours=False)
    assert "records there" in state(spec)
    lay_store(spec)
    assert "store there" in state(spec)
    assert "Everything is there." in data_plan.plan_text([spec])[0]


def test_by_hand_until_it_was_brought(tmp_path):
    spec = spec_of(tmp_path, "resisc45")
    assert "by hand  by hand" in state(spec) and "400.0 MB / about 400.0 MB" in state(spec)
    for i in range(45):
        folder = tmp_path / "manual/NWPU-RESISC45" / ("airplane" if i == 0 else f"class_{i}")
        folder.mkdir(parents=True)
        (folder / "a.jpg").touch()
    assert "(airplane has 1" in data_plan.plan_text([spec])[0]
    spec["settings"]["counts"] = "any"
    assert "archives there" in state(spec)
    tree = spec_of(tmp_path, "imagenet")
    tree["places"]["tree"] = str(tmp_path / "train")
    assert "tree there" in state(tree) and "0 bytes / 0 bytes" in state(tree)


def test_a_disk_without_room_is_exit_1(tmp_path, monkeypatch):
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(acquire.shutil, "disk_usage", lambda _: usage._replace(free=10**9))
    text, code = data_plan.plan_text([spec_of(tmp_path, "clevr")])
    assert code == 1 and "has 1.0 GB free and 70.3 GB are needed" in text
    # Two disks are counted each for itself.
    monkeypatch.setattr(
        acquire.shutil, "disk_usage", lambda path: usage._replace(free=10**9 if "tmp" in str(path) else 10**13)
    )
    assert acquire.check_room([(Path("/tmp/a"), 2e9), (Path("/proc/none"), 1e12)])[0].startswith(
        "the disk of /tmp/a has"
    )


@pytest.fixture
def fetched(tmp_path, monkeypatch):
    """cifar100, its archive fetched by the project, with what TFDS would unpack, and a stranger's files beside."""
    data = b"archive" * 1000
    old = archives.ARCHIVES["cifar100"][0]
    small = archives.Archive(old.url, old.name, len(data), hashlib.sha256(data).hexdigest())
    monkeypatch.setitem(archives.ARCHIVES, "cifar100", (small,))
    spec = spec_of(tmp_path, "cifar100")
    (tmp_path / "manual/cifar100").mkdir(parents=True)
    (tmp_path / "manual/cifar100" / small.name).write_bytes(data)
    acquire.fetch(DATASETS["cifar100"], spec["places"])
    name = acquire.wanted(DATASETS["cifar100"], spec["places"])[0].path.name
    for file in (f"extracted/TAR_GZ.{name}/a/b.bin", "extracted/TAR_GZ.other.tar.gz/c.bin", "cifar100/other.tar.gz"):
        (tmp_path / "downloads" / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "downloads" / file).write_bytes(b"x" * 100)
    return spec


def files(root: Path) -> set[str]:
    return {
        path.relative_to(root).as_posix()
        for path in root.rglob("*")
        if path.is_file() and not path.name.startswith(".")
    }


def test_clean_removes_archives_when_the_records_are_there(tmp_path, fetched, capsys):
    before = files(tmp_path)
    assert data_plan.clean([fetched], really=True) == 0
    assert "there is nothing to remove" in capsys.readouterr().out and files(tmp_path) == before
    lay_records(fetched, ours=True)
    before = files(tmp_path)
    assert data_plan.clean([fetched]) == 0
    said = capsys.readouterr().out
    assert "--clean --yes` removes them" in said and files(tmp_path) == before
    assert data_plan.clean([fetched], really=True) == 0
    name = acquire.wanted(DATASETS["cifar100"], fetched["places"])[0].path.name
    gone = {
        f"downloads/cifar100/{name}",
        f"downloads/cifar100/{name}.INFO",
        f"downloads/extracted/TAR_GZ.{name}/a/b.bin",
    }
    assert before - files(tmp_path) == gone and not (tmp_path / f"downloads/extracted/TAR_GZ.{name}").exists()


def test_clean_removes_records_when_every_store_is_there(tmp_path, fetched):
    records = lay_records(fetched, ours=True)
    other = {**spec_of(tmp_path, "cifar100", size=16), "folder": str(tmp_path / "stores/cifar100/1")}
    other["manifest"] += ".1"
    lay_store(fetched)
    data_plan.clean([fetched, other], really=True)
    assert records.exists()
    lay_store(other)
    data_plan.clean([fetched, other], really=True)
    assert not records.exists() and not records.parent.exists() and (tmp_path / "manual/cifar100").exists()


def test_clean_leaves_what_the_project_did_not_make(tmp_path, fetched):
    records = lay_records(fetched, ours=False)
    lay_store(fetched)
    wanted = acquire.wanted(DATASETS["cifar100"], fetched["places"])[0]
    # An archive that was there before, as in a TFDS folder of the user's own.
    data = wanted.path.read_bytes()
    shutil.rmtree(wanted.path.parent)
    wanted.path.parent.mkdir()
    wanted.path.write_bytes(data)
    acquire.fetch(DATASETS["cifar100"], fetched["places"])
    before = files(tmp_path)
    data_plan.clean([fetched], really=True)
    assert files(tmp_path) == before and records.exists()


def test_clean_follows_no_link_out_of_its_folders(tmp_path, fetched):
    records = lay_records(fetched, ours=True)
    lay_store(fetched)
    elsewhere = tmp_path / "elsewhere"
    shutil.move(records, elsewhere)
    records.symlink_to(elsewhere)
    (tmp_path / "downloads/generated").mkdir(exist_ok=True)
    note = next((tmp_path / "downloads/generated").glob("*.json"))
    note.write_text(json.dumps({**json.loads(note.read_text()), "folder": str(elsewhere)}))
    data_plan.clean([fetched], really=True)
    assert (elsewhere / "x.array_record").exists()
