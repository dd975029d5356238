"""Class folders and tables together: which of them says the classes, and whether they go together."""

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace

from vtabflow.contracts.results import Remark
from vtabflow.contracts.specs import FolderLayout
from vtabflow.errors import UserError
from vtabflow.prepare.folders.class_folders import NO_CLASS_FOLDER, Placed, Reading, left_out
from vtabflow.prepare.folders.entry import Entry
from vtabflow.prepare.folders.labels import Listed, Tables, with_folder_splits
from vtabflow.prepare.folders.names import (
    TRAINVAL,
    is_image,
    listed,
    may_be_image,
    plain_split_of,
    says_no_class,
    splits_among,
)


@dataclass(frozen=True)
class Found:
    """A layout while it is put together; the fields are those of Layout."""

    kind: str
    entries: tuple[Entry, ...]
    strays: dict[str, str]
    remarks: tuple[Remark, ...] = ()
    sources: tuple[str, ...] = ()


def from_folders(reading: Reading) -> Found:
    """The examples of class folders alone.

    Images directly in the folder of a split are strays. Those in a folder "images" of a split are a set without labels,
    as public test sets are, and a remark.
    """
    strays, remarks = dict(reading.strays), list(reading.remarks)
    for top, files in reading.unlabelled.items():
        strays |= {file.name: NO_CLASS_FOLDER for file in files if is_image(file.name) and file.parts[-2] == top}
        below = [file.name for file in files if file.parts[-2] != top]
        if below:
            remarks.append(left_out(f"the folder {top} has no class folders and is left out", below))
    return Found(reading.kind, tuple(reading.entries), strays, tuple(remarks))


def with_tables(
    tables: Tables,
    listing: Listed,
    reading: Reading | UserError,
    files: Sequence[Placed],
    settings: FolderLayout,
    where: str,
) -> Found:
    """The examples of a folder that has tables.

    Args:
        tables: those that are used.
        listing: what they list.
        reading: what class folders give, or why they give nothing.
        files: all but the tables.
        settings: what is not left to the folder itself.
        where: the folder, for messages.

    Raises:
        UserError: tables and folders that do not go together, no image of train.
    """
    if isinstance(reading, UserError):
        if not tables.have_labels:
            raise UserError(f"{reading} ({listed(tables.names)}: images without classes)") from reading
        return _from_tables(tables, listing, files, settings, where)
    if _fills_unlabelled(listing, reading):
        return _filled(tables, listing, reading, where)
    if tables.have_labels and (settings.labels or _are_no_classes(listing, reading)):
        return _from_tables(tables, listing, files, settings, where)
    by_folder = {entry.name: entry for entry in reading.entries}
    if listing.entries.keys().isdisjoint(by_folder):
        first = min(listing.entries, default="none")
        raise UserError(
            f"{where} has class folders, and {listed(tables.names)} lists other images ({first} first): say "
            f"`labels: {tables.names[0]}` in params.yaml if only those are meant, or move it out of the folder"
        )
    if tables.have_labels:
        _refuse_other_classes(tables, listing, by_folder, where)
    if any(entry.split for entry in listing.entries.values()):
        return _with_splits_of_tables(tables, listing, reading, where)
    return _with_missing(replace(from_folders(reading), sources=tuple(tables.names)), listing)


def _are_no_classes(listing: Listed, reading: Reading) -> bool:
    """Whether all listed images lie in folders such as images/ or train/, which were taken for classes."""
    labels = {entry.label for entry in reading.entries if entry.name in listing.entries}
    return not reading.splits and bool(labels) and all(says_no_class(name) or plain_split_of(name) for name in labels)


def _with_missing(found: Found, listing: Listed) -> Found:
    """Class folders with a remark on the rows of a table that says the same and more."""
    if not listing.strays:
        return found
    name, reason = min(listing.strays.items())
    text = f"{len(listing.strays):,} rows of a table are of no image: {name} {reason}"
    remark = Remark("listed-only", len(listing.strays), text, tuple(sorted(listing.strays)[:5]))
    return replace(found, remarks=(*found.remarks, remark))


# ---- class folders in some splits, tables in others


def _fills_unlabelled(listing: Listed, reading: Reading) -> bool:
    """Whether the tables are about the images of those split folders that have no class folders, and no others."""
    split_of = _splits_of_unlabelled(reading)
    return bool(reading.entries and listing.entries) and all(
        entry.label and name in split_of and entry.split in ("", split_of[name])
        for name, entry in listing.entries.items()
    )


def _filled(tables: Tables, listing: Listed, reading: Reading, where: str) -> Found:
    """Class folders, and tables for the splits without them."""
    split_of = _splits_of_unlabelled(reading)
    entries = [replace(entry, split=split_of[name]) for name, entry in listing.entries.items()]
    covered = {entry.split for entry in entries}
    classes, labels = {entry.label for entry in reading.entries}, {entry.label for entry in entries}
    if labels.isdisjoint(classes):
        raise UserError(
            f"{where}: {listed(tables.names)} and the class folders have no class in common ({listed(sorted(labels))}; "
            f"{listed(sorted(classes))}): use the same names"
        )
    reason = f"is not listed in {listed(tables.names)}"
    known = {*listing.entries, *listing.left_out}
    missing = {name: reason for name, split in split_of.items() if split in covered and name not in known}
    rest = {top: files for top, files in reading.unlabelled.items() if reading.splits[top] not in covered}
    others = from_folders(replace(reading, unlabelled=rest))
    return Found(
        f"{reading.kind}, and {listed(tables.names)}",
        (*reading.entries, *entries),
        others.strays | missing | listing.strays,
        (*others.remarks, *listing.remarks),
        tuple(tables.names),
    )


