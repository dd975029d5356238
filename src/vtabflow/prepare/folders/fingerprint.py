"""What lies in a folder or zip of images: the one lister of (split, class, file), and the identity that keys digest.

    <class>/<image>
    train/<class>/<image>   val/<class>/<image>   test/<class>/<image>      (train, and none, one or both of the others)

A single folder around all of that is looked through. Folders below a class belong to the class. Hidden files, __MACOSX,
Thumbs.db and desktop.ini are not seen. Nothing is extracted and nothing heavy is imported: keys are made from this.
"""

import hashlib
import os
import struct
import time
import unicodedata
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from vtabflow.errors import UserError
from vtabflow.runtime.files import read_json, write_json

SPLIT_NAMES = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
JUNK = {"__MACOSX", "Thumbs.db", "desktop.ini"}
# Any file in a class folder counts as an image; of those beside the class folders only these are worth a word.
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".gif", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
# A file changed within this time of being read may change again without a new time (FAT keeps 2 s): not remembered.
SETTLED_NS = 2_000_000_000
# Raised when the listing or the digests change: what is remembered of a zip is then out of date.
FORMAT = 1


@dataclass(frozen=True)
class Entry:
    """One file of a class. `split` is "" where the folder has no splits; `name` is its path there, for people."""

    split: str
    label: str
    name: str
    size: int
    place: str | zipfile.ZipInfo
    crc: int | None  # zips know it; see Listing.crc


class Listing:
    """The files of a folder or zip, by name. `strays` are images that lie in no class folder."""

    def __init__(self, path: Path, archive: zipfile.ZipFile | None, entries: list[Entry], strays: list[str]):
        self.path = path
        self.archive = archive
        self.entries = entries
        self.strays = strays
        self.splits = sorted({entry.split for entry in entries})
        self.classes = sorted({entry.label for entry in entries})

    def open(self, entry: Entry) -> IO[bytes]:
        """A binary stream of one file. Raises what zipfile and the file system raise."""
        if isinstance(entry.place, zipfile.ZipInfo):
            assert self.archive is not None
            return self.archive.open(entry.place)
        return open(entry.place, "rb")

    def read(self, entry: Entry) -> bytes:
        with self.open(entry) as stream:
            return stream.read()

    def crc(self, entry: Entry) -> int:
        """CRC-32 of a file's bytes: from the zip's directory, or by reading it. An unreadable file counts as empty."""
        if entry.crc is not None:
            return entry.crc
        found = 0
        try:
            with self.open(entry) as stream:
                while block := stream.read(1 << 20):
                    found = zlib.crc32(block, found)
        except OSError:
            return 0
        return found


@contextmanager
def listing(path: Path | str) -> Iterator[Listing]:
    """The files of a folder or zip of images, open for reading.

    Raises:
        UserError: nothing there, no permission, a file that is no zip, no class folder with images, no train split.
    """
    path = Path(path)
    archive = None
    try:
        if not path.exists():
            raise UserError(f"there is no folder or zip of images at {path}: correct the path, or put the images there")
        if path.is_dir():
            found = _sorted_out(path, None, _files(path))
        else:
            archive = zipfile.ZipFile(path)
            found = _sorted_out(path, archive, _members(archive))
    except (zipfile.BadZipFile, NotImplementedError, ValueError, struct.error) as error:
        raise UserError(f"{path} is not a zip file ({error}): give a folder, or a zip, of <class>/<image>") from error
    except OSError as error:
        reason = f"{error.filename or path} cannot be read ({error.strerror or error})"
        raise UserError(f"{reason}: mend its permission or the path {path}") from error
    try:
        yield found
    finally:
        if archive is not None:
            archive.close()


def scan(path: Path | str, cache_file: Path | str | None = None) -> dict[str, list[tuple[str, int, int]]]:
    """Every file of a class: {"files": [(name below the folder, bytes, CRC-32)]}, by name. Arguments as `identity`."""
    with listing(path) as found:
        return {"files": [(entry.name, entry.size, crc) for entry, crc in _with_crc(found, cache_file)]}


def identity(path: Path | str, cache_file: Path | str | None = None) -> dict[str, Any]:
    """The fingerprint of a folder or zip of images.

    {"images": digest, "labels": digest, "classes": n, "class_names": [...]}. "images" digests the split and the bytes'
    CRC-32 and number for every file, "labels" its class as well. Names and times are in neither; a folder and a zip of
    it are the same.

    Args:
        cache_file: a small JSON file that remembers the CRC-32 of a folder's files, and the fingerprint of a zip, by
            path, size and times, so that the second time reads none of them. It is made when missing or spoilt.
    """
    path = Path(path)
    if cache_file is None or not path.is_file():
        with listing(path) as found:
            return identity_of(found, _with_crc(found, cache_file))
    remembered = _read_cache(cache_file)
    state = [FORMAT, *_state(path)]
    known = remembered.get(str(path.absolute()))
    if isinstance(known, dict) and known.get("state") == state:
        return known["identity"]
    with listing(path) as found:
        result = identity_of(found, _with_crc(found, None))
    if _settled(state):
        write_json(cache_file, {**remembered, str(path.absolute()): {"state": state, "identity": result}})
    return result


