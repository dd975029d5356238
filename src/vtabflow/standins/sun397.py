"""Stand-in for SUN397: which of 14 scenes, by its layout of sky, ground, water, buildings, plants or rooms.

A scene is drawn at another time of day, from another height and side each time; fog, night and season move its colours.
"""

import numpy as np

from vtabflow.standins.canvas import (
    Array,
    as_photograph,
    box,
    coverage,
    disc,
    ellipse,
    grid,
    hsv,
    noise,
    over,
    polygon,
    rotated,
    to_bytes,
)

TASKS = {"sun397-standin": 14}


def _colour(rng: np.random.Generator, hue: float, spread: float, value: tuple[float, float] = (0.3, 0.9)) -> Array:
    return hsv(hue + rng.normal(0, spread), rng.uniform(0.1, 0.65), rng.uniform(*value))


def sky(rng: np.random.Generator, x: Array, y: Array, horizon: float) -> Array:
    """Day, dusk or night above the horizon, with clouds or without."""
    hour = rng.integers(3)
    top = (hsv(0.58, 0.5, 0.9), hsv(0.72, 0.4, 0.5), hsv(0.64, 0.6, 0.2))[hour] * rng.uniform(0.8, 1.1)
    low = (hsv(0.55, 0.15, 0.95), hsv(0.06, 0.5, 0.9), hsv(0.62, 0.4, 0.4))[hour]
    t = np.clip(y / max(horizon, 0.1), 0, 1)[..., None]
    image = top * (1 - t) + low * t
    if rng.random() < 0.6:
        clouds = np.clip(2.5 * noise(rng, len(x), rng.uniform(2, 5), 2) - 1.2, 0, 1)
        image = over(image, 0.7 * clouds, np.clip(low + 0.15, 0, 1))
    return image


def ground(rng: np.random.Generator, image: Array, edge: Array, paint: Array, grain: float = 5) -> Array:
    """A rough surface below the height `edge` (size, size) laid over the image."""
    size = len(image)
    _, y = grid(size)
    tone = 0.75 + 0.5 * noise(rng, size, grain, 2)
    return over(image, coverage(edge - y, size), paint * tone[..., None])


def ridge(rng: np.random.Generator, x: Array, height: float, rise: float, peaks: float) -> Array:
    """A skyline of hills: heights (size, size), `rise` high over `height`."""
    p, q = rng.uniform(0, 2 * np.pi, 2)
    return height - rise * (0.6 * np.abs(np.sin(peaks * x + p)) + 0.4 * np.abs(np.sin(2.3 * peaks * x + q)))


def _water(rng: np.random.Generator, image: Array, top: Array, hue: float = 0.56) -> Array:
    size = len(image)
    _, y = grid(size)
    ripples = np.cos(rng.uniform(40, 90) * (y + 0.02 * np.sin(20 * y)) + 4 * noise(rng, size, 4))
    paint = _colour(rng, hue, 0.03, (0.3, 0.8)) * (1 + 0.13 * ripples[..., None])
    return over(image, coverage(top - y, size), paint)


def _beach(rng: np.random.Generator, x: Array, y: Array, h: float) -> Array:
    image = _water(rng, sky(rng, x, y, h), np.full_like(y, h))
    shore = h + rng.uniform(0.12, 0.3) + rng.uniform(-0.35, 0.35) * (x - 0.5) + 0.02 * np.sin(14 * x)
    image = over(image, coverage(np.abs(y - shore) - 0.02, len(x)), np.full(3, 0.95))
    return ground(rng, image, shore, _colour(rng, 0.11, 0.02, (0.6, 0.95)), 8)


def _bridge(rng: np.random.Generator, x: Array, y: Array, h: float) -> Array:
    size, paint = len(x), _colour(rng, rng.random(), 0.1, (0.2, 0.8))
    image = _water(rng, sky(rng, x, y, h), np.full_like(y, h))
    deck = h - rng.uniform(0.03, 0.12)
    image = over(image, coverage(np.abs(y - deck) - 0.025, size), paint)
    span, start = rng.uniform(0.35, 0.6), rng.random()
    t = (x - start) / span
    nearest = np.abs(t - np.round(t)) * span
    image = over(image, coverage(np.maximum(nearest - 0.025, np.abs(y - deck + 0.1) - 0.27), size), paint)
    sag = deck - 0.32 + 0.28 * (1 - (2 * np.abs(t - np.round(t)) - 1) ** 2)
    return over(image, coverage(np.abs(y - sag) - 0.012, size), paint)


