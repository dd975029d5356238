"""Stand-in for DMLab: a maze seen by somebody in it, with one object. Is it close or far, and good or bad?

Class = 3 * (bad) + (close, far, very far), as the (distance) x (reward sign) of Beattie et al. 2016's frames in VTAB.
Good objects are round fruit (apple, melon, plum), bad ones are pointed (lemon, cone, crystal); colours of the two
interleave around the colour circle. The maze is a grid of unit cells; close is up to 1.8 cells away, far up to 3.6,
very far up to 6.5.
"""

from dataclasses import dataclass

import numpy as np

from vtabflow.standins.canvas import Array, hsv, noise, to_bytes
from vtabflow.standins.solids import shrink

TASKS = {"dmlab-standin": 6}

CELLS = 15
DISTANCES = ((0.9, 1.8), (1.8, 3.6), (3.6, 6.5))
# Hue, saturation, value and outline ("round", "pointed") of the objects: three good, then three bad.
OBJECTS = (
    (0.00, 0.85, 0.85, "apple"),
    (0.36, 0.80, 0.70, "melon"),
    (0.80, 0.70, 0.70, "plum"),
    (0.15, 0.90, 0.95, "lemon"),
    (0.07, 0.90, 0.90, "cone"),
    (0.58, 0.70, 0.95, "crystal"),
)
# Half the height that a wall one cell away covers, in image heights; the walls are one cell high and the eye is in
# the middle.
FOCAL = 0.62
EYE = 0.5


@dataclass(frozen=True)
class Scene:
    """A maze with an object.

    `walls` (CELLS, CELLS) is true where there is a wall, `heading` is in radians, `radius` is half the height of the
    object in cells.
    """

    walls: Array
    eye: Array
    heading: float
    place: Array
    kind: int
    radius: float

    def distance(self) -> float:
        """From the eye to the object in cells."""
        return float(np.hypot(*(self.place - self.eye)))


def scene(rng: np.random.Generator) -> Scene:
    """Draw a maze and clear the line of sight to the object."""
    walls = rng.random((CELLS, CELLS)) < rng.uniform(0.2, 0.45)
    eye = CELLS / 2 + rng.uniform(-0.3, 0.3, 2)
    heading = rng.uniform(0, 2 * np.pi)
    near, bad, which = int(rng.integers(3)), int(rng.integers(2)), int(rng.integers(3))
    low, high = DISTANCES[near]
    distance = rng.uniform(low, high)
    bearing = heading + rng.uniform(-0.42, 0.42)
    place = eye + distance * np.array([np.cos(bearing), np.sin(bearing)])
    # Every cell within 0.35 of the line of sight is free, and so is the cell where the eye stands.
    steps = np.linspace(0.0, 1.0, 40)[:, None]
    side = 0.35 * np.array([-np.sin(bearing), np.cos(bearing)])
    for shift in (-1.0, 0.0, 1.0):
        track = (eye + steps * (place + 0.35 * (place - eye) / distance - eye) + shift * side).astype(int)
        walls[track[:, 0], track[:, 1]] = False
    walls[[0, -1], :] = walls[:, [0, -1]] = True
    return Scene(walls, eye, heading, place, 3 * bad + which, rng.uniform(0.2, 0.27))


def hits(walls: Array, eye: Array, directions: Array) -> tuple[Array, Array, Array]:
    """Where rays `directions` (2, n) from `eye` first meet a wall.

    Returns the distance, the place along the wall in [0, 1), and whether the wall faces east or west, (n,) each.
    """
    lines = np.arange(CELLS + 1)[:, None]
    best = np.full(directions.shape[1], np.inf)
    along, sideways = np.zeros_like(best), np.zeros(best.shape, dtype=bool)
    for axis in (0, 1):
        step = np.where(np.abs(directions[axis]) < 1e-9, 1e-9, directions[axis])
        t = (lines - eye[axis]) / step
        other = eye[1 - axis] + t * directions[1 - axis]
        cell = np.clip(lines - (step < 0), 0, CELLS - 1), np.clip(other.astype(int), 0, CELLS - 1)
        solid = walls[cell if axis == 0 else cell[::-1]]
        t = np.where(solid & (t > 1e-6) & (other >= 0) & (other < CELLS), t, np.inf)
        first = t.argmin(axis=0)
        nearest = np.take_along_axis(t, first[None], 0)[0]
        closer = nearest < best
        best = np.where(closer, nearest, best)
        along = np.where(closer, np.take_along_axis(other, first[None], 0)[0] % 1.0, along)
        sideways = np.where(closer, axis == 0, sideways)
    return best, along, sideways


def bricks(u: Array, v: Array, rows: float) -> Array:
    """Brightness of a brick wall at `u` along and `v` up (cells), `rows` courses to a cell."""
    course = np.floor(v * rows)
    joint = (np.abs((v * rows) % 1.0 - 0.5) > 0.42) | (np.abs((u * rows / 2 + 0.5 * (course % 2)) % 1.0 - 0.5) > 0.45)
    tone = ((np.floor(u * rows / 2 + 0.5 * (course % 2)) * 7 + course * 13) % 5) / 5
    return np.where(joint, 0.72, 0.9 + 0.12 * tone)


