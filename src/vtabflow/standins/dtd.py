"""Stand-in for DTD: which of 14 kinds of texture fills the image, at any scale, direction, colours and light."""

import numpy as np

from vtabflow.standins.canvas import Array, any_colour, as_photograph, grid, noise, rotated, to_bytes, warped

TASKS = {"dtd-standin": 14}
TAU = 2 * np.pi


def wave(t: Array) -> Array:
    """A cosine of period 1 in [0, 1]."""
    return 0.5 + 0.5 * np.cos(TAU * t)


def step(t: Array, softness: float = 0.12) -> Array:
    """0 below zero, 1 above, with a soft edge."""
    return np.clip(0.5 + t / softness, 0, 1)


def saw(t: Array) -> Array:
    """Distance to the nearest whole number, in [0, 0.5]."""
    return np.abs(t - np.round(t))


def nearest(rng: np.random.Generator, u: Array, v: Array, count: int) -> Array:
    """Distances (2, size, size) to the nearest and the second of `count` scattered points of the patch."""
    points = rng.uniform(-0.6, 0.6, (count, 2)) * (np.ptp(u) + np.ptp(v)) / 2
    points += np.array([u.mean(), v.mean()])
    return np.sort(np.hypot(u - points[:, :1, None], v - points[:, 1:, None]), axis=0)[:2]


def _banded(rng: np.random.Generator, u: Array, v: Array) -> Array:
    width = rng.uniform(0.15, 0.85)
    return step(0.5 * width - saw(u)) + 0.12 * noise(rng, len(u), 6)


def _bubbly(rng: np.random.Generator, u: Array, v: Array) -> Array:
    d = nearest(rng, u, v, int(rng.integers(14, 40)))[0] / 0.5
    return np.clip(step(0.25 - np.abs(d - 0.85)) * 0.8 + 0.25 * (d < 0.85) * d, 0, 1)


def _chequered(rng: np.random.Generator, u: Array, v: Array) -> Array:
    return step(np.sin(np.pi * u) * np.sin(np.pi * v), 0.3)


def _cobwebbed(rng: np.random.Generator, u: Array, v: Array) -> Array:
    cu, cv = u.mean() + rng.uniform(-1, 1), v.mean() + rng.uniform(-1, 1)
    r, angle = np.hypot(u - cu, v - cv), np.arctan2(v - cv, u - cu) / TAU
    spokes = int(rng.integers(7, 13))
    thread = saw(angle * spokes) / spokes * TAU * r
    rings = saw(1.3 * r * (1 - 0.1 * wave(angle * spokes)))
    return np.maximum(step(0.06 - thread, 0.1), step(0.09 - rings))


def _cracked(rng: np.random.Generator, u: Array, v: Array) -> Array:
    first, second = nearest(rng, u, v, int(rng.integers(9, 24)))
    return step(second - first - rng.uniform(0.06, 0.16), 0.1) * (0.75 + 0.25 * noise(rng, len(u), 8))


def _dotted(rng: np.random.Generator, u: Array, v: Array) -> Array:
    shift = 0.5 * (np.round(v) % 2) * rng.integers(2)
    return step(rng.uniform(0.2, 0.36) - np.hypot(saw(u + shift), saw(v)))


def _fibrous(rng: np.random.Generator, u: Array, v: Array) -> Array:
    total = np.zeros_like(u)
    for _ in range(5):
        angle, pace, phase = rng.normal(0, 0.22), rng.uniform(0.7, 2.2), rng.random()
        total += wave(pace * (np.cos(angle) * u + np.sin(angle) * v) + phase + 0.3 * noise(rng, len(u), 3)) ** 2
    return np.clip(total / 3.2, 0, 1)


def _gridded(rng: np.random.Generator, u: Array, v: Array) -> Array:
    return step(rng.uniform(0.08, 0.17) - np.minimum(saw(u), saw(v)))