def _canyon(rng: np.random.Generator, x: Array, y: Array, h: float) -> Array:
    size, mid = len(x), rng.uniform(0.35, 0.65)
    image, rock = sky(rng, x, y, h), _colour(rng, 0.04, 0.02, (0.45, 0.9))
    width = 0.05 + rng.uniform(0.1, 0.25) * np.clip(1 - y, 0, 1) + 0.04 * noise(rng, size, 6)
    wall = np.maximum(width - np.abs(x - mid), 0.25 - y + 0.3 * noise(rng, size, 4) - 0.15)
    layers = 1 + 0.25 * np.cos(rng.uniform(30, 55) * (y + 0.1 * noise(rng, size, 3)))
    return over(image, coverage(wall, size), rock * layers[..., None])


def _church(rng: np.random.Generator, x: Array, y: Array, h: float) -> Array:
    size, stone = len(x), _colour(rng, 0.1, 0.05, (0.35, 0.85))
    image = stone * (0.8 + 0.4 * noise(rng, size, 4))[..., None]
    mid, glass = 0.5 + rng.uniform(-0.12, 0.12), _colour(rng, rng.random(), 0.1, (0.5, 1.0))
    for depth in (1.0, 0.72, 0.5, 0.34):
        wide, high, top = 0.5 * depth, 0.55 * depth, 0.5 - 0.2 * depth
        arch = np.maximum(np.hypot(np.abs(x - mid) + 0.3 * wide, (y - top) * wide / high) - 1.3 * wide, top - 2 - y)
        hall = np.where(y > top, np.abs(x - mid) - wide, arch)
        image = over(image, coverage(np.maximum(hall, y - 0.5 - 0.45 * depth), size), stone * (0.25 + 0.6 * depth))
    panes = np.maximum(np.abs(x - mid) - 0.08, np.abs(y - 0.45) - 0.16)
    return over(image, coverage(panes, size), glass * (1 + 0.3 * np.cos(60 * y))[..., None])


def _corridor(rng: np.random.Generator, x: Array, y: Array, h: float) -> Array:
    size = len(x)
    u, v = x - 0.5 - rng.uniform(-0.15, 0.15), y - 0.5 - rng.uniform(-0.1, 0.1)
    depth = np.maximum(np.abs(u), np.abs(v) * rng.uniform(0.8, 1.2))
    wall, floor, roof = _colour(rng, 0.12, 0.2, (0.5, 0.95)), _colour(rng, 0.1, 0.2, (0.2, 0.6)), np.full(3, 0.85)
    flat = np.abs(u) < np.abs(v)
    image = np.where(flat[..., None], np.where((v > 0)[..., None], floor, roof), wall)
    doors = np.cos(rng.uniform(3, 5) / np.maximum(depth, 0.04)) > 0.3
    image = over(image, 0.7 * (~flat & doors & (v > -0.5 * np.abs(u))), _colour(rng, 0.08, 0.1, (0.2, 0.6)))
    image = image * np.clip(0.35 + 1.6 * depth, 0, 1.1)[..., None]
    return over(image, coverage(depth - 0.07, size), hsv(0.12, 0.1, rng.uniform(0.5, 1.0)))


def _desert(rng: np.random.Generator, x: Array, y: Array, h: float) -> Array:
    image = sky(rng, x, y, h)
    for layer in range(3):
        p, q = rng.uniform(0, 6.3), rng.uniform(3, 7)
        crest = h + 0.17 * layer + 0.08 * np.sin(q * x + p)
        lit = np.cos(q * x + p) > 0
        paint = _colour(rng, 0.09, 0.015, (0.55, 0.95)) * np.where(lit, 1.0, 0.72)[..., None]
        image = over(image, coverage(crest - y, len(x)), paint)
    return image


def _farmland(rng: np.random.Generator, x: Array, y: Array, h: float) -> Array:
    image, vanish = sky(rng, x, y, h), rng.uniform(0.2, 0.8)
    rows = (x - vanish) / np.maximum(y - h + 0.05, 0.02)
    crop, soil = _colour(rng, 0.24, 0.08, (0.4, 0.85)), _colour(rng, 0.08, 0.02, (0.25, 0.55))
    stripes = np.clip(0.5 + 1.5 * np.cos(rng.uniform(5, 9) * rows), 0, 1)
    field = over(np.broadcast_to(soil, image.shape), stripes, crop)
    return over(image, coverage(h - y, len(x)), field)


def _forest(rng: np.random.Generator, x: Array, y: Array, h: float) -> Array:
    size = len(x)
    image = ground(rng, sky(rng, x, y, h), 0.1 * noise(rng, size, 4) - 0.1, _colour(rng, 0.29, 0.06, (0.25, 0.75)), 7)
    image = ground(rng, image, 0.2 + h + 0.06 * noise(rng, size, 5), _colour(rng, 0.2, 0.08, (0.2, 0.6)), 9)
    bark = _colour(rng, 0.08, 0.03, (0.1, 0.4))
    for _ in range(rng.integers(4, 9)):
        far = rng.uniform(0.3, 1)
        trunk = np.abs(x - rng.random() + 0.06 * (y - 0.5) * rng.normal()) - 0.045 * far
        image = over(image, coverage(np.maximum(trunk, y - h - 0.15 - 0.3 * far), size), bark * (1.7 - 0.8 * far))
    return image


