"""Which images of a folder are in train, val and test, in which order, and what a reader has to know of them.

Splits that the folder has are kept. A missing one is drawn from train with a seed: for a task class by class (60/20/20
unless the spec says otherwise), for an upstream dataset 5% of all images for val and no test. Images of equal bytes, of
one group, and near copies where they are known, stay in one split of a draw.

The draw and the order of the examples sort digests of (seed, the file's bytes). They depend on no file name and, within
an existing split, on no class, so the first 800 examples of train are a random sample, and a relabelled image moves no
other. Planning imports this module, so it imports nothing heavy.
"""

import hashlib
from collections import Counter
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial

from vtabflow.contracts.results import Remark
from vtabflow.contracts.specs import FolderSettings, SplitFractions
from vtabflow.errors import UserError
from vtabflow.prepare.folders.entry import File, Layout
from vtabflow.prepare.folders.split_remarks import refuse_shared, remarks_of

SPLITS = ("train", "val", "test")
PLAIN = "class folders"  # the layout that is not mentioned
UPSTREAM_VAL = Fraction(1, 20)
SMALL = "small-classes"  # a kind of remark
SEEDED = ", seeded"
NO_COPIES: Mapping[str, str] = {}


@dataclass(frozen=True)
class Division:
    """The images of a folder by split.

    Attributes:
        files: train, val, test -> images in the order of the store.
        classes: the names of the classes, sorted.
        line: what was understood, to be read after the name of the dataset.
        remarks: what a reader has to know. The kinds that start with "1k" are about the budget of that name.
        left_out: name -> reason of the images that are in no split.
    """

    files: dict[str, list[File]]
    classes: tuple[str, ...]
    line: str
    remarks: tuple[Remark, ...]
    left_out: dict[str, str] = field(default_factory=dict)


def divide(
    layout: Layout, files: Sequence[File], settings: FolderSettings, near: Mapping[str, str] | None = None
) -> Division:
    """The splits of the readable images of a folder, and what is to be said of them.

    Args:
        layout: how the folder was understood.
        files: its examples with a readable header.
        settings: those of the StoreSpec.
        near: digest -> cluster of images that look the same; images that look like no other are not in it. None:
            nobody has looked.

    Raises:
        UserError: a class with too few images, splits that cannot be drawn, mostly training images in test.
    """
    path, role = settings.path, settings.role
    small = small_classes(layout, files, settings.layout.min_per_class)
    classes = tuple(label for label in layout.classes if label not in small)
    reason = f"is of a class with fewer than {settings.layout.min_per_class} images in train"
    left_out = {file.entry.name: reason for file in files if file.entry.label in small}
    files = [file for file in files if file.entry.label not in small]
    check_classes(path, layout, classes, files, role)
    splits = split_files(files, role, settings.split, near or NO_COPIES, path)
    return _division(splits, layout, classes, settings, near, left_out, _of_small(small))


def without(
    division: Division,
    broken: Container[str],
    layout: Layout,
    settings: FolderSettings,
    near: Mapping[str, str] | None = None,
) -> Division:
    """A division less the images called `broken`, which could not be decoded; no other image moves.

    Raises:
        UserError: as in `divide`.
    """
    splits = {
        split: [file for file in files if file.entry.name not in broken] for split, files in division.files.items()
    }
    if splits == division.files:
        return division
    left = [file for files in splits.values() for file in files]
    check_classes(settings.path, layout, division.classes, left, settings.role)
    split_files(
        left, settings.role, settings.split, near or NO_COPIES, settings.path
    )  # there must be enough to draw from
    small = [remark for remark in division.remarks if remark.kind == SMALL]
    return _division(splits, layout, division.classes, settings, near, division.left_out, small)


