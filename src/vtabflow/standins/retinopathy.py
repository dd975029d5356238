"""Stand-in for Diabetic Retinopathy: a fundus photograph. Which grade, 0 (none) to 4 (proliferative)?

Grades follow the international scale as the original's do: 0 nothing; 1 a few microaneurysms (red dots); 2 more of
them, small haemorrhages and hard exudates (yellow dots); 3 many haemorrhages and cotton-wool spots (pale patches); 4
new vessels (tufts of fine vessels) or a large bleeding, on top of any of these. The grades are skewed, more mildly
than in the original (73 % of grade 0). Specks of dust and reflexes are not lesions, and occur in every grade.
"""

import numpy as np

from vtabflow.standins.canvas import Array, coverage, grid, noise, over, to_bytes

TASKS = {"diabetic-retinopathy-standin": 5}

SHARES = (0.36, 0.16, 0.20, 0.14, 0.14)
# (low, high) numbers of microaneurysms, haemorrhages, exudates, cotton-wool spots and tufts of new vessels, by grade.
LESIONS = (
    ((0, 0), (0, 0), (0, 0), (0, 0), (0, 0)),
    ((2, 5), (0, 0), (0, 0), (0, 0), (0, 0)),
    ((4, 9), (1, 4), (3, 9), (0, 1), (0, 0)),
    ((6, 12), (8, 14), (0, 9), (2, 4), (0, 0)),
    ((0, 12), (0, 10), (0, 9), (0, 3), (1, 2)),
)
RADIUS = 0.47


def vessels(x: Array, y: Array, turns: Array, size: int) -> Array:
    """Opacity of vessels that leave the origin: `turns` (n, 5) has start angle, bend, wave, phase and width of each."""
    away, angle = np.hypot(x, y), np.arctan2(y, x)
    start, bend, wave, phase, width = turns.T[:, :, None, None]
    course = start + bend * away + wave * np.sin(9 * away + phase)
    gap = np.abs((angle - course + np.pi) % (2 * np.pi) - np.pi)
    distance = away * np.minimum(gap, 1.5) / np.sqrt(1 + (away * bend) ** 2) - width * np.clip(1.1 - 0.9 * away, 0.2, 1)
    return coverage(distance, size).max(axis=0)


def spots(x: Array, y: Array, places: Array, radii: Array, size: int) -> Array:
    """Opacity of round spots at `places` (n, 2) of `radii` (n,), (size, size)."""
    if len(places) == 0:
        return np.zeros(x.shape)
    away = np.hypot(x - places[:, 0, None, None], y - places[:, 1, None, None])
    return coverage(away - radii[:, None, None], size).max(axis=0)


def scattered(rng: np.random.Generator, n: int, low: float = 0.06, high: float = 0.92) -> Array:
    """`n` places (n, 2) in the disc, between two shares of its radius."""
    away, angle = RADIUS * np.sqrt(rng.uniform(low**2, high**2, n)), rng.uniform(0, 2 * np.pi, n)
    return 0.5 + np.stack([away * np.cos(angle), away * np.sin(angle)], axis=1)


