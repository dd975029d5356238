"""dSprites: an HDF5 file of images, pixels 0 and 1, with the six latent factors of each as classes and as values."""

import io

import h5py
import numpy as np

from miniatures.place import Example, Places, Truth, put

URL = (
    "https://github.com/deepmind/dsprites-dataset/blob/master/dsprites_ndarray_co1sh3sc6or40x32y32_64x64.hdf5?raw=true"
)
NAME = "dsprites_ndarray_co1sh3sc6or40x32y32_64x64.hdf5"
COUNT = 2000
# Colour, shape, scale, orientation, x and y: how many values each factor has, and which.
LATENTS = (1, 3, 6, 40, 32, 32)
VALUES = ((1, 1), (1, 3), (0.5, 1), (0, 2 * np.pi), (0, 1), (0, 1))
# 40 angles in 16 classes of 2.5 angles: the even classes hold three, the odd ones two.
ANGLES = [label for label in range(16) for _ in range(3 if label % 2 == 0 else 2)]


def make(places: Places, seed: int = 0) -> Truth:
    """The real file holds each combination of the factors once; here are random ones, with every value of a factor."""
    rng = np.random.default_rng(seed)
    classes = np.stack([rng.permutation(np.arange(COUNT) % size) for size in LATENTS], 1)
    values = np.stack(
        [np.linspace(*ends, size)[column] for ends, size, column in zip(VALUES, LATENTS, classes.T, strict=True)], 1
    )
    images = np.stack([_sprite(*row[1:]) for row in values])
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file.create_dataset("imgs", data=images, compression="gzip", compression_opts=1)
        file["latents/classes"] = classes.astype(np.int64)
        file["latents/values"] = values
    put(places, "dsprites", URL, buffer.getvalue(), NAME)
    examples = []
    for index, (_, _, _, angle, x, _) in enumerate(classes):
        labels = {"dsprites-location": int(x) // 2, "dsprites-orientation": ANGLES[angle]}
        examples.append(Example(str(index), labels, images[index, :, :, None]))
    return {"train": examples}


def _sprite(shape: float, scale: float, angle: float, x: float, y: float) -> np.ndarray:
    """A square, an ellipse or a triangle in place of the heart, turned by `angle`; uint8 0 and 1 (64, 64)."""
    row, column = np.mgrid[:64, :64]
    across, down = (column - 12 - 40 * x) / (10 * scale), (row - 12 - 40 * y) / (10 * scale)
    u = across * np.cos(angle) + down * np.sin(angle)
    v = down * np.cos(angle) - across * np.sin(angle)
    if shape == 1:
        inside = np.maximum(abs(u), abs(v)) <= 0.7
    elif shape == 2:
        inside = u**2 + (2 * v) ** 2 <= 1
    else:
        inside = (v <= 0.6) & (v >= 2 * abs(u) - 0.9)
    return inside.astype(np.uint8)
