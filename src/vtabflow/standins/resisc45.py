"""Stand-in for RESISC45: a scene seen from an aircraft. Which of 45?

The scenes and their order are those of Cheng et al. 2017 (alphabetical). Each is a layout of a few parts (strips,
blocks, rings, jittered rows of houses, cars, boats, trees) with its own random proportions, turned by any angle, under
varying season, haze and light. Several share their parts on purpose: airport and runway, freeway and overpass and
intersection, the three densities of housing, harbour and ship.
"""

from collections.abc import Callable

import numpy as np

from vtabflow.standins.aerial import BLUE, CARS, CLAY, GREY, ICE, LAWN, ROOFS, SAND, SHEDS, TAR, WHITE, AerialImage
from vtabflow.standins.canvas import Array, box, disc, noise, rotated
from vtabflow.standins.eurosat import annual_crop, forest, industrial, river

TASKS = {"resisc45-standin": 45}


def _airplane(p: AerialImage) -> None:
    p.paved(p.rng.uniform(0.8, 1.2))
    for _ in range(int(p.rng.integers(1, 3))):
        u, v = p.near(0.28)
        p.plane(u, v, p.rng.uniform(0.4, 0.6))


def _airport(p: AerialImage) -> None:
    p.wild()
    p.fill(np.abs(p.v - 0.28) - 0.04, GREY)
    p.fill(np.abs(p.v - 0.02) - 0.15, GREY * 1.1)
    p.block(p.u, p.v + 0.26, (p.rng.uniform(0.2, 0.4), 0.07), SHEDS[0])
    p.fill(np.abs(p.v - 0.28) - 0.005, WHITE)
    for k in np.arange(int(p.rng.integers(2, 4))) - 1:
        p.plane(p.v - 0.05, p.u - 0.26 * k - p.rng.uniform(-0.04, 0.04), 0.22)


def _baseball_diamond(p: AerialImage) -> None:
    p.town()
    u, v = p.near()
    r = p.rng.uniform(0.32, 0.42)
    wedge = np.maximum(np.hypot(u + r / 2, v + r / 2) - 1.25 * r, -np.minimum(u, v) - 0.55 * r)
    p.fill(wedge, LAWN)
    p.fill(np.maximum(np.hypot(u + r / 2, v + r / 2) - 0.75 * r, -np.minimum(u, v) - 0.55 * r), CLAY)
    p.fill(box(u + 0.2 * r, v + 0.2 * r, 0.22 * r, 0.22 * r), LAWN)
    p.fill(disc(u + 0.2 * r, v + 0.2 * r, 0.06 * r), CLAY)


def _basketball_court(p: AerialImage) -> None:
    p.town()
    paint = (CLAY, BLUE, LAWN, GREY)[p.rng.integers(4)]
    u, v = p.court((0.32, 0.18), paint, (LAWN, TAR, CLAY, BLUE)[p.rng.integers(4)])
    p.fill(np.maximum(np.abs(u) - 0.006, np.abs(v) - 0.18), WHITE)
    p.fill(np.abs(disc(u, v, 0.06)) - 0.006, WHITE)
    p.fill(np.abs(disc(np.abs(u) - 0.32, v, 0.13)) - 0.006 + 9 * (np.abs(u) > 0.32), WHITE)


def _beach(p: AerialImage) -> None:
    p.ground(p.water, 1.1 * p.water, 4, 2)
    shore = p.shore(p.rng.uniform(-0.15, 0.15), 0.06)
    p.fill(shore - 0.05, WHITE, 0.7)
    p.fill(shore, SAND)
    p.trees(14, 0.8, (shore < -p.rng.uniform(0.15, 0.25)).astype(float))


def _bridge(p: AerialImage) -> None:
    p.ground(p.water, 0.9 * p.water, 4, 2)
    bank = p.rng.uniform(0.3, 0.4)
    p.fill(bank - np.abs(p.u) + 0.1 * (noise(p.rng, p.size, 4, 2) - 0.5), p.green)
    half = p.rng.uniform(0.03, 0.06)
    p.fill(np.abs(p.v - 0.03) - half, np.full(3, 0.1), 0.5)
    p.road(np.abs(p.v) - half, half, GREY)


def _chaparral(p: AerialImage) -> None:
    p.ground(SAND, 0.85 * SAND, 5)
    n = p.rng.uniform(8, 12)
    p.dots((n, n), (0.15 / n, 0.42 / n), 0.8 * p.tree * np.array([[0.9], [1.2]]), 0.65)


