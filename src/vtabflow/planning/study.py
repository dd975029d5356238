"""The study: params.yaml (or studies/<name>.yaml), checked on load. Imports nothing heavy."""

import math
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError, model_validator

from vtabflow.errors import UserError, nearest
from vtabflow.networks.registry import NETWORKS, smallest_batch
from vtabflow.planning import catalogue
from vtabflow.planning.settings import Finetune, Folder, Group, Id, Prepare, Pretrain, Report, Run, Seed
from vtabflow.planning.tasks import IMAGENET, UPSTREAM_STANDIN, Task, standins, tfds_tasks
from vtabflow.prepare.tfds.datasets import datasets


class Study(Group):
    """Methods x tasks x budgets x seeds, and all their settings."""

    study: Id
    methods: Annotated[tuple[Id, ...], Field(min_length=1)]
    tasks: Annotated[tuple[Id, ...], Field(min_length=1)]
    budgets: Annotated[tuple[Literal["1k", "full"], ...], Field(min_length=1)] = ("1k", "full")
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)] = (0,)
    upstream: Id = UPSTREAM_STANDIN
    portable: bool = Field(
        default=False,
        description="train on the processor, in one thread a job and with AVX2 alone: the same bits on any x86 machine",
    )
    prepare: Prepare = Prepare()
    pretrain: Pretrain = Pretrain()
    finetune: Finetune = Finetune()
    report: Report = Report()
    run: Run = Run()

    @model_validator(mode="after")
    def _check(self) -> "Study":
        for name in ("methods", "tasks", "budgets", "seeds"):
            values = getattr(self, name)
            twice = next((v for v in values if values.count(v) > 1), None)
            if twice is not None:
                raise ValueError(f"{name}: {twice} is given twice")
        self._check_folders()
        for dataset in self.prepare.tfds.versions:
            self._tfds_version(dataset)
        self._check_methods()
        for task in self.tasks:
            self.task(task)
        self._check_upstream()
        return self

    def _check_folders(self) -> None:
        for folder in self.prepare.folders:
            if folder in tfds_tasks() or folder == IMAGENET or folder.endswith("-standin"):
                raise ValueError(
                    f"prepare.folders: {folder} is the name of a VTAB task, a stand-in or an upstream set; "
                    f"give your folder another, such as my-{folder}"
                )

    def _check_methods(self) -> None:
        methods = catalogue.methods()
        for method in self.methods:
            if method not in methods:
                raise ValueError(
                    f"methods: there is no method {method}{nearest(method, methods)}; "
                    f"the methods are: {', '.join(methods)}"
                )
            self._fits(methods[method])
            self._fits_finetuning(methods[method])
        for method in self.pretrain.per_method:
            if method not in methods:
                raise ValueError(f"pretrain.per_method: there is no method {method}{nearest(method, methods)}")
            self.method_settings(method)

    def _check_upstream(self) -> None:
        if self.upstream in self.tasks:
            raise ValueError(f"upstream: {self.upstream} is a task too; pre-training would see its test images")
        known = [UPSTREAM_STANDIN, IMAGENET, *self.prepare.folders]
        if self.upstream not in known:
            raise ValueError(
                f"upstream: there is no dataset {self.upstream}{nearest(self.upstream, known)}; "
                f"there are: {', '.join(known)}"
            )
        if self.upstream in self.prepare.folders and self.prepare.folders[self.upstream].invalid == "skip-task":
            raise ValueError(
                f"prepare.folders.{self.upstream}.invalid: skip-task is for tasks, and {self.upstream} is the upstream "
                "set; write refuse or skip"
            )

    def _fits(self, method: catalogue.MethodInfo) -> None:
        """Refuse a batch or image size that the method cannot work with, naming the key and the smallest possible."""
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
        smaller = settings.get("downscale", 1)  # of the images that are generated
        if method.sizes and size not in {smaller * side for side in method.sizes}:
            sizes = ", ".join(str(smaller * side) for side in method.sizes)
            by = f" with its downscale of {smaller}" if smaller > 1 else ""
            raise ValueError(f"{key} is {size}: {method.id} works at {sizes} px{by}; {advice}")
        network = self.network(method.id)
        self._fits_network(method, network, key, size, advice)
        if "patch" not in NETWORKS[network] and any("patch" in NETWORKS[name] for name in method.networks.values()):
            known = ", ".join(name for name, row in NETWORKS.items() if "patch" in row)
            raise ValueError(f"{given}.network is {network}: {method.id} needs one with patches: {known}")
        if size < method.smallest_size:
            raise ValueError(f"{key} is {size}: {method.id} needs at least {method.smallest_size} px; {advice}")

    def _fits_network(self, method: catalogue.MethodInfo, network: str, key: str, size: int, advice: str) -> None:
        """Refuse an image that the network cannot take: too small, or not of whole patches."""
        smallest, patch = NETWORKS[network].get("smallest", 1), NETWORKS[network].get("patch")
        if size < smallest:
            raise ValueError(f"{key} is {size}: {method.id} on {network} needs at least {smallest} px; {advice}")
        if patch and size % patch:
            low, high = size // patch * patch, -(-size // patch) * patch
            near = f"{low} or {high}" if low else str(high)
            raise ValueError(
                f"{key} is {size}: {method.id} on {network} needs a multiple of its patch of {patch} px, "
                f"such as {near}; {advice}"
            )

    def _fits_finetuning(self, method: catalogue.MethodInfo) -> None:
        """Refuse images or batches that the method's network cannot be fine-tuned on."""
        network, size, batch = self.network(method.id), self.prepare.image_size, self.finetune.batch
        self._fits_network(method, network, "prepare.image_size", size, "tasks are learnt at this size: change it")
        if self.finetune.evaluation == "finetune" and batch < (smallest := smallest_batch(network, size)):
            raise ValueError(
                f"finetune.batch is {batch}: {network}, the network of {method.id}, needs at least {smallest} for "
                f"images of {size} px, since its batch norms would see one value per channel"
            )

    def task(self, name: str) -> Task:
        """The task of an id: one of VTAB's, a stand-in, or one of this study's folders."""
        if name in standins():
            return standins()[name]
        if name in self.prepare.folders:
            folder = self.prepare.folders[name]
            return Task(name, folder.display or name, folder.group, name, "folder")
        if name in tfds_tasks():
            return tfds_tasks()[name]
        known = [*tfds_tasks(), *standins(), *self.prepare.folders]
        raise ValueError(f"tasks: there is no task {name}{nearest(name, known)}; the tasks are: {', '.join(known)}")

    def _tfds_version(self, dataset: str) -> str:
        """The version of a dataset's TFDS records that this study reads."""
        if dataset not in datasets():
            raise ValueError(
                f"prepare.tfds.versions: there is no dataset {dataset}{nearest(dataset, datasets())}; "
                f"there are: {', '.join(datasets())}"
            )
        known = (datasets()[dataset].version, *datasets()[dataset].readable)
        version = self.prepare.tfds.versions.get(dataset, known[0])
        if version not in known:
            raise ValueError(
                f"prepare.tfds.versions.{dataset} is {version}: "
                f"the versions that give VTAB's examples are {', '.join(known)}"
            )
        return version

    def tfds_settings(self, dataset: str) -> dict[str, Any]:
        """Which records of which TFDS builder a dataset is made of."""
        return {
            "builder": datasets()[dataset].builder,
            "config": datasets()[dataset].config,
            "version": self._tfds_version(dataset),
        }

    def network(self, method: str) -> str:
        """The network of one method: that of per_method, or the one that the method uses for the study's network."""
        given = self.pretrain.per_method.get(method, {})
        return given.get("network") or catalogue.methods()[method].network(self.pretrain.network)

    def method_settings(self, method: str) -> dict[str, Any]:
        """The settings of one method's pre-training, by name.

        params.yaml's per_method overrides the method's defaults, which override the study's settings.
        """
        info = catalogue.methods()[method]
        common = self.pretrain.model_dump(exclude={"network", "seed", "subset", "per_method"})
        given = self.pretrain.per_method.get(method, {})
        known = {**common, **info.settings, "network": None}
        # Where every parameter group has a rate of its own, the common one is not read, and is in no key.
        rates = [f"{group}_rate" for group in dict.fromkeys(info.update_order)]
        own_rates = bool(rates) and set(rates) <= set(info.settings)
        if own_rates and "learning_rate" in given:
            raise ValueError(
                f"pretrain.per_method.{method}.learning_rate is not read: {method} has {', '.join(rates)}; set those"
            )
        given = {
            key: _checked_setting(f"pretrain.per_method.{method}.{key}", key, value, info, known)
            for key, value in given.items()
        }
        common_given = {key: value for key, value in {**common, **info.defaults, **given}.items() if key in common}
        try:
            checked = Pretrain(**common_given).model_dump(exclude={"network", "seed", "subset", "per_method"})
        except ValidationError as error:
            first = error.errors()[0]
            raise ValueError(
                f"pretrain.per_method.{method}.{'.'.join(map(str, first['loc']))}: {first['msg']}"
            ) from error
        own = {key: given.get(key, default) for key, default in info.settings.items()}
        if own_rates:
            del checked["learning_rate"]
        return {**checked, **own, "image_size": checked["image_size"] or self.prepare.image_size}


