"""The study: params.yaml (or studies/<name>.yaml), checked on load. Imports nothing heavy."""

import difflib
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from vtabflow import catalogue
from vtabflow.errors import UserError
from vtabflow.networks.table import NETWORKS
from vtabflow.prepare.tasks import UPSTREAM_STANDIN, VTAB_IDS, Task, standins

Id = Annotated[str, Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$", max_length=60)]
Rate = Annotated[float, Field(gt=0, le=1e6)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1, le=10**9, strict=True)]
Seed = Annotated[int, Field(ge=0, lt=2**31, strict=True)]
Precision = Literal["auto", "float32", "bfloat16"]
Resize = Literal["legacy", "antialias"]


class Group(BaseModel):
    """A group of settings. A key that it does not know is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Procedural(Group):
    """How many images are drawn for each stand-in, and for the upstream set."""

    seed: Seed = 0
    train: Annotated[int, Field(ge=800)] = 1600
    val: Annotated[int, Field(ge=200)] = 400
    test: Count = 500
    upstream: Count = 8000


class Folder(Group):
    """A folder or zip of `<class>/<image>` as a task or an upstream set."""

    path: str
    display: str | None = None
    group: Literal["natural", "specialized", "structured", "own"] = "own"
    invalid: Literal["refuse", "skip"] = "refuse"


class Prepare(Group):
    image_size: Annotated[int, Field(ge=16, le=1024, strict=True)] = 32
    resize: Resize = "legacy"
    split_seed: Seed = 0
    split: tuple[Rate, Rate, Rate] = (0.6, 0.2, 0.2)
    procedural: Procedural = Procedural()
    folders: dict[Id, Folder] = {}

    @field_validator("split")
    @classmethod
    def _sums_to_one(cls, value: tuple[float, float, float]) -> tuple[float, float, float]:
        if abs(sum(value) - 1) > 1e-6:
            raise ValueError(f"the three fractions must sum to 1, not {sum(value):g}")
        return value


class Subset(Group):
    """The labelled part of the upstream set for methods that see few labels: a seeded draw of equally many images of
    each class, or the images listed in a file (one example id or file name a line).
    """

    fraction: Annotated[float, Field(gt=0, le=1)] = 0.1
    seed: Seed = 0
    file: str | None = None


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
        description="a run stops where a loss or the weights' norm is so many times what it was at the start",
    )
    subset: Subset = Subset()
    per_method: dict[Id, dict[str, Any]] = {}

    @field_validator("network")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in NETWORKS:
            raise ValueError(
                f"there is no network {value}{_nearest(value, NETWORKS)}; the networks are: {', '.join(NETWORKS)}"
            )
        return value


class Finetune(Schedule):
    evaluation: Literal["finetune", "linear"] = "finetune"
    learning_rates: Annotated[tuple[Rate, ...], Field(min_length=1)] = (0.1, 0.01)
    steps: Annotated[tuple[Count, ...], Field(min_length=1)] = (2500, 10000)
    batch: Count = 512

    @field_validator("learning_rates", "steps")
    @classmethod
    def _distinct(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if len(set(value)) != len(value):
            raise ValueError("a value stands twice in the sweep")
        return value


class Report(Group):
    title: str | None = None
    theme: Literal["light", "dark"] = "light"


class Run(Group):
    """How the work is cut into jobs. In no key: nothing is run again when it changes."""

    cells_per_job: Count = 8
    gpus_per_encoder: Count = 1


class Study(Group):
    """Methods x tasks x budgets x seeds, and all their settings."""

    study: Id
    methods: Annotated[tuple[Id, ...], Field(min_length=1)]
    tasks: Annotated[tuple[Id, ...], Field(min_length=1)]
    budgets: Annotated[tuple[Literal["1k", "full"], ...], Field(min_length=1)] = ("1k", "full")
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)] = (0,)
    upstream: Id = UPSTREAM_STANDIN
    prepare: Prepare = Prepare()
    pretrain: Pretrain = Pretrain()
    finetune: Finetune = Finetune()
    report: Report = Report()
    run: Run = Run()

    @model_validator(mode="after")
    def _hangs_together(self) -> "Study":
        for name in ("methods", "tasks", "budgets", "seeds"):
            values = getattr(self, name)
            twice = next((v for v in values if values.count(v) > 1), None)
            if twice is not None:
                raise ValueError(f"{name}: {twice} stands there twice")
        for folder in self.prepare.folders:
            if folder in VTAB_IDS or folder.endswith("-standin"):
                raise ValueError(
                    f"prepare.folders: {folder} is the name of a VTAB task or stand-in; give your folder another, such as my-{folder}"
                )
        methods = catalogue.methods()
        for method in self.methods:
            if method not in methods:
                raise ValueError(
                    f"methods: there is no method {method}{_nearest(method, methods)}; the methods are: {', '.join(methods)}"
                )
            self._fits(methods[method])
        for method in self.pretrain.per_method:
            if method not in methods:
                raise ValueError(f"pretrain.per_method: there is no method {method}{_nearest(method, methods)}")
            self.method_settings(method)
        for task in self.tasks:
            self.task(task)
        if self.upstream in self.tasks:
            raise ValueError(f"upstream: {self.upstream} is a task too; pre-training would see its test images")
        if self.upstream != UPSTREAM_STANDIN and self.upstream not in self.prepare.folders:
            known = [UPSTREAM_STANDIN, *self.prepare.folders]
            raise ValueError(
                f"upstream: there is no set {self.upstream}{_nearest(self.upstream, known)}; there are: {', '.join(known)}"
            )
        return self

    def _fits(self, method: catalogue.MethodInfo) -> None:
        """Refuse a batch or an image size that the method cannot work with, naming the key and the smallest that it can."""
        if not method.streams:
            return
        settings, own = self.method_settings(method.id), self.pretrain.per_method.get(method.id, {})
        given = f"pretrain.per_method.{method.id}"
        if settings["batch"] < method.smallest_batch:
            key = f"{given}.batch" if "batch" in own else "pretrain.batch"
            raise ValueError(f"{key} is {settings['batch']}: {method.id} needs at least {method.smallest_batch}")
        size = settings["image_size"]
        common = "prepare.image_size" if self.pretrain.image_size is None else "pretrain.image_size"
        key = f"{given}.image_size" if "image_size" in own else common
        advice = f"change it, or give the method a size of its own by {given}.image_size"
        if method.sizes and size not in method.sizes:
            sizes = ", ".join(map(str, method.sizes))
            raise ValueError(f"{key} is {size}: {method.id} works at {sizes} px; {advice}")
        if size < method.smallest_size:
            raise ValueError(f"{key} is {size}: {method.id} needs at least {method.smallest_size} px; {advice}")

    def task(self, name: str) -> Task:
        """The task of an id: a stand-in, or one of this study's folders."""
        if name in standins():
            return standins()[name]
        if name in self.prepare.folders:
            folder = self.prepare.folders[name]
            return Task(name, folder.display or name, folder.group, name, "folder")
        if name in VTAB_IDS:
            raise ValueError(
                f"tasks: the real VTAB dataset {name} cannot be prepared by this version; take the stand-in {name}-standin, "
                f"or your own copy of the images under prepare.folders with an id of its own"
            )
        known = [*standins(), *self.prepare.folders]
        raise ValueError(f"tasks: there is no task {name}{_nearest(name, known)}; the tasks are: {', '.join(known)}")

    def network(self, method: str) -> str:
        """The network of one method: its own in per_method, or what stands for the study's with this method."""
        given = self.pretrain.per_method.get(method, {})
        return given.get("network") or catalogue.methods()[method].network(self.pretrain.network)

    def method_settings(self, method: str) -> dict[str, Any]:
        """The settings of one method's pre-training: the study's, the method's own word over them, params.yaml's per_method over both."""
        info = catalogue.methods()[method]
        common = self.pretrain.model_dump(exclude={"network", "seed", "subset", "per_method"})
        given = self.pretrain.per_method.get(method, {})
        known = {**common, **info.settings, "network": None}
        for key, value in given.items():
            place = f"pretrain.per_method.{method}.{key}"
            if key == "network" and value not in NETWORKS:
                raise ValueError(
                    f"{place}: there is no network {value}{_nearest(value, NETWORKS)}; the networks are: {', '.join(NETWORKS)}"
                )
            if key not in known:
                raise ValueError(
                    f"{place}: {method} has no setting {key}{_nearest(key, known)}; it has: {', '.join(sorted(known))}"
                )
            if key in info.settings and not _same_kind(value, info.settings[key]):
                raise ValueError(f"{place}: {value!r} should be of the kind of its default {info.settings[key]!r}")
            low, high = info.ranges.get(key, (None, None))
            if low is not None and not low <= value <= high:
                raise ValueError(f"{place} is {value!r}: it should be from {low:g} to {high:g}")
        common_given = {key: value for key, value in {**common, **info.defaults, **given}.items() if key in common}
        try:
            checked = Pretrain(**common_given).model_dump(exclude={"network", "seed", "subset", "per_method"})
        except ValidationError as error:
            first = error.errors()[0]
            raise ValueError(
                f"pretrain.per_method.{method}.{'.'.join(map(str, first['loc']))}: {first['msg']}"
            ) from error
        own = {key: given.get(key, default) for key, default in info.settings.items()}
        return {**checked, **own, "image_size": checked["image_size"] or self.prepare.image_size}


