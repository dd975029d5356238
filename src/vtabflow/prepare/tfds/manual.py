"""What a person has to download: RESISC45, diabetic retinopathy and ImageNet, by what is in the folder already.

The folder is TFDS' manual_dir. Layouts: `MANUAL_DOWNLOAD_INSTRUCTIONS` and `_split_generators` of the three builders in
TFDS 4.9.10. The wrong layouts that have a sentence of their own are those that users reported (google-research/
task_adaptation issue 29, tensorflow/datasets issue 5108) or that an archive program makes.
"""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from vtabflow.contracts.specs import Places
from vtabflow.prepare.tfds.datasets import dataset_of, datasets, imagenet

RESISC45 = "NWPU-RESISC45"
RESISC45_CLASSES, RESISC45_PER_CLASS = 45, 700
RETINOPATHY_COUNTS = {"train": 35_126, "test": 53_576, "sample": 10}
LISTED = 3  # names in a sentence


class ManualStep(NamedTuple):
    """What a person still has to do, the bytes to download for it, and the bytes that it writes to the disk."""

    sentence: str
    download: float = 0.0
    disk: float = 0.0


def missing_downloads(dataset: str, places: Places, counts: str = "any") -> list[str]:
    """The sentences of `manual_steps`."""
    return [step.sentence for step in manual_steps(dataset, places, counts)]


def manual_steps(dataset: str, places: Places, counts: str = "any") -> list[ManualStep]:
    """What a person still has to do before the records of a dataset can be generated.

    Nothing for datasets that are downloaded automatically, and where TFDS records, a tree or all files exist. With
    counts "official" the numbers and sizes of the files are compared with the published ones. No image is read.
    """
    if dataset not in CHECKS or places.tree or has_records(dataset, places):
        return []
    steps = CHECKS[dataset](Path(places.manual), counts == "official")
    return [step._replace(sentence=f"{dataset}: {step.sentence}") for step in steps]


def has_records(dataset: str, places: Places) -> bool:
    """Whether there are TFDS records of a version that the prepare step reads."""
    known = dataset_of(dataset)
    return any(known.prepared(places.tfds, version) for version in (known.version, *known.readable))


# ---- RESISC45


def _resisc45(manual: Path, official: bool) -> list[ManualStep]:
    folder, file = manual / RESISC45, datasets()["resisc45"].manual_downloads[0]
    archive = next((path for path in (manual / file.name, manual / "resisc45" / file.name) if path.is_file()), None)
    if not folder.is_dir():
        how = f"unpack it (unrar, 7z or bsdtar) so that {folder}/airplane/airplane_001.jpg is there"
        if archive:
            return [ManualStep(f"{archive} is there and not unpacked: {how}.", disk=file.size)]
        if found := _misplaced_classes(manual):
            return [ManualStep(f"the class folders are in {found}: move them to {folder}.")]
        sentence = f"download {file.name} (about 0.4 GB) from {file.source}, {how}."
        return [ManualStep(sentence, file.size, file.size)]
    classes = {path.name: len(list(path.glob("*.jpg"))) for path in _folders(folder)}
    nested = [folder / name for name in (RESISC45, *(f"{n}/{n}" for n in classes if not classes[n]))]
    if inner := [path for path in nested if path.is_dir()]:
        return [ManualStep(f"the folder {_listed(inner)} is nested: move what is in it one level up.")]
    return _resisc45_counts(folder, classes, archive, official)


def _misplaced_classes(manual: Path) -> Path | None:
    """A folder that has RESISC45's class folders in the wrong place."""
    places = (manual, *_folders(manual), *_folders(manual / "resisc45"))
    return next((place for place in places if (place / "airplane").is_dir()), None)


def _resisc45_counts(folder: Path, classes: dict[str, int], archive: Path | None, official: bool) -> list[ManualStep]:
    size, whole = datasets()["resisc45"].manual_downloads[0].size, RESISC45_CLASSES * RESISC45_PER_CLASS
    steps = []
    several = f"{folder} has {len(classes)} class folders and should have {RESISC45_CLASSES}"
    empty = [name for name in classes if not classes[name]]
    if len(classes) > RESISC45_CLASSES:
        if len(classes) - len(empty) == RESISC45_CLASSES:
            classes = {name: count for name, count in classes.items() if count}
            several += f"; {_listed(empty)} have no .jpg file"
        steps.append(ManualStep(f"{several}: remove those that are not in the rar."))
    elif len(classes) < RESISC45_CLASSES:
        lost = (RESISC45_CLASSES - len(classes)) * RESISC45_PER_CLASS
        steps.append(_unpack(f"{several}: unpack the rar again.", size * lost / whole, archive))
    wrong = {name: n for name, n in classes.items() if (n != RESISC45_PER_CLASS if official else n == 0)}
    if wrong:
        listed = _listed([f"{name} has {n}" for name, n in wrong.items()])
        what = f"classes of {folder} without their {RESISC45_PER_CLASS} .jpg files"
        lost = sum(max(0, RESISC45_PER_CLASS - n) for n in wrong.values())
        steps.append(_unpack(f"{what} ({listed}): unpack the rar again.", size * lost / whole, archive))
    return steps


