"""The 16 datasets behind VTAB's 19 tasks, as TFDS 4.9.10 has them: builder, version, splits, counts, images and ids.

Source: protocol.md sections 1.1 to 1.4 and the builders' own source.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Dataset:
    """One TFDS builder at one configuration. Splits are TFDS' own (`counts`), not yet those of the task."""

    id: str
    builder: str
    config: str | None  # None where the builder has none
    version: str  # the one that TFDS 4.9.10 can generate
    readable: tuple[str, ...]  # others that an existing folder may hold
    split_rule: str  # a name of splits.RULES
    counts: dict[str, int]  # examples of each TFDS split that the task uses
    image: str  # feature key
    native: tuple[int, int, int] | None  # (height, width, channels) if all images have one size
    id_feature: str | None  # the feature that names an example; None: its integer key, recomputed from the hash order
    by_hand: bool = False  # a person has to fetch it
    older_counts: Mapping[str, int] = field(default_factory=dict)  # of records of the same version from an older TFDS
    id_with_class: bool = False  # the name is unique in its class alone: the id is "<TFDS' name of the class>/<name>"


_ALL = (
    Dataset(
        id="caltech101",
        builder="caltech101",
        config=None,
        version="3.0.2",
        readable=("3.0.1", "3.0.0"),
        split_rule="90/10",
        counts={"train": 3_060, "test": 6_084},
        image="image",
        native=None,
        id_feature="image/file_name",
        id_with_class=True,
    ),
    Dataset(
        id="cifar100",
        builder="cifar100",
        config=None,
        version="3.0.2",
        readable=(),
        split_rule="90/10",
        counts={"train": 50_000, "test": 10_000},
        image="image",
        native=(32, 32, 3),
        id_feature="id",
    ),
    Dataset(
        id="dtd",
        builder="dtd",
        config=None,
        version="3.0.1",
        readable=(),
        split_rule="given",
        counts={"train": 1_880, "validation": 1_880, "test": 1_880},
        image="image",
        native=None,
        id_feature="file_name",
    ),
    Dataset(
        id="oxford-flowers102",
        builder="oxford_flowers102",
        config=None,
        version="2.1.1",
        readable=(),
        split_rule="given",
        counts={"train": 1_020, "validation": 1_020, "test": 6_149},
        image="image",
        native=None,
        id_feature="file_name",
    ),
    Dataset(
        id="oxford-iiit-pet",
        builder="oxford_iiit_pet",
        config=None,
        version="4.0.0",
        readable=("3.2.0",),  # 4.0.0 re-encodes 12 bad files; counts and classes are the same
        split_rule="80/20",
        counts={"train": 3_680, "test": 3_669},
        image="image",
        native=None,
        id_feature="file_name",
    ),
    Dataset(
        id="sun397",
        builder="sun397",
        config="tfds",
        version="4.0.0",
        readable=(),
        split_rule="given",
        # TFDS 4.9.10 leaves out a broken image that older ones kept under the same version (protocol.md section 1.4).
        counts={"train": 76_127, "validation": 10_875, "test": 21_750},
        older_counts={"train": 76_128},
        image="image",
        native=None,
        id_feature="file_name",
    ),
    Dataset(
        id="svhn",
        builder="svhn_cropped",
        config=None,
        version="3.1.0",
        readable=("3.0.0",),  # without `id`: there the ids are the integer keys
        split_rule="90/10",
        counts={"train": 73_257, "test": 26_032},
        image="image",
        native=(32, 32, 3),
        id_feature="id",
    ),
    Dataset(
        id="patch-camelyon",
        builder="patch_camelyon",
        config=None,
        version="2.0.0",
        readable=(),
        split_rule="given",
        counts={"train": 262_144, "validation": 32_768, "test": 32_768},
        image="image",
        native=(96, 96, 3),
        id_feature="id",
    ),
    Dataset(
        id="eurosat",
        builder="eurosat",
        config="rgb",
        version="2.0.0",
        readable=(),
        split_rule="60/20/20",
        counts={"train": 27_000},
        image="image",
        native=(64, 64, 3),
        id_feature="filename",
    ),
    Dataset(
        id="resisc45",
        builder="resisc45",
        config=None,
        version="3.0.0",
        readable=(),
        split_rule="60/20/20",
        counts={"train": 31_500},
        image="image",
        native=(256, 256, 3),
        id_feature="filename",
        by_hand=True,
    ),
    Dataset(
        id="diabetic-retinopathy",
        builder="diabetic_retinopathy_detection",
        config="btgraham-300",
        version="3.0.0",
        readable=(),
        split_rule="given",
        counts={"train": 35_126, "validation": 10_906, "test": 42_670},
        image="image",
        native=None,
        id_feature="name",
        by_hand=True,
    ),
    Dataset(
        id="clevr",
        builder="clevr",
        config=None,
        version="3.1.0",
        readable=("3.0.0",),
        split_rule="90/10, validation as test",
        counts={"train": 70_000, "validation": 15_000},
        image="image",
        native=(320, 480, 3),
        id_feature="file_name",
    ),
    Dataset(
        id="dmlab",
        builder="dmlab",
        config=None,
        version="2.0.1",
        readable=(),
        split_rule="given",
        counts={"train": 65_550, "validation": 22_628, "test": 22_735},
        image="image",
        native=(360, 480, 3),
        id_feature="filename",
    ),
    Dataset(
        id="kitti",
        builder="kitti",
        config=None,
        version="3.3.0",
        readable=("3.2.0", "3.1.0"),
        split_rule="given",
        counts={"train": 6_347, "validation": 423, "test": 711},
        image="image",
        native=None,
        id_feature="image/file_name",
    ),
    Dataset(
        id="dsprites",
        builder="dsprites",
        config=None,
        version="2.0.0",
        readable=("2.1.0",),
        split_rule="80/10/10",
        counts={"train": 737_280},
        image="image",
        native=(64, 64, 1),
        id_feature=None,
    ),
    Dataset(
        id="smallnorb",
        builder="smallnorb",
        config=None,
        version="2.0.0",
        readable=("2.1.0",),
        split_rule="given train, halves of test",
        counts={"train": 24_300, "test": 24_300},
        image="image",
        native=(96, 96, 1),
        id_feature=None,
    ),
)
DATASETS: dict[str, Dataset] = {dataset.id: dataset for dataset in _ALL}
