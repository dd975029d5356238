"""The rule of selection, and what the sweep may see."""

import inspect
import itertools

from vtabflow.contracts.results import TrialResult
from vtabflow.finetune.data import LabelledDataset
from vtabflow.finetune.sweep import Trial, grid, order_seed, ranked, sweep


def trial(rate, steps, accuracy, status="ok"):
    return Trial(TrialResult(rate, steps, accuracy, 0.5, 1.0, status, None))


def test_highest_accuracy_then_fewer_steps_then_lower_rate():
    rows = [
        trial(0.1, 100, 0.5),
        trial(0.01, 100, 0.5),
        trial(0.3, 50, 0.5),
        trial(0.1, 50, 0.5),
        trial(0.1, 10, 0.4),
        trial(1.0, 5, None, "failed"),
    ]
    for order in itertools.permutations(rows):
        found = [(chosen.result.learning_rate, chosen.result.steps) for chosen in ranked(list(order))]
        assert found == [(0.1, 50), (0.3, 50), (0.01, 100), (0.1, 100), (0.1, 10)]
    assert ranked([*rows, trial(9.0, 999, 0.50001)])[0].result.steps == 999
    assert ranked(rows[-1:]) == [] == ranked([])
    assert ranked([trial(0.1, 5, 0.0)])[0].result.val_accuracy == 0.0, "an accuracy of zero is an accuracy"


def test_the_sweep_is_given_train_and_val_only():
    """By its arguments: no store, no CellResources, nothing that could open the test split."""
    given = inspect.signature(sweep).parameters
    assert list(given) == ["cell", "learner", "train", "val", "progress"]
    assert all(given[name].annotation is LabelledDataset for name in ("train", "val"))
    assert "store" not in vars(inspect.getmodule(sweep)) and "CellResources" not in vars(inspect.getmodule(sweep))


def test_batches_do_not_depend_on_the_method(place):
    cell, other = place.cell("a"), place.cell("b")
    assert order_seed(cell, 0.1, 60) == order_seed(other, 0.1, 60)
    seeds = {
        order_seed(place.cell("a", **more), rate, steps)
        for more in ({}, {"seed": 1}, {"budget": "1k"}, {"task": "side-standin"})
        for rate in (0.1, 0.01)
        for steps in (6, 60)
    }
    assert len(seeds) == 16
    assert order_seed(cell, 1, 60) == order_seed(cell, 1.0, 60), "params.yaml may say 1 for 1.0"
    assert grid(cell.settings) == [(0.1, 3), (0.1, 6), (0.01, 3), (0.01, 6)]
