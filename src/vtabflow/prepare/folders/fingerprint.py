"""The files of a folder or zip of images, listed as (split, class, file), and the fingerprint that keys are made of.

    <class>/<image>
    train/<class>/<image>   val/<class>/<image>   test/<class>/<image>      (train, and none, one or both of the others)

A single folder around all of that is skipped. Folders below a class belong to the class. Hidden files, __MACOSX,
Thumbs.db and desktop.ini are ignored. Nothing is extracted. Planning imports this module, so it imports nothing heavy.
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

from vtabflow.contracts.typed_json import from_json, to_json
from vtabflow.errors import UserError
from vtabflow.runtime.files import read_json, write_json

SPLIT_NAMES = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
JUNK = {"__MACOSX", "Thumbs.db", "desktop.ini"}
# Any file in a class folder counts as an image; of the files outside class folders only these are reported.
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".gif", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
# Modification times are this coarse at worst (FAT: 2 s). A younger file may change again and keep its time: not cached.
MTIME_GRANULARITY_NS = 2_000_000_000
# To be increased when the listing or the digests change: cached fingerprints of zips are then out of date.
FORMAT = 1


@dataclass(frozen=True)
class Entry:
    """One file of a class. `split` is "" where the folder has no splits; `name` is its path below the folder."""

    split: str
    label: str
    name: str
    size: int
    place: str | zipfile.ZipInfo
    crc: int | None  # None: to be computed, see Listing.crc


@dataclass(frozen=True)
class FolderIdentity:
    """The fingerprint of a folder or zip: digests of its images and of its labels, and its classes."""

    images: str
    labels: str
    classes: int
    class_names: tuple[str, ...]


class Listing:
    """The files of a folder or zip, sorted by name. `strays` are images that are in no class folder."""

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
def open_listing(path: Path | str) -> Iterator[Listing]:
    """List the files of a folder or zip of images, and keep a zip open for reading.

    Raises:
        UserError: no such path, no permission, a file that is not a zip, no class folder with images, no train split.
    """
    path = Path(path)
    archive = None
    try:
        if not path.exists():
            raise UserError(f"there is no folder or zip of images at {path}: correct the path, or put the images there")
        if path.is_dir():
            found = _classify(path, None, _files(path))
        else:
            archive = zipfile.ZipFile(path)
            found = _classify(path, archive, _members(archive))
    except (zipfile.BadZipFile, NotImplementedError, ValueError, struct.error) as error:
        raise UserError(f"{path} is not a zip file ({error}): give a folder, or a zip, of <class>/<image>") from error
    except OSError as error:
        reason = f"{error.filename or path} cannot be read ({error.strerror or error})"
        raise UserError(f"{reason}: fix its permission or the path {path}") from error
    try:
        yield found
    finally:
        if archive is not None:
            archive.close()


def scan(path: Path | str, cache_file: Path | str | None = None) -> list[tuple[str, int, int]]:
    """(name below the folder, bytes, CRC-32) of every file of a class, by name. Arguments as in `identity`."""
    with open_listing(path) as found:
        return [(entry.name, entry.size, crc) for entry, crc in _with_crc(found, cache_file)]


def identity(path: Path | str, cache_file: Path | str | None = None) -> FolderIdentity:
    """The fingerprint of a folder or zip of images.

    `images` digests the split, the bytes' CRC-32 and their number of every file, `labels` its class as well. Names and
    times are in neither. A folder and a zip of it have the same fingerprint.

    Args:
        path: the folder or zip.
        cache_file: a JSON file that caches the CRC-32 of a folder's files, and the fingerprint of a zip, by path, size
            and times, so that the second call reads none of them. It is written if it is missing or unreadable.
    """
    path = Path(path)
    if cache_file is None or not path.is_file():
        with open_listing(path) as found:
            return identity_of(found, _with_crc(found, cache_file))
    cache, place = _read_cache(cache_file), str(path.absolute())
    state = [FORMAT, *_state(path)]
    known = cache.get(place)
    if isinstance(known, dict) and known.get("state") == state:
        return from_json(FolderIdentity, known["identity"], str(cache_file))
    with open_listing(path) as found:
        result = identity_of(found, _with_crc(found, None))
    if _may_be_cached(state):
        write_json(cache_file, {**cache, place: {"state": state, "identity": to_json(result)}})
    return result


def identity_of(found: Listing, files: Iterable[tuple[Entry, int]]) -> FolderIdentity:
    """`identity` of files whose CRC-32 is known."""
    files = list(files)
    images = [f"{entry.split}/{crc:08x}/{entry.size}\n" for entry, crc in files]
    labels = [f"{entry.split}/{crc:08x}/{entry.size}/{entry.label}\n" for entry, crc in files]
    return FolderIdentity(_digest(images), _digest(labels), len(found.classes), tuple(found.classes))


def _digest(lines: list[str]) -> str:
    return hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()[:16]


def _with_crc(found: Listing, cache_file: Path | str | None) -> list[tuple[Entry, int]]:
    if found.archive is not None or cache_file is None:
        return [(entry, found.crc(entry)) for entry in found.entries]
    root = str(found.path.absolute())
    cache = _read_cache(cache_file)
    before = cache.get(root, {})
    now: dict[str, list[int]] = {}
    files = []
    for entry in found.entries:
        place = str(entry.place)
        state = _state(place)
        known = before.get(place)
        crc = known[-1] if isinstance(known, list) and known[:-1] == state else found.crc(entry)
        files.append((entry, crc))
        if _may_be_cached(state):
            now[place] = [*state, crc]
    if now != before:
        write_json(cache_file, {**cache, root: now})
    return files


def _state(path: Path | str) -> list[int]:
    try:
        state = os.stat(path)
    except OSError:  # a link to nothing
        return [0, 0, 0]
    return [state.st_size, state.st_mtime_ns, state.st_ctime_ns]


def _may_be_cached(state: list[int]) -> bool:
    return time.time_ns() - state[-2] > MTIME_GRANULARITY_NS


def _read_cache(path: Path | str) -> dict[str, Any]:
    try:
        cache = read_json(path)
    except (OSError, ValueError):
        return {}
    return cache if isinstance(cache, dict) else {}


# A file before its class is known: the parts of its name, its size, its place, its CRC-32.
_File = tuple[tuple[str, ...], int, str | zipfile.ZipInfo, int | None]


def _files(
    folder: Path, parts: tuple[str, ...] = (), above: frozenset[tuple[int, int]] = frozenset()
) -> Iterator[_File]:
    state = folder.stat()
    here = (state.st_dev, state.st_ino)
    if here in above:  # a link to a folder that contains it
        return
    with os.scandir(folder) as found:
        for item in found:
            if item.name.startswith(".") or item.name in JUNK:
                continue
            name = (*parts, _as_text(item.name))
            if item.is_dir():
                yield from _files(Path(item.path), name, above | {here})
            elif item.is_file():
                yield name, item.stat().st_size, item.path, None
            else:  # a link to nothing: reported as unreadable when it is read
                yield name, 0, item.path, 0


def _members(archive: zipfile.ZipFile) -> Iterator[_File]:
    # Of entries with the same name the last one counts, as it does when the zip is extracted.
    for member in {member.filename: member for member in archive.infolist()}.values():
        parts = [part for part in member.filename.replace("\\", "/").split("/") if part]
        if member.is_dir() or any(part.startswith(".") or part in JUNK for part in parts):
            continue
        yield tuple(_as_text(part) for part in parts), member.file_size, member, member.CRC


def _as_text(name: str) -> str:
    """A name as text: composed (macOS stores é as two characters), without line breaks or bytes that are not UTF-8."""
    name = name.encode(errors="surrogateescape").decode(errors="backslashreplace")
    return unicodedata.normalize("NFC", name).replace("\n", "\\n").replace("\r", "\\r")


def _classify(path: Path, archive: zipfile.ZipFile | None, members: Iterable[_File]) -> Listing:
    files = _without_outer_folder(sorted(members, key=lambda file: file[0]))
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
        outside = f" ({len(strays)} lie in no class folder, {strays[0]} first)" if strays else ""
        raise UserError(f"{path} has no images in class folders{outside}: arrange them as <class>/<image>")
    if with_splits and not any(entry.split == "train" for entry in entries):
        raise UserError(f"{path} has {' and '.join(sorted(given))} but no train folder: add train/<class>/<image>")
    return Listing(path, archive, entries, strays)


def _without_outer_folder(files: list[_File]) -> list[_File]:
    """Names below the single folder that contains everything, unless that is a split or the only class."""
    while True:
        tops = {parts[0] for parts, *_ in files if len(parts) > 1}
        inside = {parts[1] for parts, *_ in files if len(parts) > 2}
        if len(tops) != 1 or not inside or tops <= set(SPLIT_NAMES):
            return files
        files = [(parts[1:], size, place, crc) for parts, size, place, crc in files if len(parts) > 1]
