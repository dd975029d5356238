"""What belongs to the code of an entry function, on small packages: what changes its digest, and what does not."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from vtabflow.planning.code.definitions import Definitions

FILES = {
    "__init__.py": '__version__ = "1"\n',
    "step.py": '''"""A step."""

import logging
import warnings

import numpy as np

from pkg import helpers
from pkg.errors import Bad, Wait
from pkg.table import ROWS, look_up
from pkg.helpers import again as repeated

log = logging.getLogger()
RATE = 0.1
UNUSED = 5


def run(spec: dict, times: int = 3) -> float:
    """Run it."""
    # a comment
    if times < 1:
        raise Bad(f"{times} is less than one: give more")
    if times > 100:
        raise Wait("too many", 5)
    print(f"running {times} times")
    log.info("running")
    warnings.warn("slow")
    assert times, "none"
    row = look_up("a")
    return helpers.scaled(times) * RATE + repeated(row) + np.pi + parser().x


def parser():
    import argparse

    top = argparse.ArgumentParser(description="a step")
    top.add_argument("--x", type=int, default=1, help="a number")
    return top.parse_args([])


def failed() -> Bad:
    return Bad("it failed")


def unused() -> int:
    return 1
''',
    "errors.py": """class Bad(Exception):
    'a'


class Wait(Bad):
    def __init__(self, text, seconds):
        self.seconds = seconds
""",
    "helpers.py": """from functools import cache

from pkg.far import Base, LIMIT


def decorate(function):
    return function


@decorate
def scaled(x):
    return Scaler(x).value()


@cache
def again(x: int) -> int:
    return x * 2


class Scaler(Base):
    factor: float = 2.0

    def __init__(self, x):
        self.x = x

    def value(self):
        return self.x * self.factor + self.offset() + LIMIT
""",
    "far.py": "LIMIT = 1\nOTHER = 2\n\n\nclass Base:\n    def offset(self):\n        return 7\n",
    "table.py": """ROWS = {"a": {"n": 1}, "b": {"n": helper()}}


def helper():
    return 3


def look_up(name):
    return ROWS[name]["n"]
