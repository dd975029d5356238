"""The figures of a study as Vega-Lite (Altair), and their PNG and SVG through vl-convert. All numbers are in percent.

A new figure is one function here and its entry in FIGURES: the page, the files and the card follow.
"""

import re
from collections.abc import Callable
from typing import Any

import altair as alt
import vl_convert
from altair.utils.schemapi import debug_mode

from vtabflow.contracts.specs import PageSpec
from vtabflow.report.answer import basis_of_intervals
from vtabflow.report.heat import task_heat_maps
from vtabflow.report.stats import Mean, Results, mean_of
from vtabflow.report.theme import (
    BACKGROUND,
    INK,
    VEGALITE,
    Figure,
    NamedDatasets,
    budget_label,
    family_colour,
    percent,
    standin_note,
    with_theme,
)

ACCURACY = alt.Scale(domain=[0, 100])
TICKS = [0, 20, 40, 60, 80, 100]


def figures(spec: PageSpec, results: Results) -> list[Figure]:
    """All figures of a study, in the order of FIGURES."""
    theme, standins = spec.settings.theme, standin_note(spec)
    # Altair checks every part of every chart against its schema, which takes seconds; the tests do it instead.
    with debug_mode(False):
        return [figure for make in FIGURES for figure in make(results, theme, standins)]


def svg(figure: Figure) -> str:
    """The figure as SVG.

    Vega numbers gradients and clips through the whole process; here they start at 0 in every figure.
    """
    text = vl_convert.vegalite_to_svg(figure.vegalite, vl_version=VEGALITE, allowed_base_urls=[])
    numbers: dict[str, str] = {}
    return re.sub(
        r'(?<=id=")(gradient_|clip)\d+(?=")|(?<=url\(#)(gradient_|clip)\d+(?=\))',
        lambda m: numbers.setdefault(m[0], f"part{len(numbers)}"),
        text,
    )


def png(svg_text: str) -> bytes:
    """PNG at twice the size, from the SVG: the layout is not computed again."""
    return vl_convert.svg_to_png(svg_text, scale=2)


# ---- mean accuracy of every method


def mean_accuracy(results: Results, theme: str, standins: str) -> list[Figure]:
    """Bars of the mean test accuracy of every method, a panel per budget."""
    total = len(results.tasks["all"])
    data = NamedDatasets()
    panels = [_mean_panel(data, results, budget, theme) for budget in results.budgets]
    title = f"Mean test accuracy over {total} {'task' if total == 1 else 'tasks'}"
    lines = f"thin lines: 95 % intervals ({basis_of_intervals(results)})"
    chart = alt.hconcat(*panels, spacing=36).resolve_scale(color="shared")
    caption = (
        "Methods are sorted within each budget; the dashed line is the mean of From-Scratch, without pre-training. "
        f"Numbers are percent; {lines}. Those of differences are in the table. "
        "A pale bar is a mean over fewer tasks (its label says how many): it comes after the others and is not ranked."
    )
    vegalite = with_theme(chart, data, theme, title, f"percent; {lines}", standins)
    return [Figure("mean-accuracy", title, caption, vegalite)]


def _mean_panel(data: NamedDatasets, results: Results, budget: str, theme: str) -> Any:
    rows = [_mean_row(results, method, results.mean(method, budget)) for method in results.row_order(budget)]
    axis = alt.Axis(labelLimit=190, ticks=False, domain=False)
    tooltip = [
        alt.Tooltip("method:N", title="method"),
        alt.Tooltip("family:N", title="family"),
        alt.Tooltip("mean:Q", title="mean (%)", format=".2f"),
        alt.Tooltip("low:Q", title="95 % from", format=".2f"),
        alt.Tooltip("high:Q", title="to", format=".2f"),
        alt.Tooltip("tasks:N", title="tasks"),
    ]
    base = data.chart(rows).encode(y=alt.Y("method:N", sort=[row["method"] for row in rows], title=None, axis=axis))
    layers = [
        base.mark_bar(height={"band": 0.74}).encode(
            x=alt.X("mean:Q", scale=ACCURACY, axis=alt.Axis(title="mean test accuracy (%)", values=TICKS)),
            color=family_colour(results, theme, alt.Legend(direction="horizontal")),
            opacity=alt.condition("datum.full", alt.value(1), alt.value(0.35)),
            tooltip=tooltip,
        )
    ]
    scratch = next((row for row in rows if row["full"] and row["family"] == "from-scratch"), None)
    if scratch:
        line = data.chart([{"mean": scratch["mean"]}])
        layers.append(line.mark_rule(strokeDash=[4, 3], color=INK[theme], opacity=0.75).encode(x="mean:Q"))
    if any("low" in row for row in rows):
        intervals = base.transform_filter("isValid(datum.low)")
        layers.append(intervals.mark_rule(color=INK[theme], strokeWidth=1.5).encode(x="low:Q", x2="high:Q"))
    place: dict[str, Any] = {"align": "left", "dx": 7, "fontSize": 11.5}
    halo = base.mark_text(stroke=BACKGROUND[theme], strokeWidth=4, **place)  # no dashed line through the numbers
    layers += [text.encode(x="end:Q", text="label:N") for text in (halo, base.mark_text(color=INK[theme], **place))]
    title = alt.TitleParams(f"{budget}: {budget_label(results, budget)}", fontSize=13, anchor="start", offset=6)
    width = 330 if len(results.budgets) > 1 else 620
    return alt.layer(*layers).properties(width=width, height={"step": 22}, title=title)


