"""`vtabflow data plan`: what VTAB's datasets cost in downloads and on the disk, what is there, what a person has to do.

Nothing is fetched and no image is read. Only stores from TFDS and ImageNet have something to fetch.
"""

import shutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vtabflow.prepare.store import is_complete, rows_needed
from vtabflow.prepare.tfds.acquire import Wanted, by_hand_places, check_room, is_generated, is_ours, wanted
from vtabflow.prepare.tfds.archives import BY_HAND, EXTRACTED, INNER_EXTRACTED, RECORDS
from vtabflow.prepare.tfds.datasets import DATASETS, Dataset
from vtabflow.prepare.tfds.download import gigabytes
from vtabflow.prepare.tfds.manual import IMAGENET_VERSIONS, to_do_by_hand
from vtabflow.prepare.tfds.splits import parts
from vtabflow.runtime.text_table import table

Spec = Mapping[str, Any]
HEAD = ("dataset", "tasks", "to fetch / all", "TFDS records", "store", "how", "state", "can go afterwards")
IMAGENET_BYTES = 144_000_000_000  # of the JPEG files of train, without the tars' padding
IMAGENET_SIDE = 500  # pixels: the longer side of most of them


@dataclass
class Row:
    """One dataset of the plan. Sizes in bytes; `needs` are the bytes that are still to be written, with their folder."""

    dataset: str
    tasks: int
    total: float
    missing: float
    records: float
    store: float
    how: str
    state: str
    removable: float
    about: bool  # whether the download's size is not known to the byte
    needs: list[tuple[Path, float]] = field(default_factory=list)
    to_do: list[str] = field(default_factory=list)


def show(stores: Iterable[Spec], root: Path | str = ".") -> int:
    """Print the plan of the study's stores (Plan.stores.values()). Returns 1 if a disk lacks room, else 0."""
    text, code = plan_text(stores, root)
    print(text)
    return code


def plan_text(stores: Iterable[Spec], root: Path | str = ".") -> tuple[str, int]:
    """The plan as text, and the exit code."""
    rows = [_row(_below(spec, Path(root))) for spec in stores if spec["source"] in ("tfds", "imagenet")]
    if not rows:
        return "nothing to fetch: no dataset of this study comes through TFDS", 0
    total, missing, records, store = (
        sum(getattr(row, n) for row in rows) for n in ("total", "missing", "records", "store")
    )
    tasks, gone = sum(row.tasks for row in rows), sum(row.removable for row in rows)
    together = Row("all", tasks, total, missing, records, store, "", "", gone, any(row.about for row in rows))
    lines = table([HEAD, *map(_cells, [*rows, together])], right=(1, 3, 4, 7))
    lines += [
        "",
        "Of records and stores that are not there yet: TFDS' catalogue or an estimate, and counts times pixels.",
    ]
    sentences = [sentence for row in rows for sentence in row.to_do]
    if sentences:
        lines += ["", "By hand:", *(f"- {sentence}" for sentence in sentences)]
    needs = [need for row in rows for need in row.needs]
    lacking = check_room(needs)
    left = sum(size for _, size in needs)
    lines += [""]
    if lacking:
        lines += [f"No room: {sentence}." for sentence in lacking]
        lines += [
            "Free a disk, set prepare.tfds.folder or prepare.tfds.downloads to a larger one, or prepare the datasets in turns "
            "with `vtabflow data plan --clean --yes` between them."
        ]
    else:
        lines += [
            f"{gigabytes(left)} are still to be written and the disk has room for them."
            if left
            else "Everything is there."
        ]
    return "\n".join(lines), 1 if lacking else 0


def _cells(row: Row) -> tuple[str, ...]:
    about = "about " if row.about else ""
    both = f"{gigabytes(row.missing)} / {about}{gigabytes(row.total)}"
    rest = (row.how, row.state, gigabytes(row.removable))
    return (row.dataset, str(row.tasks), both, gigabytes(row.records), gigabytes(row.store), *rest)


def _below(spec: Spec, root: Path) -> dict[str, Any]:
    """The spec with its places and folder below `root`."""
    places = {name: str(root / place) if isinstance(place, str) else place for name, place in spec["places"].items()}
    return {**spec, "places": places, "folder": str(root / spec["folder"])}


def _row(spec: Spec) -> Row:
    name, places = spec["dataset"], spec["places"]
    store, records = store_bytes(spec), float(RECORDS[name].bytes)
    files, by_hand = _archives(spec), BY_HAND.get(name, ())
    whole, folder = is_complete(spec["folder"]), records_folder(spec)
    there = (folder / "dataset_info.json").is_file()
    if there:
        records = float(_size(folder))
    if whole:
        store = float(_size(Path(spec["folder"])))
    to_do = [] if whole else to_do_by_hand(name, places, spec["settings"]["counts"])
    brought = float(sum(file.size for file in by_hand))
    if places.get("tree"):
        records, brought = 0.0, 0.0
    fetched = sum(_missing(spec, file) for file in files)
    missing = 0.0 if whole or there else fetched + sum(each.fetch for each in to_do)
    extracted = float(EXTRACTED.get(name, 0))
    if whole:
        state = "store there"
    elif there:
        state = "records there"
    elif to_do:
        state = "by hand"
    elif missing:
        state = "to fetch"
    else:
        state = "tree there" if places.get("tree") else "archives there"
    total = float(sum(file.archive.size for file in files)) + brought
    passing = [file for file in files if is_ours(file) or not file.path.exists()]
    removable = sum(file.archive.size for file in passing) + (extracted if passing else 0.0)
    if not there or is_generated(places, spec_id(spec), folder):
        removable += records
    row = Row(
        dataset=name,
        tasks=len(spec["tasks"]) if spec["source"] == "tfds" else 0,
        total=total,
        missing=missing,
        records=records,
        store=store,
        how="by hand" if by_hand and not places.get("tree") else "automatic",
        state=state,
        removable=removable,
        about=any(not file.exact for file in by_hand),
        to_do=[each.sentence for each in to_do],
    )
    if not whole:
        row.needs.append((Path(spec["folder"]), store))
        if not there:
            row.needs += [
                (Path(places["downloads"]), fetched + (extracted if records else 0.0)),
                (Path(places["tfds"]), records),
                (Path(places["manual"]), sum(each.write for each in to_do)),
            ]
    return row


