"""The procedural upstream set: 32 categories in six families (things, letters, textures, rosettes, faces, views).

It stands for ImageNet: broad, labelled, kin to the downstream tasks in its outlines, strokes, surfaces and layouts,
but with none of their classes. Pose, scale, colour, light and clutter vary within every class, so a network has to
learn form.
"""

import numpy as np

from vtabflow.standins.canvas import (
    Array,
    any_colour,
    as_photograph,
    box,
    coverage,
    disc,
    ellipse,
    figure,
    figure_colours,
    grid,
    hsv,
    noise,
    over,
    polygon,
    random_background,
    random_frame,
    rotated,
    shaded_surface,
    to_bytes,
    warped,
)

TASKS = {"upstream-standin": 32}
TAU = 2 * np.pi

# Parts in [-1, 1] (see canvas.figure); colours 0 body, 1 contrast, 2 accent.
THINGS: dict[str, list[tuple]] = {
    "bird": [
        ("s", 1, 0.08, [(0, 0.3), (-0.1, 0.9)]),
        ("p", 0, [(-0.4, 0.0), (-0.98, -0.15), (-0.95, 0.25), (-0.4, 0.3)]), ("e", 0, 0, 0.05, 0.55, 0.36),
        ("e", 0, 0.48, -0.4, 0.26, 0.26), ("p", 2, [(0.65, -0.5), (0.98, -0.36), (0.68, -0.27)]),
        ("e", 1, 0.52, -0.45, 0.08, 0.08), ("p", 2, [(-0.35, -0.1), (0.25, -0.05), (-0.1, 0.3), (-0.6, 0.35)]),
    ],
    "fish": [
        ("p", 0, [(-0.45, 0), (-0.95, -0.5), (-0.95, 0.5)]), ("e", 0, 0.1, 0, 0.7, 0.42),
        ("e", 1, 0.5, -0.1, 0.1, 0.1), ("s", 2, 0.09, [(0.2, -0.3), (0.12, 0), (0.2, 0.3)]),
        ("s", 2, 0.09, [(-0.1, -0.3), (-0.18, 0), (-0.1, 0.3)]),
    ],
    "glasses": [
        ("r", 0, -0.5, 0, 0.38, 0.15), ("r", 0, 0.5, 0, 0.38, 0.15), ("s", 0, 0.13, [(-0.15, -0.1), (0.15, -0.1)]),
        ("s", 2, 0.12, [(-0.88, -0.1), (-0.98, -0.4)]), ("s", 2, 0.12, [(0.88, -0.1), (0.98, -0.4)]),
    ],
    "hammer": [
        ("s", 2, 0.2, [(0, -0.5), (0, 0.92)]),
        ("p", 0, [(-0.6, -0.85), (0.35, -0.85), (0.8, -0.4), (0.3, -0.45), (-0.6, -0.4)]),
    ],
    "house": [
        ("b", 0, 0, 0.4, 0.68, 0.5), ("p", 2, [(-0.9, -0.08), (0, -0.88), (0.9, -0.08)]),
        ("b", 1, 0.3, 0.6, 0.16, 0.3), ("b", 1, -0.28, 0.3, 0.18, 0.16),
    ],
    "key": [
        ("r", 0, -0.55, 0, 0.3, 0.2), ("s", 0, 0.16, [(-0.25, 0), (0.9, 0)]),
        ("s", 0, 0.15, [(0.85, 0), (0.85, 0.35)]), ("s", 0, 0.15, [(0.5, 0), (0.5, 0.3)]),
    ],
    "mushroom": [
        ("p", 2, [(-0.2, 0), (0.2, 0), (0.28, 0.85), (-0.28, 0.85)]),
        ("p", 0, [(-0.85, 0.1), (-0.7, -0.4), (-0.3, -0.75), (0.3, -0.75), (0.7, -0.4), (0.85, 0.1)]),
        ("e", 1, -0.3, -0.3, 0.14, 0.12), ("e", 1, 0.3, -0.2, 0.16, 0.13), ("e", 1, 0.05, -0.55, 0.11, 0.09),
    ],
    "pine": [
        ("s", 1, 0.2, [(0, 0.4), (0, 0.95)]), ("p", 0, [(-0.7, 0.6), (0, -0.2), (0.7, 0.6)]),
        ("p", 0, [(-0.55, 0.15), (0, -0.6), (0.55, 0.15)]), ("p", 0, [(-0.38, -0.3), (0, -0.95), (0.38, -0.3)]),
    ],
    "rocket": [
        ("p", 2, [(-0.3, 0.2), (-0.75, 0.85), (0.75, 0.85), (0.3, 0.2)]),
        ("p", 0, [(-0.33, 0.7), (-0.33, -0.4), (0, -0.98), (0.33, -0.4), (0.33, 0.7)]),
        ("e", 1, 0, -0.2, 0.17, 0.17),
    ],
    "teapot": [
        ("r", 0, -0.68, 0.05, 0.24, 0.13), ("s", 0, 0.2, [(0.5, 0.3), (0.7, -0.1), (0.95, -0.3)]),
        ("e", 0, 0, 0.15, 0.62, 0.5), ("e", 2, 0, -0.33, 0.34, 0.12), ("e", 1, 0, -0.5, 0.11, 0.11),
    ],
}  # fmt: skip
LETTERS: dict[str, list[list[tuple]]] = {
    "A": [[(-0.6, 0.9), (0, -0.9), (0.6, 0.9)], [(-0.35, 0.25), (0.35, 0.25)]],
    "E": [[(0.5, -0.9), (-0.45, -0.9), (-0.45, 0.9), (0.52, 0.9)], [(-0.45, 0), (0.35, 0)]],
    "G": [
        [(0.5, -0.6), (0.1, -0.92), (-0.4, -0.65), (-0.55, 0), (-0.4, 0.65), (0.1, 0.92), (0.52, 0.6), (0.52, 0.1),
        (0.1, 0.1)],
    ],
    "K": [[(-0.45, -0.9), (-0.45, 0.9)], [(0.5, -0.9), (-0.4, 0.1)], [(-0.15, -0.15), (0.55, 0.9)]],
    "R": [
        [(-0.45, 0.9), (-0.45, -0.9), (0.2, -0.88), (0.5, -0.5), (0.2, -0.05), (-0.45, 0)], [(0, 0), (0.52, 0.9)],
    ],
    "Y": [[(-0.55, -0.9), (0, 0), (0.55, -0.9)], [(0, 0), (0, 0.9)]],
}  # fmt: skip
TEXTURES = ("bricks", "camouflage", "lozenges", "plaid", "ripples", "triangles")
ROSETTES = ("clover", "gear", "spiral", "sunburst")
FACES = ("bear", "owl", "rabbit")
VIEWS = ("cave", "island", "volcano")


