"""CLEVR: a zip of images, questions and scenes; the scenes of the test split are not published."""

import json

import numpy as np

from miniatures.drawing import drawn, encoded, zipped
from miniatures.place import Example, Places, Truth, put

URL = "https://dl.fbaipublicfiles.com/clevr/CLEVR_v1.0.zip"
COUNTS = {"train": 60, "val": 24, "test": 4}
SPLITS = {"train": "train", "val": "validation"}
COLORS = ("gray", "blue", "brown", "yellow", "red", "green", "purple", "cyan")
SHAPES = ("cube", "sphere", "cylinder")
# Depth of the nearest object and its class. TFDS keeps float32, whose step is 9.5e-7 from 8 to 16: 8.50000001 is a tie.
NEAREST = (
    (7.2, 0),
    (8.0, 0),
    (8.0000001, 0),
    (8.000001, 1),
    (8.25, 1),
    (8.5, 1),
    (8.50000001, 1),
    (8.500001, 2),
    (9.0, 2),
    (9.000001, 3),
    (9.5, 3),
    (9.500001, 4),
    (10.0, 4),
    (10.000001, 5),
    (12.5, 5),
)


def make(places: Places, seed: int = 0) -> Truth:
    rng = np.random.default_rng(seed)
    truth: Truth = {}
    files: dict[str, bytes] = {}
    for name, count in COUNTS.items():
        examples, scenes = [], []
        for index in range(count):
            file, pixels = f"CLEVR_{name}_{index:06d}.png", drawn(rng, 320, 480)
            # Blender writes an opaque alpha channel.
            opaque = np.full((320, 480, 1), 255, np.uint8)
            files[f"CLEVR_v1.0/images/{name}/{file}"] = encoded(np.concatenate([pixels, opaque], 2), compress_level=1)
            objects = 3 + index % 8
            depth, nearest = NEAREST[index % len(NEAREST)]
            scenes.append(_scene(rng, name, index, file, objects, depth))
            examples.append(Example(file, {"clevr-count": objects - 3, "clevr-distance": nearest}, pixels))
        files[f"CLEVR_v1.0/questions/CLEVR_{name}_questions.json"] = _json({"questions": _questions(name, scenes)})
        if name in SPLITS:
            files[f"CLEVR_v1.0/scenes/CLEVR_{name}_scenes.json"] = _json({"info": {"split": name}, "scenes": scenes})
            truth[SPLITS[name]] = examples
    put(places, "clevr", URL, zipped(files), "CLEVR_v1.0.zip")
    return truth


def _scene(rng: np.random.Generator, split: str, index: int, file: str, objects: int, depth: float) -> dict:
    """A scene whose nearest object, anywhere in the list, has the given depth; the others are up to 6 units behind."""
    depths = [depth, *(depth + rng.uniform(0.001, 6, objects - 1))]
    rng.shuffle(depths)
    things = [
        {
            "color": COLORS[rng.integers(len(COLORS))],
            "material": ("rubber", "metal")[rng.integers(2)],
            "shape": SHAPES[rng.integers(len(SHAPES))],
            "size": ("small", "large")[rng.integers(2)],
            "rotation": float(rng.uniform(0, 360)),
            # Nothing but the third of the pixel coordinates is the depth: the others are nearer than any.
            "3d_coords": [float(value) for value in rng.uniform(-3, 3, 3)],
            "pixel_coords": [int(rng.integers(0, 7)), int(rng.integers(0, 7)), float(value)],
        }
        for value in depths
    ]
    return {"split": split, "image_index": index, "image_filename": file, "objects": things, "relationships": {}}


def _questions(split: str, scenes: list[dict]) -> list[dict]:
    """One question an image; those of the test split have no answer."""
    answers = {} if split == "test" else {"answer": "1"}
    return [
        {"question": "How many?", "image_filename": scene["image_filename"], "split": split, **answers}
        for scene in scenes
    ]


def _json(value: dict) -> bytes:
    return json.dumps(value).encode()
