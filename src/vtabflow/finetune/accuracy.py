"""Measures of predicted classes."""

import numpy as np


def balanced_accuracy(predicted: np.ndarray, true: np.ndarray) -> float:
    """The mean over classes of the share of their examples that are predicted right (their recall).

    Classes without an example do not count. As scikit-learn's balanced_accuracy_score.

    Args:
        predicted: classes, int (N,).
        true: classes, int (N,), N at least 1.
    """
    _, place = np.unique(true, return_inverse=True)
    recalls = np.bincount(place, weights=predicted == true) / np.bincount(place)
    return float(recalls.mean())
