"""One listing of a folder, zip or tar: what is in it, what is ignored, and what cannot be read."""

import bz2
import gzip
import io
import lzma
import os
import re
import socket
import stat
import tarfile
import tempfile
import threading
import unicodedata
import zipfile
from pathlib import Path

import pytest
from small_folders import write_files, zipped

from vtabflow.errors import UserError
from vtabflow.prepare.folders import tree as module
from vtabflow.prepare.folders.tree import open_tree

FILES = {"train/cat/0.png": b"one", "train/cat/deep/er.png": b"two", "test/dog/0.png": b"three", "labels.csv": b"a,b\n"}
ORDER = ["labels.csv", "test/dog/0.png", "train/cat/0.png", "train/cat/deep/er.png"]


def tarred(path: Path, files: dict[str, bytes], kind: str = "w", extra: tuple[tarfile.TarInfo, ...] = ()) -> Path:
    with tarfile.open(path, kind) as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
        for member in extra:
            archive.addfile(member)
    return path


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


def content(path: Path, **options) -> dict[str, bytes]:
    with open_tree(path, **options) as tree:
        return {file.name: tree.open(file).read() for file in tree.files if not file.problem}


def problems(path: Path) -> dict[str, str]:
    with open_tree(path) as tree:
        for file in (file for file in tree.files if file.problem):
            with pytest.raises(OSError, match=re.escape(file.problem)):
                tree.open(file)
        return {file.name: file.problem for file in tree.files if file.problem}


@pytest.mark.parametrize("kind", ["folder", "zip", "tar", "tar.gz", "tar.bz2", "tar.xz", "tgz"])
def test_folders_and_archives_list_and_read_the_same(tmp_path, kind):
    path = tmp_path / f"in.{kind}"
    if kind == "folder":
        write_files(path, FILES)
    elif kind == "zip":
        zipped(path, FILES)
    else:
        tarred(path, {f"./{name}": data for name, data in FILES.items()}, f"w:{kind[4:] if '.' in kind else ''}")
    if kind == "tgz":
        path.write_bytes(gzip.compress(path.read_bytes()))
    with open_tree(path) as tree:
        assert [file.name for file in tree.files] == ORDER and tree.path == path
        assert [file.size for file in tree.files] == [len(FILES[name]) for name in ORDER]
        assert not tree.empty_folders and not tree.ignored
    assert content(path) == FILES


def test_a_folder_costs_one_scandir_a_folder_and_one_stat_a_file(tmp_path, monkeypatch):
    path = write_files(tmp_path / "in", {f"{label}/{i}.png": b"x" for label in "abc" for i in range(20)})
    calls = {"scandir": 0, "stat": 0}

    class Item:
        def __init__(self, item):
            self.item, self.name, self.path = item, item.name, item.path

        def is_dir(self):
            assert not self.item.is_symlink()  # then is_dir() needs no stat
            return self.item.is_dir()

        def stat(self):
            calls["stat"] += 1
            return self.item.stat()

    class Items:
        def __init__(self, place):
            calls["scandir"] += 1
            self.found = plain_scandir(place)

        def __enter__(self):
            return map(Item, self.found)

        def __exit__(self, *error):
            self.found.close()

    plain_scandir, plain_stat = os.scandir, os.stat

    def counted(place, **options):
        if str(place).endswith(".png"):
            calls["stat"] += 1
        return plain_stat(place, **options)

    monkeypatch.setattr(module.os, "scandir", Items)
    monkeypatch.setattr(module.os, "stat", counted)
    with open_tree(path) as tree:
        assert len(tree.files) == 60 and all(file.mtime_ns > 0 and file.ctime_ns > 0 for file in tree.files)
    assert calls == {"scandir": 4, "stat": 60}


def test_special_files_are_named_and_never_opened(tmp_path):
    path = write_files(tmp_path / "in", {"a/0.png": b"x"})
    os.mkfifo(path / "a/pipe.png")
    with socket.socket(socket.AF_UNIX) as server:
        here = os.getcwd()
        os.chdir(path)  # the path of a socket has at most 107 bytes
        server.bind("plug.png")
        os.chdir(here)
        (path / "a/gone.png").symlink_to(tmp_path / "nothing.png")
        (path / "a/null.png").symlink_to("/dev/null")
        (path / "a/round.png").symlink_to("round.png")
        found = problems(path)
    assert found.pop("a/round.png").startswith("cannot be read (")
    assert found == {
        "a/pipe.png": "is a FIFO and not a file",
        "plug.png": "is a socket and not a file",
        "a/gone.png": "is a link to a file that does not exist",
        "a/null.png": "is a device and not a file",
    }
    with pytest.raises(UserError, match="pipe.png is neither a folder nor a file"), open_tree(path / "a/pipe.png"):
        pass


