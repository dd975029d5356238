"""The folders of images of a study: listed once, understood, and refused if they will not do, before any job runs."""

import gc
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from vtabflow.contracts.results import Remark
from vtabflow.contracts.specs import FolderDecoding, FolderLayout, FolderSettings, SplitFractions
from vtabflow.contracts.typed_json import to_json
from vtabflow.planning.settings import Folder
from vtabflow.planning.study import Study
from vtabflow.prepare.folders.fingerprint import FolderIdentity, check_readable
from vtabflow.prepare.folders.scan import DECODING, FINGERPRINTS, LAYOUT, Scan, cache_file, scan
from vtabflow.prepare.folders.split import Division, divide

NAMES, REASONS = 8, 4  # names of classes, and reasons of skipped files, that `check` prints
Role = Literal["task", "upstream"]


@dataclass
class KnownFolder:
    """A folder of images as far as planning knows it. The splits are drawn when they are asked for.

    `in_upstream`: the remark on images of its train that are in the upstream set too.
    """

    settings: FolderSettings
    scan: Scan
    in_upstream: Remark | None = None

    @property
    def identity(self) -> FolderIdentity:
        """What keys hold of its images and labels."""
        return self.scan.identity

    @property
    def classes(self) -> int:
        """The number of classes of the store."""
        if self.settings.role == "upstream" and self.settings.layout.min_per_class is None:
            return self.identity.classes  # without a draw from what may be a million images
        return len(self.division.classes)

    @cached_property
    def division(self) -> Division:
        """The splits of the readable images. Raises UserError where there can be none."""
        return divide(self.scan.layout, self.scan.files, self.settings)

    @cached_property
    def names(self) -> dict[str, str]:
        """Digest -> name of the readable images."""
        return {file.digest: file.entry.name for file in self.scan.files}

    @property
    def skipped(self) -> dict[str, str]:
        """Name -> reason of the files and images that are in no split."""
        return {**self.scan.skipped, **self.division.left_out}

    def remarks(self, budgets: Sequence[str]) -> list[Remark]:
        """What a reader has to know; without what is of the 1k budget where that is not used."""
        return [*of_budgets(self.division.remarks, budgets), *([self.in_upstream] if self.in_upstream else [])]

    def lines(self, dataset: str, budgets: Sequence[str]) -> Iterator[str]:
        """What `vtabflow check` prints."""
        classes = self.division.classes
        more = f", ... ({len(classes) - NAMES:,} more)" if len(classes) > NAMES else ""
        yield f"{dataset}: {self.division.line}"
        yield f"  classes: {', '.join(classes[:NAMES])}{more}"
        yield from (f"  {text}" for text in short(self.skipped, self.remarks(budgets)))


class Folders:
    """The folders of one study, each of which is listed once; `root` is the project's folder."""

    def __init__(self, study: Study, root: Path, code: str):
        self.study, self.root, self.code = study, root, code
        self.known: dict[str, KnownFolder] = {}

    def folder(self, dataset: str, role: Role) -> KnownFolder:
        """A folder of prepare.folders.

        Raises:
            UserError: it is not there, or what is wrong with it.
        """
        if dataset not in self.known:
            given = self.study.prepare.folders[dataset]
            settings = settings_of(given, self.study, role)
            found = self.scan(given.path, settings.layout, settings.decoding)
            check_readable(settings, found.files, found.skipped)
            self.known[dataset] = KnownFolder(settings, found)
        return self.known[dataset]

    def scan(self, path: Path | str, layout: FolderLayout = LAYOUT, decoding: FolderDecoding = DECODING) -> Scan:
        """What a folder or archive holds, read anew only where it is not known."""
        return scan(self.root / path, layout, decoding, self.root / FINGERPRINTS, self.code)

    def shared(self, upstream: str, task: str) -> str | None:
        """The sentence that refuses a task whose val or test images are among the upstream's, or None.

        Images of the task's train are trained on anyway; they are a remark. Source: VTAB, section 2 (representations
        are not pre-trained on the evaluation tasks).
        """
        own, seen = self.known[task], self.known[upstream].names
        splits = own.division.files
        shared = tuple(file.entry.name for file in splits["train"] if file.digest in seen)
        if shared:
            text = f"{len(shared):,} of {len(splits['train']):,} train images are in the upstream set {upstream} too"
            own.in_upstream = Remark("train-in-upstream", len(shared), text, shared[:NAMES])
        held_out = [*splits["val"], *splits["test"]]
        what, why = f"{len(held_out):,} val and test images", "pre-training would see them"
        if own.settings.decoding.near_copies and not {"val", "test"} <= set(own.scan.layout.splits):
            held_out += splits["train"]
            what = f"{len(held_out):,} images"
            why = "with near_copies, which of them are val and test images is known only when all are decoded"
        found = [file for file in held_out if file.digest in seen]
        if not found:
            return None
        first = f"{found[0].entry.name} ({seen[found[0].digest]})"
        return (
            f"{len(found):,} of the {what} of task {task} ({own.settings.path}) are in the upstream set {upstream} "
            f"too, such as {first}: {why}; take them out of one of the two"
        )