def _harbour(rng: np.random.Generator, x: Array, y: Array, h: float) -> Array:
    size = len(x)
    image = ground(rng, sky(rng, x, y, h), ridge(rng, x, h, 0.08, 3.0), _colour(rng, 0.3, 0.1, (0.3, 0.6)))
    image = _water(rng, image, np.full_like(y, h))
    for _ in range(rng.integers(2, 6)):
        cx, foot, wide = rng.uniform(0.05, 0.95), h + rng.uniform(0.03, 0.4), rng.uniform(0.08, 0.16)
        hull = np.array([(-1, -0.3), (1, -0.3), (0.7, 0.35), (-0.7, 0.35)]) * wide + (cx, foot)
        image = over(image, coverage(polygon(x, y, hull), size), _colour(rng, rng.random(), 0.1, (0.5, 1.0)))
        image = over(image, coverage(box(x - cx, y - foot + 1.6 * wide, 0.012, 1.3 * wide), size), np.full(3, 0.9))
    return image


def _library(rng: np.random.Generator, x: Array, y: Array, h: float) -> Array:
    size, slope = len(x), rng.uniform(-0.35, 0.35)
    shelves = (y - 0.5) * (1 + slope * (x - 0.5) * 2) * rng.uniform(4.0, 6.0) + rng.random()
    books = x * rng.uniform(10, 16)
    row, height = np.floor(shelves), shelves % 1
    palette = np.stack([_colour(rng, rng.random(), 0.1, (0.2, 0.95)) for _ in range(9)])
    chosen = (np.floor(books) * 5 + row * 7 + rng.integers(9)).astype(int) % 9
    gap, board = height < 0.1 + 0.07 * (chosen % 4), height > 0.87
    image = palette[chosen] * (0.6 + 0.4 * np.sin(np.pi * (books % 1)))[..., None]
    image = np.where(gap[..., None], 0.1, image)
    image = np.where(board[..., None], _colour(rng, 0.07, 0.02, (0.3, 0.7)), image)
    floor = 1.05 - rng.uniform(0, 0.25) + 0.4 * slope * (x - 0.5)
    return over(image, coverage(floor - y, size), _colour(rng, 0.08, 0.1, (0.3, 0.7)))


def _bedroom(rng: np.random.Generator, x: Array, y: Array, h: float) -> Array:
    size, wall = len(x), _colour(rng, rng.random(), 0.1, (0.5, 0.95))
    image = wall * (0.9 + 0.15 * noise(rng, size, 3))[..., None]
    floor, side = rng.uniform(0.62, 0.75), rng.choice((-1, 1))
    image = ground(rng, image, np.full_like(y, floor), _colour(rng, 0.08, 0.05, (0.3, 0.7)), 6)
    mid = 0.5 + side * rng.uniform(0, 0.2)
    spread, sheet = _colour(rng, rng.random(), 0.1, (0.3, 0.95)), hsv(0.1, 0.05, rng.uniform(0.8, 1.0))
    board = box(x - mid, y - floor + 0.14, 0.3, 0.15)
    image = over(image, coverage(board, size), hsv(0.07, 0.5, rng.uniform(0.2, 0.6)))
    bed = np.array([(mid - 0.29, floor - 0.05), (mid + 0.29, floor - 0.05), (mid + 0.4, 0.97), (mid - 0.4, 0.97)])
    image = over(image, coverage(polygon(x, y, bed), size), spread)
    for offset in (-0.14, 0.14):
        image = over(image, coverage(ellipse(x - mid - offset, y - floor + 0.03, 0.12, 0.06), size), sheet)
    window = box(x - mid + side * rng.uniform(0.3, 0.42), y - 0.26, 0.13, 0.16)
    image = over(image, coverage(window, size), hsv(0.57, 0.3, rng.uniform(0.2, 1.0)))
    return over(image, coverage(np.abs(window) - 0.015, size), sheet)


def _mountain(rng: np.random.Generator, x: Array, y: Array, h: float) -> Array:
    size, image = len(x), sky(rng, x, y, h)
    cx, top, steep = rng.uniform(0.3, 0.7), h - rng.uniform(0.25, 0.4), rng.uniform(0.7, 1.3)
    rough = 0.1 * (noise(rng, size, 6, 2) - 0.5)
    second = top + 0.12 + steep * np.abs(x - cx - rng.choice((-0.3, 0.3)))
    peak = np.minimum(top + steep * np.abs(x - cx), second) + rough
    rock = _colour(rng, 0.62, 0.1, (0.25, 0.6)) * (1 - 0.3 * (x > cx + rough))[..., None]
    image = over(image, coverage(peak - y, size), rock)
    image = over(image, coverage(np.maximum(peak - y, y - top - 0.17 + 1.5 * rough), size), np.full(3, 0.95))
    return ground(rng, image, ridge(rng, x, h + 0.25, 0.1, 2.0), _colour(rng, 0.3, 0.06, (0.2, 0.6)), 8)


