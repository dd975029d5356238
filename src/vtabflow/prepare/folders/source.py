"""Source `folder`: a folder or archive of images becomes a store.

How it is understood: layout.py. Which images are in which split, and in which order: split.py.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, TypeVar

import numpy as np

from vtabflow.contracts.results import Manifest, SkippedFile
from vtabflow.contracts.specs import Fingerprint, FolderSettings, ImageSpec, StoreSpec
from vtabflow.errors import UserError
from vtabflow.prepare.folders.entry import Entry, File
from vtabflow.prepare.folders.fingerprint import FolderIdentity, identity_of, read_contents, readable
from vtabflow.prepare.folders.layout import understand
from vtabflow.prepare.folders.split import Division, divide, without
from vtabflow.prepare.folders.tree import Tree, open_tree
from vtabflow.prepare.images import Unreadable, decode
from vtabflow.prepare.store import HALF, SPLITS, create_store, rows_needed
from vtabflow.runtime.progress import Progress

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
        division = divide(found, files, settings)
        shape = _shape(files, image.size)
        kept: dict[str, list[File]] = {}
        with create_store(spec) as new:
            for split in SPLITS:
                files = division.files[split]
                count = rows_needed(spec, split, len(files))
                images = new.images(split, (count, *shape), image.numbers)
                kept[split] = _fill(tree, files, images, image.resize, f"{spec.dataset}: {split}", skipped)
                new.keep(split, len(kept[split]))
            _check_skipped(settings, skipped)
            division = without(division, skipped, found, settings)
            for split in SPLITS:
                if not kept[split] and (role == "task" or split == "train"):
                    raise UserError(f"{path} leaves no readable image for {split}: add images to it, or to train")
            skipped |= division.left_out
            _print(spec.dataset, division, skipped)
            task = spec.tasks[0]
            number = {label: index for index, label in enumerate(division.classes)}
            labels = {split: np.array([number[file.entry.label] for file in kept[split]], np.int64) for split in SPLITS}
            return new.finish(
                {task: labels},
                {split: [file.entry.name for file in kept[split]] for split in SPLITS},
                {task: len(division.classes)},
                {task: division.classes},
                [SkippedFile(name, skipped[name]) for name in sorted(skipped)],
                layout=division.line,
                remarks=division.remarks,
            )


def _print(dataset: str, division: Division, skipped: Mapping[str, str]) -> None:
    """What was understood, for the log."""
    print(f"{dataset}: {division.line}", flush=True)
    for remark in division.remarks:
        print(f"{dataset}: {remark.text}", flush=True)
    if skipped:
        first = min(skipped)
        print(f"{dataset}: skipped {len(skipped)} files, {first} ({skipped[first]}) first", flush=True)


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
            pixels = _read(tree, file.entry, lambda stream: decode(stream.read()).pixels)
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
