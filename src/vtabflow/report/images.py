"""What a page says of the images behind it, from the manifests of their stores: origin, classes, what was left out."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from markupsafe import Markup

from vtabflow.contracts.results import Manifest, Remark, SkippedFile, StoreAudit
from vtabflow.contracts.specs import PageSpec, PageTask, PageUpstream
from vtabflow.contracts.typed_json import from_json
from vtabflow.errors import RunError, UserError
from vtabflow.runtime.files import read_json

# Remarks that are about the meaning of an accuracy, not about what was read: these stand next to the answer.
NEAR_THE_ANSWER = (
    *("test-in-train", "val-in-train", "test-group-in-train", "val-group-in-train", "test-looks-like-train"),
    *("val-looks-like-train", "two-classes", "test-classes", "val-classes", "1k-train-classes", "1k-val-classes"),
    *("similar-classes", "dark", "above-range"),
)
FOREIGN = "archives-foreign"  # the kind of the remark on archives that are not those that TFDS has registered
FIRST = 20  # names of skipped files on the page; all are in skipped.csv


@dataclass(frozen=True)
class ClassCounts:
    """How many examples the smallest and the largest class of a split have, of those that have any."""

    smallest: str
    fewest: int
    largest: str
    most: int
    total: int
    empty: int

    @property
    def commonest_rate(self) -> float:
        """The accuracy of always answering the largest class."""
        return self.most / self.total


@dataclass(frozen=True)
class Images:
    """The images of one task, or of the upstream dataset.

    Attributes:
        id: of the task; its labels in the manifest have this name.
        display: how the page calls it.
        path: of the manifest; None where nothing was planned to be read.
        manifest: None where the file is not here.
        audit: what `vtabflow data audit` found; None where it was not made.
    """

    id: str
    display: str
    path: str | None
    manifest: Manifest | None = None
    audit: StoreAudit | None = None

    @property
    def skipped(self) -> tuple[SkippedFile, ...]:
        """The files that gave no image."""
        return self.manifest.skipped if self.manifest else ()

    @property
    def folder(self) -> str | None:
        """The name of the user's folder or archive, without the folders that it lies in; None of other sources."""
        settings = self.manifest.settings if self.manifest and self.manifest.source == "folder" else {}
        return Path(settings["path"]).name if settings.get("path") else None

    @property
    def foreign_archives(self) -> dict[str, str]:
        """Address -> SHA-256 of the archives of TFDS' records, where some are not the registered ones; else empty."""
        if self.manifest is None:
            return {}
        named: dict[str, str] = self.manifest.settings.get("checksums") or {}
        differ = any(remark.kind == FOREIGN for remark in self.manifest.remarks or ())
        return named or (self.manifest.archives or {} if differ else {})

    @cached_property
    def test(self) -> ClassCounts | None:
        """The classes of the test images."""
        return self.classes("test")

    def classes(self, *splits: str) -> ClassCounts | None:
        """The smallest and the largest class of some splits together; None without labels there."""
        if self.manifest is None or self.id not in self.manifest.histogram:
            return None
        histogram = self.manifest.histogram[self.id]
        counts = [sum(column) for column in zip(*(histogram[split] for split in splits), strict=True)]
        present = [label for label, count in enumerate(counts) if count]
        if not present:
            return None
        names = (self.manifest.class_names or {}).get(self.id) or [f"class {label}" for label in range(len(counts))]
        low, high = min(present, key=counts.__getitem__), max(present, key=counts.__getitem__)
        total, empty = sum(counts), len(counts) - len(present)
        return ClassCounts(names[low], counts[low], names[high], counts[high], total, empty)

    def remarks(self, spec: PageSpec) -> list[Remark]:
        """The remarks of the manifest, without those on a budget that the study does not have."""
        found = (self.manifest.remarks if self.manifest else None) or ()
        return [remark for remark in found if "1k" in spec.budgets or not remark.kind.startswith("1k")]


def read_images(spec: PageSpec, names: Mapping[str, str], root: Path | str = ".") -> dict[str, Images]:
    """The images of every task by id, and those of the upstream dataset under "". `names`: how tasks are called.

    Raises:
        RunError: a manifest or audit cannot be read.
    """
    found = {task.id: _images(task, names[task.id], Path(root)) for task in spec.tasks}
    return {**found, "": _images(spec.upstream, spec.upstream.display, Path(root))}


