"""`vtabflow data audit`: compare every store with its manifest and VTAB's counts, and look for lossy copies.

Nothing is changed. Files are read in blocks, and at most 16 MB of the images of a split, so memory does not grow with
the stores. `prepare` ends with the part of it that does not read the files again.
"""

import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from vtabflow.contracts.results import Manifest, StoreAudit
from vtabflow.contracts.specs import (
    FolderSettings,
    ImagenetSettings,
    ImageSpec,
    SplitFractions,
    StoreSpec,
    TfdsSettings,
)
from vtabflow.contracts.typed_json import from_json, to_json
from vtabflow.data import copies, lossy
from vtabflow.errors import UserError
from vtabflow.prepare.store import SPLITS, is_complete, open_store, rows_needed
from vtabflow.prepare.tfds import origin
from vtabflow.prepare.tfds.datasets import datasets, imagenet
from vtabflow.prepare.tfds.splits import parts
from vtabflow.runtime.files import read_json, sha256, write_json
from vtabflow.runtime.text_table import table


@dataclass
class Finding:
    """What was found of one store, in sentences: mismatches, and remarks, which are no errors."""

    dataset: str
    key: str
    source: str
    counts: str = "-"
    jpeg: str = "-"
    state: str = "not prepared"
    mismatches: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


def audit(specs: Iterable[StoreSpec], root: Path | str = ".") -> int:
    """Print the report of the stores of `specs`, those of a plan or of `every_store`. Returns the exit code."""
    text, code = report(specs, root)
    print(text)
    return code


def report(specs: Iterable[StoreSpec], root: Path | str = ".") -> tuple[str, int]:
    """Check the stores of `specs`, whose folders start at `root`.

    Returns:
        The report (a table, then one sentence per mismatch) and the exit code: 1 if anything does not match. A store
        that is not prepared yet is no mismatch.
    """
    findings = [_store(spec, Path(root)) for spec in specs]
    rows = [("dataset", "key", "source", "train / val / test", "lossy", "state")]
    rows += [(f.dataset, f.key, f.source, f.counts, f.jpeg, f.state) for f in findings]
    lines = [*table(rows), ""]
    for finding in findings:
        lines += [f"MISMATCH {finding.dataset}: {sentence}" for sentence in finding.mismatches]
        lines += [f"remark   {finding.dataset}: {sentence}" for sentence in finding.remarks]
    wrong = sum(bool(finding.mismatches) for finding in findings)
    absent = sum(finding.state == "not prepared" for finding in findings)
    lines.append(
        f"{len(findings)} stores: {len(findings) - wrong - absent} match, {wrong} do not, {absent} not prepared yet"
    )
    return "\n".join(lines), 1 if wrong else 0


def audit_made(spec: StoreSpec) -> StoreAudit:
    """The audit of a store whose files were just written and hashed, so without reading them all; it is printed.

    It is written beside the manifest that is kept in git, as <key>.audit.json.
    """
    manifest = open_store(spec.folder).manifest
    finding = Finding(spec.dataset, spec.key, spec.source)
    _compare(finding, spec, Path(spec.folder), manifest, Path())
    # What is kept in git names no folder of this machine.
    mismatches, remarks = (
        tuple(sentence.removeprefix(f"store {spec.folder}: ") for sentence in sentences)
        for sentences in (finding.mismatches, finding.remarks)
    )
    made = StoreAudit(spec.key, mismatches, remarks, finding.jpeg)
    write_json(Path(spec.manifest).with_suffix(".audit.json"), to_json(made))
    for kind, sentences in (("MISMATCH", mismatches), ("remark", remarks)):
        for sentence in sentences:
            print(f"audit: {kind} {spec.dataset}: {sentence}", flush=True)
    if not mismatches:
        print(f"audit: {spec.dataset} matches; traces of lossy files: {made.jpeg}", flush=True)
    return made


def every_store(root: Path | str = ".") -> list[StoreSpec]:
    """The specs of all stores below `root`/data/stores, from their manifests.

    A store whose manifest cannot be read gets a spec with its name alone; the audit names the fault.
    """
    return [_spec_of(path) for path in sorted(Path(root).glob("data/stores/*/*/manifest.json"))]


def _spec_of(path: Path) -> StoreSpec:
    folder = path.parent
    try:
        written = read_json(path)["spec"]
        if "from" in written["settings"]:  # what ImagenetSettings.origin was called before specs had versions
            written["settings"]["origin"] = written["settings"].pop("from")
        spec = from_json(StoreSpec, written, str(path))
    except (OSError, ValueError, KeyError, TypeError, UserError):
        return _unknown_spec(folder)
    return replace(spec, folder=str(folder))


def _unknown_spec(folder: Path) -> StoreSpec:
    settings, image = FolderSettings("", "refuse", SplitFractions(0, (0.0, 0.0, 0.0)), "task"), ImageSpec(0, "legacy")
    return StoreSpec(
        key=folder.name,
        dataset=folder.parent.name,
        folder=str(folder),
        receipt="",
        manifest="",
        source="folder",
        settings=settings,
        image=image,
        rows="all",
        tasks=(),
        classes={},
        identity={},
        code="",
    )


