"""Files are read and written as UTF-8, and not as the locale says."""

import ast

import pytest


def calls_without_encoding(text: str) -> list[str]:
    """Calls that open a file as text and do not name its encoding."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.Call):
            continue
        call = ast.unparse(node)
        if isinstance(node.func, ast.Attribute) and node.func.attr in ("read_text", "write_text"):
            given = [ast.unparse(value) for value in [*node.args, *(word.value for word in node.keywords)]]
            if "'utf-8'" not in given:
                found.append(call)
        elif ast.unparse(node.func) in ("open", "os.fdopen") or is_opened_for_text(node):
            modes = [word.value for word in node.keywords if word.arg == "mode"] + node.args[1:2]
            binary = any("b" in str(mode.value) for mode in modes if isinstance(mode, ast.Constant))
            if not binary and "encoding" not in {word.arg for word in node.keywords}:
                found.append(call)
    return found


def is_opened_for_text(node: ast.Call) -> bool:
    """Path.open with a mode: other things are opened without."""
    mode = node.args[0] if node.args else None
    is_mode = isinstance(mode, ast.Constant) and mode.value in ("r", "w", "a", "x", "r+", "w+")
    return isinstance(node.func, ast.Attribute) and node.func.attr == "open" and is_mode


@pytest.mark.parametrize("folder", ["src", "tools"])
def test_every_text_file_is_opened_as_utf_8(root, folder):
    found = {
        f"{path.relative_to(root)}: {call}"
        for path in (root / folder).rglob("*.py")
        for call in calls_without_encoding(path.read_text("utf-8"))
    }
    assert not found


@pytest.mark.parametrize(
    ("code", "count"),
    [
        ("path.read_text()", 1),
        ("Path(name).write_text(text)", 1),
        ("log.read_text(errors='replace')", 1),
        ("open(path)", 1),
        ("open(path, 'w')", 1),
        ("path.open('w')", 1),
        ("open(path, mode)", 1),
        ("open(path, mode, encoding='utf-8')", 0),
        ("path.read_text('utf-8')", 0),
        ("path.write_text(text, encoding='utf-8')", 0),
        ("open(path, 'rb')", 0),
        ("open(path, mode='wb')", 0),
        ("open(path, encoding='utf-8')", 0),
        ("tree.open(file)", 0),
        ("Image.open(path)", 0),
    ],
)
def test_what_is_found(code, count):
    assert len(calls_without_encoding(code)) == count
