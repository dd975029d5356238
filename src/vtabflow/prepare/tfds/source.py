"""Source `tfds`: one of VTAB's own datasets, from TFDS records that are there or that TFDS makes here, becomes a store.

TensorFlow and TFDS are imported in this step alone. Builders, versions and traps: protocol.md sections 1 and 7.
"""

import errno
import fcntl
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from vtabflow.errors import RunError, UserError
from vtabflow.prepare.store import SPLITS, create_store, rows_needed
from vtabflow.prepare.tfds.datasets import DATASETS, Dataset
from vtabflow.prepare.tfds.generation import patched_tfds
from vtabflow.prepare.tfds.records import Filled, Records, fill, shape_of
from vtabflow.prepare.tfds.splits import expressions, parts

NO_SPACE = "No space left on device"


def make(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Prepare the store of `spec` (StoreSpec with source "tfds") and return its manifest.

    Records that lie at <tfds>/<builder>/[<config>/]<version> are used as they are; else they are generated there.
    Images of one native size no larger than the target keep it, in uint8; any others are resized once. An image that
    does not decode is named, left out and listed in the manifest.

    Raises:
        UserError: no archives, other counts than VTAB's, a class without an image, a version that is not there.
        RunError: damaged archives or records, no space, no permission.
    """
    dataset, settings, places = DATASETS[spec["dataset"]], spec["settings"], spec["places"]
    check_installed(dataset)
    folder = prepared(places, dataset, settings["version"]) or generated(dataset, settings, places)
    records = Records(folder, dataset)
    official = settings["counts"] == "official"
    check_counts(records, official)
    shape = shape_of(dataset, spec["image"]["size"])
    # Pixels that keep their size are whole numbers: float32 would hold the same in four times the room.
    numbers = np.dtype("uint8" if shape == dataset.native else spec["image"].get("numbers", "uint8"))
    filled: dict[str, Filled] = {}
    with create_store(spec) as new:
        for split, (name, start, stop) in parts(dataset.split_rule, records.counts).items():
            rows = rows_needed(spec, split, stop - start)
            images = new.images(split, (rows, *shape), numbers)
            filled[split] = fill(records, (name, start, stop), images, spec["image"]["resize"], spec["tasks"], split)
            new.keep(split, len(filled[split].ids))
        skipped = [entry for split in SPLITS for entry in filled[split].skipped]
        check_skipped(records, skipped, filled)
        labels = {
            task: {split: np.array(filled[split].labels[task], np.int64) for split in SPLITS} for task in spec["tasks"]
        }
        if official and spec["rows"] == "all":
            for task, count in spec["classes"].items():
                check_classes(records, task, count, np.concatenate([labels[task]["train"], labels[task]["val"]]))
        names = records.class_names()
        return new.finish(
            labels,
            {split: filled[split].ids for split in SPLITS},
            spec["classes"],
            None if names is None else dict.fromkeys(spec["tasks"], names),
            skipped,
            {"splits": expressions(dataset.split_rule, records.counts), "tfds_counts": records.counts},
        )


def folder_of(places: Mapping[str, Any], dataset: Dataset, version: str) -> Path:
    """Where TFDS has the records of a version."""
    return Path(places["tfds"], dataset.builder, *([dataset.config] if dataset.config else []), version)


def prepared(places: Mapping[str, Any], dataset: Dataset, version: str) -> Path | None:
    """The folder of a version's records if they are there and whole: TFDS gives a folder its name last. Light."""
    folder = folder_of(places, dataset, version)
    return folder if (folder / "dataset_info.json").is_file() else None


def check_installed(dataset: Dataset) -> None:
    """UserError unless TensorFlow and TFDS can be imported."""
    quiet()
    try:
        import tensorflow  # noqa: F401
        import tensorflow_datasets  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"dataset {dataset.id}: TensorFlow and TFDS, by which it is prepared, are not installed here "
            f"({_shortened(str(error))}): install them with `make tfds`, then run again"
        ) from error


def check_counts(records: Records, official: bool) -> None:
    """UserError unless the records have the splits that VTAB uses, with its counts where those are wanted."""
    dataset = records.dataset
    for split, count in dataset.counts.items():
        found = records.counts.get(split, 0)
        if found == 0 or (official and found not in (count, dataset.older_counts.get(split))):
            raise UserError(
                f"dataset {dataset.id}: split {split} at {records.folder} has {found:,} examples and VTAB's has "
                f"{count:,}: {records.remedy}, or set `prepare.tfds.counts: any` to take another cut as it is"
            )