def _checked_setting(place: str, key: str, value: Any, info: catalogue.MethodInfo, known: dict[str, Any]) -> Any:
    """An entry of per_method, its numbers as numbers.

    Refuses what the method does not have, and a value of another type or out of its range.
    """
    if key == "network" and value not in NETWORKS:
        raise ValueError(
            f"{place}: there is no network {value}{nearest(value, NETWORKS)}; the networks are: {', '.join(NETWORKS)}"
        )
    if key not in known:
        raise ValueError(
            f"{place}: {info.id} has no setting {key}{nearest(key, known)}; it has: {', '.join(sorted(known))}"
        )
    if key in info.settings:
        try:
            value = _of_kind(value, info.settings[key])
        except ValueError as error:
            raise ValueError(
                f"{place}: {value!r} should be of the type of its default {info.settings[key]!r}"
            ) from error
    low, high = info.ranges.get(key, (None, None))
    if low is not None and not low <= value <= high:
        raise ValueError(f"{place} is {value!r}: it should be from {low:g} to {high:g}")
    return value


def _of_kind(value: Any, default: Any) -> Any:
    """`value` as the type of `default`.

    For a float also an int, and a string that YAML 1.1 does not take for a number but people and DVC write: 5e-4.

    Raises:
        ValueError: it is of another type, or not finite.
    """
    if isinstance(default, (list, tuple)):
        if not isinstance(value, (list, tuple)):
            raise ValueError
        return [_of_kind(part, default[0]) for part in value] if default else list(value)
    if isinstance(default, float) and isinstance(value, (int, float, str)) and not isinstance(value, bool):
        number = float(value)
        if not math.isfinite(number):
            raise ValueError
        return number
    if isinstance(value, bool) != isinstance(default, bool) or not isinstance(value, type(default)):
        raise ValueError
    return value