def _same_kind(value: Any, default: Any) -> bool:
    if isinstance(default, bool) or isinstance(value, bool):
        return isinstance(value, bool) and isinstance(default, bool)
    if isinstance(default, float):
        return isinstance(value, (int, float))
    if isinstance(default, (list, tuple)):
        return isinstance(value, (list, tuple)) and all(_same_kind(v, default[0]) for v in value if default)
    return isinstance(value, type(default))


def _nearest(name: str, known: Any) -> str:
    near = difflib.get_close_matches(str(name), list(known), n=1, cutoff=0.5)
    return f" (did you mean {near[0]}?)" if near else ""


class _UniqueKeys(yaml.SafeLoader):
    """YAML in which a key that stands twice is an error instead of a silent loss of the first."""


def _mapping(loader: _UniqueKeys, node: yaml.MappingNode) -> dict[Any, Any]:
    keys = [loader.construct_object(key) for key, _ in node.value]
    for index, key in enumerate(keys):
        if key in keys[:index]:
            raise yaml.constructor.ConstructorError(None, None, f"the key {key} stands twice", node.start_mark)
    return loader.construct_mapping(node, deep=True)


_UniqueKeys.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def load(path: Path | str = "params.yaml") -> Study:
    """Read and check a study.

    Raises:
        UserError: one sentence that names the file and the key, with the nearest right name where a name is wrong.
    """
    path = Path(path)
    try:
        raw = yaml.load(path.read_text(), Loader=_UniqueKeys)  # noqa: S506 - a SafeLoader
    except FileNotFoundError as error:
        raise UserError(
            f"there is no study file {path}; params.yaml and studies/<name>.yaml are study files"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(raw, dict):
        raise UserError(f"{path} should hold keys such as study, methods and tasks; params.yaml shows the form")
    try:
        return Study.model_validate(raw)
    except ValidationError as error:
        raise UserError(f"{path}: {_sentence(error)}") from error


def _sentence(error: ValidationError) -> str:
    """The first error of a study as one sentence."""
    # A misspelt key often leaves another missing: the misspelling is what to say.
    first = min(error.errors(), key=lambda found: found["type"] != "extra_forbidden")
    place = ".".join(str(part) for part in first["loc"])
    others = f" ({error.error_count() - 1} more errors follow)" if error.error_count() > 1 else ""
    if first["type"] == "extra_forbidden":
        known = _fields_at(first["loc"][:-1])
        return f"unknown key {place}{_nearest(str(first['loc'][-1]), known)}; the keys there are: {', '.join(known)}{others}"
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "missing":
        return f"the key {place} is missing{others}"
    if first["type"] == "value_error":
        return f"{place + ': ' if place else ''}{message}{others}"
    return f"{place} is {first['input']!r}: {message[0].lower()}{message[1:]}{others}"


def _fields_at(loc: tuple[int | str, ...]) -> list[str]:
    """The keys that the schema has at a place such as ("finetune",) or ("prepare", "folders", "cats")."""
    model: type[BaseModel] = Study
    for part in loc:
        if model is Prepare and part == "folders":
            model = Folder
        elif isinstance(part, str) and part in model.model_fields:
            annotation = model.model_fields[part].annotation
            if isinstance(annotation, type) and issubclass(annotation, BaseModel):
                model = annotation
    return list(model.model_fields)
