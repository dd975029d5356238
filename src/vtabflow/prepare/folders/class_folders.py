"""Folders of classes, below train, val and test or not: which is which, from names and from where the images lie.

Names alone do not tell: "train" and "test" may be classes. What speaks for splits is that folders with such names hold
class folders, the same ones; what speaks against it is that images lie directly in them.
"""

import json
import re
from collections import Counter
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field

from vtabflow.contracts.results import Remark
from vtabflow.contracts.specs import FolderLayout
from vtabflow.errors import UserError, nearest
from vtabflow.prepare.folders.entry import Entry, ListedFile
from vtabflow.prepare.folders.names import (
    IMAGES,
    MASKS,
    SPLITS,
    TRAINVAL,
    in_order,
    is_image,
    listed,
    may_be_image,
    plain_split_of,
    says_no_class,
    splits_among,
)

NO_CLASS_FOLDER = "lies in no class folder"


@dataclass(frozen=True)
class Placed:
    """A file, and its path below what the layout calls the top (without the folder around everything)."""

    parts: tuple[str, ...]
    file: ListedFile


@dataclass
class Reading:
    """What class folders give.

    Attributes:
        kind: as in Layout.
        entries, strays, remarks: as in Layout.
        unlabelled: folder of a split -> its images that lie in no class folder.
        splits: the top folders that are splits -> their split.
    """

    kind: str = "class folders"
    entries: list[Entry] = field(default_factory=list)
    strays: dict[str, str] = field(default_factory=dict)
    remarks: list[Remark] = field(default_factory=list)
    unlabelled: dict[str, list[ListedFile]] = field(default_factory=dict)
    splits: dict[str, str] = field(default_factory=dict)


@dataclass
class Top:
    """A folder at the top: how many images lie directly in it, and how many below each of its folders."""

    flat: int = 0
    folders: Counter[str] = field(default_factory=Counter)

    @property
    def images(self) -> int:
        """All images below it."""
        return self.flat + self.folders.total()

    @property
    def classes(self) -> set[str]:
        """The folders in it that can be classes: not where all of them are called images, masks and the like."""
        names = set(self.folders)
        return set() if all(name.casefold() in IMAGES | MASKS for name in names) else names


def tops_of(files: Sequence[Placed]) -> dict[str, Top]:
    """The folders at the top that hold what may be an image."""
    tops: dict[str, Top] = {}
    for placed in files:
        parts = placed.parts
        if len(parts) > 1 and may_be_image(parts[-1]):
            top = tops.get(parts[0])
            if top is None:
                top = tops[parts[0]] = Top()
            if len(parts) == 2:
                top.flat += 1
            else:
                top.folders[parts[1]] += 1
    return tops


def read_class_folders(
    files: Sequence[Placed], empty: Sequence[tuple[str, ...]], settings: FolderLayout, where: str
) -> Reading:
    """The examples of class folders.

    Args:
        files: below the folder around everything.
        empty: folders without a file, below the same.
        settings: may name the splits.
        where: the folder, for messages.

    Raises:
        UserError: no classes, no images in train, or names that can be meant in two ways.
    """
    tops = tops_of(files)
    if not tops:
        raise _no_class_folders(where, [placed.file for placed in files if is_image(placed.parts[-1])])
    splits = _named_splits(tops, settings, where) if settings.splits else _splits(tops, where)
    if not splits:
        return _classes(files, tops, empty, where)
    return _splits_of_classes(files, tops, splits, empty, where)


# ---- are the top folders splits?


def _named_splits(tops: Mapping[str, Top], settings: FolderLayout, where: str) -> dict[str, str]:
    for name in settings.splits.values():
        if name not in tops:
            raise UserError(
                f"{where}: split names the folder {name}, and there is none with images{nearest(name, tops)}: "
                f"there are {listed(sorted(tops), 6)}"
            )
    return {name: split for split, name in settings.splits.items()}


def _splits(tops: Mapping[str, Top], where: str) -> dict[str, str]:
    """Top folder -> split; empty: the top folders are classes."""
    given = splits_among(tops)
    others = [name for name in sorted(tops) if name not in given]
    trains = [name for name in given if given[name] in ("train", TRAINVAL)]
    if not trains:
        if given and not others:
            raise UserError(
                f"{where} has {listed(sorted(given))} but no train folder: add train/<class>/<image>, or name the "
                "folder of train in params.yaml with `split`"
            )
        _refuse_shared(tops, where)
        return {}
    if len(given) == 1 and others and not tops[trains[0]].classes:
        _refuse_shared(tops, where)
        return {}  # bus, car, train
    _refuse_others(tops, given, others, where)
    return _one_of_each(given, where)


