"""The worked examples of CONTRIBUTING.md: each is put into a clone and run, and re-keys nothing else."""

import csv
import json
import re
import sys

import pytest
import yaml
from clones import MICRO, ROOT
from PIL import Image

GUIDE = (ROOT / "CONTRIBUTING.md").read_text()
KEYS = """
import json
from vtabflow.planning.keys import plan
from vtabflow.planning.study import load
p = plan(load("params.yaml"))
print(json.dumps({"stores": sorted(p.stores), "encoders": sorted(p.encoders), "cells": sorted(p.cells),
                  "page": [p.page.key]}))
"""


def example(heading: str) -> dict[str, str]:
    """The blocks of code below a heading, by what their first line says: a file, and where in it."""
    section = re.split(r"^## ", GUIDE, flags=re.MULTILINE)
    (text,) = [part for part in section if part.startswith(heading + "\n")]
    blocks = re.findall(r"```\w+\n# (.*?)\n(.*?)```", text, re.DOTALL)
    assert blocks, f"no example below {heading}"
    return dict(blocks)


def keys(project) -> dict[str, set[str]]:
    return {part: set(found) for part, found in json.loads(project.run(sys.executable, "-c", KEYS).stdout).items()}


def insert(project, file: str, before: str, code: str) -> None:
    path = project.folder / file
    text = path.read_text()
    assert text.count(before) == 1
    path.write_text(text.replace(before, code + before))


def test_a_method_is_one_file(micro):
    before = keys(micro)
    ((file, code),) = example("A method").items()
    (micro.folder / file).write_text(code)
    assert keys(micro) == before
    (line,) = [line for line in micro.run("vtabflow", "methods").stdout.splitlines() if line.startswith("mirror ")]
    assert "Mirror" in line and "self-supervised" in line and "resnet50v2" in line
    micro.params(methods=["from-scratch", "mirror"])
    assert micro.snakemake()["pretrain"] == 2
    rows = list(csv.DictReader((micro.folder / "results/reports/micro/scores.csv").open()))
    assert {row["display"] for row in rows} == {"From-Scratch", "Mirror"} and all(row["accuracy"] for row in rows)
    assert "Mirror" in (micro.folder / "results/reports/micro/index.html").read_text()


def test_a_task_from_images_is_an_entry_of_params_yaml(micro):
    for label in ("robin", "wren"):
        (micro.folder / "birds" / label).mkdir(parents=True)
        for i in range(10):
            Image.effect_noise((20, 20), 30 + i).save(micro.folder / "birds" / label / f"{i}.png")
    before = keys(micro)
    ((file, text),) = example("A task from your own images").items()
    assert file == "params.yaml"
    added = yaml.safe_load(text)
    added["prepare"]["folders"]["my-birds"]["path"] = "birds"
    micro.params(tasks=[*MICRO["tasks"], *added["tasks"]], prepare__folders=added["prepare"]["folders"])
    after = keys(micro)
    assert before["stores"] < after["stores"] and before["encoders"] == after["encoders"]
    assert before["cells"] < after["cells"] and len(after["cells"] - before["cells"]) == 2
    micro.params(tasks=added["tasks"], budgets=["full"], methods=["from-scratch"])
    assert micro.snakemake() == {"prepare": 1, "pretrain": 1, "finetune": 1, "report": 1, "publish": 1}


def test_a_task_from_tfds_is_one_file(micro):
    before = keys(micro)
    ((file, text),) = example("A task from TFDS").items()
    (micro.folder / file).write_text(text)
    assert keys(micro) == before
    micro.params(tasks=[*MICRO["tasks"], "mnist"])
    after = keys(micro)
    assert before["cells"] < after["cells"] and before["stores"] < after["stores"]
    assert before["encoders"] == after["encoders"]
    assert "3 tasks" in micro.run("vtabflow", "check").stdout
    assert "mnist" in micro.run("vtabflow", "data", "plan").stdout


def test_a_network_is_one_file_and_a_row(micro):
    before = keys(micro)
    (file, code), (place, row) = example("A network").items()
    (micro.folder / file).write_text(code)
    assert place == "src/vtabflow/networks/registry.py: in NETWORKS"
    insert(micro, place.split(":")[0], "}\n\n\ndef check", row)
    assert keys(micro) == before
    micro.params(methods=["from-scratch"], tasks=["svhn-standin"], pretrain={"network": "resnet10t"})
    micro.params(prepare__image_size=32)
    assert micro.snakemake()["finetune"] == 1
    (card,) = micro.folder.glob("results/encoders/from-scratch/*/card.json")
    assert json.loads(card.read_text())["features"] == 512


def test_a_figure_is_a_function_and_an_entry(finished):
    before = keys(finished)
    ((place, code),) = example("A figure").items()
    file = place.split(":")[0]
    insert(finished, file, "\nFIGURES: ", "\n" + code + "\n")
    path = finished.folder / file
    text, found = re.subn(r"^(FIGURES: .* = \[.*)\]$", r"\1, budgets_compared]", path.read_text(), flags=re.MULTILINE)
    assert found == 1
    path.write_text(text)
    after = keys(finished)
    assert {part for part in before if before[part] != after[part]} == {"page"}
    finished.params(budgets=["1k", "full"])
    finished.snakemake()
    page = finished.folder / "results/reports/micro"
    assert (page / "figures/budgets-compared.svg").exists() and "budgets-compared" in (page / "index.html").read_text()


@pytest.mark.parametrize("heading", ["A method", "A task from TFDS", "A network", "A figure"])
def test_the_table_of_the_guide_counts_the_lines_of_its_examples(heading):
    lines = sum(len(code.splitlines()) for code in example(heading).values())
    (row,) = [line for line in GUIDE.splitlines() if f"(#{heading.lower().replace(' ', '-')})" in line]
    assert int(row.split("|")[3]) == lines