def _thing(rng: np.random.Generator, size: int, kind: int) -> Array:
    image = random_background(rng, size, things=4)
    u, v, scale = random_frame(rng, size, reach=(0.26, 0.48), tilt=0.5, bend=0.14)
    colours = figure_colours(rng, 3, image)
    colours[0] = shaded_surface(rng, u, v, colours[0], 0.8)
    return figure(image, u, v, scale, list(THINGS.values())[kind], colours)


def letter(rng: np.random.Generator, size: int, kind: int) -> Array:
    """One letter with, often, parts of others at its sides."""
    image = random_background(rng, size, things=2)
    u, v, scale = random_frame(rng, size, reach=(0.22, 0.42), tilt=0.3, flip=False)
    width, pitch, paint = rng.uniform(0.18, 0.46), rng.uniform(1.4, 1.8), figure_colours(rng, 1, image)
    neighbours = [(int(rng.integers(len(LETTERS))), side * pitch) for side in (-1, 1) if rng.random() < 0.6]
    for which, offset in (*neighbours, (kind, 0.0)):
        lines = [("s", 0, width, line) for line in list(LETTERS.values())[which]]
        image = figure(image, u - offset, v, scale, lines, paint)
    return image


def _texture(rng: np.random.Generator, size: int, kind: int) -> Array:
    x, y = grid(size)
    cx, cy = rng.random(2)
    u, v = rotated(x, y, cx, cy, rng.uniform(0, TAU))
    pace = np.exp(rng.uniform(np.log(2.4), np.log(6.5)))
    u, v = warped(rng, u * pace * rng.uniform(0.85, 1.2), v * pace, 0.25)
    name = TEXTURES[kind]
    if name == "bricks":
        row = np.floor(v * 1.6)
        across, up = (0.8 * u + 0.5 * (row % 2)) % 1, (v * 1.6) % 1
        tone = np.clip(9 * np.minimum(np.minimum(across, 1 - across) * 2, np.minimum(up, 1 - up)) - 0.6, 0, 1)
    elif name == "camouflage":
        tone = np.clip(9 * (noise(rng, size, pace, 2) - 0.5), 0, 1) * 0.6 + 0.4 * (noise(rng, size, pace) > 0.6)
    elif name == "lozenges":
        tone = 0.5 + 0.5 * np.cos(TAU * 2 * (np.abs((0.5 * u) % 1 - 0.5) + np.abs((0.7 * v) % 1 - 0.5)))
    elif name == "plaid":
        tone = 0.35 * (np.cos(TAU * u) > 0) + 0.35 * (np.cos(TAU * v) > 0) + 0.3 * (np.cos(2 * TAU * v + 1) > 0.8)
    elif name == "ripples":
        first, second = (np.hypot(u - u.mean() - a, v - v.mean() - b) for a, b in rng.uniform(-3, 3, (2, 2)))
        tone = 0.5 + 0.25 * np.cos(TAU * first * 0.9) + 0.25 * np.cos(TAU * second * 0.9)
    else:
        a, b = u - v / np.sqrt(3), 2 * v / np.sqrt(3)
        tone = np.clip(0.5 + 6 * (a % 1 - 1 + b % 1), 0, 1)
    tone = 1 - tone if rng.random() < 0.5 else tone
    dark, light = any_colour(rng, (0.1, 0.55)), any_colour(rng, (0.6, 1.0))
    return dark + (light - dark) * np.clip(0.1 + 0.75 * tone + 0.25 * (noise(rng, size, 4, 2) - 0.5), 0, 1)[..., None]


