"""`vtabflow data audit`: every store against its manifest, against VTAB's counts, and for traces of JPEG.

Nothing is changed. Files are read in blocks and images a sample at a time, so memory stays well below 1 GB.
"""

import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vtabflow.data import lossy
from vtabflow.errors import UserError
from vtabflow.prepare.store import SPLITS, is_complete, rows_needed
from vtabflow.prepare.tfds.datasets import DATASETS
from vtabflow.prepare.tfds.splits import parts
from vtabflow.runtime.files import read_json, sha256
from vtabflow.runtime.text_table import table

Spec = Mapping[str, Any]
BLOCK = 1 << 24  # bytes
SMALL = 96  # pixels: the side up to which a folder of images may be an export of one of LOSSLESS

# Sets whose pixels never met JPEG on the way from the maker to TFDS: traces of it mean a lossy copy.
LOSSLESS = {
    "cifar100": "its makers' binary file has raw pixels",
    "svhn": "its makers' .mat files have raw pixels, cut from PNGs and resized",
    "dsprites": "its pixels are 0 or 255 and nothing else",
    "smallnorb": "its makers' files have raw camera pixels",
}
# Small sets in which traces of JPEG mean nothing: they are remarked, and no mismatch.
JPEG_INSIDE = {
    "eurosat": "its RGB release is JPEG",
    "patch-camelyon": "its patches were cut, without loss, from slides that are kept as JPEG blocks",
}
# How an export is known: a word in its name or path, or its pixels (height, width) with its number of classes.
NAMED = {"cifar": "cifar100", "svhn": "svhn", "dsprites": "dsprites", "norb": "smallnorb"}
SHAPED = {
    (32, 32, 100): "cifar100",
    (64, 64, 16): "dsprites",
    (96, 96, 18): "smallnorb",
    (96, 96, 9): "smallnorb",
}


@dataclass
class Finding:
    """What was found of one store: sentences for mismatches, others for what is only worth knowing."""

    dataset: str
    key: str
    source: str
    counts: str = "-"
    jpeg: str = "-"
    state: str = "not prepared"
    mismatches: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


def audit(specs: Iterable[Spec], root: Path | str = ".") -> int:
    """Print the report of the stores of `specs` (Plan.stores.values(), or `every_store`). Returns the exit code."""
    text, code = report(specs, root)
    print(text)
    return code


def report(specs: Iterable[Spec], root: Path | str = ".") -> tuple[str, int]:
    """Check the stores of `specs`, whose folders start at `root`.

    Returns the report (a table, then one sentence a mismatch) and the exit code: 1 if anything does not match. A store
    that was not prepared yet is no mismatch.
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


def every_store(root: Path | str = ".") -> list[Spec]:
    """The specs of all stores below `root`/data/stores, from their manifests."""
    found: list[Spec] = []
    for path in sorted(Path(root).glob("data/stores/*/*/manifest.json")):
        folder = path.parent
        bare = {"dataset": folder.parent.name, "key": folder.name, "source": "?", "folder": str(folder)}
        try:
            spec = read_json(path)["spec"]
            found.append({**bare, **spec, "folder": str(folder)})
        except (OSError, ValueError, KeyError, TypeError):
            found.append(bare)
    return found


def _store(spec: Spec, root: Path) -> Finding:
    finding = Finding(spec["dataset"], spec["key"], spec["source"])
    folder = root / spec["folder"]
    if not is_complete(folder):
        return finding
    print(f"{spec['dataset']}: reading {folder}", file=sys.stderr, flush=True)
    again = f"remove {folder} and run `vtabflow prepare` again"
    try:
        manifest = read_json(folder / "manifest.json")
        counts = manifest["counts"]
        finding.counts = " / ".join(f"{counts[split]:,}" for split in SPLITS)
        finding.mismatches += [f"store {folder}: {what}: {again}" for what in _files(folder, manifest)]
        origins = _origins(spec)
        finding.mismatches += [f"store {folder}: {what}: {again}" for what in _contents(folder, manifest, origins)]
        said = finding.remarks if _any_counts(spec) else finding.mismatches
        said += [f"store {folder}: {what}" for what in _expected(spec, manifest)]
        finding.mismatches += [f"store {folder}: {what}" for what in _copy(spec, root, manifest)]
        if manifest.get("form") is None:
            _jpeg(finding, spec, folder, manifest)
    except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError, UserError) as error:
        finding.mismatches.append(f"store {folder}: its manifest or a file cannot be read ({error}): {again}")
    finding.state = "MISMATCH" if finding.mismatches else "matches"
    return finding


def _files(folder: Path, manifest: Mapping[str, Any]) -> Iterator[str]:
    """Every file's digest, and files that are missing or too many."""
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} - {"manifest.json"}
    for name in sorted(set(manifest["sha256"]) - there):
        yield f"{name} is missing"
    for name in sorted(there - set(manifest["sha256"])):
        yield f"{name} is in no manifest"
    for name in sorted(there & set(manifest["sha256"])):
        if sha256(folder / name) != manifest["sha256"][name]:
            yield f"{name} is not what the manifest says (its SHA-256 differs)"