def _mean_row(results: Results, method: str, mean: Mean) -> dict[str, Any]:
    row: dict[str, Any] = {
        "method": results.display[method],
        "family": results.family[method],
        "tasks": f"{mean.n_tasks} of {mean.total}",
    }
    if mean.mean is None:
        return row | {"mean": 0, "end": 0, "label": "no finished task", "full": False, "none": True}
    row |= {
        "mean": percent(mean.mean),
        "end": percent(mean.high or mean.mean),
        "full": mean.complete,
        "none": False,
        "label": f"{100 * mean.mean:.1f}" + ("" if mean.complete else f" · {mean.n_tasks} of {mean.total} tasks"),
    }
    if mean.low is not None and mean.high is not None:
        row |= {"low": percent(mean.low), "high": percent(mean.high)}
    return row


# ---- groups and families


def groups_and_families(results: Results, theme: str, standins: str) -> list[Figure]:
    """Means of every method by group of tasks, with the mean of each family; a row of panels per budget."""
    data = NamedDatasets()
    title = "Mean test accuracy by group of tasks and family of methods"
    rows = [_family_panels(data, results, budget, theme) for budget in results.budgets]
    caption = (
        "Dots are methods; the vertical mark and its number are the mean over the family's methods, in percent. "
        "Hollow dots are methods that lack tasks of the group; they are not part of the family's mean."
    )
    subtitle = "percent; dots: methods, marks: mean of the family"
    vegalite = with_theme(alt.vconcat(*rows, spacing=22), data, theme, title, subtitle, standins)
    return [Figure("groups-and-families", title, caption, vegalite)]


def _family_panels(data: NamedDatasets, results: Results, budget: str, theme: str) -> Any:
    panels = []
    tooltip = [
        alt.Tooltip("name:N", title="method"),
        alt.Tooltip("family:N", title="family"),
        alt.Tooltip("value:Q", title="mean (%)", format=".2f"),
        alt.Tooltip("tasks:N", title="tasks"),
    ]
    for index, group in enumerate(results.groups):
        axis = alt.Axis(labels=index == 0, ticks=False, domain=False, labelLimit=150)
        y = alt.Y("family:N", sort=results.families, scale=alt.Scale(domain=results.families), title=None, axis=axis)
        x_title = "mean test accuracy (%)" if budget == results.budgets[-1] else None
        x = alt.X("value:Q", scale=ACCURACY, axis=alt.Axis(title=x_title, values=TICKS))
        colour = family_colour(results, theme, None)
        base = data.chart(_family_rows(results, budget, group)).encode(x=x, y=y, color=colour, tooltip=tooltip)
        methods = base.transform_filter("datum.kind == 'method'").mark_point(filled=True, size=60, opacity=0.5)
        partial = base.transform_filter("datum.kind == 'partial'").mark_point(filled=False, size=50, opacity=0.8)
        families = base.transform_filter("datum.kind == 'family'")
        marks = families.mark_tick(thickness=4, height=22, opacity=1)
        text = families.mark_text(dy=-18, fontSize=11).encode(text="label:N", color=alt.value(INK[theme]))
        count = len(results.tasks[group])
        heading = f"{group} · {budget} ({count} {'task' if count == 1 else 'tasks'})"
        width = {1: 640, 2: 400, 3: 280}.get(len(results.groups), 215)
        title = alt.TitleParams(heading, fontSize=13, anchor="start", offset=8)
        layers = alt.layer(methods, partial, marks, text)
        panels.append(layers.properties(width=width, height={"step": 44}, title=title))
    return alt.hconcat(*panels, spacing=24)


def _family_rows(results: Results, budget: str, group: str) -> list[dict[str, Any]]:
    """The means of all methods in a group of tasks, then those of the families."""
    rows: list[dict[str, Any]] = []
    values: dict[str, list[float]] = {}
    for method in results.methods:
        mean, family = results.mean(method, budget, group), results.family[method]
        if mean.mean is None:
            continue
        rows.append(
            {
                "family": family,
                "name": results.display[method],
                "value": percent(mean.mean),
                "kind": "method" if mean.complete else "partial",
                "tasks": f"{mean.n_tasks} of {mean.total}",
            }
        )
        if mean.complete:
            values.setdefault(family, []).append(100 * mean.mean)
    for family, means in values.items():
        rows.append(
            {
                "family": family,
                "name": f"mean of {len(means)}",
                "value": round(mean_of(means), 4),
                "kind": "family",
                "tasks": f"{len(results.tasks[group])}",
                "label": f"{mean_of(means):.1f}",
            }
        )
    return rows or [{"kind": "none"}]  # Vega-Lite does not draw the axes of empty data


# ---- all figures: each entry makes figures from (results, theme, note on stand-ins)

FIGURES: list[Callable[[Results, str, str], list[Figure]]] = [mean_accuracy, groups_and_families, task_heat_maps]
