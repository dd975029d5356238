"""ImageNet as a packed store: the official tars through TFDS, TFDS' records as they are, and an extracted tree."""

import hashlib
import json
import os
import resource
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from miniatures import imagenet2012 as miniature
from miniatures.drawing import decoded, drawn, encoded, jpeg
from miniatures.place import Places, hash_order
from vtabflow.contracts.specs import ImagenetSettings, PackedImageSpec, StoreSpec
from vtabflow.contracts.typed_json import to_json
from vtabflow.errors import RunError, UserError
from vtabflow.prepare.imagenet import packed_store as packed
from vtabflow.prepare.imagenet import source as imagenet
from vtabflow.prepare.store import open_store
from vtabflow.pretrain import image_loader as drawn_from
from vtabflow.runtime.files import read_json

CLASSES = len(miniature.WNIDS)


def spec(root, name, places=None, tree=None, classes=CLASSES, counts="any", side=None, quality=None):
    """A StoreSpec below root; from `tree` if there is one."""
    return StoreSpec(
        key="k",
        dataset="imagenet",
        folder=str(root / name),
        receipt=str(root / f"{name}.json"),
        manifest=str(root / f"{name}.manifest.json"),
        source="imagenet",
        settings=ImagenetSettings("tree" if tree else "tfds", "5.1.0", counts),
        image=PackedImageSpec(side, quality),
        rows="all",
        tasks=("imagenet",),
        classes={"imagenet": classes},
        identity={},
        code="",
        places=(places or Places(root, root, root, root / "no checksums")).spec(tree),
    )


def records(store, split):
    images = drawn_from.open_images(store, split, 8)
    return [images.record(row) for row in range(len(images))]


def listing(folder):
    return {path: path.stat().st_mtime_ns for path in Path(folder).rglob("*")}


@pytest.fixture(scope="module")
def mini(tmp_path_factory):
    """The miniature's places, truth and files, and the stores of its tars and its tree."""
    root = tmp_path_factory.mktemp("imagenet")
    places = Places.under(root)
    truth, files = miniature.make(places), miniature.files()
    tree = miniature.lay_tree(root / "tree", files)
    imagenet.make(spec(root, "tars", places))
    before = listing(tree)
    imagenet.make(spec(root, "tree-store", tree=tree))
    assert listing(tree) == before, "a tree is only read"
    return root, places, truth["train"], {name: data for each in files.values() for name, data in each.items()}, tree


@pytest.fixture
def small(tmp_path):
    """A tree of two classes with four images each, whose files a test may spoil."""
    rng = np.random.default_rng(3)
    files = {
        wnid: {f"{wnid}_{i}.JPEG": jpeg(drawn(rng, 40, 50)) for i in range(4)} for wnid in ("n00000001", "n00000002")
    }
    return miniature.lay_tree(tmp_path / "small", files)


def test_tars_ready_records_and_a_tree_give_the_same_store(mini):
    """Images, labels and ids by their digests; the ready records are TFRecord, and only read."""
    import tensorflow_datasets as tfds

    root, places, *_ = mini
    ready = Places(root / "ready", places.downloads, places.manual, places.checksums)
    builder = tfds.builder_cls("imagenet2012")(data_dir=str(ready.tfds))
    config = tfds.download.DownloadConfig(manual_dir=str(places.manual), try_download_gcs=False)
    builder.download_and_prepare(download_dir=str(places.downloads), download_config=config, file_format="tfrecord")
    # The version before, which differs in the test split alone, is taken as well.
    older = ready.tfds / "imagenet2012/5.0.0"
    (ready.tfds / "imagenet2012/5.1.0").rename(older)
    info = json.loads((older / "dataset_info.json").read_text())
    (older / "dataset_info.json").write_text(json.dumps(info | {"version": "5.0.0"}))
    before = listing(ready.tfds)
    imagenet.make(spec(root, "ready-store", ready))
    assert listing(ready.tfds) == before and any(path.suffix == ".tfrecord-00000-of-00001" for path in before)
    tars, tree, there = (open_store(root / name).manifest for name in ("tars", "tree-store", "ready-store"))
    assert tars.sha256 == tree.sha256 == there.sha256 and len(tars.sha256) == 9
    assert tars.oddities == tree.oddities == there.oddities == {"cmyk": 3, "png": 1, "grey": 16}
    assert tars.class_names == tree.class_names == {"imagenet": tuple(miniature.WNIDS)}