def _origins(spec: Spec) -> dict[str, str]:
    """What an id of each split is unique in: the TFDS split for integer keys and the like, else the whole dataset."""
    dataset = DATASETS.get(spec["dataset"])
    if spec["source"] != "tfds" or dataset is None:
        return dict.fromkeys(SPLITS, "")
    return {split: name for split, (name, _, _) in parts(dataset.split_rule, dataset.counts).items()}


def _contents(folder: Path, manifest: Mapping[str, Any], origins: Mapping[str, str]) -> Iterator[str]:
    """Counts, shapes, class histograms, ids, as they are in the files. A file that is missing was named before."""
    split_of: dict[tuple[str, str], str] = {}
    for split in SPLITS:
        count = manifest["counts"][split]
        images = folder / f"{split}.npy"
        if images.is_file():
            shape = np.load(images, mmap_mode="r" if count else None, allow_pickle=False).shape
            if list(shape) != [count, *manifest["shape"][split]]:
                yield f"{images.name} has shape {shape} and the manifest {(count, *manifest['shape'][split])}"
        for task, classes in manifest["classes"].items():
            path = folder / "labels" / f"{task}.{split}.npy"
            if path.is_file():
                labels = np.load(path, allow_pickle=False)
                if len(labels) != count:
                    yield f"{split} has {len(labels):,} labels of {task} and the manifest {count:,} images"
                elif len(labels) and (labels.min() < 0 or labels.max() >= classes):
                    yield f"{split} has labels of {task} outside 0..{classes - 1}"
                elif np.bincount(labels, minlength=classes).tolist() != manifest["histogram"][task][split]:
                    yield f"the class histogram of {task} in {split} is not the manifest's"
        ids = folder / f"{split}.ids.txt"
        if ids.is_file():
            names = ids.read_bytes().decode(errors="replace").split("\n")[:-1]
            if len(names) != count:
                yield f"{split} has {len(names):,} ids and the manifest {count:,} images"
            if len(set(names)) != len(names):
                yield f"{split} has ids that stand there twice"
            origin = origins[split]
            shared = [name for name in names if split_of.setdefault((origin, name), split) != split]
            if shared:
                more = f" and {len(shared) - 1} more" if shared[1:] else ""
                yield f"{shared[0]}{more} is in {split_of[origin, shared[0]]} and in {split}"


def _any_counts(spec: Spec) -> bool:
    return spec.get("settings", {}).get("counts") == "any"


def _expected(spec: Spec, manifest: Mapping[str, Any]) -> Iterator[str]:
    """A store from TFDS or of ImageNet against the published counts and classes, less images left out by name."""
    wanted = _wanted(spec, manifest)
    if wanted is None:
        return
    left_out = len(manifest["skipped"])
    short = {split: wanted[split] - manifest["counts"][split] for split in SPLITS}
    if any(short.values()) and (min(short.values()) < 0 or sum(short.values()) > left_out):
        named = ", ".join(
            f"{split} {manifest['counts'][split]:,} of {wanted[split]:,}" for split in SPLITS if short[split]
        )
        cure = "remove the store and the TFDS records that it was made from, and run `vtabflow prepare` again"
        allowed = "prepare.tfds.counts of its study is any"
        whose = "ImageNet's" if spec["source"] == "imagenet" else "VTAB's"
        yield f"its counts are not {whose} ({named}): {allowed if _any_counts(spec) else cure}"
    for task, classes in manifest["classes"].items():
        if spec["classes"].get(task) != classes:
            yield f"task {task} has {classes} classes in the manifest and {spec['classes'].get(task)} in the study"
        if spec["rows"] == "all":
            both = np.add(manifest["histogram"][task]["train"], manifest["histogram"][task]["val"])
            if not both.all():
                yield f"class {int(np.argmin(both))} of {task} has no image in train and val"


