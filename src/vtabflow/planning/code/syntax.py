"""Reading Python files without importing them: literals, and the text of a definition that decides about results."""

import ast
import builtins
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from vtabflow.errors import UserError

Chain = tuple[str, ...]
HELP = {"help", "description", "epilog"}
TAKES_HELP = {"ArgumentParser", "add_argument", "add_argument_group", "add_parser", "add_subparsers", "Field"}
LOGGERS = {"logging", "logger", "log", "_logger", "_log", "LOGGER", "LOG"}
LEVELS = {"debug", "info", "warning", "error", "exception", "critical", "log"}
# Decorators that do not look at a function's annotations, so that these can be left out.
BLIND_DECORATORS = {
    *("abstractmethod", "cache", "cached_property", "classmethod", "contextmanager", "inference_mode", "lru_cache"),
    *("no_grad", "override", "property", "setter", "staticmethod", "wraps"),
}
SKIPPED_FIELDS = {"ctx", "kind", "type_comment", "type_ignores"}


@cache
def _tree(path: Path, changed: int, size: int) -> ast.Module:
    try:
        return ast.parse(path.read_text("utf-8"), str(path))
    except SyntaxError as error:
        raise UserError(f"{path}, line {error.lineno}: {error.msg}; fix the file or remove it") from error


def parse(path: Path) -> ast.Module:
    """The syntax tree of a file, parsed once per version of the file.

    Raises:
        UserError: a syntax error, with its line.
    """
    status = path.stat()
    return _tree(path, status.st_mtime_ns, status.st_size)


def assignments(body: list[ast.stmt]) -> Iterator[tuple[str, ast.expr]]:
    """The names that a module or class assigns, each with the expression."""
    for node in body:
        if isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value is not None:
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                if isinstance(target, ast.Name):
                    yield target.id, node.value


def module_literals(path: Path) -> dict[str, Any]:
    """Module-level names that are assigned a literal, with their values."""
    found = {}
    for name, value in assignments(parse(path).body):
        with suppress(ValueError):
            found[name] = ast.literal_eval(value)
    return found


def classes(path: Path) -> dict[str, ast.ClassDef]:
    """The classes of a file by name."""
    return {node.name: node for node in parse(path).body if isinstance(node, ast.ClassDef)}


