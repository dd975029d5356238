"""The spec of every store, encoder, job and page of a study, each under a key that digests all that it is made from.

A key holds what goes in (settings, digests of images and labels, code identity) and never how the work is done (cells
per job, threads, devices, paths, file times). Nothing here imports torch; a study of 684 cells takes under a second.
"""

from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from vtabflow.contracts.specs import (
    CellSpec,
    EncoderCode,
    EncoderRef,
    EncoderSpec,
    FinetuneSettings,
    JobSpec,
    LeftOut,
    PackedImageSpec,
    PageCell,
    PageMethod,
    PageSpec,
    PageTask,
    PageUpstream,
    PretrainSettings,
    ReportSettings,
    Spec,
    StoreRef,
    StoreSpec,
    SubsetDraw,
    SubsetFile,
    UpstreamSpec,
)
from vtabflow.contracts.typed_json import to_json
from vtabflow.errors import UserError
from vtabflow.planning import catalogue
from vtabflow.planning.code.lock import CodeLock
from vtabflow.planning.folders import KnownFolder, few_collections
from vtabflow.planning.store_specs import StorePlanner, upstream_source
from vtabflow.planning.study import Study
from vtabflow.planning.tasks import IMAGENET, UPSTREAM_STANDIN, Task, vtab
from vtabflow.runtime.experiments import located
from vtabflow.runtime.files import digest, sha256

UPSTREAMS = {UPSTREAM_STANDIN: "procedural upstream set", IMAGENET: "ImageNet (ILSVRC-2012)"}
# The settings of pre-training that every method has; the others are the method's own.
COMMON = tuple(entry.name for entry in fields(PretrainSettings) if entry.name != "method")
# The fields of a page's spec that its key digests, next to the keys of its cells.
SHOWN = (
    *("study", "methods", "tasks", "budgets", "seeds", "upstream", "network", "evaluation", "left_out"),
    *("settings", "code"),
)


@dataclass
class Plan:
    """The specs of a study by key, and its page. The order of `jobs` is the order of the work.

    Attributes:
        excluded_methods: methods of the study that are not run (prepare.tfds.absent: leave-out), with the reason.
        excluded_tasks: tasks, likewise.
        manual_downloads: sentences; what a person has to download before the stores can be made.
        folders: what is known of the folders of images among the stores, by dataset.
    """

    study: Study
    page: PageSpec
    stores: dict[str, StoreSpec]
    encoders: dict[str, EncoderSpec]
    cells: dict[str, CellSpec]
    jobs: dict[str, JobSpec]
    excluded_methods: dict[str, str] = field(default_factory=dict)
    excluded_tasks: dict[str, str] = field(default_factory=dict)
    manual_downloads: list[str] = field(default_factory=list)
    folders: dict[str, KnownFolder] = field(default_factory=dict)

    @property
    def excluded(self) -> dict[str, str]:
        """Methods and tasks that are not run, with the reason."""
        return {**self.excluded_methods, **self.excluded_tasks}

    def specs(self) -> list[Spec]:
        """All specs that a step can run."""
        return [*self.stores.values(), *self.encoders.values(), *self.jobs.values(), self.page]


def plan(study: Study, root: Path | str = ".", lock: CodeLock | None = None) -> Plan:
    """All specs of a study.

    Args:
        study: the settings.
        root: the project's folder; relative paths of image folders and code.lock start there.
        lock: the code identities, if not those of code.lock.

    Raises:
        UserError: an image folder that is missing, empty or not readable.
    """
    with few_collections():
        return _Planner(study, Path(root), lock or CodeLock(Path(root) / "code.lock")).plan()


