"""The audit: every kind of damage is named, whole stores pass, lossy copies of lossless sets are told from the rest."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from lossy_rates import KINDS, QUALITIES, SIZES, flat, jpeg, natural
from small_folders import classes_of, encoded, prepared, spec_for, write_files

from vtabflow.contracts.results import SkippedFile, StoreAudit
from vtabflow.contracts.specs import ImagenetSettings, TfdsSettings
from vtabflow.contracts.typed_json import from_json
from vtabflow.data import audit, lossy
from vtabflow.prepare import store
from vtabflow.prepare.tfds.datasets import datasets
from vtabflow.prepare.tfds.datasets import imagenet as imagenet_dataset
from vtabflow.runtime.files import read_json, sha256, write_json

RNG = np.random.default_rng(0)


@pytest.fixture
def whole(tmp_path):
    """A small store of the folder source and its spec."""
    path = write_files(tmp_path / "in", classes_of({"a": 20, "b": 20}))
    prepared(path, tmp_path)
    return spec_for(path, tmp_path)


def found(spec: dict) -> tuple[str, int]:
    return audit.report([spec])


def folder(spec: dict) -> Path:
    return Path(spec.folder)


def update_digests(spec: dict) -> None:
    """Make the manifests' digests those of the files, so that no digest shows the damage."""
    manifest = read_json(folder(spec) / "manifest.json")
    manifest["sha256"] = {name: sha256(folder(spec) / name) for name in manifest["sha256"]}
    write_json(folder(spec) / "manifest.json", manifest)
    write_json(spec.manifest, manifest)


def test_a_whole_store_matches_and_one_that_is_not_there_is_no_mismatch(whole, capsys):
    text, code = found(whole)
    assert code == 0 and "matches" in text and "MISMATCH" not in text and "24 / 8 / 8" in text
    assert audit.audit([whole, replace(whole, folder="nowhere")]) == 0
    assert "2 stores: 1 match, 0 do not, 1 not prepared yet" in capsys.readouterr().out


def flip(spec):
    path = folder(spec) / "val.npy"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def relabel(spec):
    path = folder(spec) / "labels/mine.train.npy"
    labels = np.load(path)
    labels[0] = 1 - labels[0]
    np.save(path, labels)


def twice(spec, split="train", other="train"):
    ids = folder(spec) / f"{split}.ids.txt"
    lines = ids.read_text().splitlines()
    lines[1] = (folder(spec) / f"{other}.ids.txt").read_text().splitlines()[0]
    ids.write_text("\n".join(lines) + "\n")


def shorten(spec):
    path = folder(spec) / "test.npy"
    np.save(path, np.load(path)[:-1])


def fewer_labels(spec):
    path = folder(spec) / "labels/mine.val.npy"
    np.save(path, np.load(path)[:-1])


@pytest.mark.parametrize(
    ("damage", "settled", "shown"),
    [
        (flip, False, ["val.npy does not match the manifest"]),
        (relabel, False, ["labels/mine.train.npy does not match the manifest", "the class histogram of mine in train"]),
        (relabel, True, ["the class histogram of mine in train"]),
        (lambda spec: (folder(spec) / "test.npy").unlink(), False, ["test.npy is missing"]),
        (lambda spec: (folder(spec) / "train.ids.txt").unlink(), False, ["train.ids.txt is missing"]),
        (lambda spec: (folder(spec) / "more.npy").touch(), False, ["more.npy is in no manifest"]),
        (twice, True, ["train has an id that is given twice"]),
        (lambda spec: twice(spec, "test", "train"), True, ["/.*png is in train and in test"]),
        (shorten, True, [r"test.npy has shape \(7, 8, 8, 3\) and the manifest \(8, 8, 8, 3\)"]),
        (fewer_labels, True, ["val has 7 labels of mine and the manifest 8 images"]),
        (
            lambda spec: (folder(spec) / "val.npy").write_bytes(b""),
            False,
            ["val.npy does not match the manifest", "cannot be read"],
        ),
        (lambda spec: (folder(spec) / "val.npy").write_bytes(b""), True, ["cannot be read"]),
        (lambda spec: (folder(spec) / "manifest.json").write_text("{"), False, ["cannot be read"]),
        (lambda spec: (folder(spec) / "manifest.json").write_text("{}"), False, ["cannot be read"]),
    ],
)
def test_damage_is_named_with_what_to_do(whole, damage, settled, shown):
    damage(whole)
    if settled:
        update_digests(whole)
    before = {path: path.read_bytes() for path in folder(whole).rglob("*") if path.is_file()}
    text, code = found(whole)
    lines = [line for line in text.splitlines() if line.startswith("MISMATCH")]
    assert code == 1 and len(lines) == len(shown), text
    for line, part in zip(lines, shown, strict=True):
        assert re.search(part, line) and str(folder(whole)) in line and "run `vtabflow prepare` again" in line
    assert before == {path: path.read_bytes() for path in folder(whole).rglob("*") if path.is_file()}


