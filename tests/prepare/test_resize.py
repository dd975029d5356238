"""The resizes, against a loop over pixels that follows TensorFlow's source and shares no code with them."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vtabflow.errors import UserError
from vtabflow.prepare.resize import resize
from vtabflow.prepare.store import HALF

F = np.float32


def legacy_by_pixel(image: np.ndarray, size: int) -> np.ndarray:
    """TensorFlow's resize_bilinear_op.cc, one pixel at a time, every intermediate a float32."""
    height, width, channels = image.shape
    if height == size and width == size:
        return image.astype(F)
    out = np.empty((size, size, channels), F)
    scale_y, scale_x = F(height) / F(size), F(width) / F(size)
    for i in range(size):
        y = F(i) * scale_y
        y0 = int(np.floor(y))
        y1 = min(int(np.ceil(y)), height - 1)
        wy = y - F(y0)
        for j in range(size):
            x = F(j) * scale_x
            x0 = int(np.floor(x))
            x1 = min(int(np.ceil(x)), width - 1)
            wx = x - F(x0)
            for c in range(channels):
                tl, tr = F(image[y0, x0, c]), F(image[y0, x1, c])
                bl, br = F(image[y1, x0, c]), F(image[y1, x1, c])
                top = tl + (tr - tl) * wx
                bottom = bl + (br - bl) * wx
                out[i, j, c] = top + (bottom - top) * wy
    return out


def random_images(shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


@pytest.mark.parametrize(
    ("height", "width", "size"),
    [
        (7, 5, 16),
        (64, 48, 32),
        (33, 97, 21),
        (1, 1, 8),
        (1, 9, 4),
        (40, 3, 40),
        (32, 32, 33),
        (31, 29, 30),
        (200, 5, 11),
    ],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_legacy_equals_the_loop_over_pixels(height, width, size, channels):
    images = random_images((2, height, width, channels))
    found = resize(torch.from_numpy(images), size, "legacy").numpy()
    assert found.dtype == np.float32 and found.shape == (2, size, size, channels)
    for image, result in zip(images, found, strict=True):
        assert (result == legacy_by_pixel(image, size)).all()


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 24), st.integers(0, 99))
def test_legacy_at_any_size(height, width, size, seed):
    image = random_images((1, height, width, 1), seed)
    assert (resize(torch.from_numpy(image), size, "legacy").numpy()[0] == legacy_by_pixel(image[0], size)).all()


def test_legacy_on_small_examples():
    # 2 -> 4: scale 0.5, sources 0, 0.5, 1, 1.5; the last has no right neighbour and repeats it. No half-pixel shift.
    row = torch.tensor([[0.0, 100.0]]).view(1, 1, 2, 1).expand(1, 2, 2, 1)
    assert resize(row, 4, "legacy")[0, :, :, 0].tolist() == [[0.0, 50.0, 100.0, 100.0]] * 4
    # 4 -> 2: every second pixel, no averaging.
    grid = torch.arange(16.0).view(1, 4, 4, 1)
    assert resize(grid, 2, "legacy")[0, :, :, 0].tolist() == [[0.0, 2.0], [8.0, 10.0]]


def test_antialias_on_a_small_example():
    # 4 -> 2: a triangle of half width 2 around 1 and 3: weights (3, 3, 1)/7 and (1, 3, 3)/7.
    row = torch.tensor([70.0, 0.0, 0.0, 7.0]).view(1, 1, 4, 1).expand(1, 4, 4, 1)
    found = resize(row, 2, "antialias")[0, 0, :, 0]
    assert torch.allclose(found, torch.tensor([30.0, 3.0]), atol=1e-4)


@pytest.mark.parametrize("kind", ["legacy", "antialias"])
@pytest.mark.parametrize("size", [5, 32, 61])
def test_a_constant_stays(kind, size):
    images = torch.full((2, 32, 24, 3), 173, dtype=torch.uint8)
    found = resize(images, size, kind)
    assert found.shape == (2, size, size, 3) and torch.allclose(found, torch.tensor(173.0), atol=1e-4)
    if kind == "legacy":
        assert (found == 173).all()


