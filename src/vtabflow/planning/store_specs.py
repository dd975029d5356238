"""The specs of a study's stores: drawn stand-ins, folders of images, VTAB's datasets through TFDS, and ImageNet.

A store's key holds all that is in it. Its `identity` has a digest for each part that is used: a cell uses the rows of
its budget, an encoder the upstream's images, labels and subset. So more rows elsewhere in a store run nothing again.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

from vtabflow.contracts.protocol import ROWS_1K
from vtabflow.contracts.specs import (
    Fingerprint,
    FolderSettings,
    ImagenetSettings,
    ImageSpec,
    PackedImageSpec,
    Places,
    StandinSettings,
    StoreSpec,
    TfdsSettings,
)
from vtabflow.contracts.typed_json import to_json
from vtabflow.errors import UserError
from vtabflow.planning.code.lock import CodeLock
from vtabflow.planning.folders import Folders, Role, content_settings
from vtabflow.planning.study import Study
from vtabflow.planning.tasks import IMAGENET, UPSTREAM_STANDIN, Task, renderers
from vtabflow.prepare.tfds.datasets import datasets, imagenet
from vtabflow.prepare.tfds.manual import missing_downloads
from vtabflow.runtime.experiments import located
from vtabflow.runtime.files import digest, read_json


class StorePlanner:
    """Plans the stores of one study; `root` is the project's folder."""

    def __init__(self, study: Study, root: Path, lock: CodeLock):
        self.study, self.root, self.lock = study, root, lock
        prepare = study.prepare
        self.folders = Folders(study, root, lock.identity("prepare/folder"))
        self.image = ImageSpec(prepare.image_size, prepare.resize)
        # Stand-ins are drawn in whole numbers; images that are resized can be kept unrounded.
        self.resized_image = replace(self.image, numbers=prepare.numbers)

    def task(self, task: Task) -> StoreSpec:
        """The store of a task's dataset."""
        budgets = self.study.budgets
        if task.source == "folder":
            return self._folder_store(task.id, "task", budgets)
        if task.source == "tfds":
            return self._tfds_store(task.dataset, budgets)
        drawn = self.study.prepare.procedural
        counts = {"train": drawn.train, "val": drawn.val, "test": drawn.test}
        return self._standin_store(task.dataset, str(task.module), counts, budgets)

    def upstream(self) -> StoreSpec:
        """The store that encoders are trained on."""
        if self.study.upstream == IMAGENET:
            return self._imagenet_store()
        if self.study.upstream != UPSTREAM_STANDIN:
            return self._folder_store(self.study.upstream, "upstream", ("full",))
        drawn = self.study.prepare.procedural
        counts = {"train": drawn.upstream, "val": drawn.val, "test": 0}
        return self._standin_store(UPSTREAM_STANDIN, renderers()[UPSTREAM_STANDIN][0], counts, ("full",))

    def _standin_store(self, dataset: str, module: str, counts: dict[str, int], budgets: tuple[str, ...]) -> StoreSpec:
        seed = self.study.prepare.procedural.seed
        tasks = [task for task, (its_module, _) in renderers().items() if its_module == module]
        code = self.lock.identity(f"standins/{module}")
        drawn = {
            "source": "procedural",
            "dataset": dataset,
            "seed": seed,
            "image": _image_identity(self.image),
            "code": code,
        }
        trained = digest([drawn, counts["train"]])
        return self._store(
            dataset=dataset,
            source="procedural",
            settings=StandinSettings(module, seed, counts),
            image=self.image,
            classes={task: renderers()[task][1] for task in tasks},
            budgets=budgets,
            identity={
                "images": trained,
                "labels": trained,
                "1k": digest([drawn, {**counts, **ROWS_1K}]),
                "full": digest([drawn, counts]),
            },
            code=code,
        )

    def _folder_store(self, dataset: str, role: Role, budgets: tuple[str, ...]) -> StoreSpec:
        folder, code = self.folders.folder(dataset, role), self.lock.identity("prepare/folder")
        settings, found = folder.settings, folder.identity
        image = self.resized_image if role == "task" else self.image
        how = {
            "source": "folder",
            "role": role,
            "split": to_json(settings.split),
            "image": _image_identity(image),
            **content_settings(settings),
        }
        store = self._store(
            dataset=dataset,
            source="folder",
            settings=settings,
            image=image,
            classes={dataset: folder.classes},
            budgets=budgets,
            identity=_parts(digest([how, found.images, code]), digest([how, found.labels, code])),
            code=code,
        )
        # For the job, not for the key: a folder that has changed since it was planned is refused.
        return replace(store, fingerprint=Fingerprint(found.images, found.labels))

    def _tfds_store(self, dataset: str, budgets: tuple[str, ...]) -> StoreSpec:
        given, code = self.study.prepare.tfds, self.lock.identity(f"prepare/tfds/{dataset}")
        source = {**self.study.tfds_settings(dataset), "checksums": self._checksums(dataset)}
        # Rows of the 1k budget are the first of the full one, so a cell takes the same from either store.
        how = {"source": "tfds", "image": _image_identity(self.resized_image), "code": code}
        if given.counts == "any":  # a subset must never pass for the dataset
            how["counts"] = ["any", *self._subset_places()]
        content = digest([how, source])
        store = self._store(
            dataset=dataset,
            source="tfds",
            settings=TfdsSettings(**source, counts=given.counts),
            image=self.resized_image,
            classes={name: task.classes for name, task in datasets()[dataset].tasks.items()},
            budgets=budgets,
            identity=dict.fromkeys(("images", "labels", "1k", "full"), content),
            code=code,
        )
        return replace(store, places=self._places())

    def _imagenet_store(self) -> StoreSpec:
        given, counts = self.study.prepare.imagenet, self.study.prepare.tfds.counts
        image = PackedImageSpec(given.side, given.quality if given.side else None)
        code = self.lock.identity("prepare/imagenet")
        # The tars, a TFDS folder and a tree give the same store; a subset of ImageNet is identified by its files.
        classes = imagenet().tasks[IMAGENET].classes
        subset: Any = None if counts == "official" else ["any", *self._subset_places()]
        if given.tree and subset:
            tree = located(self.root / given.tree)
            train = tree / "train" if (tree / "train").is_dir() else tree  # ImageNet's val/ has no classes
            found = self.folders.scan(train).identity
            classes, subset = found.classes, [found.images, found.labels]
        how = {"source": "imagenet", "version": imagenet().version, "cut": subset}
        store = self._store(
            dataset=IMAGENET,
            source="imagenet",
            settings=ImagenetSettings("tree" if given.tree else "tfds", imagenet().version, counts),
            image=image,
            classes={IMAGENET: classes},
            budgets=("full",),
            identity=_parts(digest([how, to_json(image), code]), digest([how, "labels", code])),
            code=code,
        )
        return replace(store, places=replace(self._places(), tree=given.tree and str(located(given.tree))))

    def _places(self) -> Places:
        given = self.study.prepare.tfds
        folder, downloads, manual = (str(located(path)) for path in (given.folder, given.downloads, given.manual))
        checksums = given.checksums and str(located(given.checksums))
        return Places(folder, downloads, manual, checksums, given.mirrors)

    def _subset_places(self) -> list[str]:
        """What identifies a subset of a dataset: its folders. Its files cannot, since archives may be deleted later."""
        given = self.study.prepare.tfds
        return [given.folder, given.downloads, given.manual]

    def _checksums(self, dataset: str) -> dict[str, str]:
        """The study's own digests of this dataset's archives: other archives may hold other images."""
        given = self.study.prepare.tfds.checksums
        if given is None:
            return {}
        try:
            known = read_json(located(self.root / given))
            if not isinstance(known, dict):
                raise TypeError(f"it holds a {type(known).__name__}")
            found = {
                archive.url: (known[archive.url]["sha256"].lower(), archive.sha256)
                for archive in datasets()[dataset].archives
                if archive.url in known
            }
        except FileNotFoundError as error:
            raise UserError(
                f"prepare.tfds.checksums: there is no file {given}; leave the key out, or write it"
            ) from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f'{given} should hold {{address: {{"sha256": ..., "size": ...}}}} as JSON ({error})'
            ) from error
        # TFDS' own digest, written out, names no other archive.
        return {url: sha256 for url, (sha256, registered) in found.items() if sha256 != registered}

    def _store(
        self,
        *,
        dataset: str,
        source: Any,
        settings: StandinSettings | FolderSettings | TfdsSettings | ImagenetSettings,
        image: ImageSpec | PackedImageSpec,
        classes: dict[str, int],
        budgets: tuple[str, ...],
        identity: dict[str, str],
        code: str,
    ) -> StoreSpec:
        full = "full" in budgets
        rows = "all" if full else "1k"
        key = digest(["store", dataset, identity if full else identity["1k"], rows, list(classes)])
        return StoreSpec(
            key=key,
            dataset=dataset,
            folder=f"data/stores/{dataset}/{key}",
            receipt=f"data/stores/{dataset}/{key}.json",
            manifest=f"data/manifests/{dataset}/{key}.json",
            source=source,
            settings=settings,
            image=image,
            rows="all" if full else "1k",
            tasks=tuple(classes),
            classes=classes,
            identity=identity,
            code=code,
        )

    def shared_images(self, upstream: StoreSpec, task: StoreSpec) -> str | None:
        """The sentence that refuses a task because of its images in the upstream set, or None."""
        if isinstance(upstream.settings, FolderSettings) and isinstance(task.settings, FolderSettings):
            return self.folders.shared(upstream.dataset, task.dataset)
        return None

    def missing_downloads(self, store: StoreSpec) -> list[str]:
        """What a person still has to do before a store can be made: sentences, none if there is nothing to do."""
        if not isinstance(store.settings, TfdsSettings | ImagenetSettings):
            return []
        if store.places is None or (self.root / store.folder / "manifest.json").exists():
            return []
        places = store.places.below(self.root)
        if places.tree and not Path(places.tree).is_dir():
            what = f"{store.dataset}: {places.tree} is not a folder"
            return [f"{what}: correct `prepare.imagenet.tree`, or put the tree there."]
        return missing_downloads(store.dataset, places, store.settings.counts)


def upstream_source(study: Study) -> str:
    """The source of the store that encoders are trained on."""
    return {IMAGENET: "imagenet", UPSTREAM_STANDIN: "procedural"}.get(study.upstream, "folder")


def _image_identity(image: ImageSpec) -> dict[str, Any]:
    """What keys hold of an image setting: `numbers` only where it is not uint8."""
    values: dict[str, Any] = to_json(image)
    if image.numbers == "uint8":
        del values["numbers"]
    return values


def _parts(images: str, labels: str) -> dict[str, str]:
    both = digest([images, labels])
    return {"images": images, "labels": labels, "1k": both, "full": both}
