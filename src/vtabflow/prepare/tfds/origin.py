"""Where TFDS records come from: the archives that they were made from, and whether this project made them.

The archives' digests lie in the records' own folder, from the moment at which TFDS gives it its name, and are copied
with it. That a folder may be removed again is noted in the folder of downloads: a copy of records is not the project's.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from vtabflow.contracts.results import Remark
from vtabflow.contracts.specs import Places
from vtabflow.contracts.typed_json import from_json, to_json
from vtabflow.errors import UserError
from vtabflow.prepare.tfds.datasets import Dataset
from vtabflow.runtime.files import read_json, sha256, write_json

NOTE = "archives.json"
INFO = "dataset_info.json"


@dataclass(frozen=True)
class Note:
    """archives.json. `info`: SHA-256 of the records' dataset_info.json; `archives`: address -> SHA-256."""

    dataset: str
    info: str
    archives: dict[str, str]
    version: int = 1


def expected(dataset: Dataset, checksums: Mapping[str, str]) -> dict[str, str]:
    """Address -> SHA-256 of the archives that a study's records should be made from.

    Args:
        dataset: its archives, with the digests that TFDS has registered.
        checksums: the study's own digests.
    """
    return {archive.url: checksums.get(archive.url, archive.sha256) for archive in dataset.archives}


def note(dataset: Dataset, folder: Path, archives: Mapping[str, str]) -> None:
    """Note in a folder of records, which has its dataset_info.json, the archives that they were made from."""
    write_json(folder / NOTE, to_json(Note(dataset.id, sha256(folder / INFO), dict(archives))))


def archives_of(dataset: Dataset, folder: Path) -> dict[str, str] | None:
    """Address -> SHA-256 of the archives that the records at `folder` were made from; None if it is not known.

    It is not known of records that TFDS alone or an older version of this project made, and where the note is of other
    records or does not have all archives.
    """
    try:
        found = from_json(Note, read_json(folder / NOTE), str(folder / NOTE))
        whole = found.info == sha256(folder / INFO)
    except (OSError, ValueError, UserError):
        return None
    urls = [archive.url for archive in dataset.archives]
    return {url: found.archives[url] for url in urls} if whole and set(urls) <= set(found.archives) else None


def differences(dataset: Dataset, folder: Path, checksums: Mapping[str, str]) -> list[str]:
    """The archives of the records at `folder` that are not those of the study, each as "name (SHA-256 ...)"."""
    found, wanted = archives_of(dataset, folder) or {}, expected(dataset, checksums)
    return [
        f"{archive.name} (SHA-256 {found[archive.url]}; the study's is {wanted[archive.url]}, "
        f"{'the one of prepare.tfds.checksums' if archive.url in checksums else 'which TFDS has registered'})"
        for archive in dataset.archives
        if archive.url in found and found[archive.url] != wanted[archive.url]
    ]


def fault(dataset: Dataset, folder: Path, checksums: Mapping[str, str]) -> str | None:
    """One sentence if the records at `folder` were made from other archives than the study's."""
    if not (others := differences(dataset, folder, checksums)):
        return None
    return (
        f"the TFDS records at {folder} were made from another archive: {', '.join(others)}: remove that folder to have "
        "them generated again, or leave it and set prepare.tfds.folder and prepare.tfds.downloads to other folders, or "
        "correct prepare.tfds.checksums"
    )


def check(dataset: Dataset, folder: Path, checksums: Mapping[str, str]) -> None:
    """UserError if the records at `folder` were made from other archives than the study's."""
    if sentence := fault(dataset, folder, checksums):
        raise UserError(f"dataset {dataset.id}: {sentence}")


def remarks(dataset: Dataset, archives: Mapping[str, str] | None) -> tuple[Remark, ...]:
    """What a reader has to know of the archives: that they are not known, or not those that TFDS has registered."""
    if not dataset.archives:
        return ()
    if archives is None:
        text = "its TFDS records were there before, and which archives they were made from is not known"
        return (Remark("archives-unknown", len(dataset.archives), text),)
    foreign = [archive for archive in dataset.archives if archives[archive.url] != archive.sha256]
    if not foreign:
        return ()
    named = ", ".join(f"{archive.name}, SHA-256 {archives[archive.url]}" for archive in foreign)
    text = f"made from {len(foreign)} of {len(archives)} archives that are not those that TFDS has registered ({named})"
    return (Remark("archives-foreign", len(foreign), text, tuple(archive.name for archive in foreign)),)


# ---- records that the project generated


def note_generated(places: Places, dataset: Dataset, folder: Path | str) -> None:
    """Note that the project generated the TFDS records at `folder`, which has their dataset_info.json.

    `vtabflow data plan --clean` removes no records without this note: others may be somebody's own.
    """
    noted = {"dataset": dataset.id, "folder": str(Path(folder).resolve()), "info": sha256(Path(folder) / INFO)}
    write_json(_generated_note(places, dataset, folder), noted)


def is_generated(places: Places, dataset: Dataset, folder: Path | str) -> bool:
    """Whether the records at `folder` are those that `note_generated` noted."""
    try:
        noted = read_json(_generated_note(places, dataset, folder))
        found = {"folder": str(Path(folder).resolve()), "info": sha256(Path(folder) / INFO)}
        return all(noted[name] == value for name, value in found.items())
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _generated_note(places: Places, dataset: Dataset, folder: Path | str) -> Path:
    return Path(places.downloads) / "generated" / f"{dataset.id}.{Path(folder).name}.json"
