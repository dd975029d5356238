"""How the files of a folder become examples, from names and tables, before any image is decoded.

    <class>/<image>
    train/<class>/<image>   val/<class>/<image>   test/<class>/<image>   (train, and none, one or both of the others)
    images and labels.csv (file, label, perhaps split), metadata.csv, metadata.jsonl, or train.txt, val.txt and test.txt

A single folder around all of that is skipped. Folders below a class belong to the class. What can be meant in two ways
is refused, with what to do. An image that is left out is a stray (an error with `invalid: refuse`), or of a remark.
"""

from vtabflow.contracts.specs import FolderLayout
from vtabflow.errors import UserError
from vtabflow.prepare.folders.class_folders import Placed, Reading, read_class_folders
from vtabflow.prepare.folders.combined import from_folders, with_tables
from vtabflow.prepare.folders.entry import Layout
from vtabflow.prepare.folders.groups import (
    groups_of_pattern,
    groups_of_table,
    similar_classes,
    with_groups,
)
from vtabflow.prepare.folders.labels import entries_of, find_tables, named_file
from vtabflow.prepare.folders.masks import without_masks
from vtabflow.prepare.folders.other_formats import refuse_other_formats, refuse_yolo
from vtabflow.prepare.folders.outer import below_outer_folder
from vtabflow.prepare.folders.paths import Paths
from vtabflow.prepare.folders.tree import Tree


def understand(tree: Tree, settings: FolderLayout, where: str) -> Layout:
    """The examples of a tree.

    Args:
        tree: the files.
        settings: what is not left to the folder itself.
        where: the folder, for messages.

    Raises:
        UserError: no classes, no images in train, a form that is not read, or what can be meant in two ways.
    """
    files, remarks = without_masks([Placed(file.parts, file) for file in tree.files])
    files, empty = below_outer_folder(files, tree.empty_folders, settings)
    if not settings.labels:
        refuse_yolo(files, where)
    paths = Paths([each.file for each in files])
    tables = find_tables(tree, files, paths, settings, where)
    if not tables.have_labels:
        refuse_other_formats(tree, files, where)
    groups = named_file(files, settings.groups, "groups", where).file if settings.groups else None
    described = {*tables.names, *([groups.name] if groups else [])}
    files = [each for each in files if each.file.name not in described]
    reading: Reading | UserError
    try:
        reading = read_class_folders(files, empty, settings, where)
    except UserError as error:
        reading = error
    if tables.tables:
        listing = entries_of(tables, paths, settings, where)
        found = with_tables(tables, listing, reading, files, settings, where)
    elif isinstance(reading, UserError):
        notes = [f"; {name} {reason}" for name, reason in tables.notes.items()][:1]
        raise UserError(f"{reading}{''.join(notes)}") from reading
    else:
        found = from_folders(reading)
    remarks += [*tables.remarks, *found.remarks]
    entries, sources = found.entries, set(found.sources)
    if groups and settings.group_pattern:
        raise UserError(f"{where}: groups and group_pattern are both set: leave one of them out")
    if groups:
        known = groups_of_table(tree, groups, paths, where)
        entries, more = with_groups(entries, known, f"are not in {groups.name}", where)
        remarks, sources = remarks + more, sources | {groups.name}
    elif settings.group_pattern:
        known = groups_of_pattern(entries, settings.group_pattern, where)
        entries, more = with_groups(entries, known, "do not match group_pattern", where)
        remarks += more
    classes = tuple(sorted({entry.label for entry in entries}))
    remarks += similar_classes(classes)
    entries = tuple(sorted(entries, key=lambda entry: entry.file.parts))
    return Layout(found.kind, entries, classes, found.strays, tuple(remarks), tuple(sorted(sources)))
