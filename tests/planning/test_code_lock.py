"""code.lock: what is locked, what `vtabflow code` says of changes, and what accept and bump do with them."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from altered_code import alter

from vtabflow.errors import UserError
from vtabflow.planning.code.lock import CodeLock

ROOT = Path(__file__).parents[2]
STUDY = """
study: tiny
methods: [from-scratch, rotation, vae]
tasks: [svhn-standin, eurosat-standin]
upstream: upstream-standin
"""


@dataclass
class Project:
    """A folder with a copy of the package and a settled code.lock."""

    folder: Path

    @property
    def package(self) -> Path:
        return self.folder / "src/vtabflow"

    def lock(self) -> CodeLock:
        return CodeLock(self.folder / "code.lock", self.package)

    def code(self, *arguments: str) -> tuple[int, str]:
        env = {**os.environ, "PYTHONPATH": str(self.folder / "src")}
        command = [sys.executable, "-m", "vtabflow", "code", *arguments]
        run = subprocess.run(
            command, cwd=self.folder, env=env, capture_output=True, text=True, stdin=subprocess.DEVNULL
        )
        return run.returncode, run.stdout + run.stderr


@pytest.fixture(scope="module")
def _settled(tmp_path_factory) -> Project:
    project = Project(tmp_path_factory.mktemp("settled") / "project")
    shutil.copytree(ROOT / "src/vtabflow", project.package, ignore=shutil.ignore_patterns("__pycache__"))
    (project.folder / "params.yaml").write_text(STUDY)
    lock = project.lock()
    lock.update(lock.units.all)
    return project


@pytest.fixture
def project(_settled, tmp_path) -> Project:
    shutil.copytree(_settled.folder, tmp_path / "project")
    return Project(tmp_path / "project")


def test_accept_keeps_the_version_and_bump_raises_it(project):
    lock = project.lock()
    assert lock.changed() == [] and lock.identity("methods/rotation") == "1"
    alter(project.package, "methods/rotation.py:Rotation")

    lock = project.lock()
    assert lock.changed() == ["methods/rotation"]
    changed = lock.identity("methods/rotation")
    assert changed.startswith("1+") and len(changed) == 18
    assert lock.update(["methods/rotation", "methods/vae"]) == ["methods/rotation"]
    lock = project.lock()
    assert lock.changed() == [] and lock.identity("methods/rotation") == "1", "accepted: old results stay valid"

    alter(project.package, "methods/rotation.py:Rotation")
    assert project.lock().update(["methods/rotation"], bump=True) == ["methods/rotation"]
    lock = project.lock()
    assert lock.changed() == [] and lock.identity("methods/rotation") == "2" and lock.identity("methods/vae") == "1"

    (project.package / "methods/rotation.py").unlink()
    lock = project.lock()
    assert "methods/rotation" in lock.changed()
    lock.update(["methods/rotation"])
    assert "methods/rotation" not in project.lock().locked


def test_an_unknown_unit_is_refused(project):
    with pytest.raises(UserError, match="no code unit methods/nothing"):
        project.lock().update(["methods/nothing"], bump=True)


def test_a_lock_of_the_old_form_is_read_and_accept_migrates_it(project):
    path = project.folder / "code.lock"
    path.write_text(json.dumps({"methods/rotation": {"version": 4, "digest": "0123456789abcdef"}}))
    lock = project.lock()
    assert lock.identity("methods/rotation").startswith("4+")
    code, text = project.code("status")
    assert code == 1 and "older version" in text
    assert project.code("accept", "--all")[0] == 0
    lock = project.lock()
    assert lock.changed() == [] and lock.identity("methods/rotation") == "4" and lock.identity("methods/vae") == "1"
    assert project.code("status") == (0, "code.lock is up to date\n")


def test_a_lock_that_is_no_json_is_refused(project):
    (project.folder / "code.lock").write_text("<<<<<<< HEAD")
    with pytest.raises(UserError, match="restore it from git"):
        project.lock()


def test_status_names_definition_file_and_what_would_run_again(project):
    alter(project.package, "methods/rotation.py:Rotation")
    alter(project.package, "standins/svhn.py:draw")
    (project.package / "methods/rotation.py").write_text(
        (project.package / "methods/rotation.py")
        .read_text()
        .replace("rotations(", "turned(")
        .replace(
            "import inception_preprocess, rotations",
            "import inception_preprocess\nfrom vtabflow.methods.mine import turned",
        )
    )
    (project.package / "methods/mine.py").write_text("def turned(x):\n    return x\n")
    code, text = project.code("status")
    assert code == 1
    lines = text.splitlines()
    at = lines.index("methods/rotation")
    assert lines[at + 1 : at + 3] == [
        "    changed  Rotation in methods/rotation.py",
        "    added    turned in methods/mine.py",
    ]
    assert lines[lines.index("standins/svhn") + 1] == "    changed  draw in standins/svhn.py"
    # rotation: its 2 tasks x 2 budgets; the svhn store: all 3 methods x 2 budgets, of which 2 are rotation's.
    assert (
        "of params.yaml would run again: 1 of 3 stores, 1 of 3 encoders (rotation), 8 of 12 cells; and the page" in text
    )
    project.code("accept", "methods/rotation")
    code, text = project.code("status")
    assert code == 1 and "rotation.py" not in text and "0 of 3 encoders, 6 of 12 cells" in text


def test_status_names_what_no_unit_uses_any_more(project):
    path = project.package / "standins/clevr.py"
    text = path.read_text().replace("def places(", "def spots(").replace("places(rng", "spots(rng")
    path.write_text(text)
    code, shown = project.code("status")
    assert code == 1 and "added    spots in standins/clevr.py" in shown
    assert "used by no unit any more:\n    places in standins/clevr.py" in shown


def test_a_definition_is_locked_anew_when_all_its_units_are(project):
    alter(project.package, "methods/base.py:Method")
    before = project.lock().definitions["methods/base.py:Method"]
    project.lock().update(["methods/rotation"])
    lock = project.lock()
    assert lock.definitions["methods/base.py:Method"] == before
    assert lock.changes("methods/vae").changed == ["methods/base.py:Method"]
    lock.update(lock.changed())
    assert project.lock().definitions["methods/base.py:Method"] != before


@pytest.mark.parametrize("action", ["accept", "bump"])
def test_without_names_nothing_is_taken_unless_all_is_said(project, action):
    alter(project.package, "methods/rotation.py:Rotation")
    alter(project.package, "finetune/step.py:run")
    before = (project.folder / "code.lock").read_text()
    code, text = project.code(action)
    assert code == 2 and f"would {action} 2 units (finetune, methods/rotation)" in text and "--all" in text
    assert (project.folder / "code.lock").read_text() == before
    code, text = project.code(action, "--all")
    assert code == 0 and text == f"{action}: finetune, methods/rotation\n"
    assert project.code(action) == (0, f"{action}: nothing had changed\n")
