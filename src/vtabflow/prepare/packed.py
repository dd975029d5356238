"""Stores of the form "packed": the image files' own bytes, one ArrayRecord an example, decoded when a batch is drawn.

    <folder>/train.array_record val.array_record test.array_record     JPEG (or PNG) bytes, random access by row

The other files are those of every store (see store.py). Every record was decoded once when it was packed, so that none
fails when it is drawn. Decoded pixels are RGB: grey is repeated, transparency dropped, CMYK converted; a file's EXIF
orientation is not heeded. TensorFlow does the same, with a quicker inverse transform that is off by a level on average.
"""

import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, lru_cache
from pathlib import Path
from threading import Barrier
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from vtabflow.errors import RunError, UserError
from vtabflow.prepare.images import MOST_PIXELS, Unreadable

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from vtabflow.prepare.store import Store

FORM = "packed"
# One record a chunk, so that a row is read without its neighbours; JPEG does not compress.
LAYOUT = "group_size:1,uncompressed"
FORMATS = ("JPEG", "PNG")
JPEG, PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"
# Rows that are decoded at a time on a GPU: the four corners of 128 images of 224 x 224 are 0.3 GB.
DEVICE_ROWS = 128
# A half between two levels goes up, as in the stores of folders (prepare/folder.py).
HALF = 0.5 + 2.0**-10


class Writer:
    """A split's records in order: `with Writer(folder, "train") as split: split.write(data)`.

    `rows` counts them. After a good end the object stands for the split in `Making.arrays`: it has a length and a
    `shape`, (N, None, None, 3). Raises OSError if the disk takes no more.
    """

    def __init__(self, folder: Path, split: str):
        from array_record.python.array_record_module import ArrayRecordWriter

        self.path = folder / file_name(split)
        self.rows = 0
        self._writer = ArrayRecordWriter(str(self.path), LAYOUT)

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, kind: Any, *_: Any) -> None:
        try:
            self._writer.close()
        except RuntimeError as error:
            if kind is None:
                raise self._refused(error) from error

    def write(self, data: bytes) -> None:
        try:
            self._writer.write(data)
        except RuntimeError as error:
            raise self._refused(error) from error
        self.rows += 1

    def __len__(self) -> int:
        return self.rows

    @property
    def shape(self) -> tuple[int | None, ...]:
        return (self.rows, None, None, 3)

    def _refused(self, error: RuntimeError) -> OSError:
        # "write() failed: No space left on device; writing /path; at byte 123"
        return OSError(str(error).split(";")[0].removeprefix("write() failed: "))


def file_name(split: str) -> str:
    return f"{split}.array_record"


def is_packed(store: "Store") -> bool:
    return store.manifest.get("form") == FORM


def open_images(store: "Store", split: str, size: int | None) -> Any:
    """The images of a split of any store: rows of it are uint8 (n, H, W, C), whatever its form.

    `size`: the side to which those of a packed store are resized; others have the size of their store.
    """
    if not is_packed(store):
        return store.images(split)
    if size is None:
        raise UserError(f"store {store.folder} holds image files of many sizes: say at which size they are wanted")
    return Images(store.file(file_name(split)), store.manifest["counts"][split], size)


