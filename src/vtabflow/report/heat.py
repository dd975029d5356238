"""Figure (c): the heat table of every method on every task."""

import math
from typing import Any

import altair as alt

from vtabflow.report.stats import Results, mean_of
from vtabflow.report.theme import FAILED, GAP, GROUND, HEAT, INK, QUIET, Figure, Rows, finished, percent, words

COLUMN = 42  # pixels
LETTER = 7  # pixels of a group's title, rounded up: its longest, "specialized", takes 69


def heat(results: Results, budget: str, theme: str, note: str) -> Figure:
    order = [results.display[method] for method in results.ranking(budget)]
    data = Rows()
    panels = [_heat_panel(data, results, budget, scope, order, theme) for scope in results.scopes]
    title = f"Test accuracy of every method on every task, {budget}"
    # flush: slanted task names may reach over the next group
    chart = alt.hconcat(*panels, spacing=14, bounds="flush").resolve_scale(color="shared")
    seeds = len(results.seeds)
    caption = (
        f"Percent, budget {budget} ({words(results, budget)})"
        + (f", mean over {seeds} seeds (* over fewer)" if seeds > 1 else "")
        + ". Grey cells have no accuracy: “failed” ran and did not finish well, “missing” has not run. "
        + "The first column is the mean over all tasks († over fewer tasks, and not ranked)."
    )
    subtitle = "percent" + (f"; means over {seeds} seeds, * over fewer" if seeds > 1 else "")
    return Figure(f"tasks-{budget}", title, caption, finished(chart, data, theme, title, note, subtitle))


def _heat_panel(data: Rows, results: Results, budget: str, scope: str, order: list[str], theme: str) -> Any:
    rows = _heat_means(results, budget) if scope == "all" else _heat_cells(results, budget, scope)
    tasks = ["mean"] if scope == "all" else [results.task_display[task] for task in results.tasks[scope]]
    y_axis = alt.Axis(labels=scope == "all", ticks=False, domain=False, labelLimit=190)
    x_axis = alt.Axis(
        orient="top",
        labelAngle=-55,
        labelLimit=170,
        ticks=False,
        domain=False,
        labelFontWeight="bold" if scope == "all" else "normal",
    )
    x = alt.X("task:N", sort=tasks, title=None, axis=x_axis)
    y = alt.Y("method:N", sort=order, title=None, axis=y_axis)
    tooltip = [
        alt.Tooltip("method:N", title="method"),
        alt.Tooltip("task:N", title="task"),
        alt.Tooltip("value:Q", title="accuracy (%)", format=".2f"),
        alt.Tooltip("state:N", title="cells"),
    ]
    base = data.chart(rows).encode(x=x, y=y, tooltip=tooltip)
    scale = alt.Scale(domain=[0, 100], range=HEAT[theme], interpolate="lab")
    legend = alt.Legend(
        title="test accuracy (%)", gradientLength=240, direction="horizontal", titleOrient="left", titleLimit=0
    )
    there = base.transform_filter("isValid(datum.value)")
    gaps = base.transform_filter("!isValid(datum.value)")
    dark_text, light_text = (INK["light"], "#ffffff") if theme == "light" else ("#10151c", INK["dark"])
    strong = alt.condition(
        "datum.value > 58", alt.value(light_text if theme == "light" else dark_text), alt.value(INK[theme])
    )
    failed = alt.condition("datum.text == 'failed'", alt.value(FAILED[theme]), alt.value(QUIET[theme]))
    inset: dict[str, Any] = {"stroke": GROUND[theme], "strokeWidth": 1}
    layers = [
        there.mark_rect(**inset).encode(color=alt.Color("value:Q", scale=scale, legend=legend)),
        gaps.mark_rect(fill=GAP[theme], **inset),
        there.mark_text(fontSize=11, fontWeight="bold" if scope == "all" else "normal").encode(
            text="text:N", color=strong
        ),
        gaps.mark_text(fontSize=9.5, fontStyle="italic").encode(text="text:N", color=failed),
    ]
    name = "" if scope == "all" else scope
    title = alt.TitleParams(name, fontSize=13, anchor="start", orient="bottom", offset=6)
    column = max(COLUMN, math.ceil(LETTER * len(name) / len(tasks)))  # one task: as wide as its title
    return alt.layer(*layers).properties(width={"step": column}, height={"step": 24}, title=title)


def _heat_means(results: Results, budget: str) -> list[dict[str, Any]]:
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
            rows.append(
                row | {"value": percent(mean.mean), "text": f"{100 * mean.mean:.1f}" + ("" if mean.complete else "†")}
            )
    return rows


def _heat_cells(results: Results, budget: str, scope: str) -> list[dict[str, Any]]:
    failed = {
        (cell["method"], cell["task"])
        for cell in results.cells
        if cell["budget"] == budget and cell["status"] == "failed"
    }
    rows = []
    for method in results.methods:
        for task in results.tasks[scope]:
            seeds = results.seeds_of(method, budget, task)
            row: dict[str, Any] = {"method": results.display[method], "task": results.task_display[task]}
            if seeds:
                value = mean_of(seeds.values())
                mark = "" if len(seeds) == len(results.seeds) else "*"
                rows.append(
                    row
                    | {
                        "value": percent(value),
                        "text": f"{100 * value:.1f}{mark}",
                        "state": f"{len(seeds)} of {len(results.seeds)} seeds",
                    }
                )
            else:
                word = "failed" if (method, task) in failed else "missing"
                rows.append(row | {"text": word, "state": word})
    return rows