def draw(rng: np.random.Generator, size: int) -> tuple[Array, dict[str, int]]:
    """One image, uint8 (size, size, 3), and its grade."""
    grade = int(np.searchsorted(np.cumsum(SHARES), rng.random()))
    x, y = grid(size)
    side = rng.choice([-1.0, 1.0])
    tone = np.array([0.78, 0.40, 0.20]) * rng.uniform(0.75, 1.15) + rng.uniform(-0.05, 0.05, 3)
    lamp = 0.5 + rng.uniform(-0.15, 0.15, 2)
    glow = 1.08 - 1.2 * ((x - lamp[0]) ** 2 + (y - lamp[1]) ** 2)
    image = tone * (glow * (0.88 + 0.24 * noise(rng, size, 5, 3)))[..., None]
    spot = np.array([0.5 + side * rng.uniform(0.2, 0.27), 0.5 + rng.uniform(-0.05, 0.05)])
    image *= (1 - 0.42 * np.exp(-((x - 1 + spot[0] + 0.05 * side) ** 2 + (y - spot[1] - 0.02) ** 2) / 0.008))[..., None]
    dark = tone * np.array([0.58, 0.34, 0.4])

    # Two arcades above and two below, bending round the macula, and fine vessels between.
    towards = np.pi if side > 0 else 0.0
    lean = np.array([1.15, -1.15, 1.75, -1.75, 2.5, -2.5, 0.45, -0.45, 0.8, -0.8]) + rng.normal(0, 0.14, 10)
    bend = np.array([-1.5, 1.5, -0.3, 0.3, 0.5, -0.5, -0.2, 0.2, 1.0, -1.0]) + rng.normal(0, 0.3, 10)
    width = np.array([0.016, 0.016, 0.011, 0.011, 0.010, 0.010, 0.006, 0.006, 0.008, 0.008]) * rng.uniform(0.8, 1.2)
    turns = np.stack(
        [towards - side * lean, -side * bend, rng.uniform(0.03, 0.1, 10), rng.uniform(0, 6, 10), width], axis=1
    )
    image = over(image, 0.8 * vessels(x - spot[0], y - spot[1], turns, size), dark)
    disc = np.hypot(x - spot[0], (y - spot[1]) / 1.1)
    image = over(
        image, 0.9 * coverage(disc - rng.uniform(0.06, 0.075), size), np.minimum(tone * np.array([1.2, 1.75, 2.0]), 1)
    )

    counts = [int(rng.integers(low, high + 1)) for low, high in LESIONS[grade]]
    bleeding = grade == 4 and rng.random() < 0.5
    cotton = np.minimum(tone * np.array([1.15, 1.7, 2.2]), 1)
    image = over(
        image, 0.65 * spots(x, y, scattered(rng, counts[3]), rng.uniform(0.022, 0.036, counts[3]), size), cotton
    )
    cluster = scattered(rng, 1, 0.2, 0.6) + rng.normal(0, 0.07, (counts[2], 2))
    image = over(
        image,
        0.95 * spots(x, y, cluster, rng.uniform(0.009, 0.017, counts[2]), size),
        np.minimum(tone * np.array([1.25, 2.0, 1.5]), 1),
    )
    blood = tone * np.array([0.52, 0.16, 0.2])
    image = over(image, 0.9 * spots(x, y, scattered(rng, counts[1]), rng.uniform(0.018, 0.034, counts[1]), size), blood)
    image = over(
        image, 0.95 * spots(x, y, scattered(rng, counts[0]), rng.uniform(0.012, 0.017, counts[0]), size), blood
    )
    if bleeding:
        centre, reach = scattered(rng, 1, 0.45, 0.75)[0], rng.uniform(0.07, 0.12)
        pool = np.maximum(np.hypot(x - centre[0], (y - centre[1]) * 1.2) - reach, centre[1] - 0.25 * reach - y)
        image = over(image, 0.92 * coverage(pool, size), blood)
    if grade == 4:
        for centre in scattered(rng, counts[4] + (not bleeding), 0.35, 0.75):
            n = 9
            tuft = np.stack(
                [
                    rng.uniform(0, 2 * np.pi, n),
                    rng.normal(0, 14, n),
                    np.full(n, 0.5),
                    rng.uniform(0, 6, n),
                    np.full(n, 0.004),
                ],
                axis=1,
            )
            reach = np.hypot(x - centre[0], y - centre[1])
            fine = vessels(x - centre[0], y - centre[1], tuft, size) * coverage(reach - rng.uniform(0.06, 0.1), size)
            image = over(image, 0.85 * fine, blood)

    # Dust (grey-green, soft) and a reflex are in images of every grade.
    dust = int(rng.integers(0, 4))
    image = over(
        image,
        0.5 * spots(x, y, scattered(rng, dust), rng.uniform(0.012, 0.03, dust), size),
        tone * np.array([0.75, 0.95, 1.1]),
    )
    edge = np.hypot(x - 0.5, y - 0.5) - RADIUS
    image *= coverage(edge, size)[..., None] * np.clip(1.02 + 2.5 * np.minimum(edge, 0) + 0.35, 0.55, 1)[
        ..., None
    ].clip(0, 1)
    return to_bytes(np.clip(image, 0, 1)), {"diabetic-retinopathy-standin": grade}
