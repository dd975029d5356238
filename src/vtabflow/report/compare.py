"""The command `vtabflow compare A B`: do two runs of a study agree within noise? (docs/protocol.md#statistics).

Compared are the means of every method over tasks, of every task over methods, and of all cells of a budget. With d the
difference of a cell between the runs, the noise is what is left of d after the means of its method and task: a change
of a method or of a task is in these means, and what methods are better at cancels. In a table with fewer than
SMALLEST_DF degrees of freedom it is the noise of training of both runs (noise.py), and that of the test sets where
their sizes differ. A mean may differ by what this noise explains with 95 % for all means together (Bonferroni).
"""

import csv
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from vtabflow.errors import UserError
from vtabflow.report.answer import count, points
from vtabflow.report.noise import Cell, Noise, Pair, quantile
from vtabflow.report.ranks import Means, ranks_of
from vtabflow.runtime.text_table import table

Cells = dict[str, dict[Pair, Cell]]  # by budget
Kind = Literal["method", "task", "all"]
KINDS: tuple[Kind, ...] = ("method", "task", "all")
ALL = "all cells"
SMALLEST_DF = 10


PRETRAINING = (
    "The noise is that of fine-tuning and of the test images. An encoder that was trained again, on another machine or "
    "with other code, can move its method by more."
)


@dataclass(frozen=True)
class Difference:
    """A mean in two runs, of a method over tasks, a task over methods, or all; `allowed`: by noise, to each side."""

    kind: Kind
    budget: str
    name: str
    first: float
    second: float
    allowed: float

    @property
    def change(self) -> float:
        """The second less the first."""
        return self.second - self.first

    @property
    def beyond(self) -> bool:
        """Whether noise does not explain the difference; equal means never differ."""
        return abs(self.change) > max(self.allowed, 1e-12)


@dataclass(frozen=True)
class Comparison:
    """What two runs have in common and how it differs.

    Attributes:
        differences: of every mean, the largest in proportion to what is allowed first.
        ranks: (budget, method, rank in the first, rank in the second) where the two ranks differ.
        largest: budget, method, task and difference of the cell that differs most.
        n_cells: cells compared.
        left_out: budget, method and task of cells that are not compared.
    """

    differences: list[Difference]
    ranks: list[tuple[str, str, int, int]]
    largest: tuple[str, str, str, float]
    n_cells: int
    left_out: list[tuple[str, str, str]]


def run(first: str, second: str) -> int:
    """Print how two runs compare; 0 if they agree within noise, 1 if they differ.

    Args:
        first: results/metrics/<study>.json or scores.csv of one run.
        second: of the other.

    Raises:
        UserError: one of the files cannot be read, or they have nothing in common.
    """
    runs = load(first), load(second)
    found = compare(*runs)
    if found is None:
        raise UserError(f"{first} and {second} have no method, task and budget in common; name two runs of one study")
    print("\n".join(describe(found, first, second)))
    return int(any(difference.beyond for difference in found.differences))


