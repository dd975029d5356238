"""The archives of a dataset: verified, and put where TFDS looks for them before it generates records.

An archive is kept at <downloads>/<builder>/<name that TFDS computes> with an .INFO file (TFDS 4.9.10,
core/download/download_manager.py and resource.py). TFDS does not hash what it finds there, so the SHA-256 is verified
here; what was verified is remembered by size and time of change in <downloads>/<builder>/.verified.json. A missing file
is taken from where a person has put it, or downloaded.
"""

import glob
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vtabflow.contracts.specs import Places
from vtabflow.errors import RunError, UserError
from vtabflow.prepare.tfds.archives import Archive
from vtabflow.prepare.tfds.datasets import Dataset
from vtabflow.prepare.tfds.download import DownloadError, addresses, download
from vtabflow.prepare.tfds.manual import missing_downloads
from vtabflow.runtime.files import read_json, sha256, write_json
from vtabflow.runtime.locks import locked
from vtabflow.runtime.progress import gigabytes


@dataclass(frozen=True)
class RequiredArchive:
    """An archive, the path at which TFDS looks for it, and the SHA-256 and size that it should have.

    `sha256` is the registered one, or that of prepare.tfds.checksums; `size` is None if it is not known.
    """

    archive: Archive
    path: Path
    sha256: str
    size: int | None

    def is_there(self) -> bool:
        """Whether it is at its path with the right size; `fetch` compares the SHA-256."""
        return self.path.is_file() and self.size in (None, self.path.stat().st_size) and _info(self.path).is_file()

    def missing(self) -> int:
        """Bytes that are still to be downloaded."""
        if self.is_there():
            return 0
        part = _part(self)
        have = part.stat().st_size if part.exists() else 0
        return max(0, (self.archive.size if self.size is None else self.size) - have)


def required(dataset: Dataset, places: Places, checksums: Mapping[str, Any] | None = None) -> list[RequiredArchive]:
    """The archives of a dataset; none if its file names none and TFDS downloads by itself.

    Args:
        dataset: its archives.
        places: the folders, and the file of checksums.
        checksums: {url: {"sha256": ..., "size": ...}} or {url: sha256}; used before the registered ones. Of the file
            `places.checksums`, of the same form, only the sizes are used then: it may have changed since the study was
            planned. None: its digests too.

    Raises:
        UserError: the file cannot be read.
    """
    filed = _given(places.checksums)
    own = {url: _entry(url, value) for url, value in (checksums or {}).items()}
    found = []
    for archive in dataset.archives:
        path = Path(places.downloads) / dataset.builder / archive.cached_name
        known = [own.get(archive.url), filed.get(archive.url), (archive.sha256, archive.size)]
        digest = next(entry for entry in (known if checksums is None else known[::2]) if entry)[0]
        # A spec has digests alone: the size is that of the first entry that has one for the same digest.
        size = next((entry[1] for entry in known if entry and entry[0] == digest and entry[1] is not None), None)
        found.append(RequiredArchive(archive, path, digest, size))
    return found


def fetch(dataset: Dataset, places: Places, checksums: Mapping[str, Any] | None = None) -> None:
    """Put every archive of `dataset`, verified, where TFDS looks for it.

    An archive that is not there is a file of its own name below `places.manual` or in `places.downloads`, or is
    downloaded. Several processes wait for each other. What was downloaded stays, and the next call resumes there.

    Args:
        dataset: its archives.
        places: the folders.
        checksums: as in `required`, for archives that are not the registered ones.

    Raises:
        UserError: something has to be downloaded manually, or a file has another checksum.
        RunError: dead links, a changed archive, no space on the disk.
    """
    if missing := missing_downloads(dataset.id, places):
        raise UserError(" ".join(missing))
    files = required(dataset, places, checksums)
    folder = Path(places.downloads) / dataset.builder
    if all(_is_verified(each) and _info(each.path).is_file() for each in files):
        return
    with _locked(folder, dataset.id):
        for each in files:
            if each.path.exists():
                _verify(dataset, places, each)
        _link_manual_downloads(dataset, places, files)
        absent = [each for each in files if not each.path.exists()]
        _check_room(dataset, places, files, absent)
        for each in absent:
            _download(dataset, places, each)


def _is_verified(each: RequiredArchive) -> bool:
    try:
        status = each.path.stat()
    except OSError:
        return False
    noted = _notes(each.path.parent).get(each.path.name)
    return noted is not None and noted.get("file") == [status.st_size, status.st_mtime_ns, each.sha256]


