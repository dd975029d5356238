"""What a person has to bring: RESISC45, diabetic retinopathy and ImageNet, with a look at what is there already.

The folder is the one that TFDS calls manual_dir. Layouts: protocol.md sections 1.4 and 6 (the complaints about RESISC45's).
"""

import csv
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from vtabflow.prepare.archives import BY_HAND
from vtabflow.prepare.datasets import DATASETS

Places = Mapping[str, Any]
RESISC45 = "NWPU-RESISC45"
RESISC45_CLASSES, RESISC45_PER_CLASS = 45, 700
RETINOPATHY_COUNTS = {"train": 35_126, "test": 53_576, "sample": 10}
FEW = 3  # names that a sentence lists


def missing_by_hand(dataset: Any, places: Places, counts: str = "any") -> list[str]:
    """Sentences that say what a person still has to do before `dataset` (a Dataset, or an id) can be generated.

    [] for datasets that are fetched automatically, and where TFDS records, an extracted tree or all files are there. With counts "official"
    the numbers and sizes of the files are held against the published ones too. Reads names alone, no image.
    """
    name = dataset if isinstance(dataset, str) else dataset.id
    if name not in CHECKS or places.get("tree") or _has_records(name, places):
        return []
    return [f"{name}: {sentence}" for sentence in CHECKS[name](Path(places["manual"]), counts == "official")]


def _has_records(name: str, places: Places) -> bool:
    known = DATASETS.get(name)
    below = Path(known.builder, known.config or "") if known else Path("imagenet2012")
    versions = (known.version, *known.readable) if known else ("*",)
    return any(any(Path(places["tfds"], below).glob(f"{version}/dataset_info.json")) for version in versions)


def _resisc45(manual: Path, official: bool) -> list[str]:
    folder, file = manual / RESISC45, BY_HAND["resisc45"][0]
    how = f"unpack it (unrar, 7z or bsdtar) so that {folder}/airplane/airplane_001.jpg is there"
    if not folder.is_dir():
        for candidate in (manual / file.name, manual / "resisc45" / file.name):
            if candidate.is_file():
                return [f"{candidate} is there and not unpacked: {how}."]
        for candidate in (manual, manual / "resisc45", *_folders(manual), *_folders(manual / "resisc45")):
            if (candidate / "airplane").is_dir() and candidate != manual:
                return [f"the class folders lie in {candidate}: move or rename that folder to {folder}."]
        if (manual / "airplane").is_dir():
            return [f"the class folders lie in {manual} itself: make {folder} and move them into it."]
        return [f"download {file.name} (about 0.4 GB) from {file.source}, {how}."]
    inner = folder / RESISC45
    if inner.is_dir():
        return [f"the folder is nested: move what is in {inner} one level up, into {folder}, and remove {inner}."]
    classes = {path.name: len(list(path.glob("*.jpg"))) for path in _folders(folder)}
    found = []
    for name in classes:
        if not classes[name] and (folder / name / name).is_dir():
            return [
                f"class folders are doubled: move the images of {folder / name / name} (and the others like it) one up."
            ]
    more = [name for name in classes if not classes[name]] if len(classes) > RESISC45_CLASSES else []
    if more and len(classes) - len(more) == RESISC45_CLASSES:
        classes = {name: n for name, n in classes.items() if n}
        found.append(
            f"{folder} has folders that are no classes ({_listed(more)}): remove what holds no .jpg file from it."
        )
    elif len(classes) > RESISC45_CLASSES:
        found.append(
            f"{folder} has {len(classes)} class folders and should have {RESISC45_CLASSES}: remove those that the rar has not."
        )
    elif len(classes) < RESISC45_CLASSES:
        found.append(
            f"{folder} has {len(classes)} class folders and should have {RESISC45_CLASSES}: unpack the rar again."
        )
    fault = {name: n for name, n in classes.items() if (n != RESISC45_PER_CLASS if official else n == 0)}
    if fault:
        listed = _listed([f"{name} has {n}" for name, n in fault.items()])
        found.append(
            f"classes of {folder} without their {RESISC45_PER_CLASS} .jpg files ({listed}): empty them and unpack the rar again."
        )
    return found


def _retinopathy(manual: Path, official: bool) -> list[str]:
    file, root = BY_HAND["diabetic-retinopathy"][0], manual
    labels = root / "trainLabels.csv"
    if not any((root / name).exists() for name in (*RETINOPATHY_COUNTS, labels.name)) and not _zips(root, ""):
        inside = root / "diabetic-retinopathy"
        if any((inside / name).exists() for name in (*RETINOPATHY_COUNTS, labels.name)):
            return [f"the files lie in {inside}: move what is in it to {root}."]
        return [
            f"download train.zip, test.zip (in parts), sample.zip and trainLabels.csv.zip (about 88 GB) from {file.source}, "
            f"and unpack them to {root}/train, test, sample and trainLabels.csv."
        ]
    found = []
    if not labels.is_file():
        packed = labels.with_suffix(".csv.zip")
        what = f"{packed.name} is there and not unpacked" if packed.is_file() else "it is missing"
        found.append(f"{labels}: {what}; it comes from {file.source}.")
    for name, count in RETINOPATHY_COUNTS.items():
        folder = root / name
        images = len(list(folder.glob("*.jpeg")))
        parts = _zips(root, name)
        if images == 0 and parts:
            joined = f"`cat {name}.zip.* > {name}.zip`, then " if len(parts) > 1 or parts[0].suffix != ".zip" else ""
            found.append(
                f"{_listed([part.name for part in parts])} in {root} not unpacked: {joined}unpack to {folder}."
            )
        elif images == 0 and (folder / name).is_dir():
            found.append(f"the folder is nested: move the images of {folder / name} one level up, to {folder}.")
        elif images == 0:
            found.append(f"{folder} has no .jpeg file: unpack {name}.zip from {file.source} there.")
        elif official and images != count:
            found.append(f"{folder} has {images:,} .jpeg files and should have {count:,}: unpack {name}.zip again.")
    if not found and (lost := _unpaired(labels, root / "train")):
        found.append(
            f"{len(lost)} images of {labels} are not in {root / 'train'} ({_listed(lost)}): unpack train.zip again."
        )
    return found


def _unpaired(labels: Path, folder: Path) -> list[str]:
    there = {path.stem for path in folder.glob("*.jpeg")}
    with open(labels, newline="", encoding="utf-8", errors="replace") as stream:
        return [name for row in csv.DictReader(stream) if (name := row.get("image") or "") not in there]


def _imagenet(manual: Path, official: bool) -> list[str]:
    found = []
    for file in BY_HAND["imagenet"]:
        path = next((p for p in (manual / file.name, manual / "imagenet" / file.name) if p.is_file()), None)
        if path is None:
            found.append(
                f"download {file.name} ({file.size:,} bytes) from {file.source} and put it at {manual / file.name}."
            )
        elif path.parent != manual:
            found.append(f"move {path} to {manual / file.name}.")
        elif official and path.stat().st_size != file.size:
            found.append(f"{path} has {path.stat().st_size:,} bytes and should have {file.size:,}: download it again.")
    return found


CHECKS: dict[str, Callable[[Path, bool], list[str]]] = {
    "resisc45": _resisc45,
    "diabetic-retinopathy": _retinopathy,
    "imagenet": _imagenet,
}


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []


def _zips(root: Path, name: str) -> list[Path]:
    """The zip of a Kaggle folder, or its parts (train.zip.001, ...)."""
    return sorted(root.glob(f"{name or '*'}.zip*"))


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - FEW} more" if len(names) > FEW else ""
    return ", ".join(names[:FEW]) + more
