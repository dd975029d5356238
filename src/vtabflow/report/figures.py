"""The figures of a study as Vega-Lite (Altair), and their PNG and SVG through vl-convert. Accuracies are in percent here."""

import re
from typing import Any

import altair as alt
import vl_convert
from altair.utils.schemapi import debug_mode

from vtabflow.report.heat import heat
from vtabflow.report.stats import Results, mean_of
from vtabflow.report.theme import GROUND, INK, VEGALITE, Figure, Rows, family_colour, finished, percent, standins, words


def figures(spec: dict[str, Any], results: Results, theme: str) -> list[Figure]:
    """All figures of a study: means, groups and families, and a heat table for each budget."""
    note = standins(spec)
    # Altair checks every part of every chart against its schema, which takes seconds; the tests do it instead.
    with debug_mode(False):
        made = [_means(results, theme, note), _families(results, theme, note)]
        return made + [heat(results, budget, theme, note) for budget in results.budgets]


def svg(figure: Figure) -> str:
    """The figure as SVG. Vega numbers gradients and clips on through the whole process; here they start at 0 in every figure."""
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


# ---- (a) mean accuracy of every method


def _means(results: Results, theme: str, note: str) -> Figure:
    total = len(results.tasks["all"])
    data = Rows()
    panels = [_mean_panel(data, results, budget, theme) for budget in results.budgets]
    title = f"Mean test accuracy over {total} {'task' if total == 1 else 'tasks'}"
    seeds = len(results.seeds)
    lines = f"thin lines: 95 % t-intervals over {seeds} seeds" if seeds > 1 else "one seed, so no intervals"
    chart = alt.hconcat(*panels, spacing=36).resolve_scale(color="shared")
    caption = (
        "Methods are sorted within each budget; the dashed line marks From-Scratch, the same network without pre-training. "
        f"Numbers are percent; {lines}. A pale bar is a mean over fewer tasks (its label says how many): it stands below and is not ranked."
    )
    return Figure("mean-accuracy", title, caption, finished(chart, data, theme, title, note, f"percent; {lines}"))


def _mean_panel(data: Rows, results: Results, budget: str, theme: str) -> Any:
    order = results.ranking(budget)
    rows = []
    for method in order:
        mean = results.mean(method, budget)
        row: dict[str, Any] = {
            "method": results.display[method],
            "family": results.family[method],
            "tasks": f"{mean.n_tasks} of {mean.total}",
        }
        if mean.mean is None:
            rows.append(row | {"mean": 0, "end": 0, "label": "no finished task", "full": False, "none": True})
            continue
        row |= {
            "mean": percent(mean.mean),
            "end": percent(mean.high or mean.mean),
            "full": mean.complete,
            "none": False,
        }
        row["label"] = f"{100 * mean.mean:.1f}" + ("" if mean.complete else f" · {mean.n_tasks} of {mean.total} tasks")
        if mean.low is not None and mean.high is not None:
            row |= {"low": percent(mean.low), "high": percent(mean.high)}
        rows.append(row)
    y = alt.Y(
        "method:N",
        sort=[results.display[method] for method in order],
        title=None,
        axis=alt.Axis(labelLimit=190, ticks=False, domain=False),
    )
    axis = alt.Axis(title="mean test accuracy (%)", values=[0, 20, 40, 60, 80, 100])
    x = alt.X("mean:Q", scale=alt.Scale(domain=[0, 100]), axis=axis)
    tooltip = [
        alt.Tooltip("method:N", title="method"),
        alt.Tooltip("family:N", title="family"),
        alt.Tooltip("mean:Q", title="mean (%)", format=".2f"),
        alt.Tooltip("low:Q", title="95 % from", format=".2f"),
        alt.Tooltip("high:Q", title="to", format=".2f"),
        alt.Tooltip("tasks:N", title="tasks"),
    ]
    base = data.chart(rows).encode(y=y)
    bars = base.mark_bar(height={"band": 0.74}).encode(
        x=x,
        color=family_colour(results, theme, alt.Legend(direction="horizontal")),
        opacity=alt.condition("datum.full", alt.value(1), alt.value(0.35)),
        tooltip=tooltip,
    )
    layers = [bars]
    scratch = next((row for row in rows if row["full"] and row["family"] == "from-scratch"), None)
    if scratch:
        line = data.chart([{"mean": scratch["mean"]}])
        layers.append(line.mark_rule(strokeDash=[4, 3], color=INK[theme], opacity=0.75).encode(x="mean:Q"))
    if any("low" in row for row in rows):
        spread = base.transform_filter("isValid(datum.low)")
        layers.append(spread.mark_rule(color=INK[theme], strokeWidth=1.5).encode(x="low:Q", x2="high:Q"))
    place: dict[str, Any] = {"align": "left", "dx": 7, "fontSize": 11.5}
    halo = base.mark_text(stroke=GROUND[theme], strokeWidth=4, **place)  # keeps the dashed line out of the numbers
    layers += [
        halo.encode(x="end:Q", text="label:N"),
        base.mark_text(color=INK[theme], **place).encode(x="end:Q", text="label:N"),
    ]
    title = alt.TitleParams(f"{budget}: {words(results, budget)}", fontSize=13, anchor="start", offset=6)
    return alt.layer(*layers).properties(
        width=330 if len(results.budgets) > 1 else 620, height={"step": 22}, title=title
    )


