"""What a newcomer does: make report, the whole demo, then the same answer with three seeds."""

import csv
import os
import sys
import time
from pathlib import Path

import pytest
from clones import copy_project, planned

from vtabflow.runtime.files import read_json


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_the_demo_answers_the_question(tmp_path):
    demo = copy_project(tmp_path / "clone")  # no git, no results, an empty home
    venv = str(Path(sys.executable).parents[1])
    make = ["make", "report", f"VENV={venv}", "-o", f"{venv}/.made"]
    began, before = time.monotonic(), os.times()
    shown = demo.run(*make).stdout
    seconds, after = time.monotonic() - began, os.times()
    processor = after.children_user + after.children_system - before.children_user - before.children_system
    training = training_seconds(demo)
    print(f"the demo took {seconds:.0f} s, {processor:.0f} s of processor time, {training:.0f} s of them training")
    assert "684: 684 done" in shown and "results/reports/demo/index.html" in shown
    assert seconds < 1800, "a newcomer's first study"
    assert training > 0.8 * processor, "processor time goes into training, not into imports"
    memory = [rss for path in demo.folder.glob("results/benchmarks/*/**/*.tsv") for rss in peak_megabytes(path)]
    assert len(memory) > 30 and max(memory) < 4000
    assert planned(demo.run("snakemake", "--cores", "all", "--resources", "gpu=4").stderr) == {}

    before = demo.results()["scores"]
    demo.run(*make, "STUDY=seeds")
    assert len(demo.results()["scores"] - before) == 28, "the first seed is the demo's"
    means = {method: seed_means(demo, method) for method in ("from-scratch", "sup-100")}
    gain = min(means["sup-100"]) - max(means["from-scratch"])
    spread = max(max(values) - min(values) for values in means.values())
    print(f"natural stand-ins, 1k, by seed: {means}")
    assert gain > spread, "supervised pre-training beats From-Scratch by more than the spread of the seeds"


def training_seconds(project) -> float:
    """Seconds that pre-training loops and cells took; every job has one core to itself."""
    results = [
        *project.folder.glob("results/encoders/*/*/card.json"),
        *project.folder.glob("results/scores/**/score.json"),
    ]
    return sum(read_json(path)["seconds"] for path in results)


def peak_megabytes(benchmark: Path) -> list[float]:
    rows = csv.DictReader(benchmark.open(), delimiter="\t")
    return [float(row["max_rss"]) for row in rows if row["max_rss"] not in {"-", "NA"}]


def seed_means(project, method: str) -> list[float]:
    """Mean accuracy over the seven natural stand-ins at 1k, for each of the three seeds."""
    rows = csv.DictReader((project.folder / "results/reports/seeds/scores.csv").open())
    found: dict[str, list[float]] = {}
    for row in rows:
        if row["method"] == method:
            found.setdefault(row["seed"], []).append(float(row["accuracy"]))
    assert len(found) == 3 and all(len(values) == 7 for values in found.values())
    return [sum(values) / 7 for values in found.values()]


def test_a_card_says_what_an_encoder_is(finished):
    card = read_json(next(finished.folder.glob("results/encoders/sup-100/*/card.json")))
    assert card["method"] == "sup-100" and card["family"] == "supervised" and card["network"] == "resnet-small"
    assert card["losses"]["start"]["class"] == pytest.approx(3.4657, abs=0.01), "ln 32 at a zero head"
    assert {"seconds", "images_per_second", "peak_memory_bytes", "machine", "versions", "probe", "spec"} <= set(card)
