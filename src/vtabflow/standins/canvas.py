"""Drawing functions for the renderers: coordinates, antialiased shapes, noise, colours. All float64, numpy alone.

Images are drawn in the unit square: x to the right and y down, both in [0, 1], at the centres of `size` x `size`
pixels. Edges are softened over one pixel, so an image has the same look at every size.
"""

import numpy as np
from numpy.typing import ArrayLike

Array = np.ndarray


def grid(size: int) -> tuple[Array, Array]:
    """Coordinates x and y of the pixel centres, (size, size) each."""
    centres = (np.arange(size) + 0.5) / size
    x, y = np.meshgrid(centres, centres)
    return x, y


def coverage(distance: Array, size: int) -> Array:
    """Share of each pixel inside a shape, from its signed distance (negative inside, unit-square units)."""
    return np.clip(0.5 - distance * size, 0.0, 1.0)


def over(image: Array, alpha: Array, colour: Array) -> Array:
    """Compose `colour` (3,) or (size, size, 3) over `image` (size, size, 3) with opacity `alpha` (size, size)."""
    alpha = alpha[..., None]
    return image * (1.0 - alpha) + np.asarray(colour) * alpha


def rotated(x: Array, y: Array, cx: float, cy: float, angle: float) -> tuple[Array, Array]:
    """Coordinates about (cx, cy) in a frame rotated by `angle` radians."""
    c, s = np.cos(angle), np.sin(angle)
    dx, dy = x - cx, y - cy
    return c * dx + s * dy, -s * dx + c * dy


def disc(x: Array, y: Array, radius: float) -> Array:
    """Signed distance to a disc about the origin."""
    return np.hypot(x, y) - radius


def box(x: Array, y: Array, half_width: float, half_height: float) -> Array:
    """Signed distance to a box about the origin."""
    dx, dy = np.abs(x) - half_width, np.abs(y) - half_height
    return np.hypot(np.maximum(dx, 0), np.maximum(dy, 0)) + np.minimum(np.maximum(dx, dy), 0)


def polygon(x: Array, y: Array, corners: ArrayLike) -> Array:
    """Signed distance to a polygon with `corners` (n, 2), in order; negative inside (even-odd rule)."""
    starts = np.asarray(corners, dtype=float)[:, :, None, None]
    ends = np.roll(starts, -1, axis=0)
    ax, ay, bx, by = starts[:, 0], starts[:, 1], ends[:, 0], ends[:, 1]
    nearest = _to_segments(x, y, ax, ay, bx, by)
    rise = np.where(ay == by, 1.0, by - ay)
    inside = np.logical_xor.reduce(((ay > y) != (by > y)) & (x < (bx - ax) * (y - ay) / rise + ax), axis=0)
    return np.where(inside, -nearest, nearest)


def stroke(x: Array, y: Array, points: ArrayLike) -> Array:
    """Distance to the open line through `points` (n, 2); subtract half a width to get a stroke with round ends."""
    p = np.asarray(points, dtype=float)[:, :, None, None]
    return _to_segments(x, y, p[:-1, 0], p[:-1, 1], p[1:, 0], p[1:, 1])


def _to_segments(x: Array, y: Array, ax: Array, ay: Array, bx: Array, by: Array) -> Array:
    """Distance to the nearest of n segments, whose ends are of shape (n, 1, 1)."""
    ex, ey = bx - ax, by - ay
    wx, wy = x - ax, y - ay
    t = np.clip((wx * ex + wy * ey) / np.maximum(ex * ex + ey * ey, 1e-12), 0.0, 1.0)
    px, py = wx - ex * t, wy - ey * t
    return np.sqrt((px * px + py * py).min(axis=0))


def ellipse(x: Array, y: Array, half_width: float, half_height: float) -> Array:
    """Signed distance to an ellipse about the origin, exact on its edge and within a few percent near it."""
    a, b = x / half_width, y / half_height
    k = np.sqrt(a * a + b * b)
    slope = np.sqrt((a / half_width) ** 2 + (b / half_height) ** 2)
    return k * (k - 1) / np.maximum(slope, 1e-9)


