"""What goes into each step: a spec says all that a job needs to know, and is frozen to JSON before the job starts.

`results/specs/<step>/<key>.json` holds one spec. `identity` is what its key digests, kept for the reader; nothing else
of a spec is in the key. Reading these files needs neither torch nor pydantic.
"""

from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

Budget = Literal["1k", "full"]
Rows = Literal["all", "1k"]

# ---- stores


@dataclass(frozen=True)
class ImageSpec:
    """How images are kept: squares of `size` pixels; `numbers` is the dtype of the arrays."""

    size: int
    resize: Literal["legacy", "antialias"]
    numbers: Literal["uint8", "float32"] = "uint8"


@dataclass(frozen=True)
class PackedImageSpec:
    """Images kept as JPEG files. Longer sides than `side` pixels (None: none) are shortened at JPEG `quality`."""

    side: int | None
    quality: int | None
    form: Literal["packed"] = "packed"


@dataclass(frozen=True)
class SplitFractions:
    """How a folder without splits is cut: fractions of train, val and test, and the seed of the draw."""

    seed: int
    fractions: tuple[float, float, float]


@dataclass(frozen=True)
class StandinSettings:
    """A renderer's module in vtabflow/standins, the seed, and the number of images of each split."""

    module: str
    seed: int
    counts: dict[str, int]


@dataclass(frozen=True)
class FolderLayout:
    """How the files of a folder become examples, where that is not left to the folder itself.

    Attributes:
        splits: train, val, test -> the name of its folder, or of the value in the split column of a table.
        labels: files of the folder that list the examples and their classes.
        groups: a file that lists examples and their groups; the examples of a group stay in one split.
        group_pattern: a regular expression; what its first group matches in an example's name is the example's group.
        min_per_class: classes with fewer images in train are left out; None: too small a class is an error.
    """

    splits: dict[str, str] = field(default_factory=dict)
    labels: tuple[str, ...] = ()
    groups: str | None = None
    group_pattern: str | None = None
    min_per_class: int | None = None


@dataclass(frozen=True)
class FolderDecoding:
    """How the image files of a folder are read.

    Attributes:
        near_copies: keep images that look the same (resized, re-encoded) in one split.
        range: the values of 16-bit images that become black and white; None: 0 and 65,535.
        truncated: whether a file that is cut off at its end gives the image as far as it goes.
        max_pixels: refuse larger images; None: Pillow's own limit.
    """

    near_copies: bool = False
    range: tuple[int, int] | None = None
    truncated: bool = False
    max_pixels: int | None = None


# Small datasets of which lossy copies are passed on as folders: what a folder may be declared to be a copy of.
Original = Literal["cifar10", "cifar100", "svhn", "dsprites", "smallnorb", "eurosat", "patch-camelyon"]


@dataclass(frozen=True)
class FolderSettings:
    """A folder or archive of images. `of`: the dataset that it is declared to be a copy of; in no key."""

    path: str
    invalid: Literal["refuse", "skip", "skip-task"]
    split: SplitFractions
    role: Literal["task", "upstream"]
    layout: FolderLayout = FolderLayout()
    decoding: FolderDecoding = FolderDecoding()
    of: Original | None = None


@dataclass(frozen=True)
class TfdsSettings:
    """A TFDS builder at one version. `checksums`: address -> SHA-256 of archives that were released again."""

    builder: str
    config: str | None
    version: str
    checksums: dict[str, str]
    counts: Literal["official", "any"]


@dataclass(frozen=True)
class ImagenetSettings:
    """ImageNet through TFDS' tars or from a tree of <wnid>/<image>."""

    origin: Literal["tree", "tfds"]
    version: str
    counts: Literal["official", "any"]


