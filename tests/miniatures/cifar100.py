"""CIFAR-100: one tar of two binary files, each row two label bytes (coarse, fine) and 3072 bytes of planes."""

import numpy as np

from miniatures.drawing import drawn, tarred
from miniatures.place import Example, Places, Truth, put

URL = "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz"
COUNTS = {"train": 2000, "test": 300}


def make(places: Places, seed: int = 0) -> Truth:
    rng = np.random.default_rng(seed)
    truth: Truth = {}
    files = {
        "cifar-100-binary/coarse_label_names.txt": "".join(f"coarse{i}\n" for i in range(20)).encode(),
        "cifar-100-binary/fine_label_names.txt": "".join(f"fine{i}\n" for i in range(100)).encode(),
    }
    for split, count in COUNTS.items():
        truth[split], rows = [], []
        for index in range(count):
            pixels, fine = drawn(rng, 32, 32), int(rng.integers(100))
            rows.append(bytes([fine // 5, fine]) + pixels.transpose(2, 0, 1).tobytes())
            truth[split].append(Example(f"{split}_{index:05d}", {"cifar100": fine}, pixels, key=str(index)))
        files[f"cifar-100-binary/{split}.bin"] = b"".join(rows)
    put(places, "cifar100", URL, tarred(files, "gz"), "cifar-100-binary.tar.gz")
    return truth
