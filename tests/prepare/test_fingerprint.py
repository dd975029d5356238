"""The fingerprint of a folder or zip: the same for the same content, and quick the second time."""

import hashlib
import json
import os
import shutil
import tarfile
import tempfile
import unicodedata
from dataclasses import replace
from pathlib import Path

import pytest
from small_folders import classes_of, encoded, given_splits, noise, prepared, write_files, zipped

from vtabflow.contracts.specs import FolderDecoding
from vtabflow.prepare.folders import fingerprint
from vtabflow.prepare.folders.scan import cache_file, identity, of_what, scan
from vtabflow.prepare.folders.tree import Tree


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


@pytest.fixture
def read(monkeypatch):
    """The names of the files that are opened, as they are opened."""
    names, plain = [], Tree.open

    def counting(self, file):
        names.append(file.name)
        return plain(self, file)

    monkeypatch.setattr(Tree, "open", counting)
    return names


def aged(path):
    """The folder with files that were not written just now."""
    for file in [path, *path.rglob("*")]:
        os.utime(file, (1e9, 1e9))
    return path


def test_the_second_time_reads_nothing_and_a_changed_time_reads_again(tmp_path, read):
    path, cache = aged(write_files(tmp_path / "in", classes_of({"a": 5, "b": 200}))), tmp_path / "scratch"
    first = scan(path, cache=cache)
    assert len(read) == 205 and first == scan(path)
    read.clear()
    assert scan(path, cache=cache) == first and not read
    os.utime(path / "a/1.png", (1e9 + 5, 1e9 + 5))
    assert identity(path, cache) == first.identity and read == ["a/1.png"]
    read.clear()
    changed = encoded(noise())
    (path / "b/2.png").write_bytes(changed)
    again = scan(path, cache=cache)
    assert again.identity.images != first.identity.images and read == ["b/2.png"]
    digests = {file.entry.name: file.digest for file in again.files}
    assert digests["b/2.png"] == hashlib.sha256(changed).hexdigest()[:32]
    os.remove(path / "b/2.png")
    assert len(scan(path, cache=cache).files) == 204


def test_headers_and_reasons_are_remembered(tmp_path, read):
    files = {f"a/{i}.png": encoded(noise(4, 6, 1)) for i in range(3)} | {"b/x.png": b"no image", "b/y.png": b""}
    path, cache = aged(write_files(tmp_path / "in", files)), tmp_path / "scratch"
    os.mkfifo(path / "b/z.png")
    for opened in (5, 0):
        read.clear()
        found = scan(path, cache=cache)
        assert len(read) == opened
        assert {(file.height, file.width, file.grey) for file in found.files} == {(4, 6, True)}
        assert found.skipped == {
            "b/x.png": "is not an image",
            "b/y.png": "is empty",
            "b/z.png": "is a FIFO and not a file",
        }


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_what_could_not_be_read_is_read_again(tmp_path, monkeypatch, kind):
    files, cache, plain = classes_of({"a": 3, "b": 3}), tmp_path / "scratch", Tree.open
    if kind == "folder":
        path = aged(write_files(tmp_path / "in", files))
    else:
        os.utime(path := zipped(tmp_path / "x.zip", files), (1e9, 1e9))

    def failing(self, file):
        if file.name == "b/1.png":
            raise OSError(5, "Input/output error")
        return plain(self, file)

    with monkeypatch.context() as patch:
        patch.setattr(Tree, "open", failing)
        assert scan(path, cache=cache).skipped == {"b/1.png": "cannot be read (Input/output error)"}
    again = scan(path, cache=cache)
    assert not again.skipped and again.identity == identity(path)


@pytest.mark.parametrize("spoil", ["{ spoilt", "[]\n[]\n", '{"path": "x"}\n{"contents": {"a/0.png": [1]}}\n', ""])
def test_a_cache_that_cannot_be_read_or_is_old_is_made_anew(tmp_path, read, spoil, monkeypatch):
    path, cache = aged(write_files(tmp_path / "in", classes_of({"a": 3, "b": 3}))), tmp_path / "scratch"
    first = scan(path, cache=cache)
    (place,) = cache.iterdir()
    whole = place.read_text()
    place.write_text(spoil)
    assert scan(path, cache=cache) == first and place.read_text() == whole
    monkeypatch.setattr("vtabflow.prepare.folders.scan.pillow", "1.0")
    read.clear()
    assert scan(path, cache=cache) == first and len(read) == 6 and place.read_text() != whole


