"""One image file as uint8 pixels, whatever its format, or the reason why not.

The EXIF orientation is applied, an animation gives its first frame, transparency is composed with white (the page that
such images are drawn for), 16-bit grey becomes v/257 rounded (65,535 is white), palettes and CMYK become RGB.
"""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO

import numpy as np
from PIL import ExifTags, Image, ImageOps

# Without EPS: Pillow passes it to Ghostscript, which runs programs.
FORMATS = ("PNG", "JPEG", "MPO", "GIF", "BMP", "DIB", "TIFF", "WEBP", "PPM", "JPEG2000", "AVIF", "TGA", "ICO", "PCX")
MAX_PIXELS = 89_478_485  # Pillow's own limit, 256 MiB of RGB: more is a decompression bomb or needs to be tiled
MAX_BYTES = 1 << 29
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


def header(stream: IO[bytes], size: int) -> tuple[int, int, bool]:
    """Height and width of the upright image, and whether it is grey, from the start of a file of `size` bytes.

    Raises:
        Unreadable: an empty file, no image, too many pixels, numbers without a known range.
    """
    with _decoder_errors():
        image = _open(stream, size)
        width, height = image.size
        # Pillow applies the orientation of TIFF by itself and reports the size after that.
        turned = image.format != "TIFF" and _orientation(image) >= 5
        return (width, height, image.mode in GREY) if turned else (height, width, image.mode in GREY)


def decode(data: bytes) -> np.ndarray:
    """The pixels of an image file: uint8 (H, W, 3), or (H, W, 1) if the file's own mode is grey.

    Raises:
        Unreadable: as in `header`, and a file that is cut off or broken inside.
    """
    with _decoder_errors():
        image = _open(io.BytesIO(data), len(data))
        image.load()
        with suppress(Exception):  # EXIF that cannot be read: the image stays as it is
            ImageOps.exif_transpose(image, in_place=True)
        pixels = _pixels(image)
        return np.array(pixels if pixels.ndim == 3 else pixels[:, :, None])


@contextmanager
def _decoder_errors() -> Iterator[None]:
    """Whatever a decoder raises on a broken file becomes Unreadable; its warnings are not shown."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (Unreadable, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        raise Unreadable(f"has more than {MAX_PIXELS} pixels") from error
    except Exception as error:
        raise Unreadable(f"is broken ({error or type(error).__name__})") from error


def _open(stream: IO[bytes], size: int) -> Image.Image:
    if size == 0:
        raise Unreadable("is empty")
    if size > MAX_BYTES:
        raise Unreadable(f"is larger than {MAX_BYTES >> 20} MiB")
    Image.init()
    try:
        image = Image.open(stream, formats=[name for name in FORMATS if name in Image.OPEN])
    except Image.UnidentifiedImageError as error:
        stream.seek(0)
        raise Unreadable(not_an_image(stream.read(132))) from error
    if image.width * image.height > MAX_PIXELS:
        raise Unreadable(f"has more than {MAX_PIXELS} pixels")
    # Mode I of a PNG or PPM has 16 bits; of other formats the range is not known.
    if image.mode == "F" or (image.mode == "I" and image.format not in ("PNG", "PPM")):
        raise Unreadable("has numbers whose range is not known (32-bit); save it with 8 or 16 bits per channel")
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
    """EXIF orientation, 1 (upright) to 8; 1 where there is none that is valid."""
    try:
        # The method of the base class: that of PNG decodes the whole image first.
        found = Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1)
    except Exception:
        return 1
    return found if found in range(1, 9) else 1