def rosette(rng: np.random.Generator, size: int, kind: int) -> Array:
    """Round things whose outline or surface repeats about a middle."""
    image = random_background(rng, size, things=4)
    u, v, scale = random_frame(rng, size, reach=(0.24, 0.48), tilt=np.pi)
    r, angle = np.hypot(u, v), np.arctan2(v, u)
    name, core = ROSETTES[kind], rng.uniform(0.12, 0.35)
    colours = figure_colours(rng, 3, image)
    colours[0] = shaded_surface(rng, u, v, colours[0])
    if name == "clover":
        edge = 0.25 + 0.75 * np.sqrt(np.abs(np.cos(angle * int(rng.integers(3, 5)) / 2)))
        core *= 0.5
    elif name == "gear":
        edge = 0.78 + 0.2 * np.clip(3 * np.cos(angle * int(rng.integers(7, 12))), -1, 1)
    elif name == "spiral":
        edge = np.full_like(r, 1.0)
        arms = np.cos(angle + rng.choice((-1, 1)) * TAU * r * rng.uniform(1.6, 2.6)) > 0
        colours[0] = np.where(arms[..., None], colours[0], colours[1])
        core = 0.05
    else:
        edge = 0.5 + 0.5 * np.abs((angle * int(rng.integers(7, 14)) / TAU) % 1 - 0.5) * 2
    image = over(image, coverage((r - edge) * scale * 0.8, size), colours[0])
    return over(image, coverage(disc(u, v, core) * scale, size), colours[1])


