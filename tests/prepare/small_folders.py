"""What the tests of the folder source share: small images, folders and zips of them, and a spec."""

import io
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vtabflow.contracts.specs import FolderSettings, ImageSpec, SplitFractions, StoreSpec
from vtabflow.prepare import store
from vtabflow.prepare.folders import source as folder

RNG = np.random.default_rng(0)


def encoded(pixels: np.ndarray | Image.Image, kind: str = "PNG", **options) -> bytes:
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def noise(height: int = 8, width: int = 8, channels: int = 3) -> np.ndarray:
    pixels = RNG.integers(0, 256, (height, width, channels), np.uint8)
    return pixels[:, :, 0] if channels == 1 else pixels


def write_files(root: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def zipped(path: Path, files: dict[str, bytes], top: str = "") -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(top + name, data)
    return path


def spec_for(path: Path, place: Path, size: int = 8, rows: Any = "all", seed: int = 0, **settings) -> StoreSpec:
    """The spec of the folder or zip `path`; the store, its receipt and its manifest are below `place`."""
    fractions = SplitFractions(seed, settings.pop("fractions", (0.6, 0.2, 0.2)))
    return StoreSpec(
        key="k",
        dataset="mine",
        folder=str(place / "store"),
        receipt=str(place / "store.json"),
        manifest=str(place / "manifest.json"),
        source="folder",
        settings=FolderSettings(
            **{"path": str(path), "invalid": "skip", "role": "task", "split": fractions, **settings}
        ),
        image=ImageSpec(size, "legacy"),
        rows=rows,
        tasks=("mine",),
        classes={},
        identity={},
        code="1",
    )


def prepared(path: Path, place: Path, **options) -> store.Store:
    spec = spec_for(path, place, **options)
    folder.make(spec)
    return store.open_store(spec.folder)


def classes_of(counts: dict[str, int], prefix: str = "") -> dict[str, bytes]:
    return {f"{prefix}{label}/{i}.png": encoded(noise()) for label, n in counts.items() for i in range(n)}


def given_splits(splits=("train", "val", "test"), n: int = 12) -> dict[str, bytes]:
    return {name: data for split in splits for name, data in classes_of({"a": n, "b": n, "c": n}, split + "/").items()}


def bomb() -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


BROKEN = {
    "empty.png": (b"", "is empty"),
    "text.png": (b"hello, I am no image", "is not an image"),
    "script.eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "is not an image"),
    "cut.png": (encoded(noise(64, 64))[:3000], "is broken"),
    "cut.jpg": (encoded(noise(64, 64), "JPEG")[:1500], "is broken"),
    "bomb.png": (bomb(), "has more than 89478485 pixels"),
    "float.tif": (encoded(np.ones((4, 4), np.float32), "TIFF"), "range is not known"),
    "int.tif": (encoded(np.ones((4, 4), np.int32), "TIFF"), "range is not known"),
}
