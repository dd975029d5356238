"""The heat map of every method on every task, one for each budget."""

import math
from typing import Any

import altair as alt

from vtabflow.report.stats import Results, mean_of
from vtabflow.report.theme import (
    BACKGROUND,
    FAILED,
    HEAT,
    INK,
    NO_VALUE,
    QUIET,
    Figure,
    NamedDatasets,
    budget_label,
    percent,
    with_theme,
)

COLUMN = 42  # pixels
LETTER = 7  # pixels of a group's title, rounded up: its longest, "specialized", takes 69


def task_heat_maps(results: Results, theme: str, standins: str) -> list[Figure]:
    """Test accuracy of every method on every task: one figure per budget."""
    return [_heat_map(results, budget, theme, standins) for budget in results.budgets]


def _heat_map(results: Results, budget: str, theme: str, standins: str) -> Figure:
    order = [results.display[method] for method in results.row_order(budget)]
    data = NamedDatasets()
    panels = [_panel(data, results, budget, scope, order, theme) for scope in results.scopes]
    title = f"Test accuracy of every method on every task, {budget}"
    # flush: slanted task names may reach over the next group
    chart = alt.hconcat(*panels, spacing=14, bounds="flush").resolve_scale(color="shared")
    seeds = len(results.seeds)
    caption = (
        f"Percent, budget {budget} ({budget_label(results, budget)})"
        + (f", mean over {seeds} seeds (* over fewer)" if seeds > 1 else "")
        + ". Grey fields have no accuracy: “failed” was run and gave no score, “missing” has not been run yet. "
        + "The first column is the mean over all tasks († over fewer tasks, and not ranked)."
    )
    subtitle = "percent" + (f"; means over {seeds} seeds, * over fewer" if seeds > 1 else "")
    return Figure(f"tasks-{budget}", title, caption, with_theme(chart, data, theme, title, subtitle, standins))


def _panel(data: NamedDatasets, results: Results, budget: str, scope: str, order: list[str], theme: str) -> Any:
    """One group of tasks, or the column of means (scope "all")."""
    means = scope == "all"
    rows = _mean_rows(results, budget) if means else _task_rows(results, budget, scope)
    tasks = ["mean"] if means else [results.task_display[task] for task in results.tasks[scope]]
    weight: Any = "bold" if means else "normal"
    x_axis = alt.Axis(orient="top", labelAngle=-55, labelLimit=170, ticks=False, domain=False, labelFontWeight=weight)
    y_axis = alt.Axis(labels=means, ticks=False, domain=False, labelLimit=190)
    tooltip = [
        alt.Tooltip("method:N", title="method"),
        alt.Tooltip("task:N", title="task"),
        alt.Tooltip("value:Q", title="accuracy (%)", format=".2f"),
        alt.Tooltip("state:N", title="cells"),
    ]
    base = data.chart(rows).encode(
        x=alt.X("task:N", sort=tasks, title=None, axis=x_axis),
        y=alt.Y("method:N", sort=order, title=None, axis=y_axis),
        tooltip=tooltip,
    )
    name = "" if means else scope
    title = alt.TitleParams(name, fontSize=13, anchor="start", orient="bottom", offset=6)
    column = max(COLUMN, math.ceil(LETTER * len(name) / len(tasks)))  # one task: as wide as its title
    (values, numbers), (gaps, words) = _values(base, theme, weight), _gaps(base, theme)
    return alt.layer(values, gaps, numbers, words).properties(width={"step": column}, height={"step": 24}, title=title)


def _values(base: alt.Chart, theme: str, weight: Any) -> tuple[alt.Chart, alt.Chart]:
    """Fields with an accuracy: rectangle and number."""
    scale = alt.Scale(domain=[0, 100], range=HEAT[theme], interpolate="lab")
    legend = alt.Legend(
        title="test accuracy (%)", gradientLength=240, direction="horizontal", titleOrient="left", titleLimit=0
    )
    on_strong = "#ffffff" if theme == "light" else "#10151c"
    ink = alt.condition("datum.value > 58", alt.value(on_strong), alt.value(INK[theme]))
    chart = base.transform_filter("isValid(datum.value)")
    return (
        chart.mark_rect(stroke=BACKGROUND[theme], strokeWidth=1).encode(
            color=alt.Color("value:Q", scale=scale, legend=legend)
        ),
        chart.mark_text(fontSize=11, fontWeight=weight).encode(text="text:N", color=ink),
    )


def _gaps(base: alt.Chart, theme: str) -> tuple[alt.Chart, alt.Chart]:
    """Fields without an accuracy: rectangle and word."""
    ink = alt.condition("datum.text == 'failed'", alt.value(FAILED[theme]), alt.value(QUIET[theme]))
    chart = base.transform_filter("!isValid(datum.value)")
    return (
        chart.mark_rect(fill=NO_VALUE[theme], stroke=BACKGROUND[theme], strokeWidth=1),
        chart.mark_text(fontSize=9.5, fontStyle="italic").encode(text="text:N", color=ink),
    )


def _mean_rows(results: Results, budget: str) -> list[dict[str, Any]]:
    rows = []
    for method in results.methods:
        mean = results.mean(method, budget)
        row: dict[str, Any] = {
            "method": results.display[method],
            "task": "mean",
            "state": f"{mean.n_tasks} of {mean.total} tasks",
        }
        if mean.mean is None:
            rows.append(row | {"text": "none"})
        else:
            text = f"{100 * mean.mean:.1f}" + ("" if mean.complete else "†")
            rows.append(row | {"value": percent(mean.mean), "text": text})
    return rows


def _task_rows(results: Results, budget: str, scope: str) -> list[dict[str, Any]]:
    failed = {(cell.method, cell.task) for cell in results.cells if cell.budget == budget and cell.status == "failed"}
    rows = []
    for method in results.methods:
        for task in results.tasks[scope]:
            accuracies = results.accuracies(method, budget, task)
            row: dict[str, Any] = {"method": results.display[method], "task": results.task_display[task]}
            if accuracies:
                value = mean_of(accuracies.values())
                text = f"{100 * value:.1f}" + ("" if len(accuracies) == len(results.seeds) else "*")
                state = f"{len(accuracies)} of {len(results.seeds)} seeds"
                rows.append(row | {"value": percent(value), "text": text, "state": state})
            else:
                word = "failed" if (method, task) in failed else "missing"
                rows.append(row | {"text": word, "state": word})
    return rows
