"""What is changed in TFDS while it generates records: order of folders, memory and progress lines.

The builders are not modified, and neither are the records. Every change gives its reason. Several builders load whole
files: with them the prepare step would need 4 GB for dSprites and 3 GB for SVHN, and it is to stay under 2 GB whatever
the dataset's size.
"""

import gzip
import os
import resource
import shutil
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import BoundedSemaphore
from types import SimpleNamespace
from typing import IO, Any
from zlib import decompressobj

import numpy as np

from vtabflow.prepare.tfds.datasets import Dataset
from vtabflow.runtime.progress import Progress

# The size from which TFDS sorts records on the disk and not in memory, 1 GiB by default. The order is the same.
SHUFFLE_BYTES = 64 << 20
# On the disk TFDS sorts into 1,000 open files; with a limit of 1,024, a common one, the builder has too few.
OPEN_FILES = 4096
UNWRITTEN = 64  # files that are unpacked and not yet on the disk
ROWS = 4096  # of an array that are read at once
PIECE = 1 << 20  # bytes of a file that are read at once

Patch = tuple[Any, str, Any]  # object, attribute, value


@contextmanager
def patched_tfds(dataset: Dataset, reading: list[str], described: Callable[[Path], None]) -> Iterator[None]:
    """Change TFDS for the generation of one dataset. Not for two threads at once.

    Args:
        dataset: which builders are changed further.
        reading: gets the file that the builder is reading, its name in an archive or its absolute path.
        described: called with the folder of the records when its dataset_info.json is there, before it gets its name.
    """
    from tensorflow_datasets.core import dataset_builder, dataset_info, shuffle, utils
    from tensorflow_datasets.core.download import extractor
    from tensorflow_datasets.core.download.resource import ExtractMethod
    from tensorflow_datasets.core.utils import tqdm_utils

    def lines(items: Any, desc: str = "", unit: str = "", total: int | None = None, **_: Any) -> Iterator[Any]:
        # "Generating train examples...", then "Shuffling <path>...", and around them "Generating splits...".
        progress = Progress(f"{dataset.id}: {desc.split('/')[0].strip(' .').lower()}", total, "examples")
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

    describe = dataset_info.DatasetInfo.write_to_directory

    def describe_and_note(info: Any, folder: Any, *args: Any, **options: Any) -> None:
        describe(info, folder, *args, **options)
        described(Path(folder))

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    enough = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < enough:
        resource.setrlimit(resource.RLIMIT_NOFILE, (enough, hard))
    with _Unpacking(extractor._copy) as unpacking:
        methods = {**extractor._EXTRACT_METHODS, ExtractMethod.GZIP: _whole_gzip}
        patches = [
            (extractor, "_EXTRACT_METHODS", methods),
            *_sorted_folders(),
            (utils, "tqdm", lines),
            (tqdm_utils, "_active", False),
            (dataset_builder.DatasetBuilder, "_log_download_bytes", lambda _: None),
            (dataset_builder.DatasetBuilder, "_log_download_done", lambda _: None),
            (dataset_info.DatasetInfo, "write_to_directory", describe_and_note),
            (shuffle, "MAX_MEM_BUFFER_SIZE", SHUFFLE_BYTES),
            (extractor, "_copy", unpacking.copy),
            (extractor, "iter_archive", named),
            (extractor.get_extractor(), "_executor", unpacking),
            *(_stream_clevr() if dataset.builder == "clevr" else []),
            *(_stream_dsprites() if dataset.builder == "dsprites" else []),
            *(_stream_svhn() if dataset.builder == "svhn_cropped" else []),
            *(_note_retinopathy_files(reading) if dataset.builder == "diabetic_retinopathy_detection" else []),
        ]
        with _attributes(patches):
            yield


@contextmanager
def _attributes(patches: list[Patch]) -> Iterator[None]:
    """Set attributes of modules, classes and objects in the block."""
    missing = object()
    before = [(holder, name, vars(holder).get(name, missing)) for holder, name, _ in patches]
    try:
        for holder, name, value in patches:
            setattr(holder, name, value)
        yield
    finally:
        for holder, name, value in reversed(before):
            if value is missing:
                delattr(holder, name)
            else:
                setattr(holder, name, value)


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


def _note_retinopathy_files(reading: list[str]) -> list[Patch]:
    """Diabetic retinopathy's builder opens its images itself, and its error for a broken one does not name it."""
    import tensorflow_datasets as tfds

    builder = tfds.builder_cls("diabetic_retinopathy_detection")
    process = builder._process_image

    def named(self: Any, path: str) -> Any:
        reading[:] = [os.path.abspath(path)]
        image = process(self, path)
        reading.clear()
        return image

    return [(builder, "_process_image", named)]


class _Unpacking(ThreadPoolExecutor):
    """TFDS' pool for unpacking, with a bound on the files that wait to be written.

    A .gz, which TFDS would read at once (patch_camelyon: 7.2 GB), is unpacked in pieces.
    """

    def __init__(self, copy: Callable[[bytes, str], None]) -> None:
        # Each archive occupies a thread (patch_camelyon and smallnorb have six), and the files need some as well.
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
    # `copy` gets the file in place of its content.
    yield "", SimpleNamespace(read=lambda: Path(path))


def _stream_clevr() -> list[Patch]:
    """Read CLEVR's JSON entry by entry; its 700,000 questions have programs that are in no record and take many GB."""
    from tensorflow_datasets.datasets.clevr import clevr_dataset_builder as builder

    return [(builder, "json", SimpleNamespace(load=load_clevr))]