def test_order_hold_out_labels_and_bytes(mini):
    """Against what was put in: ids in TFDS' order, the last 40 of 1,024 parts held out, bytes as they were."""
    root, _, truth, files, _ = mini
    store = open_store(root / "tree-store")
    ordered = hash_order("train", truth)
    border = len(ordered) * 984 // 1024
    assert store.manifest.counts == {"train": border, "val": len(ordered) - border, "test": 0} and border == 96
    assert store.ids("train") + store.ids("val") == [example.id for example in ordered] and store.ids("test") == []
    labels = np.concatenate([store.labels("imagenet", split) for split in ("train", "val")])
    assert labels.tolist() == [example.labels["imagenet"] for example in ordered]
    found = records(store, "train") + records(store, "val")
    for example, data in zip(ordered, found, strict=True):
        assert (data == files[example.id]) == (example.tolerance == 0.0)
        difference = np.abs(drawn_from.decode(data).astype(int) - example.pixels)
        assert difference.mean() <= example.tolerance, example.id


def test_the_hold_out_of_the_whole_set():
    """docs/protocol.md#data: train is 1,231,121 images and val 50,046."""
    count = imagenet.imagenet().counts["train"]
    border = count * imagenet.TRAIN_SHARDS // imagenet.SHARDS
    assert (border, count - border) == (1_231_121, 50_046)


def test_the_literals_are_those_of_the_builder():
    """Class names ascend, so that a sorted tree has TFDS' numbers; the odd files are those that the builder names."""
    import tensorflow_datasets as tfds
    from tensorflow_datasets.datasets.imagenet2012 import imagenet2012_dataset_builder as builder

    names = Path(tfds.core.tfds_path("datasets/imagenet2012/labels.txt")).read_text().split()
    assert names == sorted(names) and len(names) == imagenet.imagenet().tasks["imagenet"].classes
    assert set(builder.CMYK_IMAGES) == imagenet.CMYK and set(builder.PNG_IMAGES) == imagenet.PNG
    versions = [str(builder.Builder.VERSION), *map(str, builder.Builder.SUPPORTED_VERSIONS)]
    assert versions == [imagenet.imagenet().version, *imagenet.imagenet().readable]


def test_odd_files_are_decoded_as_tensorflow_decodes_them():
    """With its accurate transform: equal for RGB, grey and PNG, one level off for CMYK, which is rounded otherwise."""
    import tensorflow as tf

    rng = np.random.default_rng(0)
    four = drawn(rng, 61, 83, 4)
    cmyk = encoded(Image.fromarray(four, "CMYK"), "JPEG")
    for data, kind in ((jpeg(four[:, :, :3]), "rgb"), (jpeg(four[:, :, :1]), "grey"), (cmyk, "cmyk")):
        assert packed.image_kind(data) == kind
        want = tf.image.decode_jpeg(data, channels=3 if kind != "cmyk" else 0, dct_method="INTEGER_ACCURATE").numpy()
        assert np.abs(drawn_from.decode(data).astype(int) - want).max() <= (kind == "cmyk")
        assert drawn_from.components(data) == {"rgb": 3, "grey": 1, "cmyk": 4}[kind]
    deep = encoded(Image.fromarray(four[:, :, 0].astype(np.uint16) * 256 + 255))
    for data in (encoded(four[:, :, :3]), encoded(four), encoded(four[:, :, :1]), deep):
        assert packed.image_kind(data) == "png" and drawn_from.components(data) == 0
        assert np.array_equal(drawn_from.decode(data), decoded(data))


