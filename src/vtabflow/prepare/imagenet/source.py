"""Source `imagenet`: the training images of ILSVRC-2012, the upstream dataset, as a packed store (packed_store.py).

From TFDS' imagenet2012, whose records exist or are generated from the official tars, or from an extracted tree
[train/]<wnid>/*.JPEG. Both are only read, and give bit-identical stores. Images are in TFDS' order, ascending MD5 of
"train" and the file's name, and the last 40 of 1,024 equal shards are held out as val
(google/revisiting-self-supervised at b530e3b, datasets.py; docs/protocol.md#data).
"""

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from threading import Lock
from typing import Any, Protocol

import numpy as np

from vtabflow.contracts.results import Manifest, SkippedFile
from vtabflow.contracts.specs import ImagenetSettings, PackedImageSpec, StoreSpec
from vtabflow.errors import UserError
from vtabflow.prepare.imagenet import packed_store as packed
from vtabflow.prepare.images import Unreadable
from vtabflow.prepare.store import SPLITS, create_store
from vtabflow.prepare.tfds.datasets import imagenet
from vtabflow.prepare.tfds.records import Records
from vtabflow.runtime.progress import Progress
from vtabflow.runtime.threads import in_order

TRAIN_SHARDS, SHARDS = 984, 1024
SUFFIXES = (".jpeg", ".jpg")
# CMYK files and a PNG that TFDS' builder converts to RGB JPEGs of quality 100 (CMYK_IMAGES and PNG_IMAGES of
# imagenet2012/imagenet_common.py at v4.9.10).
# fmt: off
CMYK = frozenset(f"{name}.JPEG" for name in (
    "n01739381_1309", "n02077923_14822", "n02447366_23489", "n02492035_15739", "n02747177_10752", "n03018349_4028",
    "n03062245_4620", "n03347037_9675", "n03467068_12171", "n03529860_11437", "n03544143_17228", "n03633091_5218",
    "n03710637_5125", "n03961711_5286", "n04033995_2932", "n04258138_17003", "n04264628_27969", "n04336792_7448",
    "n04371774_5854", "n04596742_4225", "n07583066_647", "n13037406_4650",
))
# fmt: on
PNG = frozenset({"n02105855_2933.JPEG"})
SAMPLE = 10_000  # images, in the order of their hashes, from which the size of all is estimated to 1%
THREADS_PER_CORE = 2  # while one waits for the disk another decodes
AHEAD = 8  # images in flight per thread
_tensorflow = Lock()


@dataclass(frozen=True)
class Example:
    """An image file on its way into the store.

    Attributes:
        kind: what `packed.image_kind` returns.
        reason: why it is left out, or None.
        size: bytes of the file as it was found.
    """

    name: str
    label: int
    data: bytes = b""
    kind: str = ""
    reason: str | None = None
    shortened: bool = False
    size: int = 0


class Source(Protocol):
    """Where images are read."""

    place: str
    count: int
    class_names: list[str]

    def items(self) -> Iterable[Any]:
        """One item per image, in TFDS' order."""

    def example(self, item: Any) -> Example:
        """The image of an item, with its bytes or a reason; called in threads."""


@dataclass
class Part:
    """Names and labels of a split's images, in order."""

    names: list[str] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)


def make(spec: StoreSpec) -> Manifest:
    """Prepare the store of `spec` (source "imagenet") and return its manifest.

    Bytes are kept as they are unless `spec.image` has a `side`. A file that does not decode is named, left out and
    listed in the manifest; no other example moves to another split because of it.

    Raises:
        UserError: no tars, no records or no tree; other counts than ImageNet's; a class without an image.
        RunError: damaged records, no space, no permission.
    """
    from vtabflow.prepare.tfds.source import quiet

    quiet()  # a CMYK file of a tree takes TensorFlow as well
    settings, image = spec.settings, spec.image
    assert isinstance(settings, ImagenetSettings) and isinstance(image, PackedImageSpec)
    source: Source = Tree(spec) if settings.origin == "tree" else TfdsRecords(spec, settings)
    official = settings.counts == "official"
    if official:
        check_count(source)
    border = source.count * TRAIN_SHARDS // SHARDS
    sizes = {"train": border, "val": source.count - border, "test": 0}
    parts = {split: Part() for split in SPLITS}
    kinds: Counter[str] = Counter()
    skipped: dict[str, str] = {}
    progress = Progress(f"{spec.dataset}: packed", source.count)
    last, seen, read = b"", 0, 0

    def work(item: Any) -> Example:
        return shortened(source.example(item), image)

    with create_store(spec) as new, ThreadPoolExecutor(THREADS_PER_CORE * cores()) as pool:
        examples = in_order(pool, work, source.items(), AHEAD * THREADS_PER_CORE * cores())
        try:
            for split in SPLITS:
                with packed.Writer(new.folder, split) as writer:
                    for example in islice(examples, sizes[split]):
                        last = check_order(source, example.name, last)
                        kinds[example.kind] += 1
                        kinds["shortened"] += example.shortened
                        seen, read = seen + 1, read + example.size
                        if official and seen in (SAMPLE, source.count):
                            check_bytes(source, read * source.count / seen)
                        progress.add(1)
                        if example.reason:
                            skipped[example.name] = example.reason
                            continue
                        writer.write(example.data)
                        parts[split].names.append(example.name)
                        parts[split].labels.append(example.label)
                new.arrays[split] = writer
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
        progress.end()
        numbers = class_numbers(source, parts, spec.classes[spec.tasks[0]], official)
        skipped |= getattr(source, "strays", {})
        if skipped:
            first = min(skipped)
            print(f"{spec.dataset}: left out {len(skipped)} files, first {first}, which {skipped[first]}", flush=True)
        task = spec.tasks[0]
        return new.finish(
            {task: {split: np.array([numbers[label] for label in parts[split].labels], np.int64) for split in SPLITS}},
            {split: parts[split].names for split in SPLITS},
            spec.classes,
            {task: [source.class_names[label] for label in numbers]},
            [SkippedFile(name, skipped[name]) for name in sorted(skipped)],
            form=packed.FORM,
            oddities={kind: kinds[kind] for kind in ("cmyk", "png", "grey")},
            shortened=kinds["shortened"],
        )


