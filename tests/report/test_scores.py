"""Means, intervals and comparisons against an independent computation from the accuracies that the test chose."""

import itertools
import json
import math
import random
import statistics
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from report_fakes import METHODS, TASKS, page_spec, write_score, write_scores
from scipy.stats import t as student

from vtabflow.contracts.results import CellCounts
from vtabflow.errors import RunError
from vtabflow.report import scores
from vtabflow.report.cells import count_cells, read_cells
from vtabflow.report.noise import quantile
from vtabflow.report.stats import Results

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
def test_quantile(df):
    assert quantile(df) == pytest.approx(T[df], abs=1e-6)


def noise_of_test(values, n=500):
    """Variance of a cell's mean from its test set, with one right and one wrong answer added."""
    p = (n * statistics.mean(values) + 1) / (n + 2)
    return p * (1 - p) / (n + 2)


def test_means_and_intervals_by_hand():
    """One task: pooled over four methods with three seeds each, 8 degrees of freedom; a group with a task more: 16."""
    spec = page_spec(tasks=TASKS[1:3])
    write_scores(spec, chosen)
    value = {(c.method, c.task, c.budget, c.seed): chosen(c) for c in spec.cells}
    summary = scores.summary_table(results(spec))
    assert " ".join(summary.columns) == "method display family budget scope mean low high balanced n_tasks"
    assert len(summary) == 4 * 2 * 3
    for row in summary.itertuples():
        tasks = [t.id for t in TASKS[1:3] if row.scope in ("all", t.group)]
        cells = {(m.id, t): [value[m.id, t, row.budget, s] for s in (0, 1, 2)] for m in METHODS for t in tasks}
        mine = [cells[row.method, t] for t in tasks]
        mean = statistics.mean(itertools.chain(*mine))
        pooled = [statistics.mean(statistics.variance(cells[m.id, t]) / 3 for m in METHODS) for t in tasks]
        own = sum(statistics.variance(values) / 3 for values in mine)
        training = max(sum(pooled), own, statistics.variance(map(sum, zip(*mine, strict=True))) / 3)
        variance = training + sum(map(noise_of_test, mine))
        df = sum(pooled) ** 2 / sum(part**2 / 8 for part in pooled) * (variance / training) ** 2
        half = student.ppf(0.975, df) * math.sqrt(variance) / len(tasks)
        assert row.mean == pytest.approx(mean, abs=1e-12) and row.n_tasks == len(tasks)
        assert (row.low, row.high) == pytest.approx((max(0, mean - half), min(1, mean + half)), abs=1e-6)


def test_group_mean_weights_tasks_not_seeds():
    spec = page_spec(methods=METHODS[:1], budgets=("1k",))
    natural = [c for c in spec.cells if c.task in ("dtd-standin", "svhn-standin")]
    for cell in natural:
        if not (cell.task == "svhn-standin" and cell.seed):
            write_score(spec, cell, 0.2 if cell.task == "dtd-standin" else 0.8)
    mean = results(spec).mean("from-scratch", "1k", "natural")
    assert mean.mean == pytest.approx(0.5)  # and not (3 x 0.2 + 0.8) / 4
    assert (mean.n_tasks, mean.complete, mean.all_seeds) == (2, True, False)


def test_the_interval_of_one_seed_has_the_default_noise():
    spec = page_spec(seeds=(7,), budgets=("1k",), tasks=TASKS[:2])
    write_scores(spec, lambda c: 0.5)
    summary = scores.summary_table(results(spec))
    half = 1.959964 * math.sqrt((0.02**2 + noise_of_test([0.5])) / 2)
    assert set(summary["scope"]) == {"all", "natural"}
    assert list(summary["low"]) == pytest.approx([0.5 - half] * 8)
    assert list(summary["high"]) == pytest.approx([0.5 + half] * 8)


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


