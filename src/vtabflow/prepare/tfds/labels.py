"""Label rules: from an example of TFDS to its class, where that is not a feature of TFDS.

Source: google-research/task_adaptation at d7630d3, data/clevr.py, kitti.py and dsprites.py; docs/protocol.md#labels.
An example is a mapping of features as TFDS deserialises them: ints, and for the objects of a scene a mapping of
arrays with one row per object.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

Example = Mapping[str, Any]
Rule = Callable[[Example], int]

CLEVR_DEPTHS = (0.0, 8.0, 8.5, 9.0, 9.5, 10.0, 100.0)
KITTI_METRES = (-100.0, 8.0, 20.0, 999.0)
KITTI_VEHICLES = 3  # types 0, 1 and 2 are Car, Van and Truck
KITTI_NO_VEHICLE = 1000.0  # metres


def last_below(thresholds: Sequence[float], value: float) -> int:
    """The largest i with thresholds[i] < value, compared in float32; -1 if there is none. A tie is the lower class."""
    below = np.asarray(thresholds, np.float32) < np.float32(value)
    return int(np.flatnonzero(below)[-1]) if below.any() else -1


def clevr_count(example: Example) -> int:
    """Objects in the scene, 3 to 10, minus 3: classes 0 to 7."""
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
    return last_below(KITTI_METRES, min([*depths, np.float32(KITTI_NO_VEHICLE)]))


def dsprites_location(example: Example) -> int:
    """Horizontal position, 32 -> 16 equal bins."""
    return int(example["label_x_position"]) * 16 // 32


def dsprites_orientation(example: Example) -> int:
    """Orientation, 40 -> 16 bins by floor(angle / 2.5): even classes have three angles, odd ones two."""
    return int(example["label_orientation"]) * 16 // 40


# By the name that is a task's `label` in its dataset's YAML file; `features` there are what the function reads.
RULES: dict[str, Rule] = {
    "clevr_count": clevr_count,
    "clevr_distance": clevr_distance,
    "kitti_distance": kitti_distance,
    "dsprites_location": dsprites_location,
    "dsprites_orientation": dsprites_orientation,
}


def class_of(label: str, example: Example) -> int:
    """The class of an example by a task's `label`: a name of RULES, or an integer feature."""
    return RULES[label](example) if label in RULES else int(example[label])
