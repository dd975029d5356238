"""The records of a prepared TFDS dataset, read in hash order and written into a store.

TFDS itself cannot read a part of a split in order: for ArrayRecord it has no tf.data reader, for TFRecord no random
access, and it interleaves shards. But shard after shard the records are in hash order (core/shuffle.py of TFDS 4.9.10;
docs/protocol.md#data), so they are read one after another, as far as they are needed. TFDS' own feature decodes images.
"""

import hashlib
import json
import mmap
import re
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vtabflow.contracts.results import SkippedFile
from vtabflow.errors import RunError, UserError
from vtabflow.prepare.resize import resize
from vtabflow.prepare.store import HALF
from vtabflow.prepare.tfds.datasets import Dataset
from vtabflow.prepare.tfds.labels import class_of
from vtabflow.prepare.tfds.splits import Part
from vtabflow.runtime.progress import Progress

BATCH = 16  # records that a thread takes at a time
AHEAD = 4  # batches in flight per thread, which bounds the memory
# Written pages of a memory map count as the process's memory until they are released.
RELEASE_BYTES = 128 << 20
Row = tuple[int, bytes]  # row of the array, serialised example


class BrokenImage(Exception):
    """An image that does not decode; the text is the reason."""


class Records:
    """The records of a dataset at `folder` (<builder>/[<config>/]<version>), of any version, read-only.

    Raises:
        UserError: TFDS cannot read the folder's description.
    """

    def __init__(self, folder: Path, dataset: Dataset):
        # Not only where it is used: the first image would wait for the import.
        import tensorflow  # noqa: F401
        import tensorflow_datasets as tfds

        self.folder = folder
        self.dataset = dataset
        has_description = (folder / "features.json").is_file()
        if has_description:
            _only_own_features(folder, dataset)
        try:
            # Records from before TFDS 4.0.0 do not describe their features; its builder does, for versions it knows.
            self._info = (tfds.builder_from_directory(folder) if has_description else _builder(folder, dataset)).info
            self.features = self._info.features
            self.counts = {name: int(split.num_examples) for name, split in self._info.splits.items()}
            self.parser()
        except Exception as error:  # TFDS raises errors of many types for a damaged description
            raise UserError(
                f"dataset {dataset.id}: the records at {folder} cannot be read ({_first_line(error)}): "
                f"{self.remedy}, then run again"
            ) from error

    @property
    def remedy(self) -> str:
        """How to get other records: TFDS generates those of one version alone."""
        new = self.dataset.version
        if self.folder.name == new:
            return f"copy {self.folder} completely, or remove it to have it generated again"
        return (
            f"copy {self.folder} completely, or move it away and remove its entry of `prepare.tfds.versions` to have "
            f"{new} generated"
        )

    def raw(self, split: str, start: int, stop: int) -> Iterator[bytes]:
        """The serialised examples [start, stop) of a TFDS split, in hash order. Raises RunError on a damaged shard."""
        for shard in self._info.splits[f"{split}[{start}:{stop}]"].file_instructions if start < stop else ():
            path = Path(shard.filename)
            read = {".array_record": _array_records, ".tfrecord": _tf_records}.get(_format(path))
            if read is None:
                raise UserError(
                    f"dataset {self.dataset.id}: {path} is neither tfrecord nor array_record: convert it with "
                    f"`tfds convert_format`; or {self.remedy}, then run again"
                )
            count = 0
            try:
                for record in read(path, shard.skip, shard.take, shard.examples_in_shard):
                    count += 1
                    yield record
            except GeneratorExit:
                raise
            except Exception as error:
                raise self._damaged(path, _first_line(error)) from error
            if count != shard.take:
                raise self._damaged(path, f"it ends after {shard.skip + count} of {shard.examples_in_shard} records")

    def parser(self) -> Callable[[bytes], dict[str, Any]]:
        """A function from a serialised example to its image (bytes), name and the features of its labels."""
        labels = [name for task in self.dataset.tasks.values() for name in task.features or (task.label,)]
        return self._parser([self.dataset.image, *labels, *self._name_feature()])

    def decode(self, data: bytes) -> np.ndarray:
        """The pixels, uint8 (H, W, C), as TFDS decodes them. Raises BrokenImage."""
        import tensorflow as tf

        try:
            return self.features[self.dataset.image].decode_example(data).numpy()
        except (
            tf.errors.OpError,
            ValueError,
        ) as error:  # ValueError: another shape than the feature's, such as a GIF's
            raise BrokenImage(_first_line(error)) from error

    def names(self, split: str, start: int, stop: int) -> Callable[[Mapping[str, Any], int], str]:
        """A function from (parsed example, its index in the split) to its id."""
        if not (named := self._name_feature()):
            keys = integer_keys(split, self.counts[split])[start:stop]
            return lambda example, index: str(keys[index - start])
        classes = self.features["label"].names if self.dataset.id_with_class else None

        def name(example: Mapping[str, Any], index: int) -> str:
            # An id is a line of UTF-8 in the store, and file names are bytes.
            text = example[named[0]].decode(errors="backslashreplace")
            return text if classes is None else f"{classes[example['label']]}/{text}"

        return name

    def _name_feature(self) -> list[str]:
        # Old versions of a builder may lack it: then the integer key is the name.
        return [name for name in (self.dataset.id_feature,) if name is not None and name in self.features]

    def class_names(self) -> list[str] | None:
        """TFDS' names of the classes; None if they are the numbers, or there is no feature `label`."""
        names = list(self.features["label"].names) if "label" in self.features else []
        return names if any(name != str(number) for number, name in enumerate(names)) else None

    def _parser(self, names: Sequence[str]) -> Callable[[bytes], dict[str, Any]]:
        from tensorflow_datasets.core.example_parser import ExampleParserNp

        specs: dict[str, Any] = {}
        for name in names:
            outer, _, inner = name.partition("/")
            if name in self.features:
                specs[name] = self.features[name].get_serialized_info()
            else:
                specs.setdefault(outer, {})[inner] = self.features[outer].get_serialized_info()[inner]
        return ExampleParserNp(specs).parse_example

    def _damaged(self, path: Path, reason: str) -> RunError:
        return RunError(f"dataset {self.dataset.id}: {path} is damaged ({reason}): {self.remedy}, then run again")


