"""Traces of lossy files in pixels: each kind is found, and images that were never compressed show none."""

from functools import cache

import numpy as np
import pytest
import torch
from lossy_rates import KINDS, LOSSLESS, TURNS, drawn_by, jpeg, natural, scaled, through

from vtabflow.data import lossy, traces
from vtabflow.prepare.resize import resize

COUNT = 24


@cache
def base(name: str = "natural") -> np.ndarray:
    if name in KINDS:
        return KINDS[name](np.random.default_rng(7), COUNT, 32, 3)
    return drawn_by(name, COUNT, 32)


@pytest.mark.parametrize("name", [*KINDS, "cifar100", "dsprites", "smallnorb", "clevr", "retinopathy"])
def test_images_that_were_never_compressed_show_nothing(name):
    assert traces.found(base(name)) == []


@pytest.mark.parametrize("name", ["natural", "cifar100"])
@pytest.mark.parametrize("change", [change for change in LOSSLESS if change != "as they are"])
def test_nor_do_they_when_they_were_enlarged(name, change):
    images = LOSSLESS[change](base(name))
    assert traces.found(images) == [] and traces.found_enlarged(images, (32,)) == []


@pytest.mark.parametrize(
    ("turn", "shown"),
    [
        *((f"JPEG {quality}", traces.JPEG) for quality in (10, 50, 98)),
        *((turn, traces.HALF_COLOUR) for turn in ("JPEG 75", "JPEG 99", "JPEG 100", "WebP 75", "WebP 90", "AVIF 90")),
        ("JPEG 98 4:4:4", traces.JPEG),
        ("JPEG 75, twice", traces.JPEG),
        ("JPEG 90, cut by 1 and 3 pixels", traces.SHIFTED),
        ("GIF", traces.PALETTE.format(256)),
    ],
)
def test_each_kind_is_found(turn, shown):
    assert shown in traces.found(TURNS[turn](base()))


@pytest.mark.parametrize("turn", ["JPEG 99 4:4:4", "JPEG 2000 at 36 dB"])
def test_what_is_missed_is_as_documented(turn):
    """docs/operations.md#lossy-copies: no false hope."""
    assert traces.found(TURNS[turn](base())) == []


@pytest.mark.parametrize(("kernel", "size"), [("BILINEAR", 64), ("BICUBIC", 64), ("NEAREST", 56), ("LANCZOS", 72)])
def test_jpeg_is_found_behind_an_enlargement(kernel, size):
    images = scaled(jpeg(base("cifar100"), 90), size, kernel)
    assert traces.ENLARGED.format(traces.JPEG, 32) in traces.found_enlarged(images)
    assert traces.found_enlarged(images, (16, 24)) == []


@pytest.mark.parametrize("kernel", traces.KERNELS)
@pytest.mark.parametrize("size", [64, 81])
def test_an_enlargement_is_undone(kernel, size):
    """Not where a pixel is near black or white, beyond which a kernel may reach."""
    images = base()[:20] // 2 + 64
    if kernel == "legacy":
        larger = resize(torch.from_numpy(images), size, "legacy").numpy()
        larger = np.floor(larger + 0.5).astype(np.uint8)
    else:
        larger = scaled(images, size, kernel.upper())
    found = traces.before_enlarging(larger, (16, 24, 32, 48))
    assert found.shape == images.shape and (found == images).mean() > 0.6
    assert np.abs(found.astype(int) - images).max() <= 2
    assert traces.before_enlarging(base("cifar100")[:20], (16, 24)) is None


def test_colours_of_half_the_resolution_are_told_from_enlarged_images_and_need_colours():
    images = base()
    assert traces.has_half_colour(jpeg(images, 100)) and not traces.has_half_colour(images)
    # Brightness is on the same grid there: the images were enlarged, whatever they were before.
    assert not traces.has_half_colour(scaled(images, 64, "BILINEAR"))
    grey = images[..., :1].repeat(3, axis=3)
    assert not traces.has_half_colour(through(grey, "WEBP", quality=75)) and not traces.has_half_colour(grey[..., :1])
    assert not traces.has_half_colour(jpeg(images[:10], 100))  # too few to say


def test_palettes_are_told_from_few_colours():
    images = base()
    assert traces.palette(through(images, "GIF")) == 256 and traces.palette(images) == 0
    rng = np.random.default_rng(0)
    grey = rng.integers(0, 256, (COUNT, 32, 32, 1), np.uint8).repeat(3, axis=3)  # nearly all levels of grey
    assert traces.palette(grey) == 0 and traces.palette(grey[..., :1]) == 0
    colours = rng.integers(0, 256, (COUNT, 256, 3), np.uint8)
    for size, found in ((32, 0), (64, 64), (100, 0), (128, 128)):
        # Each image draws from so many colours of its own.
        chosen = rng.integers(0, size, (COUNT, 32, 32))
        assert traces.palette(np.take_along_axis(colours[:, :size], chosen.reshape(COUNT, -1, 1), 1).reshape(
            COUNT, 32, 32, 3)) == found, size  # fmt: skip


@pytest.mark.parametrize("grid", [(0, 0), (7, 5), (3, 0)])
def test_the_grid_of_shifted_blocks(grid):
    images = jpeg(natural(np.random.default_rng(3), 40, 40, 3), 85)
    down, right = grid
    assert lossy.grid_of(images[:, (8 - down) % 8 :, (8 - right) % 8 :]) == grid
