"""What the page says in words: right names, signs, ties, and nothing claimed that the cells do not show."""

import re
from dataclasses import replace
from random import Random

import pytest
from report_fakes import METHODS, TASKS, page_spec, write_scores

from vtabflow.report.answer import budget_heading, headline, points, summaries
from vtabflow.report.cells import read_cells
from vtabflow.report.stats import Results


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


BASE = {"from-scratch": 0.40, "rotation": 0.55, "vae": 0.30, "sup-100": 0.70}


def texts(accuracy, skip=lambda c: False, **settings):
    spec = page_spec(budgets=("1k",), **settings)
    write_scores(spec, accuracy, skip)
    results = Results(spec, read_cells(spec))
    (one,) = summaries(results)
    return " ".join([str(one.main), *map(str, one.further)]), headline(results)


def noisy(cell):
    return BASE[cell.method] + 0.01 * cell.seed + (0.001 * cell.seed if cell.method == "vae" else 0)


def test_best_gain_worse_and_group():
    def accuracy(cell):
        return noisy(cell) + (0.08 if cell.method == "sup-100" and "dtd" in cell.task else 0)

    text, line = texts(accuracy)
    assert (
        "<b>Sup-100%</b> has the highest mean test accuracy, 73.0 % over 4 tasks, "
        "clearly better than the next, <b>Rotation</b> (56.0 %)" in text
    )
    assert re.search(
        r"<b>Sup-100%</b> is 32.0 points above From-Scratch \(95 % interval \+2\d.\d to \+3\d.\d, over 3 seeds", text
    )
    assert "Of 3 pre-trained methods, 2 are clearly better than From-Scratch and 1 is clearly worse." in text
    assert "Clearly worse than From-Scratch: VAE (−9.9 points)" in text
    assert "By group: +34.0 points on the natural tasks, +30.0 points on the specialized tasks and +30.0 points" in text
    assert "the pre-trained method with the highest mean, Sup-100%, is clearly better than From-Scratch (+32.0" in line
    assert line.startswith("In short: with 1,000") and "One seed" not in text


def test_with_one_seed_nothing_is_clear():
    text, line = texts(lambda c: BASE[c.method], seeds=(0,))
    assert (
        line.startswith("In short, from one seed: with 1,000") and "is higher than From-Scratch (+30.0 points)" in line
    )
    assert "over 4 tasks, higher than the next, <b>Rotation</b> (55.0 %)" in text
    assert "Of 3 pre-trained methods, 2 are higher than From-Scratch and 1 is lower." in text
    assert "Lower than From-Scratch: VAE (−10.0 points)." in text and "one seed)" in text
    assert "2.0 points (standard deviation of one accuracy) are assumed, from other studies" in text
    assert "clearly" not in text and "clearly" not in line


def test_the_groups_are_compared_only_beyond_noise():
    def accuracy(cell):
        return BASE[cell.method] + (0.3 if cell.method == "sup-100" and "eurosat" in cell.task else 0)

    groups = (
        "+60.0 points on the specialized tasks, +30.0 points on the natural tasks and +30.0 points on the structured"
    )
    text, _ = texts(accuracy, seeds=(0,))
    assert f"By group: {groups} tasks; it is larger on the specialized than on the structured tasks." in text
    text, _ = texts(lambda c: BASE[c.method] + 0.001 * (c.method == "sup-100" and "dmlab" in c.task), seeds=(0,))
    assert "By group: +30.1 points on the structured tasks" in text and "larger" not in text


def test_a_large_table_of_one_seed_gives_its_own_noise():
    random, methods = Random(0), [*METHODS[:1], *(replace(METHODS[1], id=f"m{i}", display=f"M{i}") for i in range(11))]
    tasks = [replace(TASKS[0], id=f"t{i}", display=f"T{i}") for i in range(12)]
    text, _ = texts(lambda c: 0.5 + random.gauss(0, 0.05), seeds=(0,), methods=methods, tasks=tasks)
    match = re.search(r"estimated at ([\d.]+) points \(standard deviation of one accuracy\) from what", text)
    assert 3.5 < float(match[1]) < 6.5