def _church(p: AerialImage) -> None:
    p.town()
    p.houses(4, 0.35, (0.2, 0.3), 1.0)
    u, v = p.near()
    roof = ROOFS[p.rng.integers(5)]
    p.fill(box(u, v, 0.34, 0.26), GREY)
    p.block(u, v, (0.26, 0.08), roof, 0.03)
    p.block(u - 0.07, v, (0.07, 0.18), roof * 0.9, 0.03)
    p.block(u + 0.26, v, (0.05, 0.05), 0.5 * roof, 0.05)


def _circular_farmland(p: AerialImage) -> None:
    p.ground(p.soil, 0.85 * p.soil, 4)
    n = p.rng.uniform(1.2, 2.6)
    kinds = np.stack([p.green, 1.2 * p.green, 0.7 * p.green, 0.5 * (p.green + p.soil)])
    p.dots((n, n), (0.43 / n, 0.48 / n), kinds, 0.95, None, 0.2)


def _cloud(p: AerialImage) -> None:
    (p.wild() if p.rng.random() < 0.5 else p.ground(p.water, 0.9 * p.water, 4))
    cover = noise(p.rng, p.size, 4, 4) + 0.12 * p.rng.random()
    p.image = p.image + (WHITE - p.image) * np.clip(5 * (cover - 0.5), 0, 1)[..., None]


def _commercial_area(p: AerialImage) -> None:
    p.paved(0.75)
    p.houses(3.2, 0.95, (0.24, 0.36), 0.6, SHEDS)
    p.houses(6, 0.4, (0.2, 0.3), 0.8, SHEDS * 0.8)
    p.streets(1.6, 0.03)


def _dense_residential(p: AerialImage) -> None:
    p.paved(0.8)
    p.houses(p.rng.uniform(9, 11), 0.97, (0.3, 0.38), 0.4)
    p.streets(2.6, 0.012)


def _desert(p: AerialImage) -> None:
    ripples = np.sin(2 * np.pi * (7 * p.v + 2.5 * noise(p.rng, p.size, 3, 2)))
    p.ground(SAND, 0.9 * SAND, 3)
    p.image = p.image * (1 + 0.1 * ripples)[..., None]


def _freeway(p: AerialImage) -> None:
    p.wild()
    p.trees(12, 0.2)
    half = p.rng.uniform(0.1, 0.15)
    distance = p.band(half, p.rng.uniform(0, 0.05), 0.5)
    p.road(distance, half, GREY)
    p.fill(np.abs(distance + half * 0.5) - 0.004, WHITE)
    p.cars(distance + 0.02, 0.35)


def _golf_course(p: AerialImage) -> None:
    p.ground(0.8 * LAWN, 0.65 * LAWN, 5)
    p.trees(12, 0.35)
    p.fill(p.band(0.09, 0.12, 0.8, -0.15), 1.3 * LAWN)
    for _ in range(4):
        u, v = p.near(0.35)
        p.fill(disc(u, 1.4 * v, p.rng.uniform(0.03, 0.06)), SAND * 1.1)


def _ground_track_field(p: AerialImage) -> None:
    p.town()
    u, v = p.near(0.05)
    ring = np.hypot(np.maximum(np.abs(u) - 0.17, 0), v) - 0.17
    p.fill(ring - 0.09, (CLAY, CLAY, BLUE)[p.rng.integers(3)] * 1.1)
    p.fill(np.abs(ring - 0.045) - 0.004, WHITE)
    p.fill(ring, LAWN)
    p.fill(np.abs(box(u, v, 0.16, 0.1)) - 0.004, WHITE)


def _harbor(p: AerialImage) -> None:
    p.ground(p.water, 0.9 * p.water, 5)
    n = p.rng.uniform(3, 4.5)
    p.fill((0.5 - np.abs((p.v * n) % 1 - 0.5)) / n - 0.012, GREY * 1.1)
    p.dots((9, 2 * n), (0.011, 0.016), np.stack([WHITE, WHITE, 0.9 * BLUE]), 0.85, 2.4, 0.5, 0.006)
    p.fill(np.abs(p.u) - 0.02, GREY * 1.1)


