"""Code identity: comments and layout change nothing, a changed loss changes its method, on every supported Python alike."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from vtabflow.errors import UserError
from vtabflow.planning.code_identity import CodeLock, closure, unit_digest, units

DIGESTS = "import json; from vtabflow.code import *; print(json.dumps({n: unit_digest(u) for n, u in units().items()}))"


@pytest.fixture
def package(tmp_path, root) -> Path:
    """A copy of the package that a test may edit."""
    copy = tmp_path / "src" / "vtabflow"
    shutil.copytree(root / "src/vtabflow", copy, ignore=shutil.ignore_patterns("__pycache__"))
    return copy


def digests(package: Path) -> dict[str, str]:
    return {name: unit_digest(unit, package) for name, unit in units(package).items()}


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in {path}"
    path.write_text(text.replace(old, new))


def changed_by(package: Path, change) -> set[str]:
    before = digests(package)
    change()
    after = digests(package)
    return {name for name in before | after if before.get(name) != after.get(name)}


def test_comments_layout_and_docstrings_change_nothing(package):
    def change():
        for path in package.rglob("*.py"):
            text = re.sub(r"(?m)^( +)return ", r"\1# a reason\n\n\1return  ", path.read_text())
            path.write_text("# a new first line\n" + text + "\n\n# the end\n")

    assert changed_by(package, change) == set()


def test_a_changed_loss_changes_its_method_alone(package):
    loss = package / "methods/rotation.py"
    text = loss.read_text()

    def change():
        loss.write_text(text.replace("cross_entropy(", "cross_entropy(1.5 * ", 1))

    assert "cross_entropy(" in text
    users = {name for name, unit in units(package).items() if loss in closure(unit, package)}
    assert changed_by(package, change) == users
    assert "methods/rotation" in users and "methods/vae" not in users and "methods/sup" not in users


def test_what_the_steps_share_changes_all_of_them(package):
    shared = package / "files.py"
    everything = set(units(package)) - {"methods/from_scratch"}  # it only declares itself
    assert changed_by(package, lambda: shared.write_text(shared.read_text() + "\nEXTRA = 1\n")) == everything


def test_a_step_changes_what_it_makes(package):
    def in_file(name):
        path = package / name
        return lambda: path.write_text(path.read_text() + "\nEXTRA = 1\n")

    methods = {name for name in units(package) if name.startswith("methods/")} - {"methods/from_scratch"}
    assert changed_by(package, in_file("pretrain/loop.py")) == methods
    assert changed_by(package, in_file("finetune/sweep.py")) == {"finetune"}
    assert changed_by(package, in_file("standins/clevr.py")) == {"standins/clevr"}
    assert changed_by(package, in_file("prepare/folders/source.py")) == {"prepare/folder"}
    assert changed_by(package, in_file("prepare/tfds/labels.py")) == {"prepare/tfds", "prepare/imagenet"}
    assert changed_by(package, in_file("report/page.html.j2")) == {"report"}
    convolutions = changed_by(package, in_file("networks/resnetv2.py"))
    assert {"networks/resnetv2", "methods/vae"} <= convolutions, "the VAE's decoder is made of the same layers"
    assert not {"methods/rotation", "methods/sup", "finetune"} & convolutions
    assert changed_by(package, in_file("study.py")) == set(), "a job reads its spec, not the study"
    assert changed_by(package, in_file("cli.py")) == set()


def test_a_new_method_is_a_new_unit(package):
    found = changed_by(package, lambda: shutil.copy(package / "methods/rotation.py", package / "methods/mine.py"))
    assert found == {"methods/mine"}


def test_jobs_import_no_study_and_no_tables():
    """A job reads only its spec, and runs without pydantic, pandas and altair: the report alone may use the last two."""
    for name, unit in units().items():
        files = {path.name for path in closure(unit)}
        assert not files & {"study.py", "keys.py", "cli.py"}, name


@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13"])
def test_every_python_finds_the_same_digests(version, root):
    here = f"{sys.version_info[0]}.{sys.version_info[1]}"
    python = sys.executable if version == here else _python(version)
    if python is None:
        pytest.skip(f"no Python {version} here")
    env = {**os.environ, "PYTHONPATH": str(root / "src")}
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


def test_accept_and_bump(tmp_path, package):
    path = tmp_path / "code.lock"
    CodeLock(path, package).settle(bump=False)
    lock = CodeLock(path, package)
    assert lock.changed() == [] and lock.identity("methods/rotation") == "1"
    source = package / "methods/rotation.py"
    source.write_text(source.read_text() + "\nEXTRA = 1\n")

    lock = CodeLock(path, package)
    assert "methods/rotation" in lock.changed()
    dirty = lock.identity("methods/rotation")
    assert dirty.startswith("1+") and len(dirty) == 18
    lock.settle(bump=False)
    assert CodeLock(path, package).identity("methods/rotation") == "1", "accepted: the old results stay valid"

    source.write_text(source.read_text() + "\nEXTRA = 2\n")
    CodeLock(path, package).settle(bump=True)
    lock = CodeLock(path, package)
    assert lock.identity("methods/rotation") == "2" and lock.identity("methods/vae") == "1" and lock.changed() == []

    source.unlink()
    lock = CodeLock(path, package)
    assert "methods/rotation" in lock.changed()
    lock.settle(bump=False)
    assert "methods/rotation" not in CodeLock(path, package).locked


def test_bump_of_an_unknown_unit(tmp_path, package):
    with pytest.raises(UserError, match="no code unit methods/nothing"):
        CodeLock(tmp_path / "code.lock", package).settle(bump=True, names=["methods/nothing"])


def test_the_lock_is_not_behind(root):
    behind = CodeLock(root / "code.lock").changed()
    assert not behind, (
        f"code has changed: `vtabflow code accept` (same results) or `bump` (new results) for {', '.join(behind)}"
    )
