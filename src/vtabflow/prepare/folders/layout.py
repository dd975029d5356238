"""How the files of a folder become examples: their splits and classes, from names alone.

    <class>/<image>
    train/<class>/<image>   val/<class>/<image>   test/<class>/<image>      (train, and none, one or both of the others)

A single folder around all of that is skipped. Folders below a class belong to the class.
"""

from dataclasses import replace
from pathlib import Path

from vtabflow.contracts.specs import FolderLayout
from vtabflow.errors import UserError
from vtabflow.prepare.folders.entry import Entry, Layout, ListedFile
from vtabflow.prepare.folders.tree import Tree

SPLIT_NAMES = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
# Any file in a class folder counts as an image; of the files outside class folders only these are reported.
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".gif", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm")


def understand(tree: Tree, settings: FolderLayout, where: str) -> Layout:
    """The examples of a tree.

    Raises:
        UserError: no class folder with images, splits and classes side by side, no train split.
    """
    path = Path(where)
    files = _without_outer_folder(tree.files)
    tops = {file.parts[0] for file in files if len(file.parts) > 1}
    given = {top for top in tops if top in SPLIT_NAMES}
    with_splits = bool(given) and given == tops
    if "train" in given and len({SPLIT_NAMES[top] for top in given}) > 1 and not with_splits:
        other = sorted(tops - given)[0]
        mixed = f"{path} has {' and '.join(sorted(given))} folders and also {other}"
        raise UserError(f"{mixed}: keep either splits or classes at the top")
    entries, strays = [], {}
    for file in files:
        split = SPLIT_NAMES[file.parts[0]] if with_splits and len(file.parts) > 1 else ""
        inside = file.parts[1:] if split else file.parts
        if len(inside) > 1:
            entries.append(Entry(split, inside[0], file))
        elif file.name.lower().endswith(IMAGE_SUFFIXES):
            strays[file.name] = "lies in no class folder"
    if not entries:
        outside = f" ({len(strays)} lie in no class folder, {min(strays)} first)" if strays else ""
        raise UserError(f"{path} has no images in class folders{outside}: arrange them as <class>/<image>")
    if with_splits and not any(entry.split == "train" for entry in entries):
        raise UserError(f"{path} has {' and '.join(sorted(given))} but no train folder: add train/<class>/<image>")
    kind = f"class folders in {' and '.join(sorted(given))}" if with_splits else "class folders"
    return Layout(kind, tuple(entries), tuple(sorted({entry.label for entry in entries})), strays)


def _without_outer_folder(files: list[ListedFile]) -> list[ListedFile]:
    """Names below the single folder that contains everything, unless that is a split or the only class."""
    while True:
        tops = {file.parts[0] for file in files if len(file.parts) > 1}
        inside = {file.parts[1] for file in files if len(file.parts) > 2}
        if len(tops) != 1 or not inside or tops <= set(SPLIT_NAMES):
            return files
        files = [replace(file, parts=file.parts[1:]) for file in files if len(file.parts) > 1]
