"""Augmentations of whole batches on their device, each image by random numbers of its own.

Images come as uint8 (B, H, W, C), C 1 or 3, and leave as float32 (B, 3, size, size) in [-1, 1], channels last in
memory. The random numbers are those of the given BatchRNG, which must be on the images' device. Sources (docs/methods):
google-research/s4l inception_preprocessing.py and preprocess.py at 8f1cf05, google/revisiting-self-supervised
preprocess.py at b530e3b.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from vtabflow.methods.batch_rng import BatchRNG

# Attempts at a crop that keeps enough of the image. One succeeds with probability of at least 0.85 on a square image,
# so that all eight fail in one crop of four million; TensorFlow makes up to 100.
ATTEMPTS = 8


def to_float(images: Tensor) -> Tensor:
    """Images uint8 (B, H, W, C) to float32 (B, 3, H, W) in [-1, 1]; grey is repeated."""
    x = images.permute(0, 3, 1, 2).float().mul_(2 / 255).sub_(1)
    return x.expand(-1, 3, -1, -1) if x.shape[1] == 1 else x


def resized(images: Tensor, size: int) -> Tensor:
    """The whole image, resized (antialiased bilinear) where it is not of this size."""
    x = to_float(images)
    if x.shape[2:] != (size, size):
        x = F.interpolate(x, (size, size), mode="bilinear", antialias=True, align_corners=False).clamp_(-1, 1)
    return x.contiguous(memory_format=torch.channels_last)


def square_root(x: Tensor) -> Tensor:
    """The square root, to one unit in the last place, with the same bits on every x86 processor with AVX2.

    Tensor.sqrt calls MKL's, which rounds as the maker of the processor has it, whatever MKL_CBWR says.
    """
    return x.rsqrt().reciprocal()


def crop_boxes(
    n: int,
    height: int,
    width: int,
    rng: BatchRNG,
    area: tuple[float, float] = (0.05, 1.0),
    aspect: tuple[float, float] = (0.75, 1.33),
    covered: float = 0.1,
) -> Tensor:
    """Random boxes (n, 4) as top, left, height, width in pixels, as TensorFlow's sample_distorted_bounding_box.

    Aspect (width / height) uniform; then the *height* uniform between those of the smallest and the largest area that
    fits; sampled again while the box covers less than `covered` of the image; position uniform. So the smallest area is
    max(area[0], covered), and small areas are commoner than under torchvision's RandomResizedCrop.

    Args:
        n: number of boxes.
        height: of the images in pixels.
        width: of the images in pixels.
        rng: the random numbers.
        area: smallest and largest area, as fractions of the image.
        aspect: smallest and largest width / height.
        covered: fraction of the image that a box must cover.
    """
    ratio = rng.uniform((n, ATTEMPTS), *aspect)
    lowest = square_root(area[0] * height * width / ratio)
    highest = torch.minimum(square_root(area[1] * height * width / ratio), width / ratio).clamp_(max=height)
    h = lowest + (highest - lowest).clamp_(min=0) * rng.uniform((n, ATTEMPTS), 0, 1)
    h = torch.minimum(h, highest)
    enough = h * h * ratio >= covered * height * width
    first = enough.byte().argmax(1, keepdim=True)
    h = h.gather(1, first)
    w = h * ratio.gather(1, first)
    return torch.cat([(height - h) * rng.uniform((n, 1), 0, 1), (width - w) * rng.uniform((n, 1), 0, 1), h, w], 1)


def crop_resize(x: Tensor, boxes: Tensor, size: int, flip: Tensor | None = None) -> Tensor:
    """Crop and resize (B, 3, H, W) to (B, 3, size, size), bilinear, without antialiasing.

    Args:
        x: the images.
        boxes: (B, 4), see crop_boxes.
        size: side of the result in pixels.
        flip: (B,), 1 to keep and -1 to flip left and right; None keeps all.
    """
    top, left, h, w = boxes.unbind(1)
    height, width = x.shape[2:]
    # grid_sample's coordinates run from -1 at one edge of the image to 1 at the other (align_corners=False).
    centres = (torch.arange(size, device=x.device, dtype=torch.float32) + 0.5) / size
    ys = (top[:, None] + h[:, None] * centres) * (2 / height) - 1
    xs = (left[:, None] + w[:, None] * centres) * (2 / width) - 1
    if flip is not None:
        xs = torch.where(flip[:, None] < 0, xs.flip(1), xs)
    grid = torch.stack([xs[:, None, :].expand(-1, size, -1), ys[:, :, None].expand(-1, -1, size)], 3)
    cut = F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return cut.contiguous(memory_format=torch.channels_last)


def random_flips(n: int, rng: BatchRNG) -> Tensor:
    """(n,) of 1 and -1, each with probability one half."""
    return torch.where(rng.uniform((n,), 0, 1) < 0.5, -1.0, 1.0)


def inception_crop(
    images: Tensor,
    size: int,
    rng: BatchRNG,
    area_min: float = 0.05,
    aspect: tuple[float, float] = (0.75, 1.33),
    flip: bool = True,
) -> Tensor:
    """A random crop (crop_boxes; area at most the whole image) resized to `size`, and a random flip."""
    x = to_float(images)
    boxes = crop_boxes(len(x), x.shape[2], x.shape[3], rng, (area_min, 1.0), aspect)
    return crop_resize(x, boxes, size, random_flips(len(x), rng) if flip else None)


def brightness_saturation(x: Tensor, rng: BatchRNG, brightness: float = 32 / 255, saturation: float = 0.5) -> Tensor:
    """Add U(-brightness, brightness) to x (B, 3, H, W) in [-1, 1], then scale HSV's saturation by U(1 - s, 1 + s).

    On the [0, 1] scale, clipped at the end; the result is in [-1, 1]. Scaling the saturation S = (V - min) / V by f,
    clipped at 1, moves each channel c to V - (V - c) min(f, 1 / S): no conversion is needed.
    """
    x = (x + 1) / 2 + rng.uniform((len(x), 1, 1, 1), -brightness, brightness)
    value = x.amax(1, keepdim=True)
    spread = value - x.amin(1, keepdim=True)
    factor = torch.minimum(
        rng.uniform((len(x), 1, 1, 1), 1 - saturation, 1 + saturation), value / spread.clamp(min=1e-6)
    )
    return (value - (value - x) * factor).clamp_(0, 1).mul_(2).sub_(1)


def inception_preprocess(images: Tensor, size: int, rng: BatchRNG, area_min: float = 0.05) -> Tensor:
    """The crop, flip and fast colour changes of S4L's inception_preprocessing.py in training."""
    return brightness_saturation(inception_crop(images, size, rng, area_min), rng)


