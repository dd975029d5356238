"""Masks that lie beside images: x_mask.png beside x.png, masks/x.png beside images/x.png. They are no examples."""

import re
from collections.abc import Sequence

from vtabflow.contracts.results import Remark
from vtabflow.prepare.folders.class_folders import Placed, left_out
from vtabflow.prepare.folders.names import IMAGES, MASKS, is_image, may_be_image

# "benign (1)_mask.png" and "benign (1)_mask_1.png" of BUSI, "ISIC_0000000_segmentation.png" of ISIC.
SUFFIX = re.compile(r"(.+?)[ _.-]+(?:masks?|segmentation|ground_?truth|gt|seg)(?:[ _-]?\d+)?", re.I)
HINT = re.compile(r"[ _.-](?:mask|seg|gt|ground)", re.I)


def without_masks(files: Sequence[Placed]) -> tuple[list[Placed], list[Remark]]:
    """The files that are no masks, and a remark on those that are.

    A mask needs its image: the file x beside x_mask, or a file of the same name in the folder above, or in the folder
    images beside its own folder. So the classes "mask" and "no_mask" stay classes.
    """
    if not any(
        HINT.search(each.parts[-1]) or not MASKS.isdisjoint(map(str.casefold, each.parts[:-1])) for each in files
    ):
        return list(files), []
    images = [each for each in files if is_image(each.parts[-1])]
    stems = {(*each.parts[:-1], _stem(each)) for each in images}
    masks = {each.file.name for each in images if _is_mask_beside(each, stems)}
    others = [each for each in files if may_be_image(each.parts[-1]) and each.file.name not in masks]
    masks |= _in_mask_folders(others, stems)
    if not masks:
        return list(files), []
    text = "masks or notes beside the images are left out" if len(masks) > 1 else "a mask beside its image is left out"
    return [each for each in files if each.file.name not in masks], [left_out(text, sorted(masks))]


def _may_be_mask(each: Placed) -> bool:
    return bool(HINT.search(each.parts[-1])) or not MASKS.isdisjoint(map(str.casefold, each.parts[:-1]))


def _is_mask_beside(each: Placed, stems: set[tuple[str, ...]]) -> bool:
    found = SUFFIX.fullmatch(_stem(each))
    return found is not None and (*each.parts[:-1], found[1]) in stems


def _in_mask_folders(images: Sequence[Placed], stems: set[tuple[str, ...]]) -> set[str]:
    """The files of mask folders of which at least one file has its image."""
    by_folder: dict[tuple[str, ...], list[Placed]] = {}
    for each in images:
        for depth, part in enumerate(each.parts[:-1]):
            if part.casefold() in MASKS:
                by_folder.setdefault(each.parts[: depth + 1], []).append(each)
    folders = {stem[:-1] for stem in stems} if by_folder else set()
    picture_folders = {folder[:depth] for folder in folders for depth in range(1, len(folder) + 1)}
    found = set()
    for folder, members in by_folder.items():
        above = folder[:-1]
        around = [above] if len(folder) > 1 else []
        around += [path for path in picture_folders if path[:-1] == above and path[-1].casefold() in IMAGES]
        if any((*place, *_mask_of(each, folder)) in stems for each in members for place in around):
            found |= {each.file.name for each in members}
    return found


def _mask_of(each: Placed, folder: tuple[str, ...]) -> tuple[str, ...]:
    """The path of the image, below its folder, of a mask in `folder`."""
    stem = _stem(each)
    whole = SUFFIX.fullmatch(stem)
    return (*each.parts[len(folder) : -1], whole[1] if whole else stem)


def _stem(each: Placed) -> str:
    name = each.parts[-1]
    return name.rpartition(".")[0] or name
