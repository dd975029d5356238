"""Traces that lossy files leave in pixels: JPEG's blocks, colours of half the resolution, palettes.

Each is searched in a sample of images, uint8 (N, H, W, C), H and W at least 16. What is found and what is missed:
docs/operations.md#lossy-copies.
"""

from functools import cache

import numpy as np
from PIL import Image

from vtabflow.data import lossy

JPEG = "show traces of JPEG"
SHIFTED = "show traces of JPEG blocks that were shifted or cut afterwards"
HALF_COLOUR = "have colours of half the resolution, as JPEG, WebP and AVIF leave them"
PALETTE = "have palettes of {} colours, as GIF leaves them"
ENLARGED = "{} at {} pixels, before they were enlarged"

FEWEST_IMAGES = 20  # that show enough colour
NOISE = 0.1  # squared levels: less detail than this is the rounding of pixels
HALF_LIMIT, GRID_LIMIT = -0.35, -0.4
PALETTES = (64, 128, 256)
KERNELS = ("legacy", "bilinear", "bicubic", "lanczos", "nearest")
SIDES = (16, 24, 28, 32, 48, 64, 96)  # pixels from which small images are enlarged
FIT = 0.6  # levels: an image that was enlarged by a kernel is this near to what the kernel can give


def found(images: np.ndarray) -> list[str]:
    """What the images show, in words that follow "the pixels"; empty if nothing is found."""
    words = [JPEG] if lossy.went_through_jpeg(images) else []
    if not words and lossy.went_through_jpeg(images, lossy.grid_of(images)):
        words.append(SHIFTED)
    if has_half_colour(images):
        words.append(HALF_COLOUR)
    if colours := palette(images):
        words.append(PALETTE.format(colours))
    return words


def found_enlarged(images: np.ndarray, sides: tuple[int, ...] = SIDES) -> list[str]:
    """What the images showed before they were enlarged from one of `sides` pixels; empty if they were not."""
    smaller = before_enlarging(images, sides)
    return [] if smaller is None else [ENLARGED.format(word, smaller.shape[1]) for word in found(smaller)]


# ---- colours of half the resolution


def has_half_colour(images: np.ndarray) -> bool:
    """Whether colours were enlarged by two (chroma subsampling 4:2:0), as decoders of JPEG, WebP and AVIF do.

    Decoders interpolate with weights 3/4 and 1/4 between pairs of pixels. What of the colours no such interpolation can
    give is compared with the same for pairs that start a pixel later: in other images both are about equal. Where it is
    so of brightness as well, the images themselves were enlarged, and nothing is said.
    """
    if images.shape[3] != 3 or min(images.shape[1:3]) < 16:
        return False
    values = images.astype(np.float32)
    grey = values @ np.array([0.299, 0.587, 0.114], np.float32)
    blue, red = (np.float32(0.564) * (values[..., 2] - grey), np.float32(0.713) * (values[..., 0] - grey))
    colour = [_beyond(blue, phase) + _beyond(red, phase) for phase in (0, 1)]
    bright = [_beyond(grey, phase) for phase in (0, 1)]
    telling = (colour[1] > NOISE) & (bright[1] > NOISE)
    if telling.sum() < FEWEST_IMAGES:
        return False
    with np.errstate(divide="ignore"):
        in_colour, in_bright = (float(np.median(np.log(a[telling] / b[telling]))) for a, b in (colour, bright))
    return in_bright > GRID_LIMIT and in_colour - in_bright < HALF_LIMIT


def _beyond(planes: np.ndarray, phase: int) -> np.ndarray:
    """For each plane (N, H, W) the mean square of what no interpolation by two gives; `phase`: where pairs start."""
    down, right = (_doubled(length, phase) for length in planes.shape[1:])
    return ((planes - _applied(planes, down, right)) ** 2).mean(axis=(1, 2))


