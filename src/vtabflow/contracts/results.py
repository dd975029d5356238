"""What comes out of each step: a small JSON file, written last. Where it exists, the result is whole.

Files that were written before the formats had a `version` field are read as version 1.
"""

from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Receipt:
    """What Snakemake looks for: the result's key and folder, and whether this job made it or found it."""

    key: str
    folder: str
    made: bool


# ---- prepare


@dataclass(frozen=True)
class SkippedFile:
    """A file that gave no image, with the reason."""

    file: str
    reason: str


@dataclass(frozen=True)
class Remark:
    """Something that a reader of the results has to know of a dataset, such as test images that are in train too.

    Attributes:
        kind: a short fixed name, such as "test-in-train".
        count: how many files, classes or images it is about.
        text: one sentence without a full stop, to be read after the name of the dataset.
        examples: names of files or classes, the first few.
    """

    kind: str
    count: int
    text: str
    examples: tuple[str, ...] = ()


@dataclass(frozen=True)
class Manifest:
    """manifest.json of a store. Mappings are by split, or by task and then split; `sha256` is by file name.

    `shape[split]` is (H, W, C); H and W are None in a packed store. `settings`, `image` and `spec` are those of the
    StoreSpec. The fields from `form` on are None, and not in the file, where the source has none: `form`, `oddities`
    (JPEGs and PNGs of unusual kind) and `shortened` (images made smaller) are of ImageNet, `splits` (TFDS' split
    expressions), `tfds_counts` and `archives` of TFDS, `layout` (one line: how a folder of images was understood) of
    folders, `remarks` of both.

    `archives`: address -> SHA-256 of the archives that TFDS' records were made from; None where that is not known.
    Remarks of TFDS: "archives-unknown", and "archives-foreign" where they are not those that TFDS has registered.
    """

    dataset: str
    source: str
    settings: dict[str, Any]
    image: dict[str, Any]
    rows: Literal["all", "1k"]
    counts: dict[str, int]
    shape: dict[str, tuple[int | None, ...]]
    classes: dict[str, int]
    class_names: dict[str, tuple[str, ...]] | None
    histogram: dict[str, dict[str, tuple[int, ...]]]
    sha256: dict[str, str]
    skipped: tuple[SkippedFile, ...]
    spec: dict[str, Any]
    form: Literal["packed"] | None = None
    oddities: dict[str, int] | None = None
    shortened: int | None = None
    splits: dict[str, str] | None = None
    tfds_counts: dict[str, int] | None = None
    archives: dict[str, str] | None = None
    layout: str | None = None
    remarks: tuple[Remark, ...] | None = None
    version: int = 1


@dataclass(frozen=True)
class StoreAudit:
    """What `vtabflow data audit` found of a store when it was made; beside the manifest, as <key>.audit.json.

    Attributes:
        key: the store's.
        mismatches: sentences; the store is not what it should be.
        remarks: sentences; no errors.
        jpeg: traces of JPEG: "none", "traces", "cannot be told", or "-" where that was not looked for.
    """

    key: str
    mismatches: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    jpeg: str = "-"
    version: int = 1


# ---- pretrain


@dataclass(frozen=True)
class EncoderInput:
    """The encoder's input: pixels x in [0, 1] become x * (high - low) + low, then (x - mean) / std.

    `standardise`: after that each image is shifted and scaled to mean 0 and standard deviation 1.
    """

    size: int
    low: float
    high: float
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    standardise: bool


@dataclass(frozen=True)
class Probe:
    """Accuracy of a linear probe on the upstream's own classes; `start` is that of the untrained network."""

    accuracy: float
    classes: int
    n_train: int
    n_test: int
    start: float | None = None


@dataclass(frozen=True)
class UsedSubset:
    """The labelled subset: how it was drawn or listed, the number of images, and the digest of their ids.

    `held_out`: how many images of the list were not used, because they are in the store's val split.
    """

    images: int
    digest: str
    fraction: float | None = None
    seed: int | None = None
    file: str | None = None
    sha256: str | None = None
    held_out: int | None = None


@dataclass(frozen=True)
class UsedUpstream:
    """What an encoder was trained on; `sha256` has the files of the store that were read."""

    dataset: str
    sha256: dict[str, str]
    subset: UsedSubset | None


@dataclass(frozen=True)
class EncoderCard:
    """card.json of an encoder.

    `seeded`: fine-tuning initialises the network with the cell's seed, and the weights of this encoder are an example.

    Images a second are over the training without its first steps; `curve` has the losses along the way.
    """

    method: str
    display: str
    family: str
    network: str
    features: int
    sha256: dict[str, str]
    parameters: int
    input: EncoderInput
    seeded: bool
    precision: str | None
    status: Literal["ok", "stopped", "failed"]
    reason: str | None
    losses: dict[str, dict[str, float]]
    curve: tuple[dict[str, Any], ...]
    seconds: float
    images_per_second: float | None
    resumed: int
    upstream: UsedUpstream | None
    probe: Probe | None
    peak_memory_bytes: int
    versions: dict[str, str]
    machine: dict[str, Any]
    spec: dict[str, Any]
    version: int = 1


# ---- finetune


@dataclass(frozen=True)
class TrialResult:
    """One setting of the sweep: trained on train, scored on val."""

    learning_rate: float
    steps: int
    val_accuracy: float | None
    train_loss: float | None
    seconds: float
    status: Literal["ok", "failed"]
    reason: str | None


@dataclass(frozen=True)
class Selected:
    """The setting that was selected by validation accuracy; `train_loss` is of its last training, on train and val."""

    learning_rate: float
    steps: int
    val_accuracy: float
    train_loss: float | None = None


@dataclass(frozen=True)
class PassedOver:
    """A better setting whose training on train and val failed."""

    learning_rate: float
    steps: int
    reason: str


@dataclass(frozen=True)
class Score:
    """score.json of a cell. `accuracy` is a fraction of the n_test test examples; None if the cell failed.

    `balanced_accuracy`: the mean over classes of the share of their test examples that are right; classes without test
    examples do not count. None in files that are older than the field.
    """

    key: str
    method: str
    task: str
    budget: Literal["1k", "full"]
    seed: int
    source: str
    evaluation: str
    status: Literal["ok", "failed"]
    reason: str | None
    selected: Selected | None
    accuracy: float | None
    images_per_second: float | None
    outside_network: float | None
    peak_memory_bytes: int | None
    trials: tuple[TrialResult, ...]
    passed_over: tuple[PassedOver, ...]
    n_train: int
    n_val: int
    n_trainval: int
    n_test: int
    seconds: float
    precision: str
    spec: dict[str, Any]
    versions: dict[str, str]
    machine: dict[str, Any]
    balanced_accuracy: float | None = None
    version: int = 1


# ---- report


@dataclass(frozen=True)
class CellCounts:
    """How many cells of a page are ok, failed and missing."""

    ok: int
    failed: int
    missing: int


@dataclass(frozen=True)
class PageCard:
    """card.json of a page. `state` digests what the page shows of its cells."""

    key: str
    study: str
    cells: CellCounts
    complete: bool
    state: str
    figures: tuple[str, ...]
    spec: dict[str, Any]
    version: int = 1
