"""The store: the images, labels and example ids of one dataset at one image setting, with a manifest.

    <folder>/train.npy val.npy test.npy       uint8, or float32 on the same scale, (N, H, W, C), C 1 (grey) or 3
    <folder>/labels/<task>.<split>.npy        int64 (N,)
    <folder>/<split>.ids.txt                  one id per line, UTF-8
    <folder>/manifest.json                    counts, class histograms and the SHA-256 of every file above

A store is written to a hidden folder next to it and renamed when it is complete, so a folder with a manifest.json is
complete whatever was killed when. Several processes may write the same store: the first to finish wins.
"""

import dataclasses
import io
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import DTypeLike

from vtabflow.contracts.protocol import ROWS_1K
from vtabflow.contracts.results import Manifest, SkippedFile
from vtabflow.contracts.specs import StoreSpec
from vtabflow.contracts.typed_json import from_json, to_json
from vtabflow.errors import RunError, UserError
from vtabflow.prepare.hidden_folder import hidden_folder, move_into_place
from vtabflow.runtime.files import read_json, sha256, write_json

SPLITS = ("train", "val", "test")
# Resized values are rounded by floor(x + HALF): a half rounds up, also where another machine computes slightly less.
HALF = 0.5 + 2.0**-10


class SplitImages(Protocol):
    """What `StoreWriter.arrays` holds of a split: an array, or a writer of records (imagenet/packed_store.py)."""

    @property
    def shape(self) -> tuple[int | None, ...]:
        """(N, H, W, C)."""

    def __len__(self) -> int: ...


def rows_needed(spec: StoreSpec, split: str, count: int) -> int:
    """How many of a split's `count` examples the store holds: all, or the first ones, which the 1k budget reads."""
    return min(count, ROWS_1K.get(split, count)) if spec.rows == "1k" else count


def is_complete(folder: Path | str) -> bool:
    """Whether there is a complete store at `folder`: its manifest is written last."""
    return (Path(folder) / "manifest.json").is_file()


def write(
    spec: StoreSpec,
    arrays: Mapping[str, np.ndarray],
    labels: Mapping[str, Mapping[str, np.ndarray]],
    ids: Mapping[str, Sequence[str]],
    classes: Mapping[str, int],
    class_names: Mapping[str, Sequence[str]] | None = None,
    skipped: Sequence[SkippedFile] = (),
) -> Manifest:
    """Write a store from arrays in memory. A source that is too large for that uses `create_store`.

    Args:
        spec: the store.
        arrays: for each split the images, uint8 or float32 (N, H, W, C).
        labels: for each task and split the classes, int (N,) in 0..classes[task]-1.
        ids: for each split N different strings.
        classes: for each task the number of classes.
        class_names: for each task the name of each class, or None.
        skipped: the files that were left out.

    Raises:
        UserError: see `StoreWriter.finish`.
        RunError: see `create_store` and `StoreWriter.finish`.
    """
    with create_store(spec) as new:
        for split in SPLITS:
            images = np.asarray(arrays[split])
            if images.dtype not in (np.uint8, np.float32):
                raise _source_error(spec, f"the images of {split} are {images.dtype}, not uint8 or float32")
            new.images(split, images.shape, images.dtype)[...] = images
        return new.finish(labels, ids, classes, class_names, skipped)


@contextmanager
def create_store(spec: StoreSpec, goes_on: Callable[[Path], bool] | None = None) -> Iterator["StoreWriter"]:
    """A writer of the store at `spec.folder`, which appears only when `StoreWriter.finish` returns.

    Until then the files are in a hidden folder next to it. A block that ends without `finish` leaves nothing behind.

    Args:
        spec: the store.
        goes_on: see `hidden_folder`; the arrays of a folder that is taken over keep what they hold.

    Raises:
        RunError: no space or no permission; the message names the store.

    Example:
        with create_store(spec) as new:
            for split in SPLITS:
                new.images(split, (count, 224, 224, 3))[:] = pixels[split]
            new.finish(labels, ids, classes)
    """
    folder = Path(spec.folder)
    try:
        with hidden_folder(folder, goes_on) as temporary:
            yield StoreWriter(spec, temporary)
    except OSError as error:
        reason = f"{error.strerror or error}; free the disk or fix the permission, then run again"
        raise RunError(f"cannot write store {folder}: {reason}") from error


