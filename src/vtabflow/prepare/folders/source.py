"""Source `folder`: a folder or zip of <class>/<image>, optionally below train/, val/ and test/, becomes a store.

Splits that are given are kept; what is missing is cut from train by a seeded draw, for a task class by class (60/20/20
unless the spec says otherwise), for an upstream set 5% of all for val and no test. The draw and the order of the
examples are digests of (seed, the file's bytes): they know neither names nor, within a split that is given, classes.
So the first 800 examples of train are a random sample, and a relabelled image moves no other.
"""

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import IO, Any, TypeVar

import numpy as np

from vtabflow.errors import UserError
from vtabflow.prepare.folders.fingerprint import Entry, Listing, identity_of, listing
from vtabflow.prepare.images import Unreadable, decode, header
from vtabflow.prepare.store import HALF, SPLITS, create_store, rows_needed

UPSTREAM_VAL = Fraction(1, 20)
Result = TypeVar("Result")


@dataclass(frozen=True)
class File:
    """A file with a readable header. `crc` and `entry.size` stand for its bytes."""

    entry: Entry
    crc: int
    height: int
    width: int
    grey: bool


def make(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Prepare the store of `spec` (StoreSpec with source "folder") and return its manifest.

    Images of one size no larger than the target keep their pixels; any others are resized to (size, size) and rounded.
    Images that are all grey keep one channel. Files that give no picture are left out and listed in the manifest
    ("skip"), or end it ("refuse"); one that is found broken late leaves a gap and moves no other example.

    Raises:
        UserError: what is wrong with the folder, with its path, the class, the count and what to do.
        RunError: no space or permission for the store.
    """
    settings = spec["settings"]
    path = settings["path"]
    with listing(path) as found:
        skipped = dict.fromkeys(found.strays, "lies in no class folder")
        known = [(entry, found.crc(entry)) for entry in found.entries]
        _check_unchanged(spec, found, known)
        files = _readable(found, known, skipped)
        _refuse(settings, path, skipped)
        check_classes(path, found, files, settings["role"])
        splits = split_files(files, settings["role"], settings["split"]["seed"], settings["split"]["fractions"])
        check_repeats(spec["dataset"], path, splits)
        shape = _shape(files, spec["image"]["size"])
        kept: dict[str, list[File]] = {}
        with create_store(spec) as new:
            for split in SPLITS:
                count = rows_needed(spec, split, len(splits[split]))
                images = new.images(split, (count, *shape), spec["image"].get("numbers", "uint8"))
                kept[split] = _fill(spec, found, split, splits[split], images, skipped)
                new.keep(split, len(kept[split]))
            _refuse(settings, path, skipped)
            check_classes(path, found, [file for file in files if file.entry.name not in skipped], settings["role"])
            for split in SPLITS:
                if not kept[split] and (settings["role"] == "task" or split == "train"):
                    raise UserError(f"{path} leaves no readable image for {split}: add images to it, or to train")
            if skipped:
                first = min(skipped)
                print(f"{spec['dataset']}: skipped {len(skipped)} files, {first} ({skipped[first]}) first", flush=True)
            task = spec["tasks"][0]
            number = {label: index for index, label in enumerate(found.classes)}
            labels = {split: np.array([number[file.entry.label] for file in kept[split]], np.int64) for split in SPLITS}
            return new.finish(
                {task: labels},
                {split: [file.entry.name for file in kept[split]] for split in SPLITS},
                {task: len(found.classes)},
                {task: found.classes},
                [{"file": name, "reason": skipped[name]} for name in sorted(skipped)],
            )


def check_repeats(dataset: str, path: str, splits: Mapping[str, Sequence[File]]) -> None:
    """Say how many test images are training images too, by their bytes; UserError if they are most of the test."""
    seen = {(file.crc, file.entry.size): file for split in ("train", "val") for file in splits[split]}
    again = [file for file in splits["test"] if (file.crc, file.entry.size) in seen]
    if not again:
        return
    first = again[0]
    said = (
        f"{len(again)} of {len(splits['test'])} test images of {path} are training images too, such as {first.entry.name} "
        f"({seen[first.crc, first.entry.size].entry.name})"
    )
    if 2 * len(again) > len(splits["test"]):
        raise UserError(f"{said}: a test is to have images of its own; put others into test/, or leave test/ out")
    print(f"{dataset}: {said}", flush=True)


def split_files(files: Sequence[File], role: str, seed: int, fractions: Sequence[float]) -> dict[str, list[File]]:
    """The files of train, val and test, each in the order of the store. `fractions`: of train, val and test."""
    splits: dict[str, list[File]] = {split: [] for split in SPLITS}
    for file in files:
        splits[file.entry.split or "train"].append(file)
    missing = [split for split in ("val", "test") if not splits[split]]
    pool = sorted(splits["train"], key=lambda file: _draw("split", seed, file))
    if role == "task" and missing:
        part = {split: Fraction(str(fraction)) for split, fraction in zip(SPLITS, fractions, strict=True)}
        whole = part["train"] + sum(part[split] for split in missing)
        by_class: dict[str, list[File]] = {}
        for file in pool:
            by_class.setdefault(file.entry.label, []).append(file)
        splits["train"] = []
        for members in by_class.values():
            # At least one of each class, unless train would be left with none: what is asked has to be learnt before.
            counts = {split: max(1, _rounded(part[split] / whole * len(members))) for split in missing}
            while sum(counts.values()) >= len(members):
                counts[max(counts, key=lambda split: counts[split])] -= 1
            start = 0
            for split, count in counts.items():
                splits[split] += members[start : start + count]
                start += count
            splits["train"] += members[start:]
    elif role == "upstream" and "val" in missing:
        count = min(len(pool) - 1, max(1, _rounded(UPSTREAM_VAL * len(pool))))
        splits["val"], splits["train"] = pool[:count], pool[count:]
    return {split: sorted(members, key=lambda file: _draw("order", seed, file)) for split, members in splits.items()}


def check_classes(path: str, found: Listing, files: Sequence[File], role: str) -> None:
    """UserError unless every class has enough readable `files` in train, or in all where splits are still to be cut."""
    train = Counter(file.entry.label for file in files if file.entry.split in ("", "train"))
    listed = {entry.label for entry in found.entries if entry.split in ("", "train")}
    if role == "task" and len(found.classes) < 2:
        raise UserError(f"{path} has one class, {found.classes[0]}: a task needs at least two class folders")
    for split in found.splits:
        if split and not any(file.entry.split == split for file in files):
            raise UserError(f"{path}: {split} has no readable image: mend its files, or remove {split} to have it cut")
    cut = role == "task" and found.splits in ([""], ["train"])
    for label in found.classes:
        count = train[label]
        if label not in listed:
            split = next(entry.split for entry in found.entries if entry.label == label)
            where = f"{sum(entry.label == label for entry in found.entries)} files in {split} and none in train"
            raise UserError(
                f"{path}: class {label} has {where}: add images to train/{label}, or remove {split}/{label}"
            )
        if count == 0:
            raise UserError(f"{path}: class {label} has 0 readable images in train: mend its files or remove the class")
        if cut and count < 3:
            few = f"{path}: class {label} has too few readable images ({count})"
            raise UserError(f"{few}: add some until there are 3 (train, val and test), or remove the class")


def _readable(found: Listing, known: Sequence[tuple[Entry, int]], skipped: dict[str, str]) -> list[File]:
    files = []
    for entry, crc in known:
        try:
            files.append(File(entry, crc, *_with(found, entry, lambda stream, size: header(stream, size))))
        except Unreadable as reason:
            skipped[entry.name] = str(reason)
    if not files:
        first = min(skipped)
        raise UserError(
            f"none of the {len(known)} files in {found.path} is a readable image ({first} {skipped[first]})"
        )
    return files


def _fill(
    spec: Mapping[str, Any], found: Listing, split: str, files: list[File], images: np.ndarray, skipped: dict[str, str]
) -> list[File]:
    """Decode `files` into `images`, in order, until they are full; the files that are in them."""
    kept: list[File] = []
    begun = time.perf_counter()
    for file in files:
        if len(kept) == len(images):
            break
        try:
            pixels = _with(found, file.entry, lambda stream, _: decode(stream.read()))
        except Unreadable as reason:
            skipped[file.entry.name] = str(reason)
            continue
        images[len(kept)] = _fitted(pixels, images, spec["image"]["resize"])
        kept.append(file)
    seconds = max(time.perf_counter() - begun, 1e-9)
    print(f"{spec['dataset']}: {split}, {len(kept)} images, {len(kept) / seconds:.0f} images/s", flush=True)
    return kept


def _with(found: Listing, entry: Entry, use: Callable[[IO[bytes], int], Result]) -> Result:
    """`use(stream, size)` on one file; whatever goes wrong with the reading of it makes it Unreadable."""
    try:
        with found.open(entry) as stream:
            return use(stream, entry.size)
    except (Unreadable, MemoryError):
        raise
    except OSError as error:
        raise Unreadable(f"cannot be read ({error.strerror or error})") from error
    except Exception as error:  # what zipfile and its decompressors raise: damaged, encrypted, an unknown method
        raise Unreadable(f"cannot be read ({error})") from error


def _shape(files: Sequence[File], size: int) -> tuple[int, int, int]:
    """Height, width and channels of the store's images."""
    channels = 1 if all(file.grey for file in files) else 3
    native = {(file.height, file.width) for file in files}
    height, width = native.pop() if len(native) == 1 else (size + 1, size + 1)
    return (height, width, channels) if max(height, width) <= size else (size, size, channels)


def _fitted(pixels: np.ndarray, images: np.ndarray, kind: str) -> np.ndarray:
    """The pixels in the form of one of `images`: its size, its channels, rounded where it holds whole numbers."""
    shape = images.shape[1:]
    if pixels.shape[:2] != shape[:2]:
        import torch  # seconds to import, and not needed for images that keep their size

        from vtabflow.prepare.resize import resize

        pixels = resize(torch.from_numpy(pixels)[None], shape[0], kind)[0].numpy()
        if images.dtype == np.uint8:
            pixels = np.floor(pixels + HALF).clip(0, 255).astype(np.uint8)
    return np.broadcast_to(pixels, shape)


def _draw(word: str, seed: int, file: File) -> tuple[str, str, str]:
    """Where a file stands in a draw. The class and name only order files of equal bytes."""
    content = f"{word}/{seed}/{file.crc:08x}/{file.entry.size}"
    return hashlib.sha256(content.encode()).hexdigest(), file.entry.label, file.entry.name


def _rounded(value: Fraction) -> int:
    return int(value + Fraction(1, 2))


def _refuse(settings: Mapping[str, Any], path: str, skipped: Mapping[str, str]) -> None:
    if settings["invalid"] == "refuse" and skipped:
        first = min(skipped)
        what = f"{path}: {first} {skipped[first]} (unusable files in all: {len(skipped)})"
        raise UserError(f"{what}: mend or remove them, or set `invalid: skip` to leave them out")


def _check_unchanged(spec: Mapping[str, Any], found: Listing, known: Sequence[tuple[Entry, int]]) -> None:
    """The store's key promises the files that were there when the study was planned."""
    wanted = spec.get("fingerprint")
    now = identity_of(found, known)
    if wanted and any(wanted[part] != now[part] for part in ("images", "labels")):
        raise UserError(f"the images in {found.path} have changed since the study was planned: start the run again")