@cache
def _doubled(length: int, phase: int) -> np.ndarray:
    """The projection (length, length) onto what samples of half the resolution give; those outside are free."""
    weights = np.zeros((length, length // 2 + 3))
    for x in range(length):
        pair, second = divmod(x + phase, 2)
        weights[x, pair + 1] += 0.75
        weights[x, pair + (2 if second else 0)] += 0.25
    weights = weights[:, weights.any(axis=0)]
    return np.asarray(weights @ np.linalg.pinv(weights), np.float32)


def _applied(planes: np.ndarray, down: np.ndarray, right: np.ndarray) -> np.ndarray:
    return np.einsum("ij,njk,lk->nil", down, planes, right, optimize=True)


# ---- palettes


def palette(images: np.ndarray) -> int:
    """The size of the palette that images in colour have each; 0 if they have none.

    All images have at most so many colours, and half of them nearly as many: photographs of as many pixels have several
    times as many, and drawings of few colours do not come so near to a power of two.
    """
    pixels = images.shape[1] * images.shape[2]
    if images.shape[3] != 3 or (images[..., :2] == images[..., 1:]).all() or len(images) < FEWEST_IMAGES:
        return 0
    codes = images.reshape(len(images), pixels, 3).astype(np.int32) @ np.array([1 << 16, 1 << 8, 1], np.int32)
    colours = [len(np.unique(image)) for image in codes]
    fitting = (size for size in PALETTES if 2 * size < pixels)
    return next((size for size in fitting if max(colours) <= size and np.median(colours) > 0.9 * size), 0)


# ---- enlarged images


def before_enlarging(images: np.ndarray, sides: tuple[int, ...]) -> np.ndarray | None:
    """The images, uint8, as they were at the first of `sides` pixels from which a usual kernel may have enlarged them.

    The equations of a kernel are solved by least squares, which gives nearly all pixels back and the others within a
    level or two; how near the solution comes says whether the kernel is the right one. None if there is no such side.
    """
    size = images.shape[1]
    if images.shape[2] != size:
        return None
    few = images[:: max(1, len(images) // 16)].astype(np.float32)
    for side in (side for side in sides if 16 <= side <= size * 3 / 4):
        tried = [(_misfit(few, enlarging(kernel, side, size)), kernel) for kernel in KERNELS]
        misfit, kernel = min(tried)
        if misfit < FIT:
            inverse = np.linalg.pinv(enlarging(kernel, side, size)).astype(np.float32)
            planes = [_applied(images[..., c].astype(np.float32), inverse, inverse) for c in range(few.shape[3])]
            return np.stack(planes, axis=-1).round().clip(0, 255).astype(np.uint8)
    return None


def _misfit(images: np.ndarray, weights: np.ndarray) -> float:
    """How far images (N, H, W, C) are from what a kernel can give, in levels."""
    project = np.asarray(weights @ np.linalg.pinv(weights), np.float32)
    return max(_distance(images[..., channel], project) for channel in range(images.shape[3]))


def _distance(planes: np.ndarray, project: np.ndarray) -> float:
    """The median over planes of how far, root mean square, a projection moves them."""
    return float(np.median(np.sqrt(((planes - _applied(planes, project, project)) ** 2).mean(axis=(1, 2)))))


@cache
def enlarging(kernel: str, side: int, size: int) -> np.ndarray:
    """The weights (size, side) of a kernel: "legacy" is TensorFlow 1's bilinear, the others are Pillow's."""
    if kernel == "legacy":
        place = np.arange(size) * side / size
        low = np.floor(place).astype(int)
        weights = np.zeros((size, side))
        weights[np.arange(size), low] += 1 - (place - low)
        weights[np.arange(size), np.minimum(low + 1, side - 1)] += place - low
        return weights
    resample = Image.Resampling[kernel.upper()]
    return np.asarray(Image.fromarray(np.eye(side, dtype=np.float32)).resize((size, side), resample)).T
