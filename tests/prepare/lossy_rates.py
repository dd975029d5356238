"""False alarms and misses of the detector of JPEG traces: `python tests/prepare/lossy_rates.py [ZIP OF PHOTOGRAPHS]`.

A sample is as many images as the audit looks at. Images are drawn here; a zip (class folders of JPEGs, larger than
twice the size) gives natural ones, scaled down until nothing is left of their own compression.
"""

import io
import sys
import zipfile

import numpy as np
from PIL import Image

from vtabflow.data import lossy


def natural(rng: np.random.Generator, count: int, size: int, channels: int) -> np.ndarray:
    """1/f noise, correlated between the channels, with edges and grain: the spectrum of photographs."""
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(size), np.fft.fftfreq(size)))
    frequency[0, 0] = 1 / size
    y, x = np.mgrid[:size, :size]

    def cloud(power):
        values = np.fft.ifft2(np.fft.fft2(rng.normal(size=(size, size))) / frequency**power).real
        return values / values.std()

    out = np.empty((count, size, size, channels), np.uint8)
    for i in range(count):
        grey = cloud(rng.uniform(0.8, 1.3)) * rng.uniform(20, 60) + rng.uniform(80, 170)
        for _ in range(rng.integers(0, 4)):
            a, b = rng.normal(size=2)
            grey += ((a * (x - rng.uniform(0, size)) + b * (y - rng.uniform(0, size))) > 0) * rng.normal() * 40
        planes = [grey, *(grey + cloud(1.5) * rng.uniform(5, 25) for _ in range(channels - 1))]
        grain = rng.normal(size=(size, size, channels)) * rng.uniform(0, 4)
        out[i] = np.clip(np.stack(planes, -1) + grain, 0, 255).round()
    return out


def flat(rng: np.random.Generator, count: int, size: int, channels: int) -> np.ndarray:
    """Boxes, discs and half planes of one colour each, without smoothing."""
    y, x = np.mgrid[:size, :size]
    out = np.empty((count, size, size, channels), np.uint8)
    for i in range(count):
        out[i] = rng.integers(0, 256, channels)
        for _ in range(rng.integers(1, 6)):
            (cx, cy), (w, h) = rng.uniform(0, size, 2), rng.uniform(2, size / 2, 2)
            shapes = (
                (abs(x - cx) < w) & (abs(y - cy) < h),
                (x - cx) ** 2 / w**2 + (y - cy) ** 2 / h**2 < 1,
                (x - cx) * w > (y - cy) * h,
            )
            out[i][shapes[rng.integers(3)]] = rng.integers(0, 256, channels)
    return out


def pixel_art(rng: np.random.Generator, count: int, size: int, channels: int) -> np.ndarray:
    """Shapes made of squares of 4 pixels, in line with the blocks of JPEG."""
    return flat(rng, count, size // 4, channels).repeat(4, axis=1).repeat(4, axis=2)


def few_levels(rng: np.random.Generator, count: int, size: int, channels: int) -> np.ndarray:
    """Natural spectrum in 16 levels."""
    return natural(rng, count, size, channels) // 16 * 16


def jpeg(images: np.ndarray, quality: int, writer: str = "pillow") -> np.ndarray:
    """The images after one turn through a JPEG file of Pillow (4:2:0) or OpenCV."""
    out = np.empty_like(images)
    for i, image in enumerate(images):
        if writer == "opencv":
            import cv2

            data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
            found = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
        else:
            stream = io.BytesIO()
            Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).save(stream, "JPEG", quality=quality)
            found = np.asarray(Image.open(stream))
        out[i] = found.reshape(image.shape)
    return out


def photographs(path: str, size: int, channels: int) -> np.ndarray:
    """Photographs of a zip, scaled to size x size with an area average."""
    found = []
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if name.lower().endswith((".jpg", ".jpeg")):
                image = Image.open(io.BytesIO(archive.read(name))).convert("L" if channels == 1 else "RGB")
                if min(image.size) >= 2 * size:
                    found.append(
                        np.asarray(image.resize((size, size), Image.Resampling.BOX)).reshape(size, size, channels)
                    )
    return np.array(found)


KINDS = {"natural": natural, "flat": flat, "pixel art": pixel_art, "few levels": few_levels}
SIZES = ((32, 3), (96, 1))
QUALITIES = (50, 75, 85, 90, 95)


def main(samples: int = 10) -> None:
    print(f"comb of samples of {lossy.SAMPLE} images; alarm above {lossy.LIMIT}")
    print("images    size  samples  never compressed (highest)  JPEG " + "  ".join(f"{q} (lowest)" for q in QUALITIES))
    false_alarms = misses = tries = turns = 0
    for size, channels in SIZES:
        sets = {
            name: [kind(np.random.default_rng(i), lossy.SAMPLE, size, channels) for i in range(samples)]
            for name, kind in KINDS.items()
        }
        for path in sys.argv[1:]:
            whole = photographs(path, size, channels)
            if len(whole) < lossy.SAMPLE:
                continue
            rng = np.random.default_rng(0)
            sets["photographs"] = [whole[rng.permutation(len(whole))[: lossy.SAMPLE]] for _ in range(samples)]
        for name, drawn in sets.items():
            raw = [lossy.comb(images) for images in drawn]
            turned = [[lossy.comb(jpeg(images, q)) for images in drawn] for q in QUALITIES]
            false_alarms, tries = false_alarms + sum(value > lossy.LIMIT for value in raw), tries + len(raw)
            misses += sum(value <= lossy.LIMIT for values in turned for value in values)
            turns += sum(map(len, turned))
            lowest = "  ".join(f"{min(values):11.2f}" for values in turned)
            print(f"{name:11} {size:4}  {samples:7}  {max(raw):26.2f}       {lowest}", flush=True)
    print(f"false alarms {false_alarms} of {tries}, misses {misses} of {turns}")


if __name__ == "__main__":
    main()