def test_every_folder_has_a_file_of_its_own_and_what_is_gone_is_forgotten(tmp_path):
    cache = tmp_path / "scratch"
    for name in ("one", "two"):
        scan(aged(write_files(tmp_path / name, classes_of({"a": 3, "b": 3}))), cache=cache)
    assert {of_what(place) for place in cache.iterdir()} == {tmp_path / "one", tmp_path / "two"}
    assert cache_file(cache, tmp_path / "one") in cache.iterdir()
    shutil.rmtree(tmp_path / "one")
    (cache / "torn.jsonl").write_text("{")
    scan(tmp_path / "two", cache=cache)  # nothing new, so nothing is written
    assert len(list(cache.iterdir())) == 3
    scan(aged(write_files(tmp_path / "three", classes_of({"a": 3}))), cache=cache)
    assert {of_what(place) for place in cache.iterdir()} == {tmp_path / "two", tmp_path / "three"}


def test_another_limit_of_pixels_has_a_cache_of_its_own(tmp_path, read):
    path, cache = aged(write_files(tmp_path / "in", classes_of({"a": 3, "b": 3}))), tmp_path / "scratch"
    for decoding in (FolderDecoding(), FolderDecoding(max_pixels=10**9), FolderDecoding(range=(0, 4095))) * 2:
        scan(path, decoding=decoding, cache=cache)
    assert len(read) == 12 and len(list(cache.iterdir())) == 2


def test_a_file_that_was_just_written_is_not_cached(tmp_path, read):
    """Its next version may have the same time; FAT keeps times to 2 s."""
    path, cache = write_files(tmp_path / "in", classes_of({"a": 2, "b": 2})), tmp_path / "cache"
    os.utime(path / "a/0.png", (1e9, 1e9))
    scan(path, cache=cache)
    read.clear()
    scan(path, cache=cache)
    assert sorted(read) == ["a/1.png", "b/0.png", "b/1.png"]


def test_new_content_of_the_same_size_and_time_is_read(tmp_path):
    path, cache = write_files(tmp_path / "in", {"a/0.png": b"one", "b/0.png": b"two"}), tmp_path / "cache"
    for turn, content in enumerate((b"one", b"six")):
        (path / "a/0.png").write_bytes(content)
        aged(path)
        assert identity(path, cache) == identity(path), turn


def test_a_large_file_is_read_in_blocks(tmp_path, monkeypatch):
    data = encoded(noise(64, 64))
    path = write_files(tmp_path / "in", {"a/0.png": data, "b/0.png": data})
    whole = scan(path)
    monkeypatch.setattr(fingerprint, "WHOLE", 100)
    monkeypatch.setattr(fingerprint, "BLOCK", 64)
    assert scan(path) == whole and whole.files[0].digest == hashlib.sha256(data).hexdigest()[:32]


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_an_archive_that_is_known_is_not_listed(tmp_path, monkeypatch, kind):
    files = classes_of({"a": 5, "b": 5}) | {"lost.png": b"", "b/y.png": b"x"}
    path, cache = tmp_path / f"x.{kind}", tmp_path / "cache"

    def pack(files):
        if kind == "zip":
            return zipped(path, files)
        folder = write_files(Path(tempfile.mkdtemp(dir=tmp_path)), files)
        with tarfile.open(path, "w:gz") as archive:
            archive.add(folder, "top")
        return path

    os.utime(pack(files), (1e9, 1e9))
    first = scan(path, cache=cache, code="1")
    assert first.skipped == {"lost.png": "lies in no class folder", "b/y.png": "is not an image"}
    with monkeypatch.context() as patch:
        patch.setattr("vtabflow.prepare.folders.scan.open_tree", None)
        again = scan(path, cache=cache, code="1")
        assert again.identity == first.identity and again.skipped == first.skipped
        assert [file.entry.name for file in again.files] == [file.entry.name for file in first.files]
        assert [file.digest for file in again.files] == [file.digest for file in first.files]
    with monkeypatch.context() as patch:
        patch.setattr("vtabflow.prepare.folders.fingerprint._content", None)  # no member is read again
        layout = replace(first.layout, kind="as the new code says")
        patch.setattr("vtabflow.prepare.folders.scan.understand", lambda *_: layout)
        assert scan(path, cache=cache, code="2").layout.kind == "as the new code says"
    pack(classes_of({"a": 5, "b": 6}))
    assert identity(path, cache) == identity(path) != first.identity


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
