"""Folders and zips of images: the splits, the order, the pixels, and what is refused."""

import io
import os
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from small_folders import BROKEN, classes_of, encoded, given_splits, noise, prepared, spec_for, write_files, zipped

from vtabflow.contracts.specs import Fingerprint, FolderLayout, ImageSpec
from vtabflow.errors import UserError
from vtabflow.prepare import store
from vtabflow.prepare.folders import source as folder
from vtabflow.prepare.folders.scan import identity
from vtabflow.prepare.resize import resize


def test_skipped_files_are_named_with_the_reason(tmp_path):
    files = classes_of({"a": 10, "b": 10}) | {f"a/{name}": data for name, (data, _) in BROKEN.items()}
    files |= {"lost.png": encoded(noise()), "README.md": b"x", "a/.hidden.png": b"", "__MACOSX/a/9.png": b""}
    opened = prepared(write_files(tmp_path / "in", files), tmp_path)
    skipped = {entry.file: entry.reason for entry in opened.manifest.skipped}
    assert set(skipped) == {f"a/{name}" for name in BROKEN} | {"lost.png"}
    assert all(reason in skipped[f"a/{name}"] for name, (_, reason) in BROKEN.items())
    assert sum(opened.manifest.counts.values()) == 20


def test_refuse_names_the_first_and_the_count_and_leaves_nothing(tmp_path):
    files = classes_of({"a": 10, "b": 10}) | {"b/cut.png": BROKEN["cut.png"][0]}
    path = write_files(tmp_path / "in", files)
    with pytest.raises(UserError, match=r"b/cut.png is broken .*in all: 1\).*skip"):
        prepared(path, tmp_path, invalid="refuse")
    write_files(path, {"a/empty.png": b"", "a/text.png": b"x"})
    with pytest.raises(UserError, match=r"a/empty.png is empty .*in all: 2\)"):
        prepared(path, tmp_path, invalid="refuse")
    assert sorted(os.listdir(tmp_path)) == ["in"]


@pytest.mark.parametrize("seed", [0, 1])
def test_the_split_is_stratified(tmp_path, seed):
    counts = {"a": 3, "b": 4, "c": 5, "d": 17, "é": 50}
    path = write_files(tmp_path / "in", classes_of(counts))
    opened = prepared(path, tmp_path, seed=seed)
    names = opened.manifest.class_names["mine"]
    assert names == ("a", "b", "c", "d", "é")
    everything = []
    for split in store.SPLITS:
        for name, label, pixels in zip(
            opened.ids(split), opened.labels("mine", split), opened.images(split), strict=True
        ):
            assert names[label] == name.split("/")[0]
            assert (pixels == np.asarray(Image.open(path / name))).all()
        everything += opened.ids(split)
        got = Counter(name.split("/")[0] for name in opened.ids(split))
        share = {"train": 0.6, "val": 0.2, "test": 0.2}[split]
        assert all(abs(got[label] - share * n) <= 1 and got[label] >= 1 for label, n in counts.items())
        assert tuple(got[name] for name in names) == opened.manifest.histogram["mine"][split]
    assert sorted(everything) == sorted(f"{label}/{i}.png" for label, n in counts.items() for i in range(n))
    assert opened.manifest.counts == {"train": 47, "val": 16, "test": 16}


def test_the_order_is_a_random_sample_and_depends_on_the_seed(tmp_path):
    path = write_files(tmp_path / "in", classes_of({"a": 200, "b": 200}))
    first = prepared(path, tmp_path / "0", seed=0)
    labels = first.labels("mine", "train")
    # 40 of 240 drawn at random hold 20 of each class, standard deviation 2.9.
    assert 8 <= labels[:40].sum() <= 32
    assert first.ids("train") != prepared(path, tmp_path / "1", seed=1).ids("train")
    again = prepared(path, tmp_path / "2", seed=0)
    assert again.manifest.sha256 == first.manifest.sha256


