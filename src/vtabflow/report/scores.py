"""The tables of a study, and summary.json. Accuracies are fractions; only plots.csv is in percent."""

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import pandas as pd

from vtabflow.contracts.results import CellCounts
from vtabflow.contracts.specs import PageSpec
from vtabflow.contracts.typed_json import to_json
from vtabflow.report.balance import Balance
from vtabflow.report.cells import CellResult
from vtabflow.report.images import Images, skipped_rows
from vtabflow.report.stats import Results

SCORES = [
    *("study", "method", "display", "family", "task", "group", "source", "budget", "seed", "evaluation", "accuracy"),
    *("balanced_accuracy", "val_accuracy", "learning_rate", "steps", "n_train", "n_val", "n_test", "seconds", "status"),
    "key",
]
COMPARED = ["budget", "method", "task", "seed", "accuracy", "n_test"]
SUMMARY = ["method", "display", "family", "budget", "scope", "mean", "low", "high", "balanced", "n_tasks"]


def scores_table(cells: Sequence[CellResult]) -> pd.DataFrame:
    """scores.csv: one row per cell."""
    table = pd.DataFrame([asdict(cell) for cell in cells], columns=SCORES)
    for name in ("seed", "steps", "n_train", "n_val", "n_test"):  # with empty fields, pandas would make these floats
        table[name] = table[name].astype("Int64")
    return table


def summary_table(results: Results) -> pd.DataFrame:
    """summary.csv: one row per method, budget and scope (all, or a group); without a finished task it has no mean.

    `balanced` is the mean of balanced accuracy over the same tasks, empty where that of one is not known.
    """
    balance = Balance(results)
    rows = [
        (
            *(method, results.display[method], results.family[method], budget, scope),
            *(m.mean, m.low, m.high, balance.mean(method, budget, scope), m.n_tasks),
        )
        for method in results.methods
        for budget in results.budgets
        for scope in results.scopes
        for m in [results.mean(method, budget, scope)]
    ]
    return pd.DataFrame(rows, columns=SUMMARY)


def summary_json(spec: PageSpec, results: Results, counts: CellCounts) -> dict[str, Any]:
    """summary.json, for `dvc metrics show`: means as fractions with four digits, of scopes with a finished task.

    `balanced` is the mean of balanced accuracy over the same tasks as `all`; `scores`, which DVC does not show, is for
    `vtabflow compare`.
    """
    budgets: dict[str, Any] = {}
    balance = Balance(results)
    for budget in results.budgets:
        budgets[budget] = {}
        for method in results.methods:
            means = {scope: results.mean(method, budget, scope) for scope in results.scopes}
            values = {scope: round(mean.mean, 4) for scope, mean in means.items() if mean.mean is not None}
            balanced = balance.mean(method, budget)
            known = {} if balanced is None else {"balanced": round(balanced, 4)}
            budgets[budget][method] = {**values, **known, "n_tasks": means["all"].n_tasks}
    return {
        "version": 2,
        "study": spec.study,
        "key": spec.key,
        "budgets": budgets,
        "cells": to_json(counts),
        "scores": _score_lines(results),
    }


def _score_lines(results: Results) -> list[str]:
    """The finished cells as lines of CSV, a list of which DVC does not show."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(COMPARED)
    finished = [cell for cell in results.cells if cell.accuracy is not None]
    writer.writerows([getattr(cell, name) for name in COMPARED] for cell in finished)
    return stream.getvalue().splitlines()


def skipped_table(images: dict[str, Images]) -> pd.DataFrame:
    """skipped.csv: the files that gave no image, with the reason."""
    return pd.DataFrame(skipped_rows(images), columns=["dataset", "file", "reason"])


def plots_table(summary: pd.DataFrame) -> pd.DataFrame:
    """plots.csv, for `dvc plots show`: one row per method, with mean (percent) and number of tasks of each budget."""
    overall = summary.loc[summary["scope"] == "all"]
    table = pd.DataFrame({"method": overall["display"].drop_duplicates()}).set_index("method")
    for budget in ("1k", "full"):
        rows = overall.loc[overall["budget"] == budget].set_index("display")
        table[budget] = (100 * rows["mean"].astype(float)).round(2)
        table[f"{budget} tasks"] = rows["n_tasks"]
    return table.reset_index()