""",
}
ENTRIES = ("step.py:run", "step.py:failed", "table.py:ROWS[a]")

ALL_OF_TWO = {"two.py:f", "two.py:g", "two.py:A"}


def reached(folder: Path, files: Mapping[str, str], entries: tuple[str, ...] = ENTRIES) -> dict[str, str]:
    package = folder / "pkg"
    package.mkdir(exist_ok=True)
    for name, text in files.items():
        (package / name).write_text(text)
    return Definitions(package, frozenset({"table.py:ROWS"})).reached(entries)


def edited(file: str, old: str, new: str) -> dict[str, str]:
    assert FILES[file].count(old) == 1, f"{old!r} is {FILES[file].count(old)} times in {file}"
    return {**FILES, file: FILES[file].replace(old, new)}


def test_what_a_function_reaches(tmp_path):
    assert list(reached(tmp_path, FILES)) == sorted(
        [
            *(
                "errors.py:Bad",
                "errors.py:Wait",
                "far.py:Base",
                "far.py:LIMIT",
                "helpers.py:Scaler",
                "helpers.py:again",
            ),
            *("helpers.py:decorate", "helpers.py:scaled", "step.py:RATE", "step.py:failed", "step.py:parser"),
            *("step.py:run", "table.py:ROWS[a]", "table.py:look_up"),
        ]
    )


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("__init__.py", '"1"', '"2"'),
        ("step.py", '"""A step."""', '"""Another."""'),
        ("step.py", '"""Run it."""', '"""Run it slowly."""'),
        ("step.py", "    # a comment\n", "\n\n    # another\n"),
        ("step.py", "spec: dict, times: int = 3) -> float", "spec, times=3)"),
        ("step.py", "is less than one: give more", "is too few"),
        ("step.py", 'f"{times} is less than one: give more"', '"too few", UNUSED'),
        ("step.py", '"too many"', 'f"too many: {times}"'),
        ("step.py", 'print(f"running {times} times")', "print(unused(), times)"),
        ("step.py", 'log.info("running")', 'log.warning("still running")'),
        ("step.py", '"slow"', '"very slow"'),
        ("step.py", 'assert times, "none"', 'assert times, f"none: {times}"'),
        ("step.py", 'description="a step"', 'description="the step"'),
        ("step.py", 'help="a number"', 'help="any number"'),
        ("step.py", 'Bad("it failed")', 'Bad("it has failed")'),
        ("step.py", "UNUSED = 5", "UNUSED = 6"),
        ("step.py", "    return 1\n", "    return 2\n"),
        ("step.py", "import logging\nimport warnings\n", "import warnings\nimport logging\n"),
        ("far.py", "OTHER = 2", "OTHER = 3"),
        ("helpers.py", "def again(x: int) -> int", "def again(x)"),
        ("table.py", '"b": {"n": helper()}', '"b": {"n": 5}, "c": {"n": 6}'),
    ],
)
def test_what_decides_about_no_result_changes_nothing(tmp_path, file, old, new):
    assert reached(tmp_path, edited(file, old, new)) == reached(tmp_path, FILES)


@pytest.mark.parametrize(
    ("file", "old", "new", "changed"),
    [
        ("step.py", "RATE = 0.1", "RATE = 0.2", {"step.py:RATE"}),
        ("step.py", "times: int = 3", "times: int = 4", {"step.py:run"}),
        ("step.py", "times < 1", "times < 2", {"step.py:run"}),
        ("step.py", "raise Bad", "raise ValueError", {"step.py:run"}),
        ("step.py", '"too many", 5', '"too many", 6', {"step.py:run"}),
        ("step.py", "assert times", "assert times > 2", {"step.py:run"}),
        ("step.py", "default=1", "default=2", {"step.py:parser"}),
        ("step.py", 'look_up("a")', 'look_up("b")', {"step.py:run"}),
        ("step.py", "import numpy as np", "import other as np", {"step.py:run"}),
        ("step.py", "again as repeated", "scaled as repeated", {"step.py:run", "helpers.py:again"}),
        ("errors.py", "'a'", "pass; x = 1", {"errors.py:Bad"}),
        ("helpers.py", "return function", "return lambda x: function(x)", {"helpers.py:decorate"}),
        ("helpers.py", "@decorate\n", "", {"helpers.py:scaled", "helpers.py:decorate"}),
        ("helpers.py", "factor: float", "factor: int", {"helpers.py:Scaler"}),
        ("helpers.py", "return x * 2", "return x * 3", {"helpers.py:again"}),
        ("far.py", "return 7", "return 8", {"far.py:Base"}),
        ("far.py", "LIMIT = 1", "LIMIT = 2", {"far.py:LIMIT"}),
        ("far.py", "LIMIT = 1\n", "LIMIT = 1\nLIMIT += 1\n", {"far.py:LIMIT", "far.py:(statements)"}),
        ("far.py", "LIMIT = 1\n", "LIMIT = 1\nprint(set_up())\n", {"far.py:(statements)"}),
        ("table.py", '"a": {"n": 1}', '"a": {"n": 2}', {"table.py:ROWS[a]"}),
        ("table.py", '"a": {"n": 1}', '"a": {"n": helper()}', {"table.py:ROWS[a]", "table.py:helper"}),
        ("table.py", '["n"]', '["m"]', {"table.py:look_up"}),
    ],
)
def test_what_decides_about_results_changes_its_definition(tmp_path, file, old, new, changed):
    before, after = reached(tmp_path, FILES), reached(tmp_path, edited(file, old, new))
    assert {name for name in before | after if before.get(name) != after.get(name)} == changed


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("from pkg import two\ndef run(): return two.f()", {"two.py:f"}),
        ("import pkg.two\ndef run(): return pkg.two.f()", {"two.py:f"}),
        ("import pkg.two as t\ndef run(): return t.f()", {"two.py:f"}),
        ("from . import two\ndef run(): return two.f()", {"two.py:f"}),
        ("from .two import f as g\ndef run(): return g()", {"two.py:f"}),
        ("def run():\n    from pkg.two import f\n    return f()", {"two.py:f"}),
        ("def run():\n    from pkg import two\n    return two.f()", {"two.py:f"}),
        ("from pkg.three import f\ndef run(): return f()", {"two.py:f"}),
        ("from pkg.two import *\ndef run(): return f()", {"two.py:f"}),
        ("from pkg import two\ndef run(): return vars(two)", ALL_OF_TWO),
        ("from pkg import two\ndef run(): return two.missing", ALL_OF_TWO),
        (
            "import importlib\ndef run(): return importlib.import_module('pkg.two')",
            ALL_OF_TWO,
        ),
        (
            "import importlib\ndef run(x): return importlib.import_module(x)",
            {*ALL_OF_TWO, "four.py:h", "five.py:(statements)"},
        ),
        ("try:\n    from pkg.two import f\nexcept ImportError:\n    f = None\ndef run(): return f()", {"two.py:f"}),
        ("class run:\n    x: 'A'\nfrom pkg.two import A", {"two.py:A"}),
        ("from pkg.two import A\nrun = {}\nrun['a'] = A", {"two.py:A"}),
        ("from pkg import two\nrun = 1\ntwo.f()", {"two.py:f"}),
        ("from pkg.two import f\nrun = 1\n@f\ndef other(): pass", {"two.py:f"}),
        ("import pkg.five\ndef run(): pass", {"five.py:(statements)"}),
        ("if __name__ == '__main__':\n    from pkg.two import f\n    f()\ndef run(): pass", set()),
    ],
)
def test_names_are_followed_wherever_they_lead(tmp_path, text, found):
    files = {
        "__init__.py": "",
        "two.py": "def f(): pass\ndef g(): pass\nclass A: pass\n",
        "three.py": "from pkg.two import f\n",
        "four.py": "def h(): pass\n",
        "five.py": "import os\nos.environ['A'] = '1'\n",
        "one.py": text,
    }
    assert {name for name in reached(tmp_path, files, ("one.py:run",)) if name[:3] != "one"} == found


def test_rows_of_a_table_of_calls(tmp_path):
    files = {"t.py": "def Row(*a, **k): pass\nROWS = (Row('a', 1), Row(id='b', n=2), ('c', 3))\n", "__init__.py": ""}
    reached(tmp_path, files, ())
    assert list(Definitions(tmp_path / "pkg").rows("t.py:ROWS")) == ["a", "b", "c"]