class Tree:
    """An extracted tree [train/]<wnid>/*.JPEG; only read. `strays` are the other files in it, with the reason."""

    def __init__(self, spec: StoreSpec) -> None:
        root = Path((spec.places and spec.places.tree) or "")
        if not root.is_dir():
            raise UserError(
                f"{root} is not a folder: set `prepare.imagenet.tree` to the one that has "
                f"train/<wnid>/*.JPEG, or leave "
                "it out to use TFDS"
            )
        self.root = root / "train" if (root / "train").is_dir() else root
        self.place = str(self.root)
        self.class_names = sorted(entry.name for entry in _visible(self.root) if entry.is_dir())
        self.strays: dict[str, str] = {}
        names: list[str] = []
        counts = []
        for wnid in self.class_names:
            files = self._files(wnid)
            if not files:
                if any(entry.is_dir() for entry in _visible(self.root / wnid)):
                    raise UserError(
                        f"{self.root / wnid} has folders and no .JPEG file: a folder is nested; move "
                        f"what is in it one level "
                        "up, or set `prepare.imagenet.tree` to the one that has train/<wnid>/*.JPEG"
                    )
                raise UserError(
                    f"{self.root / wnid} has no .JPEG file: add the images of the class, or remove the folder"
                )
            names += files
            counts.append(len(files))
        if not names:
            raise UserError(f"{root} has no class folder: add train/<wnid>/*.JPEG, or correct `prepare.imagenet.tree`")
        hashes = np.frombuffer(b"".join(map(key_hash, names)), ">u8").reshape(-1, 2)
        self.order = np.lexsort((hashes[:, 1], hashes[:, 0]))
        self.names = names
        self.labels = np.repeat(np.arange(len(counts)), counts)
        self.count = len(names)

    def items(self) -> Iterable[int]:
        """Indices of the images in TFDS' order."""
        return map(int, self.order)

    def example(self, item: int) -> Example:
        """The image of an index."""
        name, label = self.names[item], int(self.labels[item])
        try:
            data = (self.root / self.class_names[label] / name).read_bytes()
            kind = packed.image_kind(data)
        except OSError as error:
            return Example(name, label, reason=f"cannot be read ({error.strerror or error})")
        except Unreadable as reason:
            return Example(name, label, reason=str(reason))
        return Example(name, label, as_tfds(name, data, kind), kind)

    def _files(self, wnid: str) -> list[str]:
        found = []
        for entry in _visible(self.root / wnid):
            if not entry.name.isprintable():
                self.strays[ascii(f"{wnid}/{entry.name}")] = "has a name that cannot be printed"
            elif entry.is_dir() or not entry.name.lower().endswith(SUFFIXES):
                self.strays[f"{wnid}/{entry.name}"] = "is not a .JPEG file"
            else:
                found.append(entry.name)
        return sorted(found)


