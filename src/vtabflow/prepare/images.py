"""One image file as uint8 pixels, whatever its kind, or the reason why not.

Pixels are turned upright (EXIF), an animation gives its first frame, transparency is laid over white (the page that
such pictures are drawn for), 16-bit grey becomes v/257 rounded (65,535 is white), palettes and CMYK become RGB.
"""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

import numpy as np
from PIL import ExifTags, Image

# EPS is left out on purpose: Pillow hands it to Ghostscript, which runs programs.
FORMATS = ("PNG", "JPEG", "MPO", "GIF", "BMP", "DIB", "TIFF", "WEBP", "PPM", "JPEG2000", "AVIF", "TGA", "ICO", "PCX")
MOST_PIXELS = (
    89_478_485  # Pillow's own limit, 256 MiB of RGB: what is larger is a decompression bomb or wants cutting up
)
MOST_BYTES = 1 << 29
GREY = ("1", "L", "LA", "La", "I", "I;16", "I;16L", "I;16B", "I;16N")
TRANSPARENT = ("LA", "La", "RGBA", "RGBa", "PA")


class Unreadable(Exception):
    """A file that gives no picture; the text is the reason, to be read after the file's name."""


def header(stream: IO[bytes], size: int) -> tuple[int, int, bool]:
    """Height and width of the upright picture, and whether it is grey, from the start of a file of `size` bytes.

    Raises:
        Unreadable: an empty file, no image, too many pixels, a kind of number without a known range.
    """
    with _explained():
        image = _opened(stream, size)
        width, height = image.size
        # Pillow turns TIFF by itself and says the size after that.
        turned = image.format != "TIFF" and _orientation(image) >= 5
        return (width, height, image.mode in GREY) if turned else (height, width, image.mode in GREY)


def decode(data: bytes) -> np.ndarray:
    """The pixels of an image file: uint8 (H, W, 3), or (H, W, 1) if the file's own mode is grey.

    Raises:
        Unreadable: as `header`, and a file that is cut off or broken inside.
    """
    with _explained():
        image = _opened(io.BytesIO(data), len(data))
        image.load()
        pixels = _pixels(image)
        return _upright(pixels if pixels.ndim == 3 else pixels[:, :, None], _orientation(image))


@contextmanager
def _explained() -> Iterator[None]:
    """Whatever a decoder raises on a broken file is one thing to the caller; its warnings are nobody's business."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (Unreadable, MemoryError):
        raise
    except Image.UnidentifiedImageError as error:
        raise Unreadable("is not an image") from error
    except Image.DecompressionBombError as error:
        raise Unreadable(f"has more than {MOST_PIXELS} pixels") from error
    except Exception as error:
        raise Unreadable(f"is broken ({error or type(error).__name__})") from error


def _opened(stream: IO[bytes], size: int) -> Image.Image:
    if size == 0:
        raise Unreadable("is empty")
    if size > MOST_BYTES:
        raise Unreadable(f"is larger than {MOST_BYTES >> 20} MiB")
    Image.init()
    image = Image.open(stream, formats=[name for name in FORMATS if name in Image.OPEN])
    if image.width * image.height > MOST_PIXELS:
        raise Unreadable(f"has more than {MOST_PIXELS} pixels")
    # Mode I of a PNG or PPM holds 16 bits; anywhere else it may be anything.
    if image.mode == "F" or (image.mode == "I" and image.format not in ("PNG", "PPM")):
        raise Unreadable("holds numbers whose range is not known (32-bit); save it with 8 or 16 bits a channel")
    return image


def _pixels(image: Image.Image) -> np.ndarray:
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64)
        return ((values + 128) // 257).astype(np.uint8)
    grey = image.mode in GREY
    if image.mode in TRANSPARENT or "transparency" in image.info:
        values = np.asarray(image.convert("LA" if grey else "RGBA")).astype(np.uint32)
        colour, alpha = values[:, :, :-1], values[:, :, -1:]
        return ((colour * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)
    return np.asarray(image.convert("L" if grey else "RGB"))


def _orientation(image: Image.Image) -> int:
    """EXIF orientation, 1 (upright) to 8; 1 where there is none that makes sense."""
    try:
        # The base class's own: that of PNG decodes the whole picture first.
        found = Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1)
    except Exception:
        return 1
    return found if found in range(1, 9) else 1


def _upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.array(pixels, order="C")
