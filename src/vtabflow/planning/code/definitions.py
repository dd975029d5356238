"""The definitions of the package and what each of them uses.

A definition is named by its file and its name: "finetune/loop.py:Learner". Further names are "finetune/loop.py:*" (the
whole module), "finetune/loop.py:(statements)" (what a module does when it is imported, apart from defining names) and
"networks/registry.py:NETWORKS[vit-s16]" (a row of a table).
"""

import ast
import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

from vtabflow.planning.code.syntax import Chain, Text, builtin_error, dotted, parse

PACKAGE = Path(__file__).parents[2]
STATEMENTS = "(statements)"
# Of no result: it is recorded, and a release re-trains nothing.
LEFT_OUT = {"__init__.py:__version__"}


@dataclass(frozen=True)
class Definition:
    """Digest of a definition's text, and the names of the definitions and modules that it uses."""

    digest: str
    uses: frozenset[str]
    loads: frozenset[str]
    computed_import: bool


class Module:
    """The top level of one file: which statements bind which name, what is imported, what else is done.

    Args:
        name: dotted name relative to the package, "" for the package itself.
    """

    def __init__(self, package: str, name: str, path: Path, file: str):
        self.package, self.name, self.path, self.file = package, name, path, file
        self.bound: dict[str, list[ast.stmt]] = {}
        self.statements: list[ast.stmt] = []
        self.imports: dict[str, str] = {}  # name -> what it stands for, with all its dots
        self.imported: set[str] = set()  # modules and names, with all their dots
        for statement in parse(path).body:
            self._read(statement)

    def _read(self, statement: ast.stmt) -> None:
        if isinstance(statement, ast.If) and _named(statement.test, "TYPE_CHECKING"):
            for inner in _imports(statement):
                self.imports |= self.bindings(inner)
            return
        if isinstance(statement, ast.If) and any(_named(node, "__name__") for node in ast.walk(statement.test)):
            return  # `if __name__ == "__main__"` is not run on import
        names, defines = _bound_names(statement)
        for inner in _imports(statement) if not defines else ():
            self.imports |= self.bindings(inner)
            self.imported |= self.origins(inner)
        for name in names:
            if defines or name not in self.imports:
                self.bound.setdefault(name, []).append(statement)
        if not defines and not isinstance(statement, (ast.Import, ast.ImportFrom)) and not _is_docstring(statement):
            self.statements.append(statement)

    def origins(self, statement: ast.Import | ast.ImportFrom) -> set[str]:
        """All that an import names, with all dots."""
        named = {alias.name for alias in statement.names} if isinstance(statement, ast.Import) else set()
        return named | set(self.bindings(statement).values())

    def bindings(self, statement: ast.Import | ast.ImportFrom) -> dict[str, str]:
        """The names that an import binds, each with the dotted name that it stands for; `*` binds "*<module>"."""
        if isinstance(statement, ast.Import):
            return {
                a.asname or a.name.split(".")[0]: a.name if a.asname else a.name.split(".")[0] for a in statement.names
            }
        source = statement.module or ""
        if statement.level:
            own = f"{self.package}.{self.name}".rstrip(".").split(".")
            keep = len(own) - statement.level + (self.path.name == "__init__.py")
            source = ".".join([*own[:keep], *([source] if source else [])])
        return {
            f"*{source}" if alias.name == "*" else alias.asname or alias.name: f"{source}.{alias.name}"
            for alias in statement.names
        }

    def names(self) -> list[str]:
        """All its definitions."""
        return [f"{self.file}:{name}" for name in (*self.bound, *([STATEMENTS] if self.statements else []))]


def _imports(statement: ast.stmt) -> list[ast.Import | ast.ImportFrom]:
    return [node for node in ast.walk(statement) if isinstance(node, (ast.Import, ast.ImportFrom))]


def _named(node: ast.AST, name: str) -> bool:
    return (dotted(node) or ("",))[-1] == name


def _bound_names(statement: ast.stmt) -> tuple[set[str], bool]:
    """The names that a top-level statement binds or changes, and whether it does nothing else."""
    if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return {statement.name}, True
    if isinstance(statement, ast.Expr):  # TABLE.update(...) changes TABLE
        call = statement.value
        chain = dotted(call.func) if isinstance(call, ast.Call) else None
        return ({chain[0]} if chain and len(chain) > 1 else set()), False
    names, parts = set(), False
    for node in _outside_comprehensions(statement):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, (ast.Subscript, ast.Attribute)) and isinstance(node.ctx, (ast.Store, ast.Del)):
            parts = True  # TABLE["a"] = 1
            names |= {name.id for name in ast.walk(node) if isinstance(name, ast.Name)}
    simple = isinstance(statement, (ast.Assign, ast.AnnAssign)) or type(statement).__name__ == "TypeAlias"
    return names, simple and not parts


