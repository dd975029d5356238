"""Archives of a dataset: verified and where TFDS looks for them, before TFDS generates.

An archive lies at <downloads>/<builder>/<name that TFDS computes> with its .INFO (protocol.md, section 7.1). TFDS does not
hash what it finds there, so the SHA-256 is verified here; what was verified is remembered by size and time of change in
<downloads>/<builder>/.verified.json. A file that is not there yet is taken from where a person has put it, or fetched.
"""

import fcntl
import glob
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from vtabflow.errors import RunError, UserError
from vtabflow.prepare.tfds.archives import ARCHIVES, EXTRACTED, INNER_EXTRACTED, RECORDS, Archive
from vtabflow.prepare.tfds.download import DownloadError, addresses, download, gigabytes
from vtabflow.prepare.tfds.manual import missing_by_hand
from vtabflow.runtime.files import read_json, sha256, write_json

__all__ = ["Wanted", "check_room", "fetch", "generated", "is_generated", "is_ours", "missing_by_hand", "wanted"]

Places = Mapping[str, Any]


class Built(Protocol):
    """What is needed of a Dataset (datasets.py)."""

    @property
    def id(self) -> str: ...
    @property
    def builder(self) -> str: ...


@dataclass(frozen=True)
class Wanted:
    """An archive, where it has to lie, and the SHA-256 and size that it has to have.

    `sha256` is the registered one, or that of prepare.tfds.checksums; `size` is None where nothing says it.
    """

    archive: Archive
    path: Path
    sha256: str
    size: int | None

    def is_there(self) -> bool:
        """Whether it lies in its place with the right size; the SHA-256 is left to `fetch`."""
        return self.path.is_file() and self.size in (None, self.path.stat().st_size) and _info(self.path).is_file()

    def missing(self) -> int:
        """Bytes that are still to be fetched."""
        if self.is_there():
            return 0
        part = _part(self)
        have = part.stat().st_size if part.exists() else 0
        return max(0, (self.archive.size if self.size is None else self.size) - have)


def wanted(dataset: Built, places: Places, checksums: Mapping[str, Any] | None = None) -> list[Wanted]:
    """The archives of a dataset. `checksums` and the file places["checksums"], in this order, win over TFDS' own.

    Either has {url: {"sha256": ..., "size": ...}} or {url: sha256}. Raises UserError if the file cannot be read.
    """
    filed = _given(places.get("checksums"))
    own = {url: _entry(url, value) for url, value in (checksums or {}).items()}
    found = []
    for archive in ARCHIVES.get(dataset.id, ()):
        path = Path(places["downloads"]) / dataset.builder / archive.cached_name
        known = [own.get(archive.url), filed.get(archive.url), (archive.sha256, archive.size)]
        digest = next(entry for entry in known if entry)[0]
        # A spec has digests alone: the size is that of whoever knows one for the same digest.
        size = next((entry[1] for entry in known if entry and entry[0] == digest and entry[1] is not None), None)
        found.append(Wanted(archive, path, digest, size))
    return found


def fetch(dataset: Built, places: Places, checksums: Mapping[str, Any] | None = None) -> None:
    """See to it that every archive of `dataset` lies verified where TFDS looks for it.

    For each: what is there already; else a file of its own name below places["manual"] or in places["downloads"]; else
    a download. Several processes at once wait for each other. What was fetched stays, and a next call goes on from there.

    Args: checksums as in `wanted`, for archives that are not the registered ones.
    Raises: UserError (a file placed by hand that is another one, a wrong checksum in the cache) or RunError (dead links,
    a changed archive, no room), each one sentence with the dataset, the address or file and the ways on.
    """
    if lacking := missing_by_hand(dataset, places):
        raise UserError(" ".join(lacking))
    files = wanted(dataset, places, checksums)
    folder = Path(places["downloads"]) / dataset.builder
    if all(_is_verified(each) and _info(each.path).is_file() for each in files):
        return
    with _locked(folder, dataset.id):
        for each in files:
            if each.path.exists():
                _verify(dataset, places, each)
        _take_what_a_person_brought(dataset, places, files)
        missing = [each for each in files if not each.path.exists()]
        _check_room(dataset, places, files, missing)
        for each in missing:
            _download(dataset, places, each)


def _is_verified(each: Wanted) -> bool:
    try:
        status = each.path.stat()
    except OSError:
        return False
    noted = _notes(each.path.parent).get(each.path.name)
    return noted is not None and noted.get("file") == [status.st_size, status.st_mtime_ns, each.sha256]


