"""Means, intervals and comparisons of a study's cells, all as fractions (docs/protocol.md#statistics).

A task's accuracy is the mean over its finished seeds; the mean of a scope (all tasks, or a group) is the unweighted
mean over its tasks, as in VTAB (Zhai et al. 2019, section 3). Methods are compared over tasks and seeds that both have
finished.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Literal

from scipy.special import stdtrit

from vtabflow.contracts.protocol import FAMILIES, GROUPS
from vtabflow.contracts.specs import PageSpec
from vtabflow.report.cells import CellResult

BASELINE = "from-scratch"
CONFIDENCE = 0.95
NORMAL = 1.959964  # the 97.5 % quantile of the normal distribution


@dataclass(frozen=True)
class Mean:
    """The mean of one method in one scope.

    Attributes:
        mean: None without a finished task.
        low: lower end of the 95 % interval; None, as `high`, without an interval.
        high: its upper end.
        n_tasks: tasks with a finished seed.
        total: tasks of the scope.
        interval_tasks: tasks behind the interval: those that every seed of the study has finished.
    """

    mean: float | None
    low: float | None
    high: float | None
    n_tasks: int
    total: int
    interval_tasks: int

    @property
    def complete(self) -> bool:
        """Whether every task of the scope has a finished seed."""
        return self.n_tasks == self.total

    @property
    def all_seeds(self) -> bool:
        """Whether every task of the scope has every seed."""
        return self.interval_tasks == self.total


@dataclass(frozen=True)
class Gain:
    """How much better one method is than another over the tasks that both have finished, with a 95 % interval.

    `basis` says what the interval is computed from: "seeds" (t-interval of the paired differences of the seeds) or
    "tests" (one seed: binomial noise of the test images, the two methods as independent, which errs on the wide side).
    """

    gain: float
    low: float | None
    high: float | None
    n_tasks: int
    basis: Literal["seeds", "tests"]

    @property
    def significant(self) -> bool:
        """Whether the interval excludes zero. Without an interval nothing is significant."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


@cache
def t_quantile(df: int, confidence: float = CONFIDENCE) -> float:
    """Two-sided quantile of Student's t with `df` degrees of freedom: 12.7062 for 1, 4.3027 for 2."""
    return float(stdtrit(df, (1 + confidence) / 2))


def mean_of(values: Iterable[float]) -> float:
    """The arithmetic mean, from an exact sum: it does not depend on the order."""
    values = list(values)
    return math.fsum(values) / len(values)


def half_width(values: Sequence[float]) -> float:
    """Half of the 95 % t-interval of the mean of two or more values."""
    centre = mean_of(values)
    variance = math.fsum((value - centre) ** 2 for value in values) / (len(values) - 1)
    return t_quantile(len(values) - 1) * math.sqrt(variance / len(values))