def test_a_manifest_in_git_that_says_otherwise_is_named(whole):
    kept = read_json(whole.manifest)
    kept["sha256"]["train.npy"] = "0" * 64
    kept["sha256"]["val.ids.txt"] = "0" * 64  # names of a folder's files are free
    write_json(whole.manifest, kept)
    text, code = found(whole)
    assert code == 1 and text.count("MISMATCH mine: ") == 1 and "(train.npy)" in text


def test_every_store_is_found_by_its_manifest(tmp_path, whole):
    place = tmp_path / "data/stores/mine/0123456789abcdef"
    place.parent.mkdir(parents=True)
    folder(whole).rename(place)
    specs = audit.every_store(tmp_path)
    assert [spec.source for spec in specs] == ["folder"] and audit.report(specs)[1] == 0
    (place / "manifest.json").write_text("[]")
    assert audit.report(audit.every_store(tmp_path))[1] == 1


# ---- stores from TFDS


def tfds_store(place: Path, dataset: str, arrays: dict, labels=None, counts="official", rows="1k", skipped=()) -> dict:
    """A store as the source tfds would write it, from arrays."""
    tasks = {"cifar100": ("cifar100", 100), "dsprites": ("dsprites-location", 16), "sun397": ("sun397", 397)}
    task, classes = tasks.get(dataset, (dataset, 2))
    is_task = dataset != "imagenet"
    spec = replace(
        spec_for(place / "none", place, size=32, rows=rows),
        dataset=dataset,
        source="tfds" if is_task else "imagenet",
        settings=TfdsSettings("cifar100", None, "3.0.2", {}, counts)
        if is_task
        else ImagenetSettings("tfds", "5.1.0", counts),
        tasks=(task,),
        classes={task: classes},
    )
    labels = labels or {split: np.arange(len(array)) % classes for split, array in arrays.items()}
    ids = {split: [f"{split}_{i}" for i in range(len(array))] for split, array in arrays.items()}
    store.write(spec, arrays, {task: labels}, ids, {task: classes}, None, skipped)
    return spec


def cifar(train=800, val=200, test=300, turn=lambda images: images) -> dict[str, np.ndarray]:
    samples = turn(natural(RNG, 64, 32, 3))
    return {split: np.resize(samples, (n, 32, 32, 3)) for split, n in (("train", train), ("val", val), ("test", test))}


@pytest.fixture(autouse=True)
def small_cifar(monkeypatch):
    """CIFAR-100 with fewer images: a cut of 1,800 (800 kept), 200 and 300."""
    counted(monkeypatch, {"train": 2_000, "test": 300})


def counted(monkeypatch, counts):
    monkeypatch.setitem(datasets(), "cifar100", replace(datasets()["cifar100"], counts=counts))


def test_official_counts(tmp_path):
    assert found(tfds_store(tmp_path / "0", "cifar100", cifar()))[1] == 0
    text, code = found(tfds_store(tmp_path / "1", "cifar100", cifar(test=299)))
    assert code == 1 and "its counts are not VTAB's (test 299 of 300)" in text
    left_out = [SkippedFile("x", "is broken")]
    assert found(tfds_store(tmp_path / "2", "cifar100", cifar(test=299), skipped=left_out))[1] == 0
    assert found(tfds_store(tmp_path / "3", "cifar100", cifar(20, 20, 20), counts="any"))[1] == 0


@pytest.mark.parametrize(
    ("of_records", "in_store", "shown"),
    [
        (76_127, 76_127, None),
        (76_128, 76_128, None),
        (76_128, 76_127, "train 76,127 of 76,128"),
        (76_127, 76_128, "train 76,128 of 76,127"),
        (76_126, 76_126, "train 76,126 of 76,127"),
    ],
)
def test_sun397_has_the_count_of_an_older_tfds_or_that_of_todays(tmp_path, of_records, in_store, shown):
    """docs/protocol.md#data: one image of train less since TFDS 4.9.10, under the same version."""
    counts = {"train": in_store, "val": 10_875, "test": 21_750}
    arrays = {split: np.zeros((count, 1, 1, 3), np.uint8) for split, count in counts.items()}
    spec = tfds_store(tmp_path, "sun397", arrays, rows="all")
    manifest = read_json(folder(spec) / "manifest.json")
    manifest["tfds_counts"] = {"train": of_records, "validation": 10_875, "test": 21_750}
    write_json(folder(spec) / "manifest.json", manifest)
    text, code = found(spec)
    assert code == (shown is not None) and (shown or "1 match") in text, text


