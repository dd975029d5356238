"""Fake studies for the tests of the report: page specs and score.json files in the contract's format, with accuracies that the test chooses."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from vtabflow.runtime.files import digest, write_json

METHODS = [
    {"id": "from-scratch", "display": "From-Scratch", "family": "from-scratch", "network": "resnet-small"},
    {"id": "rotation", "display": "Rotation", "family": "self-supervised", "network": "resnet-small"},
    {"id": "vae", "display": "VAE", "family": "generative", "network": "resnet-small"},
    {"id": "sup-100", "display": "Sup-100%", "family": "supervised", "network": "resnet-small"},
]
TASKS = [
    {
        "id": f"{name}-standin",
        "display": f"{name} (stand-in)",
        "group": group,
        "source": "procedural",
        "dataset": f"{name}-standin",
        "classes": classes,
    }
    for name, group, classes in (
        ("dtd", "natural", 47),
        ("svhn", "natural", 10),
        ("eurosat", "specialized", 10),
        ("dmlab", "structured", 6),
    )
]


def page_spec(
    study: str = "demo",
    methods: list[dict[str, Any]] = METHODS,
    tasks: list[dict[str, Any]] = TASKS,
    budgets: tuple[str, ...] = ("1k", "full"),
    seeds: tuple[int, ...] = (0, 1, 2),
    theme: str = "light",
    title: str | None = None,
) -> dict[str, Any]:
    """A page's spec with a cell for every method, task, budget and seed; paths are relative to the working directory."""
    cells = []
    for method in methods:
        for task in tasks:
            for budget in budgets:
                for seed in seeds:
                    key = digest(["cell", method["id"], task["id"], budget, seed])
                    cells.append(
                        {
                            "key": key,
                            "method": method["id"],
                            "task": task["id"],
                            "budget": budget,
                            "seed": seed,
                            "folder": f"results/scores/{method['id']}/{task['id']}/{budget}/{key}",
                            "encoder": f"results/encoders/{method['id']}/{digest(method['id'])}",
                        }
                    )
    key = digest([study, methods, tasks, budgets, seeds, theme, title])
    return {
        "step": "report",
        "key": key,
        "study": study,
        "folder": f"results/reports/{study}/{key}",
        "receipt": f"results/reports/{study}/{key}.json",
        "methods": methods,
        "tasks": tasks,
        "budgets": list(budgets),
        "seeds": list(seeds),
        "upstream": {"id": "upstream-standin", "display": "procedural upstream set", "source": "procedural"},
        "network": "resnet-small",
        "evaluation": "finetune",
        "cells": cells,
        "settings": {"title": title, "theme": theme},
        "left_out": {"methods": [], "tasks": [], "vtab": [], "cut": False},
        "code": "1",
    }


def write_score(
    spec: dict[str, Any],
    cell: dict[str, Any],
    accuracy: float | None,
    reason: str | None = None,
    images: tuple[int, int] = (1600, 400),
) -> None:
    """Write a cell's score.json; without an accuracy it failed, for `reason`. `images`: training and validation images
    of the task, of which the 1k budget takes the first 800 and 200.
    """
    task = next(task for task in spec["tasks"] if task["id"] == cell["task"])
    status = "failed" if accuracy is None else "ok"
    train, val = (min(800, images[0]), min(200, images[1])) if cell["budget"] == "1k" else images
    selected = (
        None if accuracy is None else {"learning_rate": 0.01, "steps": 60, "val_accuracy": min(1.0, accuracy + 0.01)}
    )
    trial = {
        "learning_rate": 0.01,
        "steps": 60,
        "val_accuracy": accuracy,
        "train_loss": 0.5,
        "seconds": 1.0,
        "status": status,
        "reason": reason,
    }
    score = {name: cell[name] for name in ("key", "method", "task", "budget", "seed")} | {
        "evaluation": spec["evaluation"],
        "source": task["source"],
        "status": status,
        "reason": reason,
        "trials": [trial],
        "selected": selected,
        "accuracy": accuracy,
        "n_train": train,
        "n_val": val,
        "n_trainval": train + val,
        "n_test": 500,
        "seconds": 2.5,
        "images_per_second": 1000.0,
        "outside_network": 0.1,
        "peak_memory_bytes": 10**8,
        "spec": cell,
        "versions": {"python": "3.11", "torch": "2.15"},
        "machine": "a machine",
    }
    write_json(Path(cell["folder"]) / "score.json", score)


def write_scores(
    spec: dict[str, Any],
    accuracy: Callable[[dict[str, Any]], float | None],
    skip: Callable[[dict[str, Any]], bool] = lambda cell: False,
    images: dict[str, tuple[int, int]] | None = None,
) -> None:
    """Write the scores of all cells that `skip` does not name; `accuracy` gives each cell's, None for a failed one.

    `images`: training and validation images of the tasks that have others than `write_score` gives.
    """
    for cell in spec["cells"]:
        if not skip(cell):
            value = accuracy(cell)
            reason = None if value is not None else "the loss was not finite in every trial"
            write_score(spec, cell, value, reason, (images or {}).get(cell["task"], (1600, 400)))
