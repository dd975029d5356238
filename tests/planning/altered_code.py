"""Altering a copy of the package: by rewriting a file from its syntax tree, so that layout and comments go too."""

import ast
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from vtabflow.planning.code.units import Units


def digests(package: Path) -> dict[str, str]:
    found = Units(package)
    return {name: found.digest(name) for name in found.all}


def changed_by(package: Path, change: Callable[[], object]) -> set[str]:
    before = digests(package)
    change()
    after = digests(package)
    return {name for name in before | after if before.get(name) != after.get(name)}


def rewrite(path: Path, change: Callable[[ast.Module], object]) -> None:
    tree = ast.parse(path.read_text())
    change(tree)
    path.write_text(ast.unparse(ast.fix_missing_locations(tree)))


def alter(package: Path, definition: str) -> None:
    """Change what a definition does: a function gets a statement, a class an attribute, a value becomes a pair."""
    file, _, name = definition.partition(":")
    table, _, row = name.rstrip("]").partition("[")

    def change(tree: ast.Module) -> None:
        for node in tree.body:
            if getattr(node, "name", None) == table:
                node.body.append(ast.parse("altered = 1").body[0])
            elif isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value is not None and _binds(node, table):
                if row:
                    _alter_row(node.value, row)
                else:
                    node.value = ast.Tuple([node.value, ast.Constant(0)], ast.Load())

    rewrite(package / file, change)


@contextmanager
def altered(package: Path, definition: str) -> Iterator[None]:
    """The definition is altered in the block, and as it was afterwards."""
    path = package / definition.partition(":")[0]
    text = path.read_text()
    alter(package, definition)
    try:
        yield
    finally:
        path.write_text(text)


def _binds(node: ast.stmt, name: str) -> bool:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    return any(isinstance(each, ast.Name) and each.id == name for target in targets for each in ast.walk(target))


def _alter_row(table: ast.expr, row: str) -> None:
    if isinstance(table, ast.Dict):
        at = [getattr(key, "value", None) for key in table.keys].index(row)
        value = table.values[at]
        if isinstance(value, ast.Dict):
            value.keys.append(ast.Constant("altered"))
            value.values.append(ast.Constant(0))
        else:
            table.values[at] = ast.Tuple([value, ast.Constant(0)], ast.Load())
    else:
        rows = [each for each in table.elts if any(getattr(node, "value", None) == row for node in ast.walk(each))]
        for each in rows:
            (each.args if isinstance(each, ast.Call) else each.elts).append(ast.Constant(0))


def add_row(package: Path, table: str, like: str, row: str) -> None:
    """Add a row to a table, a copy of the row `like`."""
    file, _, name = table.partition(":")

    def change(tree: ast.Module) -> None:
        (node,) = (n for n in tree.body if isinstance(n, (ast.Assign, ast.AnnAssign)) and _binds(n, name))
        if isinstance(node.value, ast.Dict):
            at = [getattr(key, "value", None) for key in node.value.keys].index(like)
            node.value.keys.append(ast.Constant(row))
            node.value.values.append(node.value.values[at])
        else:
            old = next(e for e in node.value.elts if any(getattr(n, "value", None) == like for n in ast.walk(e)))
            text = ast.unparse(old).replace(repr(like), repr(row))
            node.value.elts.append(ast.parse(text, mode="eval").body)

    rewrite(package / file, change)


class Reword(ast.NodeTransformer):
    """Other docstrings and other texts of errors, prints and help; no annotations of functions."""

    def _documented(self, node):
        self.generic_visit(node)
        if ast.get_docstring(node):
            node.body[0].value = ast.Constant("Something else.")
        return node

    visit_Module = visit_ClassDef = _documented

    def visit_FunctionDef(self, node):
        node.returns = None
        return self._documented(node)

    def visit_arg(self, node):
        node.annotation = None
        return node

    def visit_Raise(self, node):
        if isinstance(node.exc, ast.Call):
            node.exc.args = [ast.Constant("x") if isinstance(a, ast.JoinedStr) else a for a in node.exc.args]
        return node

    def visit_Call(self, node):
        self.generic_visit(node)
        if getattr(node.func, "id", "") in {"print", "UserError", "RunError"}:
            node.args = [ast.Constant("another text")]
        for keyword in node.keywords:
            if keyword.arg == "help":
                keyword.value = ast.Constant("another help")
        return node