def noise(rng: np.random.Generator, size: int, cells: float, octaves: int = 1) -> Array:
    """Smooth value noise in [0, 1], (size, size): about `cells` blobs across, each octave half as strong."""
    total, weight = np.zeros((size, size)), 0.0
    for octave in range(octaves):
        n = max(round(cells * 2**octave), 1)
        values = rng.random((n + 1, n + 1))
        position = (np.arange(size) + 0.5) / size * n
        low = np.minimum(position.astype(int), n - 1)
        t = position - low
        t = t * t * (3 - 2 * t)
        rows = values[low] * (1 - t)[:, None] + values[low + 1] * t[:, None]
        total += 0.5**octave * (rows[:, low] * (1 - t) + rows[:, low + 1] * t)
        weight += 0.5**octave
    return total / weight


def hsv(hue: float, saturation: float, value: float) -> Array:
    """RGB in [0, 1] of a colour; hue is taken modulo 1."""
    k = (np.array([5.0, 3.0, 1.0]) + 6 * hue) % 6
    return value - value * saturation * np.clip(np.minimum(k, 4 - k), 0, 1)


def to_bytes(image: Array) -> Array:
    """[0, 1] to uint8 of the same shape (a channel is added to a grey image).

    The 1e-6 keeps exact halves from falling on different sides where sine or exponential differs in the last bit.
    """
    if image.ndim == 2:
        image = image[..., None]
    return np.floor(np.clip(image * 255 + 0.5 + 1e-6, 0, 255)).astype(np.uint8)


def any_colour(rng: np.random.Generator, value: tuple[float, float] = (0.2, 1.0)) -> Array:
    """A colour of any hue, more often pale than strong, with a brightness in the range `value`."""
    hue, saturation, bright = rng.random(3)
    return hsv(hue, 0.08 + 0.75 * saturation**1.5, value[0] + (value[1] - value[0]) * bright)


def random_background(
    rng: np.random.Generator, size: int, things: int = 3, value: tuple[float, float] = (0.2, 0.95)
) -> Array:
    """A background (size, size, 3): two colours in smooth patches with up to `things` discs, bars and boxes on it."""
    x, y = grid(size)
    patches = noise(rng, size, rng.uniform(1.5, 5.0), 2)[..., None]
    image = any_colour(rng, value) * (1 - patches) + any_colour(rng, value) * patches
    for _ in range(rng.integers(things + 1)):
        cx, cy = rng.random(2)
        u, v = rotated(x, y, cx, cy, rng.uniform(0, np.pi))
        kind, a, b = rng.integers(3), rng.uniform(0.04, 0.2), rng.uniform(0.02, 0.15)
        shape = disc(u, v, a) if kind == 0 else box(u, v, a, b) if kind == 1 else np.abs(v) - b / 3
        image = over(image, coverage(shape, size) * rng.uniform(0.3, 1.0), any_colour(rng, value))
    return image


def as_photograph(rng: np.random.Generator, image: Array, strength: float = 1.0) -> Array:
    """`image` under a light that falls from one side, with a colour cast, another exposure and sensor noise."""
    size = image.shape[0]
    x, y = grid(size)
    angle, fall, gain, grain = rng.uniform(0, 2 * np.pi), *(rng.uniform((0, -1, 0), (0.7, 1, 0.03)) * strength)
    ramp = 1 + fall * ((x - 0.5) * np.cos(angle) + (y - 0.5) * np.sin(angle))
    cast = 1 + 0.12 * strength * rng.uniform(-1, 1, 3)
    image = (image - 0.5) * (1 - 0.35 * strength * rng.random()) + 0.5
    return image * (ramp * (1 + 0.25 * gain))[..., None] * cast + grain * rng.standard_normal(image.shape)


def warped(rng: np.random.Generator, u: Array, v: Array, amount: float) -> tuple[Array, Array]:
    """Coordinates with a slow wave of up to `amount` added: no two drawings of a figure have the same outline."""
    a, b, p, q = rng.uniform((-amount, -amount, 0, 0), (amount, amount, 2 * np.pi, 2 * np.pi))
    return u + a * np.sin(2.2 * v + p), v + b * np.sin(2.2 * u + q)