def test_special_members_of_archives(tmp_path):
    extra = (
        special("a/pipe", tarfile.FIFOTYPE),
        special("a/null", tarfile.CHRTYPE),
        special("b/same.png", tarfile.LNKTYPE, "a/0.png"),
        special("b/also.png", tarfile.SYMTYPE, "../b/same.png"),
        special("b/gone.png", tarfile.SYMTYPE, "../c/0.png"),
        special("b/round.png", tarfile.SYMTYPE, "round.png"),
        special("b/whole", tarfile.SYMTYPE, "../d"),
        special("d", tarfile.DIRTYPE),
    )
    path = tarred(tmp_path / "x.tar", {"a/0.png": b"picture"}, extra=extra)
    special_file, gone = "is a FIFO or a device and not a file", "is a link to a file that does not exist"
    assert problems(path) == {
        "a/pipe": special_file,
        "a/null": special_file,
        "b/gone.png": gone,
        "b/round.png": gone,
        "b/whole": "is a link to a folder, which is not followed in a tar",
    }
    assert content(path) == dict.fromkeys(("a/0.png", "b/same.png", "b/also.png"), b"picture")
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("a/0.png", b"x")
        link = zipfile.ZipInfo("a/link.png")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "0.png")
    assert problems(tmp_path / "x.zip") == {"a/link.png": "is a link, which is not followed in a zip"}


LEFT = {
    "@eaDir/a/0.png/SYNOPHOTO_THUMB_M.jpg": b"x",
    "cat/@eaDir/0.png": b"x",
    "cat/.ipynb_checkpoints/0-checkpoint.png": b"x",
    "cat/Thumbs.db": b"x",
    "cat/thumbs.db": b"x",
    "cat/Desktop.ini": b"x",
    "cat/Icon\r": b"",
    "cat/._0.png": b"x",
    ".DS_Store": b"x",
    "lost+found/0.png": b"x",
    "$RECYCLE.BIN/0.png": b"x",
    "System Volume Information/0.png": b"x",
    "__MACOSX/cat/._0.png": b"x",
    "#recycle/0.png": b"x",
}


@pytest.mark.parametrize("kind", ["folder", "zip", "tar"])
def test_leftovers_are_ignored_and_listed(tmp_path, kind):
    files = {"cat/0.png": b"x", **LEFT}
    make = {"folder": write_files, "zip": zipped, "tar": tarred}[kind]
    with open_tree(make(tmp_path / "in", files)) as tree:
        assert [file.name for file in tree.files] == ["cat/0.png"] and not tree.empty_folders
        hidden = {name for name, reason in tree.ignored.items() if reason == "is hidden"}
        others = {name for name, reason in tree.ignored.items() if "a file server" in reason}
    assert hidden == {"cat/.ipynb_checkpoints", "cat/._0.png", ".DS_Store"}
    assert others == {
        *("@eaDir", "cat/@eaDir", "cat/Thumbs.db", "cat/thumbs.db", "cat/Desktop.ini", "cat/Icon\\r"),
        *("lost+found", "$RECYCLE.BIN", "System Volume Information", "__MACOSX", "#recycle"),
    }


@pytest.mark.parametrize("kind", ["folder", "zip", "tar"])
def test_empty_folders(tmp_path, kind):
    path = write_files(tmp_path / "in", {"train/cat/0.png": b"x", "train/dog/Thumbs.db": b"x"})
    for name in ("train/bird", "val/cat", "train/cat/more"):
        (path / name).mkdir(parents=True)
    if kind == "tar":
        with tarfile.open(tmp_path / "x.tar", "w") as archive:
            archive.add(path, "top")
    elif kind == "zip":
        with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
            for found in sorted(path.rglob("*")):
                archive.write(found, f"top/{found.relative_to(path)}")
    top = () if kind == "folder" else ("top",)
    with open_tree(path if kind == "folder" else tmp_path / f"x.{kind}") as tree:
        names = ["/".join(parts[len(top) :]) for parts in tree.empty_folders]
    assert names == ["train/bird", "train/cat/more", "train/dog", "val", "val/cat"]


