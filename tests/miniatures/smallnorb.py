"""smallNORB: two times three gzipped binary matrices: stereo pairs, categories, and four factors of each pair."""

import gzip
import itertools

import numpy as np

from miniatures.drawing import drawn
from miniatures.place import Example, Places, Truth, put

FOLDER = "https://cs.nyu.edu/~ylclab/data/norb-v1.0-small/"
FILES = {
    "train": "smallnorb-5x46789x9x18x6x2x96x96-training-{}.mat.gz",
    "test": "smallnorb-5x01235x9x18x6x2x96x96-testing-{}.mat.gz",
}
INSTANCES = {"train": (4, 6, 7, 8, 9), "test": (0, 1, 2, 3, 5)}
ROUNDS = {"train": 5, "test": 3}  # how often each of the 9 x 18 views occurs: 810 and 486 pairs
MAGIC = {np.dtype(np.uint8): 0x1E3D4C55, np.dtype(np.int32): 0x1E3D4C54}


def make(places: Places, seed: int = 0) -> Truth:
    rng = np.random.default_rng(seed)
    truth: Truth = {}
    for split, name in FILES.items():
        views = list(itertools.product(range(9), range(0, 36, 2))) * ROUNDS[split]
        rng.shuffle(views)
        count = len(views)
        pairs = np.stack([[drawn(rng, 96, 96, 1)[..., 0] for _ in range(2)] for _ in range(count)])
        categories = rng.integers(0, 5, count)
        info = [[rng.choice(INSTANCES[split]), *view, rng.integers(6)] for view in views]
        for kind, values in (("dat", pairs), ("cat", categories), ("info", np.array(info))):
            matrix = values if kind == "dat" else values.astype(np.int32)
            file = name.format(kind)
            put(places, "smallnorb", FOLDER + file, gzip.compress(_matrix(matrix), 1), file)
        truth[split] = [
            Example(
                str(i),
                {"smallnorb-azimuth": int(azimuth) // 2, "smallnorb-elevation": int(elevation)},
                pairs[i, 0, :, :, None],
            )
            for i, (elevation, azimuth) in enumerate(views)
        ]
    return truth


def _matrix(values: np.ndarray) -> bytes:
    """Magic number, number of dimensions, the sizes (at least three, filled with 1), little-endian int32; then data."""
    sizes = [*values.shape, *[1] * (3 - values.ndim)]
    head = np.array([MAGIC[values.dtype], values.ndim, *sizes], "<i4").tobytes()
    return head + (values.tobytes() if values.dtype == np.uint8 else values.astype("<i4").tobytes())
