"""The label rule of each of VTAB's 19 tasks: an example of TFDS -> its class.

Source: protocol.md section 1.3 (google-research/task_adaptation, data modules). An example is a mapping of features as
TFDS deserialises them: ints, and for the objects of a scene a mapping of arrays with one row an object.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

Example = Mapping[str, Any]
Rule = Callable[[Example], int]

CLEVR_DEPTHS = (0.0, 8.0, 8.5, 9.0, 9.5, 10.0, 100.0)
KITTI_METRES = (-100.0, 8.0, 20.0, 999.0)
KITTI_VEHICLES = 3  # types 0, 1 and 2 are Car, Van and Truck
KITTI_NOTHING = 1000.0  # metres, where there is no vehicle


def last_below(thresholds: Sequence[float], value: float) -> int:
    """The largest i with thresholds[i] < value, compared in float32; -1 if there is none. A tie is the lower class."""
    below = np.asarray(thresholds, np.float32) < np.float32(value)
    return int(np.flatnonzero(below)[-1]) if below.any() else -1


def clevr_count(example: Example) -> int:
    """Objects in the scene, 3 to 10, less 3: classes 0 to 7."""
    return len(example["objects"]["pixel_coords"]) - 3


def clevr_distance(example: Example) -> int:
    """Depth of the object nearest to the camera: (0, 8], (8, 8.5], (8.5, 9], (9, 9.5], (9.5, 10], (10, 100]."""
    depths = np.asarray(example["objects"]["pixel_coords"], np.float32)[:, 2]
    return last_below(CLEVR_DEPTHS, depths.min())


def kitti_distance(example: Example) -> int:
    """Distance of the nearest car, van or truck: up to 8 m, up to 20 m, more, 3 where there is none."""
    objects = example["objects"]
    vehicle = np.asarray(objects["type"]) < KITTI_VEHICLES
    depths = np.asarray(objects["location"], np.float32).reshape(-1, 3)[vehicle, 2]
    return last_below(KITTI_METRES, min([*depths, np.float32(KITTI_NOTHING)]))


def dsprites_location(example: Example) -> int:
    """Horizontal position, 32 -> 16 equal bins."""
    return int(example["label_x_position"]) * 16 // 32


def dsprites_orientation(example: Example) -> int:
    """Orientation, 40 -> 16 bins by floor(angle / 2.5): even classes hold three angles, odd ones two."""
    return int(example["label_orientation"]) * 16 // 40


def smallnorb_azimuth(example: Example) -> int:
    """Azimuth in steps of 20 degrees; TFDS has halved the raw value already."""
    return int(example["label_azimuth"])


def smallnorb_elevation(example: Example) -> int:
    """Elevation in steps of 5 degrees."""
    return int(example["label_elevation"])


def given(example: Example) -> int:
    """TFDS' own label."""
    return int(example["label"])


RULES: dict[str, Rule] = {
    "caltech101": given,
    "cifar100": given,
    "dtd": given,
    "oxford-flowers102": given,
    "oxford-iiit-pet": given,
    "sun397": given,
    "svhn": given,
    "patch-camelyon": given,
    "eurosat": given,
    "resisc45": given,
    "diabetic-retinopathy": given,
    "clevr-count": clevr_count,
    "clevr-distance": clevr_distance,
    "dmlab": given,
    "kitti-distance": kitti_distance,
    "dsprites-location": dsprites_location,
    "dsprites-orientation": dsprites_orientation,
    "smallnorb-azimuth": smallnorb_azimuth,
    "smallnorb-elevation": smallnorb_elevation,
}
# The features that the rules read, by dataset; "label" where it is not named here.
FEATURES: dict[str, tuple[str, ...]] = {
    "clevr": ("objects/pixel_coords",),
    "kitti": ("objects/type", "objects/location"),
    "dsprites": ("label_x_position", "label_orientation"),
    "smallnorb": ("label_azimuth", "label_elevation"),
}
