"""Whether a store is a lossy copy of a small dataset whose authors give raw pixels.

A store from TFDS should be its dataset. A folder is suspected of nothing but what its `of` says that it is a copy of;
what others show is a remark. Pixels that were made smaller show nothing.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from vtabflow.contracts.results import Manifest
from vtabflow.contracts.specs import FolderSettings, StoreSpec, TfdsSettings
from vtabflow.data import lossy, traces
from vtabflow.data.room import FINGERPRINTS
from vtabflow.errors import UserError
from vtabflow.prepare.folders.scan import scan
from vtabflow.prepare.store import SPLITS
from vtabflow.prepare.tfds import origin
from vtabflow.prepare.tfds.datasets import datasets

BLOCK = 1 << 24  # bytes
SMALL = 96  # pixels: the largest side at which a folder that is not declared to be a copy is looked at

# Datasets that were never compressed with loss between their authors and TFDS: traces of it mean a lossy copy.
LOSSLESS = {
    "cifar10": "its authors' binary file has raw pixels",
    "cifar100": "its authors' binary file has raw pixels",
    "svhn": "its authors' .mat files have raw pixels, cut from PNGs and resized",
    "dsprites": "its pixels are 0 or 255 and nothing else",
    "smallnorb": "its authors' files have raw camera pixels",
}
# Small datasets in which traces are expected: a remark, not a mismatch.
JPEG_INSIDE = {
    "eurosat": "its RGB release is JPEG",
    "patch-camelyon": "its patches were cut, without loss, from slides that are kept as JPEG blocks",
}
SIDES = {"cifar10": 32, "cifar100": 32, "svhn": 32, "dsprites": 64, "smallnorb": 96, "eurosat": 64}
SIDES["patch-camelyon"] = 96
GREYS = "are not all 0 or 255"

NOT_LOOKED_FOR, NONE, FOUND, UNTOLD = "-", "none", "traces", "cannot be told"


@dataclass
class Verdict:
    """What the pixels of a store say. `state`: "-" where that was not looked for."""

    state: str = NOT_LOOKED_FOR
    mismatches: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


def judge(spec: StoreSpec, folder: Path, manifest: Manifest, root: Path) -> Verdict:
    """Look for traces of lossy files in a sample of each split.

    Args:
        spec: the store.
        folder: where it lies.
        manifest: its manifest.
        root: the project's folder, for the path of a folder of images.
    """
    name = _original(spec, manifest)
    if name is None:
        return Verdict()
    sides = _sides(spec, manifest, name, root)
    words = {
        split: _words(folder / f"{split}.npy", name, sides) for split in SPLITS if manifest.counts[split] and sides
    }
    showing = {split: found for split, found in words.items() if found}
    if not showing:
        untold = not words or any(found is None for found in words.values())
        remarks = [f"store {folder}: whether it is a lossy copy of {name} cannot be told: its images were resized"]
        return Verdict(UNTOLD, [], remarks if name in LOSSLESS else []) if untold else Verdict(NONE)
    shown = list(dict.fromkeys(word for found in showing.values() for word in found or ()))
    what = f"store {folder}: the pixels of {', '.join(showing)} {' and '.join(shown)}"
    if name in JPEG_INSIDE:
        return Verdict(FOUND, [], [f"{what}, which is expected of {name}: {JPEG_INSIDE[name]}"])
    if name not in LOSSLESS:
        advice = "if it is a copy of a lossless dataset, use the original, and name that in the folder's setting `of`"
        return Verdict(FOUND, [], [f"{what}; {advice}"])
    if is_of_registered_archives(spec, manifest):
        return Verdict(FOUND, [], [f"{what}, and its archives are those that TFDS has registered, so {name} is so"])
    return Verdict(FOUND, [f"{what}, so it is a lossy copy of {name} ({LOSSLESS[name]}): {_cure(spec, root)}"])


def is_of_registered_archives(spec: StoreSpec, manifest: Manifest) -> bool:
    """Whether a store was made from the very archives that TFDS has registered."""
    return spec.source == "tfds" and manifest.archives == origin.expected(datasets()[spec.dataset], {})


def records_of(spec: StoreSpec, root: Path) -> str:
    """How to name the folder of the TFDS records that a store was made from."""
    assert isinstance(spec.settings, TfdsSettings)
    if spec.places is None:  # of a store that is known by its manifest alone
        return f"the records of {spec.settings.builder} {spec.settings.version} in the folder prepare.tfds.folder"
    places = spec.places.below(root)
    return f"the records in {datasets()[spec.dataset].records(places.tfds, spec.settings.version)}"


def _cure(spec: StoreSpec, root: Path) -> str:
    if isinstance(spec.settings, FolderSettings):
        return "get the original files, then remove this store and run `vtabflow prepare` again"
    assert isinstance(spec.settings, TfdsSettings)
    if spec.settings.checksums:
        return "take its archives out of prepare.tfds.checksums to have the original ones downloaded"
    return f"remove this store and {records_of(spec, root)}, and prepare again from the archive"


def _original(spec: StoreSpec, manifest: Manifest) -> str | None:
    """The dataset whose pixels these should be, "" for a folder that does not say; None where nothing is looked for."""
    if spec.source == "tfds":
        return spec.dataset if spec.dataset in LOSSLESS or spec.dataset in JPEG_INSIDE else None
    if not isinstance(spec.settings, FolderSettings):
        return None
    height, width, _ = manifest.shape["train"]
    small = height is not None and width is not None and max(height, width) <= SMALL
    return spec.settings.of or ("" if small else None)


def _sides(spec: StoreSpec, manifest: Manifest, name: str, root: Path) -> tuple[int, ...]:
    """The sides in pixels at which a store's images may show traces: as they are, or before they were enlarged.

    Empty where the images were made smaller, so that they can show nothing.
    """
    height, width, _ = manifest.shape["train"]
    if spec.source == "tfds":
        native = datasets()[spec.dataset].native
        return (height,) if native and (height, width) == native[:2] and height else ()
    assert isinstance(spec.settings, FolderSettings) and height
    known = _file_sides(spec, spec.settings, root)
    if known is None:  # the files are not there any more
        known = {SIDES.get(name, height)}
    if max(known) > height:
        return ()
    enlarged = {SIDES[name]} if name in SIDES else set(traces.SIDES)
    return tuple(sorted((known | enlarged) if len(known) == 1 else enlarged))


def _file_sides(spec: StoreSpec, settings: FolderSettings, root: Path) -> set[int] | None:
    """The longer sides of a folder's images; None if it cannot be read."""
    try:
        files = scan(root / settings.path, settings.layout, settings.decoding, root / FINGERPRINTS, spec.code).files
    except (UserError, OSError):
        return None
    return {max(file.height, file.width) for file in files} or None


def _words(path: Path, name: str, sides: Iterable[int]) -> list[str] | None:
    """What a split's images show; None if they cannot show anything."""
    if not path.is_file():
        return None
    with open(path, "rb") as stream:
        shape, _ = lossy.read_header(stream)
    if len(shape) != 4 or min(shape[1:3]) < 16:
        return None
    if name == "dsprites" and shape[1:3] == (64, 64):
        return [GREYS] if _has_greys(path) else []
    pixels = lossy.as_uint8(lossy.read_sample(path))
    if pixels is None:
        return None
    found = traces.found(pixels)
    return found or traces.found_enlarged(pixels, tuple(side for side in sides if side < shape[1]))


def _has_greys(path: Path) -> bool:
    """Whether any pixel is neither 0 nor 255."""
    with open(path, "rb") as stream:
        _, numbers = lossy.read_header(stream)
        while block := stream.read(BLOCK):
            values = np.frombuffer(block, numbers)
            if ((values != 0) & (values != 255)).any():
                return True
    return False
