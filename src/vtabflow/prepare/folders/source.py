"""Source `folder`: a folder or zip of <class>/<image>, optionally below train/, val/ and test/, becomes a store.

Splits that exist are kept. A missing one is drawn from train with a seed: for a task class by class (60/20/20 unless
the spec says otherwise), for an upstream dataset 5% of all images for val and no test. The draw and the order of the
examples sort digests of (seed, the file's bytes). They depend on no file name and, within an existing split, on no
class, so the first 800 examples of train are a random sample, and a relabelled image moves no other.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import IO, TypeVar

import numpy as np

from vtabflow.contracts.results import Manifest, SkippedFile
from vtabflow.contracts.specs import Fingerprint, FolderSettings, ImageSpec, StoreSpec
from vtabflow.errors import UserError
from vtabflow.prepare.folders.entry import Entry, File, Layout
from vtabflow.prepare.folders.fingerprint import FolderIdentity, identity_of, read_contents, readable
from vtabflow.prepare.folders.layout import understand
from vtabflow.prepare.folders.tree import Tree, open_tree
from vtabflow.prepare.images import Unreadable, decode
from vtabflow.prepare.store import HALF, SPLITS, create_store, rows_needed
from vtabflow.runtime.progress import Progress

UPSTREAM_VAL = Fraction(1, 20)
Result = TypeVar("Result")


def make(spec: StoreSpec) -> Manifest:
    """Prepare the store of `spec` (source "folder") and return its manifest.

    Images of one size no larger than the target keep their pixels; others are resized to (size, size) and rounded.
    Images that are all grey keep one channel. Files that give no image are left out and listed in the manifest
    ("skip"), or are an error ("refuse"). A file that turns out broken when it is decoded leaves a gap, and no other
    example moves.

    Raises:
        UserError: what is wrong with the folder, with its path, the class, the count and what to do.
        RunError: no space or permission for the store.
    """
    settings, image = spec.settings, spec.image
    assert isinstance(settings, FolderSettings) and isinstance(image, ImageSpec)
    path, role = settings.path, settings.role
    with open_tree(path, Path(spec.folder).parent) as tree:
        found = understand(tree, settings.layout, path)
        label = f"{spec.dataset}: reading"
        contents = read_contents(tree, [entry.file for entry in found.entries], settings.decoding, label)
        _check_unchanged(spec, identity_of(found, contents))
        files, skipped = readable(found, contents)
        check_readable(path, files, skipped)
        _check_skipped(settings, skipped)
        check_classes(path, found, files, role)
        splits = split_files(files, role, settings.split.seed, settings.split.fractions)
        check_duplicates(spec.dataset, path, splits)
        shape = _shape(files, image.size)
        kept: dict[str, list[File]] = {}
        with create_store(spec) as new:
            for split in SPLITS:
                count = rows_needed(spec, split, len(splits[split]))
                images = new.images(split, (count, *shape), image.numbers)
                kept[split] = _fill(tree, splits[split], images, image.resize, f"{spec.dataset}: {split}", skipped)
                new.keep(split, len(kept[split]))
            _check_skipped(settings, skipped)
            check_classes(path, found, [file for file in files if file.entry.name not in skipped], role)
            for split in SPLITS:
                if not kept[split] and (role == "task" or split == "train"):
                    raise UserError(f"{path} leaves no readable image for {split}: add images to it, or to train")
            if skipped:
                first = min(skipped)
                print(f"{spec.dataset}: skipped {len(skipped)} files, {first} ({skipped[first]}) first", flush=True)
            task = spec.tasks[0]
            number = {label: index for index, label in enumerate(found.classes)}
            labels = {split: np.array([number[file.entry.label] for file in kept[split]], np.int64) for split in SPLITS}
            return new.finish(
                {task: labels},
                {split: [file.entry.name for file in kept[split]] for split in SPLITS},
                {task: len(found.classes)},
                {task: found.classes},
                [SkippedFile(name, skipped[name]) for name in sorted(skipped)],
            )


def check_duplicates(dataset: str, path: str, splits: Mapping[str, Sequence[File]]) -> None:
    """Print how many test images have the bytes of a training image; UserError if most of the test images do."""
    seen = {file.digest: file for split in ("train", "val") for file in splits[split]}
    duplicates = [file for file in splits["test"] if file.digest in seen]
    if not duplicates:
        return
    first = duplicates[0]
    example = f"{first.entry.name} ({seen[first.digest].entry.name})"
    found = (
        f"{len(duplicates)} of {len(splits['test'])} test images of {path} are training images too, such as {example}"
    )
    if 2 * len(duplicates) > len(splits["test"]):
        raise UserError(f"{found}: a test set needs images of its own; put others into test/, or leave test/ out")
    print(f"{dataset}: {found}", flush=True)


def split_files(files: Sequence[File], role: str, seed: int, fractions: Sequence[float]) -> dict[str, list[File]]:
    """The files of train, val and test, each in the order of the store. `fractions`: of train, val and test."""
    splits: dict[str, list[File]] = {split: [] for split in SPLITS}
    for file in files:
        splits[file.entry.split or "train"].append(file)
    missing = [split for split in ("val", "test") if not splits[split]]
    pool = sorted(splits["train"], key=lambda file: _rank("split", seed, file))
    if role == "task" and missing:
        splits |= _stratified(
            pool, missing, dict(zip(SPLITS, (Fraction(str(part)) for part in fractions), strict=True))
        )
    elif role == "upstream" and "val" in missing:
        count = min(len(pool) - 1, max(1, _rounded(UPSTREAM_VAL * len(pool))))
        splits["val"], splits["train"] = pool[:count], pool[count:]
    return {split: sorted(members, key=lambda file: _rank("order", seed, file)) for split, members in splits.items()}


def _stratified(pool: Sequence[File], missing: list[str], part: Mapping[str, Fraction]) -> dict[str, list[File]]:
    """The `missing` splits and the rest of train, from each class of `pool` by the fractions `part`."""
    total = part["train"] + sum(part[split] for split in missing)
    by_class: dict[str, list[File]] = {}
    for file in pool:
        by_class.setdefault(file.entry.label, []).append(file)
    splits: dict[str, list[File]] = {split: [] for split in ("train", *missing)}
    for members in by_class.values():
        # At least one of each class, unless that leaves train with none: a tested class has to be trained on.
        counts = {split: max(1, _rounded(part[split] / total * len(members))) for split in missing}
        while sum(counts.values()) >= len(members):
            counts[max(counts, key=lambda split: counts[split])] -= 1
        start = 0
        for split, count in counts.items():
            splits[split] += members[start : start + count]
            start += count
        splits["train"] += members[start:]
    return splits


def check_classes(path: str, found: Layout, files: Sequence[File], role: str) -> None:
    """UserError unless every class has enough readable `files` in train, and in all if splits are still to be drawn."""
    train = Counter(file.entry.label for file in files if file.entry.split in ("", "train"))
    listed = {entry.label for entry in found.entries if entry.split in ("", "train")}
    if role == "task" and len(found.classes) < 2:
        raise UserError(f"{path} has one class, {found.classes[0]}: a task needs at least two class folders")
    for split in found.splits:
        if split and not any(file.entry.split == split for file in files):
            raise UserError(
                f"{path}: {split} has no readable image: fix its files, or remove {split} to have it drawn from train"
            )
    drawn = role == "task" and found.splits in ([""], ["train"])
    for label in found.classes:
        count = train[label]
        if label not in listed:
            split = next(entry.split for entry in found.entries if entry.label == label)
            where = f"{sum(entry.label == label for entry in found.entries)} files in {split} and none in train"
            raise UserError(
                f"{path}: class {label} has {where}: add images to train/{label}, or remove {split}/{label}"
            )
        if count == 0:
            raise UserError(f"{path}: class {label} has 0 readable images in train: fix its files or remove the class")
        if drawn and count < 3:
            few = f"{path}: class {label} has too few readable images ({count})"
            raise UserError(f"{few}: add some until there are 3 (train, val and test), or remove the class")


def check_readable(path: str, files: Sequence[File], skipped: Mapping[str, str]) -> None:
    """UserError if no file is a readable image."""
    if not files:
        first = min(skipped)
        raise UserError(f"none of the {len(skipped)} files in {path} is a readable image ({first} {skipped[first]})")


def _fill(
    tree: Tree, files: list[File], images: np.ndarray, kind: str, label: str, skipped: dict[str, str]
) -> list[File]:
    """Decode `files` into `images`, in order, until these are full, and return the files that were used."""
    kept: list[File] = []
    progress = Progress(label, len(images))
    for file in files:
        if len(kept) == len(images):
            break
        try:
            pixels = _read(tree, file.entry, lambda stream: decode(stream.read()))
        except Unreadable as reason:
            skipped[file.entry.name] = str(reason)
            continue
        images[len(kept)] = _as_stored(pixels, images, kind)
        kept.append(file)
        progress.add(1)
    progress.end()
    return kept


def _read(tree: Tree, entry: Entry, use: Callable[[IO[bytes]], Result]) -> Result:
    """`use(stream)` on one file. Whatever goes wrong while it is read makes it Unreadable."""
    try:
        with tree.open(entry.file) as stream:
            return use(stream)
    except (Unreadable, MemoryError):
        raise
    except OSError as error:
        raise Unreadable(f"cannot be read ({error.strerror or error})") from error
    except Exception as error:  # of zipfile and its decompressors: damaged, encrypted, an unknown method
        raise Unreadable(f"cannot be read ({error})") from error


def _shape(files: Sequence[File], size: int) -> tuple[int, int, int]:
    """Height, width and channels of the store's images."""
    channels = 1 if all(file.grey for file in files) else 3
    native = {(file.height, file.width) for file in files}
    height, width = native.pop() if len(native) == 1 else (size + 1, size + 1)
    return (height, width, channels) if max(height, width) <= size else (size, size, channels)


