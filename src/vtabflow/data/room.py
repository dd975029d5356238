"""The sizes of stores that do not exist yet."""

from collections import Counter
from pathlib import Path

import numpy as np

from vtabflow.contracts.specs import FolderSettings, ImageSpec, PackedImageSpec, StandinSettings, StoreSpec
from vtabflow.errors import UserError
from vtabflow.prepare.folders.scan import scan
from vtabflow.prepare.store import SPLITS, rows_needed
from vtabflow.prepare.tfds.datasets import dataset_of
from vtabflow.prepare.tfds.splits import parts

FINGERPRINTS = "scratch/fingerprints"  # of the folders that planning has read
IMAGENET_BYTES = 144_000_000_000  # of the JPEG files of train, without the padding of the tars
IMAGENET_SIDE = 500  # pixels: the longer side of most of them
LABEL, ID = 8, 24  # bytes; ids of folders are file names, which are known


def store_bytes(spec: StoreSpec, root: Path | str = ".") -> float:
    """The size of a store: rows times pixels, labels and ids; ImageNet's is an estimate.

    Args:
        spec: the store.
        root: the project's folder, for the path of a folder of images.
    """
    image = spec.image
    if isinstance(image, PackedImageSpec):
        # A JPEG shrinks about as its pixels do.
        return IMAGENET_BYTES * min(1.0, (image.side / IMAGENET_SIDE) ** 2 if image.side else 1.0)
    if isinstance(spec.settings, FolderSettings):
        return _folder_bytes(spec, spec.settings, image, Path(root))
    if isinstance(spec.settings, StandinSettings):
        rows = sum(rows_needed(spec, split, spec.settings.counts[split]) for split in SPLITS)
        return float(rows * (image.size**2 * 3 + LABEL * len(spec.tasks) + ID))
    return _tfds_bytes(spec, image)


def _tfds_bytes(spec: StoreSpec, image: ImageSpec) -> float:
    dataset = dataset_of(spec.dataset)
    height, width, channels = dataset.native or (image.size + 1, image.size + 1, 3)
    number = np.dtype(image.numbers).itemsize
    if max(height, width) > image.size:
        height = width = image.size
    elif dataset.native:
        number = 1  # unchanged pixels are uint8
    bounds = parts(str(dataset.split), dataset.counts)
    rows = sum(rows_needed(spec, split, stop - start) for split, (_, start, stop) in bounds.items())
    return float(rows * (height * width * channels * number + LABEL * len(spec.tasks) + ID))


def _folder_bytes(spec: StoreSpec, settings: FolderSettings, image: ImageSpec, root: Path) -> float:
    """Squares of the store's size; one channel if all images are grey. Zero if the folder cannot be read."""
    try:
        files = scan(root / settings.path, settings.layout, settings.decoding, root / FINGERPRINTS, spec.code).files
    except UserError:
        return 0.0
    given = Counter(file.entry.split for file in files)
    whole, fractions = given.pop("", 0), dict(zip(SPLITS, settings.split.fractions, strict=True))
    cut = {split: round(whole * fractions[split]) for split in ("val", "test")}
    counts = {split: given[split] + cut.get(split, whole - sum(cut.values())) for split in SPLITS}
    rows = sum(rows_needed(spec, split, count) for split, count in counts.items())
    channels = 1 if all(file.grey for file in files) else 3
    names = sum(len(file.entry.name.encode()) + 1 for file in files) / max(1, len(files))
    pixels = image.size**2 * channels * np.dtype(image.numbers).itemsize
    return float(rows * (pixels + LABEL * len(spec.tasks) + names))