def _wanted(spec: Spec, manifest: Mapping[str, Any]) -> dict[str, int] | None:
    """The published counts of a store's splits (datasets.py and splits.py; methods.md 2.4); None where there are none."""
    if spec["source"] == "imagenet":
        from vtabflow.prepare.imagenet import source as imagenet

        total = imagenet.DATASET.counts["train"]
        border = total * imagenet.TRAIN_SHARDS // imagenet.SHARDS
        return {"train": border, "val": total - border, "test": 0}
    dataset = DATASETS.get(spec["dataset"])
    if spec["source"] != "tfds" or dataset is None:
        return None
    # Of counts that an older TFDS made, those that these records have.
    of_records = manifest.get("tfds_counts", {})
    counts = {name: n for name, n in dataset.older_counts.items() if of_records.get(name) == n}
    return {
        split: rows_needed(spec, split, stop - start)
        for split, (_, start, stop) in parts(dataset.split_rule, {**dataset.counts, **counts}).items()
    }


def _copy(spec: Spec, root: Path, manifest: Mapping[str, Any]) -> Iterator[str]:
    """The copy of the manifest that is kept in git."""
    path = root / spec["manifest"] if "manifest" in spec else None
    if path is None or not path.is_file():
        return
    kept = read_json(path)["sha256"]
    # The ids of a folder are file names, and those are free (store.py).
    free = ".ids.txt" if spec["source"] == "folder" else "\n"
    names = sorted(
        n for n in {*kept, *manifest["sha256"]} if kept.get(n) != manifest["sha256"].get(n) and not n.endswith(free)
    )
    if names:
        yield (
            f"it does not match its manifest {path} ({', '.join(names[:3])}): bring the images that the manifest was made "
            f"from, or remove {path} to go on with what is here"
        )


# ---- traces of JPEG


def _jpeg(finding: Finding, spec: Spec, folder: Path, manifest: Mapping[str, Any]) -> None:
    """Name a lossy copy of a lossless set. Only pixels that were not resized can tell."""
    name = _original(spec, manifest)
    traces = []
    for split in SPLITS:
        path = folder / f"{split}.npy"
        if name is None or not manifest["counts"][split] or not path.is_file():
            continue
        images = np.load(path, mmap_mode="r", allow_pickle=False)
        if images.ndim != 4 or min(images.shape[1:3]) < 16:
            continue
        if name == "dsprites" and images.shape[1:3] == (64, 64):
            finding.jpeg = "none"
            if _other_than_black_and_white(path, images.dtype):
                traces.append(split)
        elif spec["source"] == "folder" or images.shape[1:] == DATASETS[name].native:
            pictures = lossy.whole(lossy.sample(images))
            if pictures is None:
                continue
            finding.jpeg = "none"
            if lossy.went_through_jpeg(pictures):
                traces.append(split)
    if not traces:
        return
    finding.jpeg = "traces"
    how = "are not all 0 or 255" if name == "dsprites" else "went through JPEG"
    what = f"store {folder}: the pixels of {', '.join(traces)} {how}"
    if name in JPEG_INSIDE:
        finding.remarks.append(f"{what}, which is expected of {name}: {JPEG_INSIDE[name]}")
    elif name in LOSSLESS:
        finding.mismatches.append(
            f"{what}, so it is a lossy copy of {name} ({LOSSLESS[name]}): bring the original, or let TFDS fetch it, remove "
            "this store and run `vtabflow prepare` again"
        )
    else:
        finding.remarks.append(f"{what}; if that is an export of a lossless set, use the original")


def _original(spec: Spec, manifest: Mapping[str, Any]) -> str | None:
    """The set whose pixels these should be: of TFDS its own, of a folder one that it looks like ("" if none)."""
    dataset = str(spec["dataset"])
    if spec["source"] == "tfds":
        return dataset if dataset in LOSSLESS or dataset in JPEG_INSIDE else None
    if spec["source"] != "folder" or max(manifest["shape"]["train"][:2]) > SMALL:
        return None
    text = f"{dataset} {spec['settings'].get('path', '')}".lower()
    if any(word in text for word in ("camelyon", "pcam")):
        return "patch-camelyon"
    if "eurosat" in text:
        return "eurosat"
    shaped = (*manifest["shape"]["train"][:2], next(iter(manifest["classes"].values())))
    return next((name for word, name in NAMED.items() if word in text), SHAPED.get(shaped, ""))


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
