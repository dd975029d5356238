"""The fingerprint of a folder or zip: the same for the same content, and quick the second time."""

import json
import os
import shutil
import unicodedata
import zlib
from collections import Counter
from dataclasses import replace

from small_folders import classes_of, encoded, given_splits, noise, prepared, write_files, zipped

from vtabflow.prepare.folders import fingerprint
from vtabflow.prepare.folders.fingerprint import identity, open_listing, scan


def test_folder_and_zip_are_the_same_wherever_they_lie(tmp_path):
    files = given_splits(n=4) | {"train/a/deep/er.png": encoded(noise())}
    path = write_files(tmp_path / "in", files)
    expected = identity(path)
    assert expected.classes == 3 and expected.class_names == ("a", "b", "c")
    assert identity(zipped(tmp_path / "x.zip", files)) == expected
    assert identity(zipped(tmp_path / "y.zip", {**files, "__MACOSX/t/a/._1.png": b"z"}, top="")) == expected
    assert identity(zipped(tmp_path / "z.zip", files, top="whole/thing/")) == expected
    assert identity(write_files(tmp_path / "around" / "one", files).parent) == expected
    moved = shutil.copytree(path, tmp_path / "moved")
    os.rename(moved / "train/a/0.png", moved / "train/a/zero.png")
    os.utime(moved / "train/a/1.png", (1, 1))
    assert identity(moved) == expected
    one, two = prepared(path, tmp_path / "0"), prepared(tmp_path / "z.zip", tmp_path / "1")
    assert one.manifest.sha256 == two.manifest.sha256


def test_what_changes_which_digest(tmp_path):
    files = given_splits(n=4)
    before = identity(write_files(tmp_path / "in", files))

    def changed(name: str, new: dict[str, bytes]) -> tuple[bool, bool]:
        after = identity(write_files(tmp_path / name, new))
        return after.images != before.images, after.labels != before.labels

    swapped = {**files, "train/a/0.png": files["train/b/0.png"], "train/b/0.png": files["train/a/0.png"]}
    assert changed("relabelled", swapped) == (False, True)
    assert changed("edited", {**files, "val/a/0.png": encoded(noise())}) == (True, True)
    assert changed("added", {**files, "val/a/new.png": files["val/a/0.png"]}) == (True, True)
    across = {**files, "train/a/0.png": files["val/a/0.png"], "val/a/0.png": files["train/a/0.png"]}
    assert changed("across", across) == (True, True)
    named = {name.replace("/c/", "/d/"): data for name, data in files.items()}
    assert changed("class", named) == (False, True)


def test_the_second_time_reads_nothing_and_a_changed_time_reads_again(tmp_path, monkeypatch):
    path = write_files(tmp_path / "in", classes_of({"a": 5, "b": 5}))
    for file in path.rglob("*.png"):
        os.utime(file, (1e9, 1e9))
    read = []
    plain = fingerprint.Listing.crc

    def counting(self, entry):
        read.append(entry.name)
        return plain(self, entry)

    monkeypatch.setattr(fingerprint.Listing, "crc", counting)
    cache = tmp_path / "scratch/cache.json"
    first = identity(path, cache)
    assert len(read) == 10 and first == identity(path)
    read.clear()
    assert identity(path, cache) == first and not read
    os.utime(path / "a/1.png", (1e9 + 5, 1e9 + 5))
    assert identity(path, cache) == first and read == ["a/1.png"]
    read.clear()
    changed = encoded(noise())
    (path / "b/2.png").write_bytes(changed)
    assert identity(path, cache).images != first.images and read == ["b/2.png"]
    cache.write_text("{ spoilt")
    assert identity(path, cache) == identity(path)
    assert scan(path, cache)[7] == ("b/2.png", len(changed), zlib.crc32(changed))


def test_a_file_that_was_just_written_is_not_cached(tmp_path):
    """Its next version may have the same time; FAT keeps times to 2 s."""
    path, cache = write_files(tmp_path / "in", classes_of({"a": 2, "b": 2})), tmp_path / "cache.json"
    os.utime(path / "a/0.png", (1e9, 1e9))
    identity(path, cache)
    cached = json.loads(cache.read_text())[str(path)]
    assert list(cached) == [str(path / "a/0.png")]


def test_new_content_of_the_same_size_and_time_is_read(tmp_path):
    path, cache = write_files(tmp_path / "in", {"a/0.png": b"one", "b/0.png": b"two"}), tmp_path / "cache.json"
    for turn, content in enumerate((b"one", b"six")):
        (path / "a/0.png").write_bytes(content)
        for file in path.rglob("*.png"):
            os.utime(file, (1e9, 1e9))
        assert identity(path, cache) == identity(path), turn


def test_a_zip_is_remembered_too(tmp_path, monkeypatch):
    path = zipped(tmp_path / "x.zip", classes_of({"a": 5, "b": 5}))
    os.utime(path, (1e9, 1e9))
    first = identity(path, tmp_path / "cache.json")
    monkeypatch.setattr(fingerprint, "open_listing", None)
    assert identity(path, tmp_path / "cache.json") == first
    monkeypatch.undo()
    monkeypatch.setattr(fingerprint, "FORMAT", 2)
    monkeypatch.setattr(fingerprint, "identity_of", lambda found, files: replace(first, images="of another format"))
    assert identity(path, tmp_path / "cache.json").images == "of another format"
    monkeypatch.undo()
    zipped(path, classes_of({"a": 5, "b": 6}))
    assert identity(path, tmp_path / "cache.json") == identity(path) != first


def test_names(tmp_path):
    files = classes_of({"ä café": 4, "日本": 4})
    composed = identity(write_files(tmp_path / "in", files))
    apart = {unicodedata.normalize("NFD", name): data for name, data in files.items()}
    assert apart.keys() != files.keys() and identity(write_files(tmp_path / "in2", apart)) == composed
    windows = {name.replace("/", "\\"): data for name, data in files.items()}
    assert identity(zipped(tmp_path / "w.zip", windows)) == composed
    odd = os.fsencode(tmp_path / "in") + b"/odd\xff"
    os.mkdir(odd)
    for number in range(4):
        with open(odd + b"/a\nb%d.png" % number, "wb") as stream:
            stream.write(encoded(noise()))
    opened = prepared(tmp_path / "in", tmp_path)
    assert opened.manifest.class_names["mine"] == ("odd\\xff", "ä café", "日本")
    json.dumps(opened.manifest.class_names).encode()


def test_links_are_followed_but_not_in_circles(tmp_path):
    path = write_files(tmp_path / "in", classes_of({"a": 4}))
    write_files(tmp_path / "elsewhere", classes_of({"b": 4}))
    (path / "b").symlink_to(tmp_path / "elsewhere/b")
    (path / "a/up").symlink_to(path)
    (path / "a/gone.png").symlink_to(tmp_path / "nothing.png")
    with open_listing(path) as found:
        assert Counter(entry.label for entry in found.entries)["b"] == 4
        assert sum(entry.name == "a/0.png" for entry in found.entries) == 1
    skipped = prepared(path, tmp_path).manifest.skipped
    assert [entry.file == "a/gone.png" for entry in skipped]