def _verify(dataset: Built, places: Places, each: Wanted) -> None:
    """Hash what lies in the cache, unless that was done before. UserError if it is another file."""
    if not _is_verified(each):
        found = sha256(each.path)
        if found != each.sha256:
            raise UserError(
                f"{dataset.id}: {each.path} is not the archive that is wanted ({each.path.stat().st_size:,} bytes, SHA-256 {found} "
                f"instead of {each.sha256}): remove it and run again, or, if {each.archive.url} was released anew, put its "
                "SHA-256 into the file prepare.tfds.checksums"
            )
        _noted(dataset, places, each, ours=False)
    _write_info(dataset, each)


def _take_what_a_person_brought(dataset: Built, places: Places, files: Sequence[Wanted]) -> None:
    for each in files:
        for candidate in () if each.path.exists() else by_hand_places(dataset, places, each):
            if not candidate.is_file():
                continue
            print(f"{dataset.id}: found {candidate}", flush=True)
            size, found = candidate.stat().st_size, "not read"
            if each.size in (None, size):
                found = sha256(candidate)
            if found != each.sha256:
                raise UserError(
                    f"{dataset.id}: {candidate} is not the file that is wanted ({size:,} bytes, SHA-256 {found}; {each.archive.url} has "
                    f"{f'{each.size:,} bytes, ' if each.size else ''}SHA-256 {each.sha256}): put the right file there or remove this one "
                    "to have it fetched, or, if it was released anew, put its SHA-256 into the file prepare.tfds.checksums"
                )
            _link(candidate, each.path)
            _write_info(dataset, each)
            _noted(dataset, places, each, ours=True)
            break


def by_hand_places(dataset: Built, places: Places, each: Wanted) -> list[Path]:
    """Where a person may put an archive under its own name."""
    manual, downloads = Path(places["manual"]), Path(places["downloads"])
    return [folder / each.archive.name for folder in (manual / dataset.id, manual, downloads)]


def _link(source: Path, target: Path) -> None:
    """The same file under the name that TFDS knows, without copying it: what a person put there stays where it is."""
    try:
        target.unlink(missing_ok=True)  # a link to where the file was before
        try:
            os.link(source, target)
        except OSError:  # another disk, or one without hard links
            target.symlink_to(source.resolve())
    except OSError as error:
        raise RunError(
            f"cannot write {target}: {error.strerror or error}; mend the permission, then run again"
        ) from error


def _download(dataset: Built, places: Places, each: Wanted) -> None:
    part, found = _part(each), []
    for address in addresses(each.archive.url, places.get("mirrors") or {}):
        label = f"{dataset.id}: {each.archive.name}"
        print(f"{label}: fetching {address}", flush=True)
        try:
            download(address, part, each.size, each.sha256, label)
        except DownloadError as reason:
            found.append(f"{address}: {reason}")
            continue
        os.replace(part, each.path)
        _write_info(dataset, each)
        _noted(dataset, places, each, ours=True)
        return
    place = by_hand_places(dataset, places, each)[0]
    anew = "; if it was released anew, put its SHA-256 into the file prepare.tfds.checksums"
    raise RunError(
        f"{dataset.id}: {each.archive.name} cannot be fetched ({'; '.join(found)}), {each.archive.size:,} bytes with SHA-256 "
        f"{each.sha256} are wanted: bring the file by other ways and put it at {place}, or name a mirror in "
        f"prepare.tfds.mirrors{anew if any('another file' in reason for reason in found) else ''}; then run again"
    )


# ---- what lies beside an archive


def _part(each: Wanted) -> Path:
    return each.path.with_name(f"{each.path.name}.part")


def _info(path: Path) -> Path:
    return path.with_name(f"{path.name}.INFO")


def _write_info(dataset: Built, each: Wanted) -> None:
    """The note by which TFDS takes the archive for cached; with the registered checksum, whatever the file's own is."""
    archive = each.archive
    if not _info(each.path).is_file():
        registered = {"checksum": archive.sha256, "filename": archive.name, "size": archive.size}
        info = {"dataset_names": [dataset.builder], "original_fname": archive.name, "url_info": registered}
        write_json(_info(each.path), {**info, "urls": [archive.url]})


def _notes(folder: Path) -> dict[str, Any]:
    with suppress(OSError, ValueError):
        noted = read_json(folder / ".verified.json")
        if isinstance(noted, dict):
            return noted
    return {}


def _noted(dataset: Built, places: Places, each: Wanted, ours: bool) -> None:
    """Remember an archive that was verified; what TFDS unpacked of another one in its place, and would take, goes."""
    status = each.path.stat()
    noted = _notes(each.path.parent)
    if each.path.name in noted and noted[each.path.name].get("file", [])[-1:] != [each.sha256]:
        extracted = Path(places["downloads"], "extracted")
        inner = (extracted / name for name in INNER_EXTRACTED.get(dataset.id, ()))
        for old in (*extracted.glob(f"*.{glob.escape(each.path.name)}"), *inner):
            shutil.rmtree(old, ignore_errors=True) if old.is_dir() else old.unlink(missing_ok=True)
    entry = {"file": [status.st_size, status.st_mtime_ns, each.sha256], "ours": ours}
    with suppress(RunError):  # a folder that is read-only is hashed again next time
        write_json(each.path.parent / ".verified.json", {**noted, each.path.name: entry})


