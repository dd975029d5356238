"""The cells of a study as tables: scores.csv, summary.csv, summary.json and plots.csv. Accuracies are fractions, except in plots.csv."""

import json
from pathlib import Path
from typing import Any

import pandas as pd

from vtabflow.errors import RunError
from vtabflow.report.stats import Results
from vtabflow.runtime.files import digest

Spec = dict[str, Any]

SCORES = [
    "study",
    "method",
    "display",
    "family",
    "task",
    "group",
    "source",
    "budget",
    "seed",
    "evaluation",
    "accuracy",
    "val_accuracy",
    "learning_rate",
    "steps",
    "n_train",
    "n_test",
    "seconds",
    "status",
    "key",
]
SUMMARY = ["method", "display", "family", "budget", "scope", "mean", "low", "high", "n_tasks"]


def read_cells(spec: Spec) -> list[dict[str, Any]]:
    """One record a cell of the page, in the order of the spec: the columns of scores.csv, and n_val, reason, folder and encoder.

    `status` is ok, failed, or missing where there is no score.json yet; a cell that is not ok has no accuracy.

    Raises:
        RunError: a score.json cannot be read, is another cell's, or holds an accuracy that is no fraction.
    """
    methods = {method["id"]: method for method in spec["methods"]}
    tasks = {task["id"]: task for task in spec["tasks"]}
    return [_cell(spec, cell, methods[cell["method"]], tasks[cell["task"]]) for cell in spec["cells"]]


def _cell(spec: Spec, cell: Spec, method: Spec, task: Spec) -> dict[str, Any]:
    path = Path(cell["folder"]) / "score.json"
    record: dict[str, Any] = dict.fromkeys([*SCORES, "n_val", "reason"])
    record |= {
        "study": spec["study"],
        "display": method["display"],
        "family": method["family"],
        "group": task["group"],
        "source": task["source"],
        "evaluation": spec["evaluation"],
        "status": "missing",
    }
    record |= {name: cell[name] for name in ("key", "method", "task", "budget", "seed", "folder", "encoder")}
    score = _score(path, cell)
    if score is None:
        return record
    selected = score.get("selected") or {}
    record |= {
        name: score.get(name) for name in ("source", "evaluation", "n_train", "n_val", "n_test", "seconds", "reason")
    }
    record |= {
        "learning_rate": selected.get("learning_rate"),
        "steps": selected.get("steps"),
        "val_accuracy": selected.get("val_accuracy"),
    }
    if score["status"] != "ok":
        return record | {"status": "failed", "reason": score.get("reason") or "no reason was recorded"}
    accuracy = score.get("accuracy")
    if not isinstance(accuracy, (int, float)) or not 0 <= accuracy <= 1:
        raise RunError(
            f"{path}: accuracy {accuracy!r} is no fraction from 0 to 1; remove this folder and run the study again"
        )
    return record | {"status": "ok", "accuracy": float(accuracy)}


def _score(path: Path, cell: Spec) -> dict[str, Any] | None:
    try:
        score = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read ({error}); remove this folder and run the study again") from error
    if not isinstance(score, dict) or score.get("key") != cell["key"] or "status" not in score:
        raise RunError(f"{path} is not the score of cell {cell['key']}; remove this folder and run the study again")
    return score


def state(cells: list[dict[str, Any]]) -> str:
    """A digest of what the page shows of its cells: it changes when a failed cell was run again and succeeded."""
    return digest([[cell["key"], cell["status"], cell["accuracy"], cell["reason"]] for cell in cells])


def counts(cells: list[dict[str, Any]]) -> dict[str, int]:
    """How many cells are ok, failed and missing."""
    states = [cell["status"] for cell in cells]
    return {name: states.count(name) for name in ("ok", "failed", "missing")}


def scores_table(cells: list[dict[str, Any]]) -> pd.DataFrame:
    """scores.csv: one row a cell."""
    table = pd.DataFrame(cells, columns=SCORES)
    for name in ("seed", "steps", "n_train", "n_test"):  # whole numbers stay whole beside empty fields
        table[name] = table[name].astype("Int64")
    return table


def summary_table(results: Results) -> pd.DataFrame:
    """summary.csv: one row a method, budget and scope (all, or a group). Rows without a finished task have n_tasks 0 and no mean."""
    rows = []
    for method in results.methods:
        for budget in results.budgets:
            for scope in results.scopes:
                mean = results.mean(method, budget, scope)
                family = results.family[method]
                rows.append(
                    (
                        method,
                        results.display[method],
                        family,
                        budget,
                        scope,
                        mean.mean,
                        mean.low,
                        mean.high,
                        mean.n_tasks,
                    )
                )
    return pd.DataFrame(rows, columns=SUMMARY)


def summary_json(spec: Spec, results: Results, cell_counts: dict[str, int]) -> dict[str, Any]:
    """summary.json, for `dvc metrics show`: means as fractions to four digits; a scope without a finished task is left out."""
    budgets: dict[str, Any] = {}
    for budget in results.budgets:
        budgets[budget] = {}
        for method in results.methods:
            means = {scope: results.mean(method, budget, scope) for scope in results.scopes}
            values: dict[str, float] = {
                scope: round(mean.mean, 4) for scope, mean in means.items() if mean.mean is not None
            }
            budgets[budget][method] = {**values, "n_tasks": means["all"].n_tasks}
    return {"study": spec["study"], "key": spec["key"], "budgets": budgets, "cells": cell_counts}


def plots_table(summary: pd.DataFrame) -> pd.DataFrame:
    """plots.csv, for `dvc plots show`: one row a method, its mean in percent at each budget (empty without one), and over how many tasks it is."""
    overall = summary.loc[summary["scope"] == "all"]
    table = pd.DataFrame({"method": overall["display"].drop_duplicates()}).set_index("method")
    for budget in ("1k", "full"):
        rows = overall.loc[overall["budget"] == budget].set_index("display")
        table[budget] = (100 * rows["mean"].astype(float)).round(2)
        table[f"{budget} tasks"] = rows["n_tasks"]
    return table.reset_index()
