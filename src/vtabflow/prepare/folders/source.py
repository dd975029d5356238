"""Source `folder`: a folder or archive of images becomes a store.

How it is understood: layout.py. Which images are in which split, and in which order: split.py. Decoding: decode.py.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import __version__ as pillow

from vtabflow.contracts.results import Manifest, SkippedFile
from vtabflow.contracts.specs import Fingerprint, FolderSettings, ImageSpec, StoreSpec
from vtabflow.contracts.typed_json import to_json
from vtabflow.errors import UserError
from vtabflow.prepare.folders.decode import Decoder, DoneList, Filled, read_list, remarks_of_files
from vtabflow.prepare.folders.entry import File
from vtabflow.prepare.folders.fingerprint import (
    FolderIdentity,
    check_readable,
    check_skipped,
    identity_of,
    readable,
)
from vtabflow.prepare.folders.layout import understand
from vtabflow.prepare.folders.near_copies import near_copies
from vtabflow.prepare.folders.scan import FINGERPRINTS, contents_of
from vtabflow.prepare.folders.split import Division, divide, without
from vtabflow.prepare.folders.tree import open_tree
from vtabflow.prepare.store import SPLITS, create_store, rows_needed
from vtabflow.runtime.files import digest


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
        contents = contents_of(tree, found, path, settings.decoding, FINGERPRINTS, label)
        _check_unchanged(spec, identity_of(found, contents))
        files, skipped = readable(found, contents)
        check_readable(settings, files, skipped)
        near = None
        if settings.decoding.near_copies:
            near = near_copies(tree, files, settings.decoding, f"{spec.dataset}: looking for near copies")
        division = divide(found, files, settings, near)
        files = [file for split in SPLITS for file in division.files[split]]
        shape = _shape(files, image.size)
        work = _work(spec, division, shape)
        with create_store(spec, lambda folder: bool(read_list(folder, work))) as new:
            done = DoneList(new.folder, work)
            decoder = Decoder(tree, shape, image.numbers, image.resize, settings.decoding)
            filled: dict[str, Filled] = {}
            for split, members in division.files.items():
                images = new.images(split, (rows_needed(spec, split, len(members)), *shape), image.numbers)
                filled[split] = decoder.fill(members, images, done, split, f"{spec.dataset}: {split}")
                skipped |= {members[position].entry.name: why for position, why in filled[split].skipped.items()}
            check_skipped(settings, skipped)
            for split in SPLITS:
                if not filled[split].images and (role == "task" or split == "train"):
                    raise UserError(f"{path} leaves no readable image for {split}: add images to it, or to train")
            more = remarks_of_files(filled, division.files, settings.decoding)
            rows = {split: _rows(division.files[split], filled[split]) for split in SPLITS}
            division = without(division, skipped, found, settings, near)
            division = replace(division, remarks=(*division.remarks, *more))
            skipped |= division.left_out
            _print(spec.dataset, division, skipped)
            done.path.unlink()
            for split in SPLITS:
                new.keep(split, len(rows[split]))
            task = spec.tasks[0]
            number = {label: index for index, label in enumerate(division.classes)}
            labels = {split: np.array([number[file.entry.label] for file in rows[split]], np.int64) for split in SPLITS}
            return new.finish(
                {task: labels},
                {split: [file.entry.name for file in rows[split]] for split in SPLITS},
                {task: len(division.classes)},
                {task: division.classes},
                [SkippedFile(name, skipped[name]) for name in sorted(skipped)],
                layout=division.line,
                remarks=division.remarks,
            )


def _work(spec: StoreSpec, division: Division, shape: tuple[int, int, int]) -> str:
    """A digest of all that the arrays depend on, for a job that goes on with those of a killed one."""
    assert isinstance(spec.settings, FolderSettings)
    how = [to_json(spec.image), spec.rows, shape, to_json(spec.settings.decoding), spec.code, pillow]
    return digest([how, {split: [file.digest for file in files] for split, files in division.files.items()}])


def _rows(files: Sequence[File], filled: Filled) -> list[File]:
    """The files whose images are in the store, in order."""
    return [file for position, file in enumerate(files[: filled.files]) if position not in filled.skipped]


def _print(dataset: str, division: Division, skipped: Mapping[str, str]) -> None:
    """What was understood, for the log."""
    print(f"{dataset}: {division.line}", flush=True)
    for remark in division.remarks:
        print(f"{dataset}: {remark.text}", flush=True)
    if skipped:
        first = min(skipped)
        print(f"{dataset}: skipped {len(skipped)} files, {first} ({skipped[first]}) first", flush=True)


def _shape(files: Sequence[File], size: int) -> tuple[int, int, int]:
    """Height, width and channels of the store's images."""
    channels = 1 if all(file.grey for file in files) else 3
    native = {(file.height, file.width) for file in files}
    height, width = native.pop() if len(native) == 1 else (size + 1, size + 1)
    return (height, width, channels) if max(height, width) <= size else (size, size, channels)


def _check_unchanged(spec: StoreSpec, now: FolderIdentity) -> None:
    """The store's key is of the files that the folder had when the study was planned."""
    if spec.fingerprint and spec.fingerprint != Fingerprint(now.images, now.labels):
        path = spec.settings.path if isinstance(spec.settings, FolderSettings) else spec.dataset
        raise UserError(f"the images in {path} have changed since the study was planned: start the run again")
