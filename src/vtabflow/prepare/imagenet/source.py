"""Source `imagenet`: ILSVRC-2012's training images as a packed store (prepare/imagenet/packed_store.py), the upstream set.

From TFDS' imagenet2012, whose records are there already or made from the official tars, or from an extracted tree
[train/]<wnid>/*.JPEG; either is only read, and gives the same store to the bit. Images lie in TFDS' order, ascending MD5
of "train" and the file's name, and the last 40 of 1,024 equal shards are held out as val (methods.md 2.4).
"""

import hashlib
import os
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from threading import Lock
from typing import Any, Protocol

import numpy as np

from vtabflow.errors import UserError
from vtabflow.prepare.imagenet import packed_store as packed
from vtabflow.prepare.images import Unreadable
from vtabflow.prepare.store import SPLITS, create_store
from vtabflow.prepare.tfds.archives import BY_HAND
from vtabflow.prepare.tfds.datasets import Dataset
from vtabflow.prepare.tfds.records import Progress, Records

DATASET = Dataset(
    id="imagenet",
    builder="imagenet2012",
    config=None,
    version="5.1.0",
    readable=("5.0.0",),  # the same but for the test split
    split_rule="the last 40 of 1024 shards are val",
    counts={"train": 1_281_167},
    image="image",
    native=None,
    id_feature="file_name",
    by_hand=True,
)
CLASSES = 1000
TRAIN_SHARDS, SHARDS = 984, 1024
SUFFIXES = (".jpeg", ".jpg")
# CMYK files and a PNG that TFDS' builder makes RGB JPEGs of, quality 100 (its CMYK_IMAGES and PNG_IMAGES).
# fmt: off
CMYK = frozenset(f"{name}.JPEG" for name in (
    "n01739381_1309", "n02077923_14822", "n02447366_23489", "n02492035_15739", "n02747177_10752", "n03018349_4028",
    "n03062245_4620", "n03347037_9675", "n03467068_12171", "n03529860_11437", "n03544143_17228", "n03633091_5218",
    "n03710637_5125", "n03961711_5286", "n04033995_2932", "n04258138_17003", "n04264628_27969", "n04336792_7448",
    "n04371774_5854", "n04596742_4225", "n07583066_647", "n13037406_4650",
))
# fmt: on
PNG = frozenset({"n02105855_2933.JPEG"})
TAR_BYTES = BY_HAND["imagenet"][0].size  # of the training images; its headers are less than 1%
SAMPLE = 10_000  # images, in the order of their hashes, whose bytes tell those of the whole to 1%
THREADS_A_CORE = 2  # while one waits for the disk another decodes
AHEAD = 8  # images in flight for each thread
_tensorflow = Lock()


@dataclass(frozen=True)
class Example:
    """An image file on its way into the store. `kind` is what packed.look says; `reason` says why it stays out."""

    name: str
    label: int
    data: bytes = b""
    kind: str = ""
    reason: str | None = None
    shortened: bool = False
    size: int = 0  # bytes of the file as it was found


class Source(Protocol):
    """Where the images come from."""

    place: str
    count: int
    class_names: list[str]

    def items(self) -> Iterable[Any]:
        """One item an image, in TFDS' order."""

    def example(self, item: Any) -> Example:
        """The image of an item, with its bytes or the reason why not; called in threads."""


@dataclass
class Part:
    """What became of a split: names and labels of its images, in order."""

    names: list[str] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)


