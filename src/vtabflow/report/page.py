"""The page: one HTML file with data, figures and JavaScript inside, that opens without a network."""

import base64
import json
import os
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import jinja2
import vl_convert
from markupsafe import Markup

from vtabflow.report.answer import answer, count, heading, listing, points, short, span
from vtabflow.report.stats import BASELINE, Results
from vtabflow.report.theme import COLOURS, OTHER, VEGALITE, Figure, standins
from vtabflow.runtime.files import read_json

LEARNS = {
    "from-scratch": "nothing beforehand: starts from random weights and sees only the task itself",
    "generative": "upstream images without their labels, by learning to generate or reconstruct them",
    "self-supervised": "upstream images without their labels, by solving a puzzle made from the images",
    "semi-supervised": "all upstream images, and the labels of a part of them (10 % unless the study says otherwise)",
    "supervised": "upstream images with their labels (the share that the name says)",
}
SOURCES = {
    "procedural": "drawn by the project: a stand-in",
    "tfds": "TensorFlow Datasets",
    "folder": "the user's folder of images",
}
EVALUATION = {
    "finetune": "the whole network is trained further on each task (fine-tuning)",
    "linear": "the network is kept as it is, and only a linear layer on its features is trained on each task",
}


@dataclass(frozen=True)
class Drawn:
    """A figure with its SVG, as the page needs it."""

    figure: Figure
    svg: str

    @property
    def image(self) -> str:
        """The SVG as a data address: an image cannot run scripts, and its ids cannot clash with those of the others."""
        return "data:image/svg+xml;base64," + base64.b64encode(self.svg.encode()).decode()


def render(spec: dict[str, Any], results: Results, drawn: list[Drawn], cell_counts: dict[str, int]) -> str:
    """The page as HTML. The same inputs give the same text; links to scores are relative to the page's keyed folder."""
    theme = spec["settings"]["theme"]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    note = standins(spec)
    return environment.get_template("page.html.j2").render(
        spec=spec,
        title=spec["settings"].get("title") or f"Study {spec['study']}",
        theme=theme,
        note=note,
        counts=cell_counts,
        total=len(results.cells),
        answer=answer(results),
        short=short(results),
        headings={budget: heading(results, budget) for budget in results.budgets},
        from_drawings=_from_drawings(spec),
        same_images=_same_images(results),
        size=_size(spec),
        families=_families(results, theme),
        other_networks=_other_networks(spec),
        tasks=_tasks(spec, results),
        groups={group: [results.task_display[task] for task in results.tasks[group]] for group in results.groups},
        budgets=_budgets(results),
        sources=SOURCES,
        evaluation=EVALUATION.get(spec["evaluation"], spec["evaluation"]),
        drawn=drawn,
        scopes=results.scopes,
        scope_sizes={scope: len(results.tasks[scope]) for scope in results.scopes},
        means=_means(results, theme),
        several=len(results.seeds) > 1,
        failed=[cell for cell in results.cells if cell["status"] == "failed"],
        missing=_missing(results),
        stopped=_stopped(results),
        left_out=_left_out(spec),
        display=results.display,
        task_display=results.task_display,
        cells=_provenance(spec, results),
        library=Markup(library()),  # noqa: S704 - vl-convert's own JavaScript
        data=script_json([{"id": f"figure-{item.figure.name}", "spec": item.figure.vegalite} for item in drawn]),
    )


def script_json(value: Any) -> Markup:
    """JSON that is safe inside a <script>: nothing in it can end the element or open a comment."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=True)
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))  # noqa: S704 - escaped for a script


@lru_cache(maxsize=1)
def library() -> str:
    """Vega, Vega-Lite and vega-embed as one script, from vl-convert's own copy."""
    text = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", vl_version=VEGALITE)
    return text.replace("</script", "<\\/script").replace("<!--", "<\\!--")


def _left_out(spec: dict[str, Any]) -> list[Markup]:
    """What a reader must know before comparing these means with others: tasks and methods that are not among them."""
    out, said = spec["left_out"], []
    if out["vtab"]:
        have = sum(task["source"] == "tfds" for task in spec["tasks"])
        said.append(
            Markup(
                "Its means are over {} of VTAB’s {} tasks, without {}: they are not to be put beside means over all of them."
            ).format(have, have + len(out["vtab"]), listing(out["vtab"]))
        )
    elif out["tasks"]:
        said.append(Markup("Without {}.").format(listing(out["tasks"])))
    if out["cut"]:
        said.append(
            Markup(
                "VTAB’s datasets and ImageNet were taken as they were found, whatever their numbers of images "
                "(<code>prepare.tfds.counts: any</code>): they may be cuts of them."
            )
        )
    if out["methods"]:
        said.append(Markup("Without {}: their upstream images are not there.").format(listing(out["methods"])))
    return said