@dataclass(frozen=True)
class Places:
    """Where records, archives and manual downloads lie on this machine. In no key and in no manifest."""

    tfds: str
    downloads: str
    manual: str
    checksums: str | None
    mirrors: dict[str, str]
    tree: str | None = None

    def below(self, root: Path | str) -> "Places":
        """The same places for a process that runs elsewhere: relative paths start at `root`."""
        start, checksums, tree = Path(root), self.checksums, self.tree
        return replace(
            self,
            tfds=str(start / self.tfds),
            downloads=str(start / self.downloads),
            manual=str(start / self.manual),
            checksums=None if checksums is None else str(start / checksums),
            tree=None if tree is None else str(start / tree),
        )


@dataclass(frozen=True)
class Fingerprint:
    """Digests of the images and labels of a folder when it was planned."""

    images: str
    labels: str


@dataclass(frozen=True)
class StoreSpec:
    """A store to prepare: one dataset at one image setting.

    `identity`: part ("images", "labels", "1k", "full") -> digest.
    """

    key: str
    dataset: str
    folder: str
    receipt: str
    manifest: str
    source: Literal["procedural", "folder", "tfds", "imagenet"]
    settings: StandinSettings | FolderSettings | TfdsSettings | ImagenetSettings
    image: ImageSpec | PackedImageSpec
    rows: Rows
    tasks: tuple[str, ...]
    classes: dict[str, int]
    identity: dict[str, str]
    code: str
    fingerprint: Fingerprint | None = None
    places: Places | None = None
    step: Literal["prepare"] = "prepare"
    version: int = 1


# ---- encoders


@dataclass(frozen=True)
class SubsetDraw:
    """A seeded draw of `fraction` of the upstream's labelled images, equally many of each class."""

    fraction: float
    seed: int


@dataclass(frozen=True)
class SubsetFile:
    """A file that lists the labelled images, one a line, with the SHA-256 that it had when the study was planned."""

    file: str
    sha256: str


@dataclass(frozen=True)
class UpstreamSpec:
    """The store that an encoder is trained on. `size`: pixels at which a packed store's images are decoded."""

    dataset: str
    folder: str
    receipt: str
    task: str
    classes: int
    subset: SubsetDraw | SubsetFile | None = None
    size: int | None = None


@dataclass(frozen=True)
class PretrainSettings:
    """The resolved settings of one method's training. `method` holds the method's own, by name.

    `learning_rate` is None where each parameter group has a rate of its own (the method's `<group>_rate` settings).
    """

    steps: int
    batch: int
    optimiser: str
    learning_rate: float | None
    momentum: float
    weight_decay: float
    warmup: float
    decay: str
    decay_at: tuple[float, ...]
    decay_factor: float
    precision: str
    divergence: float
    method: dict[str, Any] = field(default_factory=dict)

    def flat(self) -> dict[str, Any]:
        """All settings in one dict, as the method's class gets them; without a learning rate where there is none."""
        common = {entry.name: getattr(self, entry.name) for entry in fields(self) if entry.name != "method"}
        return {name: value for name, value in common.items() if value is not None} | self.method


@dataclass(frozen=True)
class EncoderCode:
    """Code identities of the method (training included) and of the network."""

    method: str
    network: str


@dataclass(frozen=True)
class EncoderSpec:
    """An encoder to make. `settings` and `upstream` are None where the network is only initialised ("random").

    `portable`: made by runtime/devices.py:use_portable_numerics.
    """

    key: str
    method: str
    display: str
    family: str
    source: Literal["trained", "random", "imported"]
    folder: str
    receipt: str
    scratch: str
    network: str
    image_size: int
    seed: int
    gpus: int
    settings: PretrainSettings | None
    upstream: UpstreamSpec | None
    identity: dict[str, Any]
    code: EncoderCode
    portable: bool = False
    step: Literal["pretrain"] = "pretrain"
    version: int = 1


# ---- cells


