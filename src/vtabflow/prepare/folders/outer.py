"""The folder around everything, which says nothing and is skipped."""

from collections.abc import Sequence
from dataclasses import replace

from vtabflow.contracts.specs import FolderLayout
from vtabflow.prepare.folders.class_folders import Placed, tops_of
from vtabflow.prepare.folders.names import may_be_image, plain_split_of
from vtabflow.prepare.folders.tables import SUFFIXES


def below_outer_folder(
    files: Sequence[Placed], empty: Sequence[tuple[str, ...]], settings: FolderLayout
) -> tuple[list[Placed], list[tuple[str, ...]]]:
    """Files and empty folders below the single folder that has all images, unless it is a split or the only class.

    The names of the examples start below it too, unless something that matters lies beside it. So a folder and an
    archive of it have the same names.
    """
    outer: tuple[str, ...] = ()
    below, empty = list(files), list(empty)
    while (name := _outer_folder(below, settings)) is not None:
        outer = (*outer, name)
        # What lies beside it stays at the top.
        below = [Placed(each.parts[1:], each.file) if each.parts[0] == name else each for each in below]
        empty = [parts[1:] if parts[0] == name else parts for parts in empty if parts != (name,)]
    matter = [each.parts for each in files if _matters(each)]
    depth = max(depth for depth in range(len(outer) + 1) if all(parts[:depth] == outer[:depth] for parts in matter))
    if depth:
        inside = [each for each in below if each.file.parts[:depth] == outer[:depth]]
        below = [Placed(each.parts, replace(each.file, parts=each.file.parts[depth:])) for each in inside]
    return below, empty


def _outer_folder(files: Sequence[Placed], settings: FolderLayout) -> str | None:
    tops = tops_of(files)
    if len(tops) != 1:
        return None
    (name,) = tops
    if name in settings.splits.values() or plain_split_of(name) or not tops[name].folders:
        return None
    return name


def _matters(each: Placed) -> bool:
    return may_be_image(each.parts[-1]) or each.parts[-1].lower().endswith(SUFFIXES)
