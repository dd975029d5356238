"""Stand-in for smallNORB: a lit grey toy on a turntable. Which way does it face, and from how high is it seen?

As LeCun et al. 2004: five categories (animal, human, airplane, truck, car), 18 azimuths 20 degrees apart, 9 elevations
from 30 to 70 degrees, 6 lightings, one grey channel. Here each image has its own instance (proportions and paint
drawn anew), and no toy looks the same from two azimuths: each has a head, a nose, a cab or outstretched arms in front.
The turntable shows faintly, lighter or darker than the floor.
"""

import numpy as np

from vtabflow.standins.canvas import Array, noise, to_bytes
from vtabflow.standins.solids import RenderedImage, Solid, look_at, shrink, turn, unit

TASKS = {"smallnorb-azimuth-standin": 18, "smallnorb-elevation-standin": 9}

# Towards the light, and the share of light that comes from everywhere; six lightings as in the original.
LIGHTS = (
    ((0.7, -0.5, 1.0), 0.40),
    ((-0.8, -0.4, 1.0), 0.40),
    ((0.1, -0.9, 0.8), 0.45),
    ((0.3, 0.7, 1.0), 0.55),
    ((-0.3, 0.1, 1.2), 0.50),
    ((0.9, 0.2, 0.6), 0.65),
)

# A part: kind, centre, half sizes, paint (multiplies the toy's tone), axis that a cylinder lies along.
Part = tuple[str, tuple[float, float, float], tuple[float, float, float], float, str]


def _wheels(xs: tuple[float, ...], width: float, radius: float) -> list[Part]:
    return [("cylinder", (x, y, radius), (radius, radius, 0.07), 0.35, "y") for x in xs for y in (-width, width)]


def car(p: Array) -> list[Part]:
    """Parts of a car; `p` (3,) in [0, 1] are its proportions."""
    long, high, back = 0.85 + 0.2 * p[0], 0.16 + 0.06 * p[1], 0.12 + 0.25 * p[2]
    return [
        ("box", (0, 0, 0.18 + high), (long, 0.42, high), 1.0, "z"),
        ("box", (-back, 0, 0.18 + 2 * high + 0.15), (0.42, 0.36, 0.16), 0.6, "z"),
        ("box", (long, 0, 0.2 + high), (0.05, 0.36, 0.06), 1.5, "z"),
        *_wheels((-0.6 * long, 0.6 * long), 0.42, 0.2),
    ]


def truck(p: Array) -> list[Part]:
    """Parts of a truck; `p` (3,) in [0, 1] are its proportions."""
    load, cab = 0.32 + 0.18 * p[0], 0.22 + 0.1 * p[1]
    return [
        ("box", (-0.3, 0, 0.25 + load), (0.68, 0.42, load), 1.0, "z"),
        ("box", (0.7, 0, 0.22 + cab), (0.24, 0.38, cab), 0.55 + 0.5 * p[2], "z"),
        ("box", (0.0, 0, 0.24), (0.92, 0.3, 0.06), 0.4, "z"),
        *_wheels((-0.65, 0.65), 0.4, 0.19),
    ]


def airplane(p: Array) -> list[Part]:
    """Parts of an aeroplane; `p` (3,) in [0, 1] are its proportions."""
    span, sweep, high = 0.8 + 0.25 * p[0], 0.25 * p[1], 0.32
    return [
        ("sphere", (0, 0, high), (1.0, 0.17, 0.17), 1.0, "z"),
        ("box", (0.15 - sweep, 0, high), (0.2, span, 0.035), 0.9, "z"),
        ("box", (-0.82, 0, high + 0.08), (0.12, 0.36, 0.03), 0.9, "z"),
        ("box", (-0.82, 0, high + 0.25), (0.13, 0.03, 0.2 + 0.08 * p[2]), 0.75, "z"),
        ("cylinder", (0.25, 0.45 * span, high - 0.08), (0.1, 0.1, 0.2), 0.5, "x"),
        ("cylinder", (0.25, -0.45 * span, high - 0.08), (0.1, 0.1, 0.2), 0.5, "x"),
    ]


