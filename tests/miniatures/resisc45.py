"""RESISC45: the unpacked folder NWPU-RESISC45/<class>/<class>_<number>.jpg, 256 by 256 pixels, a manual download."""

import numpy as np

from miniatures.drawing import decoded, drawn, jpeg
from miniatures.place import Example, Places, Truth

# In the order of the labels, which is that of the alphabet.
CLASSES = [
    "airplane",
    "airport",
    "baseball_diamond",
    "basketball_court",
    "beach",
    "bridge",
    "chaparral",
    "church",
    "circular_farmland",
    "cloud",
    "commercial_area",
    "dense_residential",
    "desert",
    "forest",
    "freeway",
    "golf_course",
    "ground_track_field",
    "harbor",
    "industrial_area",
    "intersection",
    "island",
    "lake",
    "meadow",
    "medium_residential",
    "mobile_home_park",
    "mountain",
    "overpass",
    "palace",
    "parking_lot",
    "railway",
    "railway_station",
    "rectangular_farmland",
    "river",
    "roundabout",
    "runway",
    "sea_ice",
    "ship",
    "snowberg",
    "sparse_residential",
    "stadium",
    "storage_tank",
    "tennis_court",
    "terrace",
    "thermal_power_station",
    "wetland",
]
PER_CLASS = 4


def make(places: Places, seed: int = 0) -> Truth:
    rng = np.random.default_rng(seed)
    examples = []
    for label, name in enumerate(CLASSES):
        folder = places.manual / "NWPU-RESISC45" / name
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(1, PER_CLASS + 1):
            file, data = f"{name}_{number:03d}.jpg", jpeg(drawn(rng, 256, 256))
            (folder / file).write_bytes(data)
            examples.append(Example(file, {"resisc45": label}, decoded(data), key=f"{name}_{file}"))
    return {"train": examples}