def _division(
    splits: dict[str, list[File]],
    layout: Layout,
    classes: tuple[str, ...],
    settings: FolderSettings,
    near: Mapping[str, str] | None,
    left_out: dict[str, str],
    small: Sequence[Remark],
) -> Division:
    given = [split for split in layout.splits if split]
    if settings.role == "task":
        refuse_shared(settings.path, splits)
    remarks = [*layout.remarks, *small, *remarks_of(splits, given, classes, settings.role, near or NO_COPIES)]
    line = line_of(splits, layout.kind, given, classes)
    if settings.decoding.near_copies and near is None and line.endswith(SEEDED):
        line += ", before near copies are joined"
    return Division(splits, classes, line, tuple(remarks), left_out)


def line_of(splits: Mapping[str, Sequence[File]], kind: str, given: Sequence[str], classes: Sequence[str]) -> str:
    """One line: "12 classes, 3,400 images; train 2,040, val 680, test 680, split here, seeded".

    The layout follows the number of images where it is not plain class folders: "3,400 images (labels.csv)".
    """
    total = sum(map(len, splits.values()))
    parts = ", ".join(f"{split} {len(splits[split]):,}" for split in SPLITS if splits[split])
    drawn = [split for split in SPLITS[1:] if splits[split] and split not in given]
    how = "as given"
    if drawn:
        how = (f"{' and '.join(drawn)} drawn from train" if given else "split here") + SEEDED
    number = f"{len(classes):,} class{'' if len(classes) == 1 else 'es'}"
    layout = "" if kind == PLAIN else f" ({kind})"
    return f"{number}, {total:,} images{layout}; {parts}, {how}"


# ---- classes


def small_classes(layout: Layout, files: Sequence[File], minimum: int | None) -> list[str]:
    """Classes with fewer than `minimum` different images in train, or in all if the splits are still to be drawn."""
    if minimum is None:
        return []
    known: dict[str, set[str]] = {label: set() for label in layout.classes}
    for file in files:
        if file.entry.split in ("", "train"):
            known[file.entry.label].add(file.digest)
    return [label for label in layout.classes if len(known[label]) < minimum]


def _of_small(small: Sequence[str]) -> list[Remark]:
    if not small:
        return []
    names = ", ".join(small[:5]) + (", ..." if small[5:] else "")
    text = f"{len(small)} {'class is' if len(small) == 1 else 'classes are'} left out for too few images ({names})"
    return [Remark(SMALL, len(small), text, tuple(small[:5]))]


def check_classes(path: str, layout: Layout, classes: Sequence[str], files: Sequence[File], role: str) -> None:
    """UserError unless there are two classes (of a task), and every split and class of the folder has images.

    Args:
        path: the folder.
        layout: how it was understood.
        classes: the classes that are used.
        files: their images with a readable header.
        role: "task" or "upstream".
    """
    if role == "task" and len(classes) < 2:
        one = f"one class, {classes[0]}" if classes else "no class"
        raise UserError(f"{path} has {one}: a task needs images of at least two classes")
    for split in layout.splits:
        if split and not any(file.entry.split == split for file in files):
            raise UserError(
                f"{path}: {split} has no readable image: fix its files, or remove {split} to have it drawn from train"
            )
    in_train = Counter(file.entry.label for file in files if file.entry.split in ("", "train"))
    listed: dict[str, Counter[str]] = {}
    for entry in layout.entries:
        listed.setdefault(entry.label, Counter())[entry.split or "train"] += 1
    for label in classes:
        if not listed[label]["train"]:
            split, count = listed[label].most_common(1)[0]
            where = f"{count} files in {split} and none in train"
            raise UserError(f"{path}: class {label} has {where}: add images of it to train, or remove it from {split}")
        if not in_train[label]:
            raise UserError(f"{path}: class {label} has 0 readable images in train: fix its files or remove the class")


# ---- the draw


@dataclass(frozen=True)
class _Block:
    """Images of train that stay in one split.

    Attributes:
        files: the images.
        counts: class -> number of images; of an upstream set all are of the class "".
        pinned: they have to stay in train, since a split of the folder has others of the block.
    """

    files: list[File]
    counts: dict[str, int]
    pinned: bool


