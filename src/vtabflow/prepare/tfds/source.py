"""Source `tfds`: a store from the TFDS records of a dataset, which TFDS generates here unless they exist.

TensorFlow and TFDS are imported in this step alone. Builders and versions: datasets.py; docs/protocol.md#data.
"""

import errno
import importlib.util
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import numpy as np

from vtabflow.contracts.results import Manifest, SkippedFile
from vtabflow.contracts.specs import ImageSpec, Places, StoreSpec, TfdsSettings
from vtabflow.errors import RunError, UserError
from vtabflow.prepare.store import SPLITS, create_store, rows_needed
from vtabflow.prepare.tfds import acquire, origin
from vtabflow.prepare.tfds.datasets import Dataset, datasets
from vtabflow.prepare.tfds.generation import patched_tfds
from vtabflow.prepare.tfds.records import Filled, Records, fill, shape_of
from vtabflow.prepare.tfds.splits import expressions, parts
from vtabflow.runtime.locks import locked

NO_SPACE = "No space left on device"
# Names of what Python's archive readers, TensorFlow and ijson raise for a truncated file.
BROKEN_ARCHIVE = {
    "ReadError",
    "BadZipFile",
    "BadGzipFile",
    "EOFError",
    "DataLossError",
    "JSONError",
    "IncompleteJSONError",
}


def make(spec: StoreSpec) -> Manifest:
    """Prepare the store of `spec` (source "tfds") and return its manifest.

    Records at <tfds>/<builder>/[<config>/]<version> are used as they are; else they are generated there. Images of one
    native size no larger than the target keep it, in uint8; others are resized once. An image that does not decode is
    named, left out and listed in the manifest.

    Raises:
        UserError: no archives, records of other archives, other counts than the dataset's, a class without an image, a
            version that is missing.
        RunError: damaged archives or records, no space, no permission.
    """
    dataset, settings, places, image = datasets()[spec.dataset], spec.settings, spec.places, spec.image
    assert isinstance(settings, TfdsSettings) and isinstance(image, ImageSpec) and places is not None
    assert dataset.split is not None
    check_installed(dataset)
    folder = dataset.prepared(places.tfds, settings.version)
    folder = folder or generate(dataset, settings.version, settings.checksums, places)
    origin.check(dataset, folder, settings.checksums)
    archives = origin.archives_of(dataset, folder)
    remarks = origin.remarks(dataset, archives)
    for remark in remarks:
        print(f"{dataset.id}: {remark.text}", flush=True)
    import_tfds(dataset)
    records = Records(folder, dataset)
    official = settings.counts == "official"
    check_counts(records, official)
    shape = shape_of(dataset, image.size)
    # Pixels that keep their size are whole numbers, which need no float32.
    numbers = np.dtype("uint8" if shape == dataset.native else image.numbers)
    filled: dict[str, Filled] = {}
    with create_store(spec) as new:
        for split, (name, start, stop) in parts(dataset.split, records.counts).items():
            rows = rows_needed(spec, split, stop - start)
            images = new.images(split, (rows, *shape), numbers)
            filled[split] = fill(records, (name, start, stop), images, image.resize, spec.tasks, split)
            new.keep(split, len(filled[split].ids))
        skipped = [entry for split in SPLITS for entry in filled[split].skipped]
        check_skipped(records, skipped, filled)
        labels = {
            task: {split: np.array(filled[split].labels[task], np.int64) for split in SPLITS} for task in spec.tasks
        }
        if official and spec.rows == "all":
            for task, count in spec.classes.items():
                check_classes(records, task, count, np.concatenate([labels[task]["train"], labels[task]["val"]]))
        names = records.class_names()
        return new.finish(
            labels,
            {split: filled[split].ids for split in SPLITS},
            spec.classes,
            None if names is None else dict.fromkeys(spec.tasks, names),
            skipped,
            splits=expressions(dataset.split, records.counts),
            tfds_counts=records.counts,
            archives=archives if dataset.archives else None,
            remarks=remarks or None,
        )


def check_installed(dataset: Dataset) -> None:
    """UserError unless TensorFlow and TFDS are installed. Importing them takes 20 seconds, which comes later."""
    for name in ("tensorflow", "tensorflow_datasets"):
        if not _is_installed(name):
            raise _not_installed(dataset, f"there is no {name}")