def paint(kind: int, x: Array, y: Array) -> tuple[Array, Array]:
    """Object `kind` at x, y in its own frame ([-1, 1], y up): inside (bool) and RGB (..., 3)."""
    hue, saturation, value, name = OBJECTS[kind]
    colour = hsv(hue, saturation, value)
    lit = 0.62 + 0.38 * np.clip(0.55 * y - 0.45 * x + 0.6, 0, 1)
    shine = 0.5 * (np.hypot(x + 0.35, y - 0.35) < 0.2)
    if name in ("apple", "plum", "melon"):
        inside = np.hypot(x, y + 0.1) < 0.88
        if name == "melon":
            lit = lit * np.where(np.abs((3 * np.arcsin(np.clip(x, -1, 1))) % 1.0 - 0.5) < 0.22, 0.62, 1.0)
        stem = (np.abs(x - 0.12 * y) < 0.1) & (y > 0.6) & (y < 1.0)
        body = colour * lit[..., None] + shine[..., None]
        return inside | stem, np.where((stem & ~inside)[..., None], hsv(0.08, 0.6, 0.3), body)
    if name == "lemon":
        inside = (np.abs(y) / 0.62 + 0.25 * x * x) ** 2 + (0.9 * x) ** 2 < 0.92 - 0.1 * np.abs(x)
        return inside, colour * lit[..., None] + shine[..., None]
    if name == "cone":
        inside = (np.abs(x) < 0.62 * (0.9 - y) / 1.6) & (y > -0.75) | (np.abs(x) < 0.85) & (y <= -0.75) & (y > -0.98)
        return inside, np.where((np.abs(y % 0.7 - 0.35) < 0.13)[..., None], 0.95, colour) * lit[..., None]
    inside = np.abs(x) / 0.68 + np.abs(y) < 1.0
    facet = np.where(x < 0, 1.0, 0.62) * np.where(y > 0, 1.0, 0.8) + 0.25 * (np.abs(x) < 0.12)
    return inside, colour * facet[..., None]


def draw(rng: np.random.Generator, size: int) -> tuple[Array, dict[str, int]]:
    """One image, uint8 (size, size, 3), and its class."""
    what = scene(rng)
    n = 2 * size
    plane = np.tan(0.62) * (2 * (np.arange(n) + 0.5) / n - 1)
    c, s = np.cos(what.heading), np.sin(what.heading)
    rays = np.stack([c - s * plane, s + c * plane])
    depth, along, sideways = hits(what.walls, what.eye, rays)
    wall, floor, ceiling = (
        hsv(rng.random(), rng.uniform(0.15, 0.55), rng.uniform(lo, hi))
        for lo, hi in ((0.55, 0.9), (0.35, 0.65), (0.4, 0.9))
    )
    courses, tile = float(rng.integers(4, 8)), float(rng.integers(1, 4))

    up = (0.5 - (np.arange(n) + 0.5) / n)[:, None]
    height = up * depth / FOCAL
    bright = (
        bricks(along * np.ones_like(height), height + EYE, courses) * np.where(sideways, 1.0, 0.8) / (1 + 0.09 * depth)
    )
    reach = FOCAL * 0.5 / np.maximum(np.abs(up), 1e-3)
    ground = [what.eye[k] + reach * rays[k] for k in (0, 1)]
    checks = np.where((np.floor(ground[0] * tile) + np.floor(ground[1] * tile)) % 2 > 0, 1.0, 0.78) / (1 + 0.09 * reach)
    flat = np.where((up < 0)[..., None], floor, ceiling) * np.where(up < 0, checks, 0.5 + 0.5 * checks)[..., None]
    image = np.where((np.abs(height) < 0.5)[..., None], wall * bright[..., None], flat)

    offset = what.place - what.eye
    forward, right = c * offset[0] + s * offset[1], -s * offset[0] + c * offset[1]
    x = (plane * forward - right) / what.radius
    y = (up * forward / FOCAL + EYE - what.radius) / what.radius
    shade = (
        0.45
        * np.clip(
            1.4 - np.hypot((ground[0] - what.place[0]) / what.radius, (ground[1] - what.place[1]) / what.radius), 0, 1
        )
        * (up < 0)
    )
    image *= 1 - (shade * (np.abs(height) >= 0.5))[..., None]
    x = np.broadcast_to(x, y.shape[:1] + x.shape)
    inside, colour = paint(what.kind, x, np.broadcast_to(y, x.shape))
    image = np.where((inside & (forward < depth))[..., None], colour / (1 + 0.04 * forward), image)
    image = image * rng.uniform(0.8, 1.15) * (0.97 + 0.06 * noise(rng, n, 12, 2))[..., None]
    near = sum(what.distance() > high for _, high in DISTANCES[:2])
    return to_bytes(np.clip(shrink(image, 2), 0, 1)), {"dmlab-standin": 3 * (what.kind // 3) + near}