def random_frame(
    rng: np.random.Generator,
    size: int,
    reach: tuple[float, float] = (0.25, 0.42),
    shift: float = 0.12,
    tilt: float = 0.3,
    bend: float = 0.12,
    flip: bool = True,
) -> tuple[Array, Array, float]:
    """A frame for a figure drawn in [-1, 1]: its u and v (size, size) and its scale (half its width, unit square).

    Position, scale, tilt, aspect, shear, mirror and outline are drawn from `rng`.
    """
    x, y = grid(size)
    scale = rng.uniform(*reach)
    cx, cy = 0.5 + rng.uniform(-shift, shift, 2)
    u, v = rotated(x, y, cx, cy, rng.uniform(-tilt, tilt))
    aspect, shear = np.exp(rng.uniform(-0.2, 0.2)), rng.uniform(-0.2, 0.2)
    u, v = (u + shear * v) / (scale * aspect), v * aspect / scale
    if flip and rng.random() < 0.5:
        u = -u
    u, v = warped(rng, u, v, bend)
    return u, v, scale


def figure(image: Array, u: Array, v: Array, scale: float, parts: list[tuple], colours: list[Array]) -> Array:
    """`image` with `parts` drawn on it in order.

    The frame (u, v) and `scale` are those of `random_frame`. A part is a tuple that begins with its form:

    ("e", colour, cx, cy, half width, half height)   ellipse
    ("b", colour, cx, cy, half width, half height)   box
    ("r", colour, cx, cy, radius, line width)        ring
    ("p", colour, [(x, y), ...])                     polygon
    ("s", colour, line width, [(x, y), ...])         open line with round ends

    where `colour` is an index into `colours`, each (3,) or (size, size, 3).
    """
    size = image.shape[0]
    for form, colour, *shape in parts:
        if form == "e":
            distance = ellipse(u - shape[0], v - shape[1], shape[2], shape[3])
        elif form == "b":
            distance = box(u - shape[0], v - shape[1], shape[2], shape[3])
        elif form == "r":
            distance = np.abs(disc(u - shape[0], v - shape[1], shape[2])) - shape[3] / 2
        elif form == "p":
            distance = polygon(u, v, shape[0])
        else:
            distance = stroke(u, v, shape[1]) - shape[0] / 2
        image = over(image, coverage(distance * scale, size), colours[colour])
    return image


def shaded_surface(rng: np.random.Generator, u: Array, v: Array, colour: Array, depth: float = 0.5) -> Array:
    """`colour` (3,) as a surface (size, size, 3): lit from a random side and, half of the time, patterned."""
    angle, cells, p = rng.uniform((0, 3, 0), (2 * np.pi, 9, 2 * np.pi))
    tone = 1 + 0.5 * depth * (u * np.cos(angle) + v * np.sin(angle))
    kind = rng.integers(6)
    if kind == 0:
        tone = tone + 0.3 * depth * np.sin(cells * u + p)
    elif kind == 1:
        tone = tone + 0.3 * depth * np.sin(cells * (u + v) + p)
    elif kind == 2:
        tone = tone + 0.35 * depth * np.sin(cells * u + p) * np.sin(cells * v + p)
    return np.clip(tone, 0.3, 1.6)[..., None] * colour


def figure_colours(rng: np.random.Generator, count: int, image: Array) -> list[Array]:
    """`count` colours for a figure on `image`, the first as a rule far from the middle of the image in brightness."""
    size = image.shape[0]
    middle = image[size // 3 : size - size // 3, size // 3 : size - size // 3].mean()
    light = rng.random() < (0.85 if middle < 0.5 else 0.15)
    ranges = ((0.75, 1.0), (0.05, 0.45)) if light else ((0.1, 0.4), (0.6, 1.0))
    return [any_colour(rng, ranges[i % 2]) for i in range(count)]
