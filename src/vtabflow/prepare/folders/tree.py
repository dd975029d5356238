"""The files of a folder, zip or tar as they are listed, before anything is said about classes.

A folder is listed with one scandir per folder and one stat per file. Links are followed, but not in circles. Of an
archive only the directory is read, and nothing is extracted; a compressed tar, which cannot be read from the middle, is
first decompressed into an unnamed temporary file. Hidden files and what file servers, desktops and notebooks leave
behind are ignored. Planning imports this module, so it imports nothing heavy.
"""

import bz2
import errno
import gzip
import io
import lzma
import os
import shutil
import stat
import struct
import tarfile
import tempfile
import unicodedata
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from vtabflow.errors import UserError
from vtabflow.prepare.folders.entry import ListedFile
from vtabflow.runtime.experiments import located

# Names, in lower case, that Synology, QNAP, Windows, macOS, file systems and Python leave in folders.
LEFTOVERS = {
    *("@eadir", "@__thumb", "@recycle", "@recently-snapshot", "#recycle", "#snapshot"),
    *("thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin", "system volume information"),
    *("icon\r", "__macosx", "network trash folder", "temporary items", "lost+found", "__pycache__"),
}
HIDDEN, LEFTOVER = "is hidden", "is a leftover of a file server, a desktop or an editor"
SPECIAL = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
COMPRESSED = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open}
BROKEN_ARCHIVE = (
    *(zipfile.BadZipFile, tarfile.TarError, lzma.LZMAError, zlib.error, struct.error),
    *(EOFError, NotImplementedError, ValueError),
)


@dataclass
class Tree:
    """What a folder or archive holds.

    Attributes:
        path: the folder or archive.
        files: sorted by their parts.
        empty_folders: folders below which there is no file, sorted.
        ignored: name -> why it is ignored, of hidden files, leftovers, and links to a folder that they lie in.
    """

    path: Path
    files: list[ListedFile] = field(default_factory=list)
    empty_folders: list[tuple[str, ...]] = field(default_factory=list)
    ignored: dict[str, str] = field(default_factory=dict)
    archive: zipfile.ZipFile | tarfile.TarFile | None = None

    def open(self, file: ListedFile) -> IO[bytes]:
        """A binary stream of one file; several threads may read at once. Raises what zipfile and open raise."""
        if file.problem:
            raise OSError(file.problem)
        if isinstance(file.place, str):
            return open(file.place, "rb")
        if isinstance(file.place, zipfile.ZipInfo):
            assert isinstance(self.archive, zipfile.ZipFile)
            return self.archive.open(file.place)
        assert isinstance(self.archive, tarfile.TarFile)
        whole: Any = self.archive.fileobj
        return io.BufferedReader(_Section(whole.fileno(), file.place.offset_data, file.size))


@contextmanager
def open_tree(path: Path | str, room: Path | str | None = None) -> Iterator[Tree]:
    """List a folder, zip or tar, and keep an archive open for reading.

    Args:
        path: the folder, or a zip, tar, tar.gz, tar.bz2 or tar.xz.
        room: the folder in which a compressed tar is decompressed for the time of the block; None: the system's.

    Raises:
        UserError: no such path, no permission, a broken archive, no room to decompress it, a name that is there twice.
    """
    path = Path(path)
    with ExitStack() as stack:
        try:
            tree = _listed(path, room, stack)
        except BROKEN_ARCHIVE as error:
            kind = "a zip file" if path.suffix.lower() == ".zip" else "a zip or tar file"
            raise UserError(
                f"{path} is not {kind} that can be read ({error or type(error).__name__}): "
                "get it again, or give a folder, zip or tar of <class>/<image>"
            ) from error
        except OSError as error:
            reason = f"{error.filename or path} cannot be read ({error.strerror or error})"
            raise UserError(f"{reason}: fix its permission or the path {path}") from error
        yield tree


