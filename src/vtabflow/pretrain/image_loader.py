"""The images of a packed store (prepare/imagenet/packed_store.py), decoded when they are asked for.

Pixels are RGB: grey is repeated, transparency dropped, CMYK converted; a file's EXIF orientation is ignored. TensorFlow
does the same, except that its faster inverse transform is off by one level on average. Of the CPU's decoders
torchvision's took 1.04 ms for an image of 500 x 375, Pillow's 1.21 ms; their pixels are equal. Scaled
decoding gives other pixels.
"""

import io
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from functools import cache, lru_cache
from itertools import chain, zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vtabflow.errors import RunError, UserError
from vtabflow.prepare.imagenet.packed_store import FORMATS, file_name, is_packed
from vtabflow.prepare.resize import interpolation_indices, lerp
from vtabflow.prepare.store import HALF
from vtabflow.runtime.files import read_json, write_json
from vtabflow.runtime.locks import locked
from vtabflow.runtime.progress import gigabytes

if TYPE_CHECKING:
    from vtabflow.prepare.store import Store

JPEG = b"\xff\xd8\xff"
# Rows that a GPU decodes at a time, and that it resizes at a time: the corners of 32 images of 256 x 256 are 0.2 GB.
DEVICE_ROWS, RESIZED_ROWS = 128, 32
# Which files were compared with their manifest, with the size and times that they had.
VERIFIED = Path("scratch/verified.json")
MTIME_GRANULARITY_NS = 2_000_000_000  # a younger file may change again without a new time
ANNOUNCED_BYTES = 10**9  # larger files take a while to read


def open_images(store: "Store", split: str, size: int | None) -> Any:
    """The images of a split of any store: indexing it gives uint8 (n, H, W, C), whatever the store's form.

    Args:
        store: an open store.
        split: train, val or test.
        size: the side to which images of a packed store are resized; the images of others have the size of their store.
    """
    if not is_packed(store):
        return store.images(split)
    if size is None:
        raise UserError(f"store {store.folder} holds image files of many sizes: say at which size to load them")
    return Images(verified(store, file_name(split)), store.manifest.counts[split], size)


def verified(store: "Store", name: str) -> Path:
    """`store.file(name)`, which compares SHA-256, without reading a file that is as it was at the last comparison.

    Reading ImageNet's 138 GB would cost each process of each method several minutes. One process reads at a time, the
    others wait and find its result. What changes in a file without its times is left to the checksum of each record.
    """
    path, expected = store.folder / name, store.manifest.sha256.get(name)
    with ExitStack() as lock:
        with suppress(OSError):  # scratch cannot be written: every process reads for itself
            lock.enter_context(locked(VERIFIED.with_suffix(".lock")))
        known, now = _read_verified(), _size_and_times(path)
        if now is not None and known.get(str(path.absolute())) == [expected, *now]:
            return path
        if now is not None and now[0] > ANNOUNCED_BYTES:
            print(f"{path}: {gigabytes(now[0])} are read once, to compare them with the manifest", flush=True)
        store.file(name)
        if now is not None and time.time_ns() - now[2] > MTIME_GRANULARITY_NS:
            kept = {place: entry for place, entry in known.items() if Path(place).exists()}
            with suppress(RunError):  # no space: the file is read again next time
                write_json(VERIFIED, {**kept, str(path.absolute()): [expected, *now]})
    return path


def _read_verified() -> dict[str, Any]:
    """Path -> [SHA-256, size, mtime, ctime] of the files that were compared."""
    with suppress(OSError, ValueError):
        content = read_json(VERIFIED)
        if isinstance(content, dict):
            return content
    return {}


def _size_and_times(path: Path) -> list[int] | None:
    with suppress(OSError):
        found = path.stat()
        return [found.st_size, found.st_mtime_ns, found.st_ctime_ns]
    return None


