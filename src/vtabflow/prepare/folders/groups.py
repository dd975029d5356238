"""Groups of examples that stay in one split, from a table or from names; and classes with nearly the same name."""

import re
from collections.abc import Sequence
from dataclasses import replace

from vtabflow.contracts.results import Remark
from vtabflow.errors import UserError
from vtabflow.prepare.folders.entry import Entry, ListedFile
from vtabflow.prepare.folders.labels import file_of, read_table
from vtabflow.prepare.folders.paths import Paths
from vtabflow.prepare.folders.tables import NoTable
from vtabflow.prepare.folders.tree import Tree


def groups_of_table(tree: Tree, file: ListedFile, paths: Paths, where: str) -> dict[str, str]:
    """Name of a file -> its group, from a table of files and groups.

    Raises:
        UserError: the table lists no images or no groups, or one image in two groups.
    """
    try:
        table = read_table(tree, file, paths, where)
    except NoTable as reason:
        raise UserError(f"{where}: {file.name}, which groups names, {reason}") from reason
    groups: dict[str, str] = {}
    for row in table.rows:
        # The second column of a list without headers is read as its labels.
        group = row.group if table.columns else row.label
        found = file_of(paths, row, table, where)
        if found is not None and group and groups.setdefault(found.name, group) != group:
            raise UserError(f"{where}: {found.name} is in two groups, {groups[found.name]} and {group} ({file.name})")
    if not groups:
        raise UserError(f"{where}: {file.name}, which groups names, has no column of groups: call it group")
    return groups


def groups_of_pattern(entries: Sequence[Entry], expression: str, where: str) -> dict[str, str]:
    """Name of a file -> its group, by what the first ( ) of a regular expression matches in its name.

    Raises:
        UserError: not a regular expression, or no ( ) in it.
    """
    try:
        pattern = re.compile(expression)
    except re.error as error:
        raise UserError(f"{where}: group_pattern is not a regular expression ({error}): correct it") from error
    if pattern.groups < 1:
        raise UserError(f"{where}: group_pattern has no ( ) around what is the group: add them")
    matches = {entry.name: pattern.search(entry.name) for entry in entries}
    return {name: match[1] for name, match in matches.items() if match and match[1] is not None}


def with_groups(
    entries: Sequence[Entry], groups: dict[str, str], reason: str, where: str
) -> tuple[tuple[Entry, ...], list[Remark]]:
    """Entries with their groups, and a remark on those that have none.

    Args:
        entries: the examples.
        groups: by the name of an example.
        reason: what it means to have none, such as "are not in groups.csv".
        where: the folder, for messages.

    Raises:
        UserError: no example has a group.
    """
    grouped = tuple(replace(entry, group=groups.get(entry.name)) for entry in entries)
    alone = sorted(entry.name for entry in grouped if entry.group is None)
    if len(alone) == len(grouped):
        raise UserError(f"{where}: all images {reason} ({alone[0]} first): no group would be kept together")
    if not alone:
        return grouped, []
    text = f"{len(alone):,} of {len(grouped):,} images {reason}, so each of them may go into any split"
    return grouped, [Remark("no-group", len(alone), text, tuple(alone[:5]))]


def similar_classes(classes: Sequence[str]) -> list[Remark]:
    """Remarks on classes whose names differ only in case or in space around them."""
    found: list[Remark] = []
    seen: dict[str, str] = {}
    for label in classes:
        other = seen.setdefault(label.strip().casefold(), label)
        if other != label:
            text = f"the classes {other} and {label} have nearly the same name"
            found.append(Remark("similar-classes", 2, text, (other, label)))
    return found
