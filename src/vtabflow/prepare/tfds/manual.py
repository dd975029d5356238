"""What a person has to bring: RESISC45, diabetic retinopathy and ImageNet, with a look at what is there already.

The folder is the one that TFDS calls manual_dir. Layouts: protocol.md sections 1.4 and 6 (the complaints about RESISC45's).
"""

import csv
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from vtabflow.prepare.tfds.archives import BY_HAND
from vtabflow.prepare.tfds.datasets import DATASETS

Places = Mapping[str, Any]
RESISC45 = "NWPU-RESISC45"
RESISC45_CLASSES, RESISC45_PER_CLASS = 45, 700
RETINOPATHY_COUNTS = {"train": 35_126, "test": 53_576, "sample": 10}
IMAGENET_VERSIONS = ("5.1.0", "5.0.0")  # of TFDS' imagenet2012: those that imagenet.py, which is heavy, reads
FEW = 3  # names that a sentence lists


class ToDo(NamedTuple):
    """What a person still has to do; the bytes to fetch for it, and those that it writes to the disk."""

    sentence: str
    fetch: float = 0.0
    write: float = 0.0


def missing_by_hand(dataset: Any, places: Places, counts: str = "any") -> list[str]:
    """The sentences of `to_do_by_hand`."""
    return [each.sentence for each in to_do_by_hand(dataset, places, counts)]


def to_do_by_hand(dataset: Any, places: Places, counts: str = "any") -> list[ToDo]:
    """What a person still has to do before `dataset` (a Dataset, or an id) can be generated.

    [] for datasets that are fetched automatically, and where TFDS records, an extracted tree or all files are there. With counts "official"
    the numbers and sizes of the files are held against the published ones too. Reads names alone, no image.
    """
    name = dataset if isinstance(dataset, str) else dataset.id
    if name not in CHECKS or places.get("tree") or _has_records(name, places):
        return []
    found = CHECKS[name](Path(places["manual"]), counts == "official")
    return [each._replace(sentence=f"{name}: {each.sentence}") for each in found]


def _has_records(name: str, places: Places) -> bool:
    known = DATASETS.get(name)
    below = Path(known.builder, known.config or "") if known else Path("imagenet2012")
    versions = (known.version, *known.readable) if known else IMAGENET_VERSIONS
    return any(Path(places["tfds"], below, version, "dataset_info.json").is_file() for version in versions)


def _resisc45(manual: Path, official: bool) -> list[ToDo]:
    folder, file = manual / RESISC45, BY_HAND["resisc45"][0]
    packed = next((path for path in (manual / file.name, manual / "resisc45" / file.name) if path.is_file()), None)
    how = f"unpack it (unrar, 7z or bsdtar) so that {folder}/airplane/airplane_001.jpg is there"
    if not folder.is_dir():
        if packed:
            return [ToDo(f"{packed} is there and not unpacked: {how}.", write=file.size)]
        for candidate in (manual, manual / "resisc45", *_folders(manual), *_folders(manual / "resisc45")):
            if (candidate / "airplane").is_dir() and candidate != manual:
                return [ToDo(f"the class folders lie in {candidate}: move or rename that folder to {folder}.")]
        if (manual / "airplane").is_dir():
            return [ToDo(f"the class folders lie in {manual} itself: make {folder} and move them into it.")]
        return [ToDo(f"download {file.name} (about 0.4 GB) from {file.source}, {how}.", file.size, file.size)]
    inner = folder / RESISC45
    if inner.is_dir():
        how = f"move what is in {inner} one level up, into {folder}, and remove {inner}"
        return [ToDo(f"the folder is nested: {how}.")]
    classes = {path.name: len(list(path.glob("*.jpg"))) for path in _folders(folder)}
    several = f"{folder} has {len(classes)} class folders and should have {RESISC45_CLASSES}"
    whole = RESISC45_CLASSES * RESISC45_PER_CLASS
    found = []
    for name in classes:
        if not classes[name] and (folder / name / name).is_dir():
            how = f"move the images of {folder / name / name} (and the others like it) one up"
            return [ToDo(f"class folders are doubled: {how}.")]
    more = [name for name in classes if not classes[name]] if len(classes) > RESISC45_CLASSES else []
    if more and len(classes) - len(more) == RESISC45_CLASSES:
        classes = {name: n for name, n in classes.items() if n}
        how = "remove what holds no .jpg file from it"
        found.append(ToDo(f"{folder} has folders that are no classes ({_listed(more)}): {how}."))
    elif len(classes) > RESISC45_CLASSES:
        found.append(ToDo(f"{several}: remove those that the rar has not."))
    elif len(classes) < RESISC45_CLASSES:
        lost = (RESISC45_CLASSES - len(classes)) * RESISC45_PER_CLASS
        found.append(_again(f"{several}: unpack the rar again.", file.size * lost / whole, packed))
    fault = {name: n for name, n in classes.items() if (n != RESISC45_PER_CLASS if official else n == 0)}
    if fault:
        listed = _listed([f"{name} has {n}" for name, n in fault.items()])
        sentence = f"classes of {folder} without their {RESISC45_PER_CLASS} .jpg files ({listed}): empty them and unpack the rar again."
        lost = sum(max(0, RESISC45_PER_CLASS - n) for n in fault.values())
        found.append(_again(sentence, file.size * lost / whole, packed))
    return found


