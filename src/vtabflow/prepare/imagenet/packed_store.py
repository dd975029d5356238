"""Stores of the form "packed": the image files' own bytes, one ArrayRecord per example, decoded when a batch is read.

    <folder>/train.array_record val.array_record test.array_record     JPEG (or PNG) bytes, random access by row

The other files are those of every store (see store.py). Every record is decoded once when it is packed, so that none
fails when it is read (pretrain/image_loader.py).
"""

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from vtabflow.prepare.images import MAX_PIXELS, Unreadable

if TYPE_CHECKING:
    from vtabflow.prepare.store import Store

FORM = "packed"
# One record per chunk, so that a row is read without its neighbours; JPEG does not compress further.
LAYOUT = "group_size:1,uncompressed"
FORMATS = ("JPEG", "PNG")
PNG = b"\x89PNG\r\n\x1a\n"


class Writer:
    """A split's records in order: `with Writer(folder, "train") as split: split.write(data)`.

    `rows` counts them. A closed writer is the split's entry in `StoreWriter.arrays`, with a length and a `shape`,
    (N, None, None, 3).

    Raises:
        OSError: the disk is full.
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
                raise self._write_error(error) from error

    def write(self, data: bytes) -> None:
        """Append one image file."""
        try:
            self._writer.write(data)
        except RuntimeError as error:
            raise self._write_error(error) from error
        self.rows += 1

    def __len__(self) -> int:
        return self.rows

    @property
    def shape(self) -> tuple[int | None, ...]:
        """(N, None, None, 3): images have sizes of their own."""
        return (self.rows, None, None, 3)

    def _write_error(self, error: RuntimeError) -> OSError:
        # "write() failed: No space left on device; writing /path; at byte 123"
        return OSError(str(error).split(";")[0].removeprefix("write() failed: "))


def file_name(split: str) -> str:
    """The file of a split."""
    return f"{split}.array_record"


def is_packed(store: "Store") -> bool:
    """Whether a store has image files and not arrays."""
    return store.manifest.form == FORM


def image_kind(data: bytes) -> str:
    """Decode an image file and return "rgb", "grey", "cmyk" or "png".

    Raises:
        Unreadable: empty, neither JPEG nor PNG, truncated, too many pixels.
    """
    if not data:
        raise Unreadable("is empty")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise Unreadable(f"has more than {MAX_PIXELS} pixels")
            mode = image.mode
            # At an eighth of the size all data are read, in three quarters of the time.
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
    """An image whose longer side is over `side` pixels as a JPEG of that side, antialiased; others unchanged."""
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        if max(image.size) <= side:
            return data
        shape = tuple(max(1, round(length * side / max(image.size))) for length in image.size)
        pixels = image.convert("L" if image.mode == "L" else "RGB")
    buffer = io.BytesIO()
    pixels.resize((shape[0], shape[1]), Image.Resampling.BILINEAR).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()