@dataclass(frozen=True)
class FinetuneSettings:
    """The sweep (learning_rates x steps) and what its trainings share. `decay_at`, `warmup`: fractions of the steps."""

    evaluation: Literal["finetune", "linear"]
    learning_rates: tuple[float, ...]
    steps: tuple[int, ...]
    batch: int
    momentum: float
    weight_decay: float
    warmup: float
    decay_at: tuple[float, ...]
    decay_factor: float
    precision: Literal["auto", "float32", "bfloat16"]
    resize: Literal["legacy", "antialias"]


@dataclass(frozen=True)
class EncoderRef:
    """Where the encoder of a cell lies."""

    key: str
    folder: str
    receipt: str


@dataclass(frozen=True)
class StoreRef:
    """Where the store of a cell lies."""

    dataset: str
    key: str
    folder: str
    receipt: str


@dataclass(frozen=True)
class CellSpec:
    """One method on one task at one budget with one seed. `portable` as in EncoderSpec."""

    key: str
    method: str
    task: str
    budget: Budget
    seed: int
    source: str
    classes: int
    image_size: int
    folder: str
    scratch: str
    encoder: EncoderRef
    store: StoreRef
    settings: FinetuneSettings
    identity: dict[str, Any]
    code: str
    portable: bool = False
    version: int = 1

    @property
    def name(self) -> str:
        """How messages call the cell: method/task/budget/seed."""
        return f"{self.method}/{self.task}/{self.budget}/{self.seed}"


@dataclass(frozen=True)
class JobSpec:
    """The cells that one finetune job makes in one process."""

    key: str
    receipt: str
    cells: tuple[CellSpec, ...]
    step: Literal["finetune"] = "finetune"
    version: int = 1

    @property
    def portable(self) -> bool:
        """Whether its cells are portable: all are, or none."""
        return any(cell.portable for cell in self.cells)


# ---- the page


@dataclass(frozen=True)
class PageMethod:
    """A row of the page."""

    id: str
    display: str
    family: str
    network: str


@dataclass(frozen=True)
class PageTask:
    """A column of the page. `manifest`: the file that says what the task's images are (None: not known)."""

    id: str
    display: str
    group: str
    source: str
    dataset: str
    classes: int
    manifest: str | None = None


@dataclass(frozen=True)
class PageUpstream:
    """What the encoders were pre-trained on; `manifest` as in PageTask, None also where nothing is pre-trained."""

    id: str
    display: str
    source: str
    manifest: str | None = None


@dataclass(frozen=True)
class LeftOut:
    """Display names of what the page mentions as missing: methods and tasks of the study, and VTAB's other tasks.

    `cut`: the datasets may be subsets. `reasons`: display name -> why it is left out, where it is not that its images
    have to be downloaded manually.
    """

    methods: tuple[str, ...]
    tasks: tuple[str, ...]
    vtab: tuple[str, ...]
    cut: bool
    reasons: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ReportSettings:
    """Title (None: the project's own) and theme of the figures."""

    title: str | None
    theme: Literal["light", "dark"]


@dataclass(frozen=True)
class PageCell:
    """A cell as the page refers to it; `encoder` is the encoder's folder."""

    key: str
    method: str
    task: str
    budget: Budget
    seed: int
    folder: str
    encoder: str


@dataclass(frozen=True)
class PageSpec:
    """The page of a study."""

    key: str
    folder: str
    receipt: str
    study: str
    methods: tuple[PageMethod, ...]
    tasks: tuple[PageTask, ...]
    budgets: tuple[Budget, ...]
    seeds: tuple[int, ...]
    upstream: PageUpstream
    network: str
    evaluation: str
    left_out: LeftOut
    settings: ReportSettings
    code: str
    cells: tuple[PageCell, ...]
    step: Literal["report"] = "report"
    version: int = 1


Spec = StoreSpec | EncoderSpec | JobSpec | PageSpec
SPECS: dict[str, type[StoreSpec] | type[EncoderSpec] | type[JobSpec] | type[PageSpec]] = {
    "prepare": StoreSpec,
    "pretrain": EncoderSpec,
    "finetune": JobSpec,
    "report": PageSpec,
}