def _skyline(rng: np.random.Generator, x: Array, y: Array, h: float) -> Array:
    size, image = len(x), sky(rng, x, y, h)
    left = -rng.uniform(0, 0.1)
    lights = hsv(0.13, rng.uniform(0.1, 0.6), rng.uniform(0.1, 1.0))
    rows, lanes = rng.uniform(60, 90, 2)
    windows = (np.cos(rows * y) > 0) & (np.cos(lanes * x) > 0)
    while left < 1:
        wide, top = rng.uniform(0.1, 0.22), h - rng.uniform(0.02, 0.42)
        tower = box(x - left - wide / 2, y - top - 0.5, wide / 2, 0.5)
        alpha, paint = coverage(tower, size), _colour(rng, 0.6, 0.2, (0.2, 0.75))
        image = over(over(image, alpha, paint), 0.6 * alpha * windows, lights)
        left += wide * rng.uniform(0.9, 1.2)
    return ground(rng, image, np.full_like(y, h + 0.25), _colour(rng, 0.6, 0.3, (0.2, 0.5)))


def _street(rng: np.random.Generator, x: Array, y: Array, h: float) -> Array:
    size, vanish = len(x), rng.uniform(0.35, 0.65)
    image = sky(rng, x, y, h)
    image = ground(rng, image, np.full_like(y, h), _colour(rng, 0.1, 0.2, (0.4, 0.7)))
    road = np.abs(x - vanish) - rng.uniform(0.7, 1.0) * (y - h)
    image = over(image, coverage(np.maximum(road * 0.7, h - y), size), np.full(3, rng.uniform(0.2, 0.45)))
    line = np.maximum(np.abs(x - vanish) - 0.06 * (y - h), h + 0.03 - y)
    image = over(image, coverage(line, size) * (np.cos(3 / np.maximum(y - h, 0.04)) > -0.4), np.full(3, 0.9))
    for side in (-1, 1):
        near = side * (x - vanish)
        eaves, kerb = h - rng.uniform(0.5, 1.0) * near, h + rng.uniform(0.3, 0.5) * near
        wall = np.maximum(np.maximum(eaves - y, y - kerb), 0.1 - near)
        panes = (np.cos(2.5 / np.maximum(near, 0.05)) > 0.2) & (np.cos(9 * (y - h) / np.maximum(near, 0.05)) > 0)
        alpha, paint = coverage(wall, size), _colour(rng, 0.06, 0.15, (0.35, 0.85))
        image = over(over(image, alpha, paint), 0.6 * alpha * panes, 0.35 * paint)
    return image


SCENES = (
    _beach,
    _bedroom,
    _bridge,
    _canyon,
    _church,
    _corridor,
    _desert,
    _farmland,
    _forest,
    _harbour,
    _library,
    _mountain,
    _skyline,
    _street,
)


def draw(rng: np.random.Generator, size: int) -> tuple[Array, dict[str, int]]:
    """One view, uint8 (size, size, 3), and the scene (the order of SCENES)."""
    label = int(rng.integers(len(SCENES)))
    x, y = grid(size)
    zoom = rng.uniform(0.5, 1.0)
    u, v = rotated(x, y, 0.5, 0.5, rng.uniform(-0.2, 0.2))
    dx, dy = rng.uniform(-0.5, 0.5, 2) * (1.2 - zoom)
    image = SCENES[label](rng, u * zoom + 0.5 + dx, v * zoom + 0.5 + dy, rng.uniform(0.38, 0.62))
    if rng.random() < 0.5:
        # Fog, a filter or an old photograph: the colours go towards one tint.
        grey = image.mean(axis=2, keepdims=True)
        image += rng.uniform(0.4, 1.0) * (grey * hsv(rng.random(), rng.uniform(0, 0.5), 1.0) - image)
    # Passers-by, signs and leaves in front of the lens.
    for _ in range(rng.integers(7)):
        cx, cy, r = rng.random(), rng.random(), rng.uniform(0.03, 0.13)
        spot = disc(x - cx, y - cy, r) if rng.random() < 0.5 else box(x - cx, y - cy, r * 0.6, r * 1.5)
        image = over(image, 0.8 * coverage(spot, size), _colour(rng, rng.random(), 0.1, (0.1, 0.9)))
    return to_bytes(as_photograph(rng, np.clip(image, 0, 1.2), 1.2)), {"sun397-standin": label}
