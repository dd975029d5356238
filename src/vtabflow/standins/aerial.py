"""Land seen from above, for the stand-ins of EuroSAT and RESISC45: ground, fields, trees, roads, houses, vehicles."""

import numpy as np

from vtabflow.standins.canvas import Array, box, coverage, grid, hsv, noise, over, rotated, to_bytes

WHITE, GREY, TAR = np.full(3, 0.92), np.full(3, 0.62), np.full(3, 0.36)
ROOFS = np.array([[0.66, 0.36, 0.28], [0.55, 0.40, 0.33], [0.62, 0.60, 0.58], [0.42, 0.42, 0.45], [0.75, 0.66, 0.55]])
SHEDS = np.array([[0.85, 0.86, 0.88], [0.70, 0.74, 0.80], [0.55, 0.56, 0.58], [0.78, 0.72, 0.66], [0.48, 0.58, 0.72]])
CARS = np.array([[0.9, 0.9, 0.92], [0.15, 0.16, 0.2], [0.6, 0.12, 0.12], [0.2, 0.3, 0.6], [0.55, 0.56, 0.58]])
SAND = np.array([0.82, 0.72, 0.52])
CLAY = np.array([0.66, 0.40, 0.28])
ICE = np.array([0.86, 0.90, 0.94])
BLUE = np.array([0.25, 0.45, 0.68])
LAWN = np.array([0.30, 0.56, 0.26])