def check_classes(records: Records, task: str, count: int, labels: np.ndarray) -> None:
    """UserError if a class of 0..count-1 is not among `labels`, those of train and val."""
    empty = np.flatnonzero(np.bincount(labels, minlength=count)[:count] == 0)
    if len(empty):
        more = f" and {len(empty) - 1} more" if empty[1:].size else ""
        raise UserError(
            f"dataset {records.dataset.id}: class {empty[0]}{more} of task {task} has no image in train and val: the "
            f"records are not VTAB's: {records.remedy}, or set `prepare.tfds.counts: any`"
        )


def check_skipped(records: Records, skipped: list[dict[str, str]], filled: Mapping[str, Filled]) -> None:
    """Say what was left out. Raises RunError if that leaves a split without an image."""
    if not skipped:
        return
    first = skipped[0]
    what = f"{records.dataset.id}: {len(skipped)} images left out, first {first['file']}, which {first['reason']}"
    for split in SPLITS:
        if not filled[split].ids:
            raise RunError(f"dataset {what}; none is left for {split}: {records.remedy}, then run again")
    print(what, flush=True)


def generated(dataset: Dataset, settings: Mapping[str, Any], places: Mapping[str, Any]) -> Path:
    """Have TFDS make the records of the version, and return their folder."""
    version = settings["version"]
    for other in (dataset.version, *dataset.readable):
        if other != version and prepared(places, dataset, other):
            raise UserError(
                f"dataset {dataset.id}: {places['tfds']} has version {other} and not {version}: set "
                f"`prepare.tfds.versions.{dataset.id}: {other}` to use it, or move it away to have {dataset.version} made"
            )
    if version != dataset.version:
        raise UserError(
            f"dataset {dataset.id}: version {version} is not at {folder_of(places, dataset, version)}, and TFDS can "
            f"only make {dataset.version}: bring those records, or leave out `prepare.tfds.versions.{dataset.id}`"
        )
    folder = folder_of(places, dataset, version)
    with _alone(dataset, places):
        if prepared(places, dataset, version):  # made by another process while this one waited
            return folder
        if folder.exists():
            raise UserError(
                f"dataset {dataset.id}: {folder} has no dataset_info.json, so it is not whole: bring it whole, or remove "
                "it to have it generated again"
            )
        from vtabflow.prepare.tfds import acquire

        acquire.fetch(dataset, places, settings["checksums"])
        print(f"{dataset.id}: TFDS makes its records at {folder}", flush=True)
        with _explained(dataset, places) as reading:
            _download_and_prepare(dataset, places, reading)
        acquire.generated(places, dataset, folder)
    return folder


def _download_and_prepare(dataset: Dataset, places: Mapping[str, Any], reading: list[str]) -> None:
    import tensorflow_datasets as tfds

    with patched_tfds(dataset, reading):
        builder = tfds.builder_cls(dataset.builder)(
            data_dir=places["tfds"], version=dataset.version, **({"config": dataset.config} if dataset.config else {})
        )
        builder.download_and_prepare(
            download_dir=places["downloads"],
            download_config=tfds.download.DownloadConfig(manual_dir=places["manual"], try_download_gcs=False),
            file_format="array_record",
        )


@contextmanager
def _alone(dataset: Dataset, places: Mapping[str, Any]) -> Iterator[None]:
    """One generation of a dataset at a time in either folder, without what killed and failed ones left there."""
    root, downloads = Path(places["tfds"]), Path(places["downloads"])
    with ExitStack() as held:
        try:
            sweeps = [_sweep_records] if held.enter_context(_locked(root / f".{dataset.builder}.lock")) else []
        except OSError as error:
            raise RunError(
                f"dataset {dataset.id}: cannot write to {root}: {error.strerror or error}; mend the permission or set "
                "`prepare.tfds.folder` to another one, then run again"
            ) from error
        # Another project may have the same archives. Not the name above: both folders may be one.
        with suppress(OSError):  # archives that can only be read
            if held.enter_context(_locked(downloads / f".{dataset.builder}.unpacking.lock")):
                sweeps.append(_sweep_unpacked)

        def swept() -> None:
            for sweep in sweeps:
                with suppress(OSError):
                    sweep(dataset, places)

        swept()
        try:
            yield
        except BaseException:
            swept()
            raise


