"""One image file as uint8 pixels, whatever its format, or the reason why not.

The EXIF orientation is applied, an animation gives its first frame, transparency is composed with white (the page that
such images are drawn for), 16-bit grey becomes v/257 rounded (65,535 is white; a range can be given), palettes and CMYK
become RGB. Several threads may decode at once.
"""

import io
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import IO, Any

import numpy as np
from PIL import ExifTags, Image, ImageFile, ImageOps

from vtabflow.contracts.specs import FolderDecoding

# Without EPS: Pillow passes it to Ghostscript, which runs programs.
FORMATS = ("PNG", "JPEG", "MPO", "GIF", "BMP", "DIB", "TIFF", "WEBP", "PPM", "JPEG2000", "AVIF", "TGA", "ICO", "PCX")
MAX_PIXELS = 89_478_485  # Pillow's own limit, 256 MiB of RGB: more is a decompression bomb or needs to be tiled
BYTES_PER_PIXEL = 16  # measured: 4 for grey, 6 with 16 bits, 14 for RGB, 16 with transparency
MAX_BYTES = 1 << 29
STRIP = 1 << 18  # pixels
AS_IT_IS = FolderDecoding()
CUT = (b"\xff\xd8\xff", b"\x89PNG")  # JPEG and PNG: of other formats too little is left to tell what it is
GREY = ("1", "L", "LA", "La", "I", "I;16", "I;16L", "I;16B", "I;16N")
TRANSPARENT = ("LA", "La", "RGBA", "RGBa", "PA")
RAW = "is a camera's raw file, which is not read: convert it to JPEG or PNG"
# What people take for images, by the first bytes. ISO media files have their kind ("brand") at byte 8, after "ftyp".
KINDS = (
    (b"version https://git-lfs", "is a Git LFS pointer and not an image: run `git lfs pull` in its repository"),
    (b"%PDF", "is a PDF and not an image: export its pages as PNG"),
    (b"8BPS", "is a Photoshop file, which is not read: export it as PNG"),
    (b"\xff\x0a", "is JPEG XL, which is not read: convert it to JPEG or PNG"),
    (b"\0\0\0\x0cJXL ", "is JPEG XL, which is not read: convert it to JPEG or PNG"),
    (b"FUJIFILMCCD-RAW", RAW),
    (b"\x89HDF", "is an HDF5 file, which is not read: save its images one by one as PNG"),
    (b"\x93NUMPY", "is a NumPy array, which is not read: save it as PNG"),
    (b"<svg", "is an SVG drawing, which is not read: export it as PNG"),
    (b"<?xml", "is XML and not an image"),
    (b"<!doctype html", "is a web page and not an image: download it again"),
    (b"<html", "is a web page and not an image: download it again"),
    (b"PK\x03\x04", "is a zip file and not an image: unpack it"),
    (b"\x1f\x8b", "is compressed with gzip: unpack it"),
)
HEIC = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}


# Of decoders that meet unusual files; catch_warnings is not safe in threads.
warnings.filterwarnings("ignore", module=r"PIL\.")


class _Lenient(threading.local):
    """Pillow's LOAD_TRUNCATED_IMAGES, which is one for the process, as a truth of each thread: false unless `here`."""

    here = False

    def __bool__(self) -> bool:
        return self.here


LENIENT = _Lenient()
pillow: Any = ImageFile
pillow.LOAD_TRUNCATED_IMAGES = LENIENT


class Unreadable(Exception):
    """A file that gives no image; the text is the reason, to be read after the file's name."""


def not_an_image(start: bytes) -> str:
    """Why a file that no decoder knows is no image, from its first bytes (132 are enough), to follow its name."""
    if start[4:8] == b"ftyp":
        if start[8:12] in HEIC:
            return "is HEIC, which is not read: convert it to JPEG or PNG"
        if start[8:12] in (b"avif", b"avis"):
            return "is a broken AVIF"
        return RAW if start[8:12] == b"crx " else "is a video and not an image"
    if start[128:132] == b"DICM":
        return "is DICOM, which is not read: convert it to PNG"
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip()[:32].lower()
    return next((what for magic, what in KINDS if start.startswith(magic) or text.startswith(magic)), "is not an image")


def header(stream: IO[bytes], size: int, max_pixels: int | None = None) -> tuple[int, int, bool]:
    """Height and width of the upright image, and whether it is grey, from the start of a file of `size` bytes.

    Raises:
        Unreadable: an empty file, no image, more than `max_pixels` pixels (None: MAX_PIXELS), numbers without a known
            range.
    """
    with _decoder_errors():
        image = _open(stream, size, max_pixels)
        width, height = image.size
        # Pillow applies the orientation of TIFF by itself and reports the size after that.
        turned = image.format != "TIFF" and _orientation(image) >= 5
        return (width, height, image.mode in GREY) if turned else (height, width, image.mode in GREY)