def _missing(spec: Spec, file: Wanted) -> float:
    """Bytes of an archive that are still to be fetched: none if it lies where a person puts it."""
    for place in by_hand_places(spec_id(spec), spec["places"], file):
        if place.is_file() and file.size in (None, place.stat().st_size):
            return 0.0
    return float(file.missing())


def store_bytes(spec: Spec) -> float:
    """The size of a store: rows times pixels (8 bytes a label and about 24 an id beside them), ImageNet's by estimate."""
    image = spec["image"]
    if image.get("form") == "packed":
        # A JPEG shrinks about as its pixels do.
        return IMAGENET_BYTES * min(1.0, (image["side"] / IMAGENET_SIDE) ** 2 if image.get("side") else 1.0)
    dataset = DATASETS[spec["dataset"]]
    height, width, channels = dataset.native or (image["size"] + 1, image["size"] + 1, 3)
    number = np.dtype(image.get("numbers", "uint8")).itemsize
    if max(height, width) > image["size"]:
        height = width = image["size"]
    elif dataset.native:
        number = 1  # whole levels as they are
    cut = parts(dataset.split_rule, dataset.counts)
    rows = sum(rows_needed(spec, split, stop - start) for split, (_, start, stop) in cut.items())
    return float(rows * (height * width * channels * number + 8 * len(spec["tasks"]) + 24))


def records_folder(spec: Spec) -> Path:
    """Where TFDS has the records that the store is made of."""
    if spec["source"] == "imagenet":
        folders = [Path(spec["places"]["tfds"], "imagenet2012", version) for version in IMAGENET_VERSIONS]
        return next((folder for folder in folders if (folder / "dataset_info.json").is_file()), folders[0])
    dataset = DATASETS[spec["dataset"]]
    below = [dataset.config] if dataset.config else []
    return Path(spec["places"]["tfds"], dataset.builder, *below, spec["settings"]["version"])


@dataclass(frozen=True)
class _Named:
    id: str
    builder: str


def spec_id(spec: Spec) -> Dataset | _Named:
    """The dataset of a spec, ImageNet as well."""
    return DATASETS.get(spec["dataset"]) or _Named(spec["dataset"], "imagenet2012")


def _archives(spec: Spec) -> list[Wanted]:
    return wanted(spec_id(spec), spec["places"], spec["settings"].get("checksums"))


# ---- what is not needed any more


def clean(stores: Iterable[Spec], root: Path | str = ".", really: bool = False) -> int:
    """Say what is not needed any more, and with `really` remove it. Returns the exit code, 0.

    Archives and what TFDS unpacked of them go where the records or the stores are there; records go where the stores are.
    Only what the project fetched or generated itself goes, only below places["downloads"] and places["tfds"].
    """
    specs = [_below(spec, Path(root)) for spec in stores if spec["source"] in ("tfds", "imagenet")]
    going = [entry for spec in specs for entry in not_needed(spec, specs)]
    total = 0
    for path, size in going:
        total += size
        print(f"{gigabytes(size):>10}  {path}")
    if not going:
        print(
            "there is nothing to remove: what is here is needed still, or was not fetched or generated by this project"
        )
    elif not really:
        print(f"{gigabytes(total)} are not needed any more; `vtabflow data plan --clean --yes` removes them")
    else:
        for path, _ in going:
            _remove(path)
        print(f"{gigabytes(total)} removed")
    return 0


def not_needed(spec: Spec, specs: Sequence[Spec]) -> list[tuple[Path, int]]:
    """Files and folders of a dataset that nothing in the study needs any more, with their sizes in bytes."""
    places, folder = spec["places"], records_folder(spec)
    whole = all(is_complete(other["folder"]) for other in specs if other["dataset"] == spec["dataset"])
    there = (folder / "dataset_info.json").is_file()
    going: list[Path] = []
    downloads = Path(places["downloads"])
    ours = [file for file in _archives(spec) if is_ours(file)] if whole or there else []
    for file in ours:
        going += [file.path, file.path.with_name(f"{file.path.name}.INFO")]
        twin = downloads / file.archive.name
        if twin.is_file() and twin.samefile(file.path):
            going.append(twin)
        going += sorted((downloads / "extracted").glob(f"*.{file.path.name}"))
    if ours:
        going += [downloads / "extracted" / name for name in INNER_EXTRACTED.get(spec["dataset"], ())]
    if whole and there and is_generated(places, spec_id(spec), folder):
        going.append(folder)
    homes = [Path(places[name]).resolve() for name in ("downloads", "tfds")]
    inside = [
        path for path in going if any(home in path.parent.resolve().joinpath(path.name).parents for home in homes)
    ]
    return [(path, _size(path)) for path in inside if path.exists() or path.is_symlink()]


def _size(path: Path) -> int:
    if path.is_symlink():
        return 0
    return sum(f.lstat().st_size for f in path.rglob("*") if f.is_file()) if path.is_dir() else path.stat().st_size


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
        for parent in list(path.parents)[:2]:
            with suppress(OSError):  # the folder of the builder, and of its configuration, if nothing else is in it
                parent.rmdir()
    else:
        path.unlink(missing_ok=True)
