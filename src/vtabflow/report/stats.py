"""Means, intervals and comparisons of a study's cells. Everything is a fraction here; plain Python, so that a test can check it by hand.

A task's accuracy is the mean over its finished seeds; the mean of a scope (all tasks, or a group) is the unweighted mean over its
tasks, as in the VTAB study. Methods are compared over tasks (and seeds) that both have finished, never over different ones.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

GROUPS = ("natural", "specialized", "structured", "own")
FAMILIES = ("supervised", "semi-supervised", "self-supervised", "generative", "from-scratch")
BASELINE = "from-scratch"
CONFIDENCE = 0.95
NORMAL = 1.959964  # the 97.5 % quantile of the normal distribution


@dataclass(frozen=True)
class Mean:
    """The mean of one method in one scope. `mean` is None without a finished task; `low` and `high` are None without an interval.

    `spread_tasks` is the number of tasks behind the interval: those that every seed of the study has finished.
    """

    mean: float | None
    low: float | None
    high: float | None
    n_tasks: int
    total: int
    spread_tasks: int
    whole: bool  # every task with every seed

    @property
    def complete(self) -> bool:
        """Whether every task of the scope has a finished seed."""
        return self.n_tasks == self.total


@dataclass(frozen=True)
class Gain:
    """How much better one method is than another, over the tasks that both have finished, with a 95 % interval.

    `basis` says what the interval is of: "seeds" (t-interval of the seeds' paired differences) or "tests" (one seed: the finite
    number of test images, as binomial noise of independent test sets, which errs on the wide side).
    """

    gain: float
    low: float | None
    high: float | None
    n_tasks: int
    basis: str

    @property
    def clear(self) -> bool:
        """Whether the interval leaves zero out. Without an interval nothing is clear."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


@cache
def t_quantile(df: int, confidence: float = CONFIDENCE) -> float:
    """Two-sided quantile of Student's t with a whole number of degrees of freedom: 12.7062 for 1, 4.3027 for 2.

    Bisection on the finite sums for the probability of |t| < x (Abramowitz and Stegun 26.7.3 and 26.7.4).
    """
    low, high = 0.0, 1e4
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if _within(middle, df) < confidence else (low, middle)
    return (low + high) / 2


def _within(x: float, df: int) -> float:
    angle = math.atan(x / math.sqrt(df))
    total, term = 0.0, math.cos(angle) if df % 2 else 1.0
    for k in range(3 if df % 2 else 2, df + 1, 2):
        total += term
        term *= math.cos(angle) ** 2 * (k - 1) / k
    return 2 / math.pi * (angle + math.sin(angle) * total) if df % 2 else math.sin(angle) * total


