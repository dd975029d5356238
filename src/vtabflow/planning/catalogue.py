"""The methods, read from the literals in methods/*.py without importing them (and so without torch)."""

import ast
import importlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from vtabflow.contracts.protocol import FAMILIES
from vtabflow.errors import UserError, nearest
from vtabflow.planning.code.syntax import assignments, classes, parse

if TYPE_CHECKING:
    from vtabflow.methods.base import Method

FOLDER = Path(__file__).parent.parent / "methods"
SOURCES = ("trained", "random", "imported")
STREAMS = ("images", "labels", "subset")


@dataclass(frozen=True)
class MethodInfo:
    """The literals of a method's class (see vtabflow/methods/base.py), and where the class is.

    Attributes:
        settings: the method's own settings with their defaults, inherited ones included.
        ranges: setting -> (lowest, highest) allowed value; settings without a range are not in it.
        module: the module of the class.
        cls: the name of the class.
    """

    id: str
    display: str
    family: str
    source: Literal["trained", "random", "imported"]
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
        """The network that this method uses where the study's network is `name`."""
        return self.networks.get(name, name)

    @property
    def uses_labels(self) -> bool:
        """Whether any stream comes with classes."""
        return bool({"labels", "subset"} & set(self.streams.values()))


# What a class declares. Of `settings`, a value is the default or (default, lowest, highest).
LITERALS = tuple(name for name in MethodInfo.__dataclass_fields__ if name not in ("ranges", "module", "cls"))


def methods(folder: Path = FOLDER) -> dict[str, MethodInfo]:
    """All methods of a folder by id, in the order of the files' names.

    Raises:
        UserError: names a file that breaks the rules of vtabflow/methods/base.py.
    """
    paths = sorted(folder.glob("*.py"))
    return _methods(tuple((path, path.stat().st_mtime_ns) for path in paths))


@cache
def _methods(files: tuple[tuple[Path, int], ...]) -> dict[str, MethodInfo]:
    """The methods of files, read once per version of each."""
    found: dict[str, MethodInfo] = {}
    for path, _ in files:
        for name in classes(path):
            literals = _literals(path, name)
            if literals is None or not literals["id"]:
                continue
            info = _info(literals, path, name)
            if info.id in found:
                raise UserError(
                    f"{path} and {found[info.id].module} both declare the method {info.id!r}; "
                    "give one of them another id"
                )
            found[info.id] = info
    return found


def info(method: str) -> MethodInfo:
    """The MethodInfo of an id.

    Raises:
        UserError: no method has this id; names the nearest.
    """
    known = methods()
    if method not in known:
        raise UserError(f"there is no method {method!r}{nearest(method, known)}; `vtabflow methods` lists all of them")
    return known[method]


def load(method: str) -> "type[Method]":
    """The class of a method; imports its file and what that needs, no other method's."""
    found = info(method)
    kind: type[Method] = getattr(importlib.import_module(found.module), found.cls)
    return kind


def _info(literals: dict[str, Any], path: Path, name: str) -> MethodInfo:
    """The MethodInfo of a class, checked."""
    where = f"{path}, class {name}"
    defaults, ranges = {}, {}
    for setting, value in literals["settings"].items():
        ranged = isinstance(value, tuple)
        if ranged and not (len(value) == 3 and value[1] <= value[0] <= value[2]):
            raise UserError(
                f"{where}: settings[{setting!r}] is {value}; write a default, or (default, lowest, highest) with the "
                "default within the range"
            )
        defaults[setting] = value[0] if ranged else value
        if ranged:
            ranges[setting] = value[1:]
    fields = {**literals, "settings": defaults, "ranges": ranges}
    info = MethodInfo(**fields, module=f"vtabflow.methods.{path.stem}", cls=name)
    for fault in _faults(info):
        raise UserError(f"{where}: {fault}")
    return info


def _faults(info: MethodInfo) -> Iterator[str]:
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", info.id):
        yield f"id {info.id!r} must be lower-case letters, digits and single hyphens; rename it"
    if not info.display:
        yield "it has no display name; give it one"
    if info.family not in FAMILIES:
        yield f"family is {info.family!r}; set it to one of {', '.join(FAMILIES)}"
    if info.source not in SOURCES:
        yield f"source is {info.source!r}; set it to one of {', '.join(SOURCES)}"
    for stream in info.streams.values():
        if stream not in STREAMS:
            yield f"a stream yields {' or '.join(STREAMS)}, not {stream!r}; change it"
    trained = info.source == "trained"
    if bool(info.streams) != trained or bool(info.update_order) != trained:
        yield (
            f"source is {info.source!r}: a trained method has streams and an update_order, and no other has; "
            "change the source, or these"
        )


def _literals(path: Path, name: str) -> dict[str, Any] | None:
    """The literals of class `name` in `path`, inherited ones included; None if it does not derive from Method.

    Bases are followed within the file and into the files of the folder that it imports them from. `settings` are added
    to the inherited ones; every other literal replaces the inherited one.
    """
    node = classes(path)[name]
    values: dict[str, Any] = {}
    is_method = name == "Method" and path.name == "base.py"
    for base in reversed([b.id for b in node.bases if isinstance(b, ast.Name)]):
        place = (path, base) if base in classes(path) else _imported_from(path, base)
        inherited = _literals(*place) if place else None
        if inherited is not None:
            values |= inherited
            is_method = True
    if not is_method:
        return None
    for target, value in assignments(node.body):
        if target in LITERALS:
            try:
                literal = ast.literal_eval(value)
            except ValueError as error:
                raise UserError(
                    f"{path}, line {value.lineno}: {name}.{target} must be a literal; write its value out"
                ) from error
            values[target] = {**values.get("settings", {}), **literal} if target == "settings" else literal
    return values


def _imported_from(path: Path, name: str) -> tuple[Path, str] | None:
    """The file of the methods folder that `path` imports `name` from, and the class's name there."""
    for node in parse(path).body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("vtabflow.methods."):
            for alias in node.names:
                place = path.parent / f"{(node.module or '').rsplit('.', 1)[1]}.py"
                if (alias.asname or alias.name) == name and place.exists() and alias.name in classes(place):
                    return place, alias.name
    return None
