"""DVC over it: versions and transport. One long story, since every command of DVC costs seconds."""

import json
import shutil

import numpy as np
import pytest
import yaml
from clones import ROOT, Project, planned
from PIL import Image

from vtabflow.planning.study import Study
from vtabflow.runtime.files import read_json


@pytest.fixture
def versioned(finished, tmp_path) -> Project:
    """The finished clone under git and DVC, with a remote in a folder."""
    return put_under_dvc(finished, str(tmp_path / "remote"))


def put_under_dvc(project: Project, remote: str) -> Project:
    shutil.copytree(
        ROOT / ".dvc", project.folder / ".dvc", ignore=shutil.ignore_patterns("tmp", "cache", "config.local")
    )
    (project.folder / ".gitignore").open("a").write(".home/\n")
    project.run("git", "init", "-q", "-b", "main")
    project.run("dvc", "remote", "add", "-q", "-d", "store", remote)
    project.run("git", "add", "-A")
    project.run("git", "commit", "-qm", "study")
    return project


def ran(output: str) -> list[str]:
    return [stage for stage in ("prepare", "pretrain", "finetune", "report") if f"Running stage '{stage}'" in output]


def test_versions_travel_and_nothing_runs_twice(versioned, tmp_path):
    first = versioned
    assert ran(first.run("dvc", "repro").stdout) == ["prepare", "pretrain", "finetune", "report"]
    assert ran(first.run("dvc", "repro").stdout) == []
    metrics = json.loads(first.run("dvc", "metrics", "show", "--json").stdout)
    shown = metrics[""]["data"]["results/metrics/micro.json"]["data"]
    written = json.loads((first.folder / "results/metrics/micro.json").read_text())
    assert len(written.pop("scores")) > 1 and shown == written, "DVC leaves out lists: the means stay readable"
    assert isinstance(shown["budgets"]["1k"]["sup-100"]["all"], float)
    plots = first.run("dvc", "plots", "show", "-o", "plots").stdout.strip()
    assert plots.endswith(".html") and "Sup-100%" in (first.folder / "plots/index.html").read_text()
    shutil.rmtree(first.folder / "plots")
    first.run("git", "add", "-A")
    first.run("git", "commit", "-qm", "results")
    first.run("dvc", "push", "-q")

    # A second clone after a pull has nothing to do, neither for DVC nor for Snakemake.
    run = first.run("git", "clone", "-q", str(first.folder), str(tmp_path / "second"))
    assert run.returncode == 0
    second = Project(tmp_path / "second")
    second.run("dvc", "pull", "-q")
    assert ran(second.run("dvc", "repro").stdout) == []
    assert planned(second.run("snakemake", "--cores", "all", "--resources", "gpu=4").stderr) == {}
    assert (second.folder / "results/reports/micro/index.html").exists()
    assert not (second.folder / "data/stores").exists(), "stores are made where a job needs them, not copied"

    # An experiment there: a setting of the report runs the report, a learning rate makes the missing stores, each once.
    assert ran(second.run("dvc", "exp", "run", "-S", "report.theme=dark").stdout) == ["report"]
    assert "report.theme" in second.run("dvc", "exp", "show", "--md", "--no-pager").stdout
    manifests = {path: path.read_bytes() for path in second.folder.glob("data/manifests/*/*.json")}
    before = second.results()
    done = second.run("dvc", "exp", "run", "-S", "finetune.learning_rates=[0.2]")
    assert ran(done.stdout) == ["finetune", "report"]
    diff = json.loads(second.run("dvc", "metrics", "diff", "--all", "--json").stdout)["results/metrics/micro.json"]
    assert {"old", "new"} <= diff["budgets.1k.sup-100.all"].keys(), "metrics of a commit and of what is here"
    after = second.results()
    assert after["encoders"] == before["encoders"] and len(after["scores"] - before["scores"]) == 4
    assert len(after["stores"]) == 2, "the tasks' stores; the upstream's is needed by nobody"
    assert {path: path.read_bytes() for path in second.folder.glob("data/manifests/*/*.json")} == manifests
    assert "up to date" in second.run("dvc", "status").stdout


def test_there_and_back_again(versioned):
    """Back to earlier settings: nothing is computed, and DVC's metrics are again those of these settings."""
    project = versioned
    project.run("dvc", "repro")
    metrics = project.folder / "results/metrics/micro.json"
    first, scores = metrics.read_text(), project.results()["scores"]
    project.params(finetune__learning_rates=[0.03])
    project.run("dvc", "repro")
    assert metrics.read_text() != first
    project.params(finetune__learning_rates=[0.1, 0.01])
    assert "report" in ran(project.run("dvc", "repro").stdout)
    assert metrics.read_text() == first and scores < project.results()["scores"]


def test_an_experiment_in_a_copy_of_the_project(micro, tmp_path):
    """`--temp` and `--queue` run below .dvc/tmp, from where ../birds is elsewhere; and they run the copy's own code."""
    rng = np.random.default_rng(0)
    for label in ("robin", "wren"):
        (tmp_path / "birds" / label).mkdir(parents=True)
        for number in range(8):
            picture = Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8))
            picture.save(tmp_path / "birds" / label / f"{number}.png")
    micro.params(tasks=["birds"], budgets=["full"], prepare__folders={"birds": {"path": "../birds"}})
    put_under_dvc(micro, str(tmp_path / "remote"))
    (tmp_path / "other/vtabflow").mkdir(parents=True)
    (tmp_path / "other/vtabflow/__init__.py").write_text("raise ImportError('the code of another clone')\n")
    micro.env["PYTHONPATH"] = str(tmp_path / "other")
    micro.run("dvc", "exp", "run", "--temp", "--name", "one", "-S", "prepare.procedural.upstream=200", "prepare")
    assert "one" in micro.run("dvc", "exp", "list").stdout
    assert not (micro.folder / "data").exists(), "the project itself is left alone"
    kept = [path for path in micro.folder.glob(".dvc/cache/files/**/*") if path.is_file()]
    manifest = next(read_json(path) for path in kept if b'"dataset": "birds"' in path.read_bytes())
    assert manifest["settings"]["path"] == "../birds" and sum(manifest["counts"].values()) == 16


def test_every_parameter_of_the_study_is_followed_from_its_stage_on(root):
    """DVC would not notice a change of a key that no stage lists, or that only an early stage lists."""
    stages = yaml.safe_load((root / "dvc.yaml").read_text())["stages"]
    assert list(stages) == ["prepare", "pretrain", "finetune", "report"]
    listed: set[str] = set()
    for stage in stages.values():
        assert listed <= set(stage["params"])
        listed = set(stage["params"])
    assert listed == set(Study.model_fields) - {"run"}


def test_every_shipped_study_has_the_keys_that_dvc_asks_for(root):
    """DVC refuses a parameter that is not in params.yaml, even if the schema has a default for it."""
    listed = set(yaml.safe_load((root / "dvc.yaml").read_text())["stages"]["report"]["params"])
    for path in [root / "params.yaml", *(root / "studies").glob("*.yaml")]:
        assert listed <= set(yaml.safe_load(path.read_text())), path.name