def test_given_splits_are_kept_and_a_moved_image_changes_its_label_alone(tmp_path):
    files = given_splits()
    before = prepared(write_files(tmp_path / "in", files), tmp_path / "0")
    for split in store.SPLITS:
        assert {name.split("/")[0] for name in before.ids(split)} == {split} and len(before.ids(split)) == 36
    files["train/c/renamed.png"] = files.pop("train/a/3.png")
    after = prepared(write_files(tmp_path / "in2", files), tmp_path / "1")
    for split in store.SPLITS:
        assert (before.images(split) == after.images(split)).all()
    changed = before.labels("mine", "train") != after.labels("mine", "train")
    assert changed.sum() == 1
    where = int(np.flatnonzero(changed)[0])
    assert before.ids("train")[where] == "train/a/3.png" and after.ids("train")[where] == "train/c/renamed.png"


def test_test_images_that_were_trained_on_are_said_or_refused(tmp_path, capsys):
    files = given_splits()
    files["test/a/0.png"], files["test/a/1.png"] = files["train/b/1.png"], files["val/b/1.png"]
    opened = prepared(write_files(tmp_path / "few", files), tmp_path / "0")
    remark = next(remark for remark in opened.manifest.remarks if remark.kind == "test-in-train")
    assert remark.text.startswith("2 of 36 test images are in train or val too, such as ")
    assert set(remark.examples) == {"test/a/0.png (train/b/1.png)", "test/a/1.png (val/b/1.png)"}
    assert f"mine: {remark.text}\n" in capsys.readouterr().out
    files |= {name.replace("train/", "test/"): data for name, data in files.items() if name.startswith("train/")}
    with pytest.raises(UserError, match="36 of 36 test images are in train too, .* leave test out"):
        prepared(write_files(tmp_path / "all", files), tmp_path / "1")
    opened = prepared(write_files(tmp_path / "none", given_splits()), tmp_path / "2")
    assert [remark.kind for remark in opened.manifest.remarks] == ["1k-images"]


def test_the_manifest_and_the_log_say_what_was_understood(tmp_path, capsys):
    """Numbers are those of the images that could be decoded."""
    cut = {f"a/cut{number}.png": BROKEN["cut.png"][0] for number in range(3)}
    files = classes_of({"a": 20, "b": 20, "c": 1}) | cut | {"lost.png": encoded(noise())}
    opened = prepared(write_files(tmp_path / "in", files), tmp_path, layout=FolderLayout(min_per_class=3))
    manifest, counts = opened.manifest, opened.manifest.counts
    assert sum(counts.values()) == 40 and manifest.class_names == {"mine": ("a", "b")}
    numbers = ", ".join(f"{split} {counts[split]}" for split in store.SPLITS)
    assert manifest.layout == f"2 classes, 40 images; {numbers}, split here, seeded"
    said = {remark.kind: remark.text for remark in manifest.remarks}
    assert said["small-classes"] == "1 class is left out for too few images (c)"
    assert {entry.file for entry in manifest.skipped} == {*cut, "lost.png", "c/0.png"}
    printed = capsys.readouterr().out
    assert f"mine: {manifest.layout}\n" in printed and f"mine: {said['small-classes']}\n" in printed


def test_copies_are_not_cut_apart(tmp_path):
    """Four pictures of each class, ten times each; the files of one picture have the same bytes."""
    pictures = {label: [encoded(noise()) for _ in range(4)] for label in "ab"}
    files = {f"{label}/{number}.png": data[number % 4] for label, data in pictures.items() for number in range(40)}
    opened = prepared(write_files(tmp_path / "in", files), tmp_path)
    assert opened.manifest.counts == {"train": 40, "val": 20, "test": 20}
    pixels = {split: {image.tobytes() for image in opened.images(split)} for split in store.SPLITS}
    assert sum(map(len, pixels.values())) == 8 == len(set().union(*pixels.values()))


