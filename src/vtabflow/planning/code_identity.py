"""Code identity: which code made a result, so that a refactoring keeps results and a changed loss cannot go unnoticed.

A **unit** is a step, a source of images, a network or a method. code.lock holds for each unit its version and the digest of
the code that it imports. While the digest is the locked one, keys hold the version alone; otherwise the digest too.
"""

import ast
import hashlib
import json
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from vtabflow.errors import UserError
from vtabflow.runtime.files import canonical, read_json, write_json

PACKAGE = Path(__file__).parent.parent


@dataclass(frozen=True)
class Unit:
    """`entries` are the modules whose imports, followed inside the package, make the unit; `files` lie beside and are not Python."""

    name: str
    entries: tuple[str, ...]
    files: tuple[str, ...] = ()


def units(package: Path = PACKAGE) -> dict[str, Unit]:
    """All units, found by looking at the package: a new method, network or renderer needs no registration."""
    found = [
        Unit("prepare/folder", ("prepare.step", "prepare.folders.source")),
        Unit("prepare/tfds", ("prepare.step", "prepare.tfds.source")),
        Unit("prepare/imagenet", ("prepare.step", "prepare.imagenet.source")),
        Unit("finetune", ("finetune.step",)),
        Unit("report", ("report.step",), ("report/page.html.j2",)),
    ]
    for path in sorted((package / "standins").glob("*.py")):
        if "TASKS" in module_literals(path):
            entries = ("prepare.step", "standins.source", f"standins.{path.stem}")
            found.append(Unit(f"standins/{path.stem}", entries))
    networks = module_literals(package / "networks/registry.py")["NETWORKS"]
    for module in sorted({row["module"] for row in networks.values()}):
        found.append(Unit(f"networks/{module}", ("networks.registry", f"networks.{module}")))
    for path in sorted((package / "methods").glob("*.py")):
        if literals(path, "id") - {""}:
            # A method that draws nothing from an upstream set is not trained: the loop has no part in its result.
            loop = ("pretrain.step",) if trains(path) else ()
            found.append(Unit(f"methods/{path.stem}", (*loop, f"methods.{path.stem}")))
    return {unit.name: unit for unit in found}


@cache
def _tree(path: Path, stamp: int) -> ast.Module:
    return ast.parse(path.read_text(), filename=str(path))


def parse(path: Path) -> ast.Module:
    """The syntax tree of a file, parsed once per version of the file."""
    return _tree(path, path.stat().st_mtime_ns)


def module_literals(path: Path) -> dict[str, Any]:
    """Module-level names that are assigned a literal, with their values, read without importing the module."""
    found = {}
    for node in parse(path).body:
        if isinstance(node, ast.Assign):
            target, value = node.targets[0], node.value
        elif isinstance(node, ast.AnnAssign) and node.value is not None:
            target, value = node.target, node.value
        else:
            continue
        if isinstance(target, ast.Name):
            with suppress(ValueError):
                found[target.id] = ast.literal_eval(value)
    return found


def literals(path: Path, name: str) -> set[str]:
    """The values that the classes of a file assign to `name`, as text; read without importing the file."""
    found = set()
    for node in (each for top in parse(path).body if isinstance(top, ast.ClassDef) for each in top.body):
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        value = getattr(node, "value", None)
        if isinstance(target, ast.Name) and target.id == name and value is not None:
            found.add(str(ast.literal_eval(value)))
    return found


def trains(path: Path) -> bool:
    """Whether a method's file declares (or inherits) streams (see methods/base.py)."""
    return literals(path, "streams") != {"{}"}


def _normal(node: Any) -> Any:
    """A tree as nested lists without positions and docstrings. Empty fields are left out: newer Pythons have more of them."""
    if isinstance(node, ast.AST):
        fields = []
        for name, value in ast.iter_fields(node):
            if name == "body" and isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                value = _without_docstring(value)
            if value is None or value == [] or name in {"ctx", "kind", "type_comment"}:
                continue
            fields.append([name, _normal(value)])
        return [type(node).__name__, *fields]
    if isinstance(node, list):
        return [_normal(item) for item in node]
    return node if isinstance(node, (str, int, bool)) or node is None else repr(node)