def mean_of(values: Iterable[float]) -> float:
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
        cells: the records of `scores.read_cells`.
    """

    def __init__(self, spec: dict[str, Any], cells: list[dict[str, Any]]):
        self.cells = cells
        self.methods: list[str] = [method["id"] for method in spec["methods"]]
        self.family: dict[str, str] = {method["id"]: method["family"] for method in spec["methods"]}
        self.display = _distinct({method["id"]: method["display"] for method in spec["methods"]})
        self.task_display = _distinct({task["id"]: task["display"] for task in spec["tasks"]})
        self.budgets: list[str] = list(spec["budgets"])
        self.seeds: list[int] = list(spec["seeds"])
        groups = {task["group"] for task in spec["tasks"]}
        self.groups: list[str] = [group for group in GROUPS if group in groups]
        self.scopes: list[str] = ["all", *self.groups]
        self.tasks: dict[str, list[str]] = {"all": [task["id"] for task in spec["tasks"]]}
        for group in self.groups:
            self.tasks[group] = [task["id"] for task in spec["tasks"] if task["group"] == group]
        # method, budget -> task -> seed -> (accuracy, test images)
        self._scores: dict[tuple[str, str], dict[str, dict[int, tuple[float, int]]]] = {}
        for cell in cells:
            if cell["status"] == "ok":
                tasks = self._scores.setdefault((cell["method"], cell["budget"]), {})
                tasks.setdefault(cell["task"], {})[cell["seed"]] = (cell["accuracy"], cell["n_test"] or 0)
        # budget -> task -> (training images, validation images), of the tasks with a cell that has run
        self.images: dict[str, dict[str, tuple[int, int]]] = {budget: {} for budget in self.budgets}
        for cell in cells:
            if cell["n_train"] is not None:
                self.images[cell["budget"]][cell["task"]] = (cell["n_train"], cell["n_val"] or 0)
        self._means: dict[tuple[str, str, str], Mean] = {}

    def seeds_of(self, method: str, budget: str, task: str) -> dict[int, float]:
        """Seed -> accuracy of the finished cells of one method on one task."""
        return {seed: score[0] for seed, score in self._scores.get((method, budget), {}).get(task, {}).items()}

    def mean(self, method: str, budget: str, scope: str = "all") -> Mean:
        """The mean of a method in a scope, with the 95 % t-interval that the seeds give.

        Half of the interval's width is that of the per-seed means over the tasks that all seeds of the study have finished. It says how
        much another seed would change the mean, not another choice of tasks. Kept within 0 and 1. None with one seed.
        """
        where = (method, budget, scope)
        if where not in self._means:
            self._means[where] = self._mean(*where)
        return self._means[where]

    def _mean(self, method: str, budget: str, scope: str) -> Mean:
        chosen = self.tasks[scope]
        finished = {task: seeds for task in chosen if (seeds := self.seeds_of(method, budget, task))}
        if not finished:
            return Mean(None, None, None, 0, len(chosen), 0, False)
        mean = mean_of(mean_of(seeds.values()) for seeds in finished.values())
        shared = [seeds for seeds in finished.values() if len(seeds) == len(self.seeds)]
        whole = len(shared) == len(chosen)
        if len(self.seeds) < 2 or not shared:
            return Mean(mean, None, None, len(finished), len(chosen), len(shared), whole)
        half = half_width([mean_of(seeds[seed] for seeds in shared) for seed in self.seeds])
        return Mean(mean, max(0.0, mean - half), min(1.0, mean + half), len(finished), len(chosen), len(shared), whole)

    def common(self, methods: Iterable[str], budget: str, scope: str = "all") -> list[str]:
        """The tasks of a scope that all of `methods` have finished with at least one seed that is the same."""
        chosen = list(methods)
        found = []
        for task in self.tasks[scope]:
            seeds = [set(self.seeds_of(method, budget, task)) for method in chosen]
            if seeds and set.intersection(*seeds):
                found.append(task)
        return found

    def gain(self, method: str, other: str, budget: str, scope: str = "all") -> Gain | None:
        """How much better `method` is than `other` in a scope, cell by cell with the same seeds; None without a task in common."""
        paired: list[dict[int, float]] = []
        noise = 0.0
        for task in self.common((method, other), budget, scope):
            first, second = (self._scores[name, budget][task] for name in (method, other))
            seeds = [seed for seed in self.seeds if seed in first and seed in second]
            paired.append({seed: first[seed][0] - second[seed][0] for seed in seeds})
            for accuracy, images in (first[seeds[0]], second[seeds[0]]):
                noise += accuracy * (1 - accuracy) / images if images else math.inf
        if not paired:
            return None
        gain = mean_of(mean_of(seeds.values()) for seeds in paired)
        if len(self.seeds) > 1:
            shared = [seeds for seeds in paired if len(seeds) == len(self.seeds)]
            if not shared:
                return Gain(gain, None, None, len(paired), "seeds")
            half = half_width([mean_of(seeds[seed] for seeds in shared) for seed in self.seeds])
            return Gain(gain, gain - half, gain + half, len(paired), "seeds")
        half = NORMAL * math.sqrt(noise) / len(paired)
        return (
            Gain(gain, gain - half, gain + half, len(paired), "tests")
            if math.isfinite(half)
            else Gain(gain, None, None, len(paired), "tests")
        )

    def ranking(self, budget: str) -> list[str]:
        """Methods that have all tasks by falling mean, then those with fewer tasks by falling number of tasks, then those with none.

        Only the first part is a ranking: the means of the second are over other tasks.
        """

        def place(method: str) -> tuple[int, float, str]:
            mean = self.mean(method, budget)
            return (mean.n_tasks, mean.mean or 0.0, method)

        order = sorted(self.methods)
        return sorted(order, key=lambda method: (-place(method)[0], -place(method)[1]))

    def ranked(self, budget: str) -> list[str]:
        """The methods with a finished cell for every task, best first."""
        return [method for method in self.ranking(budget) if self.mean(method, budget).complete]

    @cached_property
    def families(self) -> list[str]:
        """The families that the study has, in the order of figures and tables."""
        present = set(self.family.values())
        return [family for family in FAMILIES if family in present] + sorted(present - set(FAMILIES))


def _distinct(names: dict[str, str]) -> dict[str, str]:
    """Names for axes and tables: two ids with one display name get the id beside it, or they would share a row."""
    values = list(names.values())
    return {key: name if values.count(name) == 1 else f"{name} ({key})" for key, name in names.items()}