@pytest.mark.parametrize(
    ("splits", "counts"),
    [
        (("train", "test"), {"train": 27, "val": 9, "test": 36}),
        (("train", "val"), {"train": 27, "val": 36, "test": 9}),
        (("train",), {"train": 24, "val": 6, "test": 6}),
        (("train", "validation"), {"train": 27, "val": 36, "test": 9}),
    ],
)
def test_what_is_missing_is_cut_from_train(tmp_path, splits, counts):
    opened = prepared(write_files(tmp_path / "in", given_splits(splits)), tmp_path)
    assert opened.manifest.counts == counts
    everything = [name for split in store.SPLITS for name in opened.ids(split)]
    assert len(set(everything)) == 36 * len(splits)


@pytest.mark.parametrize(
    ("files", "counts"),
    [
        (given_splits(("train", "val")), {"train": 36, "val": 36, "test": 0}),
        (given_splits(("train",), 40), {"train": 114, "val": 6, "test": 0}),
        (classes_of({"a": 20, "b": 1}), {"train": 20, "val": 1, "test": 0}),
        (classes_of({"all": 40}), {"train": 38, "val": 2, "test": 0}),
    ],
)
def test_an_upstream_set_needs_no_test(tmp_path, files, counts):
    opened = prepared(write_files(tmp_path / "in", files), tmp_path, role="upstream")
    assert opened.manifest.counts == counts and opened.images("test").shape == (0, 8, 8, 3)


def test_a_small_class_keeps_one_of_each_split_at_any_fractions(tmp_path):
    path = write_files(tmp_path / "in", classes_of({"a": 3, "b": 4, "c": 40}))
    opened = prepared(path, tmp_path, fractions=(0.1, 0.2, 0.7))
    by_split = opened.manifest.histogram["mine"]
    assert by_split == {"train": (1, 1, 4), "val": (1, 1, 8), "test": (1, 2, 28)}


def test_a_small_class_is_in_val_and_test_even_if_its_share_rounds_to_none(tmp_path):
    path = write_files(tmp_path / "in", classes_of({"a": 3, "b": 4, "c": 40}))
    opened = prepared(path, tmp_path, fractions=(0.9, 0.05, 0.05))
    by_split = opened.manifest.histogram["mine"]
    assert by_split == {"train": (1, 2, 36), "val": (1, 1, 2), "test": (1, 1, 2)}


def test_an_upstream_cut_does_not_know_labels(tmp_path):
    files = classes_of({"a": 30, "b": 30})
    one = prepared(write_files(tmp_path / "in", files), tmp_path / "0", role="upstream")
    files["b/x.png"] = files.pop("a/7.png")
    two = prepared(write_files(tmp_path / "in2", files), tmp_path / "1", role="upstream")
    assert all((one.images(split) == two.images(split)).all() for split in ("train", "val"))


def test_only_the_rows_of_1k(tmp_path):
    counts = {"train": 820, "val": 210, "test": 30}
    data = {f"{split}/{i % 2}/{i}.png": encoded(noise(4, 4)) for split, n in counts.items() for i in range(n)}
    data["train/0/cut.png"] = encoded(noise(4, 4))[:60]
    path = write_files(tmp_path / "in", data)
    # 821 headers can be read, one of them before a broken image: it leaves a gap and no other moves.
    few, every = prepared(path, tmp_path / "0", rows="1k"), prepared(path, tmp_path / "1")
    assert few.manifest.counts == {"train": 800, "val": 200, "test": 30}
    assert every.manifest.counts == counts
    for split in store.SPLITS:
        count = few.manifest.counts[split]
        assert few.ids(split) == every.ids(split)[:count] and (few.images(split) == every.images(split)[:count]).all()