class AerialImage:
    """An image from above that its methods draw on.

    `image` is (size, size, 3). `u` and `v` (size, size) are coordinates in image widths about the centre, rotated by a
    random angle.
    """

    def __init__(self, rng: np.random.Generator, size: int) -> None:
        self.rng, self.size = rng, size
        self.x, self.y = grid(size)
        self.u, self.v = rotated(self.x, self.y, 0.5, 0.5, rng.uniform(0, 2 * np.pi))
        self.image = np.zeros((size, size, 3))
        season = rng.normal(0, 0.025)
        self.green = hsv(0.26 + season, rng.uniform(0.30, 0.55), rng.uniform(0.36, 0.58))
        self.tree = hsv(0.30 + season, rng.uniform(0.35, 0.6), rng.uniform(0.22, 0.34))
        self.soil = hsv(0.09 + season, rng.uniform(0.25, 0.5), rng.uniform(0.45, 0.72))
        self.water = hsv(0.55 + 2 * season, rng.uniform(0.35, 0.7), rng.uniform(0.28, 0.52))

    def ground(self, first: Array, second: Array, cells: float = 5, octaves: int = 3, contrast: float = 2.0) -> None:
        """Fill everything with two colours (3,) mixed by noise."""
        mix = np.clip(0.5 + contrast * (noise(self.rng, self.size, cells, octaves) - 0.5), 0, 1)[..., None]
        self.image = first * (1 - mix) + second * mix

    def fill(self, distance: Array, colour: Array, opacity: float = 1.0) -> None:
        """Fill with a colour where `distance` (size, size) in image widths is negative."""
        self.image = over(self.image, opacity * coverage(distance, self.size), colour)

    def block(self, u: Array, v: Array, half: tuple[float, float], colour: Array, shade: float = 0.02) -> None:
        """A rectangle about u = v = 0 with a shadow `shade` long to one side."""
        if shade:
            self.fill(np.maximum(np.abs(u - shade) - half[0], np.abs(v - shade) - half[1]), np.full(3, 0.12), 0.6)
        self.fill(np.maximum(np.abs(u) - half[0], np.abs(v) - half[1]), colour)

    def band(self, half: float, bend: float, waves: float = 1.2, offset: float = 0.0) -> Array:
        """Distance to a band along u that swings by `bend` to either side, `waves` times across the image."""
        k, phase = 2 * np.pi * waves, self.rng.uniform(0, 2 * np.pi)
        slope = bend * k * np.cos(k * self.u + phase)
        return np.abs(self.v - offset - bend * np.sin(k * self.u + phase)) / np.sqrt(1 + slope * slope) - half

    def road(self, distance: Array, half: float, colour: Array = TAR, line: bool = True) -> None:
        """A road from a band's `distance`, with a pale line along its middle."""
        self.fill(distance, colour)
        if line:
            self.fill(distance + half - 0.06 * half - 0.002, WHITE, 0.75)

    def dots(
        self,
        cells: tuple[float, float],
        size: tuple[float, float],
        colours: Array,
        share: float = 1.0,
        square: float | None = None,
        jitter: float = 1.0,
        shade: float = 0.0,
        mask: Array | None = None,
        turn: float = 0.0,
    ) -> None:
        """Dots on a jittered grid: discs, or rectangles `square` times as long as wide.

        There is one dot in `share` of the cells, which are 1 / cells[0] by 1 / cells[1]. `size` is the range of its
        radius or half width in image widths; `mask` (size, size) in [0, 1] thins the dots out.
        """
        c, s = np.cos(turn), np.sin(turn)
        p, q = (c * self.u + s * self.v) * cells[0], (c * self.v - s * self.u) * cells[1]
        n = int(0.75 * max(cells)) + 2
        i, j = np.floor(p).astype(int), np.floor(q).astype(int)
        t = np.moveaxis(
            self.rng.random((2 * n, 2 * n, 5))[np.clip(i + n, 0, 2 * n - 1), np.clip(j + n, 0, 2 * n - 1)], -1, 0
        )
        radius = size[0] + (size[1] - size[0]) * t[0]
        long = radius * (square or 1.0)
        a = (p - i - 0.5 - jitter * np.maximum(0.5 - long * cells[0], 0) * (2 * t[1] - 1)) / cells[0]
        b = (q - j - 0.5 - jitter * np.maximum(0.5 - radius * cells[1], 0) * (2 * t[2] - 1)) / cells[1]
        there = (t[3] < share) * (1.0 if mask is None else mask)
        palette = colours[np.minimum((t[4] * len(colours)).astype(int), len(colours) - 1)]

        def distance(du: Array, dv: Array) -> Array:
            return np.hypot(du, dv) - radius if square is None else np.maximum(np.abs(du) - long, np.abs(dv) - radius)

        if shade:
            self.image = over(
                self.image, 0.5 * there * coverage(distance(a - shade, b - shade), self.size), np.full(3, 0.1)
            )
        self.image = over(self.image, there * coverage(distance(a, b), self.size), palette)

    def trees(self, cells: float, share: float = 1.0, mask: Array | None = None, turn: float = 0.0) -> None:
        """Crowns of several greens, about `cells` across."""
        greens = self.tree * np.array([[0.75], [1.0], [1.25], [1.1]])
        self.dots((cells, cells), (0.28 / cells, 0.5 / cells), greens, share, shade=0.15 / cells, mask=mask, turn=turn)

    def fields(self, across: float, along: float, rows: float = 0.0) -> None:
        """A patchwork of fields of about 1 / across by 1 / along, some with plough rows."""
        p = self.u * across + self.rng.random()
        i = np.floor(p).astype(int)
        shift = self.rng.random(64)
        q = self.v * along + shift[i % 64]
        j = np.floor(q).astype(int)
        green, soil = self.green, self.soil
        kinds = np.stack([green, 0.8 * green, 1.25 * green, soil, 0.75 * soil, 0.5 * (soil + green)])
        table = self.rng.integers(0, len(kinds), (16, 16))
        furrows = 1 + rows * np.sin(2 * np.pi * self.v * self.rng.uniform(14, 22)) * (table[i % 16, j % 16] % 2)
        furrows *= 0.9 + 0.2 * noise(self.rng, self.size, 8, 2)
        self.image = kinds[table[i % 16, j % 16]] * furrows[..., None]
        edge = np.minimum(0.5 - np.abs(p % 1 - 0.5), 0.5 - np.abs(q % 1 - 0.5)) / max(across, along)
        self.fill(edge - 0.006, self.tree, 0.5)

    def near(self, reach: float = 0.1) -> tuple[Array, Array]:
        """Coordinates about a point near the centre."""
        du, dv = self.rng.uniform(-reach, reach, 2)
        return self.u - du, self.v - dv

    def shore(self, where: float, rough: float = 0.12) -> Array:
        """Distance to a rough shore across v: negative on the side of small v."""
        return self.v - where + rough * 2 * (noise(self.rng, self.size, 5, 3) - 0.5)

    def blob(self, radius: float, rough: float = 0.5) -> Array:
        """Signed distance (size, size) to a rough-edged oval near the centre."""
        u, v = self.near(0.06)
        return np.hypot(u, v * self.rng.uniform(1, 1.4)) - radius * (
            1 + rough * 2 * (noise(self.rng, self.size, 4, 2) - 0.5)
        )

    def town(self) -> None:
        """Fill the image with the ground of a town."""
        self.ground(self.green, 0.5 * self.green + 0.28, 6)

    def paved(self, level: float = 0.9) -> None:
        """Fill the image with pavement of brightness `level`."""
        self.ground(GREY * level, GREY * level * 0.85, 6)

    def wild(self) -> None:
        """Fill the image with grass and bare soil."""
        self.ground(self.green, 0.6 * self.green + 0.4 * self.soil, 4)

    def plane(self, u: Array, v: Array, length: float) -> None:
        """An aircraft that points along u, about `length` long, with its shadow."""
        for shift, colour, alpha in ((0.04 * length, np.full(3, 0.2), 0.5), (0.0, WHITE, 1.0)):
            a, b = (u - shift) / length, np.abs(v - shift) / length
            sweep = np.maximum(np.abs(a - 0.05 + 0.55 * b) - 0.09 + 0.09 * b, b - 0.48)
            tail = np.maximum(np.abs(a + 0.42 + 0.5 * b) - 0.05, b - 0.18)
            body = np.hypot(np.maximum(np.abs(a) - 0.42, 0), b) - 0.06
            self.fill(length * np.minimum(np.minimum(sweep, tail), body), colour, alpha)

    def boat(self, u: Array, v: Array, length: float, colour: Array, wake: float = 0.0) -> None:
        """A boat that points along u, about `length` long, with a wake of `wake` times its length."""
        a, b = u / length, np.abs(v) / length
        if wake:
            self.fill(
                length * np.maximum(b - 0.05 + 0.16 * (a + 0.4), np.maximum(a + 0.4, -a - 0.4 - wake)), WHITE, 0.5
            )
        hull = np.maximum(b - 0.13 * np.clip(1.6 - 2.2 * np.abs(a), 0, 1), np.abs(a) - 0.5)
        self.fill(length * hull, colour)
        self.fill(length * np.maximum(np.abs(a + 0.2) - 0.12, b - 0.08), WHITE)

    def houses(self, n: float, share: float, half: tuple[float, float], jitter: float, palette: Array = ROOFS) -> None:
        """Rows of about `n` houses across, with roofs of the colours `palette` (n, 3)."""
        self.dots((n, n), (half[0] / n, half[1] / n), palette * self.rng.uniform(0.85, 1.15), share, 1.3, jitter, 0.015)

    def streets(self, n: float, half: float) -> None:
        """A grid of `n` streets across, of half width `half`."""
        for along in (self.u, self.v):
            self.fill((0.5 - np.abs((along * n + self.rng.random()) % 1 - 0.5)) / n - half, GREY * 0.9)

    def cars(self, distance: Array, share: float = 0.5, cells: tuple[float, float] = (11, 26)) -> None:
        """Cars within the strip where `distance` is negative."""
        self.dots(cells, (0.011, 0.014), CARS, share, 1.9, 0.8, 0.0, (distance < 0).astype(float))

    def court(self, half: tuple[float, float], inner: Array, outer: Array) -> tuple[Array, Array]:
        """A marked court; returns the coordinates about its centre, (size, size) each."""
        u, v = self.near()
        self.fill(box(u, v, half[0] + 0.06, half[1] + 0.06), outer)
        self.fill(box(u, v, *half), inner)
        self.fill(np.abs(box(u, v, *half)) - 0.007, WHITE)
        return u, v

    def finish(self) -> Array:
        """Haze, brightness and grain; uint8 (size, size, 3)."""
        rng = self.rng
        haze = rng.uniform(0, 0.22)
        image = self.image * (rng.uniform(0.8, 1.2) * (1 - haze)) + haze * np.array([0.66, 0.7, 0.76])
        image = image * (1 + rng.uniform(-0.04, 0.04, 3)) * (0.95 + 0.1 * noise(rng, self.size, 20, 2))[..., None]
        return to_bytes(np.clip(image, 0, 1))
