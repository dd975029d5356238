"""Unbalanced classes: balanced accuracy, and what always answering the commonest class would give."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from markupsafe import Markup

from vtabflow.report.answer import comma_list, count
from vtabflow.report.cells import CellResult
from vtabflow.report.images import ClassCounts, Images
from vtabflow.report.stats import Results, mean_of

# The page speaks of unbalanced classes where always answering the commonest one is this much above 1 / classes.
UNBALANCED = 0.05
NAMED = 6  # methods that a sentence names


@dataclass(frozen=True)
class Unbalanced:
    """A task whose test images are unbalanced, with its number of classes."""

    task: str
    display: str
    counts: ClassCounts
    classes: int

    @property
    def chance(self) -> float:
        """The accuracy of random guesses, and the balanced accuracy too."""
        return 1 / self.classes

    @property
    def balanced_of_one_answer(self) -> float:
        """Balanced accuracy of always answering one class: 1 over the classes that have test images."""
        return 1 / (self.classes - self.counts.empty)


def with_balanced_accuracy(cells: Sequence[CellResult], root: Path | str = ".") -> list[CellResult]:
    """The cells, with balanced accuracy from their predictions where the score is older than that field."""
    return [
        replace(cell, balanced_accuracy=_of_predictions(cell, Path(root)))
        if cell.accuracy is not None and cell.balanced_accuracy is None
        else cell
        for cell in cells
    ]


def _of_predictions(cell: CellResult, root: Path) -> float | None:
    """Balanced accuracy of predictions.npz; None if that is not there or not the predictions of this score."""
    import numpy as np

    from vtabflow.finetune.accuracy import balanced_accuracy

    try:
        with np.load(root / cell.folder / "predictions.npz", allow_pickle=False) as arrays:
            predicted, true = arrays["test_pred"], arrays["test_true"]
    except (OSError, ValueError, KeyError):
        return None
    if not len(true) or float((predicted == true).mean()) != cell.accuracy:
        return None
    return balanced_accuracy(predicted, true)


class Balance:
    """Balanced accuracies of a study's cells, asked for means as `Results` is asked for accuracies."""

    def __init__(self, results: Results):
        self.results = results
        # (method, budget) -> task -> balanced accuracies of the finished seeds, None where one is not known
        self._values: dict[tuple[str, str], dict[str, list[float | None]]] = {}
        for cell in results.cells:
            if cell.accuracy is not None:
                tasks = self._values.setdefault((cell.method, cell.budget), {})
                tasks.setdefault(cell.task, []).append(cell.balanced_accuracy)

    def task(self, method: str, budget: str, task: str) -> float | None:
        """The mean over the finished seeds; None without one, or where one is not known."""
        values = self._values.get((method, budget), {}).get(task, [])
        known = [value for value in values if value is not None]
        return mean_of(known) if known and len(known) == len(values) else None

    def mean(self, method: str, budget: str, scope: str = "all") -> float | None:
        """The mean over the tasks of a scope with a finished seed; None without one, or where one is not known."""
        finished = [task for task in self.results.tasks[scope] if task in self._values.get((method, budget), {})]
        values = [self.task(method, budget, task) for task in finished]
        known = [value for value in values if value is not None]
        return mean_of(known) if known and len(known) == len(values) else None


def unbalanced_tasks(results: Results, images: dict[str, Images]) -> list[Unbalanced]:
    """The tasks whose commonest class is clearly commoner than 1 / classes, in the order of the study."""
    found = []
    for task in results.tasks["all"]:
        counts, manifest = images[task].test, images[task].manifest
        if counts is None or manifest is None:
            continue
        unbalanced = Unbalanced(task, results.task_display[task], counts, manifest.classes[task])
        if counts.commonest_rate >= unbalanced.chance + UNBALANCED:
            found.append(unbalanced)
    return found


def sentences(results: Results, tasks: Sequence[Unbalanced]) -> list[Markup]:
    """One paragraph per unbalanced task: how unbalanced it is, and which methods are no better than one answer."""
    return [_sentence(results, task) for task in tasks]


def _sentence(results: Results, task: Unbalanced) -> Markup:
    counts = task.counts
    text = Markup(
        "<b>{}</b>: the classes are unbalanced. Of {}, {} are {} and {} {} {}, so always answering {} gives {} "
        "accuracy (guessing {}) and {} balanced accuracy."
    ).format(
        task.display,
        count(counts.total, "test image"),
        f"{counts.most:,}",
        counts.largest,
        f"{counts.fewest:,}",
        "is" if counts.fewest == 1 else "are",
        counts.smallest,
        counts.largest,
        _percent(counts.commonest_rate),
        _percent(task.chance),
        _percent(task.balanced_of_one_answer),
    )
    for budget in results.budgets:
        text += _no_better(results, task, budget)
    return text


def _no_better(results: Results, task: Unbalanced, budget: str) -> Markup:
    """Which methods are no better than always answering the commonest class; empty where all are."""
    means = {
        method: mean_of(found.values())
        for method in results.methods
        if (found := results.accuracies(method, budget, task.task))
    }
    behind = [method for method, mean in means.items() if mean <= task.counts.commonest_rate + 1e-9]
    if not behind:
        return Markup("")
    names = [Markup("{} ({})").format(results.display[method], _percent(means[method])) for method in behind[:NAMED]]
    if behind[NAMED:]:
        names.append(Markup("{} more").format(len(behind) - NAMED))
    text = Markup(" At budget {}, {} {} no better than always answering the commonest class{}.")
    every = ": no method is better" if len(behind) == len(means) > 1 else ""
    return text.format(budget, comma_list(names), "is" if len(behind) == 1 else "are", every)


def table(results: Results, balance: Balance, tasks: Sequence[Unbalanced], budget: str) -> list[dict[str, Any]]:
    """Rows of the table of unbalanced tasks: always the commonest class first, then the methods in their order."""
    first = {
        "display": "Always the commonest class",
        "values": [(_number(task.counts.commonest_rate), _number(task.balanced_of_one_answer)) for task in tasks],
    }
    rows = [
        {
            "display": results.display[method],
            "values": [
                (
                    _number(mean_of(found.values()))
                    if (found := results.accuracies(method, budget, task.task))
                    else "",
                    _number(balance.task(method, budget, task.task)),
                )
                for task in tasks
            ],
        }
        for method in results.row_order(budget)
    ]
    return [first, *rows]


def _number(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}"


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"