@pytest.mark.parametrize(
    ("sizes", "grey", "target", "shape"),
    [
        ([(6, 8)], True, 8, [6, 8, 1]),
        ([(6, 8)], False, 8, [6, 8, 3]),
        ([(6, 9)], False, 8, [8, 8, 3]),
        ([(6, 9)], True, 8, [8, 8, 1]),
        ([(5, 5), (6, 6)], False, 8, [8, 8, 3]),
    ],
)
def test_native_pixels_are_kept_or_resized_once(tmp_path, sizes, grey, target, shape):
    shapes = [(*sizes[i % len(sizes)], 1 if grey else 3) for i in range(10)]
    files = {f"{i % 2}/{i}.png": encoded(noise(*each)) for i, each in enumerate(shapes)}
    opened = prepared(write_files(tmp_path / "in", files), tmp_path, size=target)
    assert opened.manifest.shape["train"] == tuple(shape)


def test_a_resized_image_is_the_rounded_legacy_resize(tmp_path):
    # 16 -> 8 by the legacy rule takes every second pixel; grey among colour gets three equal channels.
    files = {f"{i % 2}/{i}.png": encoded(noise(16, 16, 1 if i == 3 else 3)) for i in range(10)}
    opened = prepared(write_files(tmp_path / "in", files), tmp_path, size=8)
    for split in store.SPLITS:
        for name, pixels in zip(opened.ids(split), opened.images(split), strict=True):
            source = np.asarray(Image.open(io.BytesIO(files[name])).convert("RGB"))
            assert (pixels == source[::2, ::2]).all()
    # 6 -> 8: values between the pixels, rounded half up.
    files = {f"{i % 2}/{i}.png": encoded(noise(6, 12)) for i in range(10)}
    opened = prepared(write_files(tmp_path / "in2", files), tmp_path / "2", size=8)
    source = np.asarray(Image.open(io.BytesIO(files[opened.ids("test")[0]]))).astype(float)
    y, x = np.arange(8) * 0.75, np.arange(8) * 1.5
    top, left = np.floor(y).astype(int), np.floor(x).astype(int)
    low, right = np.minimum(np.ceil(y), 5).astype(int), np.ceil(x).astype(int)
    wy, wx = (y - top)[:, None, None], (x - left)[None, :, None]
    upper = source[top][:, left] * (1 - wx) + source[top][:, right] * wx
    lower = source[low][:, left] * (1 - wx) + source[low][:, right] * wx
    assert (opened.images("test")[0] == np.floor(upper * (1 - wy) + lower * wy + 0.5 + 1e-6)).all()


@pytest.mark.parametrize("kind", ["legacy", "antialias"])
def test_a_float32_store_has_the_unrounded_resize(tmp_path, kind):
    files = {f"{i % 2}/{i}.png": encoded(noise(6, 12)) for i in range(10)}
    spec = spec_for(write_files(tmp_path / "in", files), tmp_path, size=8)
    folder.make(replace(spec, image=ImageSpec(8, kind, "float32")))
    opened = store.open_store(spec.folder)
    fractions = []
    for split in store.SPLITS:
        images = opened.images(split)
        assert images.dtype == np.float32
        for name, pixels in zip(opened.ids(split), images, strict=True):
            source = torch.from_numpy(np.array(Image.open(io.BytesIO(files[name]))))
            assert (pixels == resize(source[None], 8, kind)[0].numpy()).all()
            fractions.append(pixels % 1)
    assert np.mean(np.stack(fractions) > 0) > 0.5


