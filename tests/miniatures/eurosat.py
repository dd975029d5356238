"""EuroSAT, RGB: a zip of 2750/<class>/<class>_<number>.jpg, 64 by 64 pixels."""

import numpy as np

from miniatures.drawing import decoded, drawn, jpeg, zipped
from miniatures.place import Example, Places, Truth, put

URL = "http://madm.dfki.de/files/sentinel/EuroSAT.zip"
CLASSES = (
    "AnnualCrop",
    "Forest",
    "HerbaceousVegetation",
    "Highway",
    "Industrial",
    "Pasture",
    "PermanentCrop",
    "Residential",
    "River",
    "SeaLake",
)
# 1400 in all; as in the real set, the classes differ in size.
COUNTS = (160, 160, 160, 120, 120, 100, 120, 160, 140, 160)


def make(places: Places, seed: int = 0) -> Truth:
    rng = np.random.default_rng(seed)
    files, examples = {}, []
    for label, (name, count) in enumerate(zip(CLASSES, COUNTS, strict=True)):
        for number in range(1, count + 1):
            file, data = f"{name}_{number}.jpg", jpeg(drawn(rng, 64, 64))
            files[f"2750/{name}/{file}"] = data
            examples.append(Example(file, {"eurosat": label}, decoded(data), key=f"{name}_{file}"))
    put(places, "eurosat", URL, zipped(files), "EuroSAT.zip")
    return {"train": examples}