def test_imagenets_counts(tmp_path, monkeypatch):
    """The last 40 of 1,024 shards are val (docs/protocol.md#data); what was left out by name is no mismatch."""
    monkeypatch.setitem(imagenet_dataset().counts, "train", 1024)

    def upstream(name, counts="official", skipped=(), **sizes):
        arrays = {split: np.zeros((n, 8, 8, 3), np.uint8) for split, n in {"train": 984, "val": 40, **sizes}.items()}
        spec = tfds_store(tmp_path / name, "imagenet", {**arrays, "test": arrays["val"][:0]}, counts=counts, rows="all")
        manifest = read_json(folder(spec) / "manifest.json")
        manifest["skipped"] = list(skipped)
        write_json(folder(spec) / "manifest.json", manifest)
        return found(replace(spec, source="imagenet"))

    assert upstream("whole")[1] == 0
    text, code = upstream("less", train=983)
    assert code == 1 and "its counts are not ImageNet's (train 983 of 984)" in text
    assert upstream("broken", train=983, skipped=[{"file": "x", "reason": "is broken"}])[1] == 0
    assert upstream("cut", train=900, counts="any")[1] == 0


def test_integer_ids_are_unique_in_a_split_of_tfds_alone(tmp_path):
    # CIFAR-100: train and val are cut from TFDS' train, test is another split of TFDS.
    spec = tfds_store(tmp_path, "cifar100", cifar(20, 20, 20), counts="any")
    for split, other, code in (("test", "train", 0), ("val", "train", 1)):
        lines = (folder(spec) / f"{other}.ids.txt").read_text()
        (folder(spec) / f"{split}.ids.txt").write_text(lines)
        update_digests(spec)
        assert found(spec)[1] == code


def test_a_class_without_an_image(tmp_path, monkeypatch):
    counted(monkeypatch, {"train": 190, "test": 20})
    arrays = cifar(171, 19, 20)
    assert found(tfds_store(tmp_path / "0", "cifar100", arrays, rows="all"))[1] == 0
    labels = {split: np.arange(len(array)) % 99 for split, array in arrays.items()}
    text, code = found(tfds_store(tmp_path / "1", "cifar100", arrays, labels, rows="all"))
    assert code == 1 and "class 99 of cifar100 has no image in train and val" in text


# ---- traces of JPEG


@pytest.mark.parametrize(("size", "channels"), SIZES)
@pytest.mark.parametrize("kind", KINDS)
def test_the_comb_tells_jpeg_from_the_rest(kind, size, channels):
    images = KINDS[kind](np.random.default_rng(1), 128 if size < 64 else 32, size, channels)
    assert lossy.comb(images) < 0.1
    for quality in QUALITIES:
        assert lossy.comb(jpeg(images, quality)) > 0.6, quality


def test_the_comb_does_not_depend_on_the_writer_and_fades_with_the_share():
    pytest.importorskip("cv2")
    images = natural(np.random.default_rng(2), 256, 32, 3)
    assert lossy.comb(jpeg(images, 90, "opencv")) > 0.8
    part = np.concatenate([images[:128], jpeg(images[128:], 90)])
    assert 0.3 < lossy.comb(part) < 0.7
    # Cut out of larger JPEG images at any place, as PatchCamelyon's patches are: no grid in common.
    large = jpeg(natural(np.random.default_rng(3), 64, 96, 3), 80)
    cut = np.stack(
        [image[y : y + 32, x : x + 32] for image, (y, x) in zip(large, RNG.integers(0, 64, (64, 2)), strict=True)]
    )
    assert not lossy.went_through_jpeg(cut)


@pytest.mark.parametrize("shape", [(4, 32, 32, 3), (64, 16, 16, 1)])
def test_too_little_to_judge_is_no_trace(shape):
    assert lossy.comb(np.zeros(shape, np.uint8)) == 0.0
    assert lossy.comb(np.full(shape, 77, np.uint8)) == 0.0