def _honeycombed(rng: np.random.Generator, u: Array, v: Array) -> Array:
    # Two interleaved grids hold the centres of a hexagonal lattice; the wall is where both nearest centres are as far.
    root = np.sqrt(3.0)
    a = [u - np.round(u), v - root * np.round(v / root)]
    b = [u + 0.5 - np.round(u + 0.5), v + root / 2 - root * np.round(v / root + 0.5)]
    first = np.hypot(*a) < np.hypot(*b)
    p, q = np.abs(np.where(first, a[0], b[0])), np.abs(np.where(first, a[1], b[1]))
    return step(np.maximum(p, 0.5 * p + root / 2 * q) - rng.uniform(0.34, 0.42), 0.1)


def _marbled(rng: np.random.Generator, u: Array, v: Array) -> Array:
    warp = noise(rng, len(u), 3, 3)
    return wave(0.35 * u + 2.2 * warp + 0.8 * noise(rng, len(u), 8)) ** 2


def _scaly(rng: np.random.Generator, u: Array, v: Array) -> Array:
    # Each row of half discs hides the upper part of the row behind it.
    row = np.floor(v * 1.6)
    du = saw(u + 0.5 * (row % 2)) * 2
    dv = v * 1.6 - row
    inside = step(1.0 - np.hypot(du, dv), 0.15)
    return np.where(inside > 0.5, 0.25 + 0.75 * dv * inside, 0.1)


def _swirly(rng: np.random.Generator, u: Array, v: Array) -> Array:
    total = 0.15 * u
    for _ in range(3):
        cu, cv = u.mean() + rng.uniform(-2, 2), v.mean() + rng.uniform(-2, 2)
        r, angle = np.hypot(u - cu, v - cv), np.arctan2(v - cv, u - cu)
        fade = np.exp(-((r / 1.8) ** 2))
        total = total * (1 - fade) + fade * (0.7 * r + rng.choice((-1, 1)) * angle / TAU)
    return wave(total * 1.2)


def _woven(rng: np.random.Generator, u: Array, v: Array) -> Array:
    across = np.sin(np.pi * u) * np.sin(np.pi * v) > 0
    gap = 0.4 * np.sqrt(np.abs(np.cos(np.pi * np.where(across, u, v))))
    return np.where(across, 0.55, 0.25) + gap * np.where(across, 1, 0.8) - 0.15


def _zigzagged(rng: np.random.Generator, u: Array, v: Array) -> Array:
    return step(0.25 - saw(u + rng.uniform(0.8, 1.3) * 2 * saw(v * rng.uniform(0.6, 0.9))))


TEXTURES = (
    _banded,
    _bubbly,
    _chequered,
    _cobwebbed,
    _cracked,
    _dotted,
    _fibrous,
    _gridded,
    _honeycombed,
    _marbled,
    _scaly,
    _swirly,
    _woven,
    _zigzagged,
)


def draw(rng: np.random.Generator, size: int) -> tuple[Array, dict[str, int]]:
    """One patch of a texture, uint8 (size, size, 3), and its kind (the order of TEXTURES)."""
    label = int(rng.integers(len(TEXTURES)))
    x, y = grid(size)
    cx, cy = rng.random(2)
    u, v = rotated(x, y, cx, cy, rng.uniform(0, TAU))
    # At 32 px the finest period is about 6 pixels, the coarsest about 11.
    pace = np.exp(rng.uniform(np.log(2.8), np.log(5.6)))
    stretch = np.exp(rng.uniform(-0.15, 0.15))
    u, v = warped(rng, u * pace * stretch, v * pace / stretch, 0.12)
    tone = np.clip(TEXTURES[label](rng, u, v), 0, 1)
    if rng.random() < 0.5:
        tone = 1 - tone
    dark, light = any_colour(rng, (0.1, 0.55)), any_colour(rng, (0.6, 1.0))
    tone = rng.uniform(0, 0.2) + rng.uniform(0.6, 0.85) * tone + 0.15 * (noise(rng, size, 4, 2) - 0.5)
    image = dark + (light - dark) * tone[..., None]
    return to_bytes(as_photograph(rng, image, 1.2)), {"dtd-standin": label}
