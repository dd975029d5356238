"""Means, intervals and comparisons against an independent computation from the accuracies that the test chose."""

import json
import math
import random
import statistics
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from report_fakes import METHODS, TASKS, page_spec, write_score, write_scores

from vtabflow.contracts.results import CellCounts
from vtabflow.errors import RunError
from vtabflow.report import scores
from vtabflow.report.cells import count_cells, read_cells
from vtabflow.report.stats import Results, t_quantile

T = {1: 12.706205, 2: 4.302653, 3: 3.182446, 4: 2.776445, 9: 2.262157, 30: 2.042272}  # printed tables


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def chosen(cell):
    """A made-up accuracy in 0.2..0.8, another for every cell."""
    return 0.2 + 0.6 * random.Random(cell.key).random()


def results(spec):
    return Results(spec, read_cells(spec))


@pytest.mark.parametrize("df", sorted(T))
def test_t_quantile(df):
    assert t_quantile(df) == pytest.approx(T[df], abs=1e-6)


def test_means_and_intervals_by_hand():
    spec = page_spec()
    write_scores(spec, chosen)
    value = {(c.method, c.task, c.budget, c.seed): chosen(c) for c in spec.cells}
    summary = scores.summary_table(results(spec))
    assert " ".join(summary.columns) == "method display family budget scope mean low high balanced n_tasks"
    assert len(summary) == 4 * 2 * 4
    for row in summary.itertuples():
        tasks = [t.id for t in TASKS if row.scope in ("all", t.group)]
        by_seed = [sum(value[row.method, t, row.budget, s] for t in tasks) / len(tasks) for s in (0, 1, 2)]
        half = T[2] * statistics.stdev(by_seed) / math.sqrt(3)
        assert row.mean == pytest.approx(sum(by_seed) / 3, abs=1e-12)
        assert row.low == pytest.approx(max(0, sum(by_seed) / 3 - half), abs=1e-6)
        assert row.high == pytest.approx(min(1, sum(by_seed) / 3 + half), abs=1e-6)
        assert row.n_tasks == len(tasks)


def test_group_mean_weights_tasks_not_seeds():
    spec = page_spec(methods=METHODS[:1], budgets=("1k",))
    natural = [c for c in spec.cells if c.task in ("dtd-standin", "svhn-standin")]
    for cell in natural:
        if not (cell.task == "svhn-standin" and cell.seed):
            write_score(spec, cell, 0.2 if cell.task == "dtd-standin" else 0.8)
    mean = results(spec).mean("from-scratch", "1k", "natural")
    assert mean.mean == pytest.approx(0.5)  # and not (3 x 0.2 + 0.8) / 4
    assert (mean.n_tasks, mean.complete, mean.all_seeds, mean.interval_tasks) == (2, True, False, 1)


def test_one_seed_has_no_interval():
    spec = page_spec(seeds=(7,))
    write_scores(spec, chosen)
    summary = scores.summary_table(results(spec))
    assert summary["low"].isna().all() and summary["high"].isna().all() and summary["mean"].notna().all()


def test_scores_csv_and_states(tmp_path):
    spec = page_spec()
    broken, absent = spec.cells[0].key, spec.cells[1].key
    write_scores(spec, lambda c: None if c.key == broken else chosen(c), skip=lambda c: c.key == absent)
    cells = read_cells(spec)
    scores.scores_table(cells).to_csv("scores.csv", index=False)
    table = pd.read_csv("scores.csv").set_index("key", drop=False)
    assert " ".join(table.columns) == (
        "study method display family task group source budget seed evaluation accuracy balanced_accuracy"
        " val_accuracy learning_rate steps n_train n_val n_test seconds status key"
    )
    assert count_cells(cells) == CellCounts(ok=94, failed=1, missing=1)
    assert table.loc[broken, "status"] == "failed" and math.isnan(table.loc[broken, "accuracy"])
    assert table.loc[absent, "status"] == "missing" and math.isnan(table.loc[absent, "n_test"])
    cell = spec.cells[2]
    row = table.loc[cell.key]
    assert row["accuracy"] == pytest.approx(chosen(cell)) and row["steps"] == 60 and row["n_train"] == 800
    assert ",60.0," not in (tmp_path / "scores.csv").read_text()


def test_summary_json_and_plots():
    spec = page_spec(methods=METHODS[:2], seeds=(0,))
    write_scores(spec, chosen, skip=lambda c: c.method == "rotation" and c.budget == "full")
    made = results(spec)
    summary = scores.summary_json(spec, made, count_cells(made.cells))
    assert summary["cells"] == {"ok": 12, "failed": 0, "missing": 4}
    assert summary["budgets"]["full"]["rotation"] == {"n_tasks": 0}
    values = [chosen(c) for c in spec.cells if c.method == "rotation" and c.budget == "1k"]
    assert summary["budgets"]["1k"]["rotation"]["all"] == round(sum(values) / 4, 4)
    assert set(summary["budgets"]["1k"]["rotation"]) == {"all", "natural", "specialized", "structured", "n_tasks"}
    json.dumps(summary, allow_nan=False)
    plots = scores.plots_table(scores.summary_table(made))
    assert list(plots.columns) == ["method", "1k", "1k tasks", "full", "full tasks"] and len(plots) == 2
    row = plots.set_index("method").loc["Rotation"]
    assert row["1k"] == round(100 * sum(values) / 4, 2) and row.isna()["full"]
    assert (row["1k tasks"], row["full tasks"]) == (4, 0)