class Results:
    """The finished cells of a study, asked for means and comparisons.

    Args:
        spec: the page's spec.
        cells: what `read_cells` gives.
    """

    def __init__(self, spec: PageSpec, cells: Sequence[CellResult]):
        self.cells = cells
        self.methods = [method.id for method in spec.methods]
        self.family = {method.id: method.family for method in spec.methods}
        self.display = _distinct({method.id: method.display for method in spec.methods})
        self.task_display = _distinct({task.id: task.display for task in spec.tasks})
        self.budgets: list[str] = list(spec.budgets)
        self.seeds = list(spec.seeds)
        groups = {task.group for task in spec.tasks}
        self.groups = [group for group in GROUPS if group in groups]
        self.scopes = ["all", *self.groups]
        self.tasks = {"all": [task.id for task in spec.tasks]}
        for group in self.groups:
            self.tasks[group] = [task.id for task in spec.tasks if task.group == group]
        # (method, budget) -> task -> seed -> (accuracy, test images)
        self._scores: dict[tuple[str, str], dict[str, dict[int, tuple[float, int]]]] = {}
        # budget -> task -> (training images, validation images), of the tasks with a cell that has run
        self.n_images: dict[str, dict[str, tuple[int, int]]] = {budget: {} for budget in self.budgets}
        for cell in cells:
            self._add(cell)
        self._means: dict[tuple[str, str, str], Mean] = {}

    def _add(self, cell: CellResult) -> None:
        if cell.accuracy is not None:
            tasks = self._scores.setdefault((cell.method, cell.budget), {})
            tasks.setdefault(cell.task, {})[cell.seed] = (cell.accuracy, cell.n_test or 0)
        if cell.n_train is not None:
            self.n_images[cell.budget][cell.task] = (cell.n_train, cell.n_val or 0)

    def accuracies(self, method: str, budget: str, task: str) -> dict[int, float]:
        """Seed -> accuracy of the finished cells of one method on one task."""
        return {seed: score[0] for seed, score in self._scores.get((method, budget), {}).get(task, {}).items()}

    def mean(self, method: str, budget: str, scope: str = "all") -> Mean:
        """The mean of a method in a scope, with a 95 % t-interval if the study has several seeds.

        The interval's width is that of the per-seed means over the tasks that all seeds have finished: how much another
        seed would change the mean, not another choice of tasks. It is clipped to [0, 1].
        """
        where = (method, budget, scope)
        if where not in self._means:
            self._means[where] = self._mean(*where)
        return self._means[where]

    def _mean(self, method: str, budget: str, scope: str) -> Mean:
        total = len(self.tasks[scope])
        finished = [seeds for task in self.tasks[scope] if (seeds := self.accuracies(method, budget, task))]
        if not finished:
            return Mean(None, None, None, 0, total, 0)
        mean = mean_of(mean_of(seeds.values()) for seeds in finished)
        whole = [seeds for seeds in finished if len(seeds) == len(self.seeds)]
        if len(self.seeds) < 2 or not whole:
            return Mean(mean, None, None, len(finished), total, len(whole))
        half = self._half_width(whole)
        return Mean(mean, max(0.0, mean - half), min(1.0, mean + half), len(finished), total, len(whole))

    def common_tasks(self, methods: Iterable[str], budget: str, scope: str = "all") -> list[str]:
        """The tasks of a scope for which all of `methods` have finished at least one same seed."""
        chosen = list(methods)
        found = []
        for task in self.tasks[scope]:
            seeds = [set(self.accuracies(method, budget, task)) for method in chosen]
            if seeds and set.intersection(*seeds):
                found.append(task)
        return found

    def gain(self, method: str, other: str, budget: str, scope: str = "all") -> Gain | None:
        """How much better `method` is than `other` in a scope, paired by task and seed; None without a common task."""
        differences: list[dict[int, float]] = []  # of each task, by seed
        variance = 0.0  # of the sum of the tasks' differences, if there is one seed
        for task in self.common_tasks((method, other), budget, scope):
            first, second = (self._scores[name, budget][task] for name in (method, other))
            seeds = [seed for seed in self.seeds if seed in first and seed in second]
            differences.append({seed: first[seed][0] - second[seed][0] for seed in seeds})
            for accuracy, n_test in (first[seeds[0]], second[seeds[0]]):
                variance += accuracy * (1 - accuracy) / n_test if n_test else math.inf
        if not differences:
            return None
        gain, n_tasks = mean_of(mean_of(seeds.values()) for seeds in differences), len(differences)
        basis: Literal["seeds", "tests"] = "seeds" if len(self.seeds) > 1 else "tests"
        if basis == "seeds":
            whole = [seeds for seeds in differences if len(seeds) == len(self.seeds)]
            half = self._half_width(whole) if whole else math.inf
        else:
            half = NORMAL * math.sqrt(variance) / n_tasks
        if not math.isfinite(half):
            return Gain(gain, None, None, n_tasks, basis)
        return Gain(gain, gain - half, gain + half, n_tasks, basis)

    def _half_width(self, tasks: list[dict[int, float]]) -> float:
        """Half of the interval over seeds, of values by seed of each task."""
        return half_width([mean_of(seeds[seed] for seeds in tasks) for seed in self.seeds])

    def row_order(self, budget: str) -> list[str]:
        """Methods by falling number of finished tasks, then by falling mean: those with all tasks come first.

        Only these are ranked: the means of the others are over other tasks.
        """

        def place(method: str) -> tuple[int, float]:
            mean = self.mean(method, budget)
            return -mean.n_tasks, -(mean.mean or 0.0)

        return sorted(sorted(self.methods), key=place)

    def ranked(self, budget: str) -> list[str]:
        """The methods with a finished cell for every task, best first."""
        return [method for method in self.row_order(budget) if self.mean(method, budget).complete]

    @cached_property
    def families(self) -> list[str]:
        """The families that the study has, in the order of figures and tables."""
        present = set(self.family.values())
        return [family for family in FAMILIES if family in present] + sorted(present - set(FAMILIES))


def _distinct(names: dict[str, str]) -> dict[str, str]:
    """Names for axes and tables: display names that are given twice get their id added, or they would share a row."""
    values = list(names.values())
    return {key: name if values.count(name) == 1 else f"{name} ({key})" for key, name in names.items()}
