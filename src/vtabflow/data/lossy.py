"""Whether images were JPEG once: traces of quantised 8x8 blocks in their grey values.

JPEG rounds each coefficient of the discrete cosine transform of an 8x8 block to a multiple of a step. In a decoded
image the coefficients of blocks that start at multiples of 8 are near these multiples, up to the rounding of the
pixels (a "comb"); those of blocks that start elsewhere are not, and neither are those of images that were never
compressed.
"""

from pathlib import Path
from typing import BinaryIO

import numpy as np

# The luminance table of the JPEG standard (ITU-T T.81, annex K) at quality 50, which nearly all writers scale.
STANDARD = np.array(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ]
)
QUALITIES = range(30, 99)
FINEST, COARSEST = 3, 80  # the steps that are tested; a step of 2 is hidden by the rounding of the pixels
FEWEST = 40  # non-zero coefficients that a frequency needs
FEWEST_FREQUENCIES = 4
LIMIT = 0.3
OFFSETS = ((4, 4), (3, 5), (6, 2))
SAMPLE = 512  # images that are tested
SAMPLE_BYTES = 16 << 20  # of them, at most
BLOCKS = 4096  # blocks of them
SMALLEST = 0.5  # grey levels: a coefficient below it is one that JPEG rounds to zero


def comb(images: np.ndarray, grid: tuple[int, int] = (0, 0)) -> float:
    """How strongly the images (uint8 (N, H, W, C), H and W at least 16) show JPEG's comb: about 0 to 1.

    A frequency's value is the mean of cos(2 pi coefficient/step) over its coefficients beyond half a step, with the
    steps of a quality; the comb's is the mean over frequencies, for the best quality, less what blocks at other offsets
    give. 0 if there are too few. Blocks with black or white pixels are left out: clipping shifts their coefficients.

    Args:
        images: the images.
        grid: (down, right), pixels before the first block.
    """
    planes, clipped = _grey(images), (images == 0).any(axis=3) | (images == 255).any(axis=3)
    aligned = _by_quality(planes, clipped, *grid)
    others = [((grid[0] + down) % 8, (grid[1] + right) % 8) for down, right in OFFSETS]
    shifted = np.array([_by_quality(planes, clipped, *offset) for offset in others])
    return float((aligned - np.median(shifted, axis=0).clip(min=0)).max())


def grid_of(images: np.ndarray) -> tuple[int, int]:
    """Where JPEG's blocks most likely start: the offset of 8x8 blocks that have the most coefficients near zero."""
    planes = _grey(images)
    shares = np.zeros((8, 8))
    if min(planes.shape[1:]) < 16:
        return 0, 0
    for down, right in np.ndindex(8, 8):
        blocks = _blocks(planes, down, right)
        blocks = blocks[:: max(1, len(blocks) // (BLOCKS // 2))]
        shares[down, right] = (np.abs(_coefficients(blocks)) < SMALLEST).mean()
    down, right = np.unravel_index(int(shares.argmax()), shares.shape)
    return int(down), int(right)


def went_through_jpeg(images: np.ndarray, grid: tuple[int, int] = (0, 0)) -> bool:
    """Whether `comb` is beyond LIMIT; rates are in docs/operations.md#lossy-copies (tests/prepare/lossy_rates.py).

    Not detected: images of pure black and white (dSprites has a check of its own), of blocks of one colour, of smooth
    gradients.
    """
    return comb(images, grid) > LIMIT


def read_sample(path: Path, most: int = SAMPLE) -> np.ndarray:
    """Evenly spaced images of a .npy file (N, H, W, C), at most SAMPLE_BYTES of them.

    They are read one by one: pages of a memory map would count as the process's memory.
    """
    with open(path, "rb") as stream:
        shape, numbers = read_header(stream)
        start, size = stream.tell(), int(np.prod(shape[1:])) * numbers.itemsize
        count = min(most, shape[0], max(1, SAMPLE_BYTES // max(1, size)))
        images = np.empty((count, *shape[1:]), numbers)
        for row, index in enumerate(np.linspace(0, shape[0] - 1, count).astype(int)):
            stream.seek(start + int(index) * size)
            images[row] = np.frombuffer(stream.read(size), numbers).reshape(shape[1:])
    return images


def read_header(stream: BinaryIO) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and dtype of an open .npy file, whose data begin where the stream is then."""
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    shape, _, numbers = read[np.lib.format.read_magic(stream)](stream)
    return shape, numbers


def as_uint8(images: np.ndarray) -> np.ndarray | None:
    """The images as uint8, also floats that are whole numbers; None if there are others, which come from resizing."""
    with np.errstate(invalid="ignore"):  # NaN, or far from 0..255: then it is not equal either
        levels = images.astype(np.uint8)
    return levels if np.array_equal(levels, images) else None


def _grey(images: np.ndarray) -> np.ndarray:
    values = images.astype(np.float32)
    if images.shape[3] == 1:
        return values[..., 0] - 128
    # JPEG's own luma (JFIF): the step of its rounding is the finest there.
    return values @ np.array([0.299, 0.587, 0.114], np.float32) - 128


def _transform() -> np.ndarray:
    u, x = np.mgrid[:8, :8]
    basis = np.cos((2 * x + 1) * u * np.pi / 16) / 2
    basis[0] /= np.sqrt(2)
    return basis.astype(np.float32)


def _steps(quality: int) -> np.ndarray:
    """The table of a quality as libjpeg scales it."""
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    return np.clip((STANDARD * scale + 50) // 100, 1, 255)


BASIS = _transform()
TABLES = np.array([_steps(quality) for quality in QUALITIES])


def _by_quality(planes: np.ndarray, clipped: np.ndarray, down: int, right: int) -> np.ndarray:
    """For each of QUALITIES the mean over frequencies; 0 where there are too few coefficients."""
    blocks = _blocks(planes, down, right)[~_blocks(clipped, down, right).any(axis=(1, 2))]
    blocks = blocks[np.linspace(0, len(blocks) - 1, min(len(blocks), BLOCKS)).astype(int)]
    sizes = np.abs(_coefficients(blocks))
    values = np.full((8, 8, COARSEST + 1), np.nan)
    for u, v in np.argwhere(STANDARD):
        if u + v:
            for step in np.unique(TABLES[:, u, v]):
                beyond = sizes[u, v][sizes[u, v] > step / 2]
                if FINEST <= step <= COARSEST and len(beyond) >= FEWEST:
                    values[u, v, step] = np.cos(beyond * float(2 * np.pi / step)).mean(dtype=np.float64)
    u, v = np.mgrid[:8, :8]
    found = values[u, v, TABLES.clip(max=COARSEST)].reshape(len(TABLES), -1)
    known = np.isfinite(found)
    return np.where(
        known.sum(axis=1) >= FEWEST_FREQUENCIES, np.nansum(found, axis=1) / known.sum(axis=1).clip(min=1), 0
    )


def _coefficients(blocks: np.ndarray) -> np.ndarray:
    """The cosine transform (8, 8, blocks) of (blocks, 8, 8)."""
    return np.einsum("ux,bxy,vy->uvb", BASIS, blocks, BASIS, optimize=True)


def _blocks(planes: np.ndarray, down: int, right: int) -> np.ndarray:
    """(N, H, W) divided into (blocks, 8, 8) from an offset."""
    count, height, width = planes.shape
    rows, columns = (height - down) // 8, (width - right) // 8
    cut = planes[:, down : down + 8 * rows, right : right + 8 * columns]
    return cut.reshape(count, rows, 8, columns, 8).swapaxes(2, 3).reshape(-1, 8, 8)
