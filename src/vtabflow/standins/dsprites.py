"""Stand-in for dSprites: one square, ellipse or heart. Where is it across, and which way is it turned?

Factors as in Matthey et al. 2017: 3 shapes, 6 scales, 40 angles over the full turn, 32 x 32 positions. Location:
floor(x / 2), 16 even bins; orientation: floor(angle / 2.5), 16 bins of three angles (even classes) or two (odd
classes), as VTAB counts them (docs/protocol.md#labels). Departures: the original's squares and ellipses look the same
at several angles; here the square lacks a corner and the ellipse is pointed at one end, so the angle is visible for all
three, and at angle 0 all point to the right. Sprite and ground have any two greys at least 0.5 apart, either of them
the lighter, under faint mottling, so that no single pixel gives the place away.
"""

import numpy as np

from vtabflow.standins.canvas import Array, box, coverage, grid, noise, rotated, to_bytes

TASKS = {"dsprites-location-standin": 16, "dsprites-orientation-standin": 16}

SHAPES = ("square", "ellipse", "heart")

# Positions 0..31 of the centre of mass lie evenly in [MARGIN, 1 - MARGIN].
MARGIN = 0.25
# Centres of mass of the outlines below on their axes (by numerical integration), in their own units.
CENTRES = {"square": 0.1056, "ellipse": -0.1125, "heart": 0.6566}


def outline(shape: str, x: Array, y: Array) -> Array:
    """Distance (about exact near the edge) to a shape of about unit radius that points along x; negative inside.

    Its centre of mass is the origin.
    """
    middle = CENTRES[shape]
    if shape == "square":
        x = x + middle
        return np.maximum(box(0.7071 * (x - y), 0.7071 * (x + y), 0.78, 0.78), -x - 0.5515)
    if shape == "ellipse":
        x = x + middle
        width = 0.55 * (1.0 - 0.45 * np.clip(x, -1.0, 1.0))
        return (np.hypot(x, y / width) - 1.0) * np.minimum(width, 0.8)
    # The heart of I. Quilez ("2D distance functions"), 1.1 units high with its tip at the origin, 1.5 times as large.
    x, y = np.abs(y) / 1.5, middle - x / 1.5
    lobe = np.hypot(x - 0.25, y - 0.75) - 0.3536
    fold = 0.5 * np.maximum(x + y, 0.0)
    rest = np.minimum(np.hypot(x, y - 1.0), np.hypot(x - fold, y - fold)) * np.sign(x - y)
    return 1.5 * np.where(x + y > 1.0, lobe, rest)


def sprite(shape: str, radius: float, angle: int, column: int, row: int, size: int) -> Array:
    """Coverage (size, size) of a sprite; `angle` in fortieths of a turn, `column` and `row` in 0..31."""
    x, y = grid(size)
    cx, cy = (MARGIN + (1 - 2 * MARGIN) * k / 31 for k in (column, row))
    u, v = rotated(x, y, cx, cy, 2 * np.pi * angle / 40)
    return coverage(radius * outline(shape, u / radius, v / radius), size)


def draw(rng: np.random.Generator, size: int) -> tuple[Array, dict[str, int]]:
    """One image, uint8 (size, size, 1), and its class for each task."""
    shape, scale, angle = SHAPES[rng.integers(3)], int(rng.integers(6)), int(rng.integers(40))
    column, row = int(rng.integers(32)), int(rng.integers(32))
    low = rng.uniform(0.0, 0.5)
    high = rng.uniform(low + 0.5, 1.0)
    ground, front = (low, high) if rng.random() < 0.5 else (high, low)
    alpha = sprite(shape, 0.17 + 0.016 * scale, angle, column, row, size)
    image = ground + (front - ground) * alpha + 0.1 * (noise(rng, size, 7, 3) - 0.5)
    return to_bytes(np.clip(image, 0, 1)), {
        "dsprites-location-standin": column // 2,
        "dsprites-orientation-standin": int(angle / 2.5),
    }
