"""What this project changes around TFDS while it generates records: order, memory and progress.

The builders stay as they are, and so do the records that they make; only their surroundings differ, and only inside the
block. Every change says why it is there.
"""

import gzip
import json
import os
import resource
import shutil
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import BoundedSemaphore
from types import SimpleNamespace
from typing import IO, Any
from unittest import mock
from zlib import decompressobj

import numpy as np

from vtabflow.prepare.tfds.datasets import Dataset
from vtabflow.prepare.tfds.records import Progress

# What TFDS holds in memory before it sorts records on the disk, 1 GiB as it comes. The order does not depend on it.
SHUFFLE_BYTES = 64 << 20
# On the disk TFDS sorts into 1,000 open files; a limit of 1,024, a common one, leaves the builder too few of its own.
OPEN_FILES = 4096
UNWRITTEN = 64  # files that are unpacked and not yet on the disk
ROWS = 4096  # of an array that is read piece by piece
PIECE = 1 << 20  # characters or bytes of a file that is


@contextmanager
def patched_tfds(dataset: Dataset, reading: list[str]) -> Iterator[None]:
    """Generate one dataset: folders sorted, memory bounded, progress in lines. Not for two threads at once.

    `reading` has the file that the builder is at, if it goes through them one by one: its name in an archive, or its
    whole path.
    """
    from tensorflow_datasets.core import dataset_builder, shuffle, utils
    from tensorflow_datasets.core.download import extractor
    from tensorflow_datasets.core.download.resource import ExtractMethod
    from tensorflow_datasets.core.utils import tqdm_utils

    def lines(items: Any, desc: str = "", unit: str = "", total: int | None = None, **_: Any) -> Iterator[Any]:
        # "Generating train examples...", then "Shuffling <path>...", and around them "Generating splits...".
        progress = Progress(f"{dataset.id}: {desc.split('/')[0].strip(' .').lower()}", total)
        for item in items:
            yield item
            if unit == " examples":
                progress.add(1)

    walk = extractor.iter_archive

    def named(path: Any, method: Any) -> Iterator[tuple[str, Any]]:
        for name, stream in walk(path, method):
            reading[:] = [name]
            yield name, stream
        reading.clear()

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    enough = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < enough:
        resource.setrlimit(resource.RLIMIT_NOFILE, (enough, hard))
    with ExitStack() as stack, _Unpacking(extractor._copy) as unpacking:
        patches = [
            *_sorted_folders(),
            (utils, "tqdm", lines),
            (tqdm_utils, "_active", False),
            (dataset_builder.DatasetBuilder, "_log_download_bytes", lambda _: None),
            (dataset_builder.DatasetBuilder, "_log_download_done", lambda _: None),
            (shuffle, "MAX_MEM_BUFFER_SIZE", SHUFFLE_BYTES),
            (extractor, "_copy", unpacking.copy),
            (extractor, "iter_archive", named),
            (extractor.get_extractor(), "_executor", unpacking),
            *(_lean_clevr() if dataset.id == "clevr" else []),
            *(_lean_dsprites() if dataset.id == "dsprites" else []),
            *(_lean_svhn() if dataset.id == "svhn" else []),
            *(_named_eyes(reading) if dataset.id == "diabetic-retinopathy" else []),
        ]
        for holder, name, value in patches:
            stack.enter_context(mock.patch.object(holder, name, value))
        stack.enter_context(mock.patch.dict(extractor._EXTRACT_METHODS, {ExtractMethod.GZIP: _whole_gzip}))
        yield


Patch = tuple[Any, str, Any]


def _sorted_folders() -> list[Patch]:
    """Caltech101's builder draws 30 files of a class with a fixed seed, but from a list in the file system's order."""
    import tensorflow as tf

    listdir, walk = tf.io.gfile.listdir, tf.io.gfile.walk

    def ordered(names: list[str]) -> list[str]:
        # Hidden files last: the builder takes the first entry of the archive for its one folder.
        return sorted(names, key=lambda name: (name.startswith("."), name))

    def sorted_walk(top: str, *args: Any, **kwargs: Any) -> Iterator[tuple[str, list[str], list[str]]]:
        for path, folders, files in sorted(walk(top, *args, **kwargs)):
            yield path, ordered(folders), ordered(files)

    return [(tf.io.gfile, "listdir", lambda path: ordered(listdir(path))), (tf.io.gfile, "walk", sorted_walk)]


def _named_eyes(reading: list[str]) -> list[Patch]:
    """Diabetic retinopathy's builder opens its pictures itself, and an undecodable one ends it without a name."""
    import tensorflow_datasets as tfds

    builder = tfds.builder_cls("diabetic_retinopathy_detection")
    process = builder._process_image

    def named(self: Any, path: str) -> Any:
        reading[:] = [os.path.abspath(path)]
        picture = process(self, path)
        reading.clear()
        return picture

    return [(builder, "_process_image", named)]


