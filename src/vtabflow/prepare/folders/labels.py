"""Classes from tables: a table of all images, or one for each split (train800.txt, val200.txt, test.txt).

`labels` of params.yaml names the tables. Where it does not, tables are looked for at the top and one folder below. The
text of a label is the name of its class, and classes are sorted as text ("10" before "2"), as class folders are: the
place of a class in that order is only its number in the store.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from vtabflow.contracts.results import Remark
from vtabflow.contracts.specs import FolderLayout
from vtabflow.errors import UserError, nearest
from vtabflow.prepare.folders.class_folders import Placed, left_out
from vtabflow.prepare.folders.entry import Entry, ListedFile
from vtabflow.prepare.folders.names import SPLITS, TRAINVAL, listed, plain_split_of, says_no_class
from vtabflow.prepare.folders.paths import AmbiguousPath, Paths
from vtabflow.prepare.folders.tables import SUFFIXES, NoTable, Row, Table, UnclearTable, parse
from vtabflow.prepare.folders.tree import Tree

MOST_IN_FOLDER = 20  # tables; more are notes beside each image
MOST = 64  # files that are opened to look for tables
Choice = tuple[Table, str | None]  # a table, and the split that all of it is


@dataclass
class Tables:
    """The tables of a folder that are used.

    Attributes:
        tables: (table, split that all of it is, or None).
        notes: why a file that looks like a table is none: name -> reason.
        remarks: on tables that are not used.
    """

    tables: list[Choice] = field(default_factory=list)
    notes: dict[str, str] = field(default_factory=dict)
    remarks: list[Remark] = field(default_factory=list)

    @property
    def names(self) -> list[str]:
        """Of the files."""
        return [table.name for table, _ in self.tables]

    @property
    def have_labels(self) -> bool:
        """Whether they say classes, and not only splits."""
        return any(table.has_labels for table, _ in self.tables)


@dataclass
class Listed:
    """The images that tables list.

    Attributes:
        entries: by the name of the file; label "" where the tables have no labels.
        strays: as in Layout.
        left_out: images whose rows are of another split, of which a remark tells.
        remarks: on rows that are left out.
    """

    entries: dict[str, Entry] = field(default_factory=dict)
    strays: dict[str, str] = field(default_factory=dict)
    left_out: set[str] = field(default_factory=set)
    remarks: list[Remark] = field(default_factory=list)


# ---- which tables


def find_tables(tree: Tree, files: Sequence[Placed], paths: Paths, settings: FolderLayout, where: str) -> Tables:
    """The tables that params.yaml names, or those that are found.

    Raises:
        UserError: a table that is not there or lists no images, or several that say classes.
    """
    if settings.labels:
        return _named_tables(tree, files, paths, settings, where)
    found = Tables()
    every, unused = _candidate_tables(tree, files, paths, settings, found.notes, where)
    with_labels = [each for each in every if each[0].has_labels]
    choices = _choices(with_labels or every)
    if len(choices) > 1 and with_labels:
        names = sorted(table.name for choice in choices for table, _ in choice)
        longest = max(choices, key=lambda choice: sum(len(table.rows) for table, _ in choice))
        example = ", ".join(table.name for table, _ in longest)
        raise UserError(
            f"{where}: {listed(names, 6)} list images and classes: say which is meant in params.yaml, such as "
            f"`labels: [{example}]`"
        )
    if len(choices) == 1:
        found.tables = _one_of_each(choices[0], found, where, bool(with_labels))
    used = {*found.names, *(name for remark in found.remarks for name in remark.examples)}
    unused += [table.name for table, _ in every if table.name not in used]
    if unused:
        found.remarks.append(unused_list(unused, "lists images but is not used", "list images but are not used"))
    return found


def _candidate_tables(
    tree: Tree, files: Sequence[Placed], paths: Paths, settings: FolderLayout, notes: dict[str, str], where: str
) -> tuple[list[Choice], list[str]]:
    """The tables that are found, and the names of those that list images and cannot be used; `notes` gets reasons."""
    every: list[Choice] = []
    unclear: list[str] = []
    for placed in _candidates(files):
        name = placed.file.name
        try:
            table = _read_candidate(tree, placed, paths, where)
        except UnclearTable as reason:
            unclear.append(name)
            notes[name] = str(reason)
        except NoTable as reason:
            if not name.lower().endswith((".txt", ".lst")):  # which may say anything
                notes[name] = str(reason)
        else:
            # A list of groups without headers looks like one of labels.
            if name != settings.groups or (table.columns and table.has_labels):
                every.append((table, _split_of_table(placed)))
            if table.columns and not (table.has_labels or table.has_splits):
                notes[name] = f"has no column of classes: call one label (it has {listed(table.columns, 6)})"
    return every, unclear


def _choices(tables: Sequence[Choice]) -> list[list[Choice]]:
    """What can be meant: each table that is whole by itself, or all those of single splits together."""
    parts: list[Choice] = [(table, split) for table, split in tables if split is not None and not table.has_splits]
    whole = [table for table, split in tables if table.has_splits or (table.has_labels and split is None)]
    choices: list[list[Choice]] = [[(table, None)] for table in whole]
    return choices + ([parts] if parts else [])


def unused_list(names: Sequence[str], one: str, several: str) -> Remark:
    """A remark on tables that are not used."""
    return Remark("unused-list", len(names), f"{listed(names)} {one if len(names) == 1 else several}", tuple(names[:5]))


def _named_tables(tree: Tree, files: Sequence[Placed], paths: Paths, settings: FolderLayout, where: str) -> Tables:
    found = Tables()
    for name in settings.labels:
        placed = named_file(files, name, "labels", where)
        try:
            table = read_table(tree, placed.file, paths, where)
        except NoTable as reason:
            raise UserError(f"{where}: {name}, which labels names, {reason}") from reason
        found.tables.append((table, None if table.has_splits else _split_of_table(placed)))
    found.tables = _one_of_each(found.tables, found, where, True)
    return found


def named_file(files: Sequence[Placed], name: str, setting: str, where: str) -> Placed:
    """The file that a setting names.

    Raises:
        UserError: it is not there.
    """
    wanted = "/".join(part for part in name.replace("\\", "/").split("/") if part not in ("", "."))
    for each in files:
        if wanted in (each.file.name, "/".join(each.parts)):
            return each
    known = [each.file.name for each in files if each.file.name.lower().endswith(SUFFIXES)][:1000]
    raise UserError(f"{where}: there is no file {name}, which {setting} names{nearest(wanted, known)}")


def _candidates(files: Sequence[Placed]) -> list[Placed]:
    """Files near the top that can be tables, those at the top first."""
    near = [each for each in files if len(each.parts) <= 2 and each.parts[-1].lower().endswith(SUFFIXES)]
    near = [each for each in near if "submission" not in each.parts[-1].lower() and not each.file.problem]
    counts = Counter(each.parts[:-1] for each in near)
    near = [each for each in near if counts[each.parts[:-1]] <= MOST_IN_FOLDER]
    return sorted(near, key=lambda each: (len(each.parts), each.parts))[:MOST]


def _read_candidate(tree: Tree, placed: Placed, paths: Paths, where: str) -> Table:
    """A table that nobody named; a list that numbers the images does not say their classes."""
    table = read_table(tree, placed.file, paths, where)
    labels = [row.label for row in table.rows if row.label]
    if len(labels) > 3 and len(set(labels)) == len(labels):
        raise UnclearTable(f"gives every image a class of its own ({listed(sorted(labels))})")
    return table


def read_table(tree: Tree, file: ListedFile, paths: Paths, where: str) -> Table:
    """The table in a file.

    Raises:
        NoTable: it cannot be read or lists no images.
        UserError: several columns can be the classes.
    """
    try:
        with tree.open(file) as stream:
            data = stream.read()
    except Exception as error:  # of zipfile and its decompressors too
        raise NoTable(f"cannot be read ({error or type(error).__name__})") from error
    try:
        return parse(file.name, data, lambda path: paths.is_image(path, file.parts[:-1]))
    except UserError as error:
        raise UserError(f"{where}: {error}") from error


def _split_of_table(placed: Placed) -> str | None:
    """The split that a table is of, by its name (train800.txt) or its folder (train/metadata.csv)."""
    stem = placed.parts[-1].rpartition(".")[0]
    return plain_split_of(stem) or (plain_split_of(placed.parts[0]) if len(placed.parts) > 1 else None)


def _one_of_each(tables: list[Choice], found: Tables, where: str, refuse: bool) -> list[tuple[Table, str | None]]:
    """The tables without train800val200.txt where train800.txt and val200.txt are there."""
    names: dict[str, list[str]] = {}
    for table, split in tables:
        if split is not None:
            names.setdefault(split, []).append(table.name)
    if TRAINVAL in names and {"train", "val"} <= names.keys():
        reason = f"not used, since {names['train'][0]} and {names['val'][0]} are there"
        found.remarks.append(unused_list(names.pop(TRAINVAL), f"is {reason}", f"are {reason}"))
        tables = [each for each in tables if each[1] != TRAINVAL]
    elif TRAINVAL in names:
        names.setdefault("train", []).extend(names.pop(TRAINVAL))
        tables = [(table, "train" if split == TRAINVAL else split) for table, split in tables]
    tables = sorted(tables, key=lambda each: SPLITS.index(each[1]) if each[1] in SPLITS else 0)
    several = next((split for split in names if len(names[split]) > 1), None)
    if several is None:
        return tables
    if refuse:
        raise UserError(
            f"{where}: {listed(sorted(names[several]), 6)} can all be the list of {several}: name the tables that are "
            "meant in params.yaml with `labels: [...]`"
        )
    return []


# ---- what they list


def entries_of(tables: Tables, paths: Paths, settings: FolderLayout, where: str) -> Listed:
    """The images that tables list, with their classes and splits.

    Raises:
        UserError: a path that can mean two files, a file with two classes or splits, an unknown split, no file at all.
    """
    found = Listed()
    unused: dict[str, set[str]] = {}
    for table, split in tables.tables:
        files = [file_of(paths, row, table, where) for row in table.rows]
        if table.rows and not any(files):
            raise UserError(
                f"{where}: none of the {len(files)} files that {table.name} lists is there ({table.rows[0].file} "
                "first): write their paths as they are below the folder"
            )
        for row, file in zip(table.rows, files, strict=True):
            row_split = split or "" if not row.split else _split_of_value(row.split, table, settings, where)
            if row_split is None:
                unused.setdefault(row.split or "", set()).update([file.name] if file else [])
            else:
                _add(found, row, row_split, table, file, where)
    for value, names in sorted(unused.items()):
        found.remarks.append(left_out(f"what has the split {value} is left out", sorted(names)))
        found.left_out |= names
    return found


def file_of(paths: Paths, row: Row, table: Table, where: str) -> ListedFile | None:
    """The file of a row, or None; UserError if its path can mean two files."""
    try:
        return paths.find(row.file, tuple(table.name.split("/")[:-1]))
    except AmbiguousPath as error:
        raise UserError(f"{where}: {table.name}: {error}: write the whole path") from error


def _split_of_value(value: str, table: Table, settings: FolderLayout, where: str) -> str | None:
    """The split of a value in the split column; None: rows that are no examples."""
    named = {name: split for split, name in settings.splits.items()}
    if named:
        return named.get(value)
    split = plain_split_of(value)
    if split is None and value and not says_no_class(value):
        raise UserError(
            f"{where}: the split column of {table.name} has {value}, which is no known split: say what is what in "
            f"params.yaml, such as `split: {{train: {value}, test: ...}}`"
        )
    return "train" if split == TRAINVAL else split


def _add(found: Listed, row: Row, split: str, table: Table, file: ListedFile | None, where: str) -> None:
    if file is None:
        found.strays[row.file or f"a row of {table.name}"] = f"is listed in {table.name} and does not exist"
        return
    if row.label == "" or row.split == "":
        found.strays[file.name] = f"has no {'label' if row.label == '' else 'split'} in {table.name}"
        return
    entry = Entry(split, row.label or "", file)
    before = found.entries.setdefault(file.name, entry)
    for what in ("label", "split"):
        one, two = getattr(before, what), getattr(entry, what)
        if one != two:
            kind = "class" if what == "label" else "split"
            twice = f"{where}: {file.name} is listed twice, with {kind} {one} and {two}"
            raise UserError(f"{twice}: correct {table.name}")


def with_folder_splits(
    entries: Mapping[str, Entry], tops: Mapping[str, str], given: Mapping[str, str], where: str
) -> dict[str, Entry]:
    """Entries with the splits of the folders that they lie in, where tables have no splits.

    Args:
        entries: by name, with split "".
        tops: name of an entry -> its folder at the top, "" where it lies in none.
        given: folder at the top -> split, of those that are splits.
        where: the folder, for messages.

    Raises:
        UserError: only some of them lie in folders of splits.
    """
    used = {tops[name] for name in entries}
    inside = sorted(used & set(given))
    if not inside:
        return dict(entries)
    if used - set(given):
        outside = min(used - set(given)) or "no folder"
        raise UserError(
            f"{where}: the tables list images in {listed(inside)} and in {outside}: give them a column split"
        )
    if "train" not in {given[name] for name in inside}:
        raise UserError(f"{where}: the tables list images of {listed(inside)} and none of train: add a column split")
    return {name: replace(entry, split=given[tops[name]]) for name, entry in entries.items()}
