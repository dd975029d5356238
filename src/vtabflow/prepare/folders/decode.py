"""Decoding the images of a folder into the arrays of its store, with all threads, so that a killed job goes on.

Images are decoded side by side and written in order, so the arrays do not depend on the number of threads. Every few
seconds what is written is brought to the disk, and then a line about it to the list of what is done. The next job reads
the list and goes on after its last line.
"""

import json
import mmap
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vtabflow.contracts.results import Remark
from vtabflow.contracts.specs import FolderDecoding
from vtabflow.contracts.typed_json import to_json
from vtabflow.prepare import images as image_files
from vtabflow.prepare.folders.entry import File
from vtabflow.prepare.folders.tree import Tree
from vtabflow.prepare.images import Decoded, Unreadable
from vtabflow.prepare.store import HALF
from vtabflow.runtime import threads
from vtabflow.runtime.progress import Progress

LIST = "decoded.jsonl"
SECONDS = 5.0  # between two lines of the list: so much work is lost at most
# What is decoded side by side may have so many pixels, of 16 bytes each; a larger image is decoded alone.
PIXELS_AT_ONCE = 1 << 25
BLOCK_BYTES, BLOCK_IMAGES = 1 << 20, 32  # of the images that a thread decodes before it hands them over
DARK = 1 << 14  # a largest value of 16-bit images below this comes out as at most 63 of 255
AHEAD = 2  # blocks in flight per thread


@dataclass
class Filled:
    """What became of the files of a split, in their order.

    Attributes:
        files: how many have been decoded.
        skipped: position -> why it gives no image.
        cut: position -> why it gives a part of an image.
        deep: how many are grey with 16 bits.
        highest: the largest value of these.
    """

    files: int = 0
    skipped: dict[int, str] = field(default_factory=dict)
    cut: dict[int, str] = field(default_factory=dict)
    deep: int = 0
    highest: int = 0

    @classmethod
    def of(cls, data: dict[str, Any]) -> "Filled":
        """From JSON, in which positions are text."""
        positions = {name: {int(key): reason for key, reason in data[name].items()} for name in ("skipped", "cut")}
        return cls(**{**data, **positions})

    @property
    def images(self) -> int:
        """How many images were written."""
        return self.files - len(self.skipped)

    def add(self, found: Decoded | str) -> None:
        """Count one more file: its image, or why it gives none."""
        if isinstance(found, str):
            self.skipped[self.files] = found
        else:
            if found.cut:
                self.cut[self.files] = found.cut
            if found.highest is not None:
                self.deep += 1
                self.highest = max(self.highest, found.highest)
        self.files += 1