def make(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Prepare the store of `spec` (StoreSpec with source "imagenet") and return its manifest.

    Bytes are kept as they are unless spec["image"] has a `side`. A file that does not decode is named, left out and
    listed in the manifest, and leaves a gap: no other example moves to another split for it.

    Raises:
        UserError: no tars, no records or no tree; other counts than ImageNet's; a class without an image.
        RunError: damaged records, no space, no permission.
    """
    from vtabflow.prepare.tfds.source import quiet

    quiet()  # a CMYK file of a tree takes TensorFlow as well
    source: Source = Tree(spec) if spec["settings"]["from"] == "tree" else Prepared(spec)
    check_count(spec, source)
    border = source.count * TRAIN_SHARDS // SHARDS
    sizes = {"train": border, "val": source.count - border, "test": 0}
    parts = {split: Part() for split in SPLITS}
    kinds: Counter[str] = Counter()
    skipped: dict[str, str] = {}
    progress = Progress(f"{spec['dataset']}: packed", source.count)
    last, seen, read = b"", 0, 0

    def work(item: Any) -> Example:
        return finished(source.example(item), spec["image"])

    with create_store(spec) as new, ThreadPoolExecutor(THREADS_A_CORE * cores()) as pool:
        examples = in_order(pool, work, source.items(), AHEAD * THREADS_A_CORE * cores())
        try:
            for split in SPLITS:
                with packed.Writer(new.folder, split) as writer:
                    for example in islice(examples, sizes[split]):
                        last = check_order(source, example.name, last)
                        kinds[example.kind] += 1
                        kinds["shortened"] += example.shortened
                        seen, read = seen + 1, read + example.size
                        if seen in (SAMPLE, source.count):
                            check_bytes(spec, source, read * source.count / seen)
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
        numbers = numbered(spec, source, parts)
        skipped |= getattr(source, "strays", {})
        if skipped:
            first = min(skipped)
            print(
                f"{spec['dataset']}: left out {len(skipped)} files, first {first}, which {skipped[first]}", flush=True
            )
        task = spec["tasks"][0]
        return new.finish(
            {task: {split: np.array([numbers[label] for label in parts[split].labels], np.int64) for split in SPLITS}},
            {split: parts[split].names for split in SPLITS},
            spec["classes"],
            {task: [source.class_names[label] for label in numbers]},
            [{"file": name, "reason": skipped[name]} for name in sorted(skipped)],
            {
                "form": packed.FORM,
                "oddities": {kind: kinds[kind] for kind in ("cmyk", "png", "grey")},
                "shortened": kinds["shortened"],
            },
        )


class Tree:
    """An extracted tree [train/]<wnid>/*.JPEG; only read. `strays` are the other files in it, with the reason."""

    def __init__(self, spec: Mapping[str, Any]) -> None:
        root = Path(spec["places"]["tree"])
        if not root.is_dir():
            raise UserError(
                f"{root} is not a folder: set `prepare.imagenet.tree` to the one that holds train/<wnid>/*.JPEG, or leave "
                "it out to go through TFDS"
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
                        f"{self.root / wnid} has folders and no .JPEG file: a folder is nested; move what is in it one level "
                        "up, or set `prepare.imagenet.tree` to the one that holds train/<wnid>/*.JPEG"
                    )
                raise UserError(f"{self.root / wnid} has no .JPEG file: bring the class's images, or remove the folder")
            names += files
            counts.append(len(files))
        if not names:
            raise UserError(
                f"{root} has no class folder: bring train/<wnid>/*.JPEG, or set `prepare.imagenet.tree` anew"
            )
        hashes = np.frombuffer(b"".join(map(key_hash, names)), ">u8").reshape(-1, 2)
        self.order = np.lexsort((hashes[:, 1], hashes[:, 0]))
        self.names = names
        self.labels = np.repeat(np.arange(len(counts)), counts)
        self.count = len(names)

    def items(self) -> Iterable[int]:
        return map(int, self.order)

    def example(self, item: int) -> Example:
        name, label = self.names[item], int(self.labels[item])
        try:
            data = (self.root / self.class_names[label] / name).read_bytes()
            kind = packed.look(data)
        except OSError as error:
            return Example(name, label, reason=f"cannot be read ({error.strerror or error})")
        except Unreadable as reason:
            return Example(name, label, reason=str(reason))
        return Example(name, label, as_tfds(name, data, kind), kind)

    def _files(self, wnid: str) -> list[str]:
        found = []
        for entry in _visible(self.root / wnid):
            if not entry.name.isprintable():
                self.strays[ascii(f"{wnid}/{entry.name}")] = "has a name that no list can hold"
            elif entry.is_dir() or not entry.name.lower().endswith(SUFFIXES):
                self.strays[f"{wnid}/{entry.name}"] = "is no .JPEG file"
            else:
                found.append(entry.name)
        return sorted(found)


class Prepared:
    """TFDS' records of imagenet2012: those that lie in places["tfds"], else those that TFDS makes there of the tars."""

    def __init__(self, spec: Mapping[str, Any]) -> None:
        from vtabflow.prepare.tfds.source import check_installed, generated, prepared

        check_installed(DATASET)
        settings, places = spec["settings"], spec["places"]
        versions = dict.fromkeys((settings["version"], DATASET.version, *DATASET.readable))
        there = (prepared(places, DATASET, version) for version in versions)
        folder = next(filter(None, there), None) or generated(DATASET, {**settings, "checksums": {}}, places)
        self.records = Records(folder, DATASET)
        self.place = str(folder)
        self.count = self.records.counts.get("train", 0)
        if not self.count:
            raise UserError(
                f"{folder} has no split train: bring the records of the training images, or remove the folder"
            )
        self.class_names = self.records.class_names() or []
        self._parse = self.records.parser()

    def items(self) -> Iterable[bytes]:
        return self.records.raw("train", 0, self.count)

    def example(self, item: bytes) -> Example:
        parsed = self._parse(item)
        name, label, data = parsed["file_name"].decode(), int(parsed["label"]), parsed["image"]
        try:
            kind = packed.look(data)
        except Unreadable as reason:
            return Example(name, label, reason=str(reason))
        # What the builder has converted is still counted as what it was.
        return Example(name, label, data, "cmyk" if name in CMYK else "png" if name in PNG else kind)


def as_tfds(name: str, data: bytes, kind: str) -> bytes:
    """The bytes that TFDS' builder would keep of a file: its own, but for 22 CMYK files and a PNG, known by name.

    Raises UserError if one of those is met and TFDS, which converts them by its own function, is not installed.
    """
    if not ((kind == "cmyk" and name in CMYK) or (kind == "png" and name in PNG)):
        return data
    try:
        from tensorflow_datasets.core.utils import image_utils
    except ImportError as error:
        raise UserError(
            f"imagenet: {name} is no RGB JPEG, and TFDS has to convert it as its builder does: `make tfds` brings it for "
            "this step; then run again"
        ) from error
    with _tensorflow:
        return image_utils.jpeg_cmyk_to_rgb(data) if kind == "cmyk" else image_utils.png_to_jpeg(data)


def finished(example: Example, image: Mapping[str, Any]) -> Example:
    """The example as it is stored: shortened where the spec asks for it and the image is larger."""
    side = image.get("side")
    example = replace(example, size=len(example.data))
    if example.reason or side is None:
        return example
    data = packed.shortened(example.data, side, image["quality"])
    return replace(example, data=data, shortened=data is not example.data)


def in_order(
    pool: ThreadPoolExecutor, work: Callable[[Any], Example], items: Iterable[Any], ahead: int
) -> Iterator[Example]:
    """`work` on each item in the pool, results in order, at most `ahead` of them in flight."""
    waiting: deque[Future[Example]] = deque()
    for item in items:
        waiting.append(pool.submit(work, item))
        if len(waiting) >= ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def key_hash(name: str) -> bytes:
    """What TFDS sorts a split by: MD5 of the split's name and the key, here the file's name (protocol.md, 1.5)."""
    return hashlib.md5(f"train{name}".encode(), usedforsecurity=False).digest()


def check_order(source: Source, name: str, last: bytes) -> bytes:
    """The hash of `name`. UserError unless it comes after `last`, that of the example before."""
    found = key_hash(name)
    if found <= last:
        what = "appears twice" if found == last else "is out of TFDS' order"
        raise UserError(
            f"{source.place}: {name} {what}: file names are to be unique, and records those of imagenet2012 5.0.0 or 5.1.0"
        )
    return found


def check_count(spec: Mapping[str, Any], source: Source) -> None:
    """UserError unless there are as many images as in ImageNet, where that is wanted."""
    count = DATASET.counts["train"]
    if spec["settings"]["counts"] == "official" and source.count != count:
        raise UserError(
            f"{source.place} has {source.count:,} training images and ImageNet has {count:,}: bring the whole set, or set "
            "`prepare.tfds.counts: any` to take what is there"
        )


def check_bytes(spec: Mapping[str, Any], source: Source, size: float) -> None:
    """UserError if the whole set is wanted and these, of `size` bytes, are smaller pictures under its names, as labs keep
    them.
    """
    if spec["settings"]["counts"] == "official" and size < 0.9 * TAR_BYTES:
        raise UserError(
            f"{source.place}: its images have {size / 1e9:.0f} GB and ImageNet's have {TAR_BYTES / 1e9:.0f}: they were made "
            "smaller; bring the files as they were, or set `prepare.tfds.counts: any` to take what is there"
        )


def numbered(spec: Mapping[str, Any], source: Source, parts: Mapping[str, Part]) -> dict[int, int]:
    """The source's labels, ascending, with their class numbers: all its classes, or those that it has images of.

    UserError if the study expects another number of classes, or one that is to have images has none.
    """
    wanted = spec["classes"][spec["tasks"][0]]
    found = sorted({label for part in parts.values() for label in part.labels})
    if wanted not in (len(found), len(source.class_names)):
        raise UserError(
            f"{source.place} has readable images of {len(found)} classes and the study expects {wanted}: bring the whole "
            "set, or plan the study again"
        )
    labels: Sequence[int] = range(wanted) if wanted == len(source.class_names) else found
    empty = sorted(set(labels) - set(found))
    if empty and (isinstance(source, Tree) or spec["settings"]["counts"] == "official"):
        raise UserError(
            f"{source.place}: class {source.class_names[empty[0]]} has no readable image ({len(empty)} such classes): "
            "bring it whole"
        )
    return {label: number for number, label in enumerate(labels)}


def cores() -> int:
    """Threads that this process may use (--threads)."""
    import torch

    return torch.get_num_threads()


def _visible(folder: Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return [entry for entry in entries if not entry.name.startswith(".")]
