"""A study's jobs: the spec of every store, encoder, pack and page, each under a key that digests all that it is made from.

A key holds what goes in (settings, digests of images and labels, code identity) and never how the work is done (pack sizes,
threads, devices, paths, file times). Nothing here imports torch; a study of 684 cells takes well under a second.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vtabflow.errors import UserError
from vtabflow.networks.registry import NETWORKS
from vtabflow.planning import catalogue
from vtabflow.planning.code_identity import CodeLock
from vtabflow.planning.store_specs import Stores
from vtabflow.planning.study import Study
from vtabflow.planning.tasks import IMAGENET, UPSTREAM_STANDIN, Task, vtab
from vtabflow.runtime.files import canonical, digest, read_json, sha256, write_json

Spec = dict[str, Any]
SPECS = Path("results/specs")
UPSTREAMS = {UPSTREAM_STANDIN: "procedural upstream set", IMAGENET: "ImageNet (ILSVRC-2012)"}


@dataclass
class Plan:
    """The specs of a study by key, and its page. The order of `packs` is the order of the work."""

    study: Study
    stores: dict[str, Spec] = field(default_factory=dict)
    encoders: dict[str, Spec] = field(default_factory=dict)
    cells: dict[str, Spec] = field(default_factory=dict)
    packs: dict[str, Spec] = field(default_factory=dict)
    page: Spec = field(default_factory=dict)
    # Methods and tasks that the study names and that are not run (prepare.tfds.absent: leave-out), with the reason.
    methods_out: dict[str, str] = field(default_factory=dict)
    tasks_out: dict[str, str] = field(default_factory=dict)
    # Sentences: what a person has to bring before the stores can be made.
    to_bring: list[str] = field(default_factory=list)

    @property
    def left_out(self) -> dict[str, str]:
        return {**self.methods_out, **self.tasks_out}

    def specs(self) -> list[Spec]:
        return [*self.stores.values(), *self.encoders.values(), *self.packs.values(), self.page]


def plan(study: Study, root: Path | str = ".") -> Plan:
    """All specs of a study.

    Args:
        root: the project's folder; relative paths of image folders and code.lock start there.

    Raises:
        UserError: an image folder that is missing, empty or not readable.
    """
    return _Planner(study, Path(root)).plan()


class _Planner:
    def __init__(self, study: Study, root: Path):
        self.study, self.root = study, root
        self.lock = CodeLock(root / "code.lock")
        self.stores = Stores(study, root, self.lock)

    def plan(self) -> Plan:
        study = self.study
        made = Plan(study)
        upstream = self.stores.upstream()
        tasks = {name: study.task(name) for name in study.tasks}
        task_stores = {name: self.stores.task(task) for name, task in tasks.items()}
        encoders = {method: self._encoder(method, upstream) for method in study.methods}
        pretrained = [method for method, spec in encoders.items() if spec["upstream"]]
        if pretrained:
            self.stores.refuse_shared_images(upstream, list(task_stores.values()))
        # Packs are cut from all cells: what is left out moves no cell of another pack.
        cells = [
            self._cell(tasks[name], store, encoders[method], budget, seed)
            for name, store in task_stores.items()  # task by task, so that the cells of a pack share a store
            for budget in study.budgets
            for method in study.methods
            for seed in study.seeds
        ]
        if pretrained:
            self._bring(made, upstream, {name: encoders[name] for name in pretrained}, cells)
        for store in {spec["key"]: spec for spec in task_stores.values()}.values():
            self._bring(made, store, {}, [cell for cell in cells if cell["store"]["key"] == store["key"]])
        made.packs = self._packs([cell if self._stays(made, cell) else None for cell in cells])
        made.cells = {cell["key"]: cell for pack in made.packs.values() for cell in pack["cells"]}
        made.encoders = {spec["key"]: spec for method, spec in encoders.items() if method not in made.methods_out}
        if any(spec["upstream"] for spec in made.encoders.values()):
            made.stores[upstream["key"]] = upstream
        made.stores |= {spec["key"]: spec for name, spec in task_stores.items() if name not in made.tasks_out}
        if not made.cells:
            raise UserError(
                f"study {study.study}: nothing is left to run. {' '.join(dict.fromkeys(made.left_out.values()))}"
            )
        made.page = self._page(made, upstream)
        return made

    def _bring(self, made: Plan, store: Spec, encoders: dict[str, Spec], cells: list[Spec]) -> None:
        """Note what a person has to bring for a store of `encoders` (the upstream) or of `cells` (a task's), and leave out
        what needs it if the study says so. What is finished, here or on the machine that it was pulled from, needs nothing.
        """
        sentences = self.stores.absent(store)
        if not sentences:
            return
        to_run = [cell for cell in cells if self._stays(made, cell) and not is_complete(cell, self.root)]
        methods = {cell["method"] for cell in to_run}
        methods = {name for name, spec in encoders.items() if name in methods and not is_complete(spec, self.root)}
        tasks = set() if encoders else {cell["task"] for cell in to_run}
        if self.study.prepare.tfds.absent == "leave-out":
            made.methods_out |= dict.fromkeys(methods, sentences[0])
            made.tasks_out |= dict.fromkeys(tasks, sentences[0])
        elif methods or tasks:
            made.to_bring += sentences

    def _stays(self, made: Plan, cell: Spec) -> bool:
        return cell["method"] not in made.methods_out and cell["task"] not in made.tasks_out

    # ---- encoders

    def _encoder(self, method: str, store: Spec) -> Spec:
        info = catalogue.methods()[method]
        pretrain = self.study.pretrain
        network = self.study.network(method)
        code = {
            "method": self.lock.identity(f"methods/{info.module.rpartition('.')[2]}"),
            "network": self.lock.identity(f"networks/{NETWORKS[network]['module']}"),
        }
        size, upstream, settings = self.stores.image["size"], None, {}
        identity: Spec = {"method": method, "network": network, "code": code}
        if info.streams:
            uses = set(info.streams.values())
            settings = self.study.method_settings(method)
            size = settings.pop("image_size")
            subset = self._subset() if "subset" in uses else None
            identity |= {
                "settings": settings,
                "seed": pretrain.seed,
                "images": store["identity"]["images"],
                # Of a list the content counts, not where it lies.
                "subset": subset and {name: value for name, value in subset.items() if name != "file"},
            }
            classes = store["classes"][store["tasks"][0]]
            if uses & {"labels", "subset"}:
                if classes < 2:
                    raise UserError(
                        f"upstream {store['dataset']} has no labels (all its images lie in one folder) and method {method} "
                        "learns from 2 classes or more: arrange it as <class>/<image>, or leave the method out"
                    )
                identity["labels"] = store["identity"]["labels"]
            upstream = {
                "dataset": store["dataset"],
                "folder": store["folder"],
                "receipt": store["receipt"],
                "task": store["tasks"][0],
                "classes": classes,
                "subset": subset,
            }
            if store["image"].get("form") == "packed":
                identity["drawn_at"] = upstream["size"] = self.study.prepare.imagenet.drawn_at
        identity["image_size"] = size
        key = digest(["encoder", identity])
        return {
            "step": "pretrain",
            "key": key,
            "method": method,
            "display": info.display,
            "family": info.family,
            "folder": f"results/encoders/{method}/{key}",
            "receipt": f"results/encoders/{method}/{key}.json",
            "scratch": f"scratch/pretrain/{key}",
            "network": network,
            "image_size": size,
            "seed": pretrain.seed,
            "gpus": self.study.run.gpus_per_encoder,
            "settings": settings,
            "upstream": upstream,
            "identity": identity,
            "code": code,
        }

    def _subset(self) -> Spec:
        """The labelled subset as a spec has it: how to draw it, or which file lists it, with the file's digest."""
        given = self.study.pretrain.subset
        if given.file is None:
            return {"fraction": given.fraction, "seed": given.seed}
        path = self.root / given.file
        if not path.is_file():
            raise UserError(
                f"pretrain.subset.file: there is no file {given.file}; it lists one image of the upstream a line"
            )
        return {"file": given.file, "sha256": sha256(path)}

    # ---- cells and packs

    def _cell(self, task: Task, store: Spec, encoder: Spec, budget: str, seed: int) -> Spec:
        settings = {**self.study.finetune.model_dump(), "resize": self.stores.image["resize"]}
        for name in ("learning_rates", "steps", "decay_at"):
            settings[name] = list(settings[name])
        code = self.lock.identity("finetune")
        identity = {
            "encoder": encoder["key"],
            "task": [task.id, store["identity"][budget]],
            "budget": budget,
            "seed": seed,
            "image_size": self.stores.image["size"],
            "settings": settings,
            "code": code,
        }
        key = digest(["cell", identity])
        method = encoder["method"]
        return {
            "key": key,
            "method": method,
            "task": task.id,
            "budget": budget,
            "seed": seed,
            "source": task.source,
            "classes": store["classes"][task.id],
            "image_size": self.stores.image["size"],
            "folder": f"results/scores/{method}/{task.id}/{budget}/{key}",
            "scratch": f"scratch/finetune/{key}",
            "encoder": {name: encoder[name] for name in ("key", "folder", "receipt")},
            "store": {name: store[name] for name in ("dataset", "key", "folder", "receipt")},
            "settings": settings,
            "identity": identity,
            "code": code,
        }

    def _packs(self, cells: list[Spec | None]) -> dict[str, Spec]:
        """Packs of all cells, None for one that is left out. The partition follows from the study alone, never from what
        exists: any node that plans the study finds the same packs.
        """
        size = self.study.run.cells_per_job
        packs = {}
        for start in range(0, len(cells), size):
            chosen = [cell for cell in cells[start : start + size] if cell is not None]
            if not chosen:
                continue
            pack = digest(["pack", [cell["key"] for cell in chosen]])
            packs[pack] = {
                "step": "finetune",
                "key": pack,
                "pack": pack,
                "receipt": f"results/packs/{pack}.json",
                "cells": chosen,
            }
        return packs

    # ---- the page

    def _page(self, made: Plan, upstream: Spec) -> Spec:
        methods = [catalogue.methods()[name] for name in self.study.methods if name not in made.methods_out]
        tasks = [self.study.task(name) for name in self.study.tasks if name not in made.tasks_out]
        cells = list(made.cells.values())
        classes = {cell["task"]: cell["classes"] for cell in cells}
        shown = {
            "study": self.study.study,
            "methods": [
                {"id": m.id, "display": m.display, "family": m.family, "network": self.study.network(m.id)}
                for m in methods
            ],
            "tasks": [
                {
                    "id": t.id,
                    "display": t.display,
                    "group": t.group,
                    "source": t.source,
                    "dataset": t.dataset,
                    "classes": classes[t.id],
                }
                for t in tasks
            ],
            "budgets": list(self.study.budgets),
            "seeds": list(self.study.seeds),
            "upstream": {
                "id": upstream["dataset"],
                "display": self._display(upstream["dataset"]),
                "source": upstream["source"],
            },
            "network": self.study.pretrain.network,
            "evaluation": self.study.finetune.evaluation,
            "left_out": self._left_out(made),
            "settings": self.study.report.model_dump(),
            "code": self.lock.identity("report"),
        }
        key = digest(["page", shown, sorted(cell["key"] for cell in cells)])
        folder = f"results/reports/{self.study.study}"
        return {
            "step": "report",
            "key": key,
            "folder": f"{folder}/{key}",
            "receipt": f"{folder}/{key}.json",
            **shown,
            "cells": [
                {name: cell[name] for name in ("key", "method", "task", "budget", "seed", "folder")}
                | {"encoder": cell["encoder"]["folder"]}
                for cell in cells
            ],
        }

    def _left_out(self, made: Plan) -> Spec:
        """The names of what the page must not pass over in silence: of the study's own methods and tasks, and of VTAB's tasks
        in a study of some of them; and whether its VTAB datasets may be cuts.
        """
        study = self.study
        named = [study.task(name) for name in study.tasks]
        real = {task.id for task in named if task.source == "tfds"} - set(made.tasks_out)
        return {
            "methods": [catalogue.methods()[name].display for name in study.methods if name in made.methods_out],
            "tasks": [task.display for task in named if task.id in made.tasks_out],
            "vtab": [task.display for name, task in vtab().items() if name not in real] if real else [],
            "cut": study.prepare.tfds.counts == "any" and (bool(real) or study.upstream == IMAGENET),
        }

    def _display(self, upstream: str) -> str:
        if upstream in UPSTREAMS:
            return UPSTREAMS[upstream]
        return self.study.prepare.folders[upstream].display or upstream


def freeze(made: Plan, root: Path | str = ".") -> None:
    """Write every spec to results/specs/<step>/<key>.json: from here on a job reads its spec and never params.yaml."""
    for spec in made.specs():
        path = Path(root) / spec_path(spec["step"], spec["key"])
        if _read(path) != json.loads(canonical(spec)):
            write_json(path, spec)


def spec_path(step: str, key: str) -> Path:
    return SPECS / step / f"{key}.json"


def is_complete(spec: Spec, root: Path | str = ".") -> bool:
    """Whether a result is there: its small JSON is written last. A pack is complete when all its cells are."""
    step, folder = spec.get("step", "cell"), Path(root) / spec.get("folder", "")
    if step == "finetune":
        return all(is_complete(cell, root) for cell in spec["cells"])
    if step == "report":
        return _shows_all(spec, root)
    return (folder / {"prepare": "manifest.json", "pretrain": "card.json", "cell": "score.json"}[step]).exists()


def _shows_all(page: Spec, root: Path | str) -> bool:
    """Whether a page is there, shows every cell, and none of those that it shows as failed has been run again since."""
    card = _read(Path(root) / page["folder"] / "card.json")
    if not card or not card["complete"] or not all(is_complete(cell, root) for cell in page["cells"]):
        return False
    if not card["cells"]["failed"]:
        return True
    scores = [_read(Path(root) / cell["folder"] / "score.json") for cell in page["cells"]]
    return sum(score["status"] == "failed" for score in scores) == card["cells"]["failed"]


def _read(path: Path) -> Any:
    """What a small JSON file says; None if it is not there or torn."""
    try:
        return read_json(path)
    except (OSError, ValueError):
        return None


def forget_lost(made: Plan, root: Path | str = ".") -> None:
    """Remove receipts whose result is gone (deleted by hand, or not pulled), so that Snakemake asks for the result again."""
    for spec in made.specs():
        if not is_complete(spec, root):
            (Path(root) / spec["receipt"]).unlink(missing_ok=True)
    current = Path(root) / "results/reports" / made.study.study
    if not (current / "index.html").exists() or not (Path(root) / made.page["receipt"]).exists():
        (current / ".current" / made.page["key"]).unlink(missing_ok=True)