def test_a_tie_is_called_one():
    text, _ = texts(lambda c: 0.7 if c.method == "sup-100" else 0.699 if c.method == "rotation" else 0.4, seeds=(0,))
    assert "is not statistically different from <b>Rotation</b> (69.9 %)" in text and "may be chance" in text
    assert "clearly better than the next" not in text


def test_a_few_points_in_one_small_seed_are_no_gain():
    text, line = texts(lambda c: 0.41 if c.method == "sup-100" else 0.40, seeds=(0,))
    assert "None of the 3 pre-trained methods is statistically different from From-Scratch." in text
    assert "is not statistically different from From-Scratch (+1.0 points)" in line
    text, _ = texts(lambda c: 0.41, seeds=(0,), methods=METHODS[:2])
    assert "The pre-trained method is not statistically different from From-Scratch." in text


def test_better_worse_and_neither_are_counted_apart():
    base = {"from-scratch": 0.5, "rotation": 0.51, "vae": 0.2, "sup-100": 0.8}
    text, _ = texts(lambda c: base[c.method], seeds=(0,))
    assert (
        "Of 3 pre-trained methods, 1 is higher than From-Scratch and 1 is lower; "
        "1 is not statistically different from it." in text
    )
    assert "Lower than From-Scratch: VAE (−30.0 points)." in text


def test_a_long_list_of_ties_is_cut():
    methods = [*METHODS[:1], *(replace(METHODS[1], id=f"m{i}", display=f"M{i}") for i in range(7))]
    means = {"from-scratch": 0.4, "m0": 0.702}
    text, _ = texts(lambda c: means.get(c.method, 0.7), seeds=(0,), methods=methods)
    assert "<b>M0</b> has the highest" in text
    assert (
        "from <b>M1</b> (70.0 %), <b>M2</b> (70.0 %), <b>M3</b> (70.0 %) and <b>M4</b> (70.0 %), nor from 2 more"
        in text
    )


TWO = "<b>Rotation</b> and <b>VAE</b> share the highest mean test accuracy, 70.0 % over 4 tasks, "
FOUR = (
    "<b>From-Scratch</b>, <b>Rotation</b>, <b>Sup-100%</b> and <b>VAE</b> share the highest mean test accuracy, 40.0 %"
)


@pytest.mark.parametrize(
    ("highest", "sup_100", "first", "line"),
    [
        (0.7, 0.5, TWO + "higher than the next, <b>Sup-100%</b> (50.0 %).", "Rotation and VAE, are higher than"),
        (
            0.7,
            0.69,
            TWO + "but are not statistically different from <b>Sup-100%</b> (69.0 %): ",
            "VAE, are higher than",
        ),
        (0.4, 0.4, FOUR + " over 4 tasks. ", "methods with the highest mean, Rotation, Sup-100% and VAE, are not stat"),
    ],
)
def test_equal_means_share_the_first_place(highest, sup_100, first, line):
    base = {"from-scratch": 0.4, "sup-100": sup_100}
    text, short = texts(lambda c: base.get(c.method, highest), seeds=(0,))
    assert text.startswith(first) and line in short


def test_if_only_from_scratch_has_all_tasks_the_largest_gain_of_the_others_is_told():
    text, line = texts(noisy, lambda c: c.method != "from-scratch" and "dtd" in c.task)
    assert text.startswith("Only <b>From-Scratch</b> has finished all 4 tasks")
    assert "<b>Sup-100%</b> is 30.0 points above From-Scratch over the 3 tasks that both have" in text and line is None


def test_from_scratch_best():
    text, line = texts(lambda c: 0.8 if c.method == "from-scratch" else 0.5, seeds=(0,))
    assert text.startswith("<b>From-Scratch</b> has the highest") and "30.0 points below From-Scratch" in text
    assert "Rotation, Sup-100% and VAE, are lower than From-Scratch (−30.0 points)" in line