def _refuse_others(tops: Mapping[str, Top], given: Mapping[str, str], others: Sequence[str], where: str) -> None:
    """UserError if a folder beside those of splits may have examples, or be a class as they may be."""
    unknown = [name for name in others if not says_no_class(name)]
    if unknown:
        mixed = f"{where} has {listed(sorted(given))} folders and also {listed(unknown)}"
        example = _as_yaml({split: name for name, split in in_pairs(given)})
        raise UserError(
            f"{mixed}: keep either splits or classes at the top, or say which folders are splits in params.yaml with "
            f"`split: {example}` and leave the rest out"
        )


def in_pairs(given: Mapping[str, str]) -> list[tuple[str, str]]:
    """(folder, split) for an example of YAML: one folder for each split."""
    first: dict[str, str] = {}
    for name in sorted(given):
        first.setdefault("train" if given[name] == TRAINVAL else given[name], name)
    return [(first[split], split) for split in in_order(first)]


def _one_of_each(given: Mapping[str, str], where: str) -> dict[str, str]:
    """Top folder -> train, val or test. train800val200 is left out where train800 and val200 are there."""
    found = dict(given)
    both = {"train", "val"} <= set(found.values())
    for name in [name for name in found if found[name] == TRAINVAL]:
        if both:
            del found[name]
        else:
            found[name] = "train"
    for split in set(found.values()):
        names = sorted(name for name in found if found[name] == split)
        if len(names) > 1:
            raise UserError(
                f"{where}: the folders {listed(names)} can all be {split}: rename or merge them, or say which is meant "
                f"in params.yaml with `split: {_as_yaml({s: n for n, s in in_pairs(found)})}`"
            )
    return found


def _refuse_shared(tops: Mapping[str, Top], where: str) -> None:
    """UserError if top folders with unknown names hold the same class folders, as splits do."""
    nested = sorted((name for name in tops if tops[name].classes), key=lambda name: (-tops[name].images, name))
    for index, one in enumerate(nested):
        alike = [two for two in nested[index + 1 :] if _are_alike(tops[one].classes, tops[two].classes)]
        if alike:
            names = [one, *alike]
            example = _as_yaml(dict(zip(("train", "test", "val"), names, strict=False)))
            shared = listed(sorted(tops[one].classes & tops[alike[0]].classes))
            raise UserError(
                f"{where}: {listed(sorted(names))} hold the same folders ({shared}), so they look like splits: rename "
                f"them train and test, or say which is which in params.yaml with `split: {example}`; if they are the "
                "classes, put their images directly into them"
            )


def _are_alike(one: set[str], two: set[str]) -> bool:
    shared = len(one & two)
    return shared >= 2 and shared >= 0.8 * min(len(one), len(two))


def _as_yaml(names: Mapping[str, str]) -> str:
    """A mapping to paste into YAML."""
    plain = re.compile(r"[A-Za-z_][\w-]*")
    quoted = {
        key: name if plain.fullmatch(name) else json.dumps(name, ensure_ascii=False) for key, name in names.items()
    }
    return "{" + ", ".join(f"{key}: {name}" for key, name in quoted.items()) + "}"


# ---- the examples


def _classes(files: Sequence[Placed], tops: Mapping[str, Top], empty: Sequence[tuple[str, ...]], where: str) -> Reading:
    if all(name.casefold() in IMAGES | MASKS for name in tops):
        raise _no_class_folders(where, [placed.file for placed in files if is_image(placed.parts[-1])])
    found = Reading()
    _place(found, files, "", 0, tops)
    _say_empty(found, files, empty, 0)
    return found


def _splits_of_classes(
    files: Sequence[Placed],
    tops: Mapping[str, Top],
    splits: dict[str, str],
    empty: Sequence[tuple[str, ...]],
    where: str,
) -> Reading:
    splits = dict(sorted(splits.items(), key=lambda item: SPLITS.index(item[1])))
    found = Reading(splits=splits)
    by_top: dict[str, list[Placed]] = {}
    for placed in files:
        if len(placed.parts) > 1:
            by_top.setdefault(placed.parts[0], []).append(placed)
        elif is_image(placed.parts[0]):
            found.strays[placed.file.name] = NO_CLASS_FOLDER
    for name in splits:
        depth, inner = _depth_of_classes(name, by_top[name])
        if inner.classes:
            _place(found, by_top[name], splits[name], depth, inner.folders)
            _say_empty(found, by_top[name], [parts for parts in empty if parts[0] == name], depth)
        else:
            found.unlabelled[name] = [each.file for each in by_top[name] if may_be_image(each.parts[-1])]
    found.kind = f"class folders in {listed(name for name in splits if name not in found.unlabelled)}"
    _check_train(found, splits, where)
    for name in sorted(set(tops) - set(splits)):
        left = [each.file.name for each in by_top[name] if may_be_image(each.parts[-1])]
        reason = "train and val are there" if plain_split_of(name) == TRAINVAL else "it is no split"
        found.remarks.append(left_out(f"the folder {name} is left out, since {reason}", left))
    _say_empty(found, [], [parts for parts in empty if len(parts) == 1], 0)
    return found


