"""Caltech101: a zip that holds a tar.gz of one folder a class, in an order that is nobody's alphabet.

The builder draws 30 images of each class for train with a fixed seed from the listing of the folders, so the listing's
order decides. Here the truth is the draw from sorted names.
"""

from pathlib import Path

import numpy as np

from miniatures.drawing import decoded, drawn, encoded, jpeg, tarred, zipped
from miniatures.place import Example, Places, Truth, put

URL = "https://data.caltech.edu/records/mzrjq-6wc02/files/caltech-101.zip?download=1"
TOP = "101_ObjectCategories"
# The official folders that are not in lower case; TFDS' label is the name in lower case.
FOLDERS = {"background_google": "BACKGROUND_Google", **{n: n.capitalize() for n in ("faces", "leopards", "motorbikes")}}
FOLDERS["faces_easy"] = "Faces_easy"
TRAIN, TEST = 30, 3


def make(places: Places, seed: int = 0) -> Truth:
    rng = np.random.default_rng(seed)
    images: dict[str, dict[str, bytes]] = {}
    for name in _classes():
        folder = images.setdefault(FOLDERS.get(name, name), {})
        for index in range(TRAIN + TEST):
            height, width = rng.integers(16, 40, 2)
            pixels = drawn(rng, height, width)
            # Some official images are grey.
            folder[f"image_{index + 1:04d}.jpg"] = encoded(pixels[..., :1], "JPEG") if index == 0 else jpeg(pixels)
    # The official background folder has a file that is no image.
    images[FOLDERS["background_google"]]["tmp"] = b"not an image"
    return pack(places, images, seed)


def pack(places: Places, images: dict[str, dict[str, bytes]], seed: int = 0) -> Truth:
    """Lay the archive of images[folder][file], and return the split that the builder's draw makes of sorted names."""
    paths = sorted(f"{folder}/{file}" for folder, files in images.items() for file in files)
    shuffled = [str(path) for path in np.random.default_rng(seed).permutation(paths)]
    files = {f"{TOP}/{path}": images[path.split("/")[0]][path.split("/")[1]] for path in shuffled}
    archive = zipped({"caltech-101/Annotations.tar": tarred({}), f"caltech-101/{TOP}.tar.gz": tarred(files, "gz")})
    put(places, "caltech101", URL, archive, "caltech-101.zip")
    classes, draws = _classes(), np.random.RandomState(1234)
    truth: Truth = {"train": [], "test": []}
    for folder in sorted(images):
        chosen = set(draws.choice(sorted(images[folder]), TRAIN, replace=False))
        for file, data in images[folder].items():
            if file.endswith(".jpg"):
                name, label = f"{folder.lower()}/{file}", classes.index(folder.lower())
                example = Example(name, {"caltech101": label}, decoded(data), key=f"{folder}/{file}")
                truth["train" if file in chosen else "test"].append(example)
    return truth


def _classes() -> list[str]:
    import tensorflow_datasets as tfds

    return Path(tfds.core.tfds_path("image_classification/caltech101_labels.txt")).read_text().split()
