"""A study's jobs: the spec of every store, encoder, pack and page, each under a key that digests all that it is made from.

A key holds what goes in (settings, digests of images and labels, code identity) and never how the work is done (pack sizes,
threads, devices, paths, file times). Nothing here imports torch; a study of 684 cells takes well under a second.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vtabflow import catalogue
from vtabflow.code import CodeLock
from vtabflow.errors import UserError
from vtabflow.files import canonical, digest, read_json, sha256, write_json
from vtabflow.networks.table import NETWORKS
from vtabflow.prepare.fingerprint import identity as folder_identity
from vtabflow.prepare.fingerprint import scan
from vtabflow.prepare.tasks import UPSTREAM_STANDIN, Task, renderers
from vtabflow.study import Study

Spec = dict[str, Any]
SPECS = Path("results/specs")
ROWS_1K = {"train": 800, "val": 200}  # protocol.md section 1.2: train800, val200
FINGERPRINTS = Path("scratch/fingerprints.json")


@dataclass
class Plan:
    """The specs of a study by key, and its page. The order of `packs` is the order of the work."""

    study: Study
    stores: dict[str, Spec] = field(default_factory=dict)
    encoders: dict[str, Spec] = field(default_factory=dict)
    cells: dict[str, Spec] = field(default_factory=dict)
    packs: dict[str, Spec] = field(default_factory=dict)
    page: Spec = field(default_factory=dict)

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
        self.image = {"size": study.prepare.image_size, "resize": study.prepare.resize}

    def plan(self) -> Plan:
        made = Plan(self.study)
        upstream = self._upstream_store()
        encoders = {method: self._encoder(method, upstream) for method in self.study.methods}
        if any(spec["upstream"] for spec in encoders.values()):
            made.stores[upstream["key"]] = upstream
        made.encoders = {spec["key"]: spec for spec in encoders.values()}
        # Task by task, so that the cells of a pack share a store.
        task_stores = {name: self._task_store(self.study.task(name)) for name in self.study.tasks}
        if any(spec["upstream"] for spec in encoders.values()):
            self._refuse_shared_images(upstream, list(task_stores.values()))
        for name, store in task_stores.items():
            task = self.study.task(name)
            made.stores[store["key"]] = store
            for budget in self.study.budgets:
                for method in self.study.methods:
                    for seed in self.study.seeds:
                        cell = self._cell(task, store, encoders[method], budget, seed)
                        made.cells[cell["key"]] = cell
        made.packs = self._packs(list(made.cells.values()))
        made.page = self._page(list(made.cells.values()), upstream)
        return made

    # ---- stores
    # A store's key holds all that is in it. Its "identity" says, part by part, what its users take from it: a cell the rows of its
    # budget, an encoder the upstream's images, labels and subset. So more rows elsewhere in a store run nothing again.

    def _task_store(self, task: Task) -> Spec:
        budgets = self.study.budgets
        if task.source == "folder":
            return self._folder_store(task.id, "task", budgets)
        drawn = self.study.prepare.procedural
        counts = {"train": drawn.train, "val": drawn.val, "test": drawn.test}
        return self._procedural_store(task.dataset, str(task.module), counts, budgets)

    def _upstream_store(self) -> Spec:
        if self.study.upstream != UPSTREAM_STANDIN:
            return self._folder_store(self.study.upstream, "upstream", ("full",))
        drawn = self.study.prepare.procedural
        counts = {"train": drawn.upstream, "val": drawn.val, "test": 0}
        return self._procedural_store(UPSTREAM_STANDIN, renderers()[UPSTREAM_STANDIN][0], counts, ("full",))

    def _procedural_store(self, dataset: str, module: str, counts: dict[str, int], budgets: tuple[str, ...]) -> Spec:
        seed = self.study.prepare.procedural.seed
        tasks = [task for task, (its_module, _) in renderers().items() if its_module == module]
        classes = {task: renderers()[task][1] for task in tasks}
        code = self.lock.identity(f"prepare/procedural/{module}")
        drawn = {"source": "procedural", "dataset": dataset, "seed": seed, "image": self.image, "code": code}
        trained = digest([drawn, counts["train"]])
        parts = {
            "images": trained,
            "labels": trained,
            "1k": digest([drawn, {**counts, **ROWS_1K}]),
            "full": digest([drawn, counts]),
        }
        settings = {"module": module, "seed": seed, "counts": counts}
        return self._store(dataset, "procedural", settings, classes, budgets, parts, code)

    def _folder_store(self, dataset: str, role: str, budgets: tuple[str, ...]) -> Spec:
        folder = self.study.prepare.folders[dataset]
        found = folder_identity(self.root / folder.path, self.root / FINGERPRINTS)
        split = {"seed": self.study.prepare.split_seed, "fractions": list(self.study.prepare.split)}
        code = self.lock.identity("prepare/folder")
        how = {"source": "folder", "role": role, "invalid": folder.invalid, "split": split, "image": self.image}
        images, labels = digest([how, found["images"], code]), digest([how, found["labels"], code])
        both = digest([images, labels])
        parts = {"images": images, "labels": labels, "1k": both, "full": both}
        settings = {"path": folder.path, "invalid": folder.invalid, "split": split, "role": role}
        store = self._store(dataset, "folder", settings, {dataset: found["classes"]}, budgets, parts, code)
        # For the job, not for the key: a folder that has changed since it was planned is refused.
        return {**store, "fingerprint": {"images": found["images"], "labels": found["labels"]}}

    def _store(
        self,
        dataset: str,
        source: str,
        settings: Spec,
        classes: dict[str, int],
        budgets: tuple[str, ...],
        parts: dict[str, str],
        code: str,
    ) -> Spec:
        rows = "all" if "full" in budgets else "1k"
        key = digest(["store", dataset, parts if rows == "all" else parts["1k"], rows, list(classes)])
        return {
            "step": "prepare",
            "key": key,
            "dataset": dataset,
            "folder": f"data/stores/{dataset}/{key}",
            "receipt": f"data/stores/{dataset}/{key}.json",
            "manifest": f"data/manifests/{dataset}/{key}.json",
            "source": source,
            "settings": settings,
            "image": self.image,
            "rows": rows,
            "tasks": list(classes),
            "classes": classes,
            "identity": parts,
            "code": code,
        }

    def _refuse_shared_images(self, upstream: Spec, tasks: list[Spec]) -> None:
        """Pre-training must not see the images of a task (VTAB's rule): no file may be in the upstream folder and in a task's."""
        seen: set[tuple[int, int]] = set()
        for store in [upstream, *(task for task in tasks if task["source"] == "folder")]:
            if upstream["source"] != "folder":
                return
            path = store["settings"]["path"]
            files = {(size, crc) for _, size, crc in scan(self.root / path, self.root / FINGERPRINTS)["files"]}
            if store is upstream:
                seen = files
            elif shared := len(files & seen):
                raise UserError(
                    f"{shared} images of task {store['dataset']} ({path}) are in the upstream set {upstream['dataset']} too: "
                    "pre-training would see test images; take them out of one of the two"
                )

    # ---- encoders

    def _encoder(self, method: str, store: Spec) -> Spec:
        info = catalogue.methods()[method]
        pretrain = self.study.pretrain
        network = self.study.network(method)
        code = {
            "method": self.lock.identity(f"methods/{info.module.rpartition('.')[2]}"),
            "network": self.lock.identity(f"networks/{NETWORKS[network]['module']}"),
        }
        size, upstream, settings = self.image["size"], None, {}
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
        settings = {**self.study.finetune.model_dump(), "resize": self.image["resize"]}
        for name in ("learning_rates", "steps", "decay_at"):
            settings[name] = list(settings[name])
        code = self.lock.identity("finetune")
        identity = {
            "encoder": encoder["key"],
            "task": [task.id, store["identity"][budget]],
            "budget": budget,
            "seed": seed,
            "image_size": self.image["size"],
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
            "image_size": self.image["size"],
            "folder": f"results/scores/{method}/{task.id}/{budget}/{key}",
            "scratch": f"scratch/finetune/{key}",
            "encoder": {name: encoder[name] for name in ("key", "folder", "receipt")},
            "store": {name: store[name] for name in ("dataset", "key", "folder", "receipt")},
            "settings": settings,
            "identity": identity,
            "code": code,
        }

    def _packs(self, cells: list[Spec]) -> dict[str, Spec]:
        """The partition follows from the study alone, never from what exists: any node that plans the study finds the same packs."""
        size = self.study.run.cells_per_job
        packs = {}
        for start in range(0, len(cells), size):
            chosen = cells[start : start + size]
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

    def _page(self, cells: list[Spec], upstream: Spec) -> Spec:
        methods = [catalogue.methods()[name] for name in self.study.methods]
        tasks = [self.study.task(name) for name in self.study.tasks]
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

    def _display(self, upstream: str) -> str:
        if upstream == UPSTREAM_STANDIN:
            return "procedural upstream set"
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