def _as_stored(pixels: np.ndarray, images: np.ndarray, kind: str) -> np.ndarray:
    """`pixels` (H, W, C) with the size and channels of `images` (N, H, W, C), rounded if those are integers."""
    shape = images.shape[1:]
    if pixels.shape[:2] != shape[:2]:
        import torch  # seconds to import, and not needed for images that keep their size

        from vtabflow.prepare.resize import resize

        pixels = resize(torch.from_numpy(pixels)[None], shape[0], kind)[0].numpy()
        if images.dtype == np.uint8:
            pixels = np.floor(pixels + HALF).clip(0, 255).astype(np.uint8)
    return np.broadcast_to(pixels, shape)


def _rank(word: str, seed: int, file: File) -> tuple[str, str, str]:
    """The position of a file in a seeded draw. The class and name only order files of equal bytes."""
    content = f"{word}/{seed}/{file.digest}"
    return hashlib.sha256(content.encode()).hexdigest(), file.entry.label, file.entry.name


def _rounded(value: Fraction) -> int:
    return int(value + Fraction(1, 2))


def _check_skipped(settings: FolderSettings, skipped: Mapping[str, str]) -> None:
    if settings.invalid == "refuse" and skipped:
        first = min(skipped)
        what = f"{settings.path}: {first} {skipped[first]} (unusable files in all: {len(skipped)})"
        raise UserError(f"{what}: fix or remove them, or set `invalid: skip` to leave them out")


def _check_unchanged(spec: StoreSpec, now: FolderIdentity) -> None:
    """The store's key is of the files that the folder had when the study was planned."""
    if spec.fingerprint and spec.fingerprint != Fingerprint(now.images, now.labels):
        path = spec.settings.path if isinstance(spec.settings, FolderSettings) else spec.dataset
        raise UserError(f"the images in {path} have changed since the study was planned: start the run again")