def _intersection(p: AerialImage) -> None:
    p.town()
    p.houses(4, 0.7, (0.24, 0.36), 0.6)
    half = p.rng.uniform(0.06, 0.1)
    u, v = p.near()
    cross = np.minimum(np.abs(u), np.abs(v)) - half
    p.road(cross, half, TAR)
    p.fill(np.maximum(np.abs(u), np.abs(v)) - half - 0.01, TAR)
    p.cars(cross + 0.02, 0.2, (12, 12))


def _island(p: AerialImage) -> None:
    p.ground(p.water, 0.9 * p.water, 4)
    shore = p.blob(p.rng.uniform(0.2, 0.33))
    p.fill(shore - 0.03, SAND)
    p.fill(shore, p.tree)
    p.trees(12, 0.7, (shore < 0).astype(float))


def _lake(p: AerialImage) -> None:
    p.ground(p.tree, p.green, 5)
    p.trees(12, 0.6)
    p.fill(p.blob(p.rng.uniform(0.22, 0.34)), p.water)


def _meadow(p: AerialImage) -> None:
    p.ground(p.green, 1.15 * p.green, 3, 4)
    p.trees(8, 0.06)


def _medium_residential(p: AerialImage) -> None:
    p.town()
    p.houses(p.rng.uniform(5, 6), 0.9, (0.26, 0.34), 0.5)
    p.trees(11, 0.25)
    p.streets(1.7, 0.018)


def _mobile_home_park(p: AerialImage) -> None:
    p.ground(GREY, 0.6 * GREY + 0.4 * p.green, 5)
    n = p.rng.uniform(4.5, 6)
    p.dots((n, 3.2 * n), (0.07 / n, 0.09 / n), np.stack([WHITE, 0.9 * WHITE, SHEDS[3]]), 0.92, 3.6, 0.3, 0.008)
    p.fill((0.5 - np.abs((p.u * n) % 1 - 0.5)) / n - 0.012, TAR * 1.2)


def _mountain(p: AerialImage) -> None:
    height = noise(p.rng, p.size, 3, 4)
    ridge = 1 - np.abs(2 * height - 1)
    slope = np.gradient(ridge, axis=0) + np.gradient(ridge, axis=1)
    p.image = (0.6 * p.tree + 0.4 * p.soil) * (0.95 + 0.13 * p.size * np.clip(slope, -4 / p.size, 4 / p.size))[
        ..., None
    ]
    p.image += (0.35 * np.clip(6 * (ridge - p.rng.uniform(0.82, 1.0)), 0, 1))[..., None]


def _overpass(p: AerialImage) -> None:
    p.wild()
    half = p.rng.uniform(0.05, 0.08)
    u, v = rotated(p.u, p.v, 0, 0, p.rng.uniform(-0.35, 0.35))
    p.road(np.abs(u) - half, half, GREY * 0.85)
    p.fill(np.abs(np.hypot(u - 0.3, v - 0.3) - 0.26) - 0.025, GREY)
    p.fill(np.abs(np.hypot(u + 0.3, v + 0.3) - 0.26) - 0.025, GREY)
    p.fill(np.abs(p.v - 0.035) - half, np.full(3, 0.08), 0.65)
    p.road(np.abs(p.v) - half, half, GREY * 1.15)


def _palace(p: AerialImage) -> None:
    p.ground(LAWN, 0.85 * LAWN, 5)
    u, v = p.near(0.04)
    roof = ROOFS[p.rng.integers(5)]
    p.fill(box(u, v, 0.36, 0.36), GREY * 1.2)
    p.block(u, v, (0.3, 0.24), roof, 0.03)
    p.fill(box(u, v, 0.2, 0.14), GREY * 1.15)
    p.block(u, v, (0.07, 0.14), roof * 0.85, 0.02)
    for a in (-0.3, 0.3):
        p.block(u - a, v, (0.05, 0.29), roof * 0.8, 0.02)


def _parking_lot(p: AerialImage) -> None:
    p.ground(TAR, 1.15 * TAR, 5)
    n = p.rng.uniform(4, 5.5)
    p.fill((0.5 - np.abs((p.u * 2.2 * n) % 1 - 0.5)) / (2.2 * n) - 0.002, WHITE, 0.45)
    p.dots((2.2 * n, n), (0.15 / n, 0.17 / n), CARS, p.rng.uniform(0.6, 0.95), 0.62, 0.3, 0.006)
    p.fill((0.5 - np.abs((p.v * n / 2) % 1 - 0.5)) / (n / 2) - 0.1 / n, 1.1 * TAR)