class _Planner:
    def __init__(self, study: Study, root: Path, lock: CodeLock):
        self.study, self.root, self.lock = study, root, lock
        self.stores = StorePlanner(study, root, lock)
        self.tasks = {name: study.task(name) for name in study.tasks}
        self.excluded_methods: dict[str, str] = {}
        self.excluded_tasks: dict[str, str] = {}
        self.manual_downloads: list[str] = []

    def plan(self) -> Plan:
        study = self.study
        # Where nothing is trained, the upstream's images are not looked at.
        is_trained = any(catalogue.methods()[method].source == "trained" for method in study.methods)
        upstream = self.stores.upstream() if is_trained else None
        encoders = {method: self._encoder(method, upstream) for method in study.methods}
        trained = {name: spec for name, spec in encoders.items() if spec.upstream}
        task_stores = self._task_stores(upstream)
        # Jobs are cut from all cells: what is excluded moves no cell to another job.
        all_cells = [
            self._cell(task, task_stores[name], encoders[method], budget, seed) if name in task_stores else None
            for name, task in self.tasks.items()  # task by task, so that the cells of a job share a store
            for budget in study.budgets
            for method in study.methods
            for seed in study.seeds
        ]
        known_cells = [cell for cell in all_cells if cell]
        self._exclude_unavailable(upstream, task_stores, trained, known_cells)
        jobs = self._jobs([cell if cell and self._is_run(cell) else None for cell in all_cells])
        cells = {cell.key: cell for job in jobs.values() for cell in job.cells}
        if not cells:
            reasons = dict.fromkeys([*self.excluded_methods.values(), *self.excluded_tasks.values()])
            raise UserError(f"study {study.study}: nothing is left to run. {' '.join(reasons)}")
        run_encoders = {spec.key: spec for name, spec in encoders.items() if name not in self.excluded_methods}
        stores = {upstream.key: upstream} if upstream and any(spec.upstream for spec in run_encoders.values()) else {}
        stores |= {spec.key: spec for name, spec in task_stores.items() if name not in self.excluded_tasks}
        known = self.stores.folders.known
        return Plan(
            study=study,
            page=self._page(list(cells.values()), upstream, stores),
            stores=stores,
            encoders=run_encoders,
            cells=cells,
            jobs=jobs,
            excluded_methods=self.excluded_methods,
            excluded_tasks=self.excluded_tasks,
            manual_downloads=self.manual_downloads,
            folders={spec.dataset: known[spec.dataset] for spec in stores.values() if spec.dataset in known},
        )

    def _task_stores(self, upstream: StoreSpec | None) -> dict[str, StoreSpec]:
        """The stores of the tasks, less the folders that will not do and may be left out (`invalid: skip-task`)."""
        stores = {}
        for name, task in self.tasks.items():
            try:
                store = self.stores.task(task)
                if upstream and (sentence := self.stores.shared_images(upstream, store)):
                    raise UserError(sentence)
                stores[name] = store
            except UserError as error:
                folder = self.study.prepare.folders.get(name)
                if folder is None or folder.invalid != "skip-task":
                    raise
                self.excluded_tasks[name] = str(error)
        return stores

    # ---- what cannot be made yet

    def _exclude_unavailable(
        self,
        upstream: StoreSpec | None,
        task_stores: dict[str, StoreSpec],
        trained: dict[str, EncoderSpec],
        cells: list[CellSpec],
    ) -> None:
        """Note what a person has to download, and exclude what needs it if the study says so.

        What is finished, here or on the machine that it was pulled from, needs nothing.
        """
        if upstream and trained and (sentences := self.stores.missing_downloads(upstream)):
            unfinished = {name for name, spec in trained.items() if not self._exists(spec.folder, "card.json")}
            methods = unfinished & {cell.method for cell in cells if self._is_open(cell)}
            self._note(sentences, methods, self.excluded_methods)
        for store in {spec.key: spec for spec in task_stores.values()}.values():
            if sentences := self.stores.missing_downloads(store):
                tasks = {cell.task for cell in cells if cell.store.key == store.key and self._is_open(cell)}
                self._note(sentences, tasks, self.excluded_tasks)

    def _note(self, sentences: list[str], names: set[str], excluded: dict[str, str]) -> None:
        if self.study.prepare.tfds.absent == "leave-out":
            excluded |= dict.fromkeys(names, sentences[0])
        elif names:
            self.manual_downloads += sentences

    def _is_run(self, cell: CellSpec) -> bool:
        return cell.method not in self.excluded_methods and cell.task not in self.excluded_tasks

    def _is_open(self, cell: CellSpec) -> bool:
        return self._is_run(cell) and not self._exists(cell.folder, "score.json")

    def _exists(self, folder: str, name: str) -> bool:
        return (self.root / folder / name).exists()

    # ---- encoders

    def _encoder(self, method: str, store: StoreSpec | None) -> EncoderSpec:
        info = catalogue.methods()[method]
        pretrain, network = self.study.pretrain, self.study.network(method)
        code = EncoderCode(
            method=self.lock.identity(f"methods/{info.module.rpartition('.')[2]}"),
            network=self.lock.identity(f"networks/{network}"),
        )
        size, upstream, settings = self.study.prepare.image_size, None, None
        identity: dict[str, Any] = {"method": method, "network": network, "code": to_json(code)}
        if info.source == "trained":
            assert store is not None
            values = self.study.method_settings(method)
            size = values.pop("image_size")
            upstream = self._upstream(info, store)
            identity |= {"settings": to_json(values), "seed": pretrain.seed}
            identity |= self._upstream_identity(info, store, upstream)
            settings = PretrainSettings(
                **{"learning_rate": None, **{name: values[name] for name in COMMON if name in values}},
                method={name: value for name, value in values.items() if name not in COMMON},
            )
        elif info.settings:
            values = self.study.method_settings(method)
            identity["settings"] = to_json({name: values[name] for name in info.settings})
        identity["image_size"] = size
        identity |= self._numerics()
        key = digest(["encoder", identity])
        return EncoderSpec(
            key=key,
            method=method,
            display=info.display,
            family=info.family,
            source=info.source,
            folder=f"results/encoders/{method}/{key}",
            receipt=f"results/encoders/{method}/{key}.json",
            scratch=f"scratch/pretrain/{key}",
            network=network,
            image_size=size,
            seed=pretrain.seed,
            gpus=self.study.run.gpus_per_encoder,
            settings=settings,
            upstream=upstream,
            identity=identity,
            code=code,
            portable=self.study.portable,
        )

    def _upstream(self, info: catalogue.MethodInfo, store: StoreSpec) -> UpstreamSpec:
        classes = store.classes[store.tasks[0]]
        if info.uses_labels and classes < 2:
            raise UserError(
                f"upstream {store.dataset} has no labels (all its images lie in one folder) and method {info.id} "
                "learns from 2 classes or more: arrange it as <class>/<image>, or leave the method out"
            )
        return UpstreamSpec(
            dataset=store.dataset,
            folder=store.folder,
            receipt=store.receipt,
            task=store.tasks[0],
            classes=classes,
            subset=self._subset() if "subset" in info.streams.values() else None,
            size=self.study.prepare.imagenet.drawn_at if isinstance(store.image, PackedImageSpec) else None,
        )

    def _upstream_identity(
        self, info: catalogue.MethodInfo, store: StoreSpec, upstream: UpstreamSpec
    ) -> dict[str, Any]:
        """What an encoder's key holds of its upstream: no labels where the method sees none."""
        subset = to_json(upstream.subset)
        if isinstance(upstream.subset, SubsetFile):
            del subset["file"]  # the content of a list counts, not where it lies
        identity = {"images": store.identity["images"], "subset": subset}
        if info.uses_labels:
            identity["labels"] = store.identity["labels"]
        if upstream.size is not None:
            identity["drawn_at"] = upstream.size
        return identity

    def _subset(self) -> SubsetDraw | SubsetFile:
        given = self.study.pretrain.subset
        if given.file is None:
            return SubsetDraw(given.fraction, given.seed)
        path = located(self.root / given.file)
        if not path.is_file():
            raise UserError(
                f"pretrain.subset.file: there is no file {given.file}; it lists one image of the upstream per line"
            )
        return SubsetFile(given.file, sha256(path))

    def _numerics(self) -> dict[str, Any]:
        """What an identity holds of `portable`: results with and without it have different bits."""
        return {"portable": True} if self.study.portable else {}

    # ---- cells and jobs

    def _cell(self, task: Task, store: StoreSpec, encoder: EncoderSpec, budget: Any, seed: int) -> CellSpec:
        image = self.stores.image
        settings = FinetuneSettings(**self.study.finetune.model_dump(), resize=image.resize)
        code = self.lock.identity("finetune")
        identity = {
            "encoder": encoder.key,
            "task": [task.id, store.identity[budget]],
            "budget": budget,
            "seed": seed,
            "image_size": image.size,
            "settings": to_json(settings),
            "code": code,
            **self._numerics(),
        }
        key = digest(["cell", identity])
        return CellSpec(
            key=key,
            method=encoder.method,
            task=task.id,
            budget=budget,
            seed=seed,
            source=task.source,
            classes=store.classes[task.id],
            image_size=image.size,
            folder=f"results/scores/{encoder.method}/{task.id}/{budget}/{key}",
            scratch=f"scratch/finetune/{key}",
            encoder=EncoderRef(encoder.key, encoder.folder, encoder.receipt),
            store=StoreRef(store.dataset, store.key, store.folder, store.receipt),
            settings=settings,
            identity=identity,
            code=code,
            portable=self.study.portable,
        )

    def _jobs(self, cells: list[CellSpec | None]) -> dict[str, JobSpec]:
        """Jobs of `cells_per_job` cells, None for one that is excluded.

        The partition follows from the study alone, never from what exists: any node that plans it finds the same jobs.
        """
        size = self.study.run.cells_per_job
        jobs = {}
        for start in range(0, len(cells), size):
            chosen = tuple(cell for cell in cells[start : start + size] if cell is not None)
            if chosen:
                key = digest(["job", [cell.key for cell in chosen]])
                jobs[key] = JobSpec(key=key, receipt=f"results/jobs/{key}.json", cells=chosen)
        return jobs

    # ---- the page

    def _page(self, cells: list[CellSpec], upstream: StoreSpec | None, stores: dict[str, StoreSpec]) -> PageSpec:
        study = self.study
        methods = [catalogue.methods()[name] for name in study.methods if name not in self.excluded_methods]
        tasks = [task for name, task in self.tasks.items() if name not in self.excluded_tasks]
        classes = {cell.task: cell.classes for cell in cells}
        manifests = {cell.task: stores[cell.store.key].manifest for cell in cells}
        draft = PageSpec(
            key="",
            folder="",
            receipt="",
            study=study.study,
            methods=tuple(PageMethod(m.id, m.display, m.family, study.network(m.id)) for m in methods),
            tasks=tuple(
                PageTask(t.id, t.display, t.group, t.source, t.dataset, classes[t.id], manifests[t.id]) for t in tasks
            ),
            budgets=study.budgets,
            seeds=study.seeds,
            upstream=PageUpstream(
                study.upstream,
                self._display(study.upstream),
                upstream_source(study),
                upstream.manifest if upstream and upstream.key in stores else None,
            ),
            network=study.pretrain.network,
            evaluation=study.finetune.evaluation,
            left_out=self._left_out(),
            settings=ReportSettings(study.report.title, study.report.theme),
            code=self.lock.identity("report"),
            cells=tuple(PageCell(c.key, c.method, c.task, c.budget, c.seed, c.folder, c.encoder.folder) for c in cells),
        )
        shown = {name: to_json(getattr(draft, name)) for name in SHOWN}
        key = digest(["page", shown, sorted(cell.key for cell in cells)])
        folder = f"results/reports/{study.study}"
        return replace(draft, key=key, folder=f"{folder}/{key}", receipt=f"{folder}/{key}.json")

    def _left_out(self) -> LeftOut:
        """What the page must mention as missing: excluded methods and tasks, and VTAB's other tasks."""
        study = self.study
        real = (vtab().keys() & self.tasks.keys()) - set(self.excluded_tasks)
        return LeftOut(
            methods=tuple(catalogue.methods()[name].display for name in study.methods if name in self.excluded_methods),
            tasks=tuple(task.display for name, task in self.tasks.items() if name in self.excluded_tasks),
            vtab=tuple(task.display for name, task in vtab().items() if name not in real) if real else (),
            cut=study.prepare.tfds.counts == "any" and (bool(real) or study.upstream == IMAGENET),
            reasons={
                self.tasks[name].display: _without_place(reason, folder.path)
                for name, reason in self.excluded_tasks.items()
                if (folder := study.prepare.folders.get(name))
            },
        )

    def _display(self, upstream: str) -> str:
        if upstream in UPSTREAMS:
            return UPSTREAMS[upstream]
        return self.study.prepare.folders[upstream].display or upstream


def _without_place(text: str, path: str) -> str:
    """A sentence with a folder's name in place of its absolute path, which is this machine's."""
    return text.replace(path, Path(path).name) if Path(path).is_absolute() else text