# ---- (b) groups and families


def _families(results: Results, theme: str, note: str) -> Figure:
    rows = []
    for budget in results.budgets:
        for group in results.groups:
            points: dict[str, list[float]] = {}
            for method in results.methods:
                mean = results.mean(method, budget, group)
                if mean.mean is None:
                    continue
                family = results.family[method]
                row = {
                    "budget": budget,
                    "group": group,
                    "family": family,
                    "name": results.display[method],
                    "value": percent(mean.mean),
                }
                rows.append(
                    row | {"kind": "method" if mean.complete else "partial", "tasks": f"{mean.n_tasks} of {mean.total}"}
                )
                if mean.complete:
                    points.setdefault(family, []).append(100 * mean.mean)
            for family, values in points.items():
                row = {
                    "budget": budget,
                    "group": group,
                    "family": family,
                    "name": f"mean of {len(values)}",
                    "kind": "family",
                }
                rows.append(
                    row
                    | {
                        "value": round(mean_of(values), 4),
                        "label": f"{mean_of(values):.1f}",
                        "tasks": f"{len(results.tasks[group])}",
                    }
                )
    title = "Mean test accuracy by group of tasks and family of methods"
    rows = rows or [
        {"budget": budget, "group": group, "kind": "none"} for budget in results.budgets for group in results.groups
    ]
    data = Rows()
    panels = alt.vconcat(
        *[
            _family_row(data, results, rows, budget, theme, last=budget == results.budgets[-1])
            for budget in results.budgets
        ],
        spacing=22,
    )
    caption = (
        "Dots are methods, the upright mark and its number are the mean of the family's methods, in percent. Hollow dots are methods that lack "
        "tasks of the group; they do not enter the mean."
    )
    subtitle = "percent; dots: methods, marks: mean of the family"
    return Figure("groups-and-families", title, caption, finished(panels, data, theme, title, note, subtitle))


def _family_row(data: Rows, results: Results, rows: list[dict[str, Any]], budget: str, theme: str, last: bool) -> Any:
    panels = []
    for index, group in enumerate(results.groups):
        chosen = [row for row in rows if row["budget"] == budget and row["group"] == group]
        axis = alt.Axis(labels=index == 0, ticks=False, domain=False, labelLimit=150)
        y = alt.Y("family:N", sort=results.families, scale=alt.Scale(domain=results.families), title=None, axis=axis)
        x_axis = alt.Axis(title="mean test accuracy (%)" if last else None, values=[0, 20, 40, 60, 80, 100])
        x = alt.X("value:Q", scale=alt.Scale(domain=[0, 100]), axis=x_axis)
        tooltip = [
            alt.Tooltip("name:N", title="method"),
            alt.Tooltip("family:N", title="family"),
            alt.Tooltip("value:Q", title="mean (%)", format=".2f"),
            alt.Tooltip("tasks:N", title="tasks"),
        ]
        colour = family_colour(results, theme, None)
        base = data.chart(chosen).encode(x=x, y=y, color=colour, tooltip=tooltip)
        points = base.transform_filter("datum.kind == 'method'").mark_point(filled=True, size=60, opacity=0.5)
        hollow = base.transform_filter("datum.kind == 'partial'").mark_point(filled=False, size=50, opacity=0.8)
        marks = base.transform_filter("datum.kind == 'family'").mark_tick(thickness=4, height=22, opacity=1)
        text = (
            base.transform_filter("datum.kind == 'family'")
            .mark_text(dy=-18, fontSize=11)
            .encode(text="label:N", color=alt.value(INK[theme]))
        )
        count = len(results.tasks[group])
        heading = f"{group} · {budget} ({count} {'task' if count == 1 else 'tasks'})"
        width = {1: 640, 2: 400, 3: 280}.get(len(results.groups), 215)
        titled = alt.TitleParams(heading, fontSize=13, anchor="start", offset=8)
        panels.append(alt.layer(points, hollow, marks, text).properties(width=width, height={"step": 44}, title=titled))
    return alt.hconcat(*panels, spacing=24)
