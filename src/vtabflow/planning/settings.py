"""The groups of settings of a study: params.yaml's prepare, pretrain, finetune, report and run, with their defaults."""

import os
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator

from vtabflow.contracts.protocol import ROWS_1K
from vtabflow.contracts.specs import Original
from vtabflow.errors import nearest
from vtabflow.networks.registry import NETWORKS
from vtabflow.prepare.tfds.archives import is_address


def _expand_home(value: str) -> str:
    path = os.path.expanduser(value)
    if path.startswith("~"):
        raise ValueError(f"{value} begins with the home of an unknown user; write an absolute path")
    return path


def _address(value: str) -> str:
    if not is_address(value):
        raise ValueError(
            f"{value} is not an http, https or file address; write one such as https://mirror.example.org/"
        )
    return value


Place = Annotated[str, AfterValidator(_expand_home)]  # a path; ~ is the home of whoever plans the study
Address = Annotated[str, AfterValidator(_address)]
Id = Annotated[str, Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$", max_length=60)]
Rate = Annotated[float, Field(gt=0, le=1e6)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1, le=10**9, strict=True)]
Seed = Annotated[int, Field(ge=0, lt=2**31, strict=True)]
Precision = Literal["auto", "float32", "bfloat16"]
Resize = Literal["legacy", "antialias"]


class Group(BaseModel):
    """A group of settings. An unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Procedural(Group):
    """How many images are drawn for each stand-in, and for the upstream set."""

    seed: Seed = 0
    train: Annotated[int, Field(ge=ROWS_1K["train"])] = 1600
    val: Annotated[int, Field(ge=ROWS_1K["val"])] = 400
    test: Count = 500
    upstream: Count = 8000


class Splits(Group):
    """The names that a folder's own splits have: of folders, or of values in the split column of a table."""

    train: str
    val: str | None = None
    test: str | None = None


class Folder(Group):
    """A folder or archive of images as a task or an upstream set."""

    path: Place
    display: str | None = None
    group: Literal["natural", "specialized", "structured", "own"] = "own"
    invalid: Literal["refuse", "skip", "skip-task"] = Field(
        default="refuse", description="files that give no image: an error, left out and listed, or the task left out"
    )
    split: Splits | None = Field(
        default=None, description="the names of the folder's own splits, where they are unusual"
    )
    labels: str | tuple[str, ...] | None = Field(
        default=None, description="the files below path that list the images and their classes; found where left out"
    )
    groups: str | None = Field(
        default=None, description="a file below path that lists images and groups; a group stays in one split"
    )
    group_pattern: str | None = Field(
        default=None, description="a regular expression for the names of files; what ( ) matches is the group"
    )
    min_per_class: Count | None = Field(default=None, description="leave out classes with fewer images in train")
    near_copies: bool = Field(default=False, description="keep images that look the same in one split")
    range: tuple[Seed, Seed] | None = Field(
        default=None, description="the values of 16-bit images that become black and white, such as [0, 4095]"
    )
    truncated: bool = Field(default=False, description="take images that are cut off at their end")
    max_pixels: Count | None = Field(default=None, description="take images with up to so many pixels")
    of: Original | None = Field(
        default=None, description="the dataset that this is a copy of, for `vtabflow data audit`; in no key"
    )


class Tfds(Group):
    """Where the real VTAB datasets come from and lie. In a key: `checksums`, `versions`, `counts: any`."""

    folder: Place = Field(default="data/tfds", description="TFDS records; a folder that has them is used as it is")
    downloads: Place = "data/downloads"
    manual: Place = Field(default="data/manual", description="manual downloads: see `vtabflow data plan`")
    mirrors: dict[str, Address] = Field(
        default={}, description="start of an address -> start of the one to try before it"
    )
    checksums: Place | None = Field(
        default=None, description='a JSON file {address: {"sha256", "size"}} for archives that were released again'
    )
    counts: Literal["official", "any"] = Field(
        default="official", description="refuse a dataset whose numbers of examples are not VTAB's, or take any"
    )
    versions: dict[Id, str] = Field(default={}, description="dataset -> another version, of an existing TFDS folder")
    absent: Literal["refuse", "leave-out"] = Field(
        default="refuse", description="what to do with a dataset whose manual download is missing"
    )