class _Unpacking(ThreadPoolExecutor):
    """TFDS' pool for unpacking, which would read an archive ahead of the disk without end.

    Few files wait to be written, and a .gz, which TFDS would hold whole (patch_camelyon: 7.2 GB), goes through in pieces.
    """

    def __init__(self, copy: Callable[[bytes, str], None]) -> None:
        # Each archive keeps a thread (patch_camelyon and smallnorb have six), and the files need some as well.
        super().__init__(max_workers=8 + 4 * (os.cpu_count() or 1))
        self._room = BoundedSemaphore(UNWRITTEN)
        self._copy = copy

    def copy(self, data: bytes | Path, target: str) -> None:
        if isinstance(data, bytes):
            self._copy(data, target)
            return
        with gzip.open(data) as source, open(target, "wb") as stream:
            shutil.copyfileobj(source, stream, PIECE)

    def submit(self, work: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        if work != self.copy:
            return super().submit(work, *args, **kwargs)
        self._room.acquire()
        future = super().submit(work, *args, **kwargs)
        future.add_done_callback(lambda _: self._room.release())
        return future


def _whole_gzip(path: Any) -> Iterator[tuple[str, SimpleNamespace]]:
    # In place of the content the file itself, for `copy`.
    yield "", SimpleNamespace(read=lambda: Path(path))


def _lean_clevr() -> list[Patch]:
    """CLEVR's 700,000 questions have programs that no record holds: parsed at once they would take many GB."""
    from tensorflow_datasets.datasets.clevr import clevr_dataset_builder as builder

    def needed(entry: dict[str, Any]) -> Any:
        if "question" in entry:
            # Ten questions have one file name, and there are 28 answers.
            short = {name: sys.intern(entry[name]) for name in ("image_filename", "answer") if name in entry}
            return {**short, "question": entry["question"]}
        if "objects" in entry:
            return {"objects": entry["objects"]}
        # The steps of a program; which object of a scene lies behind which.
        return None if "value_inputs" in entry or "behind" in entry else entry

    return [(builder, "json", SimpleNamespace(load=lambda stream: load_json(stream, needed)))]


def load_json(stream: IO[str], hook: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    """A JSON object read member by member, and its lists entry by entry: the text is never in memory as a whole.

    Args: hook as json.load's object_hook, for the objects inside. Raises json.JSONDecodeError.
    """
    text, found = _Text(stream, hook), {}
    text.take("{")
    while text.peek() != "}":
        name = text.value()
        text.take(":")
        found[name] = list(text.entries()) if text.peek() == "[" else text.value()
        if text.peek() != "}":
            text.take(",")
    return found


class _Text:
    """A stream of JSON and the place that is read next."""

    def __init__(self, stream: IO[str], hook: Callable[[dict[str, Any]], Any]) -> None:
        self.stream, self.text, self.at = stream, "", 0
        self.decoder = json.JSONDecoder(object_hook=hook)

    def peek(self) -> str:
        """The next sign that is not white space."""
        while not (sign := self.text[self.at : self.at + 1]).strip():
            if sign:
                self.at += 1
            elif not self._more():
                raise json.JSONDecodeError("the text ends too early", self.text, self.at)
        return sign

    def take(self, sign: str) -> None:
        if self.peek() != sign:
            raise json.JSONDecodeError(f"{sign} is missing", self.text, self.at)
        self.at += 1

    def value(self) -> Any:
        self.peek()
        while True:
            try:
                found, end = self.decoder.raw_decode(self.text, self.at)
            except json.JSONDecodeError:
                if not self._more():
                    raise
                continue
            if self.text[end : end + 1] in tuple(", ]}:\t\r\n"):
                self.at = end
                return found
            # A number that is cut off at the end of the text reads as a shorter one.
            if not self._more():
                raise json.JSONDecodeError("the text ends too early", self.text, self.at)

    def entries(self) -> Iterator[Any]:
        self.take("[")
        while self.peek() != "]":
            yield self.value()
            if self.peek() != "]":
                self.take(",")
        self.take("]")

    def _more(self) -> bool:
        added = self.stream.read(PIECE)
        self.text, self.at = self.text[self.at :] + added, 0
        return bool(added)


def _lean_dsprites() -> list[Patch]:
    """dSprites' builder reads all images at once, 3 GB of zeros and ones: kept as bits they are 0.4 GB."""
    from tensorflow_datasets.datasets.dsprites import dsprites_dataset_builder as builder

    class Numpy:
        def __getattr__(self, name: str) -> Any:
            return getattr(np, name)

        def array(self, values: Any) -> Any:
            return _Bits(values) if getattr(values, "name", "") == "/imgs" else np.array(values)

    return [(builder, "np", Numpy())]


class _Bits:
    """An array of zeros and ones, read piece by piece; iterating gives its rows as they were."""

    def __init__(self, values: Any) -> None:
        self.shape, self.dtype = values.shape[1:], values.dtype
        pieces = (np.asarray(values[start : start + ROWS]) for start in range(0, len(values), ROWS))
        self.rows = [self._packed(piece) for piece in pieces]

    def _packed(self, piece: np.ndarray) -> np.ndarray:
        if piece.max(initial=0) > 1:
            raise ValueError("the images hold other values than 0 and 1")
        return np.packbits(piece.reshape(len(piece), -1), axis=1)

    def __iter__(self) -> Iterator[np.ndarray]:
        size = int(np.prod(self.shape))
        for piece in self.rows:
            for row in piece:
                yield np.unpackbits(row, count=size).reshape(self.shape).astype(self.dtype)


def _lean_svhn() -> list[Patch]:
    """SVHN's builder loads a .mat at once, 1.6 GB of pixels for `extra`: its images are read one after the other."""
    import scipy.io
    from tensorflow_datasets.datasets.svhn_cropped import svhn_cropped_dataset_builder as builder

    loadmat = scipy.io.loadmat

    class Numpy:
        def __getattr__(self, name: str) -> Any:
            return getattr(np, name)

        def rollaxis(self, values: Any, axis: int) -> Any:
            return values if isinstance(values, MatImages) else np.rollaxis(values, axis)

    def lean(stream: Any) -> dict[str, Any]:
        return {**loadmat(stream, variable_names=["y"]), "X": MatImages(Path(stream.name), "X")}

    return [(scipy.io, "loadmat", lean), (builder, "np", Numpy())]


class MatImages:
    """A uint8 variable (H, W, C, N) of a MATLAB 5 file; iterating gives its N images (H, W, C), read as they are wanted.

    The format: MathWorks, "MAT-File Format", level 5. Raises ValueError where the file has no such variable.
    """

    COMPRESSED, MATRIX, UINT8 = 15, 14, 2  # types of elements

    def __init__(self, path: Path, name: str) -> None:
        self.path, self.name = path, name

    def __iter__(self) -> Iterator[np.ndarray]:
        with open(self.path, "rb") as stream:
            if stream.read(128)[126:] != b"IM":
                raise ValueError(f"{self.path.name} is no little-endian MATLAB 5 file")
            while tag := stream.read(8):
                kind, size = np.frombuffer(tag, "<u4").tolist()
                after = stream.tell() + size
                read = _inflated(stream) if kind == self.COMPRESSED else stream.read
                if kind == self.COMPRESSED:
                    kind = int(np.frombuffer(read(8), "<u4")[0])
                if kind == self.MATRIX and (shape := self._shape(read)):
                    yield from self._images(read, shape)
                    return
                stream.seek(after)
        raise ValueError(f"{self.path.name} has no variable {self.name}")

    def _shape(self, read: Callable[[int], bytes]) -> tuple[int, ...] | None:
        """The variable's shape, with `read` at its first number; None if it is another variable."""
        flags, shape, name = (self._element(read) for _ in range(3))
        if name[1].rstrip(b"\0") != self.name.encode():
            return None
        kind, size = np.frombuffer(read(8), "<u4").tolist()
        found = tuple(np.frombuffer(shape[1], "<i4").tolist())
        if kind != self.UINT8 or len(found) != 4 or size != np.prod(found) or flags[1][1] & 8:
            raise ValueError(f"{self.name} of {self.path.name} is not an array of four axes of uint8")
        return found

    @staticmethod
    def _element(read: Callable[[int], bytes]) -> tuple[int, bytes]:
        """Type and bytes of a small element; up to four bytes lie in the tag itself."""
        tag = read(8)
        kind, size = np.frombuffer(tag, "<u4").tolist()
        if kind >> 16:
            return kind & 0xFFFF, tag[4 : 4 + (kind >> 16)]
        return kind, read(-(-size // 8) * 8)[:size]

    @staticmethod
    def _images(read: Callable[[int], bytes], shape: tuple[int, ...]) -> Iterator[np.ndarray]:
        *one, count = shape
        size = int(np.prod(one))
        for _ in range(count):
            data = read(size)
            if len(data) != size:
                raise ValueError("the file ends too early")
            yield np.frombuffer(data, np.uint8).reshape(one, order="F")


def _inflated(stream: IO[bytes]) -> Callable[[int], bytes]:
    """`read` of what a zlib stream in a file unpacks to."""
    inflate, held = decompressobj(), bytearray()

    def read(size: int) -> bytes:
        while len(held) < size and not inflate.eof:
            data = inflate.unconsumed_tail or stream.read(PIECE)
            if not data:
                break
            held.extend(inflate.decompress(data, PIECE))
        found = bytes(held[:size])
        del held[:size]
        return found

    return read