def is_ours(each: Wanted) -> bool:
    """Whether the project put this archive there, by fetching it or by linking what a person brought."""
    return _is_verified(each) and bool(_notes(each.path.parent)[each.path.name]["ours"])


@contextmanager
def _locked(folder: Path, dataset: str) -> Iterator[None]:
    """One process at a time fetches the archives of a builder; the lock ends with the process."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        reason = error.strerror or error
        raise RunError(
            f"{dataset}: cannot write to {folder}: {reason}; mend the permission or set prepare.tfds.downloads, then run again"
        ) from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"{dataset}: another process is fetching; waiting for it", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError:  # a file system without locks
            pass
        yield
    finally:
        os.close(lock)


def _given(path: str | Path | None) -> dict[str, tuple[str, int | None]]:
    """The file prepare.tfds.checksums: {url: (sha256, size)}."""
    if path is None:
        return {}
    try:
        given = read_json(path)
        if not isinstance(given, dict):
            raise ValueError("not an object")
    except FileNotFoundError as error:
        raise UserError(f"there is no file {path}, which prepare.tfds.checksums names") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is no JSON object of addresses ({error}); prepare.tfds.checksums names it") from error
    return {url: _entry(url, value) for url, value in given.items()}


def _entry(url: str, value: Any) -> tuple[str, int | None]:
    digest, size = (
        (value, None)
        if isinstance(value, str)
        else (value.get("sha256"), value.get("size"))
        if isinstance(value, dict)
        else (None, None)
    )
    good = isinstance(digest, str) and len(digest) == 64 and not set(digest.lower()) - set("0123456789abcdef")
    if not good or not (size is None or (isinstance(size, int) and size >= 0)):
        raise UserError(f'prepare.tfds.checksums: the entry of {url} should be {{"sha256": 64 digits, "size": bytes}}')
    return str(digest).lower(), size


# ---- room


def check_room(needs: Sequence[tuple[Path, float]]) -> list[str]:
    """For each disk that has too little room for what is to be written to it (folder, bytes), one sentence."""
    disks: dict[int, tuple[Path, float]] = {}
    for folder, size in needs:
        there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
        first, total = disks.get(there.stat().st_dev, (folder, 0.0))
        disks[there.stat().st_dev] = (first, total + size)
    found = []
    for folder, total in disks.values():
        there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
        free = shutil.disk_usage(there).free
        if total > free:
            found.append(f"the disk of {folder} has {gigabytes(free)} free and {gigabytes(total)} are needed")
    return found


def _check_room(dataset: Built, places: Places, files: Sequence[Wanted], missing: Sequence[Wanted]) -> None:
    if not missing:
        return
    # The estimates are for the registered archives: smaller ones of the same kind unpack to less.
    registered = sum(each.archive.size for each in files)
    scale = sum(each.archive.size if each.size is None else each.size for each in files) / registered
    unpacked = EXTRACTED.get(dataset.id, 0) * scale
    records = RECORDS[dataset.id].bytes * scale if dataset.id in RECORDS else 0
    downloads = Path(places["downloads"])
    needs = [
        (downloads, sum(each.missing() for each in missing)),
        (downloads, unpacked),
        (Path(places["tfds"]), records),
    ]
    lacking = check_room(needs)
    if lacking:
        raise RunError(
            f"{dataset.id}: {'; '.join(lacking)} (archives, what is unpacked of them, TFDS records): free the disk, or set "
            "prepare.tfds.downloads and prepare.tfds.folder to a larger one, then run again; `vtabflow data plan` says the sizes"
        )


# ---- records that the project generated


def generated(places: Places, dataset: Built, folder: Path | str) -> None:
    """Note that the project generated the TFDS records at `folder` (the one of the version, with its dataset_info.json).

    `vtabflow data plan --clean` removes no records without this note: a folder that was there before is somebody's own.
    """
    noted = {
        "dataset": dataset.id,
        "folder": str(Path(folder).resolve()),
        "info": sha256(Path(folder) / "dataset_info.json"),
    }
    write_json(_generated_note(places, dataset, folder), noted)


def is_generated(places: Places, dataset: Built, folder: Path | str) -> bool:
    """Whether the records at `folder` are the ones that `generated` noted."""
    try:
        noted = read_json(_generated_note(places, dataset, folder))
        found = {"folder": str(Path(folder).resolve()), "info": sha256(Path(folder) / "dataset_info.json")}
        return all(noted[name] == value for name, value in found.items())
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _generated_note(places: Places, dataset: Built, folder: Path | str) -> Path:
    return Path(places["downloads"]) / "generated" / f"{dataset.id}.{Path(folder).name}.json"