def _store(spec: StoreSpec, root: Path) -> Finding:
    finding = Finding(spec.dataset, spec.key, spec.source if spec.classes else "?")
    folder = root / spec.folder
    if not is_complete(folder):
        return finding
    print(f"{spec.dataset}: reading {folder}", file=sys.stderr, flush=True)
    remedy = f"remove {folder} and run `vtabflow prepare` again"
    try:
        manifest = open_store(folder).manifest
        finding.counts = " / ".join(f"{manifest.counts[split]:,}" for split in SPLITS)
        finding.mismatches += [f"store {folder}: {fault}: {remedy}" for fault in _files(folder, manifest)]
        faults = _contents(folder, manifest, _id_scopes(spec))
        finding.mismatches += [f"store {folder}: {fault}: {remedy}" for fault in faults]
        _compare(finding, spec, folder, manifest, root)
        finding.mismatches += [f"store {folder}: {fault}" for fault in _compare_kept_manifest(spec, root, manifest)]
    except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError, UserError) as error:
        finding.mismatches.append(f"store {folder}: its manifest or a file cannot be read ({error}): {remedy}")
    finding.state = "MISMATCH" if finding.mismatches else "matches"
    return finding


def _compare(finding: Finding, spec: StoreSpec, folder: Path, manifest: Manifest, root: Path) -> None:
    """Compare a store with its dataset: counts, classes, the archives that it was made from, and its pixels."""
    sentences = finding.remarks if _any_counts(spec) else finding.mismatches
    sentences += [f"store {folder}: {fault}" for fault in _compare_counts(spec, manifest, root)]
    finding.mismatches += [f"store {folder}: {fault}" for fault in _compare_archives(spec, manifest)]
    finding.remarks += [f"store {folder}: {remark}" for remark in _remarks(spec, manifest)]
    if manifest.form is None:
        verdict = copies.judge(spec, folder, manifest, root)
        finding.jpeg = verdict.state
        finding.mismatches += verdict.mismatches
        finding.remarks += verdict.remarks


def _compare_archives(spec: StoreSpec, manifest: Manifest) -> Iterator[str]:
    """Compare the archives that a TFDS store was made from with those of the study."""
    dataset = datasets().get(spec.dataset)
    if dataset is None or not isinstance(spec.settings, TfdsSettings) or manifest.archives is None:
        return
    wanted = origin.expected(dataset, spec.settings.checksums)
    names = [archive.name for archive in dataset.archives if manifest.archives.get(archive.url) != wanted[archive.url]]
    if names:
        yield f"it was made from another archive than the study's ({', '.join(names)}): remove it and prepare it again"


def _remarks(spec: StoreSpec, manifest: Manifest) -> list[str]:
    """What a TFDS store's manifest says of its archives; an older one does not say that they are not known."""
    dataset = datasets().get(spec.dataset)
    if spec.source != "tfds" or dataset is None:
        return []
    remarks = manifest.remarks or (origin.remarks(dataset, None) if manifest.archives is None else ())
    return [remark.text for remark in remarks]


def _files(folder: Path, manifest: Manifest) -> Iterator[str]:
    """Files that are missing, unknown, or have another digest."""
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} - {"manifest.json"}
    for name in sorted(manifest.sha256.keys() - found):
        yield f"{name} is missing"
    for name in sorted(found - manifest.sha256.keys()):
        yield f"{name} is in no manifest"
    for name in sorted(found & manifest.sha256.keys()):
        if sha256(folder / name) != manifest.sha256[name]:
            yield f"{name} does not match the manifest (its SHA-256 differs)"


def _id_scopes(spec: StoreSpec) -> dict[str, str]:
    """Where the ids of each split are unique: in a TFDS split, as integer keys are, or in the whole dataset ("")."""
    dataset = datasets().get(spec.dataset)
    if spec.source != "tfds" or dataset is None:
        return dict.fromkeys(SPLITS, "")
    return {split: name for split, (name, _, _) in parts(str(dataset.split), dataset.counts).items()}


def _contents(folder: Path, manifest: Manifest, scopes: Mapping[str, str]) -> Iterator[str]:
    """Compare counts, shapes, class histograms and ids with the files. Missing files are skipped here."""
    split_of: dict[tuple[str, str], str] = {}
    for split in SPLITS:
        yield from _image_faults(folder / f"{split}.npy", split, manifest)
        for task in manifest.classes:
            yield from _label_faults(folder / "labels" / f"{task}.{split}.npy", split, task, manifest)
        yield from _id_faults(folder / f"{split}.ids.txt", split, manifest, scopes[split], split_of)