def _without_docstring(body: list[ast.stmt]) -> list[ast.stmt]:
    first = body[0] if body else None
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
        return body[1:]
    return body


@cache
def _file_digest(path: Path, stamp: int) -> str:
    if path.suffix == ".py":
        text = canonical(_normal(parse(path)))
        return hashlib.sha256(text.encode()).hexdigest()
    return hashlib.sha256(path.read_bytes()).hexdigest()


def file_digest(path: Path) -> str:
    """Digest of a file's meaning: for Python the same on every supported version, whatever the comments and the layout."""
    return _file_digest(path, path.stat().st_mtime_ns)


def _module_file(package: Path, module: str) -> Path | None:
    path = package.joinpath(*module.split(".")) if module else package
    if path.is_dir():
        return path / "__init__.py"
    return path.with_suffix(".py") if path.with_suffix(".py").exists() else None


@cache
def _imports(package: Path, path: Path, stamp: int) -> frozenset[str]:
    """Modules of the package that a file imports anywhere in it, also inside functions; names relative to the package."""
    own = package.name
    names: set[str] = set()
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    inside = {name[len(own) + 1 :] for name in names if name.startswith(own + ".")}
    return frozenset(name for name in inside if _module_file(package, name))


def closure(unit: Unit, package: Path = PACKAGE) -> list[Path]:
    """All files that a unit is made of, sorted."""
    waiting, seen = list(unit.entries), set()
    while waiting:
        module = waiting.pop()
        path = _module_file(package, module)
        if path is None:
            raise UserError(f"the code unit {unit.name} names the module {module}, which is not in {package}")
        if path not in seen:
            seen.add(path)
            waiting.extend(_imports(package, path, path.stat().st_mtime_ns))
    return sorted(seen | {package / name for name in unit.files})


def unit_digest(unit: Unit, package: Path = PACKAGE) -> str:
    """16 hexadecimal digits for all the code that a unit imports."""
    parts = [[path.relative_to(package).as_posix(), file_digest(path)] for path in closure(unit, package)]
    return hashlib.sha256(canonical(parts).encode()).hexdigest()[:16]


class CodeLock:
    """code.lock: {unit: {"version": n, "digest": "..."}}. A unit that is not in it yet is at version 1 and unlocked."""

    def __init__(self, path: Path | str = "code.lock", package: Path = PACKAGE):
        self.path, self.package = Path(path), package
        self.units = units(package)
        try:
            self.locked: dict[str, dict[str, Any]] = read_json(self.path) if self.path.exists() else {}
        except json.JSONDecodeError as error:
            raise UserError(f"{self.path} is not JSON ({error}); take it back from git") from error
        self._identities: dict[str, str] = {}

    def identity(self, name: str) -> str:
        """What goes into a key: "3" if the code is the locked one of version 3, else "3+<digest>"."""
        if name not in self._identities:
            locked = self.locked.get(name, {"version": 1, "digest": None})
            now = unit_digest(self.units[name], self.package)
            version = str(locked["version"])
            self._identities[name] = version if now == locked["digest"] else f"{version}+{now}"
        return self._identities[name]

    def changed(self) -> list[str]:
        """Units whose code is not the locked one, and locked names that are no unit any more."""
        gone = [name for name in self.locked if name not in self.units]
        return sorted([name for name in self.units if "+" in self.identity(name)] + gone)

    def settle(self, bump: bool, names: list[str] | None = None) -> list[str]:
        """Write the changed units into the lock: `bump` gives them a new version (new results), otherwise the version stays."""
        for name in names or []:
            if name not in self.units and name not in self.locked:
                raise UserError(f"there is no code unit {name}; the units are: {', '.join(sorted(self.units))}")
        chosen = self.changed() if not names else [n for n in names if bump or n in self.changed()]
        for name in chosen:
            if name not in self.units:
                del self.locked[name]
                continue
            known = self.locked.get(name)
            version = known["version"] + (1 if bump else 0) if known else 1
            self.locked[name] = {"version": version, "digest": unit_digest(self.units[name], self.package)}
        write_json(self.path, dict(sorted(self.locked.items())))
        self._identities.clear()
        return chosen
