"""The plan of what has to be fetched: sizes, states, room, and what is removed when nothing needs it any more."""

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small_folders import encoded, noise, prepared, spec_for, write_files

from vtabflow.contracts.specs import (
    ImagenetSettings,
    ImageSpec,
    PackedImageSpec,
    Places,
    StandinSettings,
    StoreSpec,
    TfdsSettings,
)
from vtabflow.data import plan as data_plan
from vtabflow.data import room
from vtabflow.prepare import store
from vtabflow.prepare.tfds import acquire, archives, origin
from vtabflow.prepare.tfds import manual as manual_module
from vtabflow.prepare.tfds.datasets import dataset_of, datasets

TASKS = {
    "cifar100": {"cifar100": 100},
    "clevr": {"clevr-count": 8, "clevr-distance": 6},
    "dsprites": {"dsprites-location": 16},
}


def spec_of(root: Path, dataset: str, size: int = 224, rows: str = "all", **image) -> StoreSpec:
    """A store's spec as the study plans it, with places below `root`."""
    known, is_task = dataset_of(dataset), dataset != "imagenet"
    tasks = TASKS.get(dataset, {dataset: 10})
    return StoreSpec(
        key="0123456789abcdef",
        dataset=dataset,
        folder=str(root / "stores" / dataset / "0123456789abcdef"),
        receipt="",
        manifest=str(root / "manifests" / f"{dataset}.json"),
        source="tfds" if is_task else "imagenet",
        settings=TfdsSettings(known.builder, known.config, known.version, {}, "official")
        if is_task
        else ImagenetSettings("tfds", known.version, "official"),
        image=ImageSpec(**{"size": size, "resize": "legacy", **image})
        if is_task
        else PackedImageSpec(**{"side": None, "quality": None, **image}),
        rows=rows,
        tasks=tuple(tasks),
        classes=tasks,
        identity={},
        code="",
        places=Places(*(str(root / name) for name in ("tfds", "downloads", "manual")), None, {}),
    )


@pytest.fixture(autouse=True)
def large_disk(monkeypatch):
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(acquire.shutil, "disk_usage", lambda _: usage._replace(free=10**13))


def lay_store(spec: dict) -> None:
    shape = (2, 4, 4, 3)
    labels = {task: dict.fromkeys(store.SPLITS, np.array([0, 1])) for task in spec.tasks}
    ids = {split: [f"{split}{i}" for i in range(2)] for split in store.SPLITS}
    store.write(spec, dict.fromkeys(store.SPLITS, np.zeros(shape, np.uint8)), labels, ids, spec.classes)


def lay_records(spec: dict, ours: bool) -> Path:
    folder = data_plan._Files.of(spec).records
    folder.mkdir(parents=True)
    (folder / "dataset_info.json").write_text("{}")
    (folder / "x.array_record").write_bytes(b"r" * 1000)
    if ours:
        origin.note_generated(spec.places, dataset_of(spec.dataset), folder)
    return folder


def state(spec: dict) -> str:
    text, _ = data_plan.plan_text([spec])
    return text.splitlines()[2]


def manual_bytes(spec: dict) -> tuple[float, float]:
    """What the plan says that a person has to fetch, and that will be written to the folder for it."""
    row = data_plan._row(data_plan._Files.of(spec))
    automatic = sum(file.size for file in dataset_of(spec.dataset).archives)
    return row.missing - automatic, sum(size for folder, size in row.needs if folder.name == "manual")


