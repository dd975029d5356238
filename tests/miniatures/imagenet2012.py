"""ImageNet: the tar of class tars and the tar of validation images, and the same images as an extracted tree.

Among them files that are CMYK or PNG under the names for which TFDS' builder has its own treatment, and grey ones.
"""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from miniatures.drawing import drawn, encoded, jpeg, tarred
from miniatures.place import Example, Places, Truth, put

SUBSET_URL = "https://raw.githubusercontent.com/google-research/simclr/master/imagenet_subsets/10percent.txt"
# The first three have a CMYK file each and the fourth the PNG, as in ILSVRC-2012.
ODD = {"n01739381_1309": "CMYK", "n02077923_14822": "CMYK", "n07583066_647": "CMYK", "n02105855_2933": "PNG"}
WNIDS = ("n01440764", "n01739381", "n02077923", "n02105855", "n07583066")
EACH = 20
GREY = 3  # of each class
# What a quality of 100 with half the colour resolution, and TensorFlow's quick inverse transform, change at the most.
TOLERANCE = 3.0

Files = dict[str, dict[str, bytes]]


def files(seed: int = 0) -> Files:
    """wnid -> file name -> bytes."""
    rng = np.random.default_rng(seed)
    return {wnid: dict(_file(rng, wnid, i) for i in range(EACH)) for wnid in WNIDS}


def _file(rng: np.random.Generator, wnid: str, i: int) -> tuple[str, bytes]:
    height, width = (int(n) for n in rng.integers(40, 120, 2))
    odd = next((name for name in ODD if name.startswith(f"{wnid}_")), None)
    if i == 0 and odd:
        if ODD[odd] == "PNG":
            return f"{odd}.JPEG", encoded(drawn(rng, height, width))
        return f"{odd}.JPEG", encoded(Image.fromarray(drawn(rng, height, width, 4, 0), "CMYK"), "JPEG", quality=95)
    name = f"{wnid}_{int(rng.integers(100)) + 100 * i}.JPEG"
    return name, jpeg(drawn(rng, height, width, 1 if i <= GREY else 3))


def make(places: Places, seed: int = 0) -> Truth:
    """The official tars in places.manual. Labels are numbers among the classes that are there, in their order."""
    made = files(seed)
    lay_tars(places, made)
    truth: Truth = {"train": []}
    for label, wnid in enumerate(sorted(made)):
        for name, data in made[wnid].items():
            tolerance = TOLERANCE if name.removesuffix(".JPEG") in ODD else 0.0
            truth["train"].append(Example(name, {"imagenet": label}, pixels(data), tolerance=tolerance))
    return truth


def pixels(data: bytes) -> np.ndarray:
    """What Pillow makes of a file, uint8 (H, W, 3)."""
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def lay_tars(places: Places, made: Files, validation: int = 5) -> None:
    """ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar."""
    rng = np.random.default_rng(1)
    inner = {f"{wnid}.tar": tarred(made[wnid]) for wnid in made}
    (places.manual / "ILSVRC2012_img_train.tar").write_bytes(tarred(inner))
    images = {f"ILSVRC2012_val_{i + 1:08}.JPEG": jpeg(drawn(rng, 40, 50)) for i in range(validation)}
    (places.manual / "ILSVRC2012_img_val.tar").write_bytes(tarred(images))


def lay_tree(folder: Path, made: Files, below: str = "train") -> Path:
    """<folder>/train/<wnid>/<file>; `below` "" leaves train/ out."""
    for wnid, each in made.items():
        (folder / below / wnid).mkdir(parents=True)
        for name, data in each.items():
            (folder / below / wnid / name).write_bytes(data)
    return folder


def put_subset(places: Places, names: list[str]) -> None:
    """The list of TFDS' imagenet2012_subset/10pct where TFDS looks for it."""
    put(places, "imagenet2012_subset", SUBSET_URL, "".join(f"{name}\n" for name in names).encode(), "10percent.txt")
