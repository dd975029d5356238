"""What the figures share: colours, the frame of a chart with its title, and named data."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import altair as alt

from vtabflow.report.answer import examples
from vtabflow.report.stats import Results

VEGALITE = ".".join(alt.SCHEMA_VERSION.lstrip("v").split(".")[:2])
# Okabe and Ito's colours: apart also for colour-blind readers, at least 3:1 against the ground (supervised is darkened or lightened for that).
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
GROUND = {"light": "#ffffff", "dark": "#161b22"}
GAP = {"light": "#dddfe3", "dark": "#3a414c"}
FAILED = {"light": "#a40000", "dark": "#ff9a9a"}
HEAT = {"light": ["#f2f6fa", "#a9cbe4", "#4f94c6", "#08407a"], "dark": ["#1c2632", "#28507a", "#4f94c6", "#d4ebff"]}
FONT = "Liberation Sans, Arial, Helvetica, sans-serif"


class Rows:
    """The data of one figure: charts refer to it by name. Data inside charts is copied with every step of Altair, which takes seconds."""

    def __init__(self) -> None:
        self.sets: dict[str, list[dict[str, Any]]] = {}

    def chart(self, rows: list[dict[str, Any]]) -> alt.Chart:
        name = f"rows-{len(self.sets) + 1}"
        self.sets[name] = rows
        return alt.Chart(alt.NamedData(name))


@dataclass(frozen=True)
class Figure:
    """One figure: file name without its ending, caption, Vega-Lite specification."""

    name: str
    title: str
    caption: str
    vegalite: dict[str, Any]


def words(results: Results, budget: str) -> str:
    """What a budget is, for titles and captions."""
    return {"1k": f"{examples(results)} examples a task", "full": "the full training sets"}.get(budget, budget)


def standins(spec: dict[str, Any]) -> str:
    """What a title has to say about stand-ins: empty if every task is real."""
    drawn = [task for task in spec["tasks"] if task["source"] == "procedural"]
    if not drawn:
        return ""
    if len(drawn) == len(spec["tasks"]):
        return "procedural stand-ins, not VTAB"
    return f"{len(drawn)} of {len(spec['tasks'])} tasks are procedural stand-ins, not VTAB"


def percent(value: float) -> float:
    return round(100 * value, 4)


def finished(chart: Any, data: Rows, theme: str, title: str, note: str, subtitle: str) -> dict[str, Any]:
    """The chart with its title, in the theme, as Vega-Lite with the data inside."""
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
    heading = {"text": f"{title} ({note})" if note else title, "subtitle": subtitle}
    # Joined here, not through Altair: each of its configure_ methods copies the whole chart.
    made = chart.to_dict(validate=False)
    return made | {"title": heading, "background": GROUND[theme], "config": config, "datasets": data.sets}


def family_colour(results: Results, theme: str, legend: Any) -> alt.Color:
    colours = [COLOURS[theme].get(family, OTHER[theme]) for family in results.families]
    return alt.Color("family:N", title="Family", scale=alt.Scale(domain=results.families, range=colours), legend=legend)
