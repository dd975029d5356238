"""Diabetic retinopathy, btgraham-300: Kaggle's folders of images with labels as CSV, a manual download.

The labels of the test images are fetched; their column `Usage` makes TFDS' validation (Public) and test (Private).
"""

import csv
import io
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter

from miniatures.drawing import decoded, jpeg
from miniatures.place import Example, Places, Truth, put

URL = "https://storage.googleapis.com/kaggle-forum-message-attachments/90528/2877/retinopathy_solution.csv"
COUNTS = {"train": 10, "validation": 5, "test": 5}
USAGE = {"validation": "Public", "test": "Private"}
RADIUS = 300  # pixels of the eyeball in the prepared picture
KEPT = 270  # 0.9 of it stays
# Height, width and radius of the eyeball in pixels: whole, cut above and below, large, and a picture that is black.
EYES = ((140, 180, 60), (120, 200, 75), (200, 200, 90), (640, 700, 310), (90, 120, 0))
# Mean absolute difference in grey levels: JPEG of quality 72 makes 2.4, OpenCV's blur in whole levels, times 4, 2.0;
# together 2.7. A sigma of 12 in place of 10 would make 5.2, exchanged channels 15.
TOLERANCE = 3.0


def make(places: Places, seed: int = 0) -> Truth:
    rng = np.random.default_rng(seed)
    truth: Truth = {}
    rows: dict[str, list[dict]] = {"train": [], "test": []}
    patient = 10
    for split, count in COUNTS.items():
        truth[split] = []
        folder = "train" if split == "train" else "test"
        for index in range(count):
            name, level = f"{patient + index // 2}_{('left', 'right')[index % 2]}", index % 5
            picture = _lay(places.manual / folder, name, _eye(rng, *EYES[(index + index // 5) % len(EYES)]))
            rows[folder].append({"image": name, "level": level, "Usage": USAGE.get(split)})
            labels = {"diabetic-retinopathy": level}
            truth[split].append(Example(name, labels, prepared(picture), tolerance=TOLERANCE))
        patient += count
    for name in ("10_left", "10_right"):
        _lay(places.manual / "sample", name, _eye(rng, *EYES[0]))
    rng.shuffle(rows["test"])
    (places.manual / "trainLabels.csv").write_bytes(_csv(rows["train"], ["image", "level"]))
    put(
        places,
        "diabetic_retinopathy_detection",
        URL,
        _csv(rows["test"], ["image", "level", "Usage"]),
        "retinopathy_solution.csv",
    )
    return truth


def prepared(picture: np.ndarray) -> np.ndarray:
    """btgraham-300 of TFDS without the last JPEG: an eyeball of radius 300, local mean removed, cropped to 0.9.

    The estimate of the radius: half the pixels of the middle row whose sum of channels is over a tenth of its mean;
    half the height where there is none.
    """
    line = picture[picture.shape[0] // 2].sum(1, dtype=float)
    radius = (line > line.mean() / 10).sum() / 2
    image = _scaled(picture, RADIUS / (radius if radius >= 1 else picture.shape[0] / 2))
    # OpenCV's kernel for uint8 ends at 3 sigma and mirrors the picture at its border.
    sigma = RADIUS / 30
    mean = np.rint(gaussian_filter(image, (sigma, sigma, 0), mode="mirror", truncate=3))
    image = np.clip(4 * image - 4 * mean + 128, 0, 255)
    height, width = image.shape[:2]
    row, column = np.ogrid[:height, :width]
    image[(row - height // 2) ** 2 + (column - width // 2) ** 2 > KEPT**2] = 128
    top, left = max(height // 2 - KEPT, 0), max(width // 2 - KEPT, 0)
    return image[top : height // 2 + KEPT, left : width // 2 + KEPT].astype(np.uint8)


def _scaled(picture: np.ndarray, factor: float) -> np.ndarray:
    """Bilinear, pixel centres at halves, no antialias, borders repeated, rounded to whole levels."""
    weights = []
    for size in picture.shape[:2]:
        source = np.clip((np.arange(round(size * factor)) + 0.5) / factor - 0.5, 0, size - 1)
        low = np.floor(source).astype(int)
        weights.append((low, np.minimum(low + 1, size - 1), source - low))
    (top, bottom, down), (left, right, across) = weights
    rows = picture[top] * (1 - down)[:, None, None] + picture[bottom] * down[:, None, None]
    return np.rint(rows[:, left] * (1 - across)[:, None] + rows[:, right] * across[:, None])


def _eye(rng: np.random.Generator, height: int, width: int, radius: int) -> np.ndarray:
    """A bright disc with soft waves in the middle of a black picture; without a radius all is black."""
    if radius == 0:
        return np.zeros((height, width, 3), np.uint8)
    row, column = np.mgrid[:height, :width]
    x, y = (column - (width - 1) / 2) / radius, (row - (height - 1) / 2) / radius
    pixels = (150 - 40 * (x**2 + y**2))[..., None] * np.array([1.2, 0.8, 0.6])
    # Waves of 40 to 70 pixels in the prepared picture, others in each channel: the local mean takes longer ones away.
    for channel in range(3):
        for _ in range(3):
            angle, phase = rng.uniform(0, 2 * np.pi, 2)
            wave = 2 * np.pi * RADIUS / rng.uniform(40, 70)
            pixels[..., channel] += 12 * np.sin(wave * (x * np.cos(angle) + y * np.sin(angle)) + phase)
    return np.where((x**2 + y**2 < 1)[..., None], np.clip(pixels, 0, 255), 0).astype(np.uint8)


def _lay(folder: Path, name: str, pixels: np.ndarray) -> np.ndarray:
    """Write the picture as Kaggle names it; what a decoder makes of the file."""
    folder.mkdir(parents=True, exist_ok=True)
    data = jpeg(pixels, quality=95)
    (folder / f"{name}.jpeg").write_bytes(data)
    return decoded(data)


def _csv(rows: list[dict], columns: list[str]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()