def test_a_listed_cmyk_file_needs_tfds_and_says_so(mini, tmp_path, monkeypatch):
    *_, files, tree = mini
    monkeypatch.setitem(sys.modules, "tensorflow_datasets.core.utils", None)
    with pytest.raises(UserError, match=r"n0\d+_\d+\.JPEG is not an RGB JPEG.* `make tfds`"):
        imagenet.make(spec(tmp_path, "store", tree=tree))
    assert list(tmp_path.iterdir()) == []
    other = "n00000001_1.JPEG"
    cmyk = files["n01739381_1309.JPEG"]
    assert imagenet.as_tfds(other, cmyk, "cmyk") is cmyk, "the builder knows them by name alone"
    mended = jpeg(np.zeros((9, 9, 3), np.uint8))
    assert imagenet.as_tfds("n01739381_1309.JPEG", mended, "rgb") is mended


def test_broken_files_are_named_and_move_no_other(mini, tmp_path, capsys):
    _, _, truth, _, tree = mini
    spoiled = tmp_path / "spoiled"
    shutil.copytree(tree, spoiled)
    ordered = [example.id for example in hash_order("train", truth)]
    whole = [place for place, name in enumerate(ordered) if name.removesuffix(".JPEG") not in miniature.ODD]
    cut, empty, text = (ordered[place] for place in (whole[4], whole[20], whole[-1]))
    for name in (cut, empty, text):
        path = spoiled / "train" / name.split("_")[0] / name
        path.write_bytes({cut: path.read_bytes()[:-200], empty: b"", text: b"not an image"}[name])
    (spoiled / "train/n01440764/notes.txt").write_text("x")
    (spoiled / "train/n01440764/.DS_Store").write_text("x")
    manifest = imagenet.make(spec(tmp_path, "store", tree=spoiled))
    shown = {entry.file: entry.reason for entry in manifest.skipped}
    assert shown.keys() == {cut, empty, text, "n01440764/notes.txt"}
    assert "truncated" in shown[cut] and shown[empty] == "is empty" and shown[text] == "is neither JPEG nor PNG"
    assert "left out 4 files" in capsys.readouterr().out
    store = open_store(tmp_path / "store")
    assert store.ids("train") == [name for name in ordered[:96] if name not in shown]
    assert store.ids("val") == [name for name in ordered[96:] if name not in shown]


def test_broken_records_are_left_out_as_well(tmp_path):
    files = {wnid: dict(list(each.items())[1:9]) for wnid, each in miniature.files(5).items()}
    name = sorted(files["n01440764"])[0]
    files["n01440764"][name] = files["n01440764"][name][:-200]
    places = Places.under(tmp_path)
    miniature.lay_tars(places, files)
    tars = imagenet.make(spec(tmp_path, "tars", places))
    tree = imagenet.make(spec(tmp_path, "tree-store", tree=miniature.lay_tree(tmp_path / "tree", files, below="")))
    assert [entry.file for entry in tars.skipped] == [name] and tars.skipped == tree.skipped
    assert tars.sha256 == tree.sha256


def test_shortening_keeps_the_aspect_and_what_is_small(tmp_path, small):
    rng = np.random.default_rng(1)
    wide, grey = drawn(rng, 120, 200), drawn(rng, 300, 75, 1)
    (small / "train/n00000001/n00000001_90.JPEG").write_bytes(jpeg(wide, 95))
    (small / "train/n00000002/n00000002_91.JPEG").write_bytes(jpeg(grey, 95))
    manifest = imagenet.make(spec(tmp_path, "store", tree=small, classes=2, side=100, quality=95))
    assert manifest.shortened == 2 and manifest.image == {"form": "packed", "side": 100, "quality": 95}
    store = open_store(tmp_path / "store")
    ids = store.ids("train") + store.ids("val")
    found = dict(zip(ids, records(store, "train") + records(store, "val"), strict=True))
    for name, data in found.items():
        path = small / "train" / name.split("_")[0] / name
        assert (data == path.read_bytes()) == (name not in ("n00000001_90.JPEG", "n00000002_91.JPEG"))
    # Independent: the mean of the pixels under each new one, for an exact half.
    half = wide.reshape(60, 2, 100, 2, 3).mean((1, 3))
    assert np.abs(drawn_from.decode(found["n00000001_90.JPEG"]) - half).mean() < 3
    assert drawn_from.decode(found["n00000002_91.JPEG"]).shape == (100, 25, 3)
    assert packed.image_kind(found["n00000002_91.JPEG"]) == "grey"


