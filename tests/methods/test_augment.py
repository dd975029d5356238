"""Augmentations against independent references."""

import colorsys

import numpy as np
import pytest
import torch
from PIL import Image

from vtabflow.methods import augment
from vtabflow.methods.batch_rng import BatchRNG


@pytest.fixture
def generator():
    return make_rng(0)


def make_rng(seed):
    return BatchRNG(torch.Generator().manual_seed(seed))


def random_images(n=4, size=8, channels=3):
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (n, size, size, channels), dtype=np.uint8))


def test_inception_crop_has_tensorflows_areas(generator):
    """Quantiles of TensorFlow's op. They are of crops of whole pixels, which come out up to 0.008 smaller.

    A torchvision-like crop is off by up to 0.086.
    """
    boxes = augment.crop_boxes(200_000, 224, 224, generator)
    area = (boxes[:, 2] * boxes[:, 3] / 224**2).numpy()
    got = np.quantile(area, [0.05, 0.10, 0.25, 0.50, 0.75, 0.90])
    np.testing.assert_allclose(got, [0.121, 0.143, 0.219, 0.381, 0.595, 0.747], atol=0.009)
    assert abs(area.mean() - 0.419) < 0.005
    assert area.min() > 0.0999


def tensorflow_box(rng, height, width):
    """TensorFlow's GenerateRandomCrop in whole pixels, one try after another."""
    while True:
        ratio = rng.uniform(0.75, 1.33)
        low, high = (round((a * height * width / ratio) ** 0.5) for a in (0.05, 1.0))
        if round(high * ratio) > width:
            high = int((width + 0.5 - 1e-7) / ratio)
        high = min(high, height)
        h = rng.integers(min(low, high), high + 1)
        w = round(h * ratio)
        if 0.05 * height * width <= w * h <= height * width and w <= width and w * h >= 0.1 * height * width:
            return h, w


@pytest.mark.parametrize(("height", "width"), [(300, 500), (500, 300)])
def test_crops_of_oblong_images_agree_with_a_pixel_by_pixel_reference(generator, height, width):
    rng = np.random.default_rng(0)
    want = np.array([tensorflow_box(rng, height, width) for _ in range(20_000)])
    boxes = augment.crop_boxes(200_000, height, width, generator).numpy()
    points = [0.05, 0.25, 0.5, 0.75, 0.95]
    for column, size in ((0, height), (1, width)):
        np.testing.assert_allclose(
            np.quantile(boxes[:, 2 + column], points) / size, np.quantile(want[:, column], points) / size, atol=0.012
        )


def test_boxes_lie_inside_and_anywhere(generator):
    top, left, h, w = augment.crop_boxes(50_000, 40, 60, generator).unbind(1)
    assert top.min() >= 0 and left.min() >= 0
    assert (top + h).max() <= 40 + 1e-4 and (left + w).max() <= 60 + 1e-4
    place = (top / (40 - h).clamp(min=1e-3))[h < 39]
    assert abs(place.mean() - 0.5) < 0.01 and abs(place.std() - 12**-0.5) < 0.01


def test_square_crops_of_half_the_area(generator):
    boxes = augment.crop_boxes(20_000, 32, 32, generator, (0.5, 1.0), (1.0, 1.0))
    torch.testing.assert_close(boxes[:, 2], boxes[:, 3])
    assert abs(boxes[:, 2].min() - 0.5**0.5 * 32) < 0.02 and boxes[:, 2].max() <= 32


def test_crop_of_the_whole_image_is_the_image_and_can_be_mirrored():
    x = augment.to_float(random_images())
    boxes = torch.tensor([[0.0, 0.0, 8.0, 8.0]]).expand(4, 4)
    torch.testing.assert_close(augment.crop_resize(x, boxes, 8), x, atol=1e-5, rtol=0)
    mirror = torch.tensor([1.0, -1.0, 1.0, -1.0])
    got = augment.crop_resize(x, boxes, 8, mirror)
    torch.testing.assert_close(got[1], x[1].flip(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(got[2], x[2], atol=1e-5, rtol=0)


def test_crop_at_whole_pixels_cuts_those_pixels():
    x = augment.to_float(random_images())
    boxes = torch.tensor([[1.0, 3.0, 4.0, 4.0]]).expand(4, 4)
    torch.testing.assert_close(augment.crop_resize(x, boxes, 4), x[:, :, 1:5, 3:7], atol=1e-5, rtol=0)


def test_half_are_mirrored(generator):
    assert abs(augment.random_flips(20_000, generator).mean()) < 0.03


def test_brightness_and_saturation_agree_with_hsv():
    """Pixel by pixel through colorsys with the same random numbers, as tf.image does it."""
    x = augment.to_float(random_images(6, 5))
    got = augment.brightness_saturation(x, make_rng(3))
    again = make_rng(3)
    shift = again.uniform((6, 1, 1, 1), -32 / 255, 32 / 255)
    factor = again.uniform((6, 1, 1, 1), 0.5, 1.5).flatten()
    moved = ((x + 1) / 2 + shift).double()
    for i in range(6):
        for p in range(25):
            r, g, b = moved[i, :, p // 5, p % 5].tolist()
            if max(r, g, b) <= 0:
                want = (0.0, 0.0, 0.0)
            else:
                h, s, v = colorsys.rgb_to_hsv(r, g, b)
                want = colorsys.hsv_to_rgb(h, min(s * factor[i].item(), 1), v)
            have = (got[i, :, p // 5, p % 5] + 1) / 2
            np.testing.assert_allclose(have.numpy(), np.clip(want, 0, 1), atol=2e-5)


@pytest.mark.parametrize("channels", [1, 3])
def test_rotations_are_those_of_numpy(channels):
    images = random_images(3, 6, channels)
    rotated, numbers = augment.rotations(augment.to_float(images))
    assert numbers.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    for j, k in enumerate(numbers.tolist()):
        want = np.rot90(images[j % 3].numpy(), k).astype(np.float32) * (2 / 255) - 1
        np.testing.assert_allclose(rotated[j].permute(1, 2, 0).numpy(), np.broadcast_to(want, (6, 6, 3)), atol=1e-6)


def test_range_and_determinism(generator):
    images = random_images(5, 20)
    first = augment.inception_preprocess(images, 16, make_rng(1))
    again = augment.inception_preprocess(images, 16, make_rng(1))
    assert first.shape == (5, 3, 16, 16) and torch.equal(first, again)
    assert first.min() >= -1 and first.max() <= 1
    assert not torch.equal(first, augment.inception_preprocess(images, 16, make_rng(2)))


def test_images_of_the_size_are_kept_and_others_resized():
    images = random_images(2, 8, 1)
    assert torch.equal(augment.resized(images, 8)[:, 0], images[..., 0].float().mul(2 / 255).sub(1))
    assert augment.resized(images, 4).shape == (2, 3, 4, 4)


def test_smaller_images_are_antialiased_as_pillow_does():
    images = random_images(3, 12)
    found = augment.resized(images, 5)
    for i in range(3):
        for channel in range(3):
            plane = Image.fromarray(images[i, :, :, channel].numpy().astype(np.float32))
            expected = np.asarray(plane.resize((5, 5), Image.Resampling.BILINEAR)) * (2 / 255) - 1
            np.testing.assert_allclose(found[i, channel].numpy(), expected, atol=1e-5)
