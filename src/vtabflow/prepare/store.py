"""The store: the images, labels and example ids of one dataset at one image setting, with a manifest.

    <folder>/train.npy val.npy test.npy       uint8, or float32 on the same scale, (N, H, W, C), C 1 (grey) or 3
    <folder>/labels/<task>.<split>.npy        int64 (N,)
    <folder>/<split>.ids.txt                  one id a line, UTF-8
    <folder>/manifest.json                    counts, class histograms and the SHA-256 of every file above

A store is made in a hidden sibling folder that is renamed into place when it is whole, so a folder with a manifest.json
is complete whatever was killed when. Several makers of one store do not harm each other: the first to finish wins.
"""

import fcntl
import io
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from vtabflow.errors import RunError, UserError
from vtabflow.runtime.files import read_json, sha256, try_lock, write_json

SPLITS = ("train", "val", "test")
# VTAB-1k trains on the first 800 examples of train and the first 200 of val (protocol.md section 1.2).
ROWS_1K = {"train": 800, "val": 200}
# What resized images are rounded by: a half between two levels goes up, also where another machine's resize is a hair lower.
HALF = 0.5 + 2.0**-10


def rows_wanted(spec: Mapping[str, Any], split: str, count: int) -> int:
    """How many of a split's `count` examples the spec asks for: all, or the prefix that the 1k budget reads."""
    return min(count, ROWS_1K.get(split, count)) if spec["rows"] == "1k" else count


def is_complete(folder: Path | str) -> bool:
    """Whether a whole store lies at `folder`: its manifest is written last."""
    return (Path(folder) / "manifest.json").is_file()


def write(
    spec: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray],
    labels: Mapping[str, Mapping[str, np.ndarray]],
    ids: Mapping[str, Sequence[str]],
    classes: Mapping[str, int],
    class_names: Mapping[str, Sequence[str]] | None = None,
    skipped: Sequence[Mapping[str, str]] = (),
) -> dict[str, Any]:
    """Write a store from arrays that are in memory; a source that is too large for that uses `create_store`.

    Args: arrays[split] uint8 (N, H, W, C); labels[task][split] int (N,) in 0..classes[task]-1; ids[split] N strings;
    class_names[task] the name of each class, or None; skipped {"file", "reason"} of each file left out.
    Returns the manifest. Raises what `create_store` and `StoreWriter.finish` raise.
    """
    with create_store(spec) as new:
        for split in SPLITS:
            images = np.asarray(arrays[split])
            if images.dtype not in (np.uint8, np.float32):
                raise _misfit(spec, f"the images of {split} are {images.dtype}, not uint8 or float32")
            new.images(split, images.shape, images.dtype)[...] = images
        return new.finish(labels, ids, classes, class_names, skipped)


@contextmanager
def create_store(spec: Mapping[str, Any]) -> Iterator["StoreWriter"]:
    """A store being made, in a hidden folder beside spec["folder"]; without `finish` the block leaves nothing behind.

    Use: `with create_store(spec) as new:` fill `new.images(split, shape)` in place for each split, then `new.finish(...)`.
    Raises RunError (no space, no permission) as a sentence that names the store.
    """
    folder = Path(spec["folder"])
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _sweep(folder)
        temporary, lock = _new_folder(folder)
    except OSError as error:
        raise _explained(folder, error) from error
    try:
        yield StoreWriter(spec, temporary)
    except OSError as error:
        raise _explained(folder, error) from error
    finally:
        # After a good end the folder has its real name and there is nothing to remove.
        shutil.rmtree(temporary, ignore_errors=True)
        os.close(lock)


