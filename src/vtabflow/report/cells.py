"""The results of a study's cells, read from their score.json files. Neither pandas nor Altair is needed here."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from vtabflow.contracts.results import CellCounts, Score
from vtabflow.contracts.specs import PageCell, PageMethod, PageSpec, PageTask
from vtabflow.contracts.typed_json import from_json
from vtabflow.errors import RunError, UserError
from vtabflow.runtime.files import digest, read_json


@dataclass(frozen=True)
class CellResult:
    """A cell of the page and what its score.json says.

    `status` is "missing" where there is no score.json yet. A cell that is not ok has no accuracy.
    """

    study: str
    method: str
    display: str
    family: str
    task: str
    group: str
    source: str
    budget: str
    seed: int
    evaluation: str
    key: str
    folder: str
    encoder: str
    status: Literal["ok", "failed", "missing"] = "missing"
    accuracy: float | None = None
    balanced_accuracy: float | None = None
    val_accuracy: float | None = None
    learning_rate: float | None = None
    steps: int | None = None
    n_train: int | None = None
    n_val: int | None = None
    n_test: int | None = None
    seconds: float | None = None
    reason: str | None = None


def read_cells(spec: PageSpec, root: Path | str = ".") -> list[CellResult]:
    """The result of every cell of a page, in the order of the spec. Folders of the spec are relative to `root`.

    Raises:
        RunError: a score.json cannot be read, is another cell's, or its accuracy is not between 0 and 1.
    """
    methods = {method.id: method for method in spec.methods}
    tasks = {task.id: task for task in spec.tasks}
    return [_result(spec, cell, methods[cell.method], tasks[cell.task], Path(root)) for cell in spec.cells]


def count_cells(cells: Sequence[CellResult]) -> CellCounts:
    """How many cells are ok, failed and missing."""
    statuses = [cell.status for cell in cells]
    return CellCounts(statuses.count("ok"), statuses.count("failed"), statuses.count("missing"))


def state(cells: Sequence[CellResult]) -> str:
    """A digest of what the page shows of its cells: it changes when a failed cell was run again and succeeded."""
    return digest([[cell.key, cell.status, cell.accuracy, cell.reason] for cell in cells])


def _result(spec: PageSpec, cell: PageCell, method: PageMethod, task: PageTask, root: Path) -> CellResult:
    missing = CellResult(
        study=spec.study,
        method=cell.method,
        display=method.display,
        family=method.family,
        task=cell.task,
        group=task.group,
        source=task.source,
        budget=cell.budget,
        seed=cell.seed,
        evaluation=spec.evaluation,
        key=cell.key,
        folder=cell.folder,
        encoder=cell.encoder,
    )
    score = _read_score(root / cell.folder / "score.json", cell)
    if score is None:
        return missing
    result = replace(
        missing,
        source=score.source,
        evaluation=score.evaluation,
        n_train=score.n_train,
        n_val=score.n_val,
        n_test=score.n_test,
        seconds=score.seconds,
        status=score.status,
        reason=score.reason,
    )
    if score.selected is not None:
        result = replace(
            result,
            val_accuracy=score.selected.val_accuracy,
            learning_rate=score.selected.learning_rate,
            steps=score.selected.steps,
        )
    if score.status == "failed":
        return replace(result, reason=score.reason or "no reason was recorded")
    return replace(result, accuracy=score.accuracy, balanced_accuracy=score.balanced_accuracy)


def _read_score(path: Path, cell: PageCell) -> Score | None:
    try:
        score = from_json(Score, read_json(path), str(path))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, UserError) as error:
        raise RunError(f"{path} cannot be read ({error}); remove this folder and run the study again") from error
    if score.key != cell.key:
        raise RunError(f"{path} is not the score of cell {cell.key}; remove this folder and run the study again")
    if score.status == "ok" and (score.accuracy is None or not 0 <= score.accuracy <= 1):
        raise RunError(
            f"{path}: accuracy {score.accuracy!r} is not a fraction from 0 to 1; "
            "remove this folder and run the study again"
        )
    return score
