"""Stand-in for PatchCamelyon: stained tissue from above. Are there tumour cells in the central third?

As in Veeling et al. 2018 the label asks about the centre only (32 of 96 pixels): tumour cells outside of it do not
count, and half of the images of both classes have some there. Tumour nuclei are larger, paler inside and uneven in
size and outline; ordinary nuclei are small, dark and round, crowded in some images. Stain, brightness and tissue
vary more than the classes do.
"""

import numpy as np

from vtabflow.standins.canvas import Array, coverage, grid, noise, over, rotated, to_bytes

TASKS = {"patch-camelyon-standin": 2}

# Half the side of the central square that decides, in image widths.
CENTRE = 1.0 / 6.0


def nuclei(
    u: Array, v: Array, table: Array, reach: tuple[float, float], size: int, cells: float
) -> tuple[Array, Array, Array]:
    """Nuclei on a jittered grid, one per cell: opacity, rim (1 at the edge, 0 inside) and tone, (size, size) each.

    `u`, `v` are in cells; `table` (n, n, 7) has shares in [0, 1]: place (2), size, stretch, angle, tone, presence (0:
    absent); `reach` the radii in cells.
    """
    i, j = np.clip(u.astype(int), 0, len(table) - 1), np.clip(v.astype(int), 0, len(table) - 1)
    t = np.moveaxis(table[i, j], -1, 0)
    radius = reach[0] + (reach[1] - reach[0]) * t[2]
    slack = np.maximum(0.5 - 1.15 * radius, 0.0)
    x, y = u - i - 0.5 - slack * (2 * t[0] - 1), v - j - 0.5 - slack * (2 * t[1] - 1)
    c, s = np.cos(np.pi * t[4]), np.sin(np.pi * t[4])
    stretch = 1.0 + 0.3 * t[3]
    away = np.hypot((c * x + s * y) / stretch, (c * y - s * x) * stretch)
    return coverage((away - radius) / cells, size) * t[6], np.clip(away / radius, 0, 1) ** 3, t[5]


def draw(rng: np.random.Generator, size: int) -> tuple[Array, dict[str, int]]:
    """One image, uint8 (size, size, 3), and its class."""
    label, elsewhere = int(rng.integers(2)), rng.random() < 0.5
    x, y = grid(size)
    stain = rng.uniform(0.85, 1.15)
    pink = np.array([0.90, 0.68, 0.80]) + rng.uniform(-0.07, 0.06, 3)
    violet = np.array([0.42, 0.26, 0.54]) + rng.uniform(-0.08, 0.08, 3)
    u, v = rotated(x, y, 0.5, 0.5, rng.uniform(0, 2 * np.pi))
    fibres = noise(rng, size, 5, 3)
    strands = 0.5 + 0.5 * np.sin(2 * np.pi * (rng.uniform(2, 5) * u + 2.5 * fibres))
    image = pink * (1.06 - 0.2 * stain * fibres - 0.1 * stain * strands)[..., None]
    gaps = np.clip((noise(rng, size, 4, 2) - rng.uniform(0.62, 0.85)) * 8, 0, 1)
    image = over(image, gaps, np.array([0.95, 0.91, 0.94]))

    crowded = rng.uniform(0.25, 0.85)
    for _ in range(2):
        cells = rng.uniform(10, 14)
        table = rng.random((17, 17, 7))
        table[..., 6] = table[..., 6] < crowded
        alpha, rim, tone = nuclei((u + 0.75) * cells / 1.2, (v + 0.75) * cells / 1.2, table, (0.2, 0.34), size, cells)
        image = over(
            image, 0.85 * stain / 1.15 * alpha * (1 - 0.7 * gaps), violet * (0.75 + 0.25 * tone + 0.1 * rim)[..., None]
        )

    # Nests of cells on an upright grid, so that a cell lies in the centre or outside of it: one nest in the centre,
    # one to one side of a line that does not reach it. A nest is of tumour cells, of crowded small cells (the same
    # stain on the same area, so that darkness tells nothing) or empty.
    cells = 7
    middle = np.abs((np.arange(cells) + 0.5) / cells - 0.5) < CENTRE
    inside = middle[:, None] & middle[None, :]
    row, column = np.meshgrid(np.arange(cells) - 3.0, np.arange(cells) - 3.0, indexing="ij")
    angle = rng.uniform(0, 2 * np.pi)
    side = (row * np.cos(angle) + column * np.sin(angle) > 1.0) & ~inside
    crowd, crowd_elsewhere = not label and rng.random() < 0.85, not elsewhere and rng.random() < 0.7
    bend = [0.8 * (noise(rng, size, 6) - 0.5) for _ in range(2)]
    for finer, centre, away in ((1, bool(label), elsewhere), (2, crowd, crowd_elsewhere)):
        table = rng.random((finer * cells, finer * cells, 7))
        there = np.repeat(np.repeat(inside & centre | side & away, finer, axis=0), finer, axis=1)
        table[..., 6] = there & (table[..., 6] < 0.75)
        if label and finer == 1:
            table[rng.integers(2, 5), rng.integers(2, 5), 6] = True
        u, v = finer * (x * cells + bend[0]), finer * (y * cells + bend[1])
        alpha, rim, tone = nuclei(u, v, table, (0.24, 0.42), size, finer * cells)
        image = over(image, 0.9 * alpha, violet * (1.0 + 0.25 * tone)[..., None] * (1.3 - 0.5 * rim)[..., None])
    image *= rng.uniform(0.85, 1.08) * (0.96 + 0.08 * noise(rng, size, 16, 2))[..., None]
    return to_bytes(np.clip(image, 0, 1)), {"patch-camelyon-standin": label}
