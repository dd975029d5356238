"""DTD: one plain tar (named .tar.gz) of images by class and the lists of ten folds; the task uses the first."""

from pathlib import Path

import numpy as np

from miniatures.drawing import decoded, drawn, jpeg, tarred
from miniatures.place import Example, Places, Truth, put

URL = "https://www.robots.ox.ac.uk/~vgg/data/dtd/download/dtd-r1.0.1.tar.gz"
# Images of each class; 47 classes make 846, 235 and 94.
EACH = {"train": 18, "val": 5, "test": 2}
TFDS_SPLITS = {"train": "train", "val": "validation", "test": "test"}


def make(places: Places, seed: int = 0) -> Truth:
    import tensorflow_datasets as tfds

    rng = np.random.default_rng(seed)
    names = Path(tfds.core.tfds_path("image_classification/dtd_key_attributes.txt")).read_text().split()
    truth: Truth = {split: [] for split in TFDS_SPLITS.values()}
    lists: dict[str, list[str]] = {split: [] for split in EACH}
    files = {}
    for label, name in enumerate(sorted(names)):
        order = iter(rng.permutation(sum(EACH.values())) + 1)
        for split, count in EACH.items():
            for _ in range(count):
                file = f"{name}/{name}_{next(order):04d}.jpg"
                height, width = rng.integers(20, 60, 2)
                data = jpeg(drawn(rng, height, width))
                files[f"dtd/images/{file}"] = data
                lists[split].append(file)
                truth[TFDS_SPLITS[split]].append(Example(file, {"dtd": label}, decoded(data)))
    for split, chosen in lists.items():
        files[f"dtd/labels/{split}1.txt"] = _lines(chosen)
    # The other folds deal the same images otherwise: whoever reads one of them fails.
    for split, other in zip(EACH, ("val", "test", "train"), strict=True):
        files[f"dtd/labels/{split}2.txt"] = _lines(lists[other])
    put(places, "dtd", URL, tarred(files), "dtd-r1.0.1.tar.gz")
    return truth


def _lines(names: list[str]) -> bytes:
    return "".join(f"{name}\n" for name in names).encode()
