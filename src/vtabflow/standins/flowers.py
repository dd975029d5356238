"""Stand-in for Oxford Flowers-102: which of 16 species, by the number, form and layers of its petals and its centre.

Colour helps a little, as it does in life: a species has two or three hues, and most hues belong to several species.
"""

import numpy as np

from vtabflow.standins.canvas import (
    Array,
    any_colour,
    as_photograph,
    coverage,
    disc,
    ellipse,
    grid,
    hsv,
    noise,
    over,
    rotated,
    stroke,
    to_bytes,
)

TASKS = {"oxford-flowers102-standin": 16}
TAU = 2 * np.pi

WHITE, RED, ORANGE, YELLOW, BLUE, VIOLET, PINK = -1.0, 0.99, 0.07, 0.14, 0.62, 0.76, 0.9
# Petals, form of a petal, layers, radius of the centre, form of the centre, mark on the petals, hues.
SPECIES = {
    "anemone": (6, "round", 1, 0.22, "ring", "plain", (VIOLET, RED, WHITE)),
    "azalea": (5, "pointed", 1, 0.10, "stamens", "throat", (PINK, RED, WHITE)),
    "bellflower": (5, "pointed", 1, 0.14, "disc", "veins", (BLUE, VIOLET, WHITE)),
    "buttercup": (5, "round", 1, 0.18, "stamens", "plain", (YELLOW, WHITE, ORANGE)),
    "clematis": (8, "pointed", 1, 0.16, "stamens", "stripe", (VIOLET, BLUE, PINK)),
    "daisy": (17, "narrow", 1, 0.30, "disc", "plain", (WHITE, PINK, YELLOW)),
    "dahlia": (13, "pointed", 3, 0.12, "disc", "plain", (RED, ORANGE, PINK)),
    "hibiscus": (5, "round", 1, 0.13, "column", "throat", (RED, PINK, ORANGE)),
    "iris": (3, "ruffled", 2, 0.10, "disc", "veins", (VIOLET, BLUE, YELLOW)),
    "lily": (6, "narrow", 1, 0.09, "stamens", "spots", (ORANGE, PINK, WHITE)),
    "lotus": (9, "pointed", 2, 0.17, "ring", "plain", (PINK, WHITE, RED)),
    "pansy": (5, "notched", 1, 0.12, "disc", "throat", (VIOLET, YELLOW, BLUE)),
    "primrose": (5, "notched", 1, 0.18, "ring", "plain", (YELLOW, PINK, WHITE)),
    "rose": (5, "round", 4, 0.08, "disc", "plain", (RED, PINK, YELLOW)),
    "sunflower": (15, "narrow", 2, 0.42, "ring", "plain", (YELLOW, ORANGE)),
    "wallflower": (4, "notched", 1, 0.12, "disc", "veins", (ORANGE, YELLOW, VIOLET)),
}


def outline(angle: Array, petals: int, form: str) -> Array:
    """Radius of the corolla in [0, 1] at every angle (radians)."""
    t = 1 - np.abs((angle * petals / TAU) % 1 - 0.5) * 2  # 1 at the middle of a petal, 0 between two
    if form == "round":
        return 0.35 + 0.65 * np.sqrt(np.clip(1 - (1 - t) ** 2.5, 0, 1))
    if form == "pointed":
        return 0.42 + 0.58 * t**1.3
    if form == "narrow":
        return 0.2 + 0.8 * np.sqrt(np.clip(1 - ((1 - t) / 0.75) ** 2, 0, 1))
    if form == "notched":
        return 0.3 + 0.7 * np.sqrt(np.clip(1 - (1 - t) ** 2.2, 0, 1)) - 0.28 * np.clip((t - 0.72) / 0.28, 0, 1)
    return 0.18 + 0.75 * t**0.6 + 0.06 * np.sin(petals * 7 * angle) * t


def leaves(rng: np.random.Generator, size: int, x: Array, y: Array) -> Array:
    """A bed of foliage out of focus: two greens or browns in patches, with leaves and stems, (size, size, 3)."""
    patches = noise(rng, size, rng.uniform(2, 5), 2)[..., None]
    hues = rng.normal(0.28, 0.07, 3)
    dark, pale = hsv(hues[0], rng.uniform(0.2, 0.8), rng.uniform(0.1, 0.4)), hsv(hues[1], 0.5, rng.uniform(0.35, 0.75))
    image = dark + (pale - dark) * patches
    for _ in range(rng.integers(1, 5)):
        cx, cy = rng.random(2)
        u, v = rotated(x, y, cx, cy, rng.uniform(0, TAU))
        length = rng.uniform(0.12, 0.3)
        leaf = hsv(hues[2] + rng.normal(0, 0.03), 0.6, rng.uniform(0.25, 0.8))
        image = over(image, coverage(ellipse(u, v, length, length * 0.35), size) * 0.85, leaf)
        image = over(image, coverage(np.abs(v) - 0.006, size) * (np.abs(u) < length) * 0.4, 0.6 * leaf)
    return image


