"""Flowers102: a plain tar (named .tgz) of numbered images, labels 1..102 and the splits' numbers as .mat files."""

import io

import numpy as np

from miniatures.drawing import decoded, drawn, jpeg, tarred
from miniatures.place import Example, Places, Truth, put

URL = "https://www.robots.ox.ac.uk/~vgg/data/flowers/102/"
CLASSES = 102
# TFDS split -> its list in setid.mat, images of each class: 816, 204 and 102 in all.
SPLITS = {"train": ("trnid", 8), "validation": ("valid", 2), "test": ("tstid", 1)}


def make(places: Places, seed: int = 0) -> Truth:
    rng = np.random.default_rng(seed)
    truth: Truth = {}
    numbers = iter(rng.permutation(CLASSES * sum(each for _, each in SPLITS.values())) + 1)
    labels: dict[int, int] = {}
    lists: dict[str, np.ndarray] = {}
    files = {}
    for split, (name, each) in SPLITS.items():
        truth[split], chosen = [], []
        for label in range(CLASSES):
            for _ in range(each):
                number = int(next(numbers))
                height, width = rng.integers(20, 60, 2)
                data = jpeg(drawn(rng, height, width))
                files[f"jpg/image_{number:05d}.jpg"] = data
                labels[number] = label
                chosen.append(number)
                truth[split].append(
                    Example(f"image_{number:05d}.jpg", {"oxford-flowers102": label}, decoded(data)),
                )
        lists[name] = np.array([chosen], np.uint16)
    by_number = np.array([[labels[number] + 1 for number in sorted(labels)]], np.uint8)
    put(places, "oxford_flowers102", URL + "102flowers.tgz", tarred(files), "102flowers.tgz")
    put(places, "oxford_flowers102", URL + "imagelabels.mat", _mat(labels=by_number), "imagelabels.mat")
    put(places, "oxford_flowers102", URL + "setid.mat", _mat(**lists), "setid.mat")
    return truth


def _mat(**arrays: np.ndarray) -> bytes:
    from scipy.io import savemat

    buffer = io.BytesIO()
    savemat(buffer, arrays)
    return buffer.getvalue()
