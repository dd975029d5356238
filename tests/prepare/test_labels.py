"""The label rules at their boundaries (docs/protocol.md#labels)."""

from collections import Counter

import numpy as np
import pytest

from vtabflow.planning.tasks import vtab
from vtabflow.prepare.tfds.datasets import datasets
from vtabflow.prepare.tfds.labels import RULES, class_of, last_below


def scene(*depths):
    coordinates = [[100.0 + i, 50.0, depth] for i, depth in enumerate(depths)]
    return {"objects": {"pixel_coords": np.array(coordinates, np.float32).reshape(-1, 3)}}


def road(*objects):
    """(type, metres) of each object."""
    return {
        "objects": {
            "type": np.array([kind for kind, _ in objects], np.int64),
            "location": np.array([[-3.0, 1.5, z] for _, z in objects], np.float32).reshape(-1, 3),
        }
    }


def label_of(task, example):
    """The class of an example by the rule that the task's dataset file names."""
    dataset = datasets()[vtab()[task].dataset]
    return class_of(dataset.tasks[task].label, example)


def test_every_rule_is_used_and_says_what_it_reads():
    tasks = [task for dataset in datasets().values() for task in dataset.tasks.values()]
    assert {task.label for task in tasks} & set(RULES) == set(RULES)
    assert all(bool(task.features) == (task.label in RULES) for task in tasks)


@pytest.mark.parametrize("task", [name for name, task in vtab().items() if task.group != "structured"] + ["dmlab"])
def test_labels_of_tfds_are_unchanged(task):
    for label in (0, 1, vtab()[task].classes - 1):
        found = label_of(task, {"label": np.int64(label), "coarse_label": 1})
        assert found == label and type(found) is int


def test_clevr_count():
    assert [label_of("clevr-count", scene(*[9.0] * n)) for n in range(3, 11)] == list(range(8))


@pytest.mark.parametrize(
    ("depth", "label"),
    [
        (0.5, 0),
        (8.0, 0),
        (np.nextafter(np.float32(8), np.float32(9)), 1),
        (8.5, 1),
        (np.nextafter(np.float32(8.5), np.float32(9)), 2),
        (9.0, 2),
        (9.25, 3),
        (9.5, 3),
        (9.75, 4),
        (10.0, 4),
        (np.nextafter(np.float32(10), np.float32(11)), 5),
        (100.0, 5),
    ],
)
def test_clevr_distance(depth, label):
    assert label_of("clevr-distance", scene(12.0, depth, 100.0)) == label
    assert label_of("clevr-distance", scene(depth, 100.0)) == label


def test_comparison_is_in_float32():
    # As 64-bit numbers both lie above the threshold; their nearest 32-bit number is the threshold: the lower class.
    above = 8.5 + 1e-8
    assert above > 8.5 and np.float32(above) == np.float32(8.5)
    assert label_of("clevr-distance", {"objects": {"pixel_coords": np.array([[0, 0, above]], np.float64)}}) == 1
    assert last_below((0.0, 8.5), above) == 0
    # Nor is a threshold that 32 bits cannot hold kept at 64: 0.1 is a little more as a float32.
    assert last_below((0.1,), np.float32(0.1)) == -1
    far = 20 + 1e-7
    assert far > 20 and np.float32(far) == 20
    objects = {"type": np.array([0]), "location": np.array([[0, 0, far]], np.float64)}
    assert label_of("kitti-distance", {"objects": objects}) == 1


def test_what_lies_outside_clevrs_range_is_no_class():
    # The store refuses labels outside 0..5.
    assert label_of("clevr-distance", scene(100.5)) == 6
    assert label_of("clevr-distance", scene(0.0, 9.0)) == -1


@pytest.mark.parametrize(
    ("objects", "label"),
    [
        ([(0, 8.0)], 0),
        ([(0, 8.01)], 1),
        ([(1, 20.0)], 1),
        ([(2, 20.01)], 2),
        ([(0, 999.0)], 2),
        ([(0, 50.0), (1, 10.0), (2, 30.0)], 1),
        ([(3, 2.0), (4, 2.0), (5, 2.0), (6, 2.0), (7, 2.0), (0, 30.0)], 2),  # not a person, cyclist, tram or other
        ([(3, 2.0), (6, 2.0)], 3),
        ([], 3),
        ([(0, -2.5)], 0),  # beside the camera
        ([(0, 1200.0)], 3),  # the constant 1000 is nearer
    ],
)
def test_kitti_distance(objects, label):
    assert label_of("kitti-distance", road(*objects)) == label


def test_dsprites_location_has_equal_bins():
    found = [label_of("dsprites-location", {"label_x_position": x, "label_y_position": 31}) for x in range(32)]
    assert found == [label for label in range(16) for _ in range(2)]


def test_dsprites_orientation_has_unequal_bins():
    found = [label_of("dsprites-orientation", {"label_orientation": angle}) for angle in range(40)]
    assert found == [int(np.floor(np.float32(angle) / np.float32(2.5))) for angle in range(40)]
    assert found == sorted(found) and list(Counter(found).values()) == [3, 2] * 8


def test_smallnorb():
    example = {"label_azimuth": 17, "label_elevation": 8, "label_category": 4}
    assert label_of("smallnorb-azimuth", example) == 17 and label_of("smallnorb-elevation", example) == 8
