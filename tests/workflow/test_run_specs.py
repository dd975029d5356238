"""Running a study's frozen specs without Snakemake, as on a GPU machine that has none."""

import sys

from clones import MICRO, ROOT

from vtabflow.runtime.files import read_json


def test_a_study_runs_from_its_frozen_specs(micro):
    """The same keys and the same accuracies as Snakemake's; a second run makes nothing again."""
    tool = [sys.executable, str(ROOT / "tools/run_specs.py")]
    micro.run(*tool, "freeze", "params.yaml", "specs")
    first = micro.run(*tool, "run", "specs", "--gpus", "", "--jobs", "2").stdout
    assert "FAILED" not in first and "6 jobs, 0 not started, 0 stopped" in first
    before = micro.results()
    assert (
        micro.run(*tool, "run", "specs", "--gpus", "").stdout.splitlines() == ["0 jobs, 0 not started, 0 stopped"] * 2
    )
    shown = micro.run(*tool, "table", "specs").stdout
    rows = {line.split("|")[1].strip(): line for line in shown.splitlines()[2:]}
    assert set(rows) == {"From-Scratch", "Sup-100%"} and "class 3.47 to" in rows["Sup-100%"]
    for path, accuracy in micro.accuracies().items():
        score = read_json(micro.folder / path / "score.json")
        assert f" {100 * accuracy:.1f} " in rows["Sup-100%" if score["method"] == "sup-100" else "From-Scratch"]

    done = micro.snakemake()
    assert micro.results() == before and MICRO["budgets"] == ["1k"]
    assert done["report"] == 1