class TfdsRecords:
    """TFDS' records of imagenet2012 in `spec.places.tfds`, which TFDS generates from the tars unless they exist."""

    def __init__(self, spec: StoreSpec, settings: ImagenetSettings) -> None:
        from vtabflow.prepare.tfds.source import check_installed, generate, import_tfds

        dataset, places = imagenet(), spec.places
        assert places is not None
        check_installed(dataset)
        versions = dict.fromkeys((settings.version, dataset.version, *dataset.readable))
        found = (dataset.prepared(places.tfds, version) for version in versions)
        folder = next(filter(None, found), None) or generate(dataset, settings.version, {}, places)
        import_tfds(dataset)
        self.records = Records(folder, dataset)
        self.place = str(folder)
        self.count = self.records.counts.get("train", 0)
        if not self.count:
            raise UserError(
                f"{folder} has no split train: add the records of the training images, or remove the folder"
            )
        self.class_names = self.records.class_names() or []
        self._parse = self.records.parser()

    def items(self) -> Iterable[bytes]:
        """The serialised records in order."""
        return self.records.raw("train", 0, self.count)

    def example(self, item: bytes) -> Example:
        """The image of a record."""
        parsed = self._parse(item)
        name, label, data = parsed["file_name"].decode(), int(parsed["label"]), parsed["image"]
        try:
            kind = packed.image_kind(data)
        except Unreadable as reason:
            return Example(name, label, reason=str(reason))
        # What the builder has converted is counted as what it was.
        return Example(name, label, data, "cmyk" if name in CMYK else "png" if name in PNG else kind)


def as_tfds(name: str, data: bytes, kind: str) -> bytes:
    """The bytes that TFDS' builder would keep of a file: its own, except for 22 CMYK files and a PNG, known by name.

    Raises:
        UserError: one of those, and TFDS, whose function converts them, is not installed.
    """
    if not ((kind == "cmyk" and name in CMYK) or (kind == "png" and name in PNG)):
        return data
    try:
        from tensorflow_datasets.core.utils import image_utils
    except ImportError as error:
        raise UserError(
            f"imagenet: {name} is not an RGB JPEG, and TFDS has to convert it as its builder does: "
            f"install it with `make "
            "tfds`, then run again"
        ) from error
    with _tensorflow:
        return image_utils.jpeg_cmyk_to_rgb(data) if kind == "cmyk" else image_utils.png_to_jpeg(data)


def shortened(example: Example, image: PackedImageSpec) -> Example:
    """The example as it is stored: made smaller where the spec asks for it and the image is larger."""
    example = replace(example, size=len(example.data))
    if example.reason or image.side is None or image.quality is None:
        return example
    data = packed.shortened(example.data, image.side, image.quality)
    return replace(example, data=data, shortened=data is not example.data)


def key_hash(name: str) -> bytes:
    """What TFDS sorts a split by: MD5 of the split's name and the key, here the file's name (core/hashing.py)."""
    return hashlib.md5(f"train{name}".encode(), usedforsecurity=False).digest()


def check_order(source: Source, name: str, last: bytes) -> bytes:
    """The hash of `name`. UserError unless it comes after `last`, that of the example before."""
    found = key_hash(name)
    if found <= last:
        what = "is given twice" if found == last else "is out of TFDS' order"
        raise UserError(
            f"{source.place}: {name} {what}: file names should be unique, and records those of "
            f"imagenet2012 5.0.0 or 5.1.0"
        )
    return found


def check_count(source: Source) -> None:
    """UserError unless there are as many images as in ImageNet."""
    count = imagenet().counts["train"]
    if source.count != count:
        raise UserError(
            f"{source.place} has {source.count:,} training images and ImageNet has {count:,}: add the "
            f"missing ones, or set "
            "`prepare.tfds.counts: any` to take a subset"
        )


def check_bytes(source: Source, size: float) -> None:
    """UserError if the images have far fewer bytes than ImageNet's: labs keep smaller copies under the same names."""
    tar = imagenet().manual_downloads[0].size  # of the training images; its headers are less than 1%
    if size < 0.9 * tar:
        raise UserError(
            f"{source.place}: its images have {size / 1e9:.0f} GB and ImageNet's have {tar / 1e9:.0f}: they were made "
            "smaller; use the original files, or set `prepare.tfds.counts: any` to take these"
        )


def class_numbers(source: Source, parts: Mapping[str, Part], expected: int, official: bool) -> dict[int, int]:
    """Map the source's labels, ascending, to class numbers: all its classes, or those that it has images of.

    Args:
        source: whose labels.
        parts: the images that were read.
        expected: the number of classes in the study.
        official: every class should have an image.

    Raises:
        UserError: another number of classes, or a class without an image.
    """
    found = sorted({label for part in parts.values() for label in part.labels})
    if expected not in (len(found), len(source.class_names)):
        raise UserError(
            f"{source.place} has readable images of {len(found)} classes and the study expects {expected}: use the "
            "whole dataset, or plan the study again"
        )
    labels: Sequence[int] = range(expected) if expected == len(source.class_names) else found
    empty = sorted(set(labels) - set(found))
    if empty and (isinstance(source, Tree) or official):
        raise UserError(
            f"{source.place}: class {source.class_names[empty[0]]} has no readable image ({len(empty)} such classes): "
            "copy its images again"
        )
    return {label: number for number, label in enumerate(labels)}


def cores() -> int:
    """Threads that this process may use (--threads)."""
    import torch

    return torch.get_num_threads()


def _visible(folder: Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return [entry for entry in entries if not entry.name.startswith(".")]