def _listed(path: Path, room: Path | str | None, stack: ExitStack) -> Tree:
    path = located(path)
    if not path.exists():
        raise UserError(f"there is no folder or zip of images at {path}: correct the path, or put the images there")
    tree, folders = Tree(path), set[tuple[str, ...]]()
    if path.is_dir():
        tree.files = list(_scan(path, (), frozenset(), tree.ignored, folders))
    elif not path.is_file():
        raise UserError(f"{path} is neither a folder nor a file: give a folder, zip or tar of <class>/<image>")
    else:
        tree.archive = _open_archive(path, room, stack)
        if isinstance(tree.archive, zipfile.ZipFile):
            tree.files = list(_zip_members(tree.archive, tree.ignored, folders))
        else:
            tree.files = list(_tar_members(tree.archive, tree.ignored, folders))
    tree.files.sort(key=lambda file: file.parts)
    for before, after in zip(tree.files, tree.files[1:], strict=False):
        if before.parts == after.parts:
            raise UserError(f"{path} has two files that are called {after.name}, in two spellings: rename one")
    for file in tree.files:
        # The folders above a known folder are known.
        for depth in range(len(file.parts) - 1, 0, -1):
            if file.parts[:depth] not in folders:
                break
            folders.remove(file.parts[:depth])
    tree.empty_folders = sorted(folders)
    return tree


# ---- folders


def _scan(
    folder: Path | str,
    above: tuple[str, ...],
    inside: frozenset[tuple[int, int]],
    ignored: dict[str, str],
    folders: set[tuple[str, ...]],
) -> Iterator[ListedFile]:
    """The files below `folder`, whose name is `above`; `inside` has device and inode of the folders around it."""
    state = os.stat(folder)
    here = inside | {(state.st_dev, state.st_ino)}
    if here == inside:
        ignored["/".join(above)] = "is a link to a folder that it lies in"
        return
    if above:
        folders.add(above)
    with os.scandir(folder) as found:
        for item in found:
            parts = (*above, _as_text(item.name))
            if reason := _ignored(item.name):
                ignored["/".join(parts)] = reason
            elif _is_folder(item):
                yield from _scan(item.path, parts, here, ignored, folders)
            else:
                yield _listed_file(item, parts)


def _is_folder(item: os.DirEntry[str]) -> bool:
    try:
        return item.is_dir()
    except OSError as error:
        if error.errno == errno.ELOOP:  # a link to itself is one file that cannot be read
            return False
        raise


def _listed_file(item: os.DirEntry[str], parts: tuple[str, ...]) -> ListedFile:
    try:
        state = item.stat()
    except FileNotFoundError:
        return ListedFile(parts, 0, item.path, problem="is a link to a file that does not exist")
    except OSError as error:
        return ListedFile(parts, 0, item.path, problem=f"cannot be read ({error.strerror or error})")
    special = SPECIAL.get(stat.S_IFMT(state.st_mode))
    problem = f"is {special} and not a file" if special else None
    return ListedFile(parts, state.st_size, item.path, state.st_mtime_ns, state.st_ctime_ns, problem)


# ---- archives


class _Section(io.RawIOBase):
    """`size` bytes of an open file from `start` on. Nothing moves the file's own position, so threads can share it."""

    def __init__(self, descriptor: int, start: int, size: int):
        self.descriptor, self.start, self.size, self.position = descriptor, start, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        origin = {io.SEEK_SET: 0, io.SEEK_CUR: self.position, io.SEEK_END: self.size}[whence]
        self.position = max(0, origin + offset)
        return self.position

    def readinto(self, buffer: Any) -> int:
        wanted = max(0, min(len(buffer), self.size - self.position))
        data = os.pread(self.descriptor, wanted, self.start + self.position)
        if len(data) < min(wanted, 1):
            raise OSError("the archive ends early")
        buffer[: len(data)] = data
        self.position += len(data)
        return len(data)


def _open_archive(path: Path, room: Path | str | None, stack: ExitStack) -> zipfile.ZipFile | tarfile.TarFile:
    with open(path, "rb") as stream:
        start = stream.read(8)
    decompress = next((value for magic, value in COMPRESSED.items() if start.startswith(magic)), None)
    if decompress is not None:
        plain = stack.enter_context(_decompressed(path, decompress, room))
        return stack.enter_context(tarfile.open(fileobj=plain, mode="r:"))
    if start[:2] != b"PK" and tarfile.is_tarfile(path):
        return stack.enter_context(tarfile.open(path, "r:"))
    return stack.enter_context(zipfile.ZipFile(path))


