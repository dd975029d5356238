"""Rotation, Semi-Rotation and Sup-Rotation: what they start at, how streams are weighed, one batch overfit."""

import math

import pytest
import torch
from small_methods import BATCH, CLASSES, batch_for, make, make_rng, minimised, train

ROTATION, CLASS = math.log(4), math.log(CLASSES)


@pytest.mark.parametrize(
    ("name", "start"),
    [
        ("rotation", {"rotation": ROTATION}),
        ("semi-rotation-10", {"class": CLASS, "rotation": ROTATION}),
        ("sup-rotation-100", {"class": CLASS, "rotation": ROTATION}),
    ],
)
def test_losses_start_at_those_of_chance(name, start):
    method = make(name)
    losses = method.losses("main", batch_for(method), make_rng(0))
    for key, value in start.items():
        assert losses[key].item() == pytest.approx(value, abs=1e-6)
    assert minimised(losses).item() == pytest.approx(sum(start.values()), abs=1e-6)


@pytest.mark.parametrize(("name", "streams"), [("semi-rotation-10", 2), ("sup-rotation-100", 1)])
def test_streams_are_weighed_as_s4l_does(name, streams):
    """w * 1/2 * [rotation of unlabelled + rotation of labelled], or w times that of the labelled; the class of a
    labelled image in all four rotations."""
    method = make(name, rotation_weight=3.0)
    torch.nn.init.normal_(method.classify_rotation.weight)
    torch.nn.init.normal_(method.classify.weight)
    batch = batch_for(method)
    seen = {}
    method.trunk.register_forward_hook(lambda _, inputs, out: seen.update(x=inputs[0], features=out))
    losses = method.losses("main", batch, make_rng(0))
    assert len(seen["x"]) == streams * 4 * BATCH, "one pass over all streams"
    target = torch.arange(4).repeat_interleave(BATCH)
    parts = seen["features"].split(4 * BATCH)
    log = [torch.log_softmax(method.classify_rotation(part), 1) for part in parts]
    each = [-part[torch.arange(4 * BATCH), target].mean() for part in log]
    torch.testing.assert_close(losses["rotation"], 3.0 * sum(each) / streams)
    log = torch.log_softmax(method.classify(parts[-1]), 1)
    labels = batch["labelled"][1]
    want = -sum(log[k * BATCH + i, labels[i]] for k in range(4) for i in range(BATCH)) / (4 * BATCH)
    torch.testing.assert_close(losses["class"], want)


@pytest.mark.parametrize(("name", "streams"), [("rotation", 1), ("semi-rotation-10", 2), ("sup-rotation-100", 1)])
def test_the_trunk_sees_each_image_in_all_four_rotations(name, streams):
    method = make(name)
    seen = {}
    method.trunk.register_forward_hook(lambda _, inputs, out: seen.update(x=inputs[0]))
    method.losses("main", batch_for(method), make_rng(0))
    for part in seen["x"].split(4 * BATCH):
        for k, turned in enumerate(part.split(BATCH)):
            assert torch.equal(turned, torch.rot90(part[:BATCH], k, (2, 3)))
    assert len(seen["x"]) == streams * 4 * BATCH


@pytest.mark.parametrize("name", ["rotation", "semi-rotation-10", "sup-rotation-100"])
def test_one_batch_of_64_can_be_learnt_by_overfitting(name):
    method = make(name, size=16)
    last = train(method, 60, 5e-3, batch_for(method, 64), seed=lambda step: 0)["main"]
    assert last["rotation"] < 0.05 and last["accuracy"] == 1
    assert last.get("class", 0) < 0.05


@pytest.mark.parametrize("name", ["rotation", "semi-rotation-10", "sup-rotation-100"])
def test_rotated_images_have_no_borders_that_reveal_the_rotation(name):
    """No short cut: an image of one colour stays of one colour, to its last pixel, in every rotation; and an
    image that looks the same in all rotations gives four equal views.
    """
    method = make(name)
    seen = {}
    method.trunk.register_forward_hook(lambda _, inputs, out: seen.update(x=inputs[0]))
    batch = {
        stream: (images[:, :1, :1].expand(-1, method.size, method.size, -1).contiguous(), labels)
        for stream, (images, labels) in batch_for(method).items()
    }
    method.losses("main", batch, make_rng(0))
    x = seen["x"]
    assert (x.amax((2, 3)) - x.amin((2, 3))).abs().max() < 1e-5
    for upright, *turned in (part.split(BATCH) for part in x.split(4 * BATCH)):
        assert all((each - upright).abs().max() < 1e-5 for each in turned)
