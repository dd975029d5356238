"""Drawn images for the miniatures, their files, and archives of them."""

import io
import tarfile
import zipfile
from collections.abc import Mapping

import numpy as np
from PIL import Image


def drawn(rng: np.random.Generator, height: int, width: int, channels: int = 3, boxes: int = 3) -> np.ndarray:
    """A shaded ground with a few rectangles, uint8 (height, width, channels); no two draws are alike.

    Without boxes it is smooth, so that a JPEG of it is close to it.
    """
    across, down = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    slopes, base = rng.uniform(-90, 90, (2, channels)), rng.uniform(90, 165, channels)
    pixels = base + across[..., None] * slopes[0] + down[..., None] * slopes[1]
    for _ in range(boxes):
        top, left = rng.integers(0, height), rng.integers(0, width)
        high, wide = rng.integers(1, height // 2 + 2), rng.integers(1, width // 2 + 2)
        pixels[top : top + high, left : left + wide] = rng.uniform(0, 255, channels)
    return np.clip(pixels, 0, 255).astype(np.uint8)


def encoded(pixels: np.ndarray | Image.Image, kind: str = "PNG", **options) -> bytes:
    """The file of an image (H, W, C) with 1, 3 or 4 channels, or of a PIL image."""
    if isinstance(pixels, np.ndarray):
        pixels = Image.fromarray(pixels[..., 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels)
    buffer = io.BytesIO()
    pixels.save(buffer, kind, **options)
    return buffer.getvalue()


def jpeg(pixels: np.ndarray, quality: int = 90) -> bytes:
    return encoded(pixels, "JPEG", quality=quality)


def decoded(data: bytes, channels: int = 3) -> np.ndarray:
    """What TensorFlow makes of an image file, as TFDS asks it: decoders differ in the last bit of a JPEG."""
    import tensorflow as tf

    return tf.io.decode_image(data, channels=channels, expand_animations=False).numpy()


def tarred(files: Mapping[str, bytes], compression: str = "") -> bytes:
    """A tar of the files in the given order; `compression` is "", "gz" or "bz2"."""
    buffer = io.BytesIO()
    quick = {"compresslevel": 1} if compression else {}
    with tarfile.open(fileobj=buffer, mode=f"w:{compression}", **quick) as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def zipped(files: Mapping[str, bytes]) -> bytes:
    """A zip of the files in the given order."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()
