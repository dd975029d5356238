"""What a reader has to know of the splits of a folder: images in two of them or in two classes, classes without images.

Planning imports this module, so it imports nothing heavy.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from vtabflow.contracts.protocol import ROWS_1K
from vtabflow.contracts.results import Remark
from vtabflow.errors import UserError
from vtabflow.prepare.folders.entry import File

EXAMPLES = 5  # names in a remark
IN_TOO = ("is", "are", "in {} too")
Splits = Mapping[str, Sequence[File]]


def remarks_of(
    splits: Splits, given: Sequence[str], classes: Sequence[str], role: str, near: Mapping[str, str]
) -> list[Remark]:
    """The remarks of a folder's splits.

    Args:
        splits: train, val, test -> images in the order of the store.
        given: the splits that the folder has itself.
        classes: the names of the classes.
        role: "task" or "upstream"; of an upstream set only what concerns images is said.
        near: digest -> cluster of images that look the same.
    """
    found = [
        _shared(splits, "test", ("train", "val"), "test-in-train", _content, IN_TOO),
        _shared(splits, "val", ("train",), "val-in-train", _content, IN_TOO),
        *_related(splits, near),
        _copies(splits, given),
        _near_copies(splits, given, near),
    ]
    if role == "task":
        found += [_two_classes(splits), *_classes_of_splits(splits, given, classes), *_of_1k(splits, classes)]
    return [remark for remark in found if remark]


def refuse_shared(path: str, splits: Splits) -> None:
    """UserError if more than half of the test images are training or validation images too."""
    shared = _shared(splits, "test", ("train", "val"), "", _content, IN_TOO)
    if shared and 2 * shared.count > len(splits["test"]):
        raise UserError(
            f"{path}: {shared.text}: a test set needs images of its own; put others into test, or leave test out to "
            "have it drawn from train"
        )


def _content(file: File) -> str | None:
    return file.digest


def _shared(
    splits: Splits,
    split: str,
    others: Sequence[str],
    kind: str,
    what: Callable[[File], str | None],
    words: tuple[str, str, str],
    unless: Collection[str] = (),
) -> Remark | None:
    """How many images of `split` have the same `what` as one of `others`.

    Args:
        splits: the images.
        split: whose images are counted.
        others: where the same is looked for.
        kind: of the remark.
        what: of an image; None is the same as nothing.
        words: the verb for one and for several images, and what follows; {} becomes the splits where it was found.
        unless: digests of images that are not counted.
    """
    wanted = {what(file) for file in splits[split]} - {None}
    seen = {key: (other, file) for other in others[::-1] for file in splits[other] if (key := what(file)) in wanted}
    found = [(file, *seen[key]) for file in splits[split] if (key := what(file)) in seen and file.digest not in unless]
    if not found:
        return None
    places = {other for _, other, _ in found}
    where = " or ".join(other for other in others if other in places)
    pairs = tuple(f"{file.entry.name} ({twin.entry.name})" for file, _, twin in found[:EXAMPLES])
    one, several, rest = words
    count = f"{len(found):,} of {len(splits[split]):,} {split} images {one if len(found) == 1 else several}"
    return Remark(kind, len(found), f"{count} {rest.format(where)}, such as {pairs[0]}", pairs)


def _related(splits: Splits, near: Mapping[str, str]) -> Iterable[Remark | None]:
    """Groups and near copies across splits; in a drawn split there are none."""
    if not near and not any(file.entry.group for files in splits.values() for file in files):
        return
    for split, others in (("test", ("train", "val")), ("val", ("train",))):
        copies = {file.digest for other in others for file in splits[other]}
        yield _shared(
            splits, split, others, f"{split}-group-in-train", _group, ("has", "have", "images of the same group in {}")
        )
        yield _shared(
            splits,
            split,
            others,
            f"{split}-looks-like-train",
            lambda file: near.get(file.digest),
            ("looks", "look", "like images of {}"),
            copies,
        )


def _group(file: File) -> str | None:
    return file.entry.group


def _copies(splits: Splits, given: Sequence[str]) -> Remark | None:
    """How many images are copies of another one, where they were kept together here."""
    files = [file for split in splits for file in splits[split]]
    copies = len(files) - len({file.digest for file in files})
    if given or not copies:
        return None
    are = "is a copy" if copies == 1 else "are copies"
    text = f"{copies:,} of {len(files):,} images {are} of another; copies stay in one split"
    return Remark("copies", copies, text)


def _near_copies(splits: Splits, given: Sequence[str], near: Mapping[str, str]) -> Remark | None:
    """How many images look like another of other bytes, where they were kept together here."""
    found = sorted(file.entry.name for files in splits.values() for file in files if file.digest in near)
    if given or not found:
        return None
    total = sum(map(len, splits.values()))
    text = f"{len(found):,} of {total:,} images are near copies, such as {found[0]}; near copies stay in one split"
    return Remark("near-copies", len(found), text, tuple(found[:EXAMPLES]))


def _two_classes(splits: Splits) -> Remark | None:
    number = Counter(file.digest for files in splits.values() for file in files)
    by_content: dict[str, dict[str, str]] = {}
    for files in splits.values():
        for file in files:
            if number[file.digest] > 1:
                by_content.setdefault(file.digest, {}).setdefault(file.entry.label, file.entry.name)
    found = sorted(" and ".join(sorted(names.values())) for names in by_content.values() if len(names) > 1)
    if not found:
        return None
    images = "1 image is" if len(found) == 1 else f"{len(found):,} images are"
    text = f"{images} in more than one class, such as {found[0]}"
    return Remark("two-classes", len(found), text, tuple(found[:EXAMPLES]))


def _classes_of_splits(splits: Splits, given: Sequence[str], classes: Sequence[str]) -> Iterable[Remark | None]:
    for split in ("val", "test"):
        if missing := _without(splits[split], classes) if splits[split] else []:
            where = f"in {split}" if split in given else f"in {split}, which was drawn from train"
            yield _class_remark(f"{split}-classes", missing, classes, where)


def _of_1k(splits: Splits, classes: Sequence[str]) -> Iterable[Remark | None]:
    """What the budget 1k uses where it is not 800 and 200, and the classes that it leaves without an image."""
    used = {split: splits[split][:rows] for split, rows in ROWS_1K.items()}
    if any(len(used[split]) < rows for split, rows in ROWS_1K.items()):
        counts = " and ".join(f"{len(used[split]):,} of {split}" for split in ROWS_1K)
        wanted = " and ".join(map(str, ROWS_1K.values()))
        total = sum(map(len, used.values()))
        yield Remark("1k-images", total, f"budget 1k uses {counts}, where it is {wanted} if there are enough")
    for split, rows in ROWS_1K.items():
        if len(splits[split]) > rows and (missing := _without(used[split], classes)):
            where = f"among the first {rows} of {split}, which budget 1k uses"
            yield _class_remark(f"1k-{split}-classes", missing, classes, where)


def _without(files: Sequence[File], classes: Sequence[str]) -> list[str]:
    present: Collection[str] = {file.entry.label for file in files}
    return [label for label in classes if label not in present]


def _class_remark(kind: str, missing: Sequence[str], classes: Sequence[str], where: str) -> Remark:
    names = ", ".join(missing[:EXAMPLES]) + (", ..." if missing[EXAMPLES:] else "")
    have = "has" if len(missing) == 1 else "have"
    text = f"{len(missing):,} of {len(classes):,} classes {have} no image {where} ({names})"
    return Remark(kind, len(missing), text, tuple(missing[:EXAMPLES]))