def _unpack(sentence: str, size: float, archive: object) -> ManualStep:
    """What is to be unpacked to `size` bytes, and to be downloaded unless there is an archive."""
    return ManualStep(sentence, 0.0 if archive else size, size)


# ---- diabetic retinopathy


def _retinopathy(root: Path, official: bool) -> list[ManualStep]:
    file, inside = datasets()["diabetic-retinopathy"].manual_downloads[0], root / "diabetic-retinopathy"
    labels = root / "trainLabels.csv"
    if not _has_retinopathy(root) and not _zips(root, "*"):
        if _has_retinopathy(inside):
            rest = _retinopathy(inside, official)
            sentence = f"the files are in {inside}: move what is in it to {root}."
            return [ManualStep(sentence, sum(each.download for each in rest), sum(each.disk for each in rest))]
        sentence = (
            "download train.zip, test.zip (in parts), sample.zip and trainLabels.csv.zip (about 88 GB) from "
            f"{file.source}, and unpack them to {root}/train, test, sample and trainLabels.csv."
        )
        return [ManualStep(sentence, file.size, file.size)]
    steps = []
    if not labels.is_file():
        packed = labels.with_suffix(".csv.zip")
        what = f"{packed.name} is there and not unpacked" if packed.is_file() else "it is missing"
        steps.append(ManualStep(f"{labels}: {what}; it comes from {file.source}."))
    steps += [step for name in RETINOPATHY_COUNTS for step in _retinopathy_folder(root, name, official)]
    if not steps and (lost := _unpaired(labels, root / "train")):
        what = f"{len(lost)} images of {labels} are not in {root / 'train'} ({_listed(lost)})"
        steps.append(ManualStep(f"{what}: unpack train.zip again."))
    return steps


def _has_retinopathy(root: Path) -> bool:
    return any((root / name).exists() for name in (*RETINOPATHY_COUNTS, "trainLabels.csv"))


def _retinopathy_folder(root: Path, name: str, official: bool) -> list[ManualStep]:
    """What is missing of one of the three folders of images."""
    file, count = datasets()["diabetic-retinopathy"].manual_downloads[0], RETINOPATHY_COUNTS[name]
    folder, zips = root / name, _zips(root, name)
    images, inner = _jpegs(folder), _jpegs(folder / name)
    if images and (images == count or not official):
        return []
    if images:
        sentence = f"{folder} has {images:,} .jpeg files and should have {count:,}: unpack {name}.zip again."
    elif zips:
        parts = f"`cat {name}.zip.* > {name}.zip`, then " if len(zips) > 1 or zips[0].suffix != ".zip" else ""
        sentence = f"{_listed([path.name for path in zips])} in {root} not unpacked: {parts}unpack to {folder}."
    elif (folder / name).is_dir():
        images = inner
        sentence = f"the folder {folder / name} is nested: move its images one level up, to {folder}."
    else:
        sentence = f"{folder} has no .jpeg file: unpack {name}.zip from {file.source} there."
    # The images of the three folders are of one kind.
    size = file.size * max(0, count - images) / sum(RETINOPATHY_COUNTS.values())
    return [_unpack(sentence, size, zips)]


def _jpegs(folder: Path) -> int:
    return len(list(folder.glob("*.jpeg")))


def _unpaired(labels: Path, folder: Path) -> list[str]:
    images = {path.stem for path in folder.glob("*.jpeg")}
    with open(labels, newline="", encoding="utf-8", errors="replace") as stream:
        return [name for row in csv.DictReader(stream) if (name := row.get("image") or "") not in images]


# ---- ImageNet


def _imagenet(manual: Path, official: bool) -> list[ManualStep]:
    steps = []
    for file in imagenet().manual_downloads:
        target = manual / file.name
        path = next((path for path in (target, manual / "imagenet" / file.name) if path.is_file()), None)
        if path is None:
            sentence = f"download {file.name} ({file.size:,} bytes) from {file.source} and put it at {target}."
            steps.append(ManualStep(sentence, file.size, file.size))
            continue
        size = path.stat().st_size
        lost = max(0, file.size - size) if official else 0
        if path != target:
            steps.append(ManualStep(f"move {path} to {target}.", lost, lost))
        elif official and size != file.size:
            what = f"{path} has {size:,} bytes and should have {file.size:,}"
            steps.append(ManualStep(f"{what}: download it again.", lost, lost))
    return steps


CHECKS: dict[str, Callable[[Path, bool], list[ManualStep]]] = {
    "resisc45": _resisc45,
    "diabetic-retinopathy": _retinopathy,
    "imagenet": _imagenet,
}


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []


def _zips(root: Path, name: str) -> list[Path]:
    """The zip of a Kaggle folder, or its parts (train.zip.001, ...)."""
    return sorted(root.glob(f"{name}.zip*"))


def _listed(names: list[str] | list[Path]) -> str:
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(map(str, names[:LISTED])) + more
