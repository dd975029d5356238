"""`vtabflow compare`: two runs whose differences the test chose, against values from formulas."""

import csv
import json
import math

import numpy as np
import pytest
from report_fakes import TASKS, page_spec, write_scores
from scipy.stats import t as student

from vtabflow.cli import main
from vtabflow.report import scores
from vtabflow.report.cells import count_cells, read_cells
from vtabflow.report.compare import compare, load
from vtabflow.report.noise import Cell
from vtabflow.report.stats import Results


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


HEAD = "method,task,budget,seed,accuracy,n_test\n"


def write(name, table, n_test=500, budget="1k", seed=0):
    """A scores.csv of methods x tasks."""
    with open(name, "w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["study", "method", "task", "budget", "seed", "accuracy", "n_test"])
        for m, row in enumerate(table):
            for t, value in enumerate(row):
                writer.writerow(["s", f"m{m}", f"t{t}", budget, seed, value, n_test if value != "" else ""])
    return name


def run(capsys, *names):
    """Exit code and output of the command."""
    code = main(["compare", *names])
    return code, "".join(capsys.readouterr())


def random_table(shape=(6, 7), noise=0.02):
    random = np.random.default_rng(0)
    table = 0.3 + 0.4 * random.random(shape)
    return table, table + noise * random.standard_normal(shape)


def test_noise_agrees_and_a_changed_method_differs(capsys):
    before, after = random_table()
    write("a.csv", before)
    code, text = run(capsys, "a.csv", write("b.csv", after))
    assert code == 0 and text.startswith("a.csv and b.csv agree within noise, in all 14 means over 42 cells")
    after[2] -= 0.15
    code, text = run(capsys, "a.csv", write("b.csv", after))
    assert code == 1 and text.startswith("a.csv and b.csv differ by more than noise in ")
    assert "An encoder that was trained again" in text
    (line,) = [line for line in text.splitlines() if "m2 " in line and line.startswith("1k")]
    assert line.split()[1] == "m2" and line.endswith("yes")
    change = 100 * (after[2] - before[2]).mean()
    assert line.split()[4] == f"−{-change:.1f}"
    # The order of the two runs changes the sign alone.
    code, text = run(capsys, "b.csv", "a.csv")
    assert code == 1 and f"+{-change:.1f}" in text


def test_what_noise_allows_is_the_interval_of_the_formula():
    """Two-way residuals of the differences; a method that varies more has its own variance; 6 + 7 + 1 comparisons."""
    before, after = random_table()
    after[3] += np.array([0.1, -0.1, 0.1, -0.1, 0.1, -0.1, 0])
    found = compare(load(write("a.csv", before)), load(write("b.csv", after)))
    d = after - before
    left = d - d.mean(0) - d.mean(1)[:, None] + d.mean()
    factor = student.ppf(1 - 0.05 / 2 / 14, 30)
    pooled, own = (left**2).sum() / 30, (left[3] ** 2).sum() / 6
    allowed = {row.name: row.allowed for row in found.differences}
    assert own > pooled > (left[0] ** 2).sum() / 6
    assert allowed["m3"] == pytest.approx(factor * math.sqrt(own / 7))
    assert allowed["m0"] == pytest.approx(factor * math.sqrt(pooled / 7))
    assert allowed["t6"] == pytest.approx(factor * math.sqrt(pooled / 6))
    assert allowed["all cells"] == pytest.approx(factor * math.sqrt(pooled / 42))
    changes = {row.name: row.change for row in found.differences}
    assert (changes["m3"], changes["t1"]) == pytest.approx((d[3].mean(), d[:, 1].mean()))
    ratios = [abs(row.change) / row.allowed for row in found.differences]
    assert ratios == sorted(ratios, reverse=True)


def test_a_changed_task_and_a_shift_of_everything_are_found(capsys):
    before, after = random_table(noise=0.005)
    write("a.csv", before)
    changed = after.copy()
    changed[:, 4] += 0.2
    code, text = run(capsys, "a.csv", write("b.csv", changed))
    assert code == 1 and [line for line in text.splitlines() if " t4 " in line and line.endswith("yes")]
    code, text = run(capsys, "a.csv", write("b.csv", after + 0.006))
    (line,) = [line for line in text.splitlines() if " all cells " in line]
    assert code == 1 and line.endswith("yes")


def test_equal_runs_and_ranks(capsys):
    table = [[0.5, 0.7], [0.6, 0.5], [0.4, 0.3]]
    write("a.csv", table)
    code, text = run(capsys, "a.csv", write("b.csv", table))
    assert (code, text) == (0, "a.csv and b.csv are equal, over 6 cells.\n")
    code, text = run(capsys, "a.csv", write("b.csv", [[0.5, 0.66], [0.62, 0.55], [0.4, 0.3]]))
    assert code == 0 and "Ranks that change:\n  1k  m0: 1 to 2\n  1k  m1: 2 to 1\n" in text
    assert "The most unlike cell: m1 on t1 at 1k, +5.0 points." in text


@pytest.mark.parametrize(("n_test", "tests"), [(500, 0.0), (1000, 1.0)])
def test_a_small_table_has_the_assumed_noise(n_test, tests):
    """One method on one task: 2 points in either run; of the test sets only if they are not the same."""
    found = compare(load(write("a.csv", [[0.5]])), load(write("b.csv", [[0.5]], n_test)))
    binomial = tests * (0.25 / 502 + 0.25 / 1002)
    z = 2.39398  # 1 - 0.05 / 3, two-sided
    assert [row.allowed for row in found.differences] == pytest.approx([z * math.sqrt(2 * 0.02**2 + binomial)] * 3)


def test_several_seeds_have_their_own_noise():
    """Welch's interval: variances 1 and 4 of three seeds each with two degrees of freedom."""
    first = {"1k": {("m", "t"): Cell({0: 0.50, 1: 0.51, 2: 0.52}, 500)}}
    second = {"1k": {("m", "t"): Cell({0: 0.40, 1: 0.42, 2: 0.44}, 500)}}
    df = (1 + 4) ** 2 / (1 / 2 + 16 / 2)
    row = compare(first, second).differences[0]
    assert row.allowed == pytest.approx(student.ppf(1 - 0.05 / 6, df) * 0.01 * math.sqrt(5 / 3))
    assert row.change == pytest.approx(-0.09)


def test_cells_of_one_run_alone_are_said(capsys):
    write("a.csv", [[0.5, 0.7], [0.6, 0.5]])
    code, text = run(capsys, "a.csv", write("b.csv", [[0.5, 0.7], [0.6, ""]]))
    assert code == 0 and "are equal, over 2 cells" in text
    assert "Not compared, since one run has no such cell: 2, for example 1k m1 t0." in text


def test_metrics_are_compared_like_scores(capsys):
    spec = page_spec(seeds=(0, 1))
    write_scores(spec, lambda c: 0.2 + int(c.key[:4], 16) / 2**17, skip=lambda c: c.key == spec.cells[0].key)
    results = Results(spec, read_cells(spec))
    summary = scores.summary_json(spec, results, count_cells(results.cells))
    assert summary["version"] == 2 and len(summary["scores"]) == 1 + 4 * 4 * 2 * 2 - 1
    with open("a.json", "w") as stream:
        json.dump(summary, stream)
    scores.scores_table(results.cells).to_csv("a.csv", index=False)
    assert load("a.json") == load("a.csv")
    assert load("a.json")["full"]["vae", TASKS[1].id].accuracies == results.accuracies("vae", "full", TASKS[1].id)
    assert run(capsys, "a.json", "a.csv") == (0, "a.json and a.csv are equal, over 32 cells.\n")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("b.json", None, "b.json cannot be read"),
        ("b.json", "{", "b.json has no accuracies of cells; name results/metrics/<study>.json"),
        ("b.json", '{"study": "demo", "budgets": {}}', "version 2"),
        ("b.json", "[]", "has no accuracies"),
        ("b.csv", "", "has no accuracies"),
        ("b.csv", "method,task\nm0,t0\n", "has no accuracies"),
        ("b.csv", HEAD + "m0,t0,1k,0,50.0,10\n", "has no accuracies"),
        ("b.csv", HEAD + "m0,t0,1k,0,,\n", "has no accuracies"),
        ("b.csv", HEAD + "m0,t0,1k,0,0.5,10\nm0,t0,1k,0,0.6,10\n", "has no accuracies"),
        ("b.csv", HEAD + "m0,t9,1k,0,0.5,10\n", "a.csv and b.csv have no method, task"),
        ("b.csv", HEAD + "m0,t0,full,0,0.5,10\n", "in common; name two runs"),
    ],
)  # fmt: skip
def test_bad_input_is_refused(capsys, tmp_path, name, content, words):
    write("a.csv", [[0.5]])
    if content is not None:
        (tmp_path / name).write_text(content)
    code, text = run(capsys, "a.csv", name)
    assert code == 2 and text.startswith("error: ") and words in text
