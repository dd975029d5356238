"""Stand-in for Oxford-IIIT Pet: which of 14 breeds, from a cat's or a dog's head: ears, muzzle, eyes and markings.

The coat's colour helps only partly: a breed has two or three colours, shared with other breeds.
"""

import numpy as np

from vtabflow.standins.canvas import (
    Array,
    any_colour,
    as_photograph,
    coverage,
    ellipse,
    figure,
    noise,
    over,
    random_background,
    random_frame,
    to_bytes,
)

TASKS = {"oxford-iiit-pet-standin": 14}

BLACK, GREY, WHITE, CREAM, GINGER, BROWN = (
    np.array(c)
    for c in (
        (0.14, 0.13, 0.14),
        (0.50, 0.52, 0.55),
        (0.93, 0.92, 0.90),
        (0.88, 0.77, 0.58),
        (0.80, 0.48, 0.20),
        (0.42, 0.27, 0.16),
    )
)
# Ears, width and height of the head, width of the muzzle, eyes (half distance, size), marking, coats.
BREEDS = {
    "abyssinian": ("tall", 0.62, 0.68, 0.24, (0.27, 0.12), "tabby", (GINGER, BROWN, CREAM)),
    "bengal": ("small", 0.68, 0.62, 0.28, (0.30, 0.12), "spots", (GINGER, CREAM, GREY)),
    "birman": ("small", 0.74, 0.66, 0.26, (0.32, 0.14), "points", (CREAM, WHITE, GREY)),
    "persian": ("small", 0.82, 0.72, 0.34, (0.38, 0.17), "plain", (WHITE, GREY, GINGER)),
    "siamese": ("tall", 0.58, 0.66, 0.22, (0.26, 0.12), "points", (CREAM, WHITE, GREY)),
    "sphynx": ("bat", 0.52, 0.64, 0.26, (0.26, 0.16), "wrinkles", (CREAM, GREY, BROWN)),
    "tuxedo": ("tall", 0.68, 0.64, 0.28, (0.30, 0.13), "bib", (BLACK, GREY, BROWN)),
    "basset": ("long", 0.56, 0.72, 0.36, (0.26, 0.10), "blaze", (GINGER, BROWN, BLACK)),
    "beagle": ("floppy", 0.58, 0.66, 0.34, (0.26, 0.11), "blaze", (GINGER, BROWN, BLACK)),
    "chihuahua": ("bat", 0.58, 0.56, 0.24, (0.30, 0.16), "plain", (CREAM, BROWN, BLACK)),
    "husky": ("tall", 0.64, 0.66, 0.32, (0.27, 0.10), "mask", (GREY, BLACK, BROWN)),
    "pug": ("folded", 0.72, 0.68, 0.46, (0.40, 0.15), "muzzle", (CREAM, GREY, GINGER)),
    "retriever": ("floppy", 0.64, 0.70, 0.40, (0.28, 0.11), "plain", (CREAM, GINGER, BLACK)),
    "terrier": ("folded", 0.60, 0.68, 0.44, (0.27, 0.10), "patch", (WHITE, CREAM, GREY)),
}
# One ear at the right of the head, mirrored for the left.
EARS = {
    "tall": [
        ("p", 0, [(0.1, -0.45), (0.52, -1.15), (0.62, -0.25)]),
        ("p", 2, [(0.28, -0.5), (0.49, -0.95), (0.52, -0.38)]),
    ],
    "small": [
        ("p", 0, [(0.25, -0.5), (0.62, -0.85), (0.7, -0.2)]), ("p", 2, [(0.4, -0.5), (0.58, -0.7), (0.6, -0.35)]),
    ],
    "bat": [
        ("p", 0, [(0.1, -0.4), (0.55, -1.05), (1.0, -0.85), (0.55, -0.05)]),
        ("p", 2, [(0.3, -0.4), (0.6, -0.85), (0.82, -0.75), (0.5, -0.2)]),
    ],
    "floppy": [("p", 1, [(0.3, -0.6), (0.7, -0.55), (0.9, 0.25), (0.65, 0.4), (0.5, -0.1)])],
    "long": [("p", 1, [(0.3, -0.55), (0.65, -0.5), (0.95, 0.7), (0.75, 1.0), (0.5, 0.75), (0.48, -0.1)])],
    "folded": [("p", 1, [(0.2, -0.62), (0.6, -0.75), (0.85, -0.25), (0.6, -0.2)])],
}  # fmt: skip


