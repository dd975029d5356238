"""Balanced accuracy against values worked out by hand and a direct computation."""

import numpy as np
import pytest

from vtabflow.finetune.accuracy import balanced_accuracy


def test_a_model_that_always_gives_the_commonest_class_has_one_over_the_classes():
    true = np.repeat([0, 1], [190, 10])
    assert balanced_accuracy(np.zeros(200, np.int32), true) == 0.5
    assert balanced_accuracy(true, true) == 1.0


@pytest.mark.parametrize(
    "true, predicted, expected",
    [
        ([0, 0, 0, 1, 2, 2], [0, 1, 0, 1, 0, 2], (2 / 3 + 1 + 1 / 2) / 3),
        ([5, 5, 7], [5, 6, 6], 1 / 4),  # class 6 has no example: it counts neither as a class nor as right
        ([3], [3], 1.0),
        ([3], [4], 0.0),
    ],
)
def test_by_hand(true, predicted, expected):
    assert balanced_accuracy(np.array(predicted), np.array(true)) == pytest.approx(expected)


def test_mean_of_recalls_of_random_predictions():
    rng = np.random.default_rng(0)
    true, predicted = rng.choice(5, 300, p=[0.6, 0.2, 0.1, 0.06, 0.04]), rng.integers(0, 5, 300)
    recalls = [(predicted[true == label] == label).mean() for label in range(5)]
    assert balanced_accuracy(predicted, true) == pytest.approx(np.mean(recalls), abs=1e-12)
