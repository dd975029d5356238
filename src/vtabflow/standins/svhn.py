"""Stand-in for SVHN: the digit in the middle of a house number, with neighbouring digits cut off at the sides."""

import numpy as np

from vtabflow.standins.canvas import (
    Array,
    any_colour,
    as_photograph,
    coverage,
    ellipse,
    grid,
    noise,
    over,
    rotated,
    stroke,
    to_bytes,
    warped,
)

TASKS = {"svhn-standin": 10}

# Lines of each digit in a box of half width 0.6 and half height 1. ("r", cx, cy, rx, ry) is an oval ring.
DIGITS: list[list[tuple]] = [
    [("r", 0, 0, 0.55, 0.92)],
    [("s", [(-0.35, -0.55), (0.08, -0.95), (0.08, 0.95)])],
    [("s", [(-0.5, -0.55), (-0.3, -0.88), (0.2, -0.92), (0.5, -0.6), (0.42, -0.2), (-0.52, 0.92), (0.56, 0.92)])],
    [
        ("s", [(-0.5, -0.75), (0, -0.95), (0.45, -0.7), (0.4, -0.25), (-0.1, -0.05), (0.4, 0.1), (0.52, 0.5),
        (0.3, 0.85), (-0.1, 0.95), (-0.55, 0.72)]),
    ],
    [("s", [(0.25, 0.95), (0.25, -0.95), (-0.58, 0.4), (0.6, 0.4)])],
    [
        ("s", [(0.48, -0.92), (-0.4, -0.92), (-0.48, -0.05), (0.05, -0.2), (0.45, 0.05), (0.52, 0.5), (0.2, 0.9),
        (-0.2, 0.93), (-0.55, 0.7)]),
    ],
    [("r", 0, 0.4, 0.5, 0.52), ("s", [(0.35, -0.92), (-0.15, -0.6), (-0.48, 0.25)])],
    [("s", [(-0.55, -0.92), (0.55, -0.92), (-0.1, 0.95)])],
    [("r", 0, -0.46, 0.42, 0.44), ("r", 0, 0.45, 0.52, 0.48)],
    [("r", 0, -0.4, 0.5, 0.52), ("s", [(0.48, -0.25), (0.15, 0.6), (-0.3, 0.92)])],
]  # fmt: skip


def digit(u: Array, v: Array, value: int, half_width: float) -> Array:
    """Signed distance to the strokes of a digit in the frame (u, v)."""
    distance = np.full(u.shape, np.inf)
    for form, *shape in DIGITS[value]:
        if form == "s":
            line = stroke(u, v, shape[0])
        else:
            line = np.abs(ellipse(u - shape[0], v - shape[1], shape[2], shape[3]))
        distance = np.minimum(distance, line)
    return distance - half_width


def draw(rng: np.random.Generator, size: int) -> tuple[Array, dict[str, int]]:
    """One cropped house number, uint8 (size, size, 3), and the middle digit."""
    label, *sides = (int(value) for value in rng.integers(10, size=3))
    x, y = grid(size)
    patches = noise(rng, size, rng.uniform(1.5, 6), 2)
    wall = any_colour(rng)
    image = wall * (0.75 + 0.5 * patches[..., None])
    paint = any_colour(rng, (0.0, 1.0))
    # A number differs from its wall by at least 0.18 on average over the channels.
    if np.abs(paint - wall).mean() < 0.18:
        paint = 1 - wall if abs(wall.mean() - 0.5) > 0.12 else wall * 0.4
    scale, tilt, slant = rng.uniform((0.24, -0.2, -0.25), (0.42, 0.2, 0.25))
    cx, cy = 0.5 + rng.uniform(-0.09, 0.09, 2)
    u, v = rotated(x, y, cx, cy, tilt)
    aspect = rng.uniform(0.85, 1.25)
    u, v = warped(rng, (u / aspect + slant * v) / scale, v / scale, 0.1)
    half_width, pitch = rng.uniform(0.09, 0.24), rng.uniform(1.35, 1.7)
    shadow = rng.uniform(-0.25, 0.25, 2) if rng.random() < 0.4 else None
    left, right = rng.random(2) < 0.75
    for value, offset, shown in ((sides[0], -pitch, left), (sides[1], pitch, right), (label, 0.0, True)):
        if shown:
            distance = digit(u - offset, v, value, half_width)
            if shadow is not None:
                back = digit(u - offset - shadow[0], v - shadow[1], value, half_width)
                image = over(image, 0.5 * coverage(back * scale, size), 0.3 * wall)
            image = over(image, coverage(distance * scale, size), paint)
    if rng.random() < 0.3:
        ax, ay = rng.random(2)
        line = np.abs(rotated(x, y, ax, ay, rng.uniform(0, np.pi))[1]) - rng.uniform(0.005, 0.03)
        image = over(image, coverage(line, size) * 0.7, any_colour(rng))
    return to_bytes(as_photograph(rng, image)), {"svhn-standin": label}