@dataclass
class Filled:
    """The labels of each task and the ids of the images that were written, in order, and the skipped files."""

    labels: dict[str, list[int]]
    ids: list[str] = field(default_factory=list)
    skipped: list[SkippedFile] = field(default_factory=list)

    def extend(self, more: "Filled") -> None:
        """Append the images of another part."""
        self.ids += more.ids
        self.skipped += more.skipped
        for task, labels in more.labels.items():
            self.labels[task] += labels


def shape_of(dataset: Dataset, size: int) -> tuple[int, int, int]:
    """(height, width, channels) of the store's images: the native ones if they are no larger than the target."""
    if dataset.native is None:
        return size, size, 3
    height, width, channels = dataset.native
    return dataset.native if max(height, width) <= size else (size, size, channels)


def fill(records: Records, part: Part, images: np.ndarray, resizing: str, tasks: Sequence[str], name: str) -> Filled:
    """Decode the first examples of `part` into `images`, without gaps, in torch.get_num_threads() threads.

    The next example takes the row of one that does not decode while `part` has more: so the rows of the 1k budget are
    the same as the first rows of the full one.

    Args:
        records: where the examples are read.
        part: the TFDS split, the first example, one past the last.
        images: uint8 (rounded) or float32 (N, H, W, C) on the 0..255 scale.
        resizing: "legacy" or "antialias".
        tasks: whose labels are read.
        name: the split's name in the progress lines.

    Returns:
        Labels and ids of the images written; the rows of `images` beyond them are to be dropped.

    Raises:
        RunError: a damaged shard, or an image of another size than the dataset's.
    """
    split, start, stop = part
    found = Filled({task: [] for task in tasks})
    while start < stop and (room := images[len(found.ids) :][: stop - start]).size:
        found.extend(_fill(records, (split, start, start + len(room)), room, resizing, tasks, name))
        start += len(room)
    return found


def _fill(records: Records, part: Part, images: np.ndarray, resizing: str, tasks: Sequence[str], name: str) -> Filled:
    split, start, stop = part
    found = Filled({task: [] for task in tasks})
    work = _Work(records, images, resizing, tasks, records.parser(), records.names(split, start, stop), split, start)
    progress = Progress(f"{records.dataset.id}: {name}", len(images))
    kept: list[int] = []
    threads = torch.get_num_threads()
    written = 0
    # Each thread has an image of its own; threads of torch within an image would compete with them.
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(threads) as pool:
            try:
                for rows in _bounded(pool, work.batch, records.raw(split, start, stop), threads * AHEAD):
                    for row in rows:
                        if isinstance(row, SkippedFile):
                            found.skipped.append(row)
                            continue
                        position, identity, labels = row
                        kept.append(position)
                        found.ids.append(identity)
                        for task, label in zip(tasks, labels, strict=True):
                            found.labels[task].append(label)
                    written += len(rows) * images[:1].nbytes
                    if written >= RELEASE_BYTES:
                        _release(images)
                        written = 0
                    progress.add(len(rows))
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
    finally:
        torch.set_num_threads(threads)
    for target, origin in enumerate(kept):
        if target != origin:
            images[target] = images[origin]
            if target * images[:1].nbytes % RELEASE_BYTES < images[:1].nbytes:
                _release(images)
    progress.end()
    return found


