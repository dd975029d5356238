"""The worked example of CONTRIBUTING.md: adding a method is adding one file."""

import csv
import re

from clones import ROOT


def test_the_method_of_the_guide_runs_from_one_file(micro):
    guide = (ROOT / "CONTRIBUTING.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", guide, re.DOTALL)
    (micro.folder / "src/vtabflow/methods/mirror.py").write_text(code)
    (line,) = [line for line in micro.run("vtabflow", "methods").stdout.splitlines() if line.startswith("mirror ")]
    assert "Mirror" in line and "self-supervised" in line and "resnet50v2" in line
    micro.params(methods=["from-scratch", "mirror"])
    assert micro.snakemake()["pretrain"] == 2
    rows = list(csv.DictReader((micro.folder / "results/reports/micro/scores.csv").open()))
    assert {row["display"] for row in rows} == {"From-Scratch", "Mirror"} and all(row["accuracy"] for row in rows)
    assert "Mirror" in (micro.folder / "results/reports/micro/index.html").read_text()