def test_incomplete_methods_are_not_ranked_and_compared_over_common_tasks():
    def skip(cell):
        return cell.method == "sup-100" and "dtd" in cell.task

    text, _ = texts(noisy, skip)
    assert text.startswith("<b>Rotation</b> has the highest")
    assert (
        "Not ranked, because tasks are missing: "
        "Sup-100% (3 of 4 tasks; over the 3 in common 15.0 points above Rotation)" in text
    )


@pytest.mark.parametrize(
    ("accuracy", "words"),
    [(0.553, "0.3 points above"), (0.5503, "equal to"), (0.547, "0.3 points below")],
)
def test_a_small_difference_over_common_tasks_is_not_called_equal(accuracy, words):
    text, _ = texts(
        lambda c: accuracy if c.method == "sup-100" else BASE[c.method],
        lambda c: c.method == "sup-100" and "dtd" in c.task,
    )
    assert f"Sup-100% (3 of 4 tasks; over the 3 in common {words} Rotation)" in text


def test_without_from_scratch_no_gain_is_claimed():
    text, line = texts(noisy, methods=METHODS[1:])
    assert "whether pre-training helps is not known" in text and line is None
    text, line = texts(noisy, lambda c: c.method == "from-scratch")
    assert "From-Scratch has no finished cell" in text and line is None


def test_nothing_and_little_finished():
    assert texts(noisy, lambda c: True)[0] == "No cell has finished yet, so there is no answer yet."
    text, _ = texts(noisy, lambda c: "dtd" not in c.task)
    assert "Over the 1 of 4 tasks that all 4 methods with results share" in text and "This can change" in text
    tasks = {"from-scratch": "dtd", "rotation": "svhn", "vae": "dmlab", "sup-100": "eurosat"}
    text, line = texts(noisy, lambda c: tasks[c.method] not in c.task, study="apart")
    assert "no comparison yet" in text or "Over the 1" in text
    assert line is None


def test_names_are_escaped():
    text, line = texts(noisy, methods=[*METHODS[:3], replace(METHODS[3], display="<img src=x onerror=alert(1)>")])
    assert "<img" not in text and "<img" not in line and "&lt;img" in text


def test_points():
    assert [points(v) for v in (0.1234, -0.1234, 0.0001, -0.0001)] == ["+12.3", "−12.3", "0.0", "0.0"]


@pytest.mark.parametrize(
    ("images", "words"),
    [
        ({}, "1,000"),
        ({task.id: (144, 48) for task in TASKS}, "192"),
        ({TASKS[0].id: (144, 48)}, "192 to 1,000"),
        ({TASKS[0].id: (144, 48), TASKS[1].id: (5000, 48)}, "192 to 1,000"),
    ],
)
def test_headings_count_the_existing_examples(images, words):
    spec = page_spec(seeds=(0,))
    write_scores(spec, noisy, images=images)
    results = Results(spec, read_cells(spec))
    assert [budget_heading(results, budget) for budget in results.budgets] == [
        f"With {words} labelled examples per task",
        "With the full training sets",
    ]
    assert (
        f"from one seed: with {words} labelled examples per task, the pre-trained method with the highest mean, "
        in headline(results)
    )


def test_before_the_first_score_the_heading_is_the_budgets():
    spec = page_spec()
    assert budget_heading(Results(spec, read_cells(spec)), "1k") == "With 1,000 labelled examples per task"


@pytest.mark.parametrize("seed", range(12))
def test_of_best_and_from_scratch_one_thing_is_said(seed):
    """Near the limit, all pairs would need a larger difference than those with From-Scratch."""
    random = Random(seed)
    shift = {method.id: random.uniform(0, 0.05) for method in METHODS}

    def accuracy(cell):
        return min(1.0, 0.5 + shift[cell.method] + random.gauss(0, 0.01))

    spec = page_spec(seeds=(0, 1, 2))
    write_scores(spec, accuracy)
    results = Results(spec, read_cells(spec))
    for budget in results.budgets:
        best, gains = results.ranked(budget)[0], results.gains(budget)
        for method, gain in results.ahead_of(best, budget).items():
            if best == "from-scratch":
                assert gain.better == gains[method].worse
            elif method == "from-scratch":
                assert gain == gains[best]