def test_damage_is_noticed(mini, tmp_path):
    shutil.copytree(mini[0] / "tree-store", tmp_path / "store")
    images = drawn_from.open_images(open_store(tmp_path / "store"), "train", 8)
    path = tmp_path / "store/train.array_record"
    data = bytearray(path.read_bytes())
    place = data.index(images.record(5))
    data[place + 300] ^= 255
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"train\.array_record does not match the manifest"):
        drawn_from.open_images(open_store(tmp_path / "store"), "train", 8)
    with pytest.raises(RunError, match="row 5 cannot be read"):
        drawn_from.Images(path, 96, 8).record(5)
    for spoiled in (b"x" * 200_000, bytes(data[:100_000])):
        path.write_bytes(spoiled)
        with pytest.raises(UserError, match="does not have 96 records"):
            drawn_from.Images(path, 96, 8)


def empty_class(tree):
    (tree / "train/n00000003").mkdir()


def unreadable_class(tree):
    for path in (tree / "train/n00000002").iterdir():
        path.write_bytes(b"x")


def no_classes(tree):
    shutil.rmtree(tree / "train")
    (tree / "train").mkdir()


def twice(tree):
    shutil.copy(tree / "train/n00000001/n00000001_0.JPEG", tree / "train/n00000002/n00000001_0.JPEG")


@pytest.mark.parametrize(
    ("spoil", "change", "match"),
    [
        (shutil.rmtree, {}, "is not a folder: set `prepare.imagenet.tree`"),
        (no_classes, {}, "has no class folder"),
        (empty_class, {"classes": 3}, "n00000003 has no .JPEG file"),
        (unreadable_class, {}, "class n00000002 has no readable image"),
        (twice, {}, "n00000001_0.JPEG is given twice"),
        (None, {"classes": 3}, "images of 2 classes and the study expects 3"),
        (None, {"counts": "official"}, "has 8 training images and ImageNet has 1,281,167"),
    ],
)
def test_a_bad_tree_is_refused_in_a_sentence(tmp_path, small, spoil, change, match):
    if spoil:
        spoil(small)
    with pytest.raises(UserError, match=match):
        imagenet.make(spec(tmp_path / "stores", "store", tree=small, **{"classes": 2, **change}))
    assert not (tmp_path / "stores").exists() or list((tmp_path / "stores").iterdir()) == []


def test_a_smaller_copy_does_not_pass_for_imagenet(tmp_path, small, monkeypatch):
    monkeypatch.setitem(imagenet.imagenet().counts, "train", 8)
    with pytest.raises(UserError, match="have 0 GB and ImageNet's have 148: they were made smaller"):
        imagenet.make(spec(tmp_path / "stores", "store", tree=small, classes=2, counts="official"))
    assert list((tmp_path / "stores").iterdir()) == []
    whole = sum(path.stat().st_size for path in small.rglob("*.JPEG"))
    changed = replace(imagenet.imagenet().manual_downloads[0], size=round(1.05 * whole))
    dataset = replace(imagenet.imagenet(), manual_downloads=(changed,))
    monkeypatch.setattr(imagenet, "imagenet", lambda: dataset)
    imagenet.make(spec(tmp_path / "stores", "store", tree=small, classes=2, counts="official", side=8, quality=90))


def test_absent_tars_and_foreign_records_are_refused(tmp_path, mini):
    with pytest.raises(UserError, match=r"ILSVRC2012_img_train\.tar"):
        imagenet.make(spec(tmp_path, "store", Places.under(tmp_path / "places")))
    _, places, *_ = mini
    source = imagenet.TfdsRecords(spec(tmp_path, "store", places), ImagenetSettings("tfds", "5.1.0", "any"))
    items = list(source.items())
    source.items = lambda: [items[1], items[0], *items[2:]]
    with pytest.MonkeyPatch.context() as patch, pytest.raises(UserError, match="out of TFDS' order"):
        patch.setattr(imagenet, "TfdsRecords", lambda *_: source)
        imagenet.make(spec(tmp_path / "stores", "store", places))
    assert list((tmp_path / "stores").iterdir()) == []