class StoreWriter:
    """The hidden folder of a store that is not finished; see `create_store`."""

    def __init__(self, spec: Mapping[str, Any], folder: Path):
        self.spec = spec
        self.folder = folder
        self.arrays: dict[
            str, Any
        ] = {}  # arrays, or what stands for one (prepare/imagenet/packed_store.py): a length and a shape

    def images(self, split: str, shape: Sequence[int], dtype: DTypeLike = np.uint8) -> np.ndarray:
        """A writable array of `shape` (N, H, W, C), uint8 or float32, that lies on the disk: fill it in place."""
        if len(shape) != 4 or shape[3] not in (1, 3):
            raise _misfit(self.spec, f"images of shape {tuple(shape)} where a store holds (N, H, W, 1 or 3)")
        path = self.folder / f"{split}.npy"
        header, size = _header(shape, dtype), int(np.prod(shape)) * np.dtype(dtype).itemsize
        with open(path, "wb") as stream:
            stream.write(header)
            stream.flush()
            # A page of a memory map that the disk has no room for kills the process without a word: take the room now.
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(stream.fileno(), 0, len(header) + size)
            else:
                stream.truncate(len(header) + size)
        return self._open(split, shape, dtype)

    def keep(self, split: str, count: int) -> np.ndarray:
        """Keep the first `count` images of a split and drop the rest: for sources that meet broken files on the way."""
        whole = self.arrays[split]
        if count == len(whole):
            return whole
        if isinstance(whole, np.memmap):
            whole.flush()
        path = self.folder / f"{split}.npy"
        shape = (count, *whole.shape[1:])
        header = _header(shape, whole.dtype)
        # numpy pads a header so that its first axis may grow to 21 digits in place (GROWTH_AXIS_MAX_DIGITS).
        if len(header) != len(_header(whole.shape, whole.dtype)):
            raise RunError(f"this numpy cannot shorten {path} in place: install numpy 2 or later, then run again")
        with open(path, "r+b") as stream:
            stream.write(header)
            stream.truncate(len(header) + int(np.prod(shape)) * whole.dtype.itemsize)
        return self._open(split, shape, whole.dtype)

    def finish(
        self,
        labels: Mapping[str, Mapping[str, np.ndarray]],
        ids: Mapping[str, Sequence[str]],
        classes: Mapping[str, int],
        class_names: Mapping[str, Sequence[str]] | None = None,
        skipped: Sequence[Mapping[str, str]] = (),
        more: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Write labels, ids and the manifest, hold it against spec["manifest"], and put the store in its place.

        Arguments as in `write`; `more` has the source's own entries for the manifest. Returns the manifest (that of the
        other maker if one was quicker).
        Raises UserError if the manifest at spec["manifest"] has other digests, RunError if labels or ids do not fit.
        """
        histogram: dict[str, dict[str, list[int]]] = {}
        (self.folder / "labels").mkdir()
        for split in SPLITS:
            array = self.arrays[split]
            if isinstance(array, np.memmap):
                array.flush()
            self._write_ids(split, list(ids[split]))
            for task, count in classes.items():
                values = np.asarray(labels[task][split]).astype(np.int64).reshape(-1)
                self._check(
                    len(values) == len(array), f"{len(array)} images and {len(values)} labels of {task} in {split}"
                )
                inside = not len(values) or (values.min() >= 0 and values.max() < count)
                self._check(inside, f"labels of {task} outside 0..{count - 1} in {split}")
                np.save(self.folder / "labels" / f"{task}.{split}.npy", values)
                histogram.setdefault(task, {})[split] = np.bincount(values, minlength=count).tolist()
        spec = self.spec
        manifest = {
            **{name: spec[name] for name in ("dataset", "source", "settings", "image", "rows")},
            "counts": {split: len(self.arrays[split]) for split in SPLITS},
            "shape": {split: list(self.arrays[split].shape[1:]) for split in SPLITS},
            "classes": dict(classes),
            "class_names": None if class_names is None else {task: list(names) for task, names in class_names.items()},
            "histogram": histogram,
            "sha256": {},
            "skipped": [dict(entry) for entry in skipped],
            **(more or {}),
            # Where the records lay is this machine's affair; the manifest goes to others.
            "spec": {name: value for name, value in spec.items() if name != "places"},
        }
        self.arrays.clear()
        for path in sorted(path for path in self.folder.rglob("*") if path.is_file()):
            with open(path, "rb") as stream:
                os.fsync(stream.fileno())
            manifest["sha256"][path.relative_to(self.folder).as_posix()] = sha256(path)
        _compare(spec, manifest)
        write_json(self.folder / "manifest.json", manifest)
        manifest = _into_place(self.folder, Path(spec["folder"])) or manifest
        keep_manifest(spec)
        return manifest

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

    def _check(self, good: bool, what: str) -> None:
        if not good:
            raise _misfit(self.spec, what)


def keep_manifest(spec: Mapping[str, Any]) -> None:
    """Put the copy of a complete store's manifest at spec["manifest"], or hold the store against the one that is there.

    Raises UserError if that one (pulled by DVC, say) has other digests.
    """
    manifest = open_store(spec["folder"]).manifest
    if not _compare(spec, manifest):
        write_json(spec["manifest"], manifest)


def open_store(folder: Path | str) -> "Store":
    """The store at `folder`. Raises UserError if there is none, or none that is whole."""
    if not is_complete(folder):
        raise UserError(f"there is no complete store at {folder}: run `vtabflow prepare` with its spec first")
    try:
        return Store(Path(folder), read_json(Path(folder) / "manifest.json"))
    except ValueError as error:
        raise UserError(f"{folder}/manifest.json is not readable ({error}): {_again(folder)}") from error


class Store:
    """A complete store, read lazily: nothing of a split is read before it is asked for.

    Each file is held against the manifest's SHA-256 when it is first used; a UserError names one that differs.
    """

    def __init__(self, folder: Path, manifest: dict[str, Any]):
        self.folder = folder
        self.manifest = manifest
        self._checked: set[str] = set()

    def images(self, split: str) -> np.ndarray:
        """uint8 or float32 (N, H, W, C), memory-mapped, read-only."""
        path = self.file(f"{split}.npy")
        # An array without elements cannot be mapped.
        return np.load(path, mmap_mode="r" if self.manifest["counts"][split] else None, allow_pickle=False)

    def labels(self, task: str, split: str) -> np.ndarray:
        """int64 (N,), classes of `task`."""
        return np.load(self.file(f"labels/{task}.{split}.npy"), allow_pickle=False)

    def ids(self, split: str) -> list[str]:
        """N names, one an example."""
        return self.file(f"{split}.ids.txt").read_bytes().decode().split("\n")[:-1]

    def file(self, name: str) -> Path:
        """A file of the store, held against the manifest when it is first asked for."""
        path = self.folder / name
        wanted = self.manifest["sha256"].get(name)
        if wanted is None:
            tasks = ", ".join(self.manifest["classes"])
            raise UserError(f"store {self.folder} has no {name}: its tasks are {tasks}, its splits {', '.join(SPLITS)}")
        if name not in self._checked:
            try:
                reason = None if sha256(path) == wanted else "is not what the manifest says (its SHA-256 differs)"
            except OSError as error:
                reason = f"cannot be read ({error.strerror})"
            if reason:
                raise UserError(f"store {self.folder}: {name} {reason}: {_again(self.folder)}")
            self._checked.add(name)
        return path


def _again(folder: Path | str) -> str:
    return f"remove {folder} and prepare it again"


def _header(shape: Sequence[int], dtype: DTypeLike) -> bytes:
    buffer = io.BytesIO()
    entries = {
        "descr": np.lib.format.dtype_to_descr(np.dtype(dtype)),
        "fortran_order": False,
        "shape": tuple(int(n) for n in shape),
    }
    np.lib.format.write_array_header_1_0(buffer, entries)
    return buffer.getvalue()


def _compare(spec: Mapping[str, Any], manifest: Mapping[str, Any]) -> bool:
    """Whether spec["manifest"] exists; UserError if it does and its digests are not those of `manifest`."""
    path = Path(spec["manifest"])
    if not path.exists():
        return False
    try:
        wanted = _content(read_json(path))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        what = f"{path} is not the manifest of a store"
        raise UserError(f"{what}: bring it again with `dvc pull`, or remove it, then prepare again") from error
    found = _content(manifest)
    names = sorted(name for name in {*wanted, *found} if wanted.get(name) != found.get(name))
    if names:
        more = f" and {len(names) - 1} more" if names[1:] else ""
        raise UserError(
            f"store {spec['folder']} does not match its manifest {path} ({names[0]}{more}): bring the images that the "
            f"manifest was made from (and the same version of Pillow), or remove {path} to go on with what is here"
        )
    return True


def _content(manifest: Mapping[str, Any]) -> dict[str, str]:
    """The digests that make a store the same. A folder's ids are file names, and those are free: they are left out."""
    named = manifest["source"] == "folder"
    return {name: value for name, value in manifest["sha256"].items() if not (named and name.endswith(".ids.txt"))}