class Imagenet(Group):
    """ImageNet as the upstream set: through TFDS (see prepare.tfds), or from a tree of <wnid>/<image>, read-only."""

    tree: Place | None = None
    side: Annotated[int, Field(ge=64, le=4096, strict=True)] | None = Field(
        default=None, description="pixels: larger images are shortened to this longest side; none are where left out"
    )
    quality: Annotated[int, Field(ge=50, le=100, strict=True)] = 95
    drawn_at: Annotated[int, Field(ge=16, le=1024, strict=True)] = Field(
        default=256, description="pixels of the squares that methods cut their views from"
    )


class Prepare(Group):
    """How images are kept, and where they come from."""

    image_size: Annotated[int, Field(ge=16, le=1024, strict=True)] = 32
    resize: Resize = "legacy"
    numbers: Literal["uint8", "float32"] = Field(
        default="uint8", description="float32: resized images are kept unrounded, in four times the room"
    )
    split_seed: Seed = 0
    split: tuple[Rate, Rate, Rate] = (0.6, 0.2, 0.2)
    procedural: Procedural = Procedural()
    folders: dict[Id, Folder] = {}
    tfds: Tfds = Tfds()
    imagenet: Imagenet = Imagenet()

    @field_validator("split")
    @classmethod
    def _sums_to_one(cls, value: tuple[float, float, float]) -> tuple[float, float, float]:
        if abs(sum(value) - 1) > 1e-6:
            raise ValueError(f"the three fractions must sum to 1, not {sum(value):g}")
        return value


class Subset(Group):
    """The labelled part of the upstream set, for methods that see few labels.

    A seeded draw of equally many images of each class, or the images listed in a file (one example id or file name per
    line).
    """

    fraction: Annotated[float, Field(gt=0, le=1)] = 0.1
    seed: Seed = 0
    file: Place | None = None


def _increasing(value: tuple[float, ...]) -> tuple[float, ...]:
    if list(value) != sorted(set(value)):
        raise ValueError("the fractions of the schedule must increase")
    return value


class Schedule(Group):
    """What pre-training and fine-tuning share: SGD or Adam under a step decay."""

    batch: Count = 128
    momentum: Fraction = 0.9
    weight_decay: Annotated[float, Field(ge=0, le=10)] = 0.0
    warmup: Fraction = 0.0
    decay_at: tuple[Fraction, ...] = (1 / 3, 2 / 3)
    decay_factor: Annotated[float, Field(gt=0, le=1)] = 0.1
    precision: Precision = "auto"

    _order = field_validator("decay_at")(_increasing)


class Pretrain(Schedule):
    """How encoders are trained."""

    network: str = "resnet-small"
    seed: Seed = 0
    steps: Count = 1500
    image_size: Annotated[int, Field(ge=8, le=1024, strict=True)] | None = Field(
        default=None, description="pixels at which the methods train; prepare.image_size where left out"
    )
    optimiser: Literal["sgd", "adam", "adamw"] = "sgd"
    learning_rate: Rate = 0.1
    weight_decay: Annotated[float, Field(ge=0, le=10)] = 1e-4
    warmup: Fraction = 0.05
    decay: Literal["steps", "exponential", "cosine"] = "steps"
    decay_at: tuple[Fraction, ...] = (0.5, 0.8)
    divergence: Annotated[float, Field(gt=1, le=1e12)] = Field(
        default=100.0,
        description="a run stops when a loss or the norm of the weights is this many times its value at the start",
    )
    subset: Subset = Subset()
    per_method: dict[Id, dict[str, Any]] = {}

    @field_validator("network")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in NETWORKS:
            raise ValueError(
                f"there is no network {value}{nearest(value, NETWORKS)}; the networks are: {', '.join(NETWORKS)}"
            )
        return value


class Finetune(Schedule):
    """The sweep of a cell."""

    evaluation: Literal["finetune", "linear"] = "finetune"
    learning_rates: Annotated[tuple[Rate, ...], Field(min_length=1)] = (0.1, 0.01)
    steps: Annotated[tuple[Count, ...], Field(min_length=1)] = (2500, 10000)
    batch: Count = 512

    @field_validator("learning_rates", "steps")
    @classmethod
    def _distinct(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if len(set(value)) != len(value):
            raise ValueError("a value is given twice in the sweep")
        return value


class Report(Group):
    """The page."""

    title: str | None = None
    theme: Literal["light", "dark"] = "light"


class Run(Group):
    """How the work is divided into jobs. In no key: a change runs nothing again."""

    cells_per_job: Count = 8
    gpus_per_encoder: Count = 1