def split_files(
    files: Sequence[File], role: str, split: SplitFractions, near: Mapping[str, str] = NO_COPIES, path: str = "folder"
) -> dict[str, list[File]]:
    """The images of train, val and test, each in the order of the store. Arguments as in `divide`.

    Raises:
        UserError: a class whose images cannot be divided, since too many of them stay together; names `path`.
    """
    splits: dict[str, list[File]] = {name: [] for name in SPLITS}
    for file in files:
        splits[file.entry.split or "train"].append(file)
    missing = [name for name in SPLITS[1:] if not splits[name] and (role == "task" or name == "val")]
    if missing:
        train = splits["train"]
        blocks = _blocks(files, near, role)
        if role == "task":
            part = dict(zip(SPLITS, (Fraction(str(value)) for value in split.fractions), strict=True))
            number = Counter(file.entry.label for file in train)
            _check_blocks(path, blocks, number, missing)
            targets = {label: _targets(count, missing, part) for label, count in number.items()}
        else:
            val = min(len(train) - 1, max(1, _rounded(UPSTREAM_VAL * len(train))))
            targets = {"": {"train": len(train) - val, "val": val}}
        splits |= _drawn(path, blocks, targets, split.seed)
    return {
        name: sorted(members, key=lambda file: _rank("order", split.seed, file)) for name, members in splits.items()
    }


def _blocks(files: Sequence[File], near: Mapping[str, str], role: str) -> list[_Block]:
    """The images of train in blocks: connected by equal bytes, equal groups and near copies."""
    if not near and all(file.entry.group is None for file in files):
        by_content: dict[str, list[File]] = {}
        for file in files:
            by_content.setdefault(file.digest, []).append(file)
        return [block for members in by_content.values() if (block := _block(members, role))]
    parent: dict[tuple[str, str], tuple[str, str]] = {}

    def root(key: tuple[str, str]) -> tuple[str, str]:
        while (above := parent.setdefault(key, key)) != key:
            parent[key] = parent[above]
            key = above
        return key

    for file in files:
        start = ("content", file.digest)
        if file.entry.group is not None:
            parent[root(("group", file.entry.group))] = root(start)
        if file.digest in near:
            parent[root(("near", near[file.digest]))] = root(start)
    together: dict[tuple[str, str], list[File]] = {}
    for file in files:
        together.setdefault(root(("content", file.digest)), []).append(file)
    return [block for members in together.values() if (block := _block(members, role))]


def _block(members: list[File], role: str) -> _Block | None:
    """The images of train among what stays together, or None."""
    inside = [file for file in members if file.entry.split in ("", "train")]
    if role == "upstream":
        counts = {"": len(inside)}
    elif len(inside) == 1:
        counts = {inside[0].entry.label: 1}
    else:
        counts = dict(sorted(Counter(file.entry.label for file in inside).items()))
    return _Block(inside, counts, len(inside) < len(members)) if inside else None


def _check_blocks(path: str, blocks: Sequence[_Block], number: Mapping[str, int], missing: Sequence[str]) -> None:
    """UserError if a class cannot be in train, val and test: its images are too few, or too many stay together."""
    if len(missing) < 2:
        return
    apart = Counter(label for block in blocks for label in block.counts)
    for label in sorted(number):
        if apart[label] >= 3:
            continue
        if number[label] < 3:
            few, remedy = f"too few readable images ({number[label]})", "add some until there are 3"
        elif any(file.entry.group for block in blocks if label in block.counts for file in block.files):
            few = f"{number[label]} images in {apart[label]} group{'s'[: apart[label] - 1]} that stay together"
            remedy = "add groups until there are 3"
        else:
            few = f"too few different images ({apart[label]} in {number[label]} files)"
            remedy = "add some until there are 3"
        raise UserError(
            f"{path}: class {label} has {few}: {remedy} (train, val and test), give val and test yourself, or remove "
            "the class"
        )