def _face(rng: np.random.Generator, size: int, kind: int) -> Array:
    image = random_background(rng, size, things=3)
    u, v, scale = random_frame(rng, size, reach=(0.26, 0.44), tilt=0.35, bend=0.08)
    fur, pale, eye = any_colour(rng, (0.15, 0.95)), any_colour(rng, (0.7, 1.0)), any_colour(rng, (0.4, 1.0))
    skin = shaded_surface(rng, u, v, fur) * (0.85 + 0.3 * noise(rng, size, 9))[..., None]
    colours, side = [skin, pale, eye, np.full(3, 0.08), 0.6 * fur], np.abs(u)
    ears, wide, eyes = (
        ([("e", 4, 0.55, -0.6, 0.28, 0.28), ("e", 1, 0.55, -0.6, 0.14, 0.14)], 0.75, (0.3, 0.09)),
        ([("p", 4, [(0.15, -0.6), (0.62, -1.0), (0.7, -0.3)])], 0.7, (0.3, 0.25)),
        ([("e", 0, 0.3, -0.85, 0.17, 0.5), ("e", 1, 0.3, -0.85, 0.08, 0.36)], 0.55, (0.3, 0.13)),
    )[kind]
    image = figure(image, side, v, scale, [*ears, ("e", 0, 0, 0.05, wide, 0.68)], colours)
    apart, radius = eyes[0] * rng.uniform(0.85, 1.15), eyes[1] * rng.uniform(0.85, 1.15)
    if kind != 1:
        image = figure(image, u, v, scale, [("e", 1, 0, 0.38, 0.34, 0.26)], colours)
    ball, pupil = (("e", paint, apart, -0.08, r, r) for paint, r in ((2, radius), (3, radius / 2)))
    image = figure(image, side, v, scale, [ball, pupil], colours)
    nose = ("p", 1, [(-0.12, 0.1), (0.12, 0.1), (0, 0.5)]) if kind == 1 else ("e", 3, 0, 0.3, 0.14, 0.1)
    return figure(image, u, v, scale, [nose], colours)


def _view(rng: np.random.Generator, size: int, kind: int) -> Array:
    x, y = grid(size)
    high, low, land = any_colour(rng, (0.2, 0.9)), any_colour(rng, (0.5, 1.0)), any_colour(rng, (0.2, 0.7))
    h = rng.uniform(0.4, 0.65)
    t = np.clip(y / h, 0, 1)[..., None]
    image = high * (1 - t) + low * t
    rough, cx = noise(rng, size, 5, 2), rng.uniform(0.3, 0.7)
    surface = land * (0.7 + 0.6 * rough)[..., None]
    if VIEWS[kind] == "cave":
        hole = ellipse(x - cx, y - h, rng.uniform(0.18, 0.35), rng.uniform(0.18, 0.35)) + 0.2 * (rough - 0.5)
        image = over(image, coverage(h + 0.08 - y, size), 0.7 * low)
        return over(image, coverage(-hole, size), 0.6 * surface)
    if VIEWS[kind] == "island":
        sea = any_colour(rng, (0.3, 0.8)) * (1 + 0.15 * np.cos(rng.uniform(40, 80) * y + 5 * rough))[..., None]
        hill = ellipse(x - cx, y - h, rng.uniform(0.2, 0.38), rng.uniform(0.1, 0.3)) + 0.15 * (rough - 0.5)
        image = over(image, coverage(hill, size), surface)
        return over(image, coverage(h - y, size), sea)
    slope, top = rng.uniform(0.6, 1.1), h - rng.uniform(0.2, 0.32)
    cone = np.maximum(top + slope * (np.abs(x - cx) - 0.1), top) + 0.06 * (rough - 0.5)
    smoke = np.abs(x - cx - 0.2 * (top - y) * rough) - 0.05 - 0.3 * (top - y)
    image = over(image, coverage(smoke, size) * (y < top), low * 0.5)
    image = over(image, coverage(cone - y, size), surface)
    lava = np.array([(cx - 0.07, top), (cx + 0.07, top), (cx + rng.uniform(-0.1, 0.2), top + rng.uniform(0.15, 0.4))])
    image = over(image, coverage(polygon(x, y, lava), size), hsv(rng.normal(0.05, 0.04), 0.8, 0.95))
    return over(image, coverage(box(x - 0.5, y - 1, 1, 1 - h - 0.25), size), 0.6 * surface)


FAMILIES = (
    (_thing, THINGS),
    (letter, LETTERS),
    (_texture, TEXTURES),
    (rosette, ROSETTES),
    (_face, FACES),
    (_view, VIEWS),
)
CATEGORIES = [(family, kind) for family, names in FAMILIES for kind in range(len(names))]


def draw(rng: np.random.Generator, size: int) -> tuple[Array, dict[str, int]]:
    """One image, uint8 (size, size, 3), and its category: things, letters, textures, rosettes, faces, then views."""
    label = int(rng.integers(len(CATEGORIES)))
    family, kind = CATEGORIES[label]
    return to_bytes(as_photograph(rng, family(rng, size, kind))), {"upstream-standin": label}