def _verify(dataset: Dataset, places: Places, each: RequiredArchive) -> None:
    """Hash an archive in the cache, unless that was done before. UserError if it is another file."""
    if not _is_verified(each):
        found = sha256(each.path)
        if found != each.sha256:
            raise UserError(
                f"{dataset.id}: {each.path} is not the required archive ({each.path.stat().st_size:,} bytes, SHA-256 "
                f"{found} instead of {each.sha256}): remove it and run again, or, if {each.archive.url} was released "
                "again, put its SHA-256 into the file prepare.tfds.checksums"
            )
        _noted(dataset, places, each, ours=False)
    _write_info(dataset, each)


def _link_manual_downloads(dataset: Dataset, places: Places, files: Sequence[RequiredArchive]) -> None:
    for each in files:
        for candidate in () if each.path.exists() else manual_places(dataset, places, each):
            if not candidate.is_file():
                continue
            print(f"{dataset.id}: found {candidate}", flush=True)
            size, found = candidate.stat().st_size, "not read"
            if each.size in (None, size):
                found = sha256(candidate)
            if found != each.sha256:
                raise UserError(
                    f"{dataset.id}: {candidate} is not the required file ({size:,} bytes, SHA-256 {found}; "
                    f"{each.archive.url} has {f'{each.size:,} bytes, ' if each.size else ''}SHA-256 "
                    f"{each.sha256}): put the "
                    "right file there or remove this one to have it downloaded, or, if it was released again, put its "
                    "SHA-256 into the file prepare.tfds.checksums"
                )
            _link(candidate, each.path)
            _write_info(dataset, each)
            _noted(dataset, places, each, ours=True)
            break


def manual_places(dataset: Dataset, places: Places, each: RequiredArchive) -> list[Path]:
    """Where a person may put an archive under its own name."""
    manual, downloads = Path(places.manual), Path(places.downloads)
    return [folder / each.archive.name for folder in (manual / dataset.id, manual, downloads)]


def wrong_file(dataset: Dataset, places: Places, each: RequiredArchive) -> str | None:
    """One sentence if a file that lies where the archive is looked for is another one; None if it may be the archive.

    Nothing is hashed: it has another size, or was verified as another archive before.
    """
    path = next((path for path in (each.path, *manual_places(dataset, places, each)) if path.is_file()), None)
    if path is None:
        return None
    status = path.stat()
    noted = _notes(each.path.parent).get(each.path.name, {}).get("file", [])
    if each.size is not None and status.st_size != each.size:
        what = f"{status.st_size:,} bytes, and {each.archive.url} has {each.size:,}"
    elif path == each.path and noted[:2] == [status.st_size, status.st_mtime_ns] and noted[2:] != [each.sha256]:
        what = f"SHA-256 {noted[2]}, and the study's has {each.sha256}"
    else:
        return None
    return (
        f"{path} is not the required archive (it has {what}): remove it to have the right one downloaded, or put that "
        "there, or, if it was released again, put its SHA-256 and size into the file prepare.tfds.checksums"
    )


def _link(source: Path, target: Path) -> None:
    """Link a manual download to the name that TFDS uses; the file itself stays where it is."""
    try:
        target.unlink(missing_ok=True)  # a link to where the file was before
        try:
            os.link(source, target)
        except OSError:  # another disk, or one without hard links
            target.symlink_to(source.resolve())
    except OSError as error:
        raise RunError(
            f"cannot write {target}: {error.strerror or error}; correct the permission, then run again"
        ) from error


def _download(dataset: Dataset, places: Places, each: RequiredArchive) -> None:
    part, found = _part(each), []
    for address in addresses(each.archive.url, places.mirrors):
        label = f"{dataset.id}: {each.archive.name}"
        print(f"{label}: downloading {address}", flush=True)
        try:
            download(address, part, each.size, each.sha256, label)
        except DownloadError as reason:
            found.append(f"{address}: {reason}")
            continue
        os.replace(part, each.path)
        _write_info(dataset, each)
        _noted(dataset, places, each, ours=True)
        return
    place = manual_places(dataset, places, each)[0]
    anew = "; if it was released again, put its SHA-256 into the file prepare.tfds.checksums"
    raise RunError(
        f"{dataset.id}: {each.archive.name} cannot be downloaded ({'; '.join(found)}); "
        f"{each.archive.size:,} bytes with "
        f"SHA-256 {each.sha256} are required: get the file in another way and put it at {place}, or name a mirror in "
        f"prepare.tfds.mirrors{anew if any('another file' in reason for reason in found) else ''}; then run again"
    )