def _targets(count: int, missing: Sequence[str], part: Mapping[str, Fraction]) -> dict[str, int]:
    """How many of `count` images of a class belong into train and into the `missing` splits, by the fractions `part`.

    At least one of each, unless that leaves train with none: a tested class has to be trained on.
    """
    total = part["train"] + sum(part[split] for split in missing)
    counts = {split: max(1, _rounded(part[split] / total * count)) for split in missing}
    while sum(counts.values()) >= count:
        counts[max(counts, key=lambda split: counts[split])] -= 1
    return {"train": count - sum(counts.values()), **counts}


def _drawn(
    path: str, blocks: Sequence[_Block], targets: Mapping[str, Mapping[str, int]], seed: int
) -> dict[str, list[File]]:
    """Whole blocks, put where they bring each class nearest to its `targets`, from the largest to the smallest.

    Where all images are different every class gets exactly its targets. The greedy choice is that of scikit-learn's
    StratifiedGroupKFold, with the sum of (missing images)^2 / target as what becomes smallest, so that each split gets
    its share of the large blocks. Blocks of one size come in the order of their seeded digests.

    Args:
        path: the folder, for the error.
        blocks: what stays together.
        targets: class -> split -> number of images.
        seed: of the draw.
    """
    names = list(next(iter(targets.values())))
    left = Counter(label for block in blocks for label in block.counts)
    missing = {label: dict(counts) for label, counts in targets.items()}
    empty = {label: [split for split in names if counts[split]] for label, counts in targets.items()}
    splits: dict[str, list[File]] = {split: [] for split in names}

    def cost(block: _Block, split: str) -> float:
        """How the sum changes if the block goes to `split`."""
        return sum(
            count * (count - 2 * missing[label][split]) / max(1, targets[label][split])
            for label, count in block.counts.items()
        )

    for block in sorted(blocks, key=lambda block: (not block.pinned, -len(block.files), _block_rank(seed, block))):
        allowed = ["train"] if block.pinned else names
        for label in block.counts:
            if left[label] <= len(empty[label]):  # as many blocks as splits without this class, which train gets first
                wanted = empty[label][: left[label]]
                allowed = [split for split in allowed if split in wanted] or allowed
        best = allowed[0] if len(allowed) == 1 else min(allowed, key=partial(cost, block))
        splits[best] += block.files
        for label, count in block.counts.items():
            left[label] -= 1
            missing[label][best] -= count
            if best in empty[label]:
                empty[label].remove(best)
    _check_drawn(path, empty, names)
    return splits


def _check_drawn(path: str, empty: Mapping[str, Sequence[str]], names: Sequence[str]) -> None:
    """UserError if a class has no image in train, or in a split although all three are drawn."""
    for label, without in sorted(empty.items()):
        if without and (len(names) == 3 or label == "" or "train" in without):
            which = f"class {label} leaves" if label else "the folder leaves"
            raise UserError(
                f"{path}: {which} no image for {without[0]}, since too many of its images stay together (copies, "
                "near copies, groups): make smaller groups, add images, or give the splits yourself"
            )


def _rank(word: str, seed: int, file: File) -> tuple[str, str, str]:
    """The position of a file in a seeded draw. The class and name only order files of equal bytes."""
    return _digest(word, seed, file.digest), file.entry.label, file.entry.name


def _block_rank(seed: int, block: _Block) -> str:
    return _digest("split", seed, "/".join(sorted({file.digest for file in block.files})))


def _digest(word: str, seed: int, content: str) -> str:
    return hashlib.sha256(f"{word}/{seed}/{content}".encode()).hexdigest()


def _rounded(value: Fraction) -> int:
    return int(value + Fraction(1, 2))