def _image_faults(path: Path, split: str, manifest: Manifest) -> Iterator[str]:
    if path.is_file():
        count = manifest.counts[split]
        with open(path, "rb") as stream:
            shape, _ = lossy.read_header(stream)
        if shape != (count, *manifest.shape[split]):
            yield f"{path.name} has shape {shape} and the manifest {(count, *manifest.shape[split])}"


def _label_faults(path: Path, split: str, task: str, manifest: Manifest) -> Iterator[str]:
    if not path.is_file():
        return
    labels, count, classes = np.load(path, allow_pickle=False), manifest.counts[split], manifest.classes[task]
    if len(labels) != count:
        yield f"{split} has {len(labels):,} labels of {task} and the manifest {count:,} images"
    elif len(labels) and (labels.min() < 0 or labels.max() >= classes):
        yield f"{split} has labels of {task} outside 0..{classes - 1}"
    elif tuple(np.bincount(labels, minlength=classes).tolist()) != manifest.histogram[task][split]:
        yield f"the class histogram of {task} in {split} is not the manifest's"


def _id_faults(
    path: Path, split: str, manifest: Manifest, scope: str, split_of: dict[tuple[str, str], str]
) -> Iterator[str]:
    """Compare the ids of a split with its count and with other splits; `split_of` collects them by scope and id."""
    if not path.is_file():
        return
    names = path.read_bytes().decode(errors="replace").split("\n")[:-1]
    if len(names) != manifest.counts[split]:
        yield f"{split} has {len(names):,} ids and the manifest {manifest.counts[split]:,} images"
    if len(set(names)) != len(names):
        yield f"{split} has an id that is given twice"
    shared = [name for name in names if split_of.setdefault((scope, name), split) != split]
    if shared:
        more = f" and {len(shared) - 1} more" if shared[1:] else ""
        yield f"{shared[0]}{more} is in {split_of[scope, shared[0]]} and in {split}"


def _any_counts(spec: StoreSpec) -> bool:
    return isinstance(spec.settings, TfdsSettings | ImagenetSettings) and spec.settings.counts == "any"


def _compare_counts(spec: StoreSpec, manifest: Manifest, root: Path) -> Iterator[str]:
    """Compare a store from TFDS or of ImageNet with the published counts and classes, apart from skipped images."""
    expected = _expected_counts(spec, manifest)
    if expected is None:
        return
    short = {split: expected[split] - manifest.counts[split] for split in SPLITS}
    if any(short.values()) and (min(short.values()) < 0 or sum(short.values()) > len(manifest.skipped)):
        named = ", ".join(
            f"{split} {manifest.counts[split]:,} of {expected[split]:,}" for split in SPLITS if short[split]
        )
        records = f" and {copies.records_of(spec, root)}" if spec.source == "tfds" else ""
        remedy = f"remove the store{records}, and run `vtabflow prepare` again"
        allowed = "prepare.tfds.counts of its study is any"
        whose = "ImageNet's" if spec.source == "imagenet" else "VTAB's"
        yield f"its counts are not {whose} ({named}): {allowed if _any_counts(spec) else remedy}"
    for task, classes in manifest.classes.items():
        if spec.classes.get(task) != classes:
            yield f"task {task} has {classes} classes in the manifest and {spec.classes.get(task)} in the study"
        if spec.rows == "all":
            both = np.add(manifest.histogram[task]["train"], manifest.histogram[task]["val"])
            if not both.all():
                yield f"class {int(np.argmin(both))} of {task} has no image in train and val"


def _expected_counts(spec: StoreSpec, manifest: Manifest) -> dict[str, int] | None:
    """The published counts of a store's splits; None where there are none."""
    if spec.source == "imagenet":
        from vtabflow.prepare.imagenet import source

        total = imagenet().counts["train"]
        border = total * source.TRAIN_SHARDS // source.SHARDS
        return {"train": border, "val": total - border, "test": 0}
    dataset = datasets().get(spec.dataset)
    if spec.source != "tfds" or dataset is None:
        return None
    # An older TFDS made other counts: those are expected if the records have them.
    of_records = manifest.tfds_counts or {}
    counts = {name: n for name, n in dataset.older_counts.items() if of_records.get(name) == n}
    return {
        split: rows_needed(spec, split, stop - start)
        for split, (_, start, stop) in parts(str(dataset.split), {**dataset.counts, **counts}).items()
    }


def _compare_kept_manifest(spec: StoreSpec, root: Path, manifest: Manifest) -> Iterator[str]:
    """Compare with the copy of the manifest that is kept in git."""
    path = root / spec.manifest
    if not path.is_file():
        return
    kept = read_json(path)["sha256"]
    # The ids of a folder are file names, which may change (store.py).
    free = ".ids.txt" if spec.source == "folder" else "\n"
    names = sorted(
        name
        for name in {*kept, *manifest.sha256}
        if kept.get(name) != manifest.sha256.get(name) and not name.endswith(free)
    )
    if names:
        yield (
            f"it does not match its manifest {path} ({', '.join(names[:3])}): use the images that the "
            f"manifest was made "
            f"from, or remove {path} to continue with these"
        )