def _splits_of_unlabelled(reading: Reading) -> dict[str, str]:
    return {file.name: reading.splits[top] for top, files in reading.unlabelled.items() for file in files}


# ---- class folders and tables of the same images


def _refuse_other_classes(tables: Tables, listing: Listed, by_folder: Mapping[str, Entry], where: str) -> None:
    """UserError unless the labels of tables and folders are the same, or each is another name of the other."""
    there: dict[str, str] = {}
    back: dict[str, str] = {}
    for name in sorted(listing.entries.keys() & by_folder.keys()):
        label, folder = listing.entries[name].label, by_folder[name].label
        if there.setdefault(folder, label) != label or back.setdefault(label, folder) != folder:
            raise UserError(
                f"{where}: {name} lies in the folder {folder} and is {label} in {listed(tables.names)}, which does not "
                f"go together with other images: say `labels: {tables.names[0]}` in params.yaml if the table is right, "
                "or move it out of the folder"
            )


def _with_splits_of_tables(tables: Tables, listing: Listed, reading: Reading, where: str) -> Found:
    """Classes from folders, splits from tables; where the folders have splits too, both have to say the same."""
    split_of = {name: entry.split for name, entry in listing.entries.items() if entry.split}
    if reading.splits:
        for entry in reading.entries:
            if split_of.get(entry.name, entry.split) != entry.split:
                differ = f"{where}: {entry.name} is of {split_of[entry.name]} in {listed(tables.names)}"
                raise UserError(
                    f"{differ}, and of {entry.split} by its folder: move the image, or the table out of the folder"
                )
        return _with_missing(replace(from_folders(reading), sources=tuple(tables.names)), listing)
    entries = [replace(each, split=split_of[each.name]) for each in reading.entries if each.name in split_of]
    reason = f"is not listed in {listed(tables.names)}"
    known = {*split_of, *listing.left_out}
    names = [entry.name for entry in reading.entries if may_be_image(entry.name)]
    missing = {name: reason for name in names if name not in known}
    _check_splits(entries, tables, where)
    return Found(
        f"class folders with the splits of {listed(tables.names)}",
        tuple(entries),
        reading.strays | missing | listing.strays,
        (*reading.remarks, *listing.remarks),
        tuple(tables.names),
    )


# ---- tables alone


def _from_tables(tables: Tables, listing: Listed, files: Sequence[Placed], settings: FolderLayout, where: str) -> Found:
    entries = listing.entries
    if not any(entry.split for entry in entries.values()):
        tops = {each.file.name: each.parts[0] if len(each.parts) > 1 else "" for each in files}
        names = set(tops.values())
        given = {name: split for split, name in settings.splits.items() if name in names} or splits_among(names)
        given = {name: "train" if split == TRAINVAL else split for name, split in given.items()}
        entries = with_folder_splits(entries, tops, given, where)
    labels = [entry.label for entry in entries.values()]
    if len(labels) > 3 and len(set(labels)) == len(labels):
        raise UserError(
            f"{where}: {listed(tables.names)} gives every image a class of its own ({listed(sorted(labels))}): call "
            "the column of classes label"
        )
    _check_splits(list(entries.values()), tables, where)
    strays, remarks = _not_listed({*entries, *listing.left_out}, files, tables)
    strays = {name: why for name, why in (strays | listing.strays).items() if name not in entries}
    kind = listed(tables.names)
    return Found(kind, tuple(entries.values()), strays, (*listing.remarks, *remarks), tuple(tables.names))


def _check_splits(entries: Sequence[Entry], tables: Tables, where: str) -> None:
    names = listed(tables.names)
    splits = {entry.split for entry in entries}
    if not entries:
        raise UserError(f"{where}: {names} gives no image a class: fill in its labels and splits")
    if splits != {""} and "train" not in splits:
        raise UserError(f"{where}: {names} lists no image of train: add a list of train, or a column split with train")
    if "" in splits and len(splits) > 1:
        first = min(entry.name for entry in entries if not entry.split)
        raise UserError(f"{where}: some images of {names} have a split and others none ({first} first): fill it in")


def _not_listed(known: Container[str], files: Sequence[Placed], tables: Tables) -> tuple[dict[str, str], list[Remark]]:
    """Images that no table lists: strays, or whole folders that no table has an image of, as remarks."""
    used = {each.parts[:depth] for each in files if each.file.name in known for depth in range(len(each.parts))}
    strays: dict[str, str] = {}
    folders: dict[tuple[str, ...], list[str]] = {}
    for each in files:
        name = each.file.name
        if name in known or not is_image(name):
            continue
        depths = (depth for depth in range(len(each.parts)) if each.parts[:depth] not in used)
        depth = next(depths, None)
        if depth is None:
            strays[name] = f"is not listed in {listed(tables.names)}"
        else:
            above = len(each.file.parts) - len(each.parts)
            folders.setdefault(each.file.parts[: above + depth], []).append(name)
    verb = "lists" if len(tables.names) == 1 else "list"
    text = f"is left out, since {listed(tables.names)} {verb} none of it"
    remarks = [left_out(f"the folder {'/'.join(folder)} {text}", names) for folder, names in sorted(folders.items())]
    return strays, remarks