class Images:
    """A packed split as an array uint8 (N, size, size, 3): `images[rows]` decodes these rows, in threads.

    The whole image is resized to size x size with VTAB's legacy bilinear and rounded, as in other stores. A row is
    bit-identical whichever threads and rows it is loaded with, and on every device except for the decoder of a GPU (see
    `to_device`). Only the rows asked for are in memory.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, path: Path, rows: int, size: int):
        from array_record.python.array_record_module import ArrayRecordReader

        try:
            self._reader = ArrayRecordReader(str(path), "readahead_buffer_size:0")
            found = self._reader.num_records()
        except RuntimeError:
            found = -1
        if found != rows:
            raise UserError(f"{path} does not have {rows} records: remove its folder and prepare it again")
        self.path = path
        self.shape = (rows, size, size, 3)
        self._threads = torch.get_num_threads()
        self._pool = ThreadPoolExecutor(self._threads)

    def __len__(self) -> int:
        """The number of images."""
        return self.shape[0]

    @property
    def nbytes(self) -> int:
        """Bytes of all images, decoded."""
        return int(np.prod(self.shape))

    def __getitem__(self, rows: Any) -> np.ndarray:
        """Decoded images of these rows (a number, slice, mask or list, as numpy's)."""
        chosen = np.arange(len(self))[rows]
        out = np.empty((chosen.size, *self.shape[1:]), np.uint8)
        numbers = chosen.ravel().tolist()

        def fill(places: Sequence[int]) -> None:
            for place in places:
                resize_one(decode(self.record(numbers[place])), out[place])

        self._in_threads(fill, range(len(numbers)))
        return out.reshape(*chosen.shape, *self.shape[1:])

    def record(self, row: int) -> bytes:
        """The bytes of one image file; RunError if they do not match their checksum."""
        try:
            return self._reader.read([row])[0]
        except RuntimeError as error:
            raise RunError(f"{self.path}: row {row} cannot be read ({error}); prepare the store again") from error

    def to_device(self, rows: np.ndarray, device: torch.device) -> Tensor:
        """Rows (n,) as uint8 (n, size, size, 3) on `device`.

        A GPU decodes what it can, grey and colour JPEGs; the CPU does the rest, and the GPU resizes all. Its chroma
        upsampling is simpler: pixels of most files differ from the CPU's, by 1 to 1.5 levels on average.
        """
        if device.type != "cuda":
            return torch.from_numpy(self[rows]).to(device)
        if device.index is None:
            device = torch.device("cuda", torch.cuda.current_device())
        out = torch.empty((len(rows), *self.shape[1:]), dtype=torch.uint8, device=device)
        parts = [slice(start, start + DEVICE_ROWS) for start in range(0, len(rows), DEVICE_ROWS)]
        with ThreadPoolExecutor(1) as ahead:
            reading = [ahead.submit(self._records, rows[part]) for part in parts[:1]]
            for part, following in zip_longest(parts, parts[1:]):
                if following:
                    reading.append(ahead.submit(self._records, rows[following]))
                self._decode_into(reading.pop(0).result(), out[part])
        return out

    def _records(self, rows: np.ndarray) -> list[bytes]:
        return list(chain(*self._in_threads(lambda part: [self.record(row) for row in part], rows.tolist())))

    def _in_threads(self, work: Callable[[Sequence[int]], Any], items: Sequence[int]) -> list[Any]:
        """`work` on consecutive items, one task for each thread: one for each item would cost more than reading it."""
        each = -(-len(items) // self._threads) or 1
        return list(self._pool.map(work, (items[start : start + each] for start in range(0, len(items), each))))

    def _decode_into(self, records: Sequence[bytes], out: Tensor) -> None:
        planes = decode_on_gpu(records, out.device)
        missing = [place for place, plane in enumerate(planes) if plane is None]
        pixels = chain(*self._in_threads(lambda part: [decode(records[place]) for place in part], missing))
        for place, image in zip(missing, pixels, strict=True):
            planes[place] = torch.from_numpy(np.array(image)).to(out.device).permute(2, 0, 1)
        for start in range(0, len(records), RESIZED_ROWS):
            some = [plane for plane in planes[start : start + RESIZED_ROWS] if plane is not None]
            out[start : start + len(some)] = resize_batch(some, self.shape[1])


def decode(data: bytes) -> np.ndarray:
    """The pixels of a record, uint8 (H, W, 3)."""
    from torchvision.io import ImageReadMode, decode_jpeg

    if data.startswith(JPEG):
        try:
            return decode_jpeg(_bytes(data), mode=ImageReadMode.RGB).permute(1, 2, 0).numpy()
        except RuntimeError:
            pass  # Pillow reads some files that torchvision refuses, and the store has what Pillow reads.
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        if image.mode.startswith("I"):  # 16 bits: the upper eight, as TensorFlow
            high = (np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8)
            return np.broadcast_to(high[:, :, None], (*high.shape, 3))
        return np.asarray(image.convert("RGB"))


class ThreadBuffers(threading.local):
    """A thread's buffers for `resize_one`.

    New memory for each image costs more than the work in it: 16 threads resized 2,400 images/s in new memory and 4,400
    in reused memory (one H100 machine, 224 px).
    """

    def __init__(self) -> None:
        self.flat: dict[str, np.ndarray] = {}

    def array(self, name: str, shape: tuple[int, ...], kind: type) -> np.ndarray:
        """An array of this shape with arbitrary content; the next one of the same name overwrites it."""
        size = int(np.prod(shape))
        if name not in self.flat or self.flat[name].size < size:
            self.flat[name] = np.empty(size, kind)
        return self.flat[name][:size].reshape(shape)


_buffers = ThreadBuffers()


def resize_one(pixels: np.ndarray, out: np.ndarray) -> None:
    """Resize pixels uint8 (H, W, 3) into out uint8 (size, size, 3): prepare/resize.py's legacy, rounded.

    In numpy, which makes few enough calls for many threads to share one interpreter: two threads resized 614 images/s
    of 300 to 600 pixels to 224, and 128 by prepare/resize.py (one CPU core, 2026-11-25).
    """
    height, width = pixels.shape[:2]
    size = out.shape[0]
    shape = (size, size, 3)
    above, below, down = neighbours(height, size)
    left, right, across = neighbours(width, size)
    across = across[None, :, None]
    cut = _buffers.array("cut", shape, np.uint8)
    high = _buffers.array("high", shape, np.float32)
    lines = []
    for name, rows in (("above", above), ("below", below)):
        needed = np.take(pixels, rows, 0, _buffers.array("needed", (size, width, 3), np.uint8), "clip")
        line = _buffers.array(name, shape, np.float32)
        np.copyto(line, np.take(needed, left, 1, cut, "clip"))
        np.copyto(high, np.take(needed, right, 1, cut, "clip"))
        lines.append(_interpolate(line, high, across))
    whole = _interpolate(lines[0], lines[1], down[:, None, None])
    whole += np.float32(HALF)
    np.copyto(out, whole, casting="unsafe")  # within 0..255.51: cut off, never wrapped


def _interpolate(low: np.ndarray, high: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Replace `low` by low + (high - low) * weight; each step is rounded to float32."""
    high -= low
    high *= weight
    low += high
    return low


def resize_batch(planes: Sequence[Tensor], size: int) -> Tensor:
    """`resize_one` of many images uint8 (3, H, W) of any sizes on their device: uint8 (n, size, size, 3).

    One kernel handles all images, where a resize of each would launch dozens.
    """
    device = planes[0].device
    shapes = [(plane.shape[1], plane.shape[2]) for plane in planes]
    widths = np.array([width for _, width in shapes])
    starts = np.cumsum([0] + [3 * height * width for height, width in shapes[:-1]])
    down = [neighbours(height, size) for height, _ in shapes]
    across = [neighbours(width, size) for _, width in shapes]
    flat = torch.cat([plane.reshape(-1) for plane in planes])

    def on_device(values: np.ndarray, shape: tuple[int, ...]) -> Tensor:
        return torch.from_numpy(values).to(device).view(-1, *shape)

    lines = [
        on_device(np.stack([index[k] for index in down]) * widths[:, None] + starts[:, None], (size, 1, 1))
        for k in (0, 1)
    ]
    left, right = (on_device(np.stack([index[k] for index in across]), (1, size, 1)) for k in (0, 1))
    channels = on_device(np.array([[c * height * width for c in range(3)] for height, width in shapes]), (1, 1, 3))
    lower_weight = on_device(np.stack([index[2] for index in down]), (size, 1, 1))
    right_weight = on_device(np.stack([index[2] for index in across]), (1, size, 1))

    def line(first: Tensor) -> Tensor:
        return lerp(flat[first + left + channels].float(), flat[first + right + channels].float(), right_weight)

    return (lerp(line(lines[0]), line(lines[1]), lower_weight) + HALF).clamp(0, 255).to(torch.uint8)


@lru_cache(maxsize=4096)
def neighbours(length: int, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each of `size` outputs the lower and upper input of `length`, and the weight of the upper."""
    needed, low, high, weight = interpolation_indices(length, size, torch.device("cpu"))
    return needed[low].numpy(), needed[high].numpy(), weight.numpy()


def components(data: bytes) -> int:
    """The number of colour components of a JPEG, from its frame header; 0 for other data."""
    place = 2 if data.startswith(JPEG) else len(data)
    while place + 9 < len(data) and data[place] == 0xFF:
        marker = data[place + 1]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return data[place + 9]
        # A marker may be preceded by any number of 0xFF.
        place += 1 if marker == 0xFF else 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    return 0


def decode_on_gpu(records: Sequence[bytes], device: torch.device) -> list[Tensor | None]:
    """Grey and colour JPEGs decoded by the GPU: uint8 (3, H, W) on it, or None for what it cannot decode."""
    found: list[Tensor | None] = [None] * len(records)
    chosen = [place for place, data in enumerate(records) if components(data) in (1, 3)] if decodes(device) else []
    try:
        decoded = nvjpeg([records[place] for place in chosen], device)
    except RuntimeError:
        decoded = [_decode_one_on_gpu(records[place], device) for place in chosen]
    for place, plane in zip(chosen, decoded, strict=True):
        found[place] = plane
    return found


@cache
def decodes(device: torch.device) -> bool:
    """Whether this device decodes JPEGs at all: found once, so that no image's pixels depend on those before it."""
    made = io.BytesIO()
    Image.new("RGB", (32, 32), (200, 100, 50)).save(made, "JPEG")
    return _decode_one_on_gpu(made.getvalue(), device) is not None


def nvjpeg(records: Sequence[bytes], device: torch.device) -> list[Any]:
    """JPEGs decoded by the GPU, each uint8 (3, H, W) on it; RuntimeError if it cannot decode one."""
    from torchvision.io import ImageReadMode, decode_jpeg

    return decode_jpeg([_bytes(data) for data in records], mode=ImageReadMode.RGB, device=device) if records else []


def _decode_one_on_gpu(data: bytes, device: torch.device) -> Tensor | None:
    try:
        return nvjpeg([data], device)[0]
    except RuntimeError:
        return None


def _bytes(data: bytes) -> Tensor:
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)  # of a copy: torch warns of memory that is read-only
