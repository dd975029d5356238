"""What the figures share: colours, titles and configuration of a chart, and named datasets."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import altair as alt

from vtabflow.contracts.specs import PageSpec
from vtabflow.report.answer import examples
from vtabflow.report.stats import Results

VEGALITE = ".".join(alt.SCHEMA_VERSION.lstrip("v").split(".")[:2])
# Okabe and Ito's colours, which colour-blind readers distinguish too; contrast of at least 3:1 against the background
# (supervised is darkened or lightened for that).
COLOURS: Mapping[str, Mapping[str, str]] = {
    "light": {
        "supervised": "#b0578d",
        "semi-supervised": "#00865f",
        "self-supervised": "#0072b2",
        "generative": "#d55e00",
        "from-scratch": "#4d4d4d",
    },
    "dark": {
        "supervised": "#e39bc6",
        "semi-supervised": "#1dbb8c",
        "self-supervised": "#4aa8e0",
        "generative": "#f0803c",
        "from-scratch": "#c8c8c8",
    },
}
OTHER = {"light": "#8a6d00", "dark": "#f0e442"}
INK = {"light": "#1d2430", "dark": "#e8ebf0"}
QUIET = {"light": "#5b6472", "dark": "#a4adba"}
GRID = {"light": "#e3e6ea", "dark": "#333b47"}
BACKGROUND = {"light": "#ffffff", "dark": "#161b22"}
NO_VALUE = {"light": "#dddfe3", "dark": "#3a414c"}
FAILED = {"light": "#a40000", "dark": "#ff9a9a"}
HEAT = {"light": ["#f2f6fa", "#a9cbe4", "#4f94c6", "#08407a"], "dark": ["#1c2632", "#28507a", "#4f94c6", "#d4ebff"]}
FONT = "Liberation Sans, Arial, Helvetica, sans-serif"


class NamedDatasets:
    """The data of one figure, to which its charts refer by name.

    Altair copies data inside charts at every step, which takes seconds.
    """

    def __init__(self) -> None:
        self.datasets: dict[str, list[dict[str, Any]]] = {}

    def chart(self, rows: list[dict[str, Any]]) -> alt.Chart:
        """A chart of `rows`, which are kept here under a new name."""
        name = f"rows-{len(self.datasets) + 1}"
        self.datasets[name] = rows
        return alt.Chart(alt.NamedData(name))


@dataclass(frozen=True)
class Figure:
    """One figure: file name without its ending, title, caption, Vega-Lite specification."""

    name: str
    title: str
    caption: str
    vegalite: dict[str, Any]


def budget_label(results: Results, budget: str) -> str:
    """What a budget is, for titles and captions."""
    return {"1k": f"{examples(results)} examples per task", "full": "the full training sets"}.get(budget, budget)


def standin_note(spec: PageSpec) -> str:
    """What a title has to say about stand-in tasks: empty if there are none."""
    n_standins = sum(task.source == "procedural" for task in spec.tasks)
    if not n_standins:
        return ""
    if n_standins == len(spec.tasks):
        return "procedural stand-ins, not VTAB"
    return f"{n_standins} of {len(spec.tasks)} tasks are procedural stand-ins, not VTAB"


def percent(fraction: float) -> float:
    """A fraction in percent, rounded to four digits."""
    return round(100 * fraction, 4)


def colour_of(family: str, theme: str) -> str:
    """The colour of a family of methods."""
    return COLOURS[theme].get(family, OTHER[theme])


def with_theme(
    chart: Any, data: NamedDatasets, theme: str, title: str, subtitle: str, standins: str = ""
) -> dict[str, Any]:
    """The chart as Vega-Lite, with its data, title, subtitle and the theme's configuration.

    Args:
        chart: an Altair chart whose data are in `data`.
        data: the datasets that the chart refers to.
        theme: "light" or "dark".
        title: of the whole figure.
        subtitle: the line below it.
        standins: what `standin_note` says; it is added to the title.
    """
    quiet, ink, grid = QUIET[theme], INK[theme], GRID[theme]
    plain = {"titleColor": quiet, "titleFontWeight": "normal", "labelColor": ink, "labelFontSize": 12}
    config = {
        "font": FONT,
        "padding": 12,
        "view": {"stroke": None},
        "title": {
            "anchor": "start",
            "fontSize": 16,
            "offset": 14,
            "color": ink,
            "subtitleColor": quiet,
            "subtitleFontSize": 12,
        },
        "axis": plain | {"gridColor": grid, "domainColor": grid, "tickColor": grid},
        "legend": plain | {"orient": "bottom", "symbolType": "square"},
    }
    heading = {"text": f"{title} ({standins})" if standins else title, "subtitle": subtitle}
    # Merged here, not through Altair: each of its configure_ methods copies the whole chart.
    vegalite = chart.to_dict(validate=False)
    return vegalite | {"title": heading, "background": BACKGROUND[theme], "config": config, "datasets": data.datasets}


def family_colour(results: Results, theme: str, legend: Any) -> alt.Color:
    """The encoding of the field `family` by colour."""
    colours = [colour_of(family, theme) for family in results.families]
    return alt.Color("family:N", title="Family", scale=alt.Scale(domain=results.families, range=colours), legend=legend)