# ---- files next to an archive


def _part(each: RequiredArchive) -> Path:
    return each.path.with_name(f"{each.path.name}.part")


def _info(path: Path) -> Path:
    return path.with_name(f"{path.name}.INFO")


def _write_info(dataset: Dataset, each: RequiredArchive) -> None:
    """Write the file that makes TFDS use a cached archive; it always has the registered checksum."""
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


def _noted(dataset: Dataset, places: Places, each: RequiredArchive, ours: bool) -> None:
    """Remember that an archive was verified, and remove what TFDS unpacked of another one at its path and would use."""
    status = each.path.stat()
    noted = _notes(each.path.parent)
    if each.path.name in noted and noted[each.path.name].get("file", [])[-1:] != [each.sha256]:
        extracted = Path(places.downloads, "extracted")
        inner = (extracted / name for name in dataset.inner_extracted)
        for old in (*extracted.glob(f"*.{glob.escape(each.path.name)}"), *inner):
            shutil.rmtree(old, ignore_errors=True) if old.is_dir() else old.unlink(missing_ok=True)
    entry = {"file": [status.st_size, status.st_mtime_ns, each.sha256], "ours": ours}
    with suppress(RunError):  # a folder that is read-only is hashed again next time
        write_json(each.path.parent / ".verified.json", {**noted, each.path.name: entry})


def is_ours(each: RequiredArchive) -> bool:
    """Whether the project put this archive there, by downloading it or by linking a manual download."""
    return _is_verified(each) and bool(_notes(each.path.parent)[each.path.name]["ours"])


@contextmanager
def _locked(folder: Path, dataset: str) -> Iterator[None]:
    """Let one process at a time download the archives of a builder."""
    with ExitStack() as stack:
        try:
            waiting = f"{dataset}: another process is downloading; waiting for it"
            stack.enter_context(locked(folder / ".lock", waiting=waiting))
        except OSError as error:
            raise RunError(
                f"{dataset}: cannot write to {folder}: {error.strerror or error}; correct the permission or set "
                "prepare.tfds.downloads, then run again"
            ) from error
        yield


def _given(path: str | Path | None) -> dict[str, tuple[str, int | None]]:
    """The file prepare.tfds.checksums: {url: (sha256, size)}."""
    if path is None:
        return {}
    try:
        given = read_json(path)
        if not isinstance(given, dict):
            raise ValueError("not an object")
    except FileNotFoundError as error:
        raise UserError(f"there is no file {path}: correct prepare.tfds.checksums") from error
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path} is not a JSON object of addresses ({error}); correct it, or set "
            f"prepare.tfds.checksums to another file"
        ) from error
    return {url: _entry(url, value) for url, value in given.items()}


def _entry(url: str, value: Any) -> tuple[str, int | None]:
    entry = {"sha256": value} if isinstance(value, str) else value if isinstance(value, dict) else {}
    digest, size = entry.get("sha256"), entry.get("size")
    good = isinstance(digest, str) and len(digest) == 64 and not set(digest.lower()) - set("0123456789abcdef")
    if not good or not (size is None or (isinstance(size, int) and size >= 0)):
        raise UserError(f'prepare.tfds.checksums: the entry of {url} should be {{"sha256": 64 digits, "size": bytes}}')
    return str(digest).lower(), size


# ---- space on the disk


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


def _check_room(
    dataset: Dataset, places: Places, files: Sequence[RequiredArchive], missing: Sequence[RequiredArchive]
) -> None:
    if not missing:
        return
    # The estimates are for the registered archives; smaller ones of the same kind unpack to less.
    registered = sum(each.archive.size for each in files)
    scale = sum(each.archive.size if each.size is None else each.size for each in files) / registered
    downloads = Path(places.downloads)
    needs = [
        (downloads, sum(each.missing() for each in missing)),
        (downloads, dataset.extracted_bytes * scale),
        (Path(places.tfds), dataset.records_bytes * scale),
    ]
    lacking = check_room(needs)
    if lacking:
        raise RunError(
            f"{dataset.id}: {'; '.join(lacking)} (archives, unpacked archives, TFDS records): free the disk, or set "
            "prepare.tfds.downloads and prepare.tfds.folder to a larger one, then run again; "
            "`vtabflow data plan` shows the "
            "sizes"
        )