def animal(p: Array) -> list[Part]:
    """Parts of an animal; `p` (3,) in [0, 1] are its proportions."""
    leg, neck = 0.2 + 0.12 * p[0], 0.1 + 0.35 * p[1]
    body = 2 * leg + 0.2
    return [
        ("sphere", (0, 0, body), (0.72, 0.28, 0.27), 1.0, "z"),
        ("cylinder", (0.58, 0, body + 0.15 + neck / 2), (0.12, 0.12, 0.15 + neck / 2), 0.9, "z"),
        ("sphere", (0.76, 0, body + 0.28 + neck), (0.28, 0.16, 0.16), 0.8 + 0.4 * p[2], "z"),
        ("cylinder", (-0.85, 0, body + 0.08), (0.05, 0.05, 0.22), 0.7, "x"),
        *[("cylinder", (x, y, leg), (0.09, 0.09, leg), 0.75, "z") for x in (-0.45, 0.45) for y in (-0.17, 0.17)],
    ]


def human(p: Array) -> list[Part]:
    """Parts of a person; `p` (3,) in [0, 1] are its proportions."""
    leg, reach, lift = 0.36 + 0.08 * p[0], 0.28 + 0.12 * p[1], 0.12 * p[2]
    chest = 2 * leg + 0.3
    return [
        ("box", (0, 0, chest), (0.15, 0.27, 0.32), 1.0, "z"),
        ("sphere", (0.04, 0, chest + 0.5), (0.18, 0.17, 0.2), 1.2, "z"),
        *[("box", (0.12 + reach, y, chest + 0.15 + lift), (reach, 0.07, 0.07), 0.8, "z") for y in (-0.33, 0.33)],
        *[("cylinder", (0, y, leg), (0.11, 0.11, leg), 0.55, "z") for y in (-0.15, 0.15)],
        ("box", (0.12, 0, 0.06), (0.22, 0.27, 0.06), 0.4, "z"),
    ]


CATEGORIES = (animal, human, airplane, truck, car)

# Rows are the world axes that a part's own three axes lie along before the turntable turns.
LYING = {
    "x": np.array([[0.0, 1, 0], [0, 0, 1], [1, 0, 0]]),
    "y": np.array([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]]),
    "z": np.eye(3),
}


def toy(parts: list[Part], azimuth: float, scale: float, spot: Array, tone: float) -> list[Solid]:
    """The solids of a toy that faces `azimuth` radians from the camera's right, standing at `spot` (2,)."""
    table = turn(azimuth)
    solids = []
    for kind, centre, half, paint, along in parts:
        place = scale * (np.array(centre) @ table) + np.array([spot[0], spot[1], 0.0])
        solids.append(
            Solid(kind, place, scale * np.array(half), LYING[along] @ table, np.array([min(tone * paint, 1.0)]), 0.12)
        )
    return solids


def draw(rng: np.random.Generator, size: int) -> tuple[Array, dict[str, int]]:
    """One image, uint8 (size, size, 1), and its class for each task."""
    azimuth, elevation = int(rng.integers(18)), int(rng.integers(9))
    parts = CATEGORIES[rng.integers(5)](rng.random(3))
    direction, ambient = LIGHTS[rng.integers(6)]
    light = unit(np.array(direction) + rng.uniform(-0.08, 0.08, 3))
    solids = toy(
        parts, np.deg2rad(20.0 * azimuth), rng.uniform(0.88, 1.05), rng.uniform(-0.12, 0.12, 2), rng.uniform(0.45, 0.95)
    )
    height = np.deg2rad(30.0 + 5.0 * elevation)
    eye = np.array([0.0, -5.0 * np.cos(height), 0.4 + 5.0 * np.sin(height)])
    rendered = RenderedImage(
        look_at(eye, np.array([0.0, 0.0, 0.4]), (1.75, 1.75)), 2 * size, np.zeros((2 * size, 2 * size, 1))
    )
    x, y, depth = rendered.ground()
    plate = np.clip((rng.uniform(1.05, 1.35) - np.hypot(x, y)) * size / 3, 0, 1)
    tone = 1 + 0.06 * (light[0] * x + light[1] * y) + rng.choice([-1, 1]) * rng.uniform(0.04, 0.14) * plate
    rendered.image = (rng.uniform(0.45, 0.85) * (tone * (0.95 + 0.1 * noise(rng, 2 * size, 4, 3))))[..., None]
    rendered.shadow(solids, light, 0.75 * (1 - ambient), (x, y, depth))
    for number, solid in enumerate(solids):
        rendered.add(solid, number, light, ambient)
    return to_bytes(shrink(rendered.image, 2)), {
        "smallnorb-azimuth-standin": azimuth,
        "smallnorb-elevation-standin": elevation,
    }