def import_tfds(dataset: Dataset) -> None:
    """Import TensorFlow and TFDS. UserError if that fails."""
    quiet()
    try:
        import tensorflow  # noqa: F401
        import tensorflow_datasets  # noqa: F401
    except ImportError as error:
        raise _not_installed(dataset, str(error)) from error


def _is_installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):  # ValueError: sys.modules has None for it
        return False


def _not_installed(dataset: Dataset, reason: str) -> UserError:
    return UserError(
        f"dataset {dataset.id}: it is prepared by TensorFlow and TFDS, which are not installed here "
        f"({_shortened(reason)}): install them with `make tfds`, then run again"
    )


def check_counts(records: Records, official: bool) -> None:
    """UserError unless the records have the splits of the task, and the dataset's counts if they should be official."""
    dataset = records.dataset
    for split, count in dataset.counts.items():
        found = records.counts.get(split, 0)
        if found == 0 or (official and found not in (count, dataset.older_counts.get(split))):
            raise UserError(
                f"dataset {dataset.id}: split {split} at {records.folder} has {found:,} examples and VTAB's has "
                f"{count:,}: {records.remedy}, or set `prepare.tfds.counts: any` to take a subset as it is"
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


def check_skipped(records: Records, skipped: list[SkippedFile], filled: Mapping[str, Filled]) -> None:
    """Print what was left out. RunError if that leaves a split without an image."""
    if not skipped:
        return
    first = skipped[0]
    what = f"{records.dataset.id}: {len(skipped)} images left out, first {first.file}, which {first.reason}"
    for split in SPLITS:
        if not filled[split].ids:
            raise RunError(f"dataset {what}; none is left for {split}: {records.remedy}, then run again")
    print(what, flush=True)


def generate(dataset: Dataset, version: str, checksums: Mapping[str, str], places: Places) -> Path:
    """Generate the records of a version by TFDS, and return their folder."""
    folder = dataset.records(places.tfds, version)
    for other in (dataset.version, *dataset.readable):
        if other != version and dataset.prepared(places.tfds, other):
            raise UserError(
                f"dataset {dataset.id}: {places.tfds} has version {other} and not {version}: set "
                f"`prepare.tfds.versions."
                f"{dataset.id}: {other}` to use it, or move it away to have {dataset.version} generated"
            )
    if version != dataset.version:
        raise UserError(
            f"dataset {dataset.id}: version {version} is not at {folder}, and TFDS can only generate "
            f"{dataset.version}: "
            f"copy those records there, or leave out `prepare.tfds.versions.{dataset.id}`"
        )
    with _generation_locks(dataset, places):
        if dataset.prepared(places.tfds, version):  # generated by another process while this one waited
            return folder
        if folder.exists():
            raise UserError(
                f"dataset {dataset.id}: {folder} has no dataset_info.json, so it is not complete: "
                f"copy it completely, or "
                "remove it to have it generated again"
            )
        acquire.fetch(dataset, places, checksums)
        import_tfds(dataset)
        print(f"{dataset.id}: TFDS generates its records at {folder}", flush=True)
        archives = origin.expected(dataset, checksums)
        with _explained(dataset, places) as reading:
            _download_and_prepare(dataset, places, archives, reading)
        origin.note_generated(places, dataset, folder)
    return folder


def _download_and_prepare(dataset: Dataset, places: Places, archives: Mapping[str, str], reading: list[str]) -> None:
    import tensorflow_datasets as tfds

    with patched_tfds(dataset, reading, lambda folder: origin.note(dataset, folder, archives)):
        builder = tfds.builder_cls(dataset.builder)(
            data_dir=places.tfds, version=dataset.version, **({"config": dataset.config} if dataset.config else {})
        )
        builder.download_and_prepare(
            download_dir=places.downloads,
            download_config=tfds.download.DownloadConfig(manual_dir=places.manual, try_download_gcs=False),
            file_format="array_record",
        )


@contextmanager
def _generation_locks(dataset: Dataset, places: Places) -> Iterator[None]:
    """Let one process at a time generate a dataset, and remove what killed and failed ones left."""
    root, downloads = Path(places.tfds), Path(places.downloads)
    removals = []
    with ExitStack() as stack:
        try:
            if stack.enter_context(locked(root / f".{dataset.builder}.lock")):
                removals.append(_remove_incomplete_records)
        except OSError as error:
            raise RunError(
                f"dataset {dataset.id}: cannot write to {root}: {error.strerror or error}; correct "
                f"the permission or set "
                "`prepare.tfds.folder` to another one, then run again"
            ) from error
        # Another project may use the same archives. Not the name above: both folders may be one.
        with suppress(OSError):  # archives in a read-only folder
            if stack.enter_context(locked(downloads / f".{dataset.builder}.unpacking.lock")):
                removals.append(_remove_incomplete_unpacked)

        def remove() -> None:
            for removal in removals:
                with suppress(OSError):
                    removal(dataset, places)

        remove()
        try:
            yield
        except BaseException:
            remove()
            raise


def _remove_incomplete_records(dataset: Dataset, places: Places) -> None:
    """Remove the folders, with TFDS' temporary names, of generations that were killed or failed."""
    folder = dataset.records(places.tfds)
    for left in folder.parent.glob(f"incomplete.*_{folder.name}"):
        shutil.rmtree(left, ignore_errors=True)


def _remove_incomplete_unpacked(dataset: Dataset, places: Places) -> None:
    """Remove incompletely unpacked archives of the dataset."""
    for left in Path(places.downloads, "extracted").glob("incomplete.*"):
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
def _explained(dataset: Dataset, places: Places) -> Iterator[list[str]]:
    """Turn what TFDS and its libraries raise into one sentence; gives the list that `patched_tfds` fills."""
    reading: list[str] = []
    try:
        yield reading
    except (UserError, RunError, MemoryError):
        raise
    except Exception as error:
        raise explained(dataset, places, error, *reading) from error


def explained(dataset: Dataset, places: Places, error: BaseException, at: str = "") -> UserError | RunError:
    """The error of TFDS in one sentence: no space, a broken archive, a missing file, or TFDS' own message.

    Args:
        dataset: whose records are generated.
        places: the folders.
        error: what TFDS raised.
        at: the file that was being read, a name in an archive or an absolute path.
    """
    chain: list[BaseException] = [error]
    while (inner := chain[-1].__cause__ or chain[-1].__context__) is not None and inner not in chain:
        chain.append(inner)
    head = f"dataset {dataset.id}: TFDS cannot generate its records"
    texts = [str(one) for one in chain]
    if any(getattr(one, "errno", None) in (errno.ENOSPC, errno.EDQUOT) for one in chain) or any(
        NO_SPACE in text or "Not enough disk space" in text for text in texts
    ):
        return RunError(f"{head}: no space below {places.tfds} or {places.downloads}; free some, then run again")
    kinds = {type(one).__name__ for one in chain}
    where = next((text for one, text in zip(chain, texts, strict=True) if type(one).__name__ == "ExtractError"), "")
    reason = _shortened(where or texts[-1] or type(chain[-1]).__name__)
    if where or kinds & BROKEN_ARCHIVE:
        manual = f"download it again to {places.manual}, then run again"
        automatic = f"remove it from {places.downloads} and run again, or put a complete one there"
        return RunError(
            f"{head}: an archive is truncated or broken ({f'at {at}: ' if at else ''}{reason}); "
            f"{manual if dataset.manual_downloads else automatic}"
        )
    if kinds & {"FileNotFoundError", "NotFoundError"}:
        folders = f"{places.manual} (manual downloads) or {places.downloads}"
        return UserError(f"{head}: a file is missing below {folders} ({reason}); put it there, then run again")
    if any(isinstance(one, PermissionError) for one in chain):
        return RunError(f"{head}: {reason}; correct the permission, then run again")
    file = at if Path(at).is_absolute() else f"{at} in its archive"
    return RunError(
        f"{head} ({f'{file}: ' if at else ''}{reason}): check the files in {places.downloads} and "
        f"{places.manual}, then run again"
    )


def _shortened(text: str) -> str:
    line = next((line.strip() for line in text.splitlines() if line.strip()), "")
    return line if len(line) <= 300 else f"{line[:300]}..."


def quiet() -> None:
    """Silence TensorFlow's and OpenCV's notes."""
    # Read when the libraries are imported: their notes on processors and codecs are not for users of this step.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("OPENCV_LOG_LEVEL", "ERROR")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # it is announced at length, and no operation here uses it