class StoreWriter:
    """The hidden folder of a store that is not finished; see `create_store`."""

    def __init__(self, spec: StoreSpec, folder: Path):
        self.spec = spec
        self.folder = folder
        self.arrays: dict[str, SplitImages] = {}

    def images(self, split: str, shape: Sequence[int], dtype: DTypeLike = np.uint8) -> np.ndarray:
        """A writable memory-mapped array of `shape` (N, H, W, C), uint8 or float32, to be filled in place."""
        if len(shape) != 4 or shape[3] not in (1, 3):
            raise _source_error(self.spec, f"images of shape {tuple(shape)} where a store holds (N, H, W, 1 or 3)")
        path = self.folder / f"{split}.npy"
        header, size = _header(shape, dtype), int(np.prod(shape)) * np.dtype(dtype).itemsize
        if _is_array(path, header, size):
            return self._open(split, shape, dtype)
        with open(path, "wb") as stream:
            stream.write(header)
            stream.flush()
            # Writing to a memory map on a full disk kills the process without a message: reserve the space now.
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(stream.fileno(), 0, len(header) + size)
            else:
                stream.truncate(len(header) + size)
        return self._open(split, shape, dtype)

    def keep(self, split: str, count: int) -> None:
        """Keep the first `count` images of a split and drop the rest: for sources that meet broken files on the way."""
        array = self.arrays[split]
        assert isinstance(array, np.ndarray)
        if count == len(array):
            return
        if isinstance(array, np.memmap):
            array.flush()
        path = self.folder / f"{split}.npy"
        shape = (count, *array.shape[1:])
        header = _header(shape, array.dtype)
        # numpy pads a header so that its first axis may grow to 21 digits in place (GROWTH_AXIS_MAX_DIGITS).
        if len(header) != len(_header(array.shape, array.dtype)):
            raise RunError(f"this numpy cannot shorten {path} in place: install numpy 2 or later, then run again")
        with open(path, "r+b") as stream:
            stream.write(header)
            stream.truncate(len(header) + int(np.prod(shape)) * array.dtype.itemsize)
        self._open(split, shape, array.dtype)

    def finish(
        self,
        labels: Mapping[str, Mapping[str, np.ndarray]],
        ids: Mapping[str, Sequence[str]],
        classes: Mapping[str, int],
        class_names: Mapping[str, Sequence[str]] | None = None,
        skipped: Sequence[SkippedFile] = (),
        **source_fields: Any,
    ) -> Manifest:
        """Write labels, ids and the manifest, and move the store into place.

        Args:
            labels: as in `write`.
            ids: as in `write`.
            classes: as in `write`.
            class_names: as in `write`.
            skipped: as in `write`.
            source_fields: the fields of `Manifest` that one source alone has, such as `form`.

        Returns:
            The manifest, or that of another process if it finished the same store first.

        Raises:
            UserError: the manifest at `spec.manifest` has other digests.
            RunError: labels or ids that do not fit the images.
        """
        (self.folder / "labels").mkdir()
        for split in SPLITS:
            array = self.arrays[split]
            if isinstance(array, np.memmap):
                array.flush()
            self._write_ids(split, list(ids[split]))
        spec = self.spec
        manifest = Manifest(
            dataset=spec.dataset,
            source=spec.source,
            settings=to_json(spec.settings),
            image=to_json(spec.image),
            rows=spec.rows,
            counts={split: len(self.arrays[split]) for split in SPLITS},
            shape={split: tuple(self.arrays[split].shape[1:]) for split in SPLITS},
            classes=dict(classes),
            class_names=None if class_names is None else {task: tuple(names) for task, names in class_names.items()},
            histogram={
                task: {split: self._write_labels(task, split, labels[task][split], count) for split in SPLITS}
                for task, count in classes.items()
            },
            sha256={},
            skipped=tuple(skipped),
            # Where the records are is a matter of this machine, and the manifest is shared.
            spec=to_json(dataclasses.replace(spec, places=None)),
            **source_fields,
        )
        self.arrays.clear()
        for path in sorted(path for path in self.folder.rglob("*") if path.is_file()):
            with open(path, "rb") as stream:
                os.fsync(stream.fileno())
            manifest.sha256[path.relative_to(self.folder).as_posix()] = sha256(path)
        _compare(spec, manifest)
        _write_manifest(self.folder / "manifest.json", manifest)
        move_into_place(self.folder, Path(spec.folder), is_complete)
        return keep_manifest(spec)

    def _open(self, split: str, shape: Sequence[int], dtype: DTypeLike) -> np.ndarray:
        # An array without elements cannot be mapped.
        path = self.folder / f"{split}.npy"
        array = np.lib.format.open_memmap(path, mode="r+") if np.prod(shape) else np.zeros(tuple(shape), dtype)
        self.arrays[split] = array
        return array

    def _write_ids(self, split: str, lines: list[str]) -> None:
        images, different = len(self.arrays[split]), len(set(lines))
        self._check(images == len(lines) == different, f"{images} images and {different} different ids in {split}")
        self._check(not any("\n" in line for line in lines), f"an id with a line break in {split}")
        (self.folder / f"{split}.ids.txt").write_bytes("".join(f"{line}\n" for line in lines).encode())

    def _write_labels(self, task: str, split: str, labels: np.ndarray, count: int) -> tuple[int, ...]:
        """Write the labels of a split and return the number of examples of each class."""
        values, images = np.asarray(labels).astype(np.int64).reshape(-1), len(self.arrays[split])
        self._check(len(values) == images, f"{images} images and {len(values)} labels of {task} in {split}")
        inside = not len(values) or (values.min() >= 0 and values.max() < count)
        self._check(bool(inside), f"labels of {task} outside 0..{count - 1} in {split}")
        np.save(self.folder / "labels" / f"{task}.{split}.npy", values)
        return tuple(np.bincount(values, minlength=count).tolist())

    def _check(self, good: bool, what: str) -> None:
        if not good:
            raise _source_error(self.spec, what)


