"""Cuts of the real EuroSAT and Caltech101, packed into the official layout: zips of <class>/<image>.jpg in a folder.

The folder is ../shared/data beside the project, or VTABFLOW_TEST_DATA; without it there is nothing to make.
"""

import os
import zipfile
from pathlib import Path

from miniatures import caltech101, eurosat
from miniatures.drawing import decoded, zipped
from miniatures.place import Example, Places, Truth, put

DATA = Path(os.environ.get("VTABFLOW_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))
DATASETS = ("caltech101", "eurosat")


def is_here(dataset: str) -> bool:
    return (DATA / f"{dataset}.zip").exists()


def make(dataset: str, places: Places) -> Truth:
    with zipfile.ZipFile(DATA / f"{dataset}.zip") as archive:
        files = {name: archive.read(name) for name in archive.namelist() if name.endswith(".jpg")}
    return _eurosat(places, files) if dataset == "eurosat" else _caltech101(places, files)


def _eurosat(places: Places, files: dict[str, bytes]) -> Truth:
    examples = []
    for path, data in files.items():
        folder, file = path.split("/")
        label = eurosat.CLASSES.index(folder)
        examples.append(Example(file, {"eurosat": label}, decoded(data), key=f"{folder}_{file}"))
    put(places, "eurosat", eurosat.URL, zipped({f"2750/{path}": data for path, data in files.items()}), "EuroSAT.zip")
    return {"train": examples}


def _caltech101(places: Places, files: dict[str, bytes]) -> Truth:
    """The cut has 20 images of a class and the builder wants more than 30: twelve lie there under a second name too."""
    twice: dict[str, dict[str, bytes]] = {}
    for path, data in files.items():
        folder, file = path.split("/")
        images = twice.setdefault(folder, {})
        images[file] = data
        if len(images) <= 24:
            images[file.replace("image_", "image_9")] = data
    return caltech101.pack(places, twice)
