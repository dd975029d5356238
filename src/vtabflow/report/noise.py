"""How far accuracies would change with other trainings and other test images (docs/protocol.md#statistics).

The variance of a cell's mean over S seeds is t / S + p (1 - p) / n. The first part is the noise of training, the second
the noise of a test set of n images, with p = (right + 1) / (n + 2) (Agresti and Caffo 2000, The American Statistician
54(4)). Errors on different test sets, and of different methods on one test set, count as independent; methods make
partly the same errors, so intervals of differences are too wide rather than too narrow.

Where the noise of training, t, comes from:

- "seeds": several seeds. The variance between the seeds of a cell, pooled over the methods of a task. Where they are
  larger, that of the compared cells alone, or that of the compared means between seeds: what a seed has in common for
  all tasks, such as the random start of From-Scratch, is in the latter. Satterthwaite's degrees of freedom.
- "table": one seed, and at least SMALLEST methods and tasks. Accuracies less the means of their method and task are
  noise plus interaction (a method is better on some tasks than on others). Interaction is large in real studies, and
  concentrated in few components, which the median singular value ignores: Gavish and Donoho 2014, IEEE Transactions on
  Information Theory 60(8). What interaction is left makes it too large rather than too small.
- "default": one seed and a smaller table, or an estimate below DEFAULT. Then DEFAULT is assumed.

No part of it: other tasks, repeated pre-training, and, with one seed, a training that fails now and then.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import integrate, optimize, special

Basis = Literal["seeds", "table", "default"]
Pair = tuple[str, str]  # method, task

CONFIDENCE = 0.95
DEFAULT = 0.02  # s.d. of a cell over trainings, root mean square of measured ones (docs/protocol.md#statistics)
SMALLEST = 6  # methods and tasks: of the five components of such a table, two may be interaction
EFFICIENCY = (
    0.25  # the median singular value scatters like a variance of a quarter of the residuals' degrees of freedom
)


@dataclass(frozen=True)
class Cell:
    """The accuracies of one method on one task, by seed, and the number of test images (0: not known)."""

    accuracies: Mapping[int, float]
    n_test: int

    @cached_property
    def mean(self) -> float:
        """The mean over the seeds, from an exact sum: it does not depend on their order."""
        return math.fsum(self.accuracies.values()) / len(self.accuracies)

    @cached_property
    def variance(self) -> float | None:
        """The variance between the seeds; None with one."""
        if len(self.accuracies) < 2:
            return None
        centre = self.mean
        return math.fsum((value - centre) ** 2 for value in self.accuracies.values()) / (len(self.accuracies) - 1)

    @cached_property
    def test_variance(self) -> float:
        """The variance from the finite test set; infinite if its size is not known."""
        if not self.n_test:
            return math.inf
        share = (self.mean * self.n_test + 1) / (self.n_test + 2)
        return share * (1 - share) / (self.n_test + 2)


@dataclass(frozen=True)
class Interval:
    """A value and its interval; without one both ends are None."""

    value: float
    low: float | None
    high: float | None

    @property
    def significant(self) -> bool:
        """Whether the interval excludes zero. Without an interval nothing is significant."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


