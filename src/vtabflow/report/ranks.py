"""Ranks of methods by their mean over tasks, with bootstrap intervals (docs/protocol.md#statistics)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vtabflow.report.noise import CONFIDENCE, Cell, Noise, Pair

Means = NDArray[np.float64]
DRAWS = 2000
EQUAL = 1e-9  # means that differ by less are equal


@dataclass(frozen=True)
class Rank:
    """A method's rank, 1 for the highest mean.

    Attributes:
        rank: one more than the number of methods with a higher mean, so that equal means have one rank.
        tied: whether another method has the same mean.
        low: lower end of the 95 % interval; None, as `high`, if the noise is not known.
        high: its upper end.
    """

    rank: int
    tied: bool
    low: int | None
    high: int | None


def ranks(cells: Mapping[Pair, Cell], noise: Noise, methods: Sequence[str], tasks: Sequence[str]) -> dict[str, Rank]:
    """The ranks of methods that have all tasks.

    The interval is over tasks and seeds: in each of DRAWS draws the tasks are drawn with replacement, the same for all
    methods, and each accuracy gets normal noise of its training and its test images. The draws are always the same.

    Args:
        cells: the finished cells.
        noise: of these cells.
        methods: whose ranks are wanted.
        tasks: over which the mean is.
    """
    if not methods:
        return {}
    accuracy = np.array([[cells[method, task].mean for task in tasks] for method in methods])
    error = np.array([[noise.error({(method, task): 1.0})[0] for task in tasks] for method in methods])
    means = accuracy.mean(1)
    found = ranks_of(means)
    equal = (np.abs(means[:, None] - means) < EQUAL).sum(1) > 1
    low = high = None
    if np.isfinite(error).all():
        random = np.random.default_rng(0)
        drawn = random.integers(len(tasks), size=(DRAWS, len(tasks)))
        noisy = accuracy[:, drawn] + error[:, drawn] * random.standard_normal((len(methods), DRAWS, len(tasks)))
        places = ranks_of(noisy.mean(2))
        tail = (1 - CONFIDENCE) / 2
        low = np.quantile(places, tail, axis=1, method="lower")
        high = np.quantile(places, 1 - tail, axis=1, method="higher")
    return {
        method: Rank(
            int(found[i]), bool(equal[i]), None if low is None else int(low[i]), None if high is None else int(high[i])
        )
        for i, method in enumerate(methods)
    }


def ranks_of(means: Means) -> NDArray[np.int64]:
    """Ranks along the first axis: one more than the number of higher means."""
    return 1 + (means[None] > means[:, None] + EQUAL).sum(1)