def test_a_float32_store_keeps_native_pixels(tmp_path):
    files = classes_of({"a": 6, "b": 6})
    spec = spec_for(write_files(tmp_path / "in", files), tmp_path)
    folder.make(replace(spec, image=ImageSpec(8, "legacy", "float32")))
    images = store.open_store(spec.folder).images("train")
    for name, pixels in zip(store.open_store(spec.folder).ids("train"), images, strict=True):
        assert pixels.dtype == np.float32 and (pixels == np.asarray(Image.open(io.BytesIO(files[name])))).all()


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "has no images in class folders"),
        ({"1.png": b"", "2.png": b""}, r"2 lie in no class folder, 1.png first.*<class>/<image>"),
        ({"train/1.png": b"", "test/2.png": b""}, "no class folder"),
        (classes_of({"a": 5}), "one class, a"),
        (classes_of({"a": 5, "b": 2}), r"class b has too few readable images \(2\).*3"),
        (classes_of({"a": 5, "b": 2}, "train/"), r"class b has too few readable images \(2\)"),
        (classes_of({"a": 5, "b": 2}) | {"b/cut.png": BROKEN["cut.png"][0]}, r"class b has too few .*\(2\)"),
        (classes_of({"a": 5, "b": 3}) | {"c/x.png": b""}, "class c has 0 readable images"),
        (given_splits() | classes_of({"new": 4}, "test/"), "class new has 4 files in test and none in train"),
        (given_splits(("val", "test")), "test and val but no train"),
        (given_splits(("val",)), "has val but no train"),
        (given_splits() | classes_of({"d": 4}), "test, train and val folders and also d"),
        (given_splits(("train",)) | {"val/a/x.png": b"x"}, "val has no readable image"),
        ({"a/x.png": b"", "b/y.png": b"x"}, r"none of the 2 files in .* is a readable image \(a/x.png is empty\)"),
    ],
)
def test_a_folder_that_will_not_do_is_named(tmp_path, files, message):
    path = write_files(tmp_path / "in", files)
    path.mkdir(exist_ok=True)
    with pytest.raises(UserError, match=message) as caught:
        prepared(path, tmp_path)
    assert str(path) in str(caught.value) and sorted(os.listdir(tmp_path)) == ["in"]


def test_no_folder_and_no_zip(tmp_path):
    with pytest.raises(UserError, match="there is no folder or zip of images at .*nowhere"):
        prepared(tmp_path / "nowhere", tmp_path)
    (tmp_path / "x.zip").write_bytes(b"PK not really")
    with pytest.raises(UserError, match="x.zip is not a zip file"):
        prepared(tmp_path / "x.zip", tmp_path)
    whole = zipped(tmp_path / "y.zip", classes_of({"a": 5, "b": 5})).read_bytes()
    (tmp_path / "y.zip").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="y.zip is not a zip file"):
        prepared(tmp_path / "y.zip", tmp_path)


def test_damaged_and_encrypted_members_are_skipped(tmp_path):
    files = classes_of({"a": 6, "b": 6})
    data = bytearray(zipped(tmp_path / "x.zip", files).read_bytes())
    where = data.index(files["a/2.png"]) + 60  # stored without compression
    data[where] ^= 255
    # Bit 0 of the flags of the last entry in the central directory and of its local header: encrypted.
    data[data.rindex(b"PK\x01\x02") + 8] |= 1
    data[data.rindex(b"PK\x03\x04") + 6] |= 1
    (tmp_path / "x.zip").write_bytes(data)
    opened = prepared(tmp_path / "x.zip", tmp_path)
    skipped = {entry.file: entry.reason for entry in opened.manifest.skipped}
    assert set(skipped) == {"a/2.png", "b/5.png"} and "encrypted" in skipped["b/5.png"]


def fingerprint_of(path) -> Fingerprint:
    found = identity(path)
    return Fingerprint(found.images, found.labels)


def test_changed_since_it_was_planned(tmp_path):
    path = write_files(tmp_path / "in", classes_of({"a": 5, "b": 5}))
    spec = replace(spec_for(path, tmp_path), fingerprint=fingerprint_of(path))
    write_files(path, {"a/more.png": encoded(noise())})
    with pytest.raises(UserError, match="have changed since"):
        folder.make(spec)
    folder.make(replace(spec, fingerprint=fingerprint_of(path)))
