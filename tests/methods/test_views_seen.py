"""The documented inputs of each method's trunk, made again by augment.py's parts from the same random numbers."""

import pytest
import torch
from small_methods import BATCH, CLASSES, SIZE, make, make_rng

from vtabflow.methods.augment import (
    brightness_saturation,
    crop_boxes,
    crop_resize,
    hsv_noise,
    inception_crop,
    random_flips,
    rotations,
    standardise,
    to_float,
    to_gray,
)

VIEWS = 4  # of small_methods.SMALL
SQUARE, INCEPTION = (1.0, 1.0), (0.75, 1.33)


def cut(x, numbers, least, aspect, flip):
    """Crops of (B, 3, H, W), of at least this part of the area."""
    boxes = crop_boxes(len(x), *x.shape[2:], numbers, (least, 1.0), aspect)
    return crop_resize(x, boxes, SIZE, random_flips(len(x), numbers) if flip else None)


def crop(images, numbers):
    return cut(to_float(images), numbers, 0.05, INCEPTION, flip=True)


def crop_and_colour(images, numbers):
    return brightness_saturation(crop(images, numbers), numbers)


def rotated_crop(images, numbers):
    return rotations(crop(images, numbers))[0]


def rotated_crop_and_colour(images, numbers):
    return rotations(crop_and_colour(images, numbers))[0]


def crops_and_noise(images, numbers):
    return hsv_noise(crop(images.repeat_interleave(VIEWS, 0), numbers), numbers)


def grey_crops_and_colour(images, numbers):
    x = to_gray(to_float(images), numbers, 0.66).repeat_interleave(VIEWS, 0)
    return standardise(brightness_saturation(cut(x, numbers, 0.05, INCEPTION, flip=True), numbers))


# See docs/methods.
SEEN = {
    "rotation": rotated_crop_and_colour,  # inception_preprocess
    "exemplar": grey_crops_and_colour,  # self_supervision/exemplar.py
    "sup-100": crop_and_colour,  # config/supervised uses inception_preprocess
    "sup-10": crop,  # inception_crop and flip
    "semi-rotation-10": rotated_crop,  # S4L's config/s4l_rotation.sh: inception_crop|resize|flip_lr
    "sup-rotation-100": rotated_crop,  # as Semi-Rotation
    "semi-exemplar-10": crops_and_noise,  # inception_crop, hsvnoise, flip
    "sup-exemplar-100": crops_and_noise,  # as Semi-Exemplar
}


def oblong(method):
    """A batch of noise of another size and shape than the trunk's input."""
    g = torch.Generator().manual_seed(1)
    return {
        name: (torch.randint(256, (BATCH, 40, 36, 3), dtype=torch.uint8, generator=g), torch.arange(BATCH) % CLASSES)
        for name in method.streams
    }


def seen_by_trunk(method, group, batch):
    seen = []
    method.trunk.register_forward_hook(lambda _, inputs, out: seen.append(inputs[0]))
    method.losses(group, batch, make_rng(3))
    assert len(seen) == 1
    return seen[0]


@pytest.mark.parametrize("name", SEEN)
def test_the_trunk_sees_the_documented_views_of_each_stream(name):
    method, numbers = make(name), make_rng(3)
    batch = oblong(method)
    want = torch.cat([SEEN[name](batch[stream][0], numbers) for stream in method.streams])
    torch.testing.assert_close(seen_by_trunk(method, "main", batch), want, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("name", "least", "aspect", "flip"),
    [
        ("cond-biggan", 0.5, SQUARE, False),  # compare_gan's "distorted"
        ("uncond-biggan", 0.5, SQUARE, False),  # as Cond-BigGAN
        ("bigbigan", 0.08, (3 / 4, 4 / 3), True),  # random resized crop and flip, area [.08, 1]
    ],
)
def test_adversarial_methods_see_the_documented_crops(name, least, aspect, flip):
    method, numbers = make(name), make_rng(3)
    batch = oblong(method)
    if name != "bigbigan":
        numbers.normal((BATCH, method.config["latent"]))
    if name == "cond-biggan":
        numbers.integers((BATCH,), CLASSES)
    want = cut(to_float(batch["images"][0]), numbers, least, aspect, flip)
    # Behind the images come generated and rotated images.
    seen = seen_by_trunk(method, "discriminator", batch)[:BATCH]
    torch.testing.assert_close(seen, want, atol=1e-5, rtol=0)


def test_inception_crop_mirrors_half_of_the_images_left_and_right():
    """Images that grow brighter to the right and downwards: three standard deviations are 0.034."""
    slope = torch.arange(0, 64, 2, dtype=torch.uint8)
    images = (slope[:, None] + slope).expand(2000, SIZE, SIZE)[..., None]
    for flip, want in ((True, 0.5), (False, 0.0)):
        x = inception_crop(images, SIZE, make_rng(), flip=flip).mean(1)
        mirrored = x[:, :, 0].mean(1) > x[:, :, -1].mean(1)
        assert mirrored.double().mean().item() == pytest.approx(want, abs=0.034 if flip else 0)
        assert (x[:, 0].mean(1) < x[:, -1].mean(1)).all(), "none is upside down"