def _railway(p: AerialImage) -> None:
    p.wild()
    p.trees(12, 0.3)
    distance = p.band(p.rng.uniform(0.07, 0.16), p.rng.uniform(0, 0.05), 0.5)
    p.fill(distance, 0.8 * CLAY + 0.1)
    tracks = np.abs((distance * 13) % 1 - 0.5) / 13
    p.fill(np.maximum(tracks - 0.009, distance), np.full(3, 0.22))


def _railway_station(p: AerialImage) -> None:
    p.paved(0.85)
    p.fill(np.abs(p.v) - 0.3, 0.8 * CLAY + 0.1)
    p.fill(np.maximum(np.abs((p.v * 12) % 1 - 0.5) / 12 - 0.009, np.abs(p.v) - 0.3), np.full(3, 0.22))
    for k in range(int(p.rng.integers(2, 4))):
        p.block(p.u - p.rng.uniform(-0.1, 0.1), p.v + 0.22 - 0.2 * k, (0.36, 0.045), SHEDS[p.rng.integers(3)], 0.015)


def _roundabout(p: AerialImage) -> None:
    p.town()
    p.trees(9, 0.35)
    u, v = p.near()
    r = p.rng.uniform(0.15, 0.22)
    for k in range(2):
        a, _ = rotated(u, v, 0, 0, k * np.pi / 2 + p.rng.normal(0, 0.12))
        p.fill(np.abs(a) - 0.045, TAR * 1.1)
    p.fill(disc(u, v, r), TAR * 1.1)
    p.fill(disc(u, v, 0.55 * r), LAWN)
    p.fill(disc(u, v, 0.2 * r), p.tree)


def _runway(p: AerialImage) -> None:
    p.wild()
    half, v = p.rng.uniform(0.1, 0.15), p.v - p.rng.uniform(-0.1, 0.1)
    p.fill(np.abs(v) - half, GREY * p.rng.uniform(0.6, 1.1))
    p.fill(np.maximum(np.abs(v) - 0.008, np.abs((p.u * 6) % 1 - 0.5) / 6 - 0.05), WHITE)
    end = p.rng.uniform(-0.3, -0.1)
    p.fill(
        np.maximum(
            np.abs((v * 18) % 1 - 0.5) / 18 - 0.012, np.maximum(np.abs(p.u - end) - 0.06, np.abs(v) - half + 0.02)
        ),
        WHITE,
    )


def _sea_ice(p: AerialImage) -> None:
    p.ground(0.7 * p.water, 0.6 * p.water, 4)
    n = p.rng.uniform(3, 6)
    for scale, share in ((1.0, 0.85), (2.3, 0.6)):
        p.dots(
            (n * scale, n * scale),
            (0.26 / n / scale, 0.5 / n / scale),
            ICE * np.array([[1.0], [0.93]]),
            share,
            None,
            1.0,
            0,
            None,
            scale,
        )


def _ship(p: AerialImage) -> None:
    p.ground(p.water, 0.92 * p.water, 6)
    for _ in range(int(p.rng.integers(1, 3))):
        u, v = p.near(0.25)
        p.boat(u, v, p.rng.uniform(0.35, 0.6), (CLAY, TAR, BLUE, SHEDS[1])[p.rng.integers(4)], p.rng.uniform(0.2, 1.0))


def _snowberg(p: AerialImage) -> None:
    height = noise(p.rng, p.size, 4, 4)
    slope = np.gradient(height, axis=0) + np.gradient(height, axis=1)
    p.image = ICE * (0.92 + 0.1 * p.size * np.clip(slope, -4 / p.size, 3 / p.size))[..., None]
    p.image = p.image + (0.45 * p.soil - p.image) * np.clip(9 * (0.34 - height), 0, 0.9)[..., None]


def _sparse_residential(p: AerialImage) -> None:
    p.wild()
    p.trees(9, 0.45)
    p.houses(p.rng.uniform(2.4, 3.2), 0.6, (0.13, 0.19), 1.0)
    p.fill(p.band(0.012, 0.1, 0.7), GREY)


def _stadium(p: AerialImage) -> None:
    p.paved(0.95)
    u, v = p.near(0.05)
    oval = np.hypot(u / 1.25, v) - p.rng.uniform(0.26, 0.33)
    p.fill(np.hypot((u - 0.03) / 1.25, v - 0.03) - 0.33, np.full(3, 0.15), 0.5)
    p.fill(oval, SHEDS[p.rng.integers(5)])
    p.fill(np.abs(oval + 0.05) - 0.006, TAR)
    p.fill(oval + 0.1, TAR * 1.2)
    p.fill(box(u, v, 0.17, 0.1), LAWN)


