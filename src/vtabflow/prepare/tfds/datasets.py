"""The datasets that come through TFDS, one YAML file each in datasets/, and ImageNet's in ../imagenet/dataset.yaml.

A file has everything about a dataset: the TFDS builder, its splits and files, and its tasks. A TFDS task of your own is
one more file there (and a function in labels.py if its label is not a feature of TFDS). Builders, versions, counts and
checksums are those of TFDS 4.9.10: datasets/<builder>/<builder>_dataset_builder.py and checksums.tsv.
"""

from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from vtabflow.contracts.typed_json import from_json
from vtabflow.errors import UserError
from vtabflow.prepare.tfds.archives import Archive, ManualDownload

FOLDER = Path(__file__).parent / "datasets"
IMAGENET_FILE = Path(__file__).parents[1] / "imagenet/dataset.yaml"


@dataclass(frozen=True)
class TfdsTask:
    """A task on a dataset.

    Attributes:
        display: its name in tables and figures.
        group: natural, specialized, structured or own.
        label: the integer feature that is the class, or the name of a function in labels.RULES.
        features: the features that the function reads.
        vtab: its place among VTAB's 19 tasks, from 1; None for others.
    """

    display: str
    group: str
    classes: int
    label: str = "label"
    features: tuple[str, ...] = ()
    vtab: int | None = None


@dataclass(frozen=True)
class Dataset:
    """One TFDS builder at one configuration, and its tasks.

    Attributes:
        id: the name of the file.
        config: None where the builder has none.
        version: the one that TFDS generates.
        readable: other versions that an existing folder may hold.
        split: how the task's splits are cut, a name of splits.RULES; None for ImageNet.
        counts: examples of each TFDS split that the task uses.
        older_counts: those of records of the same version from an older TFDS, where they differ.
        image: the feature with the image.
        native: (height, width, channels) if all images have one size.
        scale: what pixels are multiplied by.
        id_feature: the feature that names an example; None: its integer key, recomputed from the hash order.
        id_with_class: the name is unique in its class alone: the id is "<TFDS' name of the class>/<name>".
        archives: what the builder downloads; without them TFDS downloads by itself.
        manual_downloads: what only a person can download.
        records_bytes: size of the TFDS records; 0 if it is not known.
        extracted_bytes: what TFDS unpacks to <downloads>/extracted before it writes the records, estimated.
        inner_extracted: archives in archives, by the names that TFDS unpacks them to.
    """

    id: str
    builder: str
    version: str
    counts: dict[str, int]
    tasks: dict[str, TfdsTask]
    config: str | None = None
    readable: tuple[str, ...] = ()
    split: str | None = None
    older_counts: dict[str, int] = field(default_factory=dict)
    image: str = "image"
    native: tuple[int, int, int] | None = None
    scale: int = 1
    id_feature: str | None = None
    id_with_class: bool = False
    archives: tuple[Archive, ...] = ()
    manual_downloads: tuple[ManualDownload, ...] = ()
    records_bytes: int = 0
    extracted_bytes: int = 0
    inner_extracted: tuple[str, ...] = ()

    def records(self, tfds: str | Path, version: str | None = None) -> Path:
        """Where TFDS has the records of a version below its folder `tfds`."""
        return Path(tfds, self.builder, *([self.config] if self.config else []), version or self.version)

    def prepared(self, tfds: str | Path, version: str | None = None) -> Path | None:
        """The folder of a version's records if they are complete: TFDS gives a folder its name last."""
        folder = self.records(tfds, version)
        return folder if (folder / "dataset_info.json").is_file() else None


@cache
def datasets() -> dict[str, Dataset]:
    """All datasets of tasks by id, VTAB's first and in VTAB's order.

    Raises:
        UserError: a file that does not describe a dataset.
    """
    found = [read(path, path.stem) for path in sorted(FOLDER.glob("*.yaml"))]
    return {each.id: each for each in sorted(found, key=_place)}


@cache
def imagenet() -> Dataset:
    """The upstream dataset, which is prepared by vtabflow.prepare.imagenet."""
    return read(IMAGENET_FILE, "imagenet")


def dataset_of(name: str) -> Dataset:
    """The dataset of an id, ImageNet as well."""
    return imagenet() if name == imagenet().id else datasets()[name]


def read(path: Path, name: str) -> Dataset:
    """The dataset that a YAML file describes.

    Raises:
        UserError: the file cannot be read, or a field is missing, unknown or of another type.
    """
    try:
        # The loader in C takes a tenth of the time, and every command plans the study.
        content: Any = yaml.load(path.read_text("utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"{path} cannot be read ({error}): correct it") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} should hold the fields of a dataset: cifar100.yaml next to it shows them")
    try:
        return from_json(Dataset, {"id": name, **content}, str(path))
    except UserError as error:
        raise UserError(f"{str(error).partition(';')[0]}: correct it; cifar100.yaml shows the form") from error


def _place(dataset: Dataset) -> tuple[float, str]:
    return min((task.vtab or float("inf") for task in dataset.tasks.values()), default=float("inf")), dataset.id
