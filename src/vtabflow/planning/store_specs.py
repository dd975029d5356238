"""The specs of a study's stores: drawn stand-ins, folders of images, VTAB's datasets through TFDS, and ImageNet.

A store's key holds all that is in it. Its "identity" says, part by part, what its users take from it: a cell the rows of its
budget, an encoder the upstream's images, labels and subset. So more rows elsewhere in a store run nothing again.
"""

from pathlib import Path
from typing import Any

from vtabflow.errors import UserError
from vtabflow.planning.code_identity import CodeLock
from vtabflow.planning.study import Study
from vtabflow.planning.tasks import IMAGENET, UPSTREAM_STANDIN, VTAB, Task, renderers
from vtabflow.prepare.folders.fingerprint import identity as folder_identity
from vtabflow.prepare.folders.fingerprint import scan
from vtabflow.prepare.tfds.archives import ARCHIVES
from vtabflow.prepare.tfds.manual import missing_by_hand
from vtabflow.runtime.files import digest, read_json

Spec = dict[str, Any]
ROWS_1K = {"train": 800, "val": 200}  # protocol.md section 1.2: train800, val200
FINGERPRINTS = Path("scratch/fingerprints.json")
IMAGENET_CLASSES = 1000
IMAGENET_VERSION = "5.1.0"  # of TFDS 4.9.10's imagenet2012