def load_clevr(stream: IO[str]) -> dict[str, list[dict[str, Any]]]:
    """What the builder uses of a file of questions or scenes, in place of json.load."""
    import ijson

    kind = "questions" if "questions" in Path(stream.name).name else "scenes"
    interned = ("image_filename", "answer")  # ten questions have one file name, and there are 28 answers
    found = []
    for entry in ijson.items(stream.buffer, f"{kind}.item", use_float=True):  # type: ignore[attr-defined]
        strings = {name: sys.intern(entry[name]) for name in interned if name in entry}
        found.append({"objects": entry["objects"]} if kind == "scenes" else {**strings, "question": entry["question"]})
    if not found:
        raise ValueError(f"{stream.name} has no {kind}")
    return {kind: found}


def _stream_dsprites() -> list[Patch]:
    """Read dSprites' images as they are used; its builder reads all of them at once, 3 GB."""
    from tensorflow_datasets.datasets.dsprites import dsprites_dataset_builder as builder

    def array(values: Any) -> Any:
        return _binary_rows(values.file.filename, values.name) if values.name == "/imgs" else np.array(values)

    return [(builder, "np", _Numpy(array=array))]


def _binary_rows(path: str, name: str) -> Iterator[np.ndarray]:
    """The rows of an array of zeros and ones in an HDF5 file; ValueError for other values."""
    import h5py

    with h5py.File(path, "r") as file:
        values = file[name]
        for start in range(0, len(values), ROWS):
            rows = values[start : start + ROWS]
            if rows.max() > 1:  # times 255 in uint8 it would be another image without an error
                raise ValueError("the images have other values than 0 and 1")
            yield from rows


def _stream_svhn() -> list[Patch]:
    """Read SVHN's images as they are used; its builder loads a .mat at once, 1.6 GB of pixels for `extra`."""
    import scipy.io
    from tensorflow_datasets.datasets.svhn_cropped import svhn_cropped_dataset_builder as builder

    loadmat = scipy.io.loadmat

    def load(stream: Any) -> dict[str, Any]:
        return {**loadmat(stream, variable_names=["y"]), "X": mat_images(Path(stream.name), "X")}

    # The builder moves the last axis to the front, as `mat_images` has it.
    return [(scipy.io, "loadmat", load), (builder, "np", _Numpy(rollaxis=lambda values, axis: values))]


class _Numpy:
    """numpy for a builder, with some of its functions replaced."""

    def __init__(self, **replaced: Callable[..., Any]) -> None:
        vars(self).update(replaced)

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)


def mat_images(path: Path, name: str) -> Iterator[np.ndarray]:
    """The N images (H, W, C) of a uint8 variable (H, W, C, N) of a MATLAB 5 file, compressed or not, one at a time.

    The format: MathWorks, "MAT-File Format", level 5. A file has 128 bytes of header, then one element per variable:
    its type and size (4 bytes each) and its content. scipy.io is not used, also not for the shape: of a compressed
    variable it unpacks without a bound (213 MB at the peak for 98 MB of equal pixels).

    Raises:
        ValueError: there is no such variable, it is no array of four axes of uint8, or the file is truncated.
    """
    compressed, matrix = 15, 14  # types of elements
    with open(path, "rb") as stream:
        if stream.read(128)[126:] != b"IM":
            raise ValueError(f"{path.name} is not a little-endian MATLAB 5 file")
        while tag := stream.read(8):
            kind, size = np.frombuffer(tag, "<u4").tolist()
            end = stream.tell() + size
            read = _inflated(stream) if kind == compressed else stream.read
            if kind == compressed:
                kind = int(np.frombuffer(read(8), "<u4")[0])
            if kind == matrix and (shape := _mat_shape(read, name, path)):
                *one, count = shape
                pixels = int(np.prod(one))
                for _ in range(count):
                    data = read(pixels)
                    if len(data) != pixels:
                        raise ValueError("the file ends too early")
                    yield np.frombuffer(data, np.uint8).reshape(one, order="F")
                return
            stream.seek(end)
    raise ValueError(f"{path.name} has no variable {name}")


def _mat_shape(read: Callable[[int], bytes], name: str, path: Path) -> tuple[int, ...] | None:
    """The shape of a variable, with `read` left at its first number; None if it has another name."""
    flags, shape, found = (_mat_element(read) for _ in range(3))
    if found.rstrip(b"\0") != name.encode():
        return None
    uint8, complex_flag = 2, 8
    kind, size = np.frombuffer(read(8), "<u4").tolist()
    axes = tuple(np.frombuffer(shape, "<i4").tolist())
    if kind != uint8 or len(axes) != 4 or size != np.prod(axes) or flags[1] & complex_flag:
        raise ValueError(f"{name} of {path.name} is not an array of four axes of uint8")
    return axes


def _mat_element(read: Callable[[int], bytes]) -> bytes:
    """The content of a small element; up to four bytes of content are in the tag itself."""
    tag = read(8)
    kind, size = np.frombuffer(tag, "<u4").tolist()
    if kind >> 16:
        return tag[4 : 4 + (kind >> 16)]
    return read(-(-size // 8) * 8)[:size]


def _inflated(stream: IO[bytes]) -> Callable[[int], bytes]:
    """`read` of what a zlib stream in a file unpacks to."""
    inflate, buffer = decompressobj(), bytearray()

    def read(size: int) -> bytes:
        while len(buffer) < size and not inflate.eof:
            data = inflate.unconsumed_tail or stream.read(PIECE)
            if not data:
                break
            buffer.extend(inflate.decompress(data, PIECE))
        found = bytes(buffer[:size])
        del buffer[:size]
        return found

    return read