@dataclass(frozen=True)
class Decoded:
    """An image.

    Attributes:
        pixels: uint8 (H, W, 3), or (H, W, 1) if the file's own mode is grey.
        highest: the largest value of a grey image with 16 bits; None: it has 8 bits or colours.
        cut: why the file gives only a part of the image; None: it is whole.
    """

    pixels: np.ndarray
    highest: int | None = None
    cut: str | None = None


def decode(data: bytes, decoding: FolderDecoding = AS_IT_IS) -> Decoded:
    """The image of a file.

    Raises:
        Unreadable: as in `header`, and a file that is cut off or broken inside, unless `decoding` takes it.
    """
    try:
        return _decode(data, decoding)
    except Unreadable as broken:
        if not decoding.truncated or not data.startswith(CUT):
            raise
        LENIENT.here = True
        try:
            return replace(_decode(data, decoding), cut=str(broken))
        except Unreadable:
            raise broken from None
        finally:
            LENIENT.here = False


def _decode(data: bytes, decoding: FolderDecoding) -> Decoded:
    with _decoder_errors():
        image = _open(io.BytesIO(data), len(data), decoding.max_pixels)
        image.load()
        with suppress(Exception):  # EXIF that cannot be read: the image stays as it is
            ImageOps.exif_transpose(image, in_place=True)
        if image.mode.startswith("I"):
            values = np.asarray(image)
            pixels = _by_strips(values, (*values.shape, 1), partial(_in_8_bits, ends=decoding.range))
            return Decoded(pixels, int(values.max()))
        return Decoded(_pixels(image))


@contextmanager
def _decoder_errors() -> Iterator[None]:
    """Whatever a decoder raises on a broken file becomes Unreadable."""
    try:
        yield
    except (Unreadable, MemoryError):
        raise
    except Exception as error:
        raise Unreadable(f"is broken ({error or type(error).__name__})") from error


def _open(stream: IO[bytes], size: int, max_pixels: int | None) -> Image.Image:
    if size == 0:
        raise Unreadable("is empty")
    if size > MAX_BYTES:
        raise Unreadable(f"is larger than {MAX_BYTES >> 20} MiB")
    limit = MAX_PIXELS if max_pixels is None else max_pixels
    if Image.MAX_IMAGE_PIXELS is not None and limit > Image.MAX_IMAGE_PIXELS:
        # Pillow refuses twice this number when it opens a file. Below, every file is compared with its own limit.
        Image.MAX_IMAGE_PIXELS = limit
    Image.init()
    try:
        image = Image.open(stream, formats=[name for name in FORMATS if name in Image.OPEN])
    except Image.UnidentifiedImageError as error:
        stream.seek(0)
        raise Unreadable(not_an_image(stream.read(132))) from error
    except Image.DecompressionBombError as error:
        raise Unreadable(_too_large(limit)) from error
    if image.width * image.height > limit:
        raise Unreadable(_too_large(limit))
    # Mode I of a PNG or PPM has 16 bits; of other formats the range is not known.
    if image.mode == "F" or (image.mode == "I" and image.format not in ("PNG", "PPM")):
        raise Unreadable("has numbers whose range is not known (32-bit); save it with 8 or 16 bits per channel")
    return image


def _too_large(limit: int) -> str:
    what = f"has more than {limit} pixels"
    return f"{what}: `max_pixels` takes more, at {BYTES_PER_PIXEL} bytes of memory a pixel"


def _pixels(image: Image.Image) -> np.ndarray:
    grey = image.mode in GREY
    channels = 1 if grey else 3
    if image.mode in TRANSPARENT or "transparency" in image.info:
        values = np.asarray(image.convert("LA" if grey else "RGBA"))
        return _by_strips(values, (*values.shape[:2], channels), _over_white)
    mode = "L" if grey else "RGB"
    plain = image if image.mode == mode else image.convert(mode)  # convert copies what has the mode already
    return np.array(plain).reshape(image.height, image.width, channels)


def _by_strips(values: np.ndarray, shape: tuple[int, ...], make: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """`make` on some rows at a time, since it works with wide numbers."""
    rows = max(1, STRIP // values.shape[1])
    pixels = np.empty(shape, np.uint8)
    for start in range(0, len(values), rows):
        pixels[start : start + rows] = make(values[start : start + rows])
    return pixels


def _in_8_bits(values: np.ndarray, ends: tuple[int, int] | None) -> np.ndarray:
    """16-bit values with the first of `ends` black and the second white (None: 0 and 65,535), rounded, half up."""
    low, high = ends or (0, 65535)
    found = ((values.astype(np.int64) - low) * 510 + (high - low)) // (2 * (high - low))
    return found.clip(0, 255).astype(np.uint8)[:, :, None]


def _over_white(values: np.ndarray) -> np.ndarray:
    """Colours with their opacity as the last channel, on white."""
    values = values.astype(np.uint32)
    colour, alpha = values[:, :, :-1], values[:, :, -1:]
    return ((colour * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)


def _orientation(image: Image.Image) -> int:
    """EXIF orientation, 1 (upright) to 8; 1 where there is none that is valid."""
    try:
        # The method of the base class: that of PNG decodes the whole image first.
        found = Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1)
    except Exception:
        return 1
    return found if found in range(1, 9) else 1