def _into_place(temporary: Path, folder: Path) -> dict[str, Any] | None:
    """Rename a whole store to its name; if another maker was quicker, return the manifest of theirs."""
    for _ in range(10):
        if is_complete(folder):
            return open_store(folder).manifest
        try:
            os.rename(temporary, folder)
            return None
        except OSError:
            if not folder.exists():
                raise
        # A folder without a manifest is the remains of something: out of the way, unless it was completed this moment.
        remains = Path(tempfile.mkdtemp(dir=folder.parent, prefix=_prefix(folder)))
        with suppress(FileNotFoundError):
            os.rename(folder, remains / "remains")
            if is_complete(remains / "remains") and not folder.exists():
                os.rename(remains / "remains", folder)
        shutil.rmtree(remains, ignore_errors=True)
    raise RunError(f"cannot put a store at {folder}: something else keeps writing there; stop it, then run again")


def _prefix(folder: Path) -> str:
    # With the host's name: on some shared file systems a lock is seen on its own host alone.
    return f".{folder.name}.{socket.gethostname()}."


def _new_folder(folder: Path) -> tuple[Path, int]:
    """A new hidden sibling of `folder` and a descriptor that holds its lock for as long as this process lives."""
    while True:
        temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=_prefix(folder)))
        # mkdtemp makes folders private; results are as open as the user's umask says.
        umask = os.umask(0)
        os.umask(umask)
        try:
            os.chmod(temporary, 0o777 & ~umask)
            lock = os.open(temporary, os.O_RDONLY)
        except FileNotFoundError:
            continue  # swept by another maker between the two lines
        with suppress(OSError):  # a file system without locks: then nothing is swept there either
            fcntl.flock(lock, fcntl.LOCK_EX)
        if temporary.exists():
            return temporary, lock
        os.close(lock)


def _sweep(folder: Path) -> None:
    """Remove what killed makers of this store left: hidden siblings whose lock nobody holds."""
    for old in folder.parent.glob(f"{_prefix(folder)}*"):
        with try_lock(old) as free:
            if free:
                shutil.rmtree(old, ignore_errors=True)


def _explained(folder: Path, error: OSError) -> RunError:
    reason = error.strerror or error
    return RunError(f"cannot write store {folder}: {reason}; free the disk or mend the permission, then run again")


def _misfit(spec: Mapping[str, Any], what: str) -> RunError:
    return RunError(f"store {spec['folder']}: {what}; mend the source {spec['source']}, then run again")
