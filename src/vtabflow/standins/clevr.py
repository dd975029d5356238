"""Stand-in for CLEVR: three to ten shaded solids on a grey ground. How many are there, and how far is the nearest?

Count: 3..10 -> 0..7. Distance: the depth of the nearest object's centre along the optical axis, in six bins, (low,
high] as VTAB's rule for `closest_object_distance`; the thresholds are the sextiles of this renderer's own scenes.
Shapes, the two sizes, eight colours and the two materials are those of Johnson et al. 2017 (section 3); their camera
is jittered too.
"""

from dataclasses import dataclass

import numpy as np

from vtabflow.standins.canvas import Array, noise, to_bytes
from vtabflow.standins.solids import Camera, RenderedImage, Solid, look_at, shrink, turn, unit

TASKS = {"clevr-count-standin": 8, "clevr-distance-standin": 6}

# Sextiles of the nearest depth over 20,000 scenes, to 0.05.
THRESHOLDS = (8.6, 8.95, 9.25, 9.55, 9.95)

COLOURS = (
    np.array(
        [
            [87, 87, 87],
            [173, 35, 35],
            [42, 75, 215],
            [29, 105, 20],
            [129, 74, 25],
            [129, 38, 192],
            [41, 208, 208],
            [255, 238, 51],
        ]
    )
    / 255
)
# Lifted towards white, as under CLEVR's three lamps.
COLOURS = 0.12 + 0.88 * COLOURS
KINDS = ("sphere", "box", "cylinder")


@dataclass(frozen=True)
class Scene:
    """What an image shows: its solids and how it is lit and seen."""

    solids: list[Solid]
    camera: Camera
    light: Array
    floor: float
    tint: Array

    def count(self) -> int:
        """Number of objects."""
        return len(self.solids)

    def nearest(self) -> float:
        """Depth of the nearest object's centre in world units."""
        return float(self.camera.project(np.array([s.centre for s in self.solids]))[2].min())


def places(rng: np.random.Generator, radii: Array) -> Array:
    """Ground positions (n, 2) in a square of side 6, discs of `radii` (n,) at least 0.2 apart."""
    found: list[tuple[float, float, float]] = []
    for radius in radii:
        for x, y in rng.uniform(-3.0, 3.0, (60, 2)).tolist():
            if all((x - a) ** 2 + (y - b) ** 2 > (radius + r + 0.2) ** 2 for a, b, r in found):
                found.append((x, y, radius))
                break
        else:
            return places(rng, radii)
    return np.array(found)[:, :2]


def scene(rng: np.random.Generator) -> Scene:
    """Draw the factors of an image: the count evenly, everything else independently of it."""
    count = int(rng.integers(3, 11))
    sizes = rng.choice([0.38, 0.68], count)
    kinds, colours = rng.integers(0, 3, count), rng.integers(0, 8, count)
    gloss, yaws = rng.choice([0.08, 0.7], count), rng.uniform(0, 2 * np.pi, count)
    spots = places(rng, np.where(kinds == 1, 1.25, 1.0) * sizes) + np.array([0.0, rng.uniform(-1.0, 1.0)])
    solids = [
        Solid(KINDS[k], np.array([x, y, s]), np.full(3, s), turn(yaw), COLOURS[c], g)
        for k, s, c, g, yaw, (x, y) in zip(kinds, sizes, colours, gloss, yaws, spots, strict=True)
    ]
    eye = np.array([0.0, -9.6, 6.4]) + rng.uniform(-1.0, 1.0, 3) * np.array([0.6, 0.15, 0.15])
    camera = look_at(eye, np.array([0.0, -0.2, 0.2]), (1.22, 1.22))
    light = unit(np.array([rng.uniform(-1.0, 1.0), rng.uniform(-0.9, 0.3), 1.5]))
    return Scene(solids, camera, light, rng.uniform(0.2, 0.78), 1 + rng.uniform(-0.09, 0.09, 3))


def render(scene: Scene, size: int, texture: Array) -> RenderedImage:
    """The image of a scene at `size` rays across; `texture` (size, size) in [0, 1] mottles the ground a little."""
    rendered = RenderedImage(scene.camera, size, np.zeros((size, size, 3)))
    x, y, depth = rendered.ground()
    glow = np.exp(-((x - 2 * scene.light[0]) ** 2 + (y - 2 * scene.light[1]) ** 2) / 60.0)
    shade = scene.floor * (0.7 + 0.45 * glow) * (0.96 + 0.08 * texture) * np.minimum(1.0, 22.0 / depth)
    rendered.image = shade[..., None] * scene.tint
    rendered.shadow(scene.solids, scene.light, 0.36, (x, y, depth))
    for number, solid in enumerate(scene.solids):
        rendered.add(solid, number, scene.light, 0.42)
    return rendered


def draw(rng: np.random.Generator, size: int) -> tuple[Array, dict[str, int]]:
    """One image, uint8 (size, size, 3), and its class for each task."""
    what = scene(rng)
    rendered = render(what, 2 * size, noise(rng, 2 * size, 6, 2))
    labels = {
        "clevr-count-standin": what.count() - 3,
        "clevr-distance-standin": sum(what.nearest() > t for t in THRESHOLDS),
    }
    return to_bytes(shrink(rendered.image, 2)), labels
