"""Sets of images in forms that are not read (Parquet, COCO, Pascal VOC, YOLO) are recognised and refused by name."""

import re
from collections.abc import Sequence
from contextlib import suppress

from vtabflow.errors import UserError
from vtabflow.prepare.folders.class_folders import Placed
from vtabflow.prepare.folders.names import IMAGES, is_image
from vtabflow.prepare.folders.tree import Tree

RECIPE = "docs/own-images.md has ten lines of Python that do it"
SEVERAL = "which is not read, since an image there can have several classes"
TABLE = "write a table labels.csv with the columns file and label"
START = 1 << 16  # bytes of a JSON file that are read
MOST = 20  # JSON files that are opened
COCO_KEYS = re.compile(rb'"(?:categories|annotations|images)"\s*:\s*\[')
COCO_INSIDE = re.compile(rb'"(?:category_id|supercategory|file_name|bbox|image_id)"\s*:')


def refuse_other_formats(tree: Tree, files: Sequence[Placed], where: str) -> None:
    """UserError if a folder holds images in a form that is not read: what it is, and how to get another."""
    parquet = [each.file.name for each in files if each.parts[-1].lower().endswith((".parquet", ".arrow"))]
    if parquet and not any(is_image(each.parts[-1]) for each in files):
        raise UserError(
            f"{where} holds its images in Parquet ({parquet[0]}), which is not read: write them as <class>/<image>; "
            f"{RECIPE}"
        )
    if coco := _coco(tree, files):
        raise UserError(f"{where} has annotations in the form of COCO ({coco}), {SEVERAL}: {TABLE}; {RECIPE}")
    if voc := _voc(files):
        raise UserError(f"{where} has annotations in the form of Pascal VOC ({voc}), {SEVERAL}: {TABLE}; {RECIPE}")


def refuse_yolo(files: Sequence[Placed], where: str) -> None:
    """UserError if a folder holds annotations in the form of YOLO, which could pass for lists of images."""
    if yolo := _yolo(files):
        raise UserError(f"{where} has annotations in the form of YOLO ({yolo}), {SEVERAL}: {TABLE}")


def _coco(tree: Tree, files: Sequence[Placed]) -> str | None:
    """The first JSON file near the top that looks like COCO's."""
    candidates = [each for each in files if len(each.parts) <= 2 and each.parts[-1].lower().endswith(".json")]
    for each in candidates[:MOST]:
        start = b""
        with suppress(Exception), tree.open(each.file) as stream:  # what cannot be read says nothing
            start = stream.read(START)
        if COCO_KEYS.search(start) and COCO_INSIDE.search(start):
            return each.file.name
    return None


def _voc(files: Sequence[Placed]) -> str | None:
    """The first XML file of a folder Annotations that lies beside a folder of images."""
    xml = {each.parts[:-2]: each.file.name for each in reversed(files) if _is_voc(each)}
    if not xml:
        return None
    beside = {each.parts[:-2] for each in files if is_image(each.parts[-1]) and _in(each, IMAGES)}
    both = sorted(xml.keys() & beside)
    return xml[both[0]] if both else None


def _is_voc(each: Placed) -> bool:
    return each.parts[-1].lower().endswith(".xml") and _in(each, {"annotations", "annotation"})


def _yolo(files: Sequence[Placed]) -> str | None:
    """The first text file of a folder labels that has the name of an image in the folder images beside it."""
    notes = [each for each in files if each.parts[-1].endswith(".txt") and _in(each, {"labels"})]
    if not notes:
        return None
    images = {
        (*each.parts[:-2], each.parts[-1].rpartition(".")[0])
        for each in files
        if is_image(each.parts[-1]) and _in(each, {"images"})
    }
    for each in notes:
        if (*each.parts[:-2], each.parts[-1].removesuffix(".txt")) in images:
            return each.file.name
    return None


def _in(each: Placed, names: set[str]) -> bool:
    """Whether the folder of a file has one of these names."""
    return len(each.parts) > 1 and each.parts[-2].casefold() in names