class DoneList:
    """The list of what is done in the hidden folder of a store.

    Args:
        folder: the hidden folder.
        work: a digest of all that the arrays depend on. A list of other work counts for nothing.
    """

    def __init__(self, folder: Path, work: str):
        self.path, self.work = folder / LIST, work
        self.filled: dict[str, Filled] = {}
        for line in read_list(folder, work):
            self.filled[line["split"]] = Filled.of(line["filled"])
        if not self.filled:
            self._write("w", {"work": work})

    def add(self, split: str, filled: Filled) -> None:
        """Note that `filled.images` images of a split are on the disk."""
        self._write("a", {"split": split, "filled": to_json(filled)})

    def _write(self, mode: str, line: dict[str, Any]) -> None:
        with open(self.path, mode, encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")
            stream.flush()
            os.fsync(stream.fileno())


def read_list(folder: Path, work: str) -> list[dict[str, Any]]:
    """The lines of a list of `work`, without a torn last one; none if there is no such list."""
    try:
        lines = (folder / LIST).read_text(encoding="utf-8").split("\n")[:-1]
        head, *found = [json.loads(line) for line in lines]
    except (OSError, ValueError):
        return []
    return found if head == {"work": work} else []


class Decoder:
    """Decodes the files of a tree.

    Args:
        tree: where they are read.
        shape: (H, W, C) of the images that are kept.
        dtype: uint8 (rounded) or float32.
        resizing: "legacy" or "antialias".
        decoding: how the files are read.
    """

    def __init__(self, tree: Tree, shape: tuple[int, int, int], dtype: str, resizing: str, decoding: FolderDecoding):
        self.tree, self.shape, self.dtype, self.resizing, self.decoding = tree, shape, dtype, resizing, decoding
        self.threads = threads.number()
        image_bytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
        self.block = max(1, min(BLOCK_IMAGES, BLOCK_BYTES // image_bytes))
        self.room = Room(PIXELS_AT_ONCE)

    def fill(self, files: Sequence[File], images: np.ndarray, done: DoneList, split: str, label: str) -> Filled:
        """Decode `files` in order until `images` (N, H, W, C) is full; `label` starts the lines about the progress."""
        filled = done.filled.get(split, Filled())
        if filled.files:
            print(f"{label}: {filled.images:,} images are there from a job that was stopped", flush=True)
        progress = Progress(label, len(images), done=filled.images)
        saved = time.monotonic()
        while filled.files < len(files) and (room := len(images) - filled.images):
            for block in self._decoded(files[filled.files :][:room]):
                for found in block:
                    if isinstance(found, Decoded):
                        images[filled.images] = found.pixels
                    filled.add(found)
                progress.add(len(block))
                if time.monotonic() - saved >= SECONDS:
                    _save(images)
                    done.add(split, filled)
                    saved = time.monotonic()
        _save(images)
        done.add(split, filled)
        progress.end()
        return filled

    def _decoded(self, files: Sequence[File]) -> Iterator[list[Decoded | str]]:
        """The images of `files` as they are kept, or why there is none, in blocks, in order."""
        blocks = [files[start : start + self.block] for start in range(0, len(files), self.block)]

        def work(block: Sequence[File]) -> list[Decoded | str]:
            return [self._one(file) for file in block]

        if any((file.height, file.width) != self.shape[:2] for file in files):
            import vtabflow.prepare.resize  # noqa: F401  (torch has to be there for `one_thread_each`)
        with ThreadPoolExecutor(self.threads) as pool, one_thread_each():
            try:
                yield from threads.in_order(pool, work, blocks, AHEAD * self.threads)
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise

    def _one(self, file: File) -> Decoded | str:
        try:
            with self.room.taken(file.height * file.width):
                found = read_image(self.tree, file, self.decoding)
                return Decoded(self._as_kept(found.pixels), found.highest, found.cut)
        except Unreadable as reason:
            return str(reason)

    def _as_kept(self, pixels: np.ndarray) -> np.ndarray:
        """`pixels` (H, W, C) with the size and channels of the store, rounded if its numbers are integers."""
        if pixels.shape[:2] != self.shape[:2]:
            import torch  # seconds to import, and not needed for images that keep their size

            from vtabflow.prepare.resize import resize

            pixels = resize(torch.from_numpy(pixels)[None], self.shape[0], self.resizing)[0].numpy()
            if self.dtype == "uint8":
                pixels = np.floor(pixels + HALF).clip(0, 255).astype(np.uint8)
        return np.broadcast_to(pixels, self.shape)


def remarks_of_files(
    filled: Mapping[str, Filled], files: Mapping[str, Sequence[File]], decoding: FolderDecoding
) -> list[Remark]:
    """What has to be known of the files of a folder: those that are cut off, and 16-bit ones that come out dark."""
    cut = sorted(files[split][position].entry.name for split in filled for position in filled[split].cut)
    found = []
    if cut:
        what = "1 image is cut off and taken as far as it goes"
        if len(cut) > 1:
            what = f"{len(cut):,} images are cut off and taken as far as they go"
        found.append(Remark("cut", len(cut), f"{what}, such as {cut[0]}", tuple(cut[:5])))
    deep = sum(each.deep for each in filled.values())
    highest = max(each.highest for each in filled.values())
    if deep and decoding.range is None and highest < DARK:
        bits = max(8, highest.bit_length())
        images = "1 image of 16 bits looks" if deep == 1 else f"{deep:,} images of 16 bits look"
        text = f"{images} black, with values up to {highest:,} of 65,535: set `range: [0, {2**bits - 1}]`"
        found.append(Remark("dark", deep, text))
    if deep and decoding.range is not None and highest > decoding.range[1]:
        text = f"values of 16-bit images up to {highest:,} lie above the range and come out white"
        found.append(Remark("above-range", deep, text))
    if not deep and decoding.range is not None:
        found.append(Remark("range", 0, "`range` changes nothing, since no image is grey with 16 bits"))
    return found


def read_image(tree: Tree, file: File, decoding: FolderDecoding) -> Decoded:
    """The image of a file. Whatever goes wrong while it is read makes it Unreadable."""
    try:
        with tree.open(file.entry.file) as stream:
            return image_files.decode(stream.read(), decoding)
    except (Unreadable, MemoryError):
        raise
    except OSError as error:
        raise Unreadable(f"cannot be read ({error.strerror or error})") from error
    except Exception as error:  # of zipfile and its decompressors: damaged, encrypted, an unknown method
        raise Unreadable(f"cannot be read ({error})") from error


@contextmanager
def one_thread_each() -> Iterator[None]:
    """Torch works in one thread within each of ours; more would compete."""
    import sys

    torch: Any = sys.modules.get("torch")
    if torch is None:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class Room:
    """Lets threads decode as long as their images have no more than `limit` pixels together, or one image alone."""

    def __init__(self, limit: int):
        self.limit, self.used, self.changed = limit, 0, threading.Condition()

    @contextmanager
    def taken(self, pixels: int) -> Iterator[None]:
        """Wait for room for so many pixels, and hold it in the block."""
        with self.changed:
            self.changed.wait_for(lambda: not self.used or self.used + pixels <= self.limit)
            self.used += pixels
        try:
            yield
        finally:
            with self.changed:
                self.used -= pixels
                self.changed.notify_all()


def _save(images: np.ndarray) -> None:
    """Bring what is written to the disk, and its pages out of this process's memory."""
    if isinstance(images, np.memmap):
        images.flush()
        mapped: Any = images._mmap  # type: ignore[attr-defined]
        if hasattr(mmap, "MADV_DONTNEED"):
            mapped.madvise(mmap.MADV_DONTNEED)  # of a shared map this releases pages and loses no data
