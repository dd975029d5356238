"""`vtabflow code verify`; and that units are made of all the functions that really run."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from altered_code import alter

from vtabflow.planning.code.lock import CodeLock
from vtabflow.planning.code.units import Units
from vtabflow.planning.code.verify import STEPS, Case, draw

ROOT = Path(__file__).parents[2]
# Runs a command and writes which functions of the package were called: file and outermost name of each.
TRACED = """
import json, os, sys, threading
import vtabflow
package = os.path.dirname(vtabflow.__file__) + os.sep
called = set()
def note(frame, event, argument):
    code = frame.f_code
    function = code.co_flags & 1  # CO_OPTIMIZED: not the body of a module or a class
    if event == "call" and function and code.co_filename.startswith(package):
        called.add((code.co_filename[len(package):], code.co_qualname.split(".")[0]))
threading.setprofile(note)
sys.setprofile(note)
from vtabflow.cli import main
code = main(sys.argv[2:])
sys.setprofile(None)
json.dump(sorted(called), open(sys.argv[1], "w"))
sys.exit(code)
"""
# Called by the command line, which is no unit.
COMMAND_LINE = {"cli.py", "__main__.py", "runtime/devices.py", "planning/state.py"}
# Called by the command line too, or for the text of a message alone.
NO_RESULT = {"runtime/distributed.py:is_distributed", "prepare/step.py:_peak", "finetune/cell.py:_summary"}


@pytest.fixture(scope="module")
def _repository(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("verify") / "repository"
    shutil.copytree(ROOT / "src/vtabflow", folder / "src/vtabflow", ignore=shutil.ignore_patterns("__pycache__"))
    lock = CodeLock(folder / "code.lock", folder / "src/vtabflow")
    lock.update(lock.units.all)
    for command in (
        ["init", "-q"],
        ["add", "."],
        ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "locked"],
    ):
        subprocess.run(["git", *command], cwd=folder, check=True)
    return folder


@pytest.fixture
def repository(_repository, tmp_path) -> Path:
    """A git repository with a copy of the package and a settled code.lock in its only commit."""
    return Path(shutil.copytree(_repository, tmp_path / "repository"))


def verify(repository: Path, *arguments: str) -> tuple[int, str]:
    env = {**os.environ, "PYTHONPATH": str(repository / "src")}
    command = [sys.executable, "-m", "vtabflow", "code", "verify", *arguments]
    run = subprocess.run(command, cwd=repository, env=env, capture_output=True, text=True)
    return run.returncode, run.stdout + run.stderr


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert text.count(old) == 1, f"{old!r} is {text.count(old)} times in {path}"
    path.write_text(text.replace(old, new))


def test_a_refactored_unit_is_the_same(repository):
    source = repository / "src/vtabflow/prepare/folders/source.py"
    edit(source, "\ndef make(", "\nUNUSED = 1\n\n\ndef make(")
    code, text = verify(repository, "prepare/folder")
    assert code == 0, text
    assert text.splitlines()[:2] == ["same       store verify-task", "same       store verify-upstream"]
    assert text.splitlines()[2].startswith("prepare/folder: same as with the code of ")


@pytest.mark.slow
def test_a_changed_page_is_different_and_of_the_same_scores(repository):
    """The changed finetune step gives the page and its cells other keys, and no other numbers."""
    alter(repository / "src/vtabflow", "finetune/step.py:run")
    template = repository / "src/vtabflow/report/page.html.j2"
    template.write_text(template.read_text() + "<!-- a new line -->")
    code, text = verify(repository, "report")
    assert code == 1, text
    lines = text.splitlines()
    assert [line.split()[2] for line in lines if line.startswith("different")] == ["index.html:"]
    assert {line.split()[1] for line in lines[:-1]} == {"page"} and "same       page scores.csv" in lines


@pytest.mark.slow
def test_a_changed_loss_is_different(repository):
    edit(repository / "src/vtabflow/methods/rotation.py", "F.cross_entropy(", "2 * F.cross_entropy(")
    code, text = verify(repository, "methods/rotation")
    assert code == 1, text
    lines = text.splitlines()
    assert lines[0].startswith("different  encoder rotation: ") and " and " in lines[0]
    assert lines[1:3] == ["same       store verify-task", "same       store verify-upstream"]
    assert lines[3].startswith("methods/rotation: different")


def test_what_cannot_be_verified_is_a_sentence(repository):
    code, text = verify(repository, "prepare/tfds/clevr")
    assert code == 2 and "cannot be verified here" in text and "test_vtab.py" in text
    code, text = verify(repository, "methods/nothing")
    assert code == 2 and "no code unit methods/nothing" in text
    code, text = verify(repository, "prepare/folder", "--against", "nowhere")
    assert code == 2 and "git archive failed" in text
    edit(repository / "src/vtabflow/methods/rotation.py", "F.cross_entropy(", "2 * F.cross_entropy(")
    lock = CodeLock(repository / "code.lock", repository / "src/vtabflow")
    lock.update(["methods/rotation"])
    code, text = verify(repository, "methods/rotation")
    assert code == 2 and "commit code.lock" in text


@pytest.mark.slow
def test_units_are_made_of_all_that_runs(tmp_path):
    """Every function that a step calls belongs to its units: what is left out could change unseen."""
    for number, name in enumerate(("verify-task", "verify-upstream")):
        draw(tmp_path / name, number)
    (tmp_path / "params.yaml").write_text(json.dumps(Case("report", methods=("from-scratch", "rotation")).study()))
    env = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT / "src")}
    subprocess.run([sys.executable, "-m", "vtabflow", "check"], cwd=tmp_path, env=env, check=True, capture_output=True)
    found, missing = Units(), set()
    for step, units in zip(
        STEPS,
        (
            ["prepare/folder"],
            ["methods/rotation", "networks/resnet-small"],
            ["finetune", "networks/resnet-small"],
            ["report"],
        ),
        strict=True,
    ):
        called = set()
        for spec in (tmp_path / "results/specs" / step).glob("*.json"):
            command = [sys.executable, "-c", TRACED, str(tmp_path / "called.json"), step, "--spec", str(spec)]
            subprocess.run(command, cwd=tmp_path, env=env, check=True, capture_output=True)
            called |= {tuple(each) for each in json.loads((tmp_path / "called.json").read_text())}
        known = {each for unit in units for each in found.contents(unit)} | {"methods/from_scratch.py:FromScratch"}
        names = {
            f"{file}:{name}"
            for file, name in called
            if file not in COMMAND_LINE and name[0] != "<" and file.endswith(".py")
        }
        missing |= {f"{step}: {name}" for name in names - known - NO_RESULT}
    assert not missing, "run, and in no unit"
