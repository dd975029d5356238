"""False alarms and misses of the search for traces of lossy files: `python tests/prepare/lossy_rates.py [PHOTOS.zip]`.

The images were never compressed: drawn here, stand-ins, and photographs of a zip (class folders of JPEGs, at least
three times as large), scaled down until nothing is left of their own compression. At twice the size something is: the
colours of a JPEG, which have half its resolution, are then not resized at all.
"""

import importlib
import io
import sys
import zipfile
from collections.abc import Callable

import numpy as np
from PIL import Image

from vtabflow.data import traces


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
                if min(image.size) >= 3 * size:
                    found.append(
                        np.asarray(image.resize((size, size), Image.Resampling.BOX)).reshape(size, size, channels)
                    )
    return np.array(found)


def through(images: np.ndarray, kind: str, **options) -> np.ndarray:
    """The images after one turn through a file of Pillow: "WEBP", "AVIF", "JPEG2000", "GIF", "JPEG"."""
    out = np.empty_like(images)
    for i, image in enumerate(images):
        stream = io.BytesIO()
        Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).save(stream, kind, **options)
        out[i] = np.asarray(Image.open(stream).convert("L" if image.shape[2] == 1 else "RGB")).reshape(image.shape)
    return out


def scaled(images: np.ndarray, size: int, kernel: str) -> np.ndarray:
    """The images at another size, by a kernel of Pillow."""
    resample = Image.Resampling[kernel]
    flat_images = (Image.fromarray(image[..., 0] if image.shape[2] == 1 else image) for image in images)
    found = [np.asarray(image.resize((size, size), resample)) for image in flat_images]
    return np.stack(found).reshape(len(images), size, size, images.shape[3])


def drawn_by(module: str, count: int, size: int) -> np.ndarray:
    """Images of a stand-in."""
    draw = importlib.import_module(f"vtabflow.standins.{module}").draw
    return np.stack([draw(np.random.default_rng(i), size)[0] for i in range(count)])


KINDS = {"natural": natural, "flat": flat, "pixel art": pixel_art, "few levels": few_levels}
SIZES = ((32, 3), (96, 1))
QUALITIES = (50, 75, 85, 90, 95)
STANDINS = ("cifar100", "svhn", "dsprites", "smallnorb", "clevr", "eurosat", "flowers", "dtd", "retinopathy")
SAMPLE = 256

Turn = Callable[[np.ndarray], np.ndarray]
TURNS: dict[str, Turn] = {
    **{f"JPEG {q}": lambda x, q=q: jpeg(x, q) for q in (10, 30, 50, 75, 90, 95, 98, 99, 100)},
    **{f"JPEG {q} 4:4:4": lambda x, q=q: through(x, "JPEG", quality=q, subsampling=0) for q in (50, 90, 98, 99)},
    "JPEG 75, twice": lambda x: jpeg(jpeg(x, 75), 90),
    "JPEG 90, cut by 1 and 3 pixels": lambda x: jpeg(x, 90)[:, 1:, 3:],
    **{
        f"JPEG 90, then x{share} {kernel.lower()}": lambda x, share=share, kernel=kernel: scaled(
            jpeg(x[:64], 90), int(x.shape[1] * share), kernel
        )
        for share in (2, 1.75)
        for kernel in ("BILINEAR", "BICUBIC", "NEAREST")
    },
    "JPEG 90, then x7 and back": lambda x: scaled(
        scaled(jpeg(x[:64], 90), 7 * x.shape[1], "BILINEAR"), x.shape[1], "BOX"
    ),
    "half of the images JPEG 90": lambda x: np.concatenate([x[::2], jpeg(x[1::2], 90)]),
    **{f"WebP {q}": lambda x, q=q: through(x, "WEBP", quality=q) for q in (50, 75, 90)},
    **{f"AVIF {q}": lambda x, q=q: through(x, "AVIF", quality=q) for q in (50, 75, 90)},
    "JPEG 2000 at 36 dB": lambda x: through(x, "JPEG2000", quality_mode="dB", quality_layers=[36], irreversible=True),
    "GIF": lambda x: through(x, "GIF"),
}
LOSSLESS: dict[str, Turn] = {
    "as they are": lambda x: x,
    "x2 bilinear": lambda x: scaled(x[:64], 2 * x.shape[1], "BILINEAR"),
    "x2 nearest": lambda x: scaled(x[:64], 2 * x.shape[1], "NEAREST"),
    "x1.75 bicubic": lambda x: scaled(x[:64], int(1.75 * x.shape[1]), "BICUBIC"),
}


def found(images: np.ndarray) -> list[str]:
    """What the audit would find."""
    return traces.found(images) or traces.found_enlarged(images)


def main() -> None:
    bases = {f"{name} {size}": kind(np.random.default_rng(1), SAMPLE, size, channels)
             for name, kind in KINDS.items() for size, channels in SIZES}  # fmt: skip
    bases |= {f"stand-in {name}": drawn_by(name, SAMPLE, 32) for name in STANDINS}
    bases |= {f"photographs, {path}": photographs(path, 32, 3)[:SAMPLE] for path in sys.argv[1:]}
    colour = [name for name, images in bases.items() if images.shape[3] == 3]
    print(f"{len(bases)} sets of never compressed images, {len(colour)} of them in colour")
    for title, turns in (("false alarms", LOSSLESS), ("found", TURNS)):
        for turn, change in turns.items():
            told = {name: found(change(images)) for name, images in bases.items() if turn != "GIF" or name in colour}
            those = [name for name, words in told.items() if bool(words) == (turns is LOSSLESS)]
            in_colour = sum(bool(told[name]) for name in colour)
            count = sum(map(bool, told.values()))
            what = f"{title} {count} of {len(told)}, in colour {in_colour} of {len(colour)}"
            print(f"{turn:32} {what}{'; not as it should be: ' if those else ''}{', '.join(those)}", flush=True)


if __name__ == "__main__":
    main()