def _again(sentence: str, size: float, packed: object) -> ToDo:
    """What is to be unpacked, and fetched as well unless it is there `packed`; `size` in bytes."""
    return ToDo(sentence, 0.0 if packed else size, size)


def _retinopathy(manual: Path, official: bool) -> list[ToDo]:
    file, root = BY_HAND["diabetic-retinopathy"][0], manual
    labels = root / "trainLabels.csv"
    if not any((root / name).exists() for name in (*RETINOPATHY_COUNTS, labels.name)) and not _zips(root, ""):
        inside = root / "diabetic-retinopathy"
        if any((inside / name).exists() for name in (*RETINOPATHY_COUNTS, labels.name)):
            rest = _retinopathy(inside, official)
            sizes = (sum(each.fetch for each in rest), sum(each.write for each in rest))
            return [ToDo(f"the files lie in {inside}: move what is in it to {root}.", *sizes)]
        how = (
            f"download train.zip, test.zip (in parts), sample.zip and trainLabels.csv.zip (about 88 GB) from {file.source}, "
            f"and unpack them to {root}/train, test, sample and trainLabels.csv."
        )
        return [ToDo(how, file.size, file.size)]
    found = []
    if not labels.is_file():
        packed = labels.with_suffix(".csv.zip")
        what = f"{packed.name} is there and not unpacked" if packed.is_file() else "it is missing"
        found.append(ToDo(f"{labels}: {what}; it comes from {file.source}."))
    for name, count in RETINOPATHY_COUNTS.items():
        folder = root / name
        images = len(list(folder.glob("*.jpeg")))
        parts, size = _zips(root, name), _retinopathy_bytes(count - images)
        if images == 0 and parts:
            joined = f"`cat {name}.zip.* > {name}.zip`, then " if len(parts) > 1 or parts[0].suffix != ".zip" else ""
            listed = _listed([part.name for part in parts])
            found.append(_again(f"{listed} in {root} not unpacked: {joined}unpack to {folder}.", size, parts))
        elif images == 0 and (inner := folder / name).is_dir():
            size = _retinopathy_bytes(count - len(list(inner.glob("*.jpeg"))))
            how = f"move the images of {inner} one level up, to {folder}"
            found.append(_again(f"the folder is nested: {how}.", size, parts))
        elif images == 0:
            found.append(
                _again(f"{folder} has no .jpeg file: unpack {name}.zip from {file.source} there.", size, parts)
            )
        elif official and images != count:
            several = f"{folder} has {images:,} .jpeg files and should have {count:,}"
            found.append(_again(f"{several}: unpack {name}.zip again.", size, parts))
    if not found and (lost := _unpaired(labels, root / "train")):
        several = f"{len(lost)} images of {labels} are not in {root / 'train'} ({_listed(lost)})"
        found.append(ToDo(f"{several}: unpack train.zip again."))
    return found


def _retinopathy_bytes(images: int) -> float:
    """The bytes of so many images: those of its three folders are of one kind."""
    return BY_HAND["diabetic-retinopathy"][0].size * max(0, images) / sum(RETINOPATHY_COUNTS.values())


def _unpaired(labels: Path, folder: Path) -> list[str]:
    there = {path.stem for path in folder.glob("*.jpeg")}
    with open(labels, newline="", encoding="utf-8", errors="replace") as stream:
        return [name for row in csv.DictReader(stream) if (name := row.get("image") or "") not in there]


def _imagenet(manual: Path, official: bool) -> list[ToDo]:
    found = []
    for file in BY_HAND["imagenet"]:
        path = next((p for p in (manual / file.name, manual / "imagenet" / file.name) if p.is_file()), None)
        if path is None:
            how = f"download {file.name} ({file.size:,} bytes) from {file.source} and put it at {manual / file.name}"
            found.append(ToDo(f"{how}.", file.size, file.size))
            continue
        size = path.stat().st_size
        lost = max(0, file.size - size) if official else 0
        if path.parent != manual:
            found.append(ToDo(f"move {path} to {manual / file.name}.", lost, lost))
        elif official and size != file.size:
            several = f"{path} has {size:,} bytes and should have {file.size:,}"
            found.append(ToDo(f"{several}: download it again.", lost, lost))
    return found


CHECKS: dict[str, Callable[[Path, bool], list[ToDo]]] = {
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
