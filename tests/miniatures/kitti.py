"""KITTI: zips of the images, of their label files, and of the devkit that says which video a picture is from."""

import numpy as np

from miniatures.drawing import drawn, encoded, zipped
from miniatures.place import Example, Places, Truth, put

FOLDER = "https://s3.eu-central-1.amazonaws.com/avg-kitti/"
VIDEOS = 21  # a tenth of them, rounded down, is the test split and as many are the validation split
# The real images have about four times as many pixels a side; they differ in size like these.
SIZES = ((93, 310), (92, 306), (94, 309), (94, 310))
# (type, distance in metres along the camera's axis) of each object, and the class of the nearest vehicle.
SCENES: tuple[tuple[tuple[tuple[str, float], ...], int], ...] = (
    ((("Car", 5.5),), 0),
    ((("Car", 8.0),), 0),
    ((("Van", 8.01),), 1),
    ((("Truck", 20.0),), 1),
    ((("Car", 20.01),), 2),
    ((("Car", -1.2),), 0),
    ((), 3),
    ((("Pedestrian", 3.0), ("Cyclist", 4.0)), 3),
    ((("Tram", 2.0), ("Van", 15.0)), 1),
    ((("Person_sitting", 1.0), ("Car", 60.0)), 2),
    ((("Misc", 6.0), ("Truck", 25.0), ("Pedestrian", 7.0)), 2),
    ((("Car", 40.0), ("Car", 7.99), ("Van", 12.0)), 0),
)


def make(places: Places, seed: int = 0, broken: int | None = None) -> Truth:
    """`broken` is the number of a picture whose file is none."""
    rng = np.random.default_rng(seed)
    names = [f"2011_09_26_drive_{number:04d}_sync" for number in rng.choice(200, VIDEOS, replace=False)]
    frames = [(name, frame) for name in names for frame in range(rng.integers(1, 8))]
    lines = rng.permutation(len(frames))
    split_of = _splits(names)
    images, labels = {}, {}
    truth: Truth = {"train": [], "validation": [], "test": []}
    for index, line in enumerate(lines):
        # One picture has the real size.
        pixels = drawn(rng, *((375, 1242) if index == 0 else SIZES[rng.integers(len(SIZES))]))
        objects, nearest = SCENES[index % len(SCENES)]
        images[f"training/image_2/{index:06d}.png"] = b"no picture" if index == broken else encoded(pixels)
        labels[f"training/label_2/{index:06d}.txt"] = _label_file(rng, objects, *pixels.shape[:2])
        example = Example(f"{index:06d}.png", {"kitti-distance": nearest}, pixels)
        truth[split_of[frames[line][0]]].append(example)
    images["testing/image_2/000000.png"] = encoded(drawn(rng, *SIZES[0]))
    devkit = {
        "readme.txt": b"",
        # 1-based number of the line of each picture
        "mapping/train_rand.txt": ",".join(str(line + 1) for line in lines).encode(),
        "mapping/train_mapping.txt": "".join(f"2011_09_26 {name} {frame:010d}\n" for name, frame in frames).encode(),
    }
    for file, files in (("data_object_image_2", images), ("data_object_label_2", labels), ("devkit_object", devkit)):
        put(places, "kitti", f"{FOLDER}{file}.zip", zipped(files), f"{file}.zip")
    return truth


def _splits(videos: list[str]) -> dict[str, str]:
    """Video -> split: a tenth for test, then a tenth of all for validation, from the sorted names with seed 123."""
    random = np.random.RandomState(123)
    tenth = len(videos) // 10
    test = list(random.choice(sorted(videos), tenth, replace=False))
    validation = list(random.choice(sorted(set(videos) - set(test)), tenth, replace=False))
    return {name: "test" if name in test else "validation" if name in validation else "train" for name in videos}


def _label_file(rng: np.random.Generator, objects: tuple[tuple[str, float], ...], height: int, width: int) -> bytes:
    """A line for each object, 15 fields as in the devkit's readme, and one for a region nobody labelled."""
    lines = []
    for kind, distance in objects:
        left, right = sorted(rng.uniform(0, width, 2))
        top, bottom = sorted(rng.uniform(0, height, 2))
        box = f"{left:.2f} {top:.2f} {right:.2f} {bottom:.2f}"
        lines.append(f"{kind} 0.00 {rng.integers(4)} -0.20 {box} 1.50 1.60 3.70 0.50 1.60 {distance:.2f} 0.01")
    lines.append(f"DontCare -1 -1 -10 0.00 0.00 {width / 2:.2f} {height / 2:.2f} -1 -1 -1 -1000 -1000 -1000 -10")
    return "\n".join([*lines, ""]).encode()