def _depth_of_classes(name: str, files: Sequence[Placed]) -> tuple[int, Top]:
    """At which part of their names the classes of a split are: 1, or 2 as in seg_train/seg_train/<class>."""
    (top,) = tops_of(files).values()
    if not top.flat and len(top.folders) == 1:
        (inner,) = top.folders
        repeats = inner == name or plain_split_of(inner) == plain_split_of(name) is not None
        if repeats or inner.casefold() in IMAGES:
            below = [Placed(each.parts[1:], each.file) for each in files if len(each.parts) > 2]
            return 2, tops_of(below)[inner]
    return 1, top


def _place(found: Reading, files: Sequence[Placed], split: str, depth: int, classes: Container[str]) -> None:
    """Add the examples of one split, whose class is the part of their names at `depth`.

    A file in a class folder is an example whatever it is called, and refused or skipped later if it is no image. But
    where the images of a class have a folder of their own, text beside that folder only describes them.
    """
    inside = [each for each in files if len(each.parts) > depth + 1 and each.parts[depth] in classes]
    direct = {each.parts[depth] for each in inside if len(each.parts) == depth + 2 and may_be_image(each.parts[-1])}
    kept = set()
    for each in inside:
        label = each.parts[depth]
        if label in direct or len(each.parts) > depth + 2 or may_be_image(each.parts[-1]):
            found.entries.append(Entry(split, label, each.file))
            kept.add(each.file.name)
    for each in files:
        if each.file.name not in kept and is_image(each.parts[-1]):
            found.strays[each.file.name] = NO_CLASS_FOLDER


def _check_train(found: Reading, splits: Mapping[str, str], where: str) -> None:
    """UserError if train has no classes, or others with which it cannot go together."""
    train = next(name for name, split in splits.items() if split == "train")
    classes: dict[str, set[str]] = {split: set() for split in splits.values()}
    for entry in found.entries:
        classes[entry.split].add(entry.label)
    if not found.entries:
        raise _no_class_folders(where, [file for files in found.unlabelled.values() for file in files])
    if not classes["train"]:
        raise UserError(f"{where}: {train} has no class folders: arrange its images as {train}/<class>/<image>")
    by_case = {label.casefold(): label for label in classes["train"]}
    for name, split in splits.items():
        for label in sorted(classes[split] - classes["train"]):
            if other := by_case.get(label.casefold()):
                raise UserError(f"{where}: a class is {other} in {train} and {label} in {name}: give it one name")
        if classes[split] and not classes[split] & classes["train"]:
            raise UserError(
                f"{where}: {train} and {name} have no class in common ({listed(sorted(classes['train']))}; "
                f"{listed(sorted(classes[split]))}): rename the classes, or the two folders if these are the classes"
            )


def _say_empty(found: Reading, files: Sequence[Placed], empty: Sequence[tuple[str, ...]], depth: int) -> None:
    """Remarks on folders at `depth` without a file, and without an image."""
    names = ["/".join(parts) for parts in empty if len(parts) == depth + 1]
    if names:
        found.remarks.append(Remark("empty-folder", len(names), f"{_folders(names)} empty", tuple(names[:5])))
    images, folders = set(), set()
    for each in files:
        if len(each.parts) > depth + 1:
            folders.add(each.parts[: depth + 1])
            if may_be_image(each.parts[-1]):
                images.add(each.parts[: depth + 1])
    names = sorted("/".join(parts) for parts in folders - images)
    if names:
        found.remarks.append(Remark("no-images", len(names), f"{_folders(names)} without images", tuple(names[:5])))


def _folders(names: Sequence[str]) -> str:
    return f"the folder {names[0]} is" if len(names) == 1 else f"the folders {listed(names)} are"


def left_out(text: str, names: Sequence[str]) -> Remark:
    """A remark about images that are no examples, or about files that may be images by their names, if no others."""
    images = sorted(filter(is_image, names))
    kind, what, names = ("left-out", "image", images) if images else ("left-out-files", "file", sorted(names))
    count = f"{len(names):,} {what}{'' if len(names) == 1 else 's'}"
    return Remark(kind, len(names), f"{text} ({count})", tuple(names[:5]))


def _no_class_folders(where: str, outside: Sequence[ListedFile]) -> UserError:
    first = min((file.name for file in outside), default="")
    lost = f" ({len(outside)} lie in no class folder, {first} first)" if outside else ""
    return UserError(
        f"{where} has no images in class folders{lost}: arrange them as <class>/<image>, or add a table labels.csv "
        "with the columns file and label"
    )