@contextmanager
def _decompressed(path: Path, decompress: Any, room: Path | str | None) -> Iterator[IO[bytes]]:
    """The content of a compressed file as an unnamed file, of which nothing is left whatever happens."""
    if room is not None:
        Path(room).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=room) as plain:
        try:
            with decompress(path, "rb") as stream:
                shutil.copyfileobj(stream, plain, 1 << 20)
            plain.flush()
        except OSError as error:
            # gzip and bz2 raise an OSError without a number where the data are wrong.
            if error.errno is None:
                raise ValueError(error) from error
            where = room or tempfile.gettempdir()
            raise UserError(
                f"{path} cannot be decompressed into {where} ({error.strerror}): make room there, or unpack it "
                "yourself and give the folder"
            ) from error
        plain.seek(0)
        yield plain


def _zip_members(
    archive: zipfile.ZipFile, ignored: dict[str, str], folders: set[tuple[str, ...]]
) -> Iterator[ListedFile]:
    # Of entries with the same name the last one counts, as it does when the zip is extracted.
    members = {member.filename.replace("\\", "/"): member for member in archive.infolist()}
    for member, parts in _kept(((member, name) for name, member in members.items()), ignored):
        is_folder = member.filename.endswith(("/", "\\"))
        _note_folders(parts if is_folder else parts[:-1], folders)
        if is_folder:
            continue
        problem = "is encrypted" if member.flag_bits & 1 else None
        if stat.S_ISLNK(member.external_attr >> 16):
            problem = "is a link, which is not followed in a zip"
        yield ListedFile(parts, member.file_size, member, problem=problem)


def _tar_members(
    archive: tarfile.TarFile, ignored: dict[str, str], folders: set[tuple[str, ...]]
) -> Iterator[ListedFile]:
    members = {os.path.normpath(member.name): member for member in archive.getmembers()}
    for member, parts in _kept(((member, name) for name, member in members.items()), ignored):
        _note_folders(parts if member.isdir() else parts[:-1], folders)
        if member.isdir():
            continue
        target = _target(member, members)
        yield ListedFile(parts, target.size, target, problem=_tar_problem(target))


def _target(member: tarfile.TarInfo, members: dict[str, tarfile.TarInfo]) -> tarfile.TarInfo:
    """What a hard or symbolic link of a tar leads to, or the last link that could be followed."""
    for _ in range(40):  # links to each other would go on for ever
        if not (member.issym() or member.islnk()):
            break
        start = os.path.dirname(member.name) if member.issym() else ""
        following = members.get(os.path.normpath(os.path.join(start, member.linkname)))
        if following is None:
            break
        member = following
    return member


def _tar_problem(member: tarfile.TarInfo) -> str | None:
    if member.issym() or member.islnk():
        return "is a link to a file that does not exist"
    if member.isdir():
        return "is a link to a folder, which is not followed in a tar"
    if member.issparse():
        return "is stored as a sparse file, which is not read from a tar"
    if not member.isfile():
        return "is a FIFO or a device and not a file"
    return None


def _kept(members: Iterable[tuple[Any, str]], ignored: dict[str, str]) -> Iterator[tuple[Any, tuple[str, ...]]]:
    """Members with the parts of their names, less those that are ignored or lie in a folder that is."""
    for member, name in members:
        raw = [part for part in name.split("/") if part not in ("", ".")]
        parts = tuple(map(_as_text, raw))
        reasons = [_ignored(part) for part in raw]
        first = next((depth for depth, reason in enumerate(reasons) if reason), None)
        if first is not None:
            ignored["/".join(parts[: first + 1])] = str(reasons[first])
        elif parts:
            yield member, parts


def _note_folders(parts: tuple[str, ...], folders: set[tuple[str, ...]]) -> None:
    while parts and parts not in folders:
        folders.add(parts)
        parts = parts[:-1]


# ---- names


def _ignored(name: str) -> str | None:
    """Why a file or folder of this name is not looked at, or None."""
    if name.lower() in LEFTOVERS:
        return LEFTOVER
    return HIDDEN if name.startswith(".") else None


def _as_text(name: str) -> str:
    """A name as text: composed (macOS stores é as two characters), without line breaks or bytes that are not UTF-8."""
    if name.isascii() and name.isprintable():
        return name
    name = name.encode(errors="surrogateescape").decode(errors="backslashreplace")
    return unicodedata.normalize("NFC", name).replace("\n", "\\n").replace("\r", "\\r")