@contextmanager
def _locked(path: Path) -> Iterator[bool]:
    """Wait for the lock and hold it; False on a file system without locks, where nothing is swept. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        locked = False
        with suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX)
            locked = True
        yield locked
    finally:
        os.close(lock)


def _sweep_records(dataset: Dataset, places: Mapping[str, Any]) -> None:
    """Remove records that a generation which did not end well left, in folders with TFDS' working names."""
    folder = folder_of(places, dataset, dataset.version)
    for left in folder.parent.glob(f"incomplete.*_{folder.name}"):
        shutil.rmtree(left, ignore_errors=True)


def _sweep_unpacked(dataset: Dataset, places: Mapping[str, Any]) -> None:
    """Remove what is half unpacked of the dataset's archives."""
    for left in Path(places["downloads"], "extracted").glob("incomplete.*"):
        if any(name in left.name for name in _archives(dataset)):
            with suppress(OSError):
                shutil.rmtree(left, ignore_errors=True) if left.is_dir() else left.unlink()


def _archives(dataset: Dataset) -> list[str]:
    """The names under which TFDS keeps the dataset's archives."""
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.download.resource import get_dl_fname

    infos = tfds.builder_cls(dataset.builder).url_infos or {}
    return [get_dl_fname(url, info.checksum) for url, info in infos.items()]


@contextmanager
def _explained(dataset: Dataset, places: Mapping[str, Any]) -> Iterator[list[str]]:
    """Whatever TFDS and its libraries raise while they generate, as one sentence; gives the list for `surroundings`."""
    reading: list[str] = []
    try:
        yield reading
    except (UserError, RunError, MemoryError):
        raise
    except Exception as error:
        raise explained(dataset, places, error, *reading) from error


def explained(dataset: Dataset, places: Mapping[str, Any], error: BaseException, at: str = "") -> UserError | RunError:
    """The error of TFDS as ours: no space, a broken archive, a missing file, or TFDS' own words and the file `at` hand.

    `at` is a name in an archive, or the whole path of a file that lies in a folder.
    """
    chain: list[BaseException] = [error]
    while (inner := chain[-1].__cause__ or chain[-1].__context__) is not None and inner not in chain:
        chain.append(inner)
    head = f"dataset {dataset.id}: TFDS cannot make its records"
    texts = [str(one) for one in chain]
    if any(getattr(one, "errno", None) in (errno.ENOSPC, errno.EDQUOT) for one in chain) or any(
        NO_SPACE in text or "Not enough disk space" in text for text in texts
    ):
        return RunError(f"{head}: no space below {places['tfds']} or {places['downloads']}; free some, then run again")
    kinds = {type(one).__name__ for one in chain}
    where = next((text for one, text in zip(chain, texts, strict=True) if type(one).__name__ == "ExtractError"), "")
    reason = _shortened(where or texts[-1] or type(chain[-1]).__name__)
    if where or kinds & {"ReadError", "BadZipFile", "BadGzipFile", "EOFError", "DataLossError", "JSONDecodeError"}:
        brought = f"bring it whole to {places['manual']}, then run again"
        fetched = f"remove it from {places['downloads']} and run again, or put a whole one there by hand"
        return RunError(
            f"{head}: an archive is cut off or broken ({f'at {at}: ' if at else ''}{reason}); "
            f"{brought if dataset.by_hand else fetched}"
        )
    if kinds & {"FileNotFoundError", "NotFoundError"}:
        places_named = f"{places['manual']} (by hand) or {places['downloads']}"
        return UserError(f"{head}: a file is missing below {places_named} ({reason}); put it there, then run again")
    if any(isinstance(one, PermissionError) for one in chain):
        return RunError(f"{head}: {reason}; mend the permission, then run again")
    file = at if Path(at).is_absolute() else f"{at} in its archive"
    return RunError(
        f"{head} ({f'{file}: ' if at else ''}{reason}): check the files in {places['downloads']} and {places['manual']}, then run again"
    )


def _shortened(text: str) -> str:
    line = next((line.strip() for line in text.splitlines() if line.strip()), "")
    return line if len(line) <= 300 else f"{line[:300]}..."


def quiet() -> None:
    # Read when the libraries are imported: remarks on the processor or an encoder are not for users of this step.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("OPENCV_LOG_LEVEL", "ERROR")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # announced at length, and no operation here would use it