def test_gain_is_paired_and_over_common_tasks():
    spec = page_spec(methods=METHODS[:2], budgets=("1k",))
    lost = "dmlab-standin"
    write_scores(spec, chosen, skip=lambda c: c.method == "rotation" and c.task == lost)
    value = {(c.method, c.task, c.seed): chosen(c) for c in spec.cells}
    tasks = [t.id for t in TASKS if t.id != lost]
    by_seed = [sum(value["rotation", t, s] - value["from-scratch", t, s] for t in tasks) / 3 for s in (0, 1, 2)]
    gain = results(spec).gain("rotation", "from-scratch", "1k")
    half = T[2] * statistics.stdev(by_seed) / math.sqrt(3)
    assert (gain.n_tasks, gain.basis) == (3, "seeds")
    assert gain.gain == pytest.approx(sum(by_seed) / 3)
    assert (gain.low, gain.high) == pytest.approx((sum(by_seed) / 3 - half, sum(by_seed) / 3 + half), abs=1e-6)
    assert results(spec).gain("rotation", "from-scratch", "1k", "structured") is None


@pytest.mark.parametrize("n_tasks", [1, 4])
def test_gain_of_one_seed_has_the_binomial_interval(n_tasks):
    """The standard error of a mean of differences: the root of the sum of their variances over their number."""
    spec = page_spec(methods=METHODS[:2], tasks=TASKS[:n_tasks], budgets=("1k",), seeds=(0,))
    write_scores(spec, lambda c: 0.6 if c.method == "rotation" else 0.5)
    gain = results(spec).gain("rotation", "from-scratch", "1k")
    half = 1.959964 * math.sqrt(n_tasks * (0.6 * 0.4 / 500 + 0.5 * 0.5 / 500)) / n_tasks
    assert gain.basis == "tests" and (gain.low, gain.high) == pytest.approx((0.1 - half, 0.1 + half))


def test_gain_over_tasks_that_lack_seeds():
    """The interval is over the tasks with all seeds, the gain over all; without such a task there is no interval."""
    spec = page_spec(methods=METHODS[:2], tasks=TASKS[:2], budgets=("1k",))
    write_scores(spec, chosen, skip=lambda c: c.method == "rotation" and c.task == TASKS[1].id and c.seed == 2)
    value = {(c.method, c.task, c.seed): chosen(c) for c in spec.cells}
    first, second = (
        [value["rotation", task.id, s] - value["from-scratch", task.id, s] for s in seeds]
        for task, seeds in zip(TASKS[:2], [(0, 1, 2), (0, 1)], strict=True)
    )
    gain = results(spec).gain("rotation", "from-scratch", "1k")
    assert gain.n_tasks == 2 and gain.gain == pytest.approx((statistics.mean(first) + statistics.mean(second)) / 2)
    assert gain.high - gain.gain == pytest.approx(T[2] * statistics.stdev(first) / math.sqrt(3), abs=1e-6)
    alone = page_spec(study="alone", methods=METHODS[:2], tasks=TASKS[1:2], budgets=("1k",))
    gain = results(alone).gain("rotation", "from-scratch", "1k")
    assert (gain.n_tasks, gain.low, gain.high, gain.significant) == (1, None, None, False)


def test_intervals_of_means_stay_within_0_and_1():
    spec = page_spec(methods=METHODS[:2], budgets=("1k",))
    write_scores(spec, lambda c: (0.0, 0.1, 0.0)[c.seed] if c.method == "rotation" else (1.0, 0.9, 1.0)[c.seed])
    assert results(spec).mean("rotation", "1k").low == 0.0 and results(spec).mean("from-scratch", "1k").high == 1.0


def test_one_seed_without_a_number_of_test_images_has_no_interval():
    spec = page_spec(methods=METHODS[:2], budgets=("1k",), seeds=(0,))
    write_scores(spec, chosen)
    cells = [replace(cell, n_test=None) if cell.task == TASKS[0].id else cell for cell in read_cells(spec)]
    gain = Results(spec, cells).gain("rotation", "from-scratch", "1k")
    assert (gain.n_tasks, gain.low, gain.high, gain.significant) == (4, None, None, False)


def test_methods_with_one_display_name_get_their_ids():
    display = results(page_spec(methods=[*METHODS[:2], replace(METHODS[2], display="Rotation")])).display
    assert display == {"from-scratch": "From-Scratch", "rotation": "Rotation (rotation)", "vae": "Rotation (vae)"}


def test_ranking_puts_incomplete_methods_behind():
    spec = page_spec(budgets=("1k",), seeds=(0,))
    base = {"from-scratch": 0.3, "rotation": 0.5, "vae": 0.2, "sup-100": 0.9}
    write_scores(spec, lambda c: base[c.method], skip=lambda c: c.method == "sup-100" and c.task == "dtd-standin")
    assert results(spec).row_order("1k") == ["rotation", "from-scratch", "vae", "sup-100"]
    assert results(spec).ranked("1k") == ["rotation", "from-scratch", "vae"]


@pytest.mark.parametrize("accuracy", [67.3, -0.1, 1.0001, float("nan"), "0.5", None])
def test_an_accuracy_outside_0_to_1_is_refused(accuracy):
    spec = page_spec()
    write_score(spec, spec.cells[0], 0.5)
    path = Path(spec.cells[0].folder, "score.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"accuracy": accuracy}))
    with pytest.raises(RunError, match="accuracy"):
        read_cells(spec)


def test_a_score_of_another_cell_and_a_torn_one_are_refused():
    spec = page_spec()
    first, second = spec.cells[:2]
    write_score(spec, replace(first, folder=second.folder), 0.5)
    with pytest.raises(RunError, match=second.key):
        read_cells(spec)
    Path(second.folder, "score.json").write_text('{"key": "')
    with pytest.raises(RunError, match="cannot be read"):
        read_cells(spec)
