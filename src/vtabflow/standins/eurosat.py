"""Stand-in for EuroSAT: a patch of land from a satellite. Which of ten kinds of land use?

The ten kinds and their order are those of Helber et al. 2019. Season, haze and brightness shift the colours, so that
they alone do not decide.
"""

from collections.abc import Callable

import numpy as np

from vtabflow.standins.aerial import GREY, ROOFS, SHEDS, TAR, AerialImage
from vtabflow.standins.canvas import Array, coverage, noise, over

TASKS = {"eurosat-standin": 10}


def annual_crop(p: AerialImage) -> None:
    """Ploughed fields."""
    p.fields(p.rng.uniform(1.5, 3), p.rng.uniform(1, 2.2), 0.1)


def forest(p: AerialImage) -> None:
    """Dense trees."""
    p.ground(p.tree, 0.75 * p.tree, 5)
    p.trees(p.rng.uniform(11, 16), 0.8)
    p.trees(p.rng.uniform(9, 13), 0.6, None, 0.6)


def _herbaceous(p: AerialImage) -> None:
    p.ground(0.5 * (p.green + p.soil), p.rng.uniform(0.75, 0.95) * p.green, 4, 4, 2.6)
    p.trees(p.rng.uniform(10, 14), 0.16)


def _highway(p: AerialImage) -> None:
    (p.fields(1.8, 1.4, 0.05) if p.rng.random() < 0.6 else _herbaceous(p))
    half = p.rng.uniform(0.03, 0.05)
    distance = p.band(half, p.rng.uniform(0, 0.08), 0.7, p.rng.uniform(-0.2, 0.2))
    p.fill(distance - 0.02, 0.8 * p.green)
    p.road(distance, half, GREY * p.rng.uniform(0.75, 1.1))
    if p.rng.random() < 0.5:
        p.road(np.abs(p.u - p.rng.uniform(-0.25, 0.25)) - 0.015, 0.015, GREY, False)


def industrial(p: AerialImage) -> None:
    """Large sheds on pavement."""
    p.ground(GREY * 0.8, GREY, 5)
    n = p.rng.uniform(2.6, 4)
    p.dots((n, 1.6 * n), (0.14 / n, 0.24 / n), SHEDS * p.rng.uniform(0.8, 1.1), 0.9, 1.7, 1.0, 0.02)
    p.road(p.band(0.02, 0.0, 1, p.rng.uniform(-0.3, 0.3)), 0.02, TAR, False)


def _pasture(p: AerialImage) -> None:
    p.ground(p.green, 1.12 * p.green, 3, 2, 1.2)
    for _ in range(int(p.rng.integers(1, 4))):
        side, at = p.rng.random() < 0.5, p.rng.uniform(-0.45, 0.45)
        p.trees(22, 0.8, (np.abs((p.u if side else p.v) - at) < 0.03).astype(float))
    p.trees(9, 0.05)


def _permanent_crop(p: AerialImage) -> None:
    p.ground(p.soil, 0.5 * (p.soil + p.green), 4, 2)
    n = p.rng.uniform(8, 12)
    p.dots(
        (n if p.rng.random() < 0.5 else 1.6 * n, n),
        (0.26 / n, 0.34 / n),
        p.tree * np.array([[0.9], [1.2]]),
        0.96,
        None,
        0.15,
    )
    if p.rng.random() < 0.6:
        p.fill(np.abs(p.v - p.rng.uniform(-0.4, 0.4)) - 0.02, p.soil)


def _residential(p: AerialImage) -> None:
    p.ground(p.green, 0.6 * p.green + 0.25, 6)
    n = p.rng.uniform(6.5, 9)
    p.dots((n, n), (0.22 / n, 0.32 / n), ROOFS * p.rng.uniform(0.85, 1.15), 0.85, 1.25, 0.7, 0.012)
    p.trees(n * 1.3, 0.15)
    for along in (p.u, p.v):
        at = (along + p.rng.random()) * n / 3
        p.fill((0.5 - np.abs(at % 1 - 0.5)) * 3 / n - 0.016, GREY)


def river(p: AerialImage) -> None:
    """A river through fields or grass."""
    (p.fields(1.8, 1.5) if p.rng.random() < 0.5 else _herbaceous(p))
    distance = p.band(
        p.rng.uniform(0.05, 0.11), p.rng.uniform(0.05, 0.14), p.rng.uniform(0.6, 1.2), p.rng.uniform(-0.15, 0.15)
    )
    p.trees(14, 0.8, (distance < 0.05).astype(float))
    p.fill(distance, p.water)


def _sea_lake(p: AerialImage) -> None:
    p.ground(p.water, 0.9 * p.water, 3, 3, 1.0)
    if p.rng.random() < 0.35:
        shore = p.v + p.rng.uniform(0.3, 0.45) + 0.15 * (noise(p.rng, p.size, 4, 2) - 0.5)
        p.fill(shore, p.tree)


KINDS: tuple[Callable[[AerialImage], None], ...] = (
    annual_crop, forest, _herbaceous, _highway, industrial, _pasture, _permanent_crop, _residential, river, _sea_lake,
)  # fmt: skip


def draw(rng: np.random.Generator, size: int) -> tuple[Array, dict[str, int]]:
    """One image, uint8 (size, size, 3), and its class."""
    label = int(rng.integers(10))
    aerial = AerialImage(rng, size)
    KINDS[label](aerial)
    if rng.random() < 0.7:
        # A neighbour of any kind takes up to two fifths, across the direction that roads and rivers run in.
        other = AerialImage(rng, size)
        KINDS[rng.integers(10)](other)
        border = aerial.u + 0.2 * (noise(rng, size, 4, 2) - 0.5) - rng.uniform(0.1, 0.4)
        aerial.image = over(aerial.image, coverage(-border, size), other.image)
    return aerial.finish(), {"eurosat-standin": label}
