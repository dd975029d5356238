"""Means, intervals and comparisons of a study's cells, all as fractions (docs/protocol.md#statistics).

A task's accuracy is the mean over its finished seeds; the mean of a scope (all tasks, or a group) is the unweighted
mean over its tasks, as in VTAB (Zhai et al. 2019, section 3). Methods are compared over tasks that both have finished.

Comparisons that are read together hold together (Bonferroni): all pre-trained methods with From-Scratch, at all
budgets; all pairs of methods, since the cells say which of them is compared with the others as the best; all pairs of
groups. So a study without any difference says so with a probability of 95 %.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from vtabflow.contracts.protocol import FAMILIES, GROUPS
from vtabflow.contracts.specs import PageSpec
from vtabflow.report.cells import CellResult
from vtabflow.report.noise import Basis, Cell, Interval, Noise
from vtabflow.report.ranks import Rank, ranks

BASELINE = "from-scratch"


@dataclass(frozen=True)
class Mean:
    """The mean of one method in one scope.

    Attributes:
        mean: None without a finished task.
        low: lower end of the 95 % interval; None, as `high`, without an interval.
        high: its upper end.
        n_tasks: tasks with a finished seed.
        total: tasks of the scope.
        all_seeds: whether every task of the scope has every seed.
    """

    mean: float | None
    low: float | None
    high: float | None
    n_tasks: int
    total: int
    all_seeds: bool

    @property
    def complete(self) -> bool:
        """Whether every task of the scope has a finished seed."""
        return self.n_tasks == self.total


@dataclass(frozen=True)
class Gain:
    """How much better one method is than another over the tasks that both have finished, with a 95 % interval.

    `basis` says where the noise of training in the interval comes from (noise.py).
    """

    gain: float
    low: float | None
    high: float | None
    n_tasks: int
    basis: Basis

    @property
    def significant(self) -> bool:
        """Whether the interval excludes zero. Without an interval nothing is significant."""
        return Interval(self.gain, self.low, self.high).significant

    @property
    def better(self) -> bool:
        """Whether the difference is above zero by more than noise."""
        return self.significant and self.gain > 0

    @property
    def worse(self) -> bool:
        """Whether the difference is below zero by more than noise."""
        return self.significant and self.gain < 0


def mean_of(values: Iterable[float]) -> float:
    """The arithmetic mean, from an exact sum: it does not depend on the order."""
    values = list(values)
    return math.fsum(values) / len(values)


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
        self._cells: dict[str, dict[tuple[str, str], Cell]] = {budget: {} for budget in self.budgets}
        # budget -> task -> (training images, validation images), of the tasks with a cell that has run
        self.n_images: dict[str, dict[str, tuple[int, int]]] = {budget: {} for budget in self.budgets}
        for cell in cells:
            self._add(cell)
        self._noise: dict[str, Noise] = {}
        self._means: dict[tuple[str, str, str], Mean] = {}
        self._gains: dict[str, dict[str, Gain]] = {}

    def _add(self, cell: CellResult) -> None:
        if cell.accuracy is not None:
            cells, pair = self._cells[cell.budget], (cell.method, cell.task)
            before = cells[pair].accuracies if pair in cells else {}
            cells[pair] = Cell({**before, cell.seed: cell.accuracy}, cell.n_test or 0)
        if cell.n_train is not None:
            self.n_images[cell.budget][cell.task] = (cell.n_train, cell.n_val or 0)

    def accuracies(self, method: str, budget: str, task: str) -> Mapping[int, float]:
        """Seed -> accuracy of the finished cells of one method on one task."""
        cell = self._cells.get(budget, {}).get((method, task))
        return {} if cell is None else cell.accuracies

    def noise(self, budget: str) -> Noise:
        """The noise of the finished cells of a budget."""
        if budget not in self._noise:
            self._noise[budget] = Noise(self._cells[budget])
        return self._noise[budget]

    def mean(self, method: str, budget: str, scope: str = "all") -> Mean:
        """The mean of a method in a scope, with its own 95 % interval, clipped to [0, 1]."""
        where = (method, budget, scope)
        if where not in self._means:
            self._means[where] = self._mean(*where)
        return self._means[where]

    def _mean(self, method: str, budget: str, scope: str) -> Mean:
        tasks = self.tasks[scope]
        finished = self.common_tasks([method], budget, scope)
        if not finished:
            return Mean(None, None, None, 0, len(tasks), False)
        found = self.noise(budget).interval({(method, task): 1 / len(finished) for task in finished})
        all_seeds = all(len(self.accuracies(method, budget, task)) == len(self.seeds) for task in tasks)
        low = None if found.low is None else max(0.0, found.low)
        high = None if found.high is None else min(1.0, found.high)
        return Mean(found.value, low, high, len(finished), len(tasks), all_seeds)

    def common_tasks(self, methods: Iterable[str], budget: str, scope: str = "all") -> list[str]:
        """The tasks of a scope that all of `methods` have finished."""
        chosen = list(methods)
        return [task for task in self.tasks[scope] if all(self.accuracies(name, budget, task) for name in chosen)]

    def gain(self, method: str, other: str, budget: str, scope: str = "all", comparisons: int = 1) -> Gain | None:
        """How much better `method` is than `other` in a scope; None without a common task.

        Args:
            method: the one that may be better.
            other: what it is compared with.
            budget: of both.
            scope: "all" or a group.
            comparisons: how many such intervals are read together.
        """
        weights = self._difference(method, other, budget, scope)
        if not weights:
            return None
        noise = self.noise(budget)
        found = noise.interval(weights, comparisons)
        return Gain(found.value, found.low, found.high, len(weights) // 2, noise.basis)

    def _difference(self, method: str, other: str, budget: str, scope: str) -> dict[tuple[str, str], float]:
        tasks = self.common_tasks((method, other), budget, scope)
        share = 1 / len(tasks) if tasks else 0.0
        return {(name, task): sign * share for name, sign in ((method, 1), (other, -1)) for task in tasks}

    def gains(self, budget: str) -> dict[str, Gain]:
        """Gain over From-Scratch of every pre-trained method that shares a finished task with it.

        The intervals of all of them, at all budgets, hold together.
        """
        if budget not in self._gains:
            comparisons = self._comparisons_with_baseline()
            every = {method: self.gain(method, BASELINE, budget, comparisons=comparisons) for method in self._trained}
            self._gains[budget] = {method: gain for method, gain in every.items() if gain}
        return self._gains[budget]

    @cached_property
    def _trained(self) -> list[str]:
        return [method for method in self.methods if self.family[method] != "from-scratch"]

    def _comparisons_with_baseline(self) -> int:
        return max(1, len(self._trained) * len(self.budgets))

    def ahead_of(self, best: str, budget: str) -> dict[str, Gain]:
        """How much better the best method is than every other ranked one.

        The intervals of all pairs, at all budgets, hold together. Those with From-Scratch are the ones of `gains`: a
        page that says of one pair that it differs and that it does not would contradict itself.
        """
        ranked = self.ranked(budget)
        comparisons = math.comb(len(ranked), 2) * len(self.budgets)
        found = {}
        for method in ranked:
            with_baseline = BASELINE in (best, method)
            number = self._comparisons_with_baseline() if with_baseline else comparisons
            gain = self.gain(best, method, budget, comparisons=number)
            if gain and method != best:
                found[method] = gain
        return found

    def between_groups(self, method: str, budget: str, most: str, least: str) -> Interval:
        """How much larger a method's gain over From-Scratch is in one group than in another.

        The intervals of all pairs of groups, at all budgets, hold together.
        """
        weights = self._difference(method, BASELINE, budget, most)
        subtracted = self._difference(method, BASELINE, budget, least)
        weights |= {pair: -weight for pair, weight in subtracted.items()}
        return self.noise(budget).interval(weights, math.comb(len(self.groups), 2) * len(self.budgets))

    def ranks(self, budget: str) -> dict[str, Rank]:
        """The ranks of the methods with all tasks, with bootstrap intervals."""
        return ranks(self._cells[budget], self.noise(budget), self.ranked(budget), self.tasks["all"])

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