class Stores:
    """Plans the stores of one study; `root` is the project's folder."""

    def __init__(self, study: Study, root: Path, lock: CodeLock):
        self.study, self.root, self.lock = study, root, lock
        prepare = study.prepare
        self.image: Spec = {"size": prepare.image_size, "resize": prepare.resize}
        # What is drawn is drawn in whole numbers; of what is resized the study may ask for the unrounded ones.
        self.resized = self.image | ({"numbers": prepare.numbers} if prepare.numbers != "uint8" else {})

    def task(self, task: Task) -> Spec:
        budgets = self.study.budgets
        if task.source == "folder":
            return self._folder_store(task.id, "task", budgets)
        if task.source == "tfds":
            return self._tfds_store(task.dataset, budgets)
        drawn = self.study.prepare.procedural
        counts = {"train": drawn.train, "val": drawn.val, "test": drawn.test}
        return self._procedural_store(task.dataset, str(task.module), counts, budgets)

    def upstream(self) -> Spec:
        if self.study.upstream == IMAGENET:
            return self._imagenet_store()
        if self.study.upstream != UPSTREAM_STANDIN:
            return self._folder_store(self.study.upstream, "upstream", ("full",))
        drawn = self.study.prepare.procedural
        counts = {"train": drawn.upstream, "val": drawn.val, "test": 0}
        return self._procedural_store(UPSTREAM_STANDIN, renderers()[UPSTREAM_STANDIN][0], counts, ("full",))

    def _procedural_store(self, dataset: str, module: str, counts: dict[str, int], budgets: tuple[str, ...]) -> Spec:
        seed = self.study.prepare.procedural.seed
        tasks = [task for task, (its_module, _) in renderers().items() if its_module == module]
        classes = {task: renderers()[task][1] for task in tasks}
        code = self.lock.identity(f"standins/{module}")
        drawn = {"source": "procedural", "dataset": dataset, "seed": seed, "image": self.image, "code": code}
        trained = digest([drawn, counts["train"]])
        parts = {
            "images": trained,
            "labels": trained,
            "1k": digest([drawn, {**counts, **ROWS_1K}]),
            "full": digest([drawn, counts]),
        }
        settings = {"module": module, "seed": seed, "counts": counts}
        return self._store(dataset, "procedural", settings, classes, budgets, parts, code, self.image)

    def _folder_store(self, dataset: str, role: str, budgets: tuple[str, ...]) -> Spec:
        folder = self.study.prepare.folders[dataset]
        found = folder_identity(self.root / folder.path, self.root / FINGERPRINTS)
        split = {"seed": self.study.prepare.split_seed, "fractions": list(self.study.prepare.split)}
        code = self.lock.identity("prepare/folder")
        image = self.resized if role == "task" else self.image
        how = {"source": "folder", "role": role, "invalid": folder.invalid, "split": split, "image": image}
        images, labels = digest([how, found["images"], code]), digest([how, found["labels"], code])
        both = digest([images, labels])
        parts = {"images": images, "labels": labels, "1k": both, "full": both}
        settings = {"path": folder.path, "invalid": folder.invalid, "split": split, "role": role}
        classes = {dataset: found["classes"]}
        store = self._store(dataset, "folder", settings, classes, budgets, parts, code, image)
        # For the job, not for the key: a folder that has changed since it was planned is refused.
        return {**store, "fingerprint": {"images": found["images"], "labels": found["labels"]}}

    def _tfds_store(self, dataset: str, budgets: tuple[str, ...]) -> Spec:
        given = self.study.prepare.tfds
        settings = {**self.study.tfds_settings(dataset), "checksums": self._checksums(dataset)}
        classes = {task: count for task, _, _, its_dataset, count in VTAB if its_dataset == dataset}
        code = self.lock.identity("prepare/tfds")
        # Rows of the 1k budget are the first of the full one, so a cell takes the same from either store.
        how: Spec = {"source": "tfds", "image": self.resized, "code": code}
        if given.counts == "any":  # a cut of the set must never pass for the set
            how["counts"] = ["any", *self._of_a_cut()]
        content = digest([how, settings])
        parts = dict.fromkeys(("images", "labels", "1k", "full"), content)
        settings["counts"] = given.counts
        store = self._store(dataset, "tfds", settings, classes, budgets, parts, code, self.resized)
        return {**store, "places": self._places()}

    def _imagenet_store(self) -> Spec:
        given, counts = self.study.prepare.imagenet, self.study.prepare.tfds.counts
        image = {"form": "packed", "side": given.side, "quality": given.quality if given.side else None}
        code = self.lock.identity("prepare/imagenet")
        # The tars, a TFDS folder and a tree give the same store; a cut of the set is known by its files.
        classes: int = IMAGENET_CLASSES
        cut: Any = None if counts == "official" else ["any", *self._of_a_cut()]
        if given.tree and cut:
            tree = self.root / given.tree
            train = tree / "train" if (tree / "train").is_dir() else tree  # ImageNet's val/ has no classes
            found = folder_identity(train, self.root / FINGERPRINTS)
            classes, cut = found["classes"], [found["images"], found["labels"]]
        how = {"source": "imagenet", "version": IMAGENET_VERSION, "cut": cut}
        images, labels = digest([how, image, code]), digest([how, "labels", code])
        both = digest([images, labels])
        parts = {"images": images, "labels": labels, "1k": both, "full": both}
        settings = {"from": "tree" if given.tree else "tfds", "version": IMAGENET_VERSION, "counts": counts}
        store = self._store(IMAGENET, "imagenet", settings, {IMAGENET: classes}, ("full",), parts, code, image)
        return {**store, "places": {**self._places(), "tree": given.tree}}

    def _places(self) -> Spec:
        """Where records, archives and what people bring lie: for the job, not for the key."""
        given = self.study.prepare.tfds
        return {
            "tfds": given.folder,
            "downloads": given.downloads,
            "manual": given.manual,
            "checksums": given.checksums,
            "mirrors": given.mirrors,
        }

    def _of_a_cut(self) -> list[str]:
        """What tells one cut of a set from another. Their bytes would not do: archives go and records come."""
        given = self.study.prepare.tfds
        return [given.folder, given.downloads, given.manual]

    def _checksums(self, dataset: str) -> dict[str, str]:
        """The study's own digests of this dataset's archives: other archives may hold other images."""
        given = self.study.prepare.tfds.checksums
        if given is None:
            return {}
        path = self.root / given
        try:
            known = read_json(path)
            if not isinstance(known, dict):
                raise TypeError(f"it holds a {type(known).__name__}")
            found = {
                archive: known[archive.url]["sha256"].lower() for archive in ARCHIVES[dataset] if archive.url in known
            }
            # TFDS' own digest, written out, is no other archive.
            return {archive.url: sha256 for archive, sha256 in found.items() if sha256 != archive.sha256}
        except FileNotFoundError as error:
            raise UserError(
                f"prepare.tfds.checksums: there is no file {given}; leave the key out, or write it"
            ) from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f'{given} should hold {{address: {{"sha256": ..., "size": ...}}}} as JSON ({error})'
            ) from error

    def _store(
        self,
        dataset: str,
        source: str,
        settings: Spec,
        classes: dict[str, int],
        budgets: tuple[str, ...],
        parts: dict[str, str],
        code: str,
        image: Spec,
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
            "image": image,
            "rows": rows,
            "tasks": list(classes),
            "classes": classes,
            "identity": parts,
            "code": code,
        }

    def refuse_shared_images(self, upstream: Spec, tasks: list[Spec]) -> None:
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

    def absent(self, store: Spec) -> list[str]:
        """What a person still has to do before a store can be made: sentences, none if there is nothing to do."""
        if store["source"] not in ("tfds", "imagenet") or (self.root / store["folder"] / "manifest.json").exists():
            return []
        places = {name: self._below(place) for name, place in store["places"].items()}
        if (tree := places.get("tree")) and not Path(tree).is_dir():
            return [
                f"{store['dataset']}: {tree} is not a folder: correct `prepare.imagenet.tree`, or bring the tree there."
            ]
        return missing_by_hand(store["dataset"], places, store["settings"]["counts"])

    def _below(self, place: Any) -> Any:
        return str(self.root / place) if isinstance(place, str) else place