class _UniqueKeys(yaml.SafeLoader):
    """YAML in which a key that is given twice is an error instead of a silent loss of the first."""


def _mapping(loader: _UniqueKeys, node: yaml.MappingNode) -> dict[Any, Any]:
    keys = [loader.construct_object(key) for key, _ in node.value]
    for index, key in enumerate(keys):
        if key in keys[:index]:
            mark = node.value[index][0].start_mark
            raise yaml.constructor.ConstructorError(None, None, f"the key {key} is given twice", mark)
    return loader.construct_mapping(node, deep=True)


_UniqueKeys.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def load(path: Path | str = "params.yaml") -> Study:
    """Read and check a study.

    Raises:
        UserError: one sentence that names the file and the key, with the nearest right name where a name is wrong.
    """
    path = Path(path)
    try:
        raw = yaml.load(path.read_text("utf-8"), Loader=_UniqueKeys)  # noqa: S506 - a SafeLoader
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


# Replacements for messages of pydantic that are unclear to somebody who writes YAML.
PLAIN = {
    "tuple_type": "it should be a list, such as [{}]",
    "list_type": "it should be a list, such as [{}]",
    "dict_type": "it should hold keys of its own, indented below it",
    "model_type": "it should hold keys of its own, indented below it",
    "string_pattern_mismatch": "names have lower-case letters, digits and single hyphens between them",
}


def _sentence(error: ValidationError) -> str:
    """The first error of a study as one sentence."""
    # A misspelt key often leaves another missing: the misspelling is reported.
    first = min(error.errors(), key=lambda found: found["type"] != "extra_forbidden")
    place = ".".join(str(part) for part in first["loc"])
    others = f" ({error.error_count() - 1} more errors follow)" if error.error_count() > 1 else ""
    if first["type"] == "extra_forbidden":
        known = _fields_at(first["loc"][:-1])
        near = nearest(str(first["loc"][-1]), known)
        return f"unknown key {place}{near}; the keys there are: {', '.join(known)}{others}"
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "missing":
        return f"the key {place} is missing{others}"
    if first["type"] == "value_error":
        return f"{place + ': ' if place else ''}{message}{others}"
    plain = PLAIN.get(first["type"])
    message = plain.format(first["input"]) if plain else f"{message[0].lower()}{message[1:]}"
    return f"{place} is {first['input']!r}: {message}{others}"


def _fields_at(loc: tuple[int | str, ...]) -> list[str]:
    """The keys that the schema has at a place such as ("finetune",) or ("prepare", "folders", "cats")."""
    model: type[Group] = Study
    for part in loc:
        if model is Prepare and part == "folders":
            model = Folder
        elif isinstance(part, str) and part in model.model_fields:
            annotation = model.model_fields[part].annotation
            if isinstance(annotation, type) and issubclass(annotation, Group):
                model = annotation
    return list(model.model_fields)