def _outside_comprehensions(node: ast.AST) -> Iterator[ast.AST]:
    """A node and what is in it, except for comprehensions, whose names are their own."""
    yield node
    if not isinstance(node, (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp, ast.Lambda)):
        for inner in ast.iter_child_nodes(node):
            yield from _outside_comprehensions(inner)


class Definitions:
    """The definitions of a package, read as they are asked for.

    Args:
        package: the package's folder.
        tables: names of definitions that are tables: a unit takes rows of them, and a reference takes nothing.
        named_imports: definitions of which the computed imports are named among a unit's entries; those of any other
            definition may be of any module.
    """

    def __init__(
        self, package: Path, tables: frozenset[str] = frozenset(), named_imports: frozenset[str] = frozenset()
    ):
        self.package, self.tables, self.named_imports = package, tables, named_imports
        self.module = cache(self._module)
        self.definition = cache(self._definition)
        self.resolve = cache(self._resolve)
        self.loaded = cache(self._loaded)
        self.effects = cache(self._effects)

    def _module(self, name: str) -> Module | None:
        """The module of a dotted name relative to the package; None if there is none."""
        path = self.package.joinpath(*name.split(".")) if name else self.package
        path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        if not path.is_file():
            return None
        return Module(self.package.name, name, path, path.relative_to(self.package).as_posix())

    def of_file(self, file: str) -> Module:
        """The module of a file of the package."""
        module = self.module(file.removesuffix(".py").removesuffix("__init__").rstrip("/").replace("/", "."))
        if module is None:
            raise KeyError(file)
        return module

    @cached_property
    def modules(self) -> list[Module]:
        """All modules of the package."""
        return [self.of_file(path.relative_to(self.package).as_posix()) for path in sorted(self.package.rglob("*.py"))]

    def reached(self, entries: Iterable[str]) -> dict[str, str]:
        """All definitions that `entries` use, directly or not, with their digests, sorted."""
        waiting, found = list(entries), {}
        loaded: set[str] = set()
        while waiting:
            current = waiting.pop()
            if current in found or current in self.tables or current in LEFT_OUT:
                continue
            module = self.of_file(current.partition(":")[0])
            uses, imports, found[current] = frozenset(module.names()), frozenset({module.name}), ""
            if not current.endswith(":*"):
                definition = self.definition(current)
                uses, found[current] = definition.uses, definition.digest
                imports |= {each for origin in definition.loads for each in self.modules_of(origin)}
                if definition.computed_import and current not in self.named_imports:
                    uses |= {f"{each.file}:*" for each in self.modules}
            waiting.extend(uses)
            for each in {each for name in imports for each in self.loaded(name)} - loaded:
                loaded.add(each)
                waiting.extend(self.effects(each))
        return {each: digest for each, digest in sorted(found.items()) if digest}

    # ---- names

    def _resolve(self, module: str, chain: Chain) -> str | None:
        """The definition that a dotted name in `module` refers to, or "<file>:*"; None outside the package."""
        found = self.module(module)
        if found is None:
            return None
        if chain[0] in found.bound:
            return f"{found.file}:{chain[0]}"
        if chain[0] in found.imports:
            return self.target(found.imports[chain[0]], chain[1:])
        stars = [origin[:-2] for name, origin in found.imports.items() if name[0] == "*"]
        for origin in stars:
            if (target := self.target(origin, chain)) and not target.endswith(":*"):
                return target
        return None

    def target(self, origin: str, rest: Chain = ()) -> str | None:
        """The definition that "vtabflow.runtime.compute" and ("resolved",) name together."""
        parts = [*origin.split("."), *rest]
        if parts[0] != self.package.name:
            return None
        name, left = "", parts[1:]
        while left and self.module(".".join([*filter(None, [name]), left[0]])):
            name = ".".join([*filter(None, [name]), left.pop(0)])
        module = self.module(name)
        if module is None:
            return None
        return (self.resolve(name, tuple(left)) if left else None) or f"{module.file}:*"

    def error_kind(self, module: str, chain: Chain) -> str:
        """Whether a name is an exception class: see `syntax.Text`."""
        target = self.resolve(module, chain)
        if target is None:
            return "plain" if len(chain) == 1 and builtin_error(chain[0]) else ""
        file, name = target.split(":")
        bodies = [] if name == "*" else self.of_file(file).bound[name]
        if len(bodies) != 1 or not isinstance(node := bodies[0], ast.ClassDef):
            return ""
        bases = [base for each in node.bases if (base := dotted(each))]
        kinds = {self.error_kind(self.of_file(file).name, base) for base in bases if base != chain} - {""}
        if not kinds:
            return ""
        adds = any(not isinstance(statement, (ast.Pass, ast.Expr)) for statement in node.body)
        return "own" if adds or "own" in kinds else "plain"

    # ---- definitions

    def _definition(self, name: str) -> Definition:
        """The definition of a name; KeyError if there is none."""
        file, _, own = name.partition(":")
        module = self.of_file(file)
        if own.endswith("]"):
            table, _, row = name[:-1].partition("[")
            nodes: list[ast.AST] = [self.rows(table)[row]]
        else:
            nodes = [*(module.statements if own == STATEMENTS else module.bound[own])]

        def inside(statement: ast.stmt) -> bool:
            origins = module.bindings(statement).values()  # type: ignore[arg-type]
            return all(origin.split(".")[0] == self.package.name for origin in origins)

        text = Text(lambda chain: self.error_kind(module.name, chain), inside).write(nodes)
        local: dict[str, str] = {}
        loads = set(text.modules)
        for statement in text.imports:
            local |= module.bindings(statement)
            loads |= module.origins(statement)
        meaning, uses = set(), set()
        for chain in text.chains:
            if chain[0] in local:
                target = self.target(local[chain[0]], chain[1:])
                also = self.resolve(module.name, chain)
                uses |= {also} if also else set()
            else:
                target = self.resolve(module.name, chain)
            if target:
                uses.add(target)
            origin = local.get(chain[0]) or module.imports.get(chain[0])
            if origin:
                # Imports are no definitions: what an imported name stands for is part of each that uses it.
                meaning.add(f"{'.'.join(chain)} = {target or origin}")
        for dynamic in text.modules:
            if target := self.target(dynamic):
                uses.add(target)
        digest = hashlib.sha256("\n".join([str(text), *sorted(meaning)]).encode()).hexdigest()
        return Definition(digest, frozenset(uses - {name}), frozenset(loads), text.computed_import)

    def rows(self, table: str) -> dict[str, ast.AST]:
        """The rows of a table: the values of a dict by key, or what a sequence of calls or tuples names first."""
        file, _, name = table.partition(":")
        value = getattr(self.of_file(file).bound.get(name, [None])[0], "value", None)
        if isinstance(value, ast.Dict):
            pairs = zip(value.keys, value.values, strict=True)
            return {str(key.value): each for key, each in pairs if isinstance(key, ast.Constant)}
        found = {}
        for each in getattr(value, "elts", []):
            first = [*getattr(each, "elts", []), *getattr(each, "args", [])][:1]
            for node in [word.value for word in getattr(each, "keywords", []) if word.arg == "id"] or first:
                if isinstance(node, ast.Constant):
                    found[str(node.value)] = each
        return found

    # ---- what is run on import

    def _loaded(self, name: str) -> frozenset[str]:
        """The module of a dotted name and all that importing it imports, relative to the package."""
        seen: set[str] = set()
        waiting = [name]
        while waiting:
            current = waiting.pop()
            if current in seen or (module := self.module(current)) is None:
                continue
            seen.add(current)
            if current:
                waiting.append(current.rpartition(".")[0])
            waiting.extend(inner for origin in module.imported for inner in self.modules_of(origin))
        return frozenset(seen)

    def modules_of(self, origin: str) -> Iterator[str]:
        """The modules that importing "vtabflow.runtime.compute.resolve_precision" runs, those of parents left out."""
        parts = origin.split(".")
        if parts[0] == self.package.name:
            yield from (name for end in (len(parts) - 1, len(parts)) if self.module(name := ".".join(parts[1:end])))

    def _effects(self, name: str) -> frozenset[str]:
        """What a module does on import apart from defining names: statements, and calls of the package's functions."""
        module = self.module(name)
        if module is None:
            return frozenset()
        found = {f"{module.file}:{STATEMENTS}"} if module.statements else set()
        for bound, statements in module.bound.items():
            if any(self._calls_function(name, statement) for statement in statements):
                found.add(f"{module.file}:{bound}")
        return frozenset(found)

    def _calls_function(self, module: str, statement: ast.stmt) -> bool:
        if isinstance(statement, (ast.Assign, ast.AnnAssign)):
            called = [node.func for node in ast.walk(statement) if isinstance(node, ast.Call)]
        else:
            called = [d.func if isinstance(d, ast.Call) else d for d in getattr(statement, "decorator_list", [])]
        return any(self._is_function(module, chain) for node in called if (chain := dotted(node)))

    def _is_function(self, module: str, chain: Chain) -> bool:
        target = self.resolve(module, chain)
        if target is None or target.endswith(":*"):
            return bool(target)
        file, name = target.split(":")
        return not any(isinstance(node, ast.ClassDef) for node in self.of_file(file).bound[name]) or len(chain) > 1


def _is_docstring(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