@dataclass(frozen=True)
class _Work:
    """What the threads of `fill` do."""

    records: Records
    images: np.ndarray
    resizing: str
    tasks: Sequence[str]
    parse: Callable[[bytes], dict[str, Any]]
    name: Callable[[Mapping[str, Any], int], str]
    split: str
    start: int

    def batch(self, batch: Sequence[Row]) -> list[tuple[int, str, list[int]] | SkippedFile]:
        """For each example (row, id, classes), or a SkippedFile if its image does not decode."""
        return [self._one(row, data) for row, data in batch]

    def _one(self, row: int, data: bytes) -> tuple[int, str, list[int]] | SkippedFile:
        dataset = self.records.dataset
        try:
            example = self.parse(data)
            identity = self.name(example, self.start + row)
            labels = [class_of(dataset.tasks[task].label, example) for task in self.tasks]
        except Exception as error:  # not as the dataset's description says
            raise RunError(
                f"dataset {dataset.id}: record {self.start + row} of split {self.split} in {self.records.folder} is "
                f"damaged ({_first_line(error)}): {self.records.remedy}, then run again"
            ) from error
        try:
            pixels = self.records.decode(example[dataset.image])
        except BrokenImage as reason:
            return SkippedFile(f"{self.split}/{identity}", f"does not decode ({reason})")
        if dataset.scale != 1:
            pixels = pixels * np.uint8(dataset.scale)
        self._write(row, pixels, identity)
        return row, identity, labels

    def _write(self, row: int, pixels: np.ndarray, identity: str) -> None:
        native, target = self.records.dataset.native, self.images.shape[1:]
        if native is not None and pixels.shape != native:
            raise RunError(
                f"dataset {self.records.dataset.id}: {identity} has shape {pixels.shape} and all its images have "
                f"{native}: {self.records.remedy}, then run again"
            )
        if pixels.shape == target:
            self.images[row] = pixels
            return
        resized = resize(torch.from_numpy(pixels)[None], target[0], self.resizing)[0].numpy()
        # As in prepare/folders/source.py: rounded, a half up, within the 256 levels.
        self.images[row] = (resized + HALF).clip(0, 255) if self.images.dtype == np.uint8 else resized


def integer_keys(split: str, count: int) -> list[int]:
    """The keys 0..count-1 in TFDS' hash order: ascending MD5 of the split's name and the key (core/hashing.py)."""

    def digest(key: int) -> bytes:
        return hashlib.md5(f"{split}{key}".encode(), usedforsecurity=False).digest()

    return sorted(range(count), key=digest)


def _bounded(
    pool: ThreadPoolExecutor, work: Callable[[Sequence[Row]], Any], raw: Iterator[bytes], ahead: int
) -> Iterator[Any]:
    """`work` on batches of numbered records, results in order, at most `ahead` batches in flight."""
    waiting: deque[Future[Any]] = deque()
    numbered = enumerate(raw)
    while batch := list(islice(numbered, BATCH)):
        waiting.append(pool.submit(work, batch))
        if len(waiting) >= ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _release(images: np.ndarray) -> None:
    mapped = getattr(images, "_mmap", None)
    if mapped is not None and hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)  # of a shared map this releases pages and loses no data


def _array_records(path: Path, skip: int, take: int, total: int) -> Iterator[bytes]:
    from array_record.python.array_record_module import ArrayRecordReader

    reader = ArrayRecordReader(str(path), "readahead_buffer_size:4194304,max_parallelism:1")
    try:
        if reader.num_records() != total:
            raise ValueError(f"it holds {reader.num_records()} of {total} records")
        reader.seek(skip)
        for _ in range(take):
            yield reader.read()
    finally:
        reader.close()


def _tf_records(path: Path, skip: int, take: int, total: int) -> Iterator[bytes]:
    import tensorflow as tf

    yield from tf.data.TFRecordDataset(str(path), buffer_size=4 << 20).skip(skip).take(take).as_numpy_iterator()


def _format(path: Path) -> str:
    # The suffix is before or after the number of the shard: cifar100-train.array_record-00000-of-00001.
    return next((f".{part.split('-')[0]}" for part in reversed(path.name.split(".")[1:])), "")


def _builder(folder: Path, dataset: Dataset) -> Any:
    """TFDS' own builder of the records at `folder`. AssertionError where it does not know their version."""
    import tensorflow_datasets as tfds

    root = folder.parents[2 if dataset.config else 1]
    return tfds.builder_cls(dataset.builder)(data_dir=root, config=dataset.config, version=folder.name)


def _only_own_features(folder: Path, dataset: Dataset) -> None:
    """Refuse features outside TFDS: it imports whatever module features.json names, wherever the folder comes from."""
    path = folder / "features.json"

    def names(value: Any) -> Iterator[str]:
        if isinstance(value, dict):
            # Protobuf reads both spellings of a name.
            keys = ("pythonClassName", "python_class_name", "type")
            yield from (text for key in keys if isinstance(text := value.get(key), str))
            for inner in value.values():
                yield from names(inner)

    try:
        strange = [
            name for name in names(json.loads(path.read_text("utf-8"))) if not name.startswith("tensorflow_datasets.")
        ]
    except (OSError, ValueError) as error:
        raise UserError(
            f"dataset {dataset.id}: {path} cannot be read ({_first_line(error)}): copy it again, then run again"
        ) from error
    if strange:
        raise UserError(
            f"dataset {dataset.id}: {path} names {strange[0]}, which is not a feature of TFDS: use "
            f"records that you trust"
        )


def _first_line(error: BaseException) -> str:
    # TensorFlow's texts begin and end with the operation's name.
    text = re.sub(r"^\{\{.*\}\}|\[Op:\w+\]( name:)?", "", (str(error).strip().splitlines() or [""])[0]).strip(" .")
    return text[:200] or type(error).__name__