def test_gain_is_over_common_tasks():
    """The variance of seeds is that of the two methods, which is the pooled one where there are no others."""
    spec = page_spec(methods=METHODS[:2], tasks=TASKS[1:], budgets=("1k",))
    write_scores(spec, chosen, skip=lambda c: c.method == "rotation" and c.task == TASKS[3].id)
    value = {(c.method, c.task, c.seed): chosen(c) for c in spec.cells}
    first, second = ([[value[m, t.id, s] for s in (0, 1, 2)] for t in TASKS[1:3]] for m in ("rotation", "from-scratch"))
    gain = results(spec).gain("rotation", "from-scratch", "1k")
    parts = [(statistics.variance(a) + statistics.variance(b)) / 3 for a, b in zip(first, second, strict=True)]
    between = sum(statistics.variance(map(sum, zip(*cells, strict=True))) / 3 for cells in (first, second))
    training = max(sum(parts), between)
    variance = training + sum(map(noise_of_test, first + second))
    df = sum(parts) ** 2 / sum(part**2 / 4 for part in parts) * (variance / training) ** 2
    expected = statistics.mean(itertools.chain(*first)) - statistics.mean(itertools.chain(*second))
    half = student.ppf(0.975, df) * math.sqrt(variance) / 2
    assert (gain.n_tasks, gain.basis) == (2, "seeds")
    assert (gain.gain, gain.low, gain.high) == pytest.approx((expected, expected - half, expected + half))
    assert results(spec).gain("rotation", "from-scratch", "1k", "structured") is None


@pytest.mark.parametrize("n_tasks", [1, 4])
def test_gain_of_one_seed_has_the_noise_of_training_and_tests(n_tasks):
    """The standard error of a mean of differences: the root of the sum of their variances over their number."""
    spec = page_spec(methods=METHODS[:2], tasks=TASKS[:n_tasks], budgets=("1k",), seeds=(0,))
    write_scores(spec, lambda c: 0.6 if c.method == "rotation" else 0.5)
    gain = results(spec).gain("rotation", "from-scratch", "1k")
    of_tests = noise_of_test([0.6]) + noise_of_test([0.5])
    half = 1.959964 * math.sqrt(n_tasks * (2 * 0.02**2 + of_tests)) / n_tasks
    assert gain.basis == "default" and (gain.low, gain.high) == pytest.approx((0.1 - half, 0.1 + half))


@pytest.mark.parametrize(("budgets", "z"), [(("1k",), 2.3940), (("1k", "full"), 2.6383)])
def test_comparisons_with_from_scratch_hold_together(budgets, z):
    """Three methods at one or two budgets: 1 - 0.05 / 3 and 1 - 0.05 / 6, two-sided."""
    spec = page_spec(tasks=TASKS[:1], budgets=budgets, seeds=(0,))
    write_scores(spec, lambda c: 0.5)
    made = results(spec)
    error = math.sqrt(2 * 0.02**2 + 2 * noise_of_test([0.5]))
    assert [gain.high for gain in made.gains("1k").values()] == pytest.approx([z * error] * 3, rel=1e-4)


def test_the_best_is_compared_as_one_of_all_pairs():
    """Four methods: six pairs; three groups: three pairs."""
    spec = page_spec(budgets=("1k",), seeds=(0,))
    write_scores(spec, lambda c: 0.7 if c.method == "sup-100" else 0.5)
    made = results(spec)
    error = math.sqrt(2 * 0.02**2 + noise_of_test([0.5]) + noise_of_test([0.7]))
    ahead = made.ahead_of("sup-100", "1k")
    assert set(ahead) == {"from-scratch", "rotation", "vae"}
    assert ahead["vae"].low == pytest.approx(0.2 - 2.6383 * error / 2, rel=1e-4)
    between = made.between_groups("sup-100", "1k", "natural", "structured")
    assert (between.value, between.high) == pytest.approx((0, 2.3940 * error * math.sqrt(1 / 2 + 1)), abs=1e-5)


def test_cells_that_lack_seeds_have_more_noise():
    """A method with two of three seeds: its mean counts, with the task's variance over two."""
    spec = page_spec(methods=METHODS[:1], tasks=TASKS[:2], budgets=("1k",))
    values = {0: 0.5, 1: 0.52, 2: 0.54}
    write_scores(spec, lambda c: values[c.seed], skip=lambda c: c.task == TASKS[1].id and c.seed == 2)
    mean = results(spec).mean("from-scratch", "1k")
    parts = [0.0004 / 3, 0.0002 / 2]
    variance = sum(parts) + noise_of_test([0.52]) + noise_of_test([0.51])
    df = sum(parts) ** 2 / (parts[0] ** 2 / 2 + parts[1] ** 2 / 1) * (variance / sum(parts)) ** 2
    assert (mean.mean, mean.all_seeds) == (pytest.approx(0.515), False)
    assert mean.high == pytest.approx(0.515 + student.ppf(0.975, df) * math.sqrt(variance) / 2)


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