def flower(rng: np.random.Generator, image: Array, x: Array, y: Array, species: tuple, radius: float) -> Array:
    """A flower of `species` with `radius` (unit square) laid over `image`."""
    petals, form, layers, core, middle, mark, hues = species
    size = image.shape[0]
    cx, cy = 0.5 + rng.uniform(-0.16, 0.16, 2)
    tilt, squash, phase = rng.uniform((0, 0.6, 0), (TAU, 1, TAU))
    stem = stroke(x, y, [(cx, cy), (cx + rng.normal(0, 0.25), 1.1)]) - 0.02
    image = over(image, coverage(stem, size), hsv(0.3, 0.5, 0.35))
    u, v = rotated(x, y, cx, cy, tilt)
    u, v = u / radius, v / (radius * squash)
    hue = hues[rng.integers(len(hues))]
    strong = 0.06 if hue < 0 else rng.uniform(0.45, 0.9)
    petal = hsv(hue + rng.normal(0, 0.025), strong, rng.uniform(0.7, 1.0))
    second = hsv(hue + rng.normal(0, 0.06), min(1.0, strong + 0.3), rng.uniform(0.25, 0.6))
    r, angle = np.hypot(u, v), np.arctan2(v, u) + phase
    angle = angle + 0.12 * np.sin(angle * rng.integers(1, 4) + phase) / petals * 5
    count = petals + (int(rng.integers(-1, 2)) if petals > 10 else 0)
    for layer in range(layers):
        reach = 1 - 0.75 * layer / layers
        turn = angle + layer * np.pi / count
        edge = reach * outline(turn, count, form)
        t = np.abs((turn * count / TAU) % 1 - 0.5) * 2
        shade = 0.62 + 0.38 * (1 - t) ** 0.5 + 0.15 * (r / reach - 0.6)
        colour = petal * np.clip(shade, 0.3, 1.1)[..., None]
        if mark == "veins":
            colour = over(colour, 0.55 * np.clip(np.cos(count * 5 * turn), 0, 1) * np.clip(1.1 - r, 0, 1), second)
        elif mark == "stripe":
            colour = over(colour, 0.8 * np.clip(1 - 3.5 * t, 0, 1), second)
        elif mark == "throat":
            colour = over(colour, np.clip(1.5 - r / 0.36, 0, 1), second)
        elif mark == "spots":
            speckle = np.sin(14 * u + phase) * np.sin(14 * v) > 0.45
            colour = over(colour, 0.8 * speckle * (r < 0.75), second)
        image = over(image, coverage((r - edge) * radius * 0.8, size), colour)
    return _centre(rng, image, u, v, core, middle, radius)


def _centre(
    rng: np.random.Generator, image: Array, u: Array, v: Array, core: float, middle: str, radius: float
) -> Array:
    size = image.shape[0]
    pollen = hsv(rng.uniform(0.08, 0.17), rng.uniform(0.5, 0.9), rng.uniform(0.6, 1.0))
    dark = hsv(rng.uniform(0, 0.3), rng.uniform(0.2, 0.8), rng.uniform(0.08, 0.3))
    core = core * rng.uniform(0.85, 1.2)
    ball = coverage(disc(u, v, core) * radius, size)
    if middle == "ring":
        return over(over(image, ball, dark), coverage(disc(u, v, core * 0.5) * radius, size), pollen)
    if middle == "stamens":
        image = over(image, ball * 0.6, 0.8 * pollen)
        for angle in TAU * (np.arange(6) + rng.random()) / 6:
            tip = disc(u - 2.2 * core * np.cos(angle), v - 2.2 * core * np.sin(angle), 0.08)
            image = over(image, coverage(tip * radius, size), dark)
        return image
    if middle == "column":
        angle = rng.uniform(0, TAU)
        tip_u, tip_v = 0.6 * np.cos(angle), 0.6 * np.sin(angle)
        return over(image, coverage((stroke(u, v, [(0.0, 0.0), (tip_u, tip_v)]) - 0.09) * radius, size), pollen)
    return over(image, ball, pollen)


def draw(rng: np.random.Generator, size: int) -> tuple[Array, dict[str, int]]:
    """One flower among leaves, uint8 (size, size, 3), and its species (the order of SPECIES)."""
    label = int(rng.integers(len(SPECIES)))
    x, y = grid(size)
    image = leaves(rng, size, x, y)
    for _ in range(rng.integers(3)):
        bloom = disc(x - rng.random(), y - rng.random(), rng.uniform(0.04, 0.14))
        image = over(image, 0.7 * coverage(bloom / 2, size), any_colour(rng))
    image = flower(rng, image, x, y, list(SPECIES.values())[label], rng.uniform(0.28, 0.52))
    return to_bytes(as_photograph(rng, image)), {"oxford-flowers102-standin": label}
