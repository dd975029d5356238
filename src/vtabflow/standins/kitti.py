"""Stand-in for KITTI: a road with cars, vans and trucks, seen from a car. How far is the nearest vehicle?

Depth z of the nearest vehicle's centre along the optical axis: up to 8 m, up to 20 m, beyond, or no vehicle (VTAB's
rule for `closest_vehicle_distance`, (low, high] bins; docs/protocol.md#labels). The four classes are about equally
frequent. Trees, houses, poles and people stand by the road in every class. As in VTAB the wide frame is squeezed to a
square.
"""

from dataclasses import dataclass

import numpy as np

from vtabflow.standins.canvas import Array, hsv, noise, to_bytes
from vtabflow.standins.solids import Camera, RenderedImage, Solid, shrink, turn, unit

TASKS = {"kitti-distance-standin": 4}

THRESHOLDS = (8.0, 20.0, 999.0)
RANGES = ((5.0, 8.0), (8.0, 20.0), (20.0, 40.0))
# Lanes and verges, metres to the right of the camera.
LANES = (-3.4, 0.0, 3.4, 5.6)
FOCAL = (1.0, 1.6)


@dataclass(frozen=True)
class Vehicle:
    """A vehicle of `kind` "car", "van" or "truck".

    Its centre is at `right` and `ahead` metres from the camera, `yaw` is in radians from straight ahead, `paint` is
    (3,).
    """

    kind: str
    right: float
    ahead: float
    yaw: float
    paint: Array

    def solids(self) -> list[Solid]:
        """Body and glass first, then wheels and rear lights (left out beyond 25 m, where they are below a pixel)."""
        axes, glass = turn(self.yaw), np.array([0.10, 0.12, 0.16])

        def part(
            kind: str,
            centre: tuple[float, float, float],
            half: tuple[float, float, float],
            colour: Array,
            frame: Array = axes,
        ) -> Solid:
            place = np.array(centre) @ axes + np.array([self.right, self.ahead, 0.0])
            return Solid(kind, place, np.array(half), frame, colour, 0.25)

        wide, long = {"car": (0.85, 2.0), "van": (0.92, 2.3), "truck": (1.15, 3.4)}[self.kind]
        if self.kind == "car":
            body = [
                part("box", (0, 0, 0.58), (wide, long, 0.34), self.paint),
                part("box", (0, -0.3, 1.12), (0.72, 1.15, 0.24), glass),
            ]
            body.append(part("box", (0, -0.3, 1.4), (0.68, 1.05, 0.05), self.paint))
        elif self.kind == "van":
            body = [
                part("box", (0, 0, 1.1), (wide, long, 0.85), self.paint),
                part("box", (0, -long, 1.5), (0.7, 0.03, 0.28), glass),
            ]
        else:
            body = [
                part("box", (0, -0.5, 2.0), (wide, long - 0.5, 1.4), self.paint),
                part("box", (0, long - 0.6, 1.3), (1.05, 0.6, 0.95), 0.6 * self.paint),
            ]
        if self.ahead > 25.0:
            return body
        wheel, left, right = np.stack([axes[1], axes[2], axes[0]]), 0.14 - wide, wide - 0.14
        tyres = [
            part("cylinder", (x, -0.6 * long, 0.36), (0.36, 0.36, 0.14), np.full(3, 0.06), wheel) for x in (left, right)
        ]
        lamps = [part("box", (x, -long, 0.75), (0.13, 0.04, 0.1), np.array([0.75, 0.05, 0.05])) for x in (left, right)]
        return [*body, *tyres, *lamps]


def scene(rng: np.random.Generator) -> list[Vehicle]:
    """Vehicles of one image, nearest first; none in a quarter of them."""
    near = int(rng.integers(4))
    if near == 3:
        return []
    low, high = RANGES[near]
    depth = low + (high - low) * rng.random()
    vehicles: list[Vehicle] = []
    for _ in range(int(rng.integers(1, 4))):
        kind = ("car", "car", "car", "van", "truck")[rng.integers(5)]
        side = LANES[rng.integers(4)] + rng.uniform(-0.4, 0.4)
        # In view, with at least its centre some way from the frame's edge.
        limit = 0.4 * depth / FOCAL[0]
        colour = hsv(rng.random(), rng.choice([0.05, 0.1, 0.75]), rng.uniform(0.3, 1.0))
        vehicles.append(Vehicle(kind, float(np.clip(side, -limit, limit)), depth, rng.normal(0.0, 0.06), colour))
        depth += rng.uniform(7.0, 14.0)
    return vehicles


def nearest(vehicles: list[Vehicle]) -> float:
    """Depth of the nearest vehicle in metres; 1000 when there is none, as VTAB appends."""
    return min([v.ahead for v in vehicles] + [1000.0])


