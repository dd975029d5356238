"""PatchCamelyon: six gzipped HDF5 files, the images in `x` (n, 96, 96, 3) and the labels in `y` (n, 1, 1, 1)."""

import gzip
import io

import h5py
import numpy as np

from miniatures.drawing import drawn
from miniatures.place import Example, Places, Truth, put

FOLDER = "https://zenodo.org/record/2546921/files/"
COUNTS = {"train": 900, "valid": 240, "test": 60}
# TFDS calls the split "validation", the keys of its examples say "valid".
SPLITS = {"train": "train", "valid": "validation", "test": "test"}


def make(places: Places, seed: int = 0) -> Truth:
    rng = np.random.default_rng(seed)
    truth: Truth = {}
    for name, count in COUNTS.items():
        pixels = np.stack([drawn(rng, 96, 96) for _ in range(count)])
        tumour = rng.integers(0, 2, count)
        for kind, values in (("x", pixels), ("y", tumour.astype(np.uint8).reshape(count, 1, 1, 1))):
            file = f"camelyonpatch_level_2_split_{name}_{kind}.h5.gz"
            put(places, "patch_camelyon", FOLDER + file, gzip.compress(_hdf5(kind, values), 1), file)
        truth[SPLITS[name]] = [
            Example(f"{name}_{i}", {"patch-camelyon": int(tumour[i])}, pixels[i]) for i in range(count)
        ]
    return truth


def _hdf5(name: str, values: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file[name] = values
    return buffer.getvalue()
