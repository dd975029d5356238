"""Running a study's frozen specs without Snakemake, as on a GPU machine that has none."""

import sys

import pytest
from clones import MICRO, ROOT, Project
from PIL import Image

from vtabflow.runtime.files import read_json

# Put before everything else on the path, as if only torch, numpy, Pillow and safetensors were installed.
GUARD = """
import sys

absent = "pydantic", "pydantic_core", "yaml", "snakemake", "dvc", "pandas", "altair", "vl_convert", "jinja2", "scipy"
sys.modules |= dict.fromkeys(absent)
"""


@pytest.fixture
def steps_alone(micro, tmp_path) -> Project:
    """The same clone on a machine that lacks what the planner and the page need."""
    (tmp_path / "guard").mkdir()
    (tmp_path / "guard/sitecustomize.py").write_text(GUARD)
    project = Project(micro.folder)
    project.env["PYTHONPATH"] = f"{tmp_path / 'guard'}:{project.env['PYTHONPATH']}"
    assert "import of pydantic halted" in project.run(sys.executable, "-c", "import pydantic", check=False).stderr
    return project


def test_a_store_of_listed_images_is_made_without_the_planner(micro, steps_alone):
    (micro.folder / "own").mkdir()
    for number in range(12):
        Image.new("RGB", (20, 20), (20 * number, 9, 9)).save(micro.folder / f"own/{number}.png")
    rows = [f"{number}.png,{'ab'[number % 2]}" for number in range(12)]
    (micro.folder / "own/labels.csv").write_text("\n".join(["file,label", *rows]), "utf-8")
    micro.params(tasks=["own"], budgets=["full"], prepare__folders={"own": {"path": "own"}})
    micro.run("vtabflow", "check")
    specs = micro.folder.glob("results/specs/prepare/*.json")
    (own,) = (path for path in specs if read_json(path)["dataset"] == "own")
    steps_alone.run("vtabflow", "prepare", "--spec", str(own))
    (manifest,) = micro.folder.glob("data/manifests/own/*.json")
    assert sum(read_json(manifest)["counts"].values()) == 12


def test_a_study_runs_from_its_frozen_specs(micro, steps_alone):
    """The same keys and the same accuracies as Snakemake's; a second run makes nothing again."""
    tool = [sys.executable, str(ROOT / "tools/run_specs.py")]
    micro.run(*tool, "freeze", "params.yaml", "specs")
    first = steps_alone.run(*tool, "run", "specs", "--gpus", "", "--jobs", "2").stdout
    assert "FAILED" not in first and "6 jobs, 0 not started, 0 stopped" in first
    before = micro.results()
    assert (
        steps_alone.run(*tool, "run", "specs", "--gpus", "").stdout.splitlines()
        == ["0 jobs, 0 not started, 0 stopped"] * 2
    )
    shown = steps_alone.run(*tool, "table", "specs").stdout
    rows = {line.split("|")[1].strip(): line for line in shown.splitlines()[2:]}
    assert set(rows) == {"From-Scratch", "Sup-100%"} and "class 3.47 to" in rows["Sup-100%"]
    for path, accuracy in micro.accuracies().items():
        score = read_json(micro.folder / path / "score.json")
        assert f" {100 * accuracy:.1f} " in rows["Sup-100%" if score["method"] == "sup-100" else "From-Scratch"]

    done = micro.snakemake()
    assert micro.results() == before and MICRO["budgets"] == ["1k"]
    assert done["report"] == 1