def roadside(rng: np.random.Generator) -> list[Solid]:
    """Trees, houses, poles and people on either side, four in all."""
    n, solids, upright = 4, [], np.eye(3)
    kinds, sides = rng.integers(0, 4, n), rng.choice([-1.0, 1.0], n)
    for kind, side, ahead, more in zip(kinds, sides, rng.uniform(9, 60, n), rng.random(n), strict=True):
        x, tone = side * (7.5 + 0.16 * ahead * rng.random()), rng.uniform(0.75, 1.1)
        # Shape, place, half sizes in metres, colour.
        parts = (
            [
                ("cylinder", (x, ahead, 1.0), (0.2, 0.2, 1.0), (0.32, 0.24, 0.18)),
                ("sphere", (x, ahead, 3.2 + more), (1.6, 1.6, 1.9), (0.24, 0.42, 0.18)),
            ],
            [
                ("box", (x + 4 * side, ahead + 6, 2 + more), (3.5, 5.0, 2 + more), (0.72, 0.62, 0.52)),
                ("box", (x + 4 * side, ahead + 6, 4.3 + 2 * more), (3.8, 5.3, 0.3), (0.5, 0.25, 0.2)),
            ],
            [("cylinder", (0.9 * x, ahead, 2.8), (0.1, 0.1, 2.8), (0.35, 0.35, 0.35))],
            [
                ("cylinder", (0.85 * x, ahead, 0.75), (0.25, 0.2, 0.75), tuple(hsv(more, 0.5, 0.5))),
                ("sphere", (0.85 * x, ahead, 1.65), (0.16, 0.16, 0.16), (0.75, 0.58, 0.48)),
            ],
        )[kind]
        for shape, place, half, colour in parts:
            solids.append(Solid(shape, np.array(place), np.array(half), upright, tone * np.array(colour)))
    return solids


def land(rng: np.random.Generator, camera: Camera, size: int) -> tuple[RenderedImage, tuple[Array, Array, Array]]:
    """Sky, verges and the road with its marks, at `size` rays across, and the ground points seen."""
    rendered = RenderedImage(camera, size, np.zeros((size, size, 3)))
    x, y, depth = rendered.ground()
    texture, clouds = noise(rng, size, 14, 2), noise(rng, size, 4, 3)
    bend, half, phase = rng.uniform(-0.0016, 0.0016), rng.uniform(5.2, 6.0), rng.uniform(0, 6)
    off = np.abs(x - bend * np.minimum(y, 80) ** 2)
    grass, tar = (
        hsv(rng.uniform(0.14, 0.3), rng.uniform(0.3, 0.6), rng.uniform(0.35, 0.6)),
        np.full(3, rng.uniform(0.28, 0.5)),
    )
    sky = hsv(0.58, rng.uniform(0.08, 0.5), rng.uniform(0.75, 0.98))
    middle = np.abs(x - 1.7 * np.sign(x) - bend * np.minimum(y, 80) ** 2)
    marks = (middle < 0.12) & ((y + phase) % 6.0 < 3.0) | (np.abs(off - half + 0.3) < 0.1)
    kind = np.where(marks & (y < 60), 3, (off < half).astype(int) + (off < half + 1.5))
    image = np.array([grass, tar * 1.25, tar, np.full(3, 0.85)])[kind] * (0.88 + 0.24 * texture)[..., None]
    haze = np.clip(np.where(np.isfinite(depth), depth, 0) / 220, 0, 0.8)[..., None]
    image = image * (1 - haze) + sky * haze
    rows = ((np.arange(size) + 0.5) / size)[:, None, None]
    dome = sky * (0.85 + 0.35 * rows) + 0.35 * np.clip(clouds - 0.55, 0, 1)[..., None]
    rendered.image = np.where(np.isfinite(depth)[..., None], image, dome)
    return rendered, (x, y, depth)


def draw(rng: np.random.Generator, size: int) -> tuple[Array, dict[str, int]]:
    """One image, uint8 (size, size, 3), and its class."""
    vehicles = scene(rng)
    pitch = rng.uniform(-0.035, 0.055)
    c, s = np.cos(pitch), np.sin(pitch)
    axes = np.array([[1.0, 0, 0], [0, -s, -c], [0, c, -s]])
    camera = Camera(np.array([0.0, 0.0, rng.uniform(1.5, 1.9)]), axes, FOCAL)
    light = unit(np.array([rng.uniform(-0.9, 0.9), rng.uniform(-0.8, 0.3), 1.0]))
    ambient = rng.uniform(0.4, 0.65)
    rendered, floor = land(rng, camera, 2 * size)
    parts = [v.solids() for v in vehicles]
    rendered.shadow([solid for part in parts for solid in part[:2]], light, 0.7 * (1 - ambient) + 0.15, floor)
    for number, solid in enumerate(roadside(rng) + [solid for part in parts for solid in part]):
        rendered.add(solid, number, light, ambient)
    image = np.clip(shrink(rendered.image, 2) * rng.uniform(0.75, 1.1), 0, 1)
    return to_bytes(image), {"kitti-distance-standin": sum(nearest(vehicles) > t for t in THRESHOLDS)}