class Images:
    """A packed split as an array uint8 (N, size, size, 3): `images[rows]` decodes these rows, in threads.

    The whole picture is resized to size x size with VTAB's legacy bilinear and rounded, as other stores do once
    and for all. A row is the same bits whichever threads and neighbours it is drawn with, and on every device but
    for the decoder of a GPU (see `on`). Not more than the rows asked for is held.
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
            raise UserError(f"{path} does not hold {rows} records: remove its folder and prepare it again")
        self.path = path
        self.shape = (rows, size, size, 3)
        self._pool = pool_of_single_threads()

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def nbytes(self) -> int:
        """Bytes of all images, decoded."""
        return int(np.prod(self.shape))

    def __getitem__(self, rows: Any) -> np.ndarray:
        chosen = np.arange(len(self))[rows]
        out = np.empty((chosen.size, *self.shape[1:]), np.uint8)
        numbers = chosen.ravel().tolist()
        list(self._pool.map(lambda place: self._fill(out[place], numbers[place]), range(len(numbers))))
        return out.reshape(*chosen.shape, *self.shape[1:])

    def record(self, row: int) -> bytes:
        """The bytes of one image file. Raises RunError if the file's own checksum of them differs."""
        try:
            return self._reader.read([row])[0]
        except RuntimeError as error:
            raise RunError(f"{self.path}: row {row} cannot be read ({error}); prepare the store again") from error

    def on(self, rows: np.ndarray, device: "torch.device") -> "Tensor":
        """Rows (n,) as uint8 (n, size, size, 3) on `device`.

        A GPU decodes what it can: baseline and progressive JPEGs, grey or in colour; the rest comes from the CPU. Its
        decoder blows colour up in another way: pixels differ from the CPU's, by one to two levels on average.
        """
        import torch

        if device.type == "cuda" and device.index is None:
            device = torch.device("cuda", torch.cuda.current_device())
        out = torch.empty((len(rows), *self.shape[1:]), dtype=torch.uint8, device=device)
        for start in range(0, len(rows), DEVICE_ROWS):
            part = rows[start : start + DEVICE_ROWS]
            place = out[start : start + len(part)]
            if device.type == "cuda" and gpu_decodes(device):
                self._decode_on(part, place)
            else:
                place.copy_(torch.from_numpy(self[part]))
        return out

    def _fill(self, out: np.ndarray, row: int) -> None:
        out[...] = fitted(decode(self.record(row)), self.shape[1])

    def _decode_on(self, rows: np.ndarray, out: "Tensor") -> None:
        import torch

        records = list(self._pool.map(self.record, rows.tolist()))
        colour = [place for place, data in enumerate(records) if components(data) in (1, 3)]
        decoded = on_gpu([records[place] for place in colour], out.device)
        done = [(place, planes) for place, planes in zip(colour, decoded, strict=True) if planes is not None]
        if done:
            index = torch.tensor([place for place, _ in done], device=out.device)
            out[index] = fitted_together([planes for _, planes in done], self.shape[1])
        rest = sorted(set(range(len(rows))) - {place for place, _ in done})
        if rest:
            out[torch.tensor(rest, device=out.device)] = torch.from_numpy(self[rows[rest]]).to(out.device)


def look(data: bytes) -> str:
    """Decode an image file and say what it is: "rgb", "grey", "cmyk" or "png".

    Raises Unreadable: empty, neither JPEG nor PNG, cut off, too many pixels.
    """
    if not data:
        raise Unreadable("is empty")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            if image.width * image.height > MOST_PIXELS:
                raise Unreadable(f"has more than {MOST_PIXELS} pixels")
            mode = image.mode
            # An eighth of the size: all data are read, for three quarters of the time.
            image.draft(None, (1, 1))
            image.load()
    except Image.UnidentifiedImageError as error:
        raise Unreadable("is neither JPEG nor PNG") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise Unreadable(f"is broken ({error})") from error
    if data.startswith(PNG):
        return "png"
    return {"L": "grey", "CMYK": "cmyk"}.get(mode, "rgb")


def shortened(data: bytes, side: int, quality: int) -> bytes:
    """An image whose longer side is over `side` pixels as a JPEG of that side, antialiased; others as they are."""
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        if max(image.size) <= side:
            return data
        shape = tuple(max(1, round(length * side / max(image.size))) for length in image.size)
        picture = image.convert("L" if image.mode == "L" else "RGB")
    made = io.BytesIO()
    picture.resize((shape[0], shape[1]), Image.Resampling.BILINEAR).save(made, "JPEG", quality=quality)
    return made.getvalue()


def decode(data: bytes) -> np.ndarray:
    """The pixels of a record, uint8 (H, W, 3)."""
    from torchvision.io import ImageReadMode, decode_jpeg

    if data.startswith(JPEG):
        try:
            return decode_jpeg(_bytes(data), mode=ImageReadMode.RGB).permute(1, 2, 0).numpy()
        except RuntimeError:
            pass  # Pillow forgives more, and it was Pillow that let the file in
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        if image.mode.startswith("I"):  # 16 bits: the upper eight, as TensorFlow
            high = (np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8)
            return np.broadcast_to(high[:, :, None], (*high.shape, 3))
        return np.asarray(image.convert("RGB"))


def fitted(pixels: np.ndarray, size: int) -> np.ndarray:
    """Pixels (H, W, 3) resized (legacy) and rounded to uint8 (size, size, 3)."""
    import torch

    from vtabflow.prepare.resize import resize

    resized = resize(torch.from_numpy(pixels)[None], size, "legacy")[0].numpy()
    return (resized + HALF).clip(0, 255).astype(np.uint8)


