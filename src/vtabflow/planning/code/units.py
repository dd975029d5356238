"""The units of code, found in the package itself: a new method, network, dataset or renderer is a unit at once."""

import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from vtabflow.planning import catalogue
from vtabflow.planning.code.definitions import PACKAGE, Definitions
from vtabflow.planning.code.syntax import module_literals
from vtabflow.runtime.files import canonical

NETWORKS = "networks/registry.py:NETWORKS"
# Tables: a unit takes the rows that it names, and any other reference to them counts for nothing.
LABEL_RULES = "prepare/tfds/labels.py:RULES"
SPLIT_RULES = "prepare/tfds/splits.py:RULES"
MANUAL_CHECKS = "prepare/tfds/manual.py:CHECKS"
TABLES = frozenset({NETWORKS, LABEL_RULES, SPLIT_RULES, MANUAL_CHECKS})
# The specs come from outside of a unit, and their defaults and properties count.
PREPARE = ("prepare/step.py:run", "contracts/specs.py:StoreSpec")
PRETRAIN = ("pretrain/step.py:run", "contracts/specs.py:EncoderSpec")
FINETUNE = ("finetune/step.py:run", "contracts/specs.py:JobSpec")
REPORT = ("report/step.py:run", "report/step.py:publish", "contracts/specs.py:PageSpec")
# What these functions import by a computed name are entries of the units below.
NAMED_IMPORTS = frozenset(
    {"prepare/step.py:run", "standins/source.py:make", "networks/registry.py:_class_of", "planning/catalogue.py:load"}
)


@dataclass(frozen=True)
class Unit:
    """A unit of code.

    Args:
        entries: definitions that are run, such as "finetune/step.py:run", and rows of tables.
        files: files of the package that are not Python.
    """

    name: str
    entries: tuple[str, ...]
    files: tuple[str, ...] = ()


class Units:
    """The units of a package, with all that they are made of.

    Attributes:
        all: the units by name.
    """

    def __init__(self, package: Path = PACKAGE):
        self.package = package
        self.definitions = Definitions(package, TABLES, NAMED_IMPORTS)
        self.all = {
            unit.name: unit for unit in [*self._steps(), *self._prepared(), *self._networks(), *self._methods()]
        }
        self.contents = cache(self._contents)

    def _steps(self) -> list[Unit]:
        return [
            Unit("finetune", FINETUNE),
            Unit("report", REPORT, ("report/page.html.j2",)),
        ]

    def _prepared(self) -> list[Unit]:
        found = [
            Unit("prepare/folder", (*PREPARE, "prepare/folders/source.py:make")),
            self._dataset("prepare/imagenet", "prepare/imagenet/dataset.yaml", "prepare/imagenet/source.py:make"),
        ]
        for path in sorted((self.package / "prepare/tfds/datasets").glob("*.yaml")):
            file = f"prepare/tfds/datasets/{path.name}"
            found.append(self._dataset(f"prepare/tfds/{path.stem}", file, "prepare/tfds/source.py:make"))
        for path in sorted((self.package / "standins").glob("*.py")):
            if "TASKS" in module_literals(path):
                renderer = f"standins/{path.name}"
                entries = (*PREPARE, "standins/source.py:make", f"{renderer}:draw", f"{renderer}:TASKS")
                found.append(Unit(f"standins/{path.stem}", entries))
        return found

    def _dataset(self, name: str, file: str, source: str) -> Unit:
        """The unit of a dataset: its YAML file, and the rules that it names."""
        content = _yaml(self.package / file)
        named: dict[str, list[str | None]] = {
            SPLIT_RULES: [content.get("split")],
            MANUAL_CHECKS: [name.rpartition("/")[2]],
            LABEL_RULES: [task.get("label") for task in content["tasks"].values()],
        }
        rows = {
            f"{table}[{row}]" for table, rows in named.items() for row in rows if row in self.definitions.rows(table)
        }
        return Unit(name, (*PREPARE, source, *sorted(rows)), (file,))

    def _networks(self) -> list[Unit]:
        rows = module_literals(self.package / "networks/registry.py")["NETWORKS"]
        return [
            Unit(
                f"networks/{name}",
                (
                    "networks/registry.py:build",
                    f"{NETWORKS}[{name}]",
                    f"networks/{row['module'].replace('.', '/')}.py:{row['class']}",
                ),
            )
            for name, row in rows.items()
        ]

    def _methods(self) -> list[Unit]:
        found: dict[str, list[str]] = {}
        for info in catalogue.methods(self.package / "methods").values():
            file = info.module.rpartition(".")[2]
            entries = found.setdefault(file, [])
            entries.append(f"methods/{file}.py:{info.cls}")
            if info.source == "trained":  # of another the step has no part in the result
                entries.extend(PRETRAIN)
        return [Unit(f"methods/{file}", tuple(entries)) for file, entries in found.items()]

    def _contents(self, name: str) -> dict[str, str]:
        """The definitions (and files) that a unit is made of, with their digests."""
        unit = self.all[name]
        return self.definitions.reached(unit.entries) | {file: _file_digest(self.package / file) for file in unit.files}

    def digest(self, name: str) -> str:
        """16 hexadecimal digits for all that a unit is made of."""
        return hashlib.sha256(canonical(self.contents(name)).encode()).hexdigest()[:16]


def _yaml(path: Path) -> dict[str, Any]:
    # The loader in C takes a tenth of the time, and every command plans the study.
    return dict(yaml.load(path.read_text("utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader)))  # noqa: S506


def _file_digest(path: Path) -> str:
    """Digest of a file; of a YAML file without its comments and layout."""
    text = canonical(_yaml(path)).encode() if path.suffix == ".yaml" else path.read_bytes()
    return hashlib.sha256(text).hexdigest()