def test_links_to_folders_are_followed_but_not_in_circles(tmp_path):
    path = write_files(tmp_path / "in", {"a/0.png": b"x"})
    write_files(tmp_path / "elsewhere", {"b/1.png": b"y"})
    (path / "b").symlink_to(tmp_path / "elsewhere/b")
    (path / "a/up").symlink_to(path)
    (path / "a/self").symlink_to(path / "a")
    with open_tree(path) as tree:
        assert [file.name for file in tree.files] == ["a/0.png", "b/1.png"]
        assert tree.ignored == dict.fromkeys(("a/self", "a/up"), "is a link to a folder that it lies in")


def test_names_are_composed_text_and_unique(tmp_path):
    odd = os.fsencode(tmp_path / "in") + b"/odd\xff"
    os.makedirs(odd)
    with open(odd + b"/a\nb.png", "wb") as stream:
        stream.write(b"x")
    apart = unicodedata.normalize("NFD", "café")
    write_files(tmp_path / "in", {f"{apart}/0.png": b"y"})
    assert content(tmp_path / "in") == {"odd\\xff/a\\nb.png": b"x", "café/0.png": b"y"}
    windows = zipped(tmp_path / "w.zip", {"a\\0.png": b"x", "b\\": b""})
    with open_tree(windows) as tree:
        assert [file.name for file in tree.files] == ["a/0.png"] and tree.empty_folders == [("b",)]
    write_files(tmp_path / "in", {"café/0.png": b"z"})
    with pytest.raises(UserError, match="two files that are called café/0.png, in two spellings"):
        content(tmp_path / "in")


def test_the_last_of_two_members_of_one_name_counts(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("a/0.png", b"old")
        archive.writestr("a/0.png", b"newer")
    assert content(tmp_path / "x.zip") == {"a/0.png": b"newer"}
    tarred(tmp_path / "x.tar", {"a/0.png": b"old", "./a/0.png": b"newer"})
    assert content(tmp_path / "x.tar") == {"a/0.png": b"newer"}


def test_a_member_of_a_tar_can_be_read_by_several_threads_and_from_any_place(tmp_path):
    files = {f"a/{i}.png": bytes([i]) * 100_000 for i in range(20)}
    read = {}
    with open_tree(tarred(tmp_path / "x.tar.gz", files, "w:gz")) as tree:

        def some(start):
            for file in tree.files[start::4]:
                read[file.name] = tree.open(file).read()

        threads = [threading.Thread(target=some, args=(start,)) for start in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        with tree.open(tree.files[3]) as stream:
            stream.seek(-10, io.SEEK_END)
            assert stream.read() == files[tree.files[3].name][-10:] and stream.read(5) == b""
    assert read == files


def test_a_compressed_tar_leaves_nothing_behind(tmp_path, monkeypatch):
    (tmp_path / "system").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "system"))
    path = tarred(tmp_path / "x.tar.gz", FILES, "w:gz")
    with open_tree(path), open_tree(path, tmp_path / "room"):
        assert os.listdir(tmp_path / "system") == os.listdir(tmp_path / "room") == []
    monkeypatch.setattr(module.shutil, "copyfileobj", _full)
    with pytest.raises(UserError, match=r"x.tar.gz cannot be decompressed into .*room .*space.*unpack it yourself"):
        content(path, room=tmp_path / "room")


def _full(*arguments):
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz", "tar.bz2", "tar.xz"])
def test_a_broken_archive_is_named(tmp_path, kind):
    path = tmp_path / f"x.{kind}"
    noise = {f"a/{i}.png": os.urandom(20_000) for i in range(5)}
    if kind == "zip":
        zipped(path, noise)
    else:
        tarred(path, noise, f"w:{kind[4:]}")
    whole = path.read_bytes()
    expected = f"x.{kind} is not a zip" + (" file" if kind == "zip" else " or tar file")
    for data in (b"", b"PK not really", whole[: len(whole) // 2]):
        path.write_bytes(data)
        with pytest.raises(UserError, match=expected):
            content(path)


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress])
def test_a_compressed_file_that_is_no_tar_is_named(tmp_path, compress):
    (tmp_path / "images.gz").write_bytes(compress(b"idx3"))
    with pytest.raises(UserError, match="images.gz is not a zip or tar file"):
        content(tmp_path / "images.gz")


def test_encrypted_members_and_missing_paths(tmp_path):
    data = bytearray(zipped(tmp_path / "x.zip", {"a/0.png": b"x", "a/1.png": b"y"}).read_bytes())
    data[data.rindex(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "x.zip").write_bytes(data)
    assert problems(tmp_path / "x.zip") == {"a/1.png": "is encrypted"}
    with pytest.raises(UserError, match="there is no folder or zip of images at .*nowhere"):
        content(tmp_path / "nowhere")