def identity_of(found: Listing, files: Iterable[tuple[Entry, int]]) -> dict[str, Any]:
    """`identity` of files whose CRC-32 is known."""
    files = list(files)
    images = [f"{entry.split}/{crc:08x}/{entry.size}\n" for entry, crc in files]
    labels = [f"{entry.split}/{crc:08x}/{entry.size}/{entry.label}\n" for entry, crc in files]
    return {
        "images": _digest(images),
        "labels": _digest(labels),
        "classes": len(found.classes),
        "class_names": found.classes,
    }


def _digest(lines: list[str]) -> str:
    return hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()[:16]


def _with_crc(found: Listing, cache_file: Path | str | None) -> list[tuple[Entry, int]]:
    if found.archive is not None or cache_file is None:
        return [(entry, found.crc(entry)) for entry in found.entries]
    root = str(found.path.absolute())
    remembered = _read_cache(cache_file)
    before = remembered.get(root, {})
    now: dict[str, list[int]] = {}
    files = []
    for entry in found.entries:
        place = str(entry.place)
        state = _state(place)
        known = before.get(place)
        crc = known[-1] if isinstance(known, list) and known[:-1] == state else found.crc(entry)
        files.append((entry, crc))
        if _settled(state):
            now[place] = [*state, crc]
    if now != before:
        write_json(cache_file, {**remembered, root: now})
    return files


def _state(path: Path | str) -> list[int]:
    try:
        state = os.stat(path)
    except OSError:  # a link to nothing
        return [0, 0, 0]
    return [state.st_size, state.st_mtime_ns, state.st_ctime_ns]


def _settled(state: list[int]) -> bool:
    return time.time_ns() - state[-2] > SETTLED_NS


def _read_cache(path: Path | str) -> dict[str, Any]:
    try:
        remembered = read_json(path)
    except (OSError, ValueError):
        return {}
    return remembered if isinstance(remembered, dict) else {}


# What is seen of a file before files are sorted into classes: the parts of its name, its size, its place, its CRC-32.
_File = tuple[tuple[str, ...], int, str | zipfile.ZipInfo, int | None]


def _files(
    folder: Path, parts: tuple[str, ...] = (), above: frozenset[tuple[int, int]] = frozenset()
) -> Iterator[_File]:
    state = folder.stat()
    here = (state.st_dev, state.st_ino)
    if here in above:  # a link to a folder that it lies in
        return
    with os.scandir(folder) as found:
        for item in found:
            if item.name.startswith(".") or item.name in JUNK:
                continue
            name = (*parts, _shown(item.name))
            if item.is_dir():
                yield from _files(Path(item.path), name, above | {here})
            elif item.is_file():
                yield name, item.stat().st_size, item.path, None
            else:  # a link to nothing: it is named as unreadable when its turn comes
                yield name, 0, item.path, 0


def _members(archive: zipfile.ZipFile) -> Iterator[_File]:
    # A name that is there twice: the last one counts, as it does for whoever extracts the zip.
    for member in {member.filename: member for member in archive.infolist()}.values():
        parts = [part for part in member.filename.replace("\\", "/").split("/") if part]
        if member.is_dir() or any(part.startswith(".") or part in JUNK for part in parts):
            continue
        yield tuple(_shown(part) for part in parts), member.file_size, member, member.CRC


def _shown(name: str) -> str:
    """A name as text: composed (macOS stores é as two characters), without line breaks or bytes that are no UTF-8."""
    name = name.encode(errors="surrogateescape").decode(errors="backslashreplace")
    return unicodedata.normalize("NFC", name).replace("\n", "\\n").replace("\r", "\\r")


def _sorted_out(path: Path, archive: zipfile.ZipFile | None, seen: Iterable[_File]) -> Listing:
    files = sorted(seen, key=lambda file: file[0])
    files = _below_the_top(files)
    tops = {parts[0] for parts, *_ in files if len(parts) > 1}
    given = {top for top in tops if top in SPLIT_NAMES}
    with_splits = bool(given) and given == tops
    if "train" in given and len({SPLIT_NAMES[top] for top in given}) > 1 and not with_splits:
        other = sorted(tops - given)[0]
        mixed = f"{path} has {' and '.join(sorted(given))} folders and also {other}"
        raise UserError(f"{mixed}: keep either splits or classes at the top")
    entries, strays = [], []
    for parts, size, place, crc in files:
        name = "/".join(parts)
        split = SPLIT_NAMES[parts[0]] if with_splits and len(parts) > 1 else ""
        inside = parts[1:] if split else parts
        if len(inside) > 1:
            entries.append(Entry(split, inside[0], name, size, place, crc))
        elif name.lower().endswith(IMAGE_SUFFIXES):
            strays.append(name)
    if not entries:
        beside = f" ({len(strays)} lie in no class folder, {strays[0]} first)" if strays else ""
        raise UserError(f"{path} holds no images in class folders{beside}: arrange them as <class>/<image>")
    if with_splits and not any(entry.split == "train" for entry in entries):
        raise UserError(f"{path} has {' and '.join(sorted(given))} but no train folder: add train/<class>/<image>")
    return Listing(path, archive, entries, strays)


def _below_the_top(files: list[_File]) -> list[_File]:
    """Look through a single folder that holds everything, unless it is a split or the only class."""
    while True:
        tops = {parts[0] for parts, *_ in files if len(parts) > 1}
        inside = {parts[1] for parts, *_ in files if len(parts) > 2}
        if len(tops) != 1 or not inside or tops <= set(SPLIT_NAMES):
            return files
        files = [(parts[1:], size, place, crc) for parts, size, place, crc in files if len(parts) > 1]