def dotted(node: ast.AST) -> Chain | None:
    """The names of `a.b.c`; None for an expression that does not start at a name."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return (node.id, *reversed(parts)) if isinstance(node, ast.Name) else None


class Text:
    """The text of statements without what decides about no result, and the names that the rest refers to.

    Args:
        error_kind: says of a called name whether it is an exception class: "plain" (all its arguments are text),
            "own" (it has an `__init__` of its own) or "" (no exception class).
        inside: whether an import statement's module belongs to the package; such imports are not written.

    Attributes:
        chains: dotted names that are referred to, such as ("compute", "resolved").
        imports: import statements inside functions.
        computed_import: whether a module is imported by a computed name.
    """

    def __init__(self, error_kind: Callable[[Chain], str], inside: Callable[[ast.stmt], bool]):
        self._error_kind, self._inside = error_kind, inside
        self._out: list[str] = []
        self._annotations = False
        self.chains: set[Chain] = set()
        self.imports: list[ast.Import | ast.ImportFrom] = []
        self.modules: set[str] = set()
        self.computed_import = False

    def write(self, node: Any) -> "Text":
        """Add a node (or a list of nodes) to the text."""
        if isinstance(node, list):
            self._out.append("[")
            for item in node:
                self.write(item)
            self._out.append("]")
        elif isinstance(node, ast.AST):
            special = getattr(self, f"_{type(node).__name__}", None)
            if special is None or not special(node):
                self._fields(node)
        else:
            self._out.append(repr(node))
        return self

    def __str__(self) -> str:
        return " ".join(self._out)

    def _fields(self, node: ast.AST, skip: Collection[str] = ()) -> bool:
        self._out.append(f"({type(node).__name__}")
        for name in node._fields:
            value = getattr(node, name, None)
            if name in SKIPPED_FIELDS or name in skip or value is None or value == []:
                continue  # newer Pythons have more fields, empty where they are not used
            self._out.append(name)
            self.write(value)
        self._out.append(")")
        return True

    # Each of these returns whether it has dealt with the node.

    def _Name(self, node: ast.Name) -> bool:
        self.chains.add((node.id,))
        return False

    def _Attribute(self, node: ast.Attribute) -> bool:
        if chain := dotted(node):
            self.chains.add(chain)
            self._out.append(".".join(chain))
        return bool(chain)

    def _FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
        names = [(dotted(d.func if isinstance(d, ast.Call) else d) or ("?",))[-1] for d in node.decorator_list]
        outer, self._annotations = self._annotations, not BLIND_DECORATORS.issuperset(names)
        self._fields(node, () if self._annotations else {"returns"})
        self._annotations = outer
        return True

    def _arg(self, node: ast.arg) -> bool:
        return self._fields(node, () if self._annotations else {"annotation"})

    _AsyncFunctionDef = _FunctionDef

    def _ClassDef(self, node: ast.ClassDef) -> bool:
        self._fields(node, {"body"})
        for statement in node.body:
            if isinstance(statement, ast.AnnAssign):  # a dataclass and typed JSON read the annotations of a class
                self._fields(statement)
                self._names_in_strings(statement.annotation)
            else:
                self.write(statement)
        return True

    def _names_in_strings(self, annotation: ast.expr) -> None:
        for node in ast.walk(annotation):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                with suppress(SyntaxError):
                    self.chains |= {chain for each in ast.walk(ast.parse(node.value)) if (chain := dotted(each))}

    def _AnnAssign(self, node: ast.AnnAssign) -> bool:
        return self._fields(node, {"annotation"})

    def _Assert(self, node: ast.Assert) -> bool:
        return self._fields(node, {"msg"})

    def _Expr(self, node: ast.Expr) -> bool:
        chain = dotted(node.value.func) if isinstance(node.value, ast.Call) else None
        if chain is None:
            return isinstance(node.value, ast.Constant)
        logs = chain[0] in LOGGERS and len(chain) > 1 and chain[-1] in LEVELS
        return logs or chain in {("print",), ("warnings", "warn")}

    def _Raise(self, node: ast.Raise) -> bool:
        self._out.append("(Raise")
        if isinstance(node.exc, ast.Call):
            self._call(node.exc, text=True)
        elif node.exc:
            self.write(node.exc)
        self._out.append(")")
        return True

    def _Call(self, node: ast.Call) -> bool:
        return self._call(node, text=False)

    def _call(self, node: ast.Call, text: bool) -> bool:
        """Write a call without the text that it takes: all arguments of an exception, the help of an option."""
        chain = dotted(node.func)
        self._note_import(node, chain)
        kind = self._error_kind(chain) if chain and chain[-1].lstrip("_")[:1].isupper() else ""
        takes_help = (getattr(node.func, "attr", None) or getattr(node.func, "id", None)) in TAKES_HELP
        if not (kind or text or takes_help):
            return False
        self._out.append("(Call")
        self.write(node.func)
        drops = bool(kind or text)
        self.write([arg for arg in node.args if kind != "plain" and not (drops and _is_text(arg))])
        for keyword in node.keywords if kind != "plain" else ():
            if not (drops and _is_text(keyword.value)) and not (takes_help and keyword.arg in HELP):
                self.write(keyword)
        self._out.append(")")
        return True

    def _note_import(self, node: ast.Call, chain: Chain | None) -> None:
        if chain and chain[-1] in {"import_module", "__import__"}:
            first = node.args[0] if node.args else None
            if isinstance(first, ast.Constant) and isinstance(first.value, str):
                self.modules.add(first.value)
            else:
                self.computed_import = True

    def _Import(self, node: ast.Import | ast.ImportFrom) -> bool:
        self.imports.append(node)
        return self._inside(node)

    _ImportFrom = _Import


def _is_text(node: ast.expr) -> bool:
    if isinstance(node, ast.BinOp):
        return _is_text(node.left) or _is_text(node.right)
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


def builtin_error(name: str) -> bool:
    """Whether a builtin name is an exception whose arguments are text; StopIteration and SystemExit carry a value."""
    return name.endswith(("Error", "Exception", "Warning")) and hasattr(builtins, name)
