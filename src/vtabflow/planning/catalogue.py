"""The methods there are, read from the literals in methods/*.py without importing them (and so without torch)."""

import ast
import difflib
import importlib
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vtabflow.errors import UserError

if TYPE_CHECKING:
    from vtabflow.methods.base import Method

FOLDER = Path(__file__).parent.parent / "methods"
FAMILIES = ("generative", "from-scratch", "self-supervised", "semi-supervised", "supervised")
SOURCES = ("images", "labels", "subset")


@dataclass(frozen=True)
class MethodInfo:
    """The literals of a method's class (see vtabflow/methods/base.py), and where the class is."""

    id: str
    display: str
    family: str
    streams: dict[str, str]
    defaults: dict[str, Any]
    settings: dict[str, Any]
    ranges: dict[str, tuple[float, float]]
    sizes: tuple[int, ...]
    smallest_size: int
    networks: dict[str, str]
    update_order: tuple[str, ...]
    smallest_batch: int
    needs: dict[str, str]
    published: bool
    reference: str
    module: str
    cls: str

    def network(self, name: str) -> str:
        """The network that stands in for the study's network `name`."""
        return self.networks.get(name, name)

    @property
    def uses_labels(self) -> bool:
        """Whether any stream comes with classes."""
        return bool({"labels", "subset"} & set(self.streams.values()))


FIELDS = tuple(name for name in MethodInfo.__dataclass_fields__ if name not in ("module", "cls"))


def methods(folder: Path = FOLDER) -> dict[str, MethodInfo]:
    """id -> MethodInfo of every method in `folder`, in the order of their files' names. UserError names a file that
    breaks the rules.
    """
    found: dict[str, MethodInfo] = {}
    for path in sorted(folder.glob("*.py")):
        for name in _classes(path):
            literals = _literals(path, name)
            if literals is None or not literals["id"]:
                continue
            info = MethodInfo(**literals, module=f"vtabflow.methods.{path.stem}", cls=name)
            _check(info, path)
            if info.id in found:
                raise UserError(
                    f"{path} and {found[info.id].module} both declare the method {info.id!r}; "
                    "give one of them another id"
                )
            found[info.id] = info
    return found


def info(method: str) -> MethodInfo:
    """The MethodInfo of an id; UserError with the nearest id if there is none."""
    known = methods()
    if method not in known:
        near = difflib.get_close_matches(method, known, 1, 0)[0]
        raise UserError(
            f"there is no method {method!r}; the nearest is {near!r}, and `vtabflow methods` lists all of them"
        )
    return known[method]


def load(method: str) -> "type[Method]":
    """The class of a method; imports its file and what that needs, no other method's."""
    found = info(method)
    return getattr(importlib.import_module(found.module), found.cls)


@cache
def _parse(path: Path, changed: int) -> ast.Module:
    try:
        return ast.parse(path.read_text(), str(path))
    except SyntaxError as error:
        raise UserError(
            f"{path}, line {error.lineno}: {error.msg}; mend the file or take it out of the folder"
        ) from error


def _tree(path: Path) -> ast.Module:
    return _parse(path, path.stat().st_mtime_ns)


def _classes(path: Path) -> dict[str, ast.ClassDef]:
    return {node.name: node for node in _tree(path).body if isinstance(node, ast.ClassDef)}


def _literals(path: Path, name: str) -> dict[str, Any] | None:
    """The declared literals of class `name` in `path`, those of its bases included; None if it does not descend from
    Method.

    Bases are followed within the file and into the files of the folder that it imports them from.
    """
    node = _classes(path)[name]
    values: dict[str, Any] = {}
    descends = name == "Method" and path.name == "base.py"
    for base in reversed([b.id for b in node.bases if isinstance(b, ast.Name)]):
        place = (path, base) if base in _classes(path) else _imported_from(path, base)
        inherited = _literals(*place) if place else None
        if inherited is not None:
            values |= inherited
            descends = True
    if not descends:
        return None
    for statement in node.body:
        if isinstance(statement, ast.Assign) and len(statement.targets) == 1:
            target: ast.expr = statement.targets[0]
        elif isinstance(statement, ast.AnnAssign):
            target = statement.target
        else:
            continue
        if isinstance(target, ast.Name) and target.id in FIELDS and statement.value is not None:
            try:
                values[target.id] = ast.literal_eval(statement.value)
            except ValueError as error:
                raise UserError(
                    f"{path}, line {statement.lineno}: {name}.{target.id} must be a literal; write its value out"
                ) from error
    return values


def _imported_from(path: Path, name: str) -> tuple[Path, str] | None:
    """The file of the methods folder that `path` imports `name` from, and the class's name there."""
    for node in _tree(path).body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("vtabflow.methods."):
            for alias in node.names:
                place = path.parent / f"{(node.module or '').rsplit('.', 1)[1]}.py"
                if (alias.asname or alias.name) == name and place.exists() and alias.name in _classes(place):
                    return place, alias.name
    return None


def _check(info: MethodInfo, path: Path) -> None:
    where = f"{path}, class {info.cls}"
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", info.id):
        raise UserError(f"{where}: id {info.id!r} must be lower-case letters, digits and single hyphens; rename it")
    if not info.display or info.family not in FAMILIES:
        raise UserError(
            f"{where}: needs a display name and a family out of {', '.join(FAMILIES)}; "
            f"it has {info.display!r}, {info.family!r}"
        )
    wrong = [source for source in info.streams.values() if source not in SOURCES]
    if wrong:
        raise UserError(f"{where}: a stream draws from {' or '.join(SOURCES)}, not from {wrong[0]!r}; change it")
    for name, (lowest, highest) in info.ranges.items():
        if name not in info.settings or not lowest <= info.settings[name] <= highest:
            raise UserError(
                f"{where}: ranges[{name!r}] must be of one of its settings and include the default; "
                "change the range, the default or the name"
            )
    if not info.streams and info.family != "from-scratch":
        raise UserError(
            f"{where}: a method without streams is not trained, and its network starts at random; give it streams, or the "
            "family from-scratch"
        )
    if bool(info.streams) != bool(info.update_order):
        raise UserError(f"{where}: a method has streams and turns, or neither; declare both")