def _from_drawings(spec: dict[str, Any]) -> bool:
    """Whether encoders that learned from the project's drawings are judged on images that are not."""
    pretrained = any(method["family"] != "from-scratch" for method in spec["methods"])
    drawn = spec["upstream"] and spec["upstream"]["source"] == "procedural"
    return bool(drawn) and pretrained and any(task["source"] != "procedural" for task in spec["tasks"])


def _same_images(results: Results) -> Markup | None:
    """What to know of tasks so small that both budgets take all their images; None where there are none."""
    small, full = (results.images.get(budget, {}) for budget in ("1k", "full"))
    same = [task for task in results.tasks["all"] if task in small and small[task] == full.get(task)]
    if not same:
        return None
    every = len(same) == len(results.tasks["all"])
    return Markup("Budgets 1k and full are the same images {}; what differs between them is chance.{}").format(
        "here" if every else Markup("of {}").format(listing([results.task_display[task] for task in same])),
        Markup(" <code>budgets: [full]</code> does the work once.") if every else "",
    )


def _size(spec: dict[str, Any]) -> str:
    parts = [
        count(len(spec["methods"]), "method"),
        count(len(spec["tasks"]), "task"),
        count(len(spec["budgets"]), "budget"),
    ]
    return " × ".join([*parts, count(len(spec["seeds"]), "seed")])


def _families(results: Results, theme: str) -> list[dict[str, Any]]:
    return [
        {
            "name": family,
            "colour": COLOURS[theme].get(family, OTHER[theme]),
            "learns": LEARNS.get(family, "see the encoder's card"),
            "methods": [
                {"id": method, "display": results.display[method]}
                for method in results.methods
                if results.family[method] == family
            ],
        }
        for family in results.families
    ]


def _tasks(spec: dict[str, Any], results: Results) -> list[dict[str, Any]]:
    tests = {cell["task"]: cell["n_test"] for cell in results.cells if cell["n_test"]}
    rows = []
    for group in results.groups:
        for task in spec["tasks"]:
            if task["group"] == group:
                chance = f"{100 / task['classes']:.1f}" if task["classes"] else ""
                rows.append(
                    task
                    | {"display": results.task_display[task["id"]], "chance": chance, "n_test": tests.get(task["id"])}
                )
    return rows


def _budgets(results: Results) -> list[dict[str, str]]:
    """One line a budget, with the numbers of images that the cells really had."""
    rows = []
    for budget in results.budgets:
        done = results.images[budget].values()
        train, val = (span([pair[part] for pair in done if pair[part]]) for part in (0, 1))
        if budget == "1k":
            text = "1,000 labelled images of each task: 800 to train on, 200 to choose the settings by (validation)"
            if done and (train, val) != ("800", "200"):
                text = f"up to {text}; here {train} and {val}"
        else:
            text = "every labelled training image of each task"
            text += f": here {train} to train on, {val} to choose the settings by (validation)" if done else ""
        rows.append({"id": budget, "text": text})
    return rows


def _means(results: Results, theme: str) -> list[dict[str, Any]]:
    """A table a budget: rows in the order of the ranking, a cell a scope, and the difference to From-Scratch."""
    tables = []
    for budget in results.budgets:
        complete = {
            scope: [m for method in results.methods if (m := results.mean(method, budget, scope)).complete]
            for scope in results.scopes
        }
        highest = {
            scope: max((f"{100 * mean.mean:.1f}" for mean in means if mean.mean is not None), key=float, default="")
            for scope, means in complete.items()
        }
        rows = []
        for place, method in enumerate(results.ranking(budget), 1):
            overall = results.mean(method, budget)
            rows.append(
                {
                    "place": str(place) if overall.complete else "",
                    "display": results.display[method],
                    "family": results.family[method],
                    "colour": COLOURS[theme].get(results.family[method], OTHER[theme]),
                    "means": [_mean(results, method, budget, scope, highest[scope]) for scope in results.scopes],
                    "gain": _gain(results, method, budget),
                }
            )
        tables.append({"budget": budget, "rows": rows})
    return tables