@pytest.mark.parametrize("numbers", [np.uint8, np.float32])
@pytest.mark.parametrize("quality", [50, 75, 95])
def test_a_lossy_copy_of_cifar_is_named(tmp_path, quality, numbers):
    arrays = cifar(turn=lambda images: jpeg(images, quality).astype(numbers))
    text, code = found(tfds_store(tmp_path, "cifar100", arrays))
    assert code == 1 and "show traces of JPEG" in text and "so it is a lossy copy of cifar100" in text
    # The cure makes another store: the records are named, which would give the same one again.
    assert "remove this store and the records of cifar100 3.0.2 in the folder prepare.tfds.folder" in text


def test_floats_are_judged_where_they_are_whole(tmp_path):
    text, code = found(tfds_store(tmp_path / "0", "cifar100", cifar(turn=np.float32)))
    assert code == 0 and " none " in text
    # What was resized has other numbers, and no grid of its own.
    lossy_copy = cifar(turn=lambda images: jpeg(images, 75).astype(np.float32) + np.float32(0.25))
    for name, odd in (("1", 0.0), ("2", np.nan), ("3", -3e9)):
        arrays = {split: array + np.float32(odd) for split, array in lossy_copy.items()}
        text, code = found(tfds_store(tmp_path / name, "cifar100", arrays))
        assert code == 0 and "JPEG" not in text and " none " not in text and " cannot be told " in text


def test_one_split_is_enough(tmp_path):
    arrays = cifar()
    arrays["test"] = np.resize(jpeg(arrays["test"][:64], 75), arrays["test"].shape)
    text, code = found(tfds_store(tmp_path, "cifar100", arrays))
    assert code == 1 and "the pixels of test show traces of JPEG" in text and "of train" not in text