def marked(
    rng: np.random.Generator, image: Array, u: Array, v: Array, head: Array, marking: str, paint: Array
) -> Array:
    """The breed's marking in the colour `paint` over the head, whose opacity is `head` (size, size)."""
    size = image.shape[0]
    side = rng.choice((-1, 1))
    if marking == "tabby":
        lines = np.clip(1.6 * np.cos(13 * u * (1 + 0.3 * v)), 0, 1) * np.clip(-2.5 * v - 0.2, 0, 1)
        cheeks = np.clip(1.6 * np.cos(13 * v + 3 * u * np.sign(u)), 0, 1) * np.clip(4 * np.abs(u) - 1.4, 0, 1)
        mask = np.maximum(lines, cheeks)
    elif marking == "spots":
        mask = np.clip(4 * noise(rng, size, 9) - 2.1, 0, 1)
    elif marking == "points":
        mask = np.clip(1.25 - np.hypot(u / 0.42, (v - 0.25) / 0.5), 0, 1) * 2
    elif marking == "wrinkles":
        mask = 0.7 * np.clip(3 * np.cos(22 * v - 2 * u * u) - 1.6, 0, 1) * np.clip(-3 * v - 0.3, 0, 1)
    elif marking == "bib":
        mask = (v - 0.05 - 1.5 * np.abs(u)) / 0.15
    elif marking == "blaze":
        mask = (0.1 + 0.25 * np.clip(v + 0.3, 0, 1) - np.abs(u)) / 0.08
    elif marking == "mask":
        mask = (0.45 - np.hypot((np.abs(u) - 0.27) / 0.8, (v - 0.0))) / 0.1 + np.clip(6 * (v - 0.25), 0, 9)
    elif marking == "muzzle":
        mask = (0.42 - np.hypot(u * 0.85, v - 0.32)) / 0.12
    elif marking == "patch":
        mask = (0.36 - np.hypot(u - side * 0.3, v + 0.08)) / 0.1
    else:
        return image
    return over(image, head * np.clip(mask, 0, 1) * 0.9, paint)


def draw(rng: np.random.Generator, size: int) -> tuple[Array, dict[str, int]]:
    """One head, uint8 (size, size, 3), and the breed (the order of BREEDS)."""
    label = int(rng.integers(len(BREEDS)))
    ears, wide, high, muzzle, (apart, eye), marking, coats = list(BREEDS.values())[label]
    image = random_background(rng, size, things=3)
    u, v, scale = random_frame(rng, size, reach=(0.27, 0.44), shift=0.12, tilt=0.35, bend=0.07)
    which, light = rng.integers(len(coats)), rng.uniform(0.75, 1.15)
    fur = np.clip(coats[which] * light * (1 + 0.05 * rng.standard_normal(3)), 0, 1)
    # A marking stands out from the coat: dark on a pale one, pale on a dark one; a bib or a blaze is pale.
    pale = marking in ("bib", "blaze", "mask") or fur.mean() < 0.3
    paint = (WHITE if pale else (BROWN, BLACK, GREY)[rng.integers(3)]) * rng.uniform(0.75, 1.05)
    iris = any_colour(rng, (0.5, 1.0)) if ears in ("tall", "small", "bat") else BROWN * 0.6
    hairs = 0.85 + 0.3 * noise(rng, size, 9)[..., None]
    tone = np.clip(1 + 0.25 * (rng.normal() * u + rng.normal() * v), 0.6, 1.35)[..., None]
    hanging = ears in ("floppy", "long", "folded")
    ear = 0.82 * (paint if marking == "muzzle" or (hanging and rng.random() < 0.4) else fur)
    pink = np.array([0.75, 0.5, 0.48]) * light
    colours = [fur * hairs * tone, ear * hairs * tone, pink, iris, BLACK * 0.6, WHITE]
    if marking == "points":
        colours[0] = np.broadcast_to(paint, image.shape) * tone
    image = over(image, coverage(ellipse(u, v - 1.1, 0.75, 0.8) * scale, size), 0.8 * fur * hairs * tone)
    jitter = rng.uniform(0.88, 1.12, 5)
    pair = np.abs(u)
    if not hanging:
        image = figure(image, pair, v, scale, EARS[ears], colours)
    colours[0] = fur * hairs * tone
    head = coverage(ellipse(u, v, wide * jitter[0], high * jitter[1]) * scale, size)
    image = over(image, head, colours[0])
    image = marked(rng, image, u, v, head, marking, paint)
    if hanging:
        image = figure(image, pair, v, scale, EARS[ears], colours)
    # The features slide sideways as the head turns.
    slide = rng.uniform(-0.12, 0.12)
    snout = coverage(ellipse(u - slide, v - 0.36, muzzle * jitter[2], 0.24) * scale, size)
    image = over(image, 0.5 * snout, image + 0.18)
    side = np.abs(u - slide)
    apart, eye = apart * jitter[3], eye * jitter[4]
    white, ball, pupil = (5, eye * 1.25, eye), (3, eye, eye * 0.92), (4, eye * 0.5, eye * 0.75)
    eyes = [("e", index, apart, -0.1, *radii) for index, *radii in (white, ball, pupil)]
    image = figure(image, side, v, scale, eyes, colours)
    nose = [("e", 4, 0, 0.27, 0.13 if hanging else 0.09, 0.09), ("s", 4, 0.05, [(0, 0.3), (0, 0.45), (0.16, 0.52)])]
    image = figure(image, side, v, scale, nose, colours)
    return to_bytes(as_photograph(rng, image)), {"oxford-iiit-pet-standin": label}
