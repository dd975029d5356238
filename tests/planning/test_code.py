"""The units of code of the package itself: exactly the right ones change, on every supported Python alike."""

import ast
import json
import os
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from altered_code import Reword, add_row, alter, altered, changed_by, digests, rewrite

from vtabflow.planning.code.lock import CodeLock
from vtabflow.planning.code.units import LABEL_RULES, NAMED_IMPORTS, NETWORKS, TABLES, Units

DIGESTS = """
import json
from vtabflow.planning.code.units import Units
units = Units()
print(json.dumps({name: units.digest(name) for name in units.all}))
"""

RESNETS = ("resnet50v2", "resnet50v2-patch", "resnet-small")


@pytest.fixture
def package(tmp_path, root) -> Path:
    """A copy of the package that a test may edit."""
    copy = tmp_path / "src" / "vtabflow"
    shutil.copytree(root / "src/vtabflow", copy, ignore=shutil.ignore_patterns("__pycache__"))
    return copy


def test_comments_and_layout_change_nothing(package):
    def change():
        for path in package.rglob("*.py"):
            text = re.sub(r"(?m)^( +)return ", r"\1# a reason\n\n\1return  ", path.read_text())
            path.write_text("# a new first line\n" + text + "\n\n# the end\n")

    assert changed_by(package, change) == set()


def test_reworded_docstrings_errors_prints_and_help_change_nothing(package):
    def change():
        for path in package.rglob("*.py"):
            rewrite(path, Reword().visit)

    assert changed_by(package, change) == set()


def test_a_new_network_is_a_new_unit_and_changes_no_other(package):
    assert changed_by(package, lambda: add_row(package, NETWORKS, "resnet-small", "mine")) == {"networks/mine"}


def test_a_new_dataset_and_task_is_a_new_unit_and_changes_no_other(package):
    datasets, labels = package / "prepare/tfds/datasets", package / "prepare/tfds/labels.py"

    def change():
        text = (datasets / "clevr.yaml").read_text().replace("clevr-count", "mine").replace("clevr_count", "mine")
        (datasets / "mine.yaml").write_text(text)
        labels.write_text(labels.read_text() + "\n\ndef mine(example):\n    return 0\n")
        add_row(package, LABEL_RULES, "clevr_count", "mine")

    assert changed_by(package, change) == {"prepare/tfds/mine"}


def test_a_changed_row_changes_its_units_alone(package):
    assert changed_by(package, lambda: alter(package, f"{NETWORKS}[vit-small]")) == {"networks/vit-small"}
    assert changed_by(package, lambda: alter(package, f"{LABEL_RULES}[clevr_count]")) == {"prepare/tfds/clevr"}
    assert changed_by(package, lambda: alter(package, "prepare/tfds/labels.py:clevr_count")) == {"prepare/tfds/clevr"}
    svhn = package / "prepare/tfds/datasets/svhn.yaml"
    assert changed_by(package, lambda: svhn.write_text("# a comment\n" + svhn.read_text())) == set()
    assert changed_by(package, lambda: svhn.write_text(svhn.read_text() + "\nscale: 2\n")) == {"prepare/tfds/svhn"}


def test_a_new_figure_changes_the_page_alone(package):
    path = package / "report/figures.py"

    def change():
        path.write_text(path.read_text() + "\n\ndef mine(results):\n    return results\n")
        rewrite(
            path,
            lambda tree: next(n for n in tree.body if getattr(n, "name", "") == "figures").body.insert(
                0, ast.parse("mine(None)").body[0]
            ),
        )

    assert changed_by(package, change) == {"report"}


def test_a_new_method_is_a_new_unit(package):
    def change():
        text = (package / "methods/rotation.py").read_text()
        (package / "methods/mine.py").write_text(text.replace('"rotation"', '"mine"', 1))

    assert changed_by(package, change) == {"methods/mine"}