def _mean(results: Results, method: str, budget: str, scope: str, highest: str) -> dict[str, Any]:
    mean = results.mean(method, budget, scope)
    if mean.mean is None:
        return {"value": "none", "range": "", "notes": [], "top": False, "grey": True}
    notes = []
    if not mean.complete:
        notes.append(f"{mean.n_tasks} of {mean.total} tasks")
    elif not mean.whole:
        notes.append("fewer seeds")
    interval = ""
    if mean.low is not None and mean.high is not None:
        interval = f"{100 * mean.low:.1f} to {100 * mean.high:.1f}"
        if mean.spread_tasks < mean.n_tasks:
            notes.append(f"interval: {count(mean.spread_tasks, 'task')}")
    value = f"{100 * mean.mean:.1f}"
    return {
        "value": value,
        "range": interval,
        "notes": notes,
        "top": mean.complete and value == highest,
        "grey": not mean.complete,
    }


def _gain(results: Results, method: str, budget: str) -> dict[str, str] | None:
    """Difference to From-Scratch in points over the tasks that both have; None where there is nothing to compare."""
    if method == BASELINE or BASELINE not in results.methods:
        return None
    gain = results.gain(method, BASELINE, budget)
    if gain is None:
        return None
    interval = "" if gain.low is None or gain.high is None else f"{points(gain.low)} to {points(gain.high)}"
    return {
        "value": points(gain.gain),
        "range": interval,
        "note": "" if gain.n_tasks == len(results.tasks["all"]) else f"{gain.n_tasks} tasks in common",
        "state": "plus" if gain.clear and gain.gain > 0 else "minus" if gain.clear else "open",
    }


def _missing(results: Results) -> list[dict[str, Any]]:
    """Missing cells, a row a method and budget: a study that has just begun misses thousands."""
    seen: dict[tuple[str, str], Counter[str]] = {}
    for cell in results.cells:
        if cell["status"] == "missing":
            seen.setdefault((cell["method"], cell["budget"]), Counter())[cell["task"]] += 1
    rows = []
    for (method, budget), tasks in seen.items():
        every = len(tasks) == len(results.tasks["all"]) and set(tasks.values()) == {len(results.seeds)}
        names = "all tasks" if every else ", ".join(results.task_display[task] for task in tasks)
        rows.append(
            {"display": results.display[method], "budget": budget, "count": sum(tasks.values()), "tasks": names}
        )
    return rows


def _other_networks(spec: dict[str, Any]) -> dict[str, list[str]]:
    """Networks other than the study's, with the display names of the methods that have them."""
    found: dict[str, list[str]] = {}
    for method in spec["methods"]:
        if method["network"] != spec["network"]:
            found.setdefault(method["network"], []).append(method["display"])
    return found


def _stopped(results: Results) -> list[str]:
    """Methods whose pre-training ran away and was stopped, with what their cards say of it."""
    said = {}
    for cell in results.cells:
        path = Path(cell["encoder"], "card.json")
        if cell["encoder"] not in said and path.exists():
            card = read_json(path)
            stopped = card["status"] == "stopped"
            said[cell["encoder"]] = f"{results.display[cell['method']]}: {card['reason']}" if stopped else ""
    return [text for text in said.values() if text]


def _provenance(spec: dict[str, Any], results: Results) -> list[dict[str, Any]]:
    rows = []
    for cell in results.cells:
        score, card = (
            os.path.relpath(Path(cell[name], file), spec["folder"])
            for name, file in (("folder", "score.json"), ("encoder", "card.json"))
        )
        value = "" if cell["accuracy"] is None else f"{100 * cell['accuracy']:.2f}"
        rows.append(
            {
                "method": results.display[cell["method"]],
                "task": results.task_display[cell["task"]],
                "budget": cell["budget"],
                "seed": cell["seed"],
                "status": cell["status"],
                "accuracy": value,
                "settings": "" if cell["learning_rate"] is None else f"{cell['learning_rate']:g} × {cell['steps']}",
                "key": cell["key"],
                "score": None if cell["status"] == "missing" else Path(score).as_posix(),
                "card": Path(card).as_posix(),
            }
        )
    return rows