def lay_sparse(path: Path, size: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as stream:
        stream.truncate(size)


def lay_images(folder: Path, count: int, suffix: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        (folder / f"{i}{suffix}").touch()


def test_sizes_of_stores_follow_from_counts_and_pixels(tmp_path):
    labels = 8 + 24
    # Native pixels are kept up to the target; anything else becomes size x size.
    assert room.store_bytes(spec_of(tmp_path, "cifar100")) == 60_000 * (32 * 32 * 3 + labels)
    assert room.store_bytes(spec_of(tmp_path, "cifar100", size=16)) == 60_000 * (16 * 16 * 3 + labels)
    assert room.store_bytes(spec_of(tmp_path, "cifar100", rows="1k")) == 11_000 * (32 * 32 * 3 + labels)
    assert room.store_bytes(spec_of(tmp_path, "dsprites")) == 737_280 * (64 * 64 + labels)
    assert room.store_bytes(spec_of(tmp_path, "clevr")) == 85_000 * (224 * 224 * 3 + 2 * 8 + 24)
    assert room.store_bytes(spec_of(tmp_path, "dtd")) == 5_640 * (224 * 224 * 3 + labels)
    whole = [room.store_bytes(spec_of(tmp_path, "cifar100", numbers=number)) for number in ("uint8", "float32")]
    assert whole[0] == whole[1], "pixels that are not resized are whole numbers"
    floats = room.store_bytes(spec_of(tmp_path, "dtd", numbers="float32"))
    assert floats == 5_640 * (4 * 224 * 224 * 3 + labels)
    whole = room.store_bytes(spec_of(tmp_path, "imagenet"))
    assert room.store_bytes(spec_of(tmp_path, "imagenet", side=250)) == whole / 4


def test_a_real_store_has_the_planned_size(tmp_path):
    spec = spec_of(tmp_path, "cifar100", rows="1k")
    counts = {"train": 800, "val": 200, "test": 10_000}
    labels = {"cifar100": {split: np.arange(n) % 100 for split, n in counts.items()}}
    ids = {split: [f"{split}_{i:06d}" for i in range(n)] for split, n in counts.items()}
    store.write(spec, {s: np.zeros((n, 32, 32, 3), np.uint8) for s, n in counts.items()}, labels, ids, spec.classes)
    found = sum(path.stat().st_size for path in Path(spec.folder).rglob("*.*") if path.name != "manifest.json")
    assert abs(found / room.store_bytes(spec) - 1) < 0.01


def test_all_of_vtab(tmp_path, capsys):
    stores = [spec_of(tmp_path, dataset) for dataset in (*datasets(), "imagenet")]
    assert data_plan.show(stores) == 0
    text = capsys.readouterr().out
    lines = text.splitlines()
    assert [line.split()[0] for line in lines[2:22]] == [*datasets(), "imagenet", "all,", "all,", "all"]
    # What is downloaded automatically, and by hand: RESISC45, diabetic retinopathy and ImageNet.
    assert lines[19].startswith("all, automatic") and " 85.8 GB / 85.8 GB " in lines[19]
    assert lines[20].startswith("all, manual") and " 243.0 GB / about 243.0 GB " in lines[20]
    assert lines[21].startswith("all  ") and "328.8 GB / about 328.8 GB" in lines[21]
    for part in (
        "ILSVRC2012_img_train.tar (147,897,477,120 bytes)",
        "NWPU-RESISC45.rar",
        "kaggle.com",
        "image-net.org",
    ):
        assert part in text
    assert "the disk has space for them" in text


def test_folders_and_stand_ins_need_room_alone(tmp_path):
    drawn = replace(
        spec_of(tmp_path, "dtd", size=32),
        source="procedural",
        places=None,
        settings=StandinSettings("dtd", 0, {"train": 1600, "val": 400, "test": 500}),
    )
    classes = {"red": 30, "blue": 20}
    write_files(tmp_path / "own", {f"{a}/{i}.png": encoded(noise()) for a, n in classes.items() for i in range(n)})
    own = replace(spec_for(Path("own"), tmp_path, size=100), folder="store", image=ImageSpec(100, "legacy", "float32"))
    text, code = data_plan.plan_text([drawn, own], tmp_path)
    lines = text.splitlines()
    assert code == 0 and "Nothing is to be downloaded" in text
    assert [line.split()[0] for line in lines[2:4]] == ["dtd", "mine"]
    assert room.store_bytes(drawn) == 2500 * (32 * 32 * 3 + 8 + 24)
    # "blue/10.png" and a line end, one byte less for "red", one less for one digit.
    names = 30 * 11 - 10 + 20 * 12 - 10
    assert room.store_bytes(own, tmp_path) == 50 * (100 * 100 * 3 * 4 + 8) + names
    assert "7.8 MB" in lines[2] and "drawn" in lines[2]
    assert "to prepare" in lines[3] and "own folder" in lines[3] and "6.0 MB" in lines[3]
    assert "13.8 MB are still to be written and the disk has space for them." in text
    prepared(tmp_path / "own", tmp_path, size=100)
    assert "has store" in data_plan.plan_text([own], tmp_path)[0]
    grey = write_files(tmp_path / "grey", {f"{a}/{i}.png": encoded(noise(channels=1)) for a in "ab" for i in range(9)})
    spec = replace(spec_for(grey, tmp_path, size=10), folder=str(tmp_path / "none"))
    assert room.store_bytes(spec) == 18 * (100 + 8 + 8)


def test_the_states_of_a_dataset(tmp_path, monkeypatch):
    data = b"archive" * 1000
    old = datasets()["cifar100"].archives[0]
    small = archives.Archive(old.url, old.name, len(data), hashlib.sha256(data).hexdigest())
    monkeypatch.setitem(datasets(), "cifar100", replace(datasets()["cifar100"], archives=(small,)))
    spec = spec_of(tmp_path, "cifar100")
    assert "to download" in state(spec) and "7.0 kB / 7.0 kB" in state(spec)
    target = acquire.required(datasets()["cifar100"], spec.places)[0].path
    target.parent.mkdir(parents=True)
    target.with_name(f"{target.name}.part").write_bytes(data[:3000])
    assert "4.0 kB / 7.0 kB" in state(spec)
    (tmp_path / "downloads" / small.name).write_bytes(data[:-1])
    assert "4.0 kB / 7.0 kB" in state(spec)
    (tmp_path / "downloads" / small.name).write_bytes(data)
    assert "has archives" in state(spec) and "0 bytes / 7.0 kB" in state(spec)
    acquire.fetch(datasets()["cifar100"], spec.places)
    assert "has archives" in state(spec) and "0 bytes / 7.0 kB" in state(spec)
    lay_records(spec, ours=False)
    assert "has records" in state(spec)
    lay_store(spec)
    assert "has store" in state(spec)
    assert "Everything exists." in data_plan.plan_text([spec])[0]


def test_manual_downloads_until_they_exist(tmp_path):
    spec = spec_of(tmp_path, "resisc45")
    assert "manual  manual" in state(spec) and "400.0 MB / about 400.0 MB" in state(spec)
    for i in range(45):
        folder = tmp_path / "manual/NWPU-RESISC45" / ("airplane" if i == 0 else f"class_{i}")
        folder.mkdir(parents=True)
        (folder / "a.jpg").touch()
    assert "(airplane has 1" in data_plan.plan_text([spec])[0]
    spec = replace(spec, settings=replace(spec.settings, counts="any"))
    assert "has archives" in state(spec)
    tree = spec_of(tmp_path, "imagenet")
    tree = replace(tree, places=replace(tree.places, tree=str(tmp_path / "train")))
    assert "has tree" in state(tree) and "0 bytes / 0 bytes" in state(tree)


def test_imagenet_counts_the_tars_that_are_not_there(tmp_path):
    train, val = dataset_of("imagenet").manual_downloads
    spec, manual = spec_of(tmp_path, "imagenet"), tmp_path / "manual"
    assert manual_bytes(spec) == (train.size + val.size,) * 2
    lay_sparse(manual / "imagenet" / train.name, train.size)  # only to be moved
    assert manual_bytes(spec) == (val.size, val.size)
    lay_sparse(manual / val.name, 1000)  # the first of it
    assert manual_bytes(spec) == (val.size - 1000,) * 2 and "manual  manual" in state(spec)
    lay_sparse(manual / val.name, val.size)
    assert manual_bytes(spec) == (0, 0) and "0 bytes / 154.6 GB" in state(spec)
    (manual / "imagenet" / train.name).rename(manual / train.name)
    assert manual_bytes(spec) == (0, 0) and "has archives" in state(spec)


def test_imagenet_records_of_either_version_are_there(tmp_path):
    spec = spec_of(tmp_path, "imagenet")
    for version, there in (("3.0.0", False), ("5.0.0", True)):
        (tmp_path / "tfds/imagenet2012" / version).mkdir(parents=True)
        (tmp_path / "tfds/imagenet2012" / version / "dataset_info.json").write_text("{}")
        assert ("manual  manual" in state(spec)) != there
    assert "has records" in state(spec) and "156.0 GB" not in state(spec)
    assert data_plan._row(data_plan._Files.of(spec)).needs == [(Path(spec.folder), room.IMAGENET_BYTES)]


def test_retinopathy_counts_the_images_that_are_not_there(tmp_path, monkeypatch):
    whole, counts = datasets()["diabetic-retinopathy"].manual_downloads[0].size, {"train": 35, "test": 53, "sample": 12}
    monkeypatch.setattr(manual_module, "RETINOPATHY_COUNTS", counts)
    spec, manual = spec_of(tmp_path, "diabetic-retinopathy"), tmp_path / "manual"
    assert manual_bytes(spec) == (whole, whole)
    lay_sparse(manual / "train.zip.001", 1000)  # fetched, and still to be unpacked
    lay_images(manual / "sample", 4, ".jpeg")
    assert manual_bytes(spec) == pytest.approx((whole * (53 + 8) / 100, whole * (35 + 53 + 8) / 100))
    (manual / "train.zip.001").unlink()
    lay_images(manual / "train", 35, ".jpeg")
    lay_images(manual / "test/test", 53, ".jpeg")  # only to be moved
    assert manual_bytes(spec) == pytest.approx((whole * 8 / 100,) * 2)
    (manual / "test/test").rename(tmp_path / "test")
    (manual / "test").rmdir()
    (tmp_path / "test").rename(manual / "test")
    lay_images(manual / "sample", 12, ".jpeg")
    text, _ = data_plan.plan_text([spec])
    assert manual_bytes(spec) == (0, 0) and "trainLabels.csv: it is missing" in text
    manual.rename(tmp_path / "diabetic-retinopathy")
    manual.mkdir()
    (tmp_path / "diabetic-retinopathy").rename(manual / "diabetic-retinopathy")
    assert manual_bytes(spec) == (0, 0) and "move what is in it" in data_plan.plan_text([spec])[0]


def test_resisc45_counts_the_images_that_are_not_there(tmp_path, monkeypatch):
    whole = datasets()["resisc45"].manual_downloads[0].size
    monkeypatch.setattr(manual_module, "RESISC45_PER_CLASS", 10)
    spec, manual = spec_of(tmp_path, "resisc45"), tmp_path / "manual"
    assert manual_bytes(spec) == (whole, whole)
    lay_sparse(manual / "NWPU-RESISC45.rar", 1000)  # fetched, and still to be unpacked
    assert manual_bytes(spec) == (0, whole)
    for i in range(43):
        lay_images(manual / f"NWPU-RESISC45/class_{i}", 10, ".jpg")
    lay_images(manual / "NWPU-RESISC45/airplane", 4, ".jpg")
    assert manual_bytes(spec) == (0, pytest.approx(whole * (10 + 6) / 450))
    (manual / "NWPU-RESISC45.rar").unlink()
    assert manual_bytes(spec) == (pytest.approx(whole * (10 + 6) / 450),) * 2
    for name in ("airplane", "airport"):
        lay_images(manual / "NWPU-RESISC45" / name, 10, ".jpg")
    (manual / "NWPU-RESISC45/.cache").mkdir()
    assert manual_bytes(spec) == (0, 0) and "46 class folders and should have 45" in data_plan.plan_text([spec])[0]
    (manual / "NWPU-RESISC45").rename(manual / "resisc45")
    assert manual_bytes(spec) == (0, 0) and "the class folders are in" in data_plan.plan_text([spec])[0]


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
    old = datasets()["cifar100"].archives[0]
    small = archives.Archive(old.url, old.name, len(data), hashlib.sha256(data).hexdigest())
    monkeypatch.setitem(datasets(), "cifar100", replace(datasets()["cifar100"], archives=(small,)))
    spec = spec_of(tmp_path, "cifar100")
    (tmp_path / "manual/cifar100").mkdir(parents=True)
    (tmp_path / "manual/cifar100" / small.name).write_bytes(data)
    acquire.fetch(datasets()["cifar100"], spec.places)
    name = acquire.required(datasets()["cifar100"], spec.places)[0].path.name
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
    shown = capsys.readouterr().out
    assert "--clean --yes` removes them" in shown and files(tmp_path) == before
    assert data_plan.clean([fetched], really=True) == 0
    name = acquire.required(datasets()["cifar100"], fetched.places)[0].path.name
    gone = {
        f"downloads/cifar100/{name}",
        f"downloads/cifar100/{name}.INFO",
        f"downloads/extracted/TAR_GZ.{name}/a/b.bin",
    }
    assert before - files(tmp_path) == gone and not (tmp_path / f"downloads/extracted/TAR_GZ.{name}").exists()


def test_clean_removes_records_when_every_store_is_there(tmp_path, fetched):
    records = lay_records(fetched, ours=True)
    other = replace(spec_of(tmp_path, "cifar100", size=16), folder=str(tmp_path / "stores/cifar100/1"))
    other = replace(other, manifest=f"{other.manifest}.1")
    lay_store(fetched)
    data_plan.clean([fetched, other], really=True)
    assert records.exists()
    lay_store(other)
    data_plan.clean([fetched, other], really=True)
    assert not records.exists() and not records.parent.exists() and (tmp_path / "manual/cifar100").exists()


def test_clean_leaves_what_the_project_did_not_make(tmp_path, fetched):
    records = lay_records(fetched, ours=False)
    lay_store(fetched)
    expected = acquire.required(datasets()["cifar100"], fetched.places)[0]
    # An archive that was there before, as in a TFDS folder of the user's own.
    data = expected.path.read_bytes()
    shutil.rmtree(expected.path.parent)
    expected.path.parent.mkdir()
    expected.path.write_bytes(data)
    acquire.fetch(datasets()["cifar100"], fetched.places)
    before = files(tmp_path)
    data_plan.clean([fetched], really=True)
    assert files(tmp_path) == before and records.exists()


def test_clean_removes_what_was_unpacked_of_an_archive_in_the_archive(tmp_path, fetched, monkeypatch):
    data = b"zip" * 1000
    old = datasets()["caltech101"].archives[0]
    small = archives.Archive(old.url, old.name, len(data), hashlib.sha256(data).hexdigest())
    monkeypatch.setitem(datasets(), "caltech101", replace(datasets()["caltech101"], archives=(small,)))
    (tmp_path / "manual" / small.name).write_bytes(data)
    inner = tmp_path / "downloads/extracted/TAR_GZ.101_ObjectCategories.tar.gz"
    inner.mkdir()
    spec = spec_of(tmp_path, "caltech101")
    acquire.fetch(datasets()["caltech101"], spec.places)
    lay_records(fetched, ours=True)
    data_plan.clean([fetched, spec], really=True)
    assert inner.exists()  # Caltech101 has no records yet
    lay_records(spec, ours=True)
    data_plan.clean([fetched, spec], really=True)
    assert not inner.exists()


def test_clean_removes_nothing_below_a_linked_folder(tmp_path, fetched, capsys):
    """Archives, what is unpacked and records on another disk, and others may use them."""
    lay_records(fetched, ours=False)
    lay_store(fetched)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for place in ("downloads/cifar100", "downloads/extracted", "tfds/cifar100"):
        (tmp_path / place).rename(elsewhere / place.replace("/", "-"))
        (tmp_path / place).symlink_to(elsewhere / place.replace("/", "-"))
    folder = data_plan._Files.of(fetched).records
    origin.note_generated(fetched.places, datasets()["cifar100"], folder)
    assert origin.is_generated(fetched.places, datasets()["cifar100"], folder)
    assert acquire.is_ours(acquire.required(datasets()["cifar100"], fetched.places)[0])
    before = files(tmp_path)
    data_plan.clean([fetched], really=True)
    assert files(tmp_path) == before and "there is nothing to remove" in capsys.readouterr().out


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