def test_a_changed_definition_changes_the_units_that_use_it(package):
    before = digests(package)
    methods = {name for name in before if name.startswith("methods/")}
    for definition, expected in {
        "methods/rotation.py:Rotation": {"methods/rotation"},
        "methods/base.py:Method": methods,
        "pretrain/loop.py:train": methods - {"methods/from_scratch"},
        "finetune/step.py:run": {"finetune"},
        "standins/clevr.py:scene": {"standins/clevr"},
        "prepare/folders/source.py:make": {"prepare/folder"},
        "networks/resnetv2.py:ResNetV2": {f"networks/{name}" for name in RESNETS},
        "planning/study.py:load": set(),
        "planning/keys.py:plan": set(),
        "cli.py:main": set(),
    }.items():
        with altered(package, definition):
            after = digests(package)
        assert {name for name in before if before[name] != after[name]} == expected, definition


def test_a_changed_template_changes_the_page(package):
    page = package / "report/page.html.j2"
    assert changed_by(package, lambda: page.write_text(page.read_text() + "<!-- -->")) == {"report"}


def test_any_reached_definition_changes_its_units_when_it_is_altered(package):
    """25 definitions, drawn: a unit that has one of them gets another digest, and one that has not keeps its own."""
    rng = random.Random(0)
    found = Units(package)
    users: dict[str, list[str]] = {}
    for name in found.all:
        for each in found.contents(name):
            users.setdefault(each, []).append(name)
    for definition in rng.sample(sorted(each for each in users if ":" in each and "(" not in each), 25):
        name = rng.choice(users[definition])
        other = rng.choice([name for name in found.all if name not in users[definition]] or [None])
        with altered(package, definition):
            after = Units(package)
            assert after.digest(name) != found.digest(name), f"{definition} of {name}"
            assert other is None or after.digest(other) == found.digest(other), f"{definition} of {other}"


def test_units_are_named_as_keys_ask_for_them():
    found = Units().all
    expected = {"finetune", "report", "prepare/folder", "prepare/imagenet", "prepare/tfds/clevr", "networks/vit-s16"}
    assert expected | {"methods/from_scratch", "standins/upstream"} <= found.keys()


def test_tables_and_named_imports_exist():
    """A table that was renamed would silently count for nothing."""
    found = Units()
    for table in TABLES:
        assert found.definitions.rows(table), table
    reached = {each for name in found.all for each in found.contents(name)}
    computed = {each for each in reached if ":" in each and found.definitions.definition(each).computed_import}
    assert computed == NAMED_IMPORTS


def test_jobs_use_no_study():
    """A job reads its spec alone, and runs without pydantic."""
    found = Units()
    for name in found.all:
        files = {each.partition(":")[0] for each in found.contents(name) if "(statements)" not in each}
        assert not files & {"planning/study.py", "planning/settings.py", "planning/keys.py", "cli.py"}, name


@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13"])
def test_every_python_finds_the_same_digests(version, root, tmp_path):
    here = f"{sys.version_info[0]}.{sys.version_info[1]}"
    python = sys.executable if version == here else _python(version)
    if python is None:
        pytest.skip(f"no Python {version} here")
    # All that another Python needs of the environment is PyYAML, which runs without its part in C.
    (tmp_path / "yaml").symlink_to(Path(yaml.__file__).parent)
    env = {**os.environ, "PYTHONPATH": f"{root / 'src'}:{tmp_path}"}
    out = subprocess.run([python, "-c", DIGESTS], capture_output=True, text=True, env=env, check=True).stdout
    assert json.loads(out) == digests(root / "src/vtabflow")


def _python(version: str) -> str | None:
    candidates = [
        shutil.which(f"python{version}"),
        *sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python")),
    ]
    for candidate in filter(None, candidates):
        answer = subprocess.run(
            [candidate, "-c", "import sys; print(sys.version_info[:2])"], capture_output=True, text=True
        )
        if answer.stdout.strip() == f"({version.replace('.', ', ')})":
            return str(candidate)
    return None


def test_the_lock_is_not_behind(root):
    behind = CodeLock(root / "code.lock").changed()
    assert not behind, (
        f"code has changed: `vtabflow code accept` (same results) or `bump` (new results) for {', '.join(behind)}"
    )