@pytest.mark.parametrize("numbers", [np.uint8, np.float32])
def test_dsprites_are_black_and_white(tmp_path, numbers):
    sprites = ((flat(RNG, 90, 64, 1) > 127) * 255).astype(numbers)
    arrays = {"train": sprites[:50], "val": sprites[50:70], "test": sprites[70:]}
    assert found(tfds_store(tmp_path / "0", "dsprites", arrays, counts="any"))[1] == 0
    copied = {**arrays, "val": jpeg(arrays["val"].astype(np.uint8), 95).astype(numbers)}
    text, code = found(tfds_store(tmp_path / "1", "dsprites", copied, counts="any"))
    assert code == 1 and "the pixels of val are not all 0 or 255, so it is a lossy copy of dsprites" in text
    # The last pixel counts, and a store that was resized has grey pixels by right.
    last = {**arrays, "test": arrays["test"].copy()}
    last["test"][-1, -1, -1] = 254
    assert found(tfds_store(tmp_path / "2", "dsprites", last, counts="any"))[1] == 1
    small = {split: array[:, ::2, ::2] // 2 for split, array in arrays.items()}
    text, code = found(tfds_store(tmp_path / "3", "dsprites", small, counts="any"))
    assert code == 0 and "whether it is a lossy copy of dsprites cannot be told: its images were resized" in text


def exported(place: Path, name: str, classes: int, size: int, count: int = 160, of=None, store_size=None, **options):
    """The spec of a folder of drawn images, and its store."""
    samples = natural(np.random.default_rng(4), count, size, 3)
    files = {
        f"{i % classes:03d}/{i}.{options['kind'].lower()}": encoded(image, **options) for i, image in enumerate(samples)
    }
    path = write_files(place / name, files)
    prepared(path, place, size=store_size or size)
    spec = spec_for(path, place, size=store_size or size)
    return replace(spec, settings=replace(spec.settings, of=of))


PNG, JPEG = {"kind": "PNG"}, {"kind": "JPEG", "quality": 90}


@pytest.mark.parametrize(
    ("of", "options", "code", "shown"),
    [
        ("cifar100", JPEG, 1, "lossy copy of cifar100"),
        ("cifar10", JPEG, 1, "lossy copy of cifar10 "),
        ("svhn", JPEG, 1, "lossy copy of svhn"),
        ("cifar100", PNG, 0, " none "),
        ("eurosat", JPEG, 0, "expected of eurosat: its RGB release is JPEG"),
        ("patch-camelyon", JPEG, 0, "expected of patch-camelyon"),
        (None, JPEG, 0, "if it is a copy of a lossless dataset, use the original"),
        (None, PNG, 0, " none "),
    ],
)
def test_a_folder_is_suspected_of_what_it_is_declared_to_be_a_copy_of(tmp_path, of, options, code, shown):
    text, found_code = found(exported(tmp_path, "pictures", 2, 32, of=of, **options))
    assert found_code == code and shown in text, text
    if code:
        assert "get the original files, then remove this store" in text


@pytest.mark.parametrize(
    ("name", "classes", "size"),
    [("flowers", 16, 64), ("norberts-birds", 5, 64), ("cifar-like", 100, 32), ("svhn", 2, 32), ("plants", 9, 96)],
)
def test_names_shapes_and_numbers_of_classes_accuse_nobody(tmp_path, name, classes, size):
    """16 classes at 64 pixels are not dSprites, and nine of 96 are not smallNORB."""
    count = max(5 * classes, 64)
    text, code = found(exported(tmp_path, name, classes, size, count, **JPEG))
    assert code == 0 and "MISMATCH" not in text and "lossy copy" not in text and " traces " in text, text


def test_pixels_that_were_made_smaller_tell_nothing(tmp_path):
    text, code = found(exported(tmp_path / "0", "a", 2, 48, store_size=32, **JPEG))
    assert code == 0 and " cannot be told " in text and "remark" not in text
    text, code = found(exported(tmp_path / "1", "a", 2, 48, store_size=32, of="cifar100", **JPEG))
    assert code == 0 and "whether it is a lossy copy of cifar100 cannot be told" in text


@pytest.mark.parametrize(("options", "code"), [(JPEG, 1), (PNG, 0)])
def test_a_lossy_copy_that_the_store_enlarged_is_found(tmp_path, options, code):
    text, found_code = found(exported(tmp_path, "a", 2, 32, store_size=64, of="cifar100", **options))
    assert found_code == code and ("lossy copy of cifar100" if code else " none ") in text, text


def test_what_was_made_from_the_registered_archive_is_no_lossy_copy(tmp_path):
    """The digest says more than the pixels."""
    spec = tfds_store(tmp_path, "cifar100", cifar(turn=lambda images: jpeg(images, 90)))
    manifest = read_json(folder(spec) / "manifest.json")
    url, digest = datasets()["cifar100"].archives[0].url, datasets()["cifar100"].archives[0].sha256
    assert "which archives they were made from is not known" in found(spec)[0]
    write_json(folder(spec) / "manifest.json", {**manifest, "archives": {url: digest}})
    text, code = found(spec)
    assert code == 0 and "its archives are those that TFDS has registered" in text and "not known" not in text
    write_json(folder(spec) / "manifest.json", {**manifest, "archives": {url: "0" * 64}})
    text, code = found(spec)
    assert code == 1 and "made from another archive than the study's (cifar-100-binary.tar.gz)" in text


def test_the_audit_of_a_store_that_was_just_made_reads_a_sample_alone(tmp_path, capsys, monkeypatch):
    spec = tfds_store(tmp_path, "cifar100", cifar(test=299, turn=lambda images: jpeg(images, 90)))
    monkeypatch.setattr(audit, "sha256", lambda _: pytest.fail("a digest that was just computed is computed again"))
    made = audit.audit_made(spec)
    assert made == from_json(StoreAudit, read_json(tmp_path / "manifest.audit.json"), "")
    assert made.key == spec.key and made.jpeg == "traces" and len(made.mismatches) == 2
    assert made.mismatches[0].startswith("its counts are not VTAB's (test 299 of 300)")
    assert str(tmp_path / "store") not in " ".join(made.mismatches + made.remarks)
    shown = capsys.readouterr().out
    assert "audit: MISMATCH cifar100: its counts" in shown and "audit: remark cifar100: its TFDS records" in shown


def test_a_sample_is_read_without_mapping_the_file(tmp_path):
    images = RNG.integers(0, 256, (100, 20, 20, 3), np.uint8)
    np.save(tmp_path / "a.npy", images)
    found_images = lossy.read_sample(tmp_path / "a.npy", 34)
    assert type(found_images) is np.ndarray and np.array_equal(found_images, images[::3])
    assert np.array_equal(lossy.read_sample(tmp_path / "a.npy"), images)


def test_sets_that_are_no_small_pixels_are_left_alone(tmp_path):
    arrays = {split: jpeg(flat(RNG, 20, 32, 3), 80) for split in store.SPLITS}
    text, code = found(tfds_store(tmp_path, "dtd", arrays, counts="any"))
    assert code == 0 and text.count("remark") == 2 and "counts are not VTAB's" in text and " - " in text
    assert json.loads((tmp_path / "store/manifest.json").read_text())["dataset"] == "dtd"