def keep_manifest(spec: StoreSpec) -> Manifest:
    """Copy the manifest of a complete store to `spec.manifest`, or compare the store with the one that is there.

    Raises:
        UserError: the existing one (pulled by DVC, for example) has other digests.
    """
    manifest = open_store(spec.folder).manifest
    if not _compare(spec, manifest):
        _write_manifest(Path(spec.manifest), manifest)
    return manifest


def open_store(folder: Path | str) -> "Store":
    """The store at `folder`.

    Raises:
        UserError: there is none, or it is not complete.
    """
    if not is_complete(folder):
        raise UserError(f"there is no complete store at {folder}: run `vtabflow prepare` with its spec first")
    return Store(Path(folder), _read_manifest(Path(folder) / "manifest.json", f"remove {folder} and prepare it again"))


class Store:
    """A complete store. Files are read lazily, and each is compared with the manifest's SHA-256 when it is first used.

    A file that differs raises a UserError that names it.
    """

    def __init__(self, folder: Path, manifest: Manifest):
        self.folder = folder
        self.manifest = manifest
        self._checked: set[str] = set()

    def images(self, split: str) -> np.ndarray:
        """uint8 or float32 (N, H, W, C), memory-mapped, read-only."""
        path = self.file(f"{split}.npy")
        # An array without elements cannot be mapped.
        return np.load(path, mmap_mode="r" if self.manifest.counts[split] else None, allow_pickle=False)

    def labels(self, task: str, split: str) -> np.ndarray:
        """int64 (N,), classes of `task`."""
        return np.load(self.file(f"labels/{task}.{split}.npy"), allow_pickle=False)

    def ids(self, split: str) -> list[str]:
        """N names, one for each example."""
        return self.file(f"{split}.ids.txt").read_bytes().decode().split("\n")[:-1]

    def file(self, name: str) -> Path:
        """The path of a file of the store, which is compared with the manifest the first time."""
        path = self.folder / name
        expected = self.manifest.sha256.get(name)
        if expected is None:
            tasks = ", ".join(self.manifest.classes)
            raise UserError(f"store {self.folder} has no {name}: its tasks are {tasks}, its splits {', '.join(SPLITS)}")
        if name not in self._checked:
            try:
                reason = None if sha256(path) == expected else "does not match the manifest (its SHA-256 differs)"
            except OSError as error:
                reason = f"cannot be read ({error.strerror})"
            if reason:
                raise UserError(f"store {self.folder}: {name} {reason}: remove {self.folder} and prepare it again")
            self._checked.add(name)
        return path


def _header(shape: Sequence[int], dtype: DTypeLike) -> bytes:
    buffer = io.BytesIO()
    entries = {
        "descr": np.lib.format.dtype_to_descr(np.dtype(dtype)),
        "fortran_order": False,
        "shape": tuple(int(n) for n in shape),
    }
    np.lib.format.write_array_header_1_0(buffer, entries)
    return buffer.getvalue()


def _is_array(path: Path, header: bytes, size: int) -> bool:
    """Whether there is a whole array: that of a killed process whose work goes on."""
    try:
        with open(path, "rb") as stream:
            return stream.read(len(header)) == header and os.fstat(stream.fileno()).st_size == len(header) + size
    except FileNotFoundError:
        return False


def _write_manifest(path: Path, manifest: Manifest) -> None:
    """Write a manifest without the fields of other sources, which are None."""
    write_json(path, {k: v for k, v in to_json(manifest).items() if v is not None or k == "class_names"})


def _read_manifest(path: Path, remedy: str) -> Manifest:
    try:
        data = read_json(path)
    except ValueError as error:
        raise UserError(f"{path} is not the manifest of a store ({error}): {remedy}") from error
    return from_json(Manifest, data, str(path))


def _compare(spec: StoreSpec, manifest: Manifest) -> bool:
    """Whether there is a manifest at `spec.manifest`; UserError if its digests are not those of `manifest`."""
    path = Path(spec.manifest)
    if not path.exists():
        return False
    expected = _content(_read_manifest(path, "get it again with `dvc pull`, or remove it, then prepare again"))
    found = _content(manifest)
    names = sorted(name for name in {*expected, *found} if expected.get(name) != found.get(name))
    if names:
        more = f" and {len(names) - 1} more" if names[1:] else ""
        raise UserError(
            f"store {spec.folder} does not match its manifest {path} ({names[0]}{more}): use the images that the "
            f"manifest was made from (and the same version of Pillow), or remove {path} to go on with the present ones"
        )
    return True


def _content(manifest: Manifest) -> dict[str, str]:
    """The digests that identify a store. The ids of a folder are file names, which may change: they are left out."""
    folder = manifest.source == "folder"
    return {name: value for name, value in manifest.sha256.items() if not (folder and name.endswith(".ids.txt"))}


def _source_error(spec: StoreSpec, what: str) -> RunError:
    return RunError(f"store {spec.folder}: {what}; fix the source {spec.source}, then run again")
