"""`vtabflow data audit`: compare every store with its manifest and VTAB's counts, and look for traces of JPEG.

Nothing is changed. Files are read in blocks, and a sample of the images, so memory stays well below 1 GB.
"""

import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from vtabflow.contracts.results import Manifest
from vtabflow.contracts.specs import (
    FolderSettings,
    ImagenetSettings,
    ImageSpec,
    SplitFractions,
    StoreSpec,
    TfdsSettings,
)
from vtabflow.contracts.typed_json import from_json
from vtabflow.data import lossy
from vtabflow.errors import UserError
from vtabflow.prepare.store import SPLITS, is_complete, open_store, rows_needed
from vtabflow.prepare.tfds.datasets import datasets, imagenet
from vtabflow.prepare.tfds.splits import parts
from vtabflow.runtime.files import read_json, sha256
from vtabflow.runtime.text_table import table

BLOCK = 1 << 24  # bytes
SMALL = 96  # pixels: the largest side of a folder of images that may be an export of one of LOSSLESS

# Datasets that were never JPEG between their authors and TFDS: traces of it mean a lossy copy.
LOSSLESS = {
    "cifar100": "its authors' binary file has raw pixels",
    "svhn": "its authors' .mat files have raw pixels, cut from PNGs and resized",
    "dsprites": "its pixels are 0 or 255 and nothing else",
    "smallnorb": "its authors' files have raw camera pixels",
}
# Small datasets in which traces of JPEG are expected: a remark, not a mismatch.
JPEG_INSIDE = {
    "eurosat": "its RGB release is JPEG",
    "patch-camelyon": "its patches were cut, without loss, from slides that are kept as JPEG blocks",
}
# How an export is recognised: a word in its name or path, or (height, width, classes).
NAMED = {"cifar": "cifar100", "svhn": "svhn", "dsprites": "dsprites", "norb": "smallnorb"}
SHAPED = {
    (32, 32, 100): "cifar100",
    (64, 64, 16): "dsprites",
    (96, 96, 18): "smallnorb",
    (96, 96, 9): "smallnorb",
}


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
    rows = [("dataset", "key", "source", "train / val / test", "jpeg", "state")]
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
        sentences = finding.remarks if _any_counts(spec) else finding.mismatches
        sentences += [f"store {folder}: {fault}" for fault in _compare_counts(spec, manifest)]
        finding.mismatches += [f"store {folder}: {fault}" for fault in _compare_kept_manifest(spec, root, manifest)]
        if manifest.form is None:
            _jpeg(finding, spec, folder, manifest)
    except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError, UserError) as error:
        finding.mismatches.append(f"store {folder}: its manifest or a file cannot be read ({error}): {remedy}")
    finding.state = "MISMATCH" if finding.mismatches else "matches"
    return finding


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
        shape = np.load(path, mmap_mode="r" if count else None, allow_pickle=False).shape
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


def _compare_counts(spec: StoreSpec, manifest: Manifest) -> Iterator[str]:
    """Compare a store from TFDS or of ImageNet with the published counts and classes, apart from skipped images."""
    expected = _expected_counts(spec, manifest)
    if expected is None:
        return
    short = {split: expected[split] - manifest.counts[split] for split in SPLITS}
    if any(short.values()) and (min(short.values()) < 0 or sum(short.values()) > len(manifest.skipped)):
        named = ", ".join(
            f"{split} {manifest.counts[split]:,} of {expected[split]:,}" for split in SPLITS if short[split]
        )
        remedy = "remove the store and the TFDS records that it was made from, and run `vtabflow prepare` again"
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


# ---- traces of JPEG


def _jpeg(finding: Finding, spec: StoreSpec, folder: Path, manifest: Manifest) -> None:
    """Name a lossy copy of a lossless dataset. Only pixels that were not resized show it."""
    name = _original(spec, manifest)
    if name is None:
        return
    checked = {split: _is_lossy(folder / f"{split}.npy", name, spec) for split in SPLITS if manifest.counts[split]}
    traces = [split for split, lossy_copy in checked.items() if lossy_copy]
    if any(lossy_copy is not None for lossy_copy in checked.values()):
        finding.jpeg = "traces" if traces else "none"
    if not traces:
        return
    how = "are not all 0 or 255" if name == "dsprites" else "show traces of JPEG"
    what = f"store {folder}: the pixels of {', '.join(traces)} {how}"
    if name in JPEG_INSIDE:
        finding.remarks.append(f"{what}, which is expected of {name}: {JPEG_INSIDE[name]}")
    elif name in LOSSLESS:
        finding.mismatches.append(
            f"{what}, so it is a lossy copy of {name} ({LOSSLESS[name]}): use the original, or let TFDS download it, "
            "remove this store and run `vtabflow prepare` again"
        )
    else:
        finding.remarks.append(f"{what}; if that is an export of a lossless dataset, use the original")


def _is_lossy(path: Path, name: str, spec: StoreSpec) -> bool | None:
    """Whether a split's images show that they are a lossy copy of dataset `name`; None if they cannot show it."""
    if not path.is_file():
        return None
    images = np.load(path, mmap_mode="r", allow_pickle=False)
    if images.ndim != 4 or min(images.shape[1:3]) < 16:
        return None
    if name == "dsprites" and images.shape[1:3] == (64, 64):
        return _other_than_black_and_white(path, images.dtype)
    if spec.source != "folder" and images.shape[1:] != datasets()[name].native:
        return None
    pixels = lossy.as_uint8(lossy.sample(images))
    return None if pixels is None else lossy.went_through_jpeg(pixels)


def _original(spec: StoreSpec, manifest: Manifest) -> str | None:
    """The dataset whose pixels these should be: TFDS' own, or the one that a folder looks like ("" if none)."""
    if spec.source == "tfds":
        return spec.dataset if spec.dataset in LOSSLESS or spec.dataset in JPEG_INSIDE else None
    height, width, _ = manifest.shape["train"]
    if not isinstance(spec.settings, FolderSettings) or height is None or width is None or max(height, width) > SMALL:
        return None
    text = f"{spec.dataset} {spec.settings.path}".lower()
    if any(word in text for word in ("camelyon", "pcam")):
        return "patch-camelyon"
    if "eurosat" in text:
        return "eurosat"
    shape = (height, width, next(iter(manifest.classes.values())))
    return next((name for word, name in NAMED.items() if word in text), SHAPED.get(shape, ""))


def _other_than_black_and_white(path: Path, numbers: np.dtype) -> bool:
    with open(path, "rb") as stream:
        version = np.lib.format.read_magic(stream)
        if version == (1, 0):
            np.lib.format.read_array_header_1_0(stream)
        else:
            np.lib.format.read_array_header_2_0(stream)
        while block := stream.read(BLOCK):
            values = np.frombuffer(block, numbers)
            if ((values != 0) & (values != 255)).any():
                return True
    return False