def test_interrupted_packing_leaves_nothing_and_the_next_goes_well(tmp_path, small, monkeypatch):
    def stop(self, data):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(packed.Writer, "write", stop)
        imagenet.make(spec(tmp_path / "stores", "store", tree=small, classes=2))
    assert list((tmp_path / "stores").iterdir()) == []
    assert imagenet.make(spec(tmp_path / "stores", "store", tree=small, classes=2)).counts["train"] == 7


ALONE = """
import json, resource, sys
import torchvision
from vtabflow.prepare.imagenet import source as imagenet
from vtabflow.prepare import store
from vtabflow.pretrain import image_loader as drawn_from
from vtabflow.contracts.specs import StoreSpec
from vtabflow.contracts.typed_json import from_json
spec = from_json(StoreSpec, json.loads(sys.argv[1]), 'test')
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
imagenet.make(spec)
images = drawn_from.open_images(store.open_store(spec.folder), "train", 64)
images[:64]
assert not [name for name in sys.modules if name.split(".")[0] == "tensorflow"], "TensorFlow was imported"
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_memory_does_not_grow_with_the_set(tmp_path):
    """360 MB of files of 1 MB each, packed and drawn from with less than 120 MB more than the imports take."""
    rng = np.random.default_rng(0)
    padding = rng.integers(0, 256, 1_000_000, dtype=np.uint8).tobytes()  # behind the picture, where no decoder looks
    files = {f"n0000000{k}": {f"n0000000{k}_{i}.JPEG": jpeg(drawn(rng, 20, 30)) for i in range(180)} for k in (1, 2)}
    tree = miniature.lay_tree(tmp_path / "tree", files)
    for path in (tree / "train").rglob("*.JPEG"):
        with open(path, "ab") as stream:
            stream.write(padding)
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    command = [sys.executable, "-c", ALONE, json.dumps(to_json(spec(tmp_path, "store", tree=tree, classes=2)))]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "store/train.array_record").stat().st_size > 340e6
    assert int(done.stdout.split()[-1]) < 120 * 1024, "KiB"


def test_a_full_disk_is_a_sentence(tmp_path, small):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(RunError, match=r"cannot write store .*/store: File too large; free the disk"):
            imagenet.make(spec(tmp_path / "stores", "store", tree=small, classes=2))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list((tmp_path / "stores").iterdir()) == []


def test_the_ten_percent_builder_and_a_list_give_the_same_images(mini):
    """TFDS' imagenet2012_subset/10pct on the tars, against pretrain.subset with the same list."""
    import tensorflow_datasets as tfds

    from vtabflow.contracts.specs import SubsetFile
    from vtabflow.pretrain.upstream import read_subset

    root, places, *_ = mini
    store = open_store(root / "tree-store")
    rng = np.random.default_rng(2)
    names = sorted(rng.permutation(store.ids("train"))[:30].tolist())
    miniature.put_subset(places, names)
    builder = tfds.builder_cls("imagenet2012_subset")(config="10pct", data_dir=str(places.tfds))
    config = tfds.download.DownloadConfig(manual_dir=str(places.manual), try_download_gcs=False)
    builder.download_and_prepare(download_dir=str(places.downloads), download_config=config, file_format="array_record")
    decoders = {"image": tfds.decode.SkipDecoding()}
    source = builder.as_data_source("train", decoders=decoders)
    theirs = {example["file_name"].decode(): (example["image"], int(example["label"])) for example in source}
    path = root / "names.txt"
    path.write_text("".join(f"{name}\n" for name in names))
    given = SubsetFile(str(path), hashlib.sha256(path.read_bytes()).hexdigest())
    rows, _ = read_subset(given, store.ids("train"))
    images, labels, ids = (
        drawn_from.open_images(store, "train", 8),
        store.labels("imagenet", "train"),
        store.ids("train"),
    )
    assert {ids[row] for row in rows} == set(theirs) == set(names)
    wnids = Path(tfds.core.tfds_path("datasets/imagenet2012/labels.txt")).read_text().split()
    for row in rows:
        data, label = theirs[ids[row]]
        assert images.record(int(row)) == data and miniature.WNIDS[labels[row]] == wnids[label]
    assert read_json(root / "tars/manifest.json")["form"] == "packed"