def load(path: str) -> Cells:
    """The finished cells of a run, from its metrics or its scores.

    Raises:
        UserError: the file cannot be read or is something else.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
        if path.endswith(".csv"):
            lines: Iterable[str] = text.splitlines()
        else:
            lines = json.loads(text)["scores"]
        return _cells(list(csv.DictReader(lines)))
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); name a metrics file or a scores.csv") from error
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path} has no accuracies of cells; name results/metrics/<study>.json (of version 2: `make report` writes "
            "it again) or the scores.csv of a page"
        ) from error


def _cells(rows: list[dict[str, str]]) -> Cells:
    cells: Cells = {}
    for row in rows:
        where, pair = cells.setdefault(row["budget"], {}), (row["method"], row["task"])
        if not row["accuracy"]:
            continue
        accuracy, seed = float(row["accuracy"]), int(row["seed"])
        before = where[pair].accuracies if pair in where else {}
        if seed in before or not 0 <= accuracy <= 1:
            raise ValueError(f"{pair}: not one accuracy from 0 to 1 for each seed")
        where[pair] = Cell({**before, seed: accuracy}, int(row["n_test"]))
    if not any(cells.values()):
        raise ValueError("no accuracy")
    return cells


def compare(first: Cells, second: Cells) -> Comparison | None:
    """The common means of two runs, with what noise allows; None without a common cell."""
    shapes = {budget: shape for budget in first if (shape := _common(first[budget], second.get(budget, {})))}
    if not shapes:
        return None
    comparisons = sum(len(methods) + len(tasks) + 1 for methods, tasks in shapes.values())
    differences, ranks, cells = [], [], []
    compared: set[tuple[str, str, str]] = set()
    for budget, (methods, tasks) in shapes.items():
        before, after = (
            np.array([[run[budget][method, task].mean for task in tasks] for method in methods])
            for run in (first, second)
        )
        allowed = _allowed(first[budget], second[budget], methods, tasks, comparisons)
        names = {"method": methods, "task": tasks, "all": [ALL]}
        old, new = _means(before), _means(after)
        for kind in KINDS:
            rows = zip(names[kind], old[kind], new[kind], allowed[kind], strict=True)
            differences += [Difference(kind, budget, *row) for row in rows]
        ranks += _changes(budget, methods, before.mean(1), after.mean(1))
        i, j = np.unravel_index(np.abs(after - before).argmax(), before.shape)
        cells.append((budget, methods[i], tasks[j], float((after - before)[i, j])))
        compared |= {(budget, method, task) for method in methods for task in tasks}
    every = {(budget, *pair) for run in (first, second) for budget, found in run.items() for pair in found}
    return Comparison(
        differences=sorted(differences, key=lambda row: -abs(row.change) / max(row.allowed, 1e-12)),
        ranks=ranks,
        largest=max(cells, key=lambda cell: abs(cell[3])),
        n_cells=len(compared),
        left_out=sorted(every - compared),
    )


def _means(table: Means) -> dict[Kind, list[float]]:
    """The means of a table of methods x tasks."""
    return {"method": table.mean(1).tolist(), "task": table.mean(0).tolist(), "all": [float(table.mean())]}


def _common(first: Mapping[Pair, Cell], second: Mapping[Pair, Cell]) -> tuple[list[str], list[str]] | None:
    """Methods and tasks of which both runs have every cell: the methods with the most common tasks."""
    tasks: dict[str, list[str]] = {}
    for method, task in first:
        if (method, task) in second:
            tasks.setdefault(method, []).append(task)
    if not tasks:
        return None
    most = max(tasks.values(), key=len)
    return [method for method, mine in tasks.items() if set(most) <= set(mine)], most


def _allowed(
    first: Mapping[Pair, Cell], second: Mapping[Pair, Cell], methods: list[str], tasks: list[str], comparisons: int
) -> dict[Kind, list[float]]:
    """How far each mean may lie apart in the two runs."""
    df = (len(methods) - 1) * (len(tasks) - 1)
    if df >= SMALLEST_DF:
        d = np.array([[second[method, task].mean - first[method, task].mean for task in tasks] for method in methods])
        left = (d - d.mean(0) - d.mean(1, keepdims=True) + d.mean()) ** 2
        pooled, factor = left.sum() / df, quantile(df, comparisons)
        of_method = np.maximum(left.sum(1) / (len(tasks) - 1), pooled) / len(tasks)
        of_task = np.maximum(left.sum(0) / (len(methods) - 1), pooled) / len(methods)
        return {
            "method": (factor * np.sqrt(of_method)).tolist(),
            "task": (factor * np.sqrt(of_task)).tolist(),
            "all": [factor * math.sqrt(pooled / left.size)],
        }
    noises = Noise(first), Noise(second)

    def half(pairs: list[Pair]) -> float:
        other_tests = any(first[pair].n_test != second[pair].n_test for pair in pairs)
        return _welch(noises, {pair: 1 / len(pairs) for pair in pairs}, other_tests, comparisons)

    return {
        "method": [half([(method, task) for task in tasks]) for method in methods],
        "task": [half([(method, task) for method in methods]) for task in tasks],
        "all": [half([(method, task) for method in methods for task in tasks])],
    }


def _welch(noises: tuple[Noise, Noise], weights: Mapping[Pair, float], test: bool, comparisons: int) -> float:
    """Half of Welch's interval of the difference of a mean between two runs."""
    (a, df_a), (b, df_b) = (noise.error(weights, test) for noise in noises)
    variance = a**2 + b**2
    if not variance:
        return 0.0
    df = variance**2 / (a**4 / df_a + b**4 / df_b) if math.isfinite(min(df_a, df_b)) else math.inf
    return quantile(df, comparisons) * math.sqrt(variance)


def _changes(budget: str, methods: list[str], before: Means, after: Means) -> list[tuple[str, str, int, int]]:
    """The ranks that differ, by the first."""
    old, new = ranks_of(before).tolist(), ranks_of(after).tolist()
    found = [(budget, *row) for row in zip(methods, old, new, strict=True) if row[1] != row[2]]
    return sorted(found, key=lambda change: change[2])


def describe(found: Comparison, first: str, second: str) -> list[str]:
    """The lines of the command: first the answer, then what differs."""
    rows, beyond = found.differences, [row for row in found.differences if row.beyond]
    means, largest, (budget, method, task, change) = count(len(rows), "mean"), rows[0], found.largest
    cells = f"over {count(found.n_cells, 'cell')}"
    if not change:
        lines = [f"{first} and {second} are equal, {cells}."]
    elif beyond:
        lines = [f"{first} and {second} differ by more than noise in {len(beyond)} of {means} {cells}."]
    else:
        lines = [
            f"{first} and {second} agree within noise, in all {means} {cells}: the most unlike are those of "
            f"{largest.name} at {largest.budget}, {100 * largest.first:.1f} and {100 * largest.second:.1f}, "
            f"where noise allows a difference of {100 * largest.allowed:.1f}."
        ]
    shown = [row for row in rows if row.beyond or (row.kind != "task" and abs(row.change) >= 0.0005)]
    if shown:
        head = ("budget", "mean of", "first", "second", "difference", "noise allows", "differs")
        body = [
            (
                *(row.budget, row.name, f"{100 * row.first:.1f}", f"{100 * row.second:.1f}", points(row.change)),
                *(f"{100 * row.allowed:.1f}", "yes" if row.beyond else ""),
            )
            for row in shown
        ]
        lines += ["", "Means in percent, of methods over tasks and of tasks over methods:"]
        lines += table([head, *body], right=(2, 3, 4, 5))
    if beyond:
        lines += ["", PRETRAINING]
    if found.ranks:
        lines += ["", "Ranks that change:"]
        lines += [f"  {budget}  {name}: {before} to {after}" for budget, name, before, after in found.ranks]
    if change:
        lines += ["", f"The most unlike cell: {method} on {task} at {budget}, {points(change)} points."]
    if found.left_out:
        example = " ".join(found.left_out[0])
        lines += ["", f"Not compared, since one run has no such cell: {len(found.left_out)}, for example {example}."]
    return lines