def fitted_together(planes: Sequence["Tensor"], size: int) -> "Tensor":
    """`fitted` of many images uint8 (3, H, W) of any sizes, on their device: uint8 (n, size, size, 3), the same bits.

    One kernel handles all images, where a resize of each would start dozens.
    """
    import torch

    device = planes[0].device
    shapes = [(plane.shape[1], plane.shape[2]) for plane in planes]
    widths = np.array([width for _, width in shapes])
    starts = np.cumsum([0] + [3 * height * width for height, width in shapes[:-1]])
    down = [taps(height, size) for height, _ in shapes]
    across = [taps(width, size) for _, width in shapes]
    flat = torch.cat([plane.reshape(-1) for plane in planes])

    def here(values: np.ndarray, shape: tuple[int, ...]) -> "Tensor":
        return torch.from_numpy(values).to(device).view(-1, *shape)

    lines = [here(np.stack([tap[k] for tap in down]) * widths[:, None] + starts[:, None], (size, 1, 1)) for k in (0, 1)]
    left, right = (here(np.stack([tap[k] for tap in across]), (1, size, 1)) for k in (0, 1))
    channels = here(np.array([[c * height * width for c in range(3)] for height, width in shapes]), (1, 1, 3))
    lower = here(np.stack([tap[2] for tap in down]), (size, 1, 1))
    further = here(np.stack([tap[2] for tap in across]), (1, size, 1))

    def between(low: "Tensor", high: "Tensor", weight: "Tensor") -> "Tensor":
        return low + (high - low) * weight  # each step rounded, as prepare/resize.py says

    def line(first: "Tensor") -> "Tensor":
        return between(flat[first + left + channels].float(), flat[first + right + channels].float(), further)

    return (between(line(lines[0]), line(lines[1]), lower) + HALF).clamp(0, 255).to(torch.uint8)


@lru_cache(maxsize=4096)
def taps(length: int, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each of `size` outputs the lower and upper input of `length`, and the weight of the upper (protocol.md 7.2)."""
    source = np.arange(size, dtype=np.float32) * (np.float32(length) / np.float32(size))
    low = np.floor(source)
    high = np.minimum(np.ceil(source), np.float32(length - 1))
    return low.astype(np.int64), high.astype(np.int64), source - low


def components(data: bytes) -> int:
    """The number of colour components of a JPEG, from its frame header; 0 for what is none."""
    place = 2 if data.startswith(JPEG) else len(data)
    while place + 9 < len(data) and data[place] == 0xFF:
        marker = data[place + 1]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return data[place + 9]
        # A marker may be preceded by any number of 0xFF.
        place += 1 if marker == 0xFF else 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    return 0


def on_gpu(records: Sequence[bytes], device: "torch.device") -> list["Tensor | None"]:
    """JPEGs decoded by the GPU, each uint8 (3, H, W) there, or None where it cannot."""
    from torchvision.io import ImageReadMode, decode_jpeg

    def together(chosen: Sequence[bytes]) -> list[Any]:
        return decode_jpeg([_bytes(data) for data in chosen], mode=ImageReadMode.RGB, device=device) if chosen else []

    def alone(data: bytes) -> Any:
        try:
            return together([data])[0]
        except RuntimeError:
            return None

    try:
        return together(records)
    except RuntimeError:
        return [alone(data) for data in records]


@cache
def gpu_decodes(device: "torch.device") -> bool:
    """Whether this device decodes JPEGs at all: asked once, so that a row's pixels do not depend on what came before."""
    made = io.BytesIO()
    Image.new("RGB", (32, 32), (200, 100, 50)).save(made, "JPEG")
    return on_gpu([made.getvalue()], device) != [None]


def pool_of_single_threads() -> ThreadPoolExecutor:
    """As many threads as torch has here, each of which works at an image of its own with no further threads below it."""
    import torch

    count = torch.get_num_threads()
    pool, meeting = ThreadPoolExecutor(count), Barrier(count)

    def settle(_: int) -> None:
        meeting.wait()
        torch.get_num_threads()  # a thread takes over the global number when it first asks, and keeps it

    torch.set_num_threads(1)
    try:
        list(pool.map(settle, range(count)))
    finally:
        torch.set_num_threads(count)
    return pool


def _bytes(data: bytes) -> "Tensor":
    import torch

    return torch.frombuffer(bytearray(data), dtype=torch.uint8)  # of a copy: torch warns of memory that is read-only