def _storage_tank(p: AerialImage) -> None:
    p.ground(GREY, 0.7 * p.soil + 0.2, 5)
    n = p.rng.uniform(2.4, 4.2)
    p.dots((n, n), (0.3 / n, 0.42 / n), np.stack([WHITE, 0.88 * WHITE, SHEDS[2]]), 0.85, None, 0.3, 0.1 / n)
    p.fill(np.abs(p.v - p.rng.uniform(-0.4, 0.4)) - 0.02, TAR)


def _tennis_court(p: AerialImage) -> None:
    p.ground(LAWN, 0.8 * LAWN, 6)
    half = p.rng.uniform(0.13, 0.17)
    paint, outer = ((BLUE, LAWN), (CLAY, LAWN * 0.8), (LAWN * 1.15, CLAY), (BLUE, BLUE * 0.7))[p.rng.integers(4)]
    p.fill(box(p.u, p.v, 0.36, 2.6 * half), outer)
    v = np.abs(p.v) - 1.2 * half
    p.fill(box(p.u, v, 0.27, 0.75 * half), paint)
    p.fill(np.abs(box(p.u, v, 0.27, 0.75 * half)) - 0.007, WHITE)
    p.fill(np.abs(box(p.u, v, 0.15, 0.55 * half)) - 0.006, WHITE)
    p.fill(np.maximum(np.abs(p.u) - 0.007, np.abs(v) - 0.75 * half), WHITE)


def _terrace(p: AerialImage) -> None:
    level = (p.v + 0.35 * noise(p.rng, p.size, 3, 2)) * p.rng.uniform(7, 11)
    tones = np.stack([p.green, 0.8 * p.green, 1.2 * p.green, 0.5 * (p.green + p.soil)])
    p.image = tones[np.floor(level).astype(int) % 4] * (0.72 + 0.4 * (level % 1))[..., None]


def _thermal_power_station(p: AerialImage) -> None:
    p.ground(GREY, 0.5 * (GREY + p.soil), 5)
    p.block(p.u - 0.12, p.v + 0.25, (0.26, 0.09), SHEDS[p.rng.integers(5)], 0.03)
    for k in range(int(p.rng.integers(2, 4))):
        u, v = p.u + 0.3 - 0.29 * k, p.v - 0.12 - p.rng.uniform(-0.06, 0.06)
        p.fill(disc(u - 0.05, v - 0.05, 0.12), np.full(3, 0.12), 0.6)
        p.fill(disc(u, v, 0.12), WHITE)
        p.fill(disc(u, v, 0.075), 0.6 * GREY)
        p.fill(np.hypot(u - 0.08, v + 0.06) - 0.1 * noise(p.rng, p.size, 5, 2) * 1.6, WHITE, 0.7)


def _wetland(p: AerialImage) -> None:
    p.ground(p.green, 0.5 * (p.green + p.soil), 5)
    wet = noise(p.rng, p.size, 5, 4)
    p.fill(0.06 * (wet - p.rng.uniform(0.47, 0.56)) * 3, 0.75 * p.water)
    p.trees(12, 0.1)


SCENES: tuple[Callable[[AerialImage], None], ...] = (
    _airplane, _airport, _baseball_diamond, _basketball_court, _beach, _bridge, _chaparral, _church,
    _circular_farmland, _cloud, _commercial_area, _dense_residential, _desert, forest, _freeway, _golf_course,
    _ground_track_field, _harbor, industrial, _intersection, _island, _lake, _meadow, _medium_residential,
    _mobile_home_park, _mountain, _overpass, _palace, _parking_lot, _railway, _railway_station, annual_crop, river,
    _roundabout, _runway, _sea_ice, _ship, _snowberg, _sparse_residential, _stadium, _storage_tank, _tennis_court,
    _terrace, _thermal_power_station, _wetland,
)  # fmt: skip


def draw(rng: np.random.Generator, size: int) -> tuple[Array, dict[str, int]]:
    """One image, uint8 (size, size, 3), and its class."""
    label = int(rng.integers(45))
    aerial = AerialImage(rng, size)
    SCENES[label](aerial)
    return aerial.finish(), {"resisc45-standin": label}