@contextmanager
def few_collections() -> Iterator[None]:
    """Let the garbage collector look only rarely.

    A folder of 110,000 images becomes a million objects, none of which is garbage: to look for some among them again
    and again took a third of the time.
    """
    before = gc.get_threshold()
    gc.set_threshold(100_000, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


def settings_of(given: Folder, study: Study, role: Role) -> FolderSettings:
    """The settings of a folder's store."""
    labels = (given.labels,) if isinstance(given.labels, str) else given.labels
    return FolderSettings(
        path=given.path,
        invalid=given.invalid,
        split=SplitFractions(study.prepare.split_seed, study.prepare.split),
        role=role,
        layout=FolderLayout(
            splits={} if given.split is None else given.split.model_dump(exclude_none=True),
            labels=labels or (),
            groups=given.groups,
            group_pattern=given.group_pattern,
            min_per_class=given.min_per_class,
        ),
        decoding=FolderDecoding(given.near_copies, given.range, given.truncated, given.max_pixels),
        of=given.of,
    )


def content_settings(settings: FolderSettings) -> dict[str, Any]:
    """What a store's key holds of the settings, next to the digests of images and labels.

    A setting that is at its default is not in it. Those that say which image is of which split, class and group are
    in the digests.
    """
    # Files that give no image are an error, or are left out: "skip-task" is about files that are known to give none.
    how: dict[str, Any] = {"invalid": "skip" if settings.invalid == "skip-task" else settings.invalid}
    if settings.layout.min_per_class is not None:
        how["min_per_class"] = settings.layout.min_per_class
    defaults = to_json(FolderDecoding())
    return how | {name: value for name, value in to_json(settings.decoding).items() if value != defaults[name]}


def caches_of(study: Study, root: Path) -> set[Path]:
    """The files that hold what is known of a study's folders."""
    cache = root / FINGERPRINTS
    found = {
        cache_file(cache, root / folder.path, settings_of(folder, study, "task").decoding)
        for folder in study.prepare.folders.values()
    }
    tree = study.prepare.imagenet.tree
    return found | ({cache_file(cache, root / tree / name) for name in ("", "train")} if tree else set())


def of_budgets(remarks: Iterable[Remark], budgets: Sequence[str]) -> list[Remark]:
    """The remarks without those on the 1k budget where it is not used."""
    return [remark for remark in remarks if "1k" in budgets or not remark.kind.startswith("1k")]


def short(skipped: dict[str, str], remarks: Sequence[Remark]) -> list[str]:
    """Skipped files, counted by reason with the first name of each, and the remarks."""
    lines = []
    if skipped:
        by_reason: dict[str, list[str]] = {}
        for name in sorted(skipped):
            by_reason.setdefault(skipped[name].partition(" (")[0], []).append(name)
        reasons = sorted(by_reason.items(), key=lambda item: -len(item[1]))
        told = [f"{names[0]} {why}" + _more(len(names) - 1) for why, names in reasons[:REASONS]]
        others = sum(len(names) for _, names in reasons[REASONS:])
        lines.append(
            f"left out: {len(skipped):,} file{'s'[: len(skipped) - 1]}: {'; '.join(told)}"
            + (f"; {others:,} for other reasons" if others else "")
        )
    return lines + [remark.text for remark in remarks]


def _more(count: int) -> str:
    return f" (and {count:,} more)" if count else ""
