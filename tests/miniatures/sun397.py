"""Sun397: one tar.gz of images under names that TFDS' own lists know, and a zip of partitions that the task ignores.

The builder encodes every image anew (OpenCV's default quality), leaves out two broken files by name, one of which is in
the list of train, and shrinks what has more than 120,000 pixels.
"""

from pathlib import Path

import numpy as np
from PIL import Image

from miniatures.drawing import decoded, drawn, encoded, jpeg, tarred, zipped
from miniatures.place import Example, Places, Truth, put

URL = "https://vision.princeton.edu/projects/2010/SUN/"
LISTS = {"train": "tr", "validation": "va", "test": "te"}
COUNTS = {"train": 810, "validation": 205, "test": 60}
BROKEN = ("/c/church/outdoor/sun_bhenjvsvrtumjuri.jpg", "/t/track/outdoor/sun_aophkoiosslinihb.jpg")
# Encoding once more moves these smooth drawings by 1.1 levels at most; the two most alike of them differ by 6.8.
TOLERANCE = 2.0


def make(places: Places, seed: int = 0) -> Truth:
    import tensorflow_datasets as tfds

    rng = np.random.default_rng(seed)
    lists = Path(tfds.core.tfds_path("image_classification"))
    classes = (lists / "sun397_labels.txt").read_text().split()
    truth: Truth = {split: [] for split in LISTS}
    files = {f"SUN397{name}": b"\xff\xd8 this was never a picture" for name in BROKEN}
    for split, short in LISTS.items():
        names = [name for name in (lists / f"sun397_tfds_{short}.txt").read_text().splitlines() if name not in BROKEN]
        for place in sorted(rng.choice(len(names), COUNTS[split], replace=False)):
            name = names[place]
            data, pixels = _file(rng, len(truth[split]))
            files[f"SUN397{name}"] = data
            label = classes.index(name.rpartition("/")[0])
            truth[split].append(Example(name, {"sun397": label}, pixels, tolerance=TOLERANCE))
    files = {name: files[name] for name in sorted(files)}
    put(places, "sun397", URL + "SUN397.tar.gz", tarred(files, "gz"), "SUN397.tar.gz")
    partitions = zipped({"Training_01.txt": b"", "Testing_01.txt": b""})
    put(places, "sun397", URL + "download/Partitions.zip", partitions, "Partitions.zip")
    return truth


def _file(rng: np.random.Generator, index: int) -> tuple[bytes, np.ndarray]:
    """A file, whatever its name, and what the builder should make of it: all kinds occur in the official archive."""
    height, width = (int(length) for length in rng.integers(20, 60, 2))
    if index == 0:
        pixels = drawn(rng, 360, 500, boxes=0)
        # 500 x 360 has 180,000 pixels; the sides shrink by sqrt(2/3).
        smaller = np.asarray(Image.fromarray(pixels).resize((408, 294), Image.Resampling.BILINEAR))
        return jpeg(pixels, 95), smaller
    if index == 1:
        # 300 x 400 is 120,000 pixels: not more, so it keeps its size.
        pixels = drawn(rng, 300, 400, boxes=0)
        return jpeg(pixels), pixels
    pixels = drawn(rng, height, width, boxes=0)
    if index == 2:
        return encoded(pixels, "BMP"), pixels
    if index == 3:
        return encoded(np.concatenate([pixels, np.full((height, width, 1), 99, np.uint8)], axis=2)), pixels
    if index == 4:
        return encoded(pixels[..., :1]), pixels[..., :1].repeat(3, axis=2)
    if index == 5:
        grey = pixels[..., :1].repeat(3, axis=2)
        return encoded(Image.fromarray(grey).convert("L"), "GIF"), grey
    data = jpeg(pixels)
    return data, decoded(data)