@pytest.mark.parametrize("kind", ["legacy", "antialias"])
def test_the_same_size_is_unchanged_and_the_scale_stays(kind):
    images = torch.from_numpy(random_images((3, 20, 20, 3)))
    assert (resize(images, 20, kind) == images).all() and resize(images, 20, kind).dtype == torch.float32
    found = resize(images, 33, kind)
    assert found.min() >= 0 and 200 < found.max() <= 255


@pytest.mark.parametrize("kind", ["legacy", "antialias"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int32])
def test_the_number_type_does_not_matter(kind, dtype):
    images = torch.from_numpy(random_images((2, 9, 14, 3)))
    assert torch.equal(resize(images.to(dtype), 12, kind), resize(images, 12, kind))


def test_a_batch_is_its_images():
    images = torch.from_numpy(random_images((5, 17, 23, 3)))
    batch = resize(images, 12, "legacy")
    assert all(
        torch.equal(resize(image[None], 12, "legacy")[0], result) for image, result in zip(images, batch, strict=True)
    )


def test_an_unknown_kind_is_named():
    with pytest.raises(UserError, match="'bicubic'.*legacy or antialias"):
        resize(torch.zeros(1, 4, 4, 3), 2, "bicubic")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize(("height", "width", "size"), [(64, 48, 32), (33, 97, 224), (375, 1242, 224)])
def test_the_gpu_is_bit_identical(height, width, size):
    images = torch.from_numpy(random_images((4, height, width, 3)))
    assert torch.equal(resize(images.cuda(), size, "legacy").cpu(), resize(images, size, "legacy"))


# height and width of VTAB's images, or typical ones where they vary (docs/protocol.md#data).
NATIVE = {
    "caltech101": (200, 300),
    "cifar100 svhn": (32, 32),
    "dtd": (480, 640),
    "oxford-flowers102": (500, 667),
    "oxford-iiit-pet": (375, 500),
    "sun397": (299, 399),
    "patch-camelyon smallnorb": (96, 96),
    "eurosat dsprites": (64, 64),
    "resisc45": (256, 256),
    "diabetic-retinopathy": (540, 540),
    "clevr": (320, 480),
    "dmlab": (360, 480),
    "kitti": (375, 1242),
}
SHAPES = [*NATIVE.values(), (1, 1), (1, 7), (13, 1), (97, 101), (223, 225), (447, 449), (640, 479)]


@pytest.fixture(scope="module")
def tensorflow():
    return pytest.importorskip("tensorflow", reason="tensorflow, of the extra `tfds`, is not installed")


@pytest.mark.parametrize("size", [224, 64, 127])
@pytest.mark.parametrize(("height", "width"), SHAPES)
def test_legacy_is_bit_identical_to_tensorflow(tensorflow, height, width, size):
    channels = 1 if (height, width) in ((96, 96), (64, 64)) else 3
    images = random_images((1, height, width, channels), seed=height * 1000 + width)
    # VTAB's data_loader.preprocess_fn: uint8 in, float32 out, then the division.
    expected = tensorflow.compat.v1.image.resize(images, [size, size]).numpy()
    explicit = tensorflow.compat.v1.image.resize_bilinear(
        images, [size, size], align_corners=False, half_pixel_centers=False
    ).numpy()
    assert (expected == explicit).all()
    found = resize(torch.from_numpy(images), size, "legacy").numpy()
    assert found.dtype == np.float32 and np.array_equal(found, expected)
    divided = tensorflow.divide(tensorflow.cast(expected, tensorflow.float32), tensorflow.constant(255.0)).numpy()
    assert np.array_equal(found / F(255), divided)


@pytest.mark.parametrize(("height", "width"), NATIVE.values())
def test_the_uint8_store_rounds_by_half_a_level_at_most(height, width):
    images = random_images((1, height, width, 3), seed=width)
    exact = resize(torch.from_numpy(images), 224, "legacy").numpy()
    # As prepare/folders/source.py and prepare/tfds/records.py store it. A half rounds up, and so does a value that is
    # below a half by no more than HALF is above it.
    stored = (exact + HALF).clip(0, 255).astype(np.uint8)
    assert np.abs(stored - exact).max() <= 0.5 + 2**-10 and (stored == np.rint(exact)).mean() > 0.99