def _images(of: PageTask | PageUpstream, display: str, root: Path) -> Images:
    if of.manifest is None:
        return Images(of.id, display, None)
    path = root / of.manifest
    manifest, audit = _read(Manifest, path), _read(StoreAudit, path.with_suffix(".audit.json"))
    return Images(of.id, display, of.manifest, manifest, audit)


def _read(kind: type, path: Path) -> Any:
    try:
        return from_json(kind, read_json(path), str(path))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, UserError) as error:
        raise RunError(f"{path} cannot be read ({error}); remove it and run the study again") from error


def skipped_rows(images: dict[str, Images]) -> list[tuple[str, str, str]]:
    """(dataset, file, reason) of every file that was left out; a dataset of several tasks counts once."""
    manifests = {found.path: found.manifest for found in images.values() if found.manifest}
    return [(manifest.dataset, s.file, s.reason) for manifest in manifests.values() for s in manifest.skipped]


def understood(spec: PageSpec, images: dict[str, Images]) -> list[dict[str, Any]]:
    """A block for each folder of images, tasks first: what it was understood to be, its classes, what was left out."""
    return [_block(spec, found) for found in images.values() if found.manifest and found.manifest.source == "folder"]


def _block(spec: PageSpec, images: Images) -> dict[str, Any]:
    assert images.manifest is not None
    counts, reasons = (
        images.manifest.counts,
        Counter(_short(s.reason) for s in images.skipped),
    )
    layout = images.manifest.layout or ", ".join(f"{split} {counts[split]:,}" for split in ("train", "val", "test"))
    classes = {"over all splits": images.classes("train", "val", "test"), "of the test images": images.test}
    return {
        "display": images.display,
        "upstream": images.id == spec.upstream.id and images.path == spec.upstream.manifest,
        "folder": images.folder,
        "layout": layout,
        "classes": {where: found for where, found in classes.items() if found and found.most > found.fewest},
        "skipped": len(images.skipped),
        "files": len(images.skipped) + sum(counts.values()),
        "reasons": reasons.most_common(),
        "first": [(s.file, s.reason) for s in images.skipped[:FIRST]],
        "remarks": images.remarks(spec),
    }


def _short(reason: str) -> str:
    """A reason without what is of one file or a remedy: `is broken (3 bytes)` and `is empty: copy it` become short."""
    return reason.partition(" (")[0].partition(":")[0].removeprefix("is ")


def near_the_answer(spec: PageSpec, images: dict[str, Images]) -> list[Markup]:
    """A sentence for each remark that bears on what an accuracy means."""
    return [
        Markup("<b>{}</b>: {}.").format(images[task.id].display, remark.text)
        for task in spec.tasks
        for remark in images[task.id].remarks(spec)
        if remark.kind in NEAR_THE_ANSWER
    ]


def unknown(images: dict[str, Images]) -> list[str]:
    """The manifests that are not here, so that nothing of them can be shown."""
    return sorted({found.path for found in images.values() if found.path and not found.manifest})


def foreign_archives(images: dict[str, Images]) -> list[Images]:
    """Datasets that were made from archives other than the registered ones, each once."""
    return list({found.path: found for found in images.values() if found.foreign_archives}.values())


def audit_state(images: Images) -> str:
    """What the page's table says of a store's audit: "", "matches" or how much does not."""
    audit = images.audit
    if audit is None:
        return ""
    if audit.mismatches:
        return f"{len(audit.mismatches)} mismatch{'es' if audit.mismatches[1:] else ''}"
    return f"matches, {len(audit.remarks)} remark{'s' if audit.remarks[1:] else ''}" if audit.remarks else "matches"


def audit_mismatches(images: dict[str, Images]) -> list[tuple[str, str]]:
    """(name, sentence) of what does not match in every store; a store of several tasks counts once."""
    stores = {found.path: found for found in images.values()}
    return [(found.display, text) for found in stores.values() if found.audit for text in found.audit.mismatches]


def other_remarks(images: dict[str, Images]) -> list[tuple[str, str]]:
    """(name, sentence) of the remarks that stand nowhere else: those of the audits, and of TFDS' records."""
    found = []
    for store in {store.path: store for store in images.values()}.values():
        of_source = (store.manifest.remarks if store.manifest and store.manifest.source != "folder" else None) or ()
        found += [(store.display, remark.text) for remark in of_source if remark.kind != FOREIGN]
        found += [(store.display, text) for text in (store.audit.remarks if store.audit else ())]
    return found