class Noise:
    """The noise of the cells of one budget.

    Args:
        cells: the finished cells.
    """

    def __init__(self, cells: Mapping[Pair, Cell]):
        self.cells = cells
        self.basis: Basis
        self._seeds = {task: known for task in {task for _, task in cells} if (known := _pooled(cells, task))}
        if self._seeds:
            self.basis = "seeds"
            variances, dfs = zip(*self._seeds.values(), strict=True)
            self.training, self.df = math.fsum(variances) / len(variances), float(sum(dfs))
            return
        estimate = _of_table(cells)
        self.basis, self.training, self.df = "default", DEFAULT**2, math.inf
        if estimate is not None and estimate[0] > self.training:
            self.basis = "table"
            self.training, self.df = estimate

    @property
    def training_sd(self) -> float:
        """Standard deviation of one cell's accuracy over trainings; with several seeds their root mean square."""
        return math.sqrt(self.training)

    def error(self, weights: Mapping[Pair, float], test: bool = True) -> tuple[float, float]:
        """Standard error and degrees of freedom of a weighted sum of cells' means.

        Args:
            weights: by cell.
            test: whether to include the noise of the test sets.
        """
        from_test = math.fsum(weight**2 * self.cells[pair].test_variance for pair, weight in weights.items())
        training, df = self._training_error(weights) if self._seeds else self._estimated(weights)
        total = training + (from_test if test else 0.0)
        if not math.isfinite(total):
            return math.inf, math.inf
        return math.sqrt(total), df * (total / training) ** 2 if training else math.inf

    def _estimated(self, weights: Mapping[Pair, float]) -> tuple[float, float]:
        """Variance from training with one seed, and its degrees of freedom."""
        return self.training * math.fsum(weight**2 for weight in weights.values()), self.df

    def _training_error(self, weights: Mapping[Pair, float]) -> tuple[float, float]:
        """Variance from training with several seeds, and its degrees of freedom."""
        own, by_task, methods = 0.0, dict[str, float](), dict[str, dict[str, float]]()
        for (method, task), weight in weights.items():
            cell = self.cells[method, task]
            variance = self._seeds.get(task, (self.training, 0))[0]
            share = weight**2 / len(cell.accuracies)
            by_task[task] = by_task.get(task, 0.0) + share * variance
            own += share * (variance if cell.variance is None else cell.variance)
            methods.setdefault(method, {})[task] = weight
        pooled = math.fsum(by_task.values())
        parts = math.fsum(part**2 / self._seeds.get(task, (0, self.df))[1] for task, part in by_task.items())
        between = math.fsum(self._between_seeds(method, mine) for method, mine in methods.items())
        return max(pooled, own, between), pooled**2 / parts if parts else self.df

    def _between_seeds(self, method: str, weights: Mapping[str, float]) -> float:
        """Variance of a method's weighted sum over tasks, from that sum for each seed; 0 where cells lack seeds."""
        cells = [self.cells[method, task].accuracies for task in weights]
        seeds = cells[0].keys()
        if any(cell.keys() != seeds for cell in cells):
            return 0.0
        sums = {
            seed: math.fsum(weight * cell[seed] for weight, cell in zip(weights.values(), cells, strict=True))
            for seed in seeds
        }
        return (Cell(sums, 0).variance or 0.0) / len(seeds)

    def interval(self, weights: Mapping[Pair, float], comparisons: int = 1) -> Interval:
        """A weighted sum of cells' means with its 95 % interval.

        Args:
            weights: by cell.
            comparisons: how many intervals are to hold together (Bonferroni).
        """
        value = math.fsum(weight * self.cells[pair].mean for pair, weight in weights.items())
        error, df = self.error(weights)
        half = quantile(df, comparisons) * error
        return Interval(value, value - half, value + half) if math.isfinite(half) else Interval(value, None, None)


def quantile(df: float = math.inf, comparisons: int = 1) -> float:
    """Two-sided 95 % quantile of Student's t, 12.7062 for df 1, or of the normal distribution, 1.95996 for infinite df.

    With several comparisons that of 1 - 0.05 / comparisons: all their intervals hold together (Bonferroni).
    """
    return float(special.stdtrit(df, 1 - (1 - CONFIDENCE) / (2 * comparisons)))


def noise_of_table(table: NDArray[np.float64]) -> float:
    """Variance of the noise in a table of methods x tasks that has main effects and an interaction of low rank.

    The squared median singular value of the doubly centred table, over what it is for noise of variance 1 (Gavish and
    Donoho 2014). Centring leaves (M - 1) x (T - 1) independent values.
    """
    residuals = table - table.mean(0) - table.mean(1, keepdims=True) + table.mean()
    small, large = sorted(size - 1 for size in table.shape)
    singular = np.linalg.svd(residuals, compute_uv=False)[:small]
    return float(np.median(singular)) ** 2 / (large * _median_of_marchenko_pastur(small / large))


def _pooled(cells: Mapping[Pair, Cell], task: str) -> tuple[float, int] | None:
    """Variance between the seeds of a task's cells and its degrees of freedom; None if no cell has several."""
    found = [
        (variance, len(cell.accuracies) - 1)
        for (_, name), cell in cells.items()
        if name == task and (variance := cell.variance) is not None
    ]
    if not found:
        return None
    df = sum(df for _, df in found)
    return math.fsum(variance * df for variance, df in found) / df, df


def _of_table(cells: Mapping[Pair, Cell]) -> tuple[float, float] | None:
    """Variance of training and its degrees of freedom, from the methods that have all tasks; None if there are few."""
    tasks = sorted({task for _, task in cells})
    methods = [name for name in sorted({name for name, _ in cells}) if all((name, task) in cells for task in tasks)]
    if min(len(methods), len(tasks)) < SMALLEST:
        return None
    chosen = [[cells[method, task] for task in tasks] for method in methods]
    total = noise_of_table(np.array([[cell.mean for cell in row] for row in chosen]))
    test = float(np.mean([[cell.test_variance for cell in row] for row in chosen]))
    if not math.isfinite(test):
        return None
    # Rounded, since the last digits of a singular value differ between processors.
    return round(max(0.0, total - test), 7), EFFICIENCY * (len(methods) - 1) * (len(tasks) - 1)


@cache
def _median_of_marchenko_pastur(ratio: float) -> float:
    """The median of the Marchenko-Pastur distribution, the squared singular values of noise, for a ratio of sides."""
    low, high = (1 - math.sqrt(ratio)) ** 2, (1 + math.sqrt(ratio)) ** 2

    def density(x: float) -> float:
        return math.sqrt(max(0.0, (high - x) * (x - low))) / (2 * math.pi * ratio * x)

    return float(optimize.brentq(lambda x: integrate.quad(density, low, x)[0] - 0.5, low + 1e-9, high))
