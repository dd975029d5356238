"""The units of code, found in the package itself: a new method, network, dataset or renderer is a unit at once."""

import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from vtabflow.planning import catalogue
from vtabflow.planning.code.definitions import PACKAGE, Definitions
from vtabflow.planning.code.syntax import module_literals
from vtabflow.runtime.files import canonical

NETWORKS = "networks/registry.py:NETWORKS"
# A unit takes the rows that it names out of these; any other reference to them counts for nothing.
DATASET_TABLES = (
    "planning/tasks.py:VTAB",
    "prepare/tfds/datasets.py:_ALL",
    "prepare/tfds/archives.py:ARCHIVES",
    "prepare/tfds/archives.py:BY_HAND",
    "prepare/tfds/archives.py:RECORDS",
    "prepare/tfds/archives.py:EXTRACTED",
    "prepare/tfds/archives.py:INNER_EXTRACTED",
    "prepare/tfds/labels.py:RULES",
    "prepare/tfds/labels.py:FEATURES",
)
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
        tables = (NETWORKS, *DATASET_TABLES)
        self.definitions = Definitions(package, frozenset(tables), NAMED_IMPORTS)
        self.all = {
            unit.name: unit for unit in [*self._steps(), *self._prepared(), *self._networks(), *self._methods()]
        }
        self.contents = cache(self._contents)

    def _steps(self) -> list[Unit]:
        return [
            Unit("finetune", ("finetune/step.py:run",)),
            Unit("report", ("report/step.py:run", "report/step.py:publish"), ("report/page.html.j2",)),
        ]

    def _prepared(self) -> list[Unit]:
        step = "prepare/step.py:run"
        found = [
            Unit("prepare/folder", (step, "prepare/folders/source.py:make")),
            Unit("prepare/imagenet", (step, "prepare/imagenet/source.py:make", *self._rows("imagenet"))),
        ]
        tasks = module_literals(self.package / "planning/tasks.py")["VTAB"]
        for dataset in self.definitions.rows("prepare/tfds/datasets.py:_ALL"):
            rows = self._rows(dataset, *(row[0] for row in tasks if row[3] == dataset))
            found.append(Unit(f"prepare/tfds/{dataset}", (step, "prepare/tfds/source.py:make", *rows)))
        for path in sorted((self.package / "standins").glob("*.py")):
            if "TASKS" in module_literals(path):
                renderer = f"standins/{path.name}"
                entries = (step, "standins/source.py:make", f"{renderer}:draw", f"{renderer}:TASKS")
                found.append(Unit(f"standins/{path.stem}", entries))
        return found

    def _rows(self, *names: str) -> list[str]:
        return [
            f"{table}[{name}]" for table in DATASET_TABLES for name in names if name in self.definitions.rows(table)
        ]

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
                entries.append("pretrain/step.py:run")
        return [Unit(f"methods/{file}", tuple(entries)) for file, entries in found.items()]

    def _contents(self, name: str) -> dict[str, str]:
        """The definitions (and files) that a unit is made of, with their digests."""
        unit = self.all[name]
        files = {file: hashlib.sha256((self.package / file).read_bytes()).hexdigest() for file in unit.files}
        return self.definitions.reached(unit.entries) | files

    def digest(self, name: str) -> str:
        """16 hexadecimal digits for all that a unit is made of."""
        return hashlib.sha256(canonical(self.contents(name)).encode()).hexdigest()[:16]