def rotations(x: Tensor) -> tuple[Tensor, Tensor]:
    """All four rotations of (B, C, S, S), and their numbers 0 to 3: (4B, C, S, S) and (4B,).

    First all at 0 degrees, then all at 90 counter-clockwise, 180, 270. Exact: pixels are permuted, not interpolated.
    Rotation k is np.rot90(image, k).
    """
    rotated = torch.cat([torch.rot90(x, k, (2, 3)) for k in range(4)])
    numbers = torch.arange(4, device=x.device).repeat_interleave(len(x))
    return rotated.contiguous(memory_format=torch.channels_last), numbers


def to_gray(x: Tensor, rng: BatchRNG, probability: float = 0.66) -> Tensor:
    """Each image of (B, 3, H, W) with this probability as the plain mean of its channels (not luma), three times."""
    chosen = rng.uniform((len(x), 1, 1, 1)) < probability
    return torch.where(chosen, x.mean(1, keepdim=True), x)


def standardise(x: Tensor) -> Tensor:
    """(x - mean) / max(standard deviation, 1 / sqrt(N)) of each image, over its N values of all channels together."""
    values = x.flatten(1).float()
    floor = values.shape[1] ** -0.5
    deviation, mean = torch.std_mean(values, 1, correction=0)
    return (x - mean.view(-1, 1, 1, 1)) / deviation.clamp(min=floor).view(-1, 1, 1, 1)


def hsv_noise(x: Tensor, rng: BatchRNG) -> Tensor:
    """S4L's hsvnoise of (B, 3, H, W) in [-1, 1], by random numbers of each image.

    Hue + U(-0.1, 0.1), modulo 1; saturation and value each s^(2^U(-2, 2)) 2^U(-0.5, 0.5) + U(-0.1, 0.1), by random
    numbers of their own, clipped to [0, 1].
    """
    shift = rng.uniform((len(x), 3, 1, 1), -0.1, 0.1)
    power = 2 ** rng.uniform((len(x), 2, 1, 1), -2, 2)
    gain = 2 ** rng.uniform((len(x), 2, 1, 1), -0.5, 0.5)
    red, green, blue = ((x + 1) / 2).clamp(0, 1).split(1, 1)
    value = torch.maximum(torch.maximum(red, green), blue)
    spread = value - torch.minimum(torch.minimum(red, green), blue)
    over = spread.clamp(min=1e-12)
    # In sixths of the circle.
    hue = torch.where(value == green, 2 + (blue - red) / over, 4 + (red - green) / over)
    hue = torch.where(value == red, (green - blue) / over, hue) + 6 * shift[:, :1]
    moved = torch.cat([spread / value.clamp(min=1e-12), value], 1).pow(power) * gain + shift[:, 1:]
    saturation, value = moved.clamp_(0, 1).split(1, 1)
    corner = (torch.arange(5, 0, -2, device=x.device).view(1, 3, 1, 1) + hue) % 6
    return (value - value * saturation * torch.minimum(corner, 4 - corner).clamp_(0, 1)) * 2 - 1
