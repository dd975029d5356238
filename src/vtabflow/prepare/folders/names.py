"""What the names of folders and files say: splits in their usual spellings, images, masks, and what is neither."""

import re
from collections.abc import Iterable

WORDS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "validate", "dev", "devel", "development"),
    "test": ("test", "testing", "eval", "evaluation", "holdout"),
}
SPLITS = tuple(WORDS)
WORD = {word: split for split, words in WORDS.items() for word in words}
# Words beside the split that say nothing; numbers (train800, val2017) do not either.
FILLERS = {
    *("set", "data", "dataset", "split", "folder", "subset", "list", "lists", "labels", "label", "annotations"),
    *("images", "image", "imgs", "img", "pictures", "pics", "photos", "samples", "files"),
}
COMPOUND = re.compile(f"({'|'.join(sorted(WORD, key=len, reverse=True))})(set|sets|data|images|imgs|split|labels)?")
# train800val200 and trainval: everything but test.
TRAINVAL = "trainval"

IMAGES = {"images", "image", "imgs", "img", "jpegimages", "jpg", "jpgs", "jpeg", "png", "pngs", "pictures", "photos"}
MASKS = {
    *("mask", "masks", "ground_truth", "groundtruth", "gt", "segmentation", "segmentations", "segmentationclass"),
    *("segmentationobject", "annotation", "annotations", "label", "labels", "bboxes", "boxes"),
}
UNLABELLED = {
    "unlabeled",
    "unlabelled",
    "unlab",
    "pred",
    "predict",
    "prediction",
    "predictions",
    "extra",
    "misc",
    "seg",
}

IMAGE_SUFFIXES = {
    *(".png", ".jpg", ".jpeg", ".jfif", ".gif", ".bmp", ".dib", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".pbm"),
    *(".pnm", ".jp2", ".avif", ".tga", ".ico", ".pcx", ".heic", ".heif"),
}
# Files that describe images. A folder that has nothing else is no class.
OTHER_SUFFIXES = {
    *(".txt", ".csv", ".tsv", ".json", ".jsonl", ".xml", ".yaml", ".yml", ".md", ".rst", ".html", ".htm", ".pdf"),
    *(".log", ".ini", ".cfg", ".names", ".lst", ".py", ".ipynb", ".m", ".sh", ".mat", ".npy", ".npz", ".pkl", ".h5"),
    *(".hdf5", ".db", ".sqlite", ".parquet", ".arrow", ".tfrecord", ".doc", ".docx", ".xls", ".xlsx", ".zip", ".tar"),
    *(".gz", ".tgz", ".rar", ".7z"),
}


def split_of(name: str) -> tuple[str, str] | None:
    """What a name says about the split: train, val, test or trainval, and the other words of the name ("" for none).

    Case, numbers, signs and words such as "set" and "images" do not matter: Training, test_set, val2017, train800,
    hold-out. None: the name is of no split, or of several ("train_test").
    """
    text = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).casefold()
    text = re.sub(r"h[eo]ld[ _-]*out", "holdout", text)
    found, rest = set(), []
    for word in re.findall(r"[^\W\d_]+", text):
        if word == TRAINVAL:
            found |= {"train", "val"}
        elif whole := COMPOUND.fullmatch(word):
            found.add(WORD[whole[1]])
        elif word not in FILLERS:
            rest.append(word)
    if not found or (len(found) > 1 and found != {"train", "val"}):
        return None
    return (TRAINVAL if len(found) > 1 else found.pop()), " ".join(rest)


def plain_split_of(name: str) -> str | None:
    """Train, val, test or trainval, for a name that says nothing else, or None."""
    found = split_of(name)
    return found[0] if found and not found[1] else None


def splits_among(names: Iterable[str]) -> dict[str, str]:
    """Name -> split, of the names that are of splits.

    "Training" is one by itself. "birds_train" and "seg_test" are where the same words stand with train and with another
    split, since they could also be classes.
    """
    parsed = {name: found for name in names if (found := split_of(name))}
    by_words: dict[str, set[str]] = {}
    for split, words in parsed.values():
        by_words.setdefault(words, set()).add(split)
    whole = {words for words, splits in by_words.items() if len(splits) > 1 and splits & {"train", TRAINVAL}}
    return {name: split for name, (split, words) in parsed.items() if not words or words in whole}


def says_no_class(name: str) -> bool:
    """Whether a folder of this name beside train/ holds masks, predictions or images without a class."""
    words = re.findall(r"[^\W\d_]+", name.casefold())
    known = IMAGES | MASKS | UNLABELLED
    return name.casefold() in known or (bool(words) and all(word in known for word in words))


def may_be_image(name: str) -> bool:
    """Whether a file can be an image by its suffix; one that nobody knows can."""
    return _suffix(name) not in OTHER_SUFFIXES


def is_image(name: str) -> bool:
    """Whether a file is an image by its suffix."""
    return _suffix(name) in IMAGE_SUFFIXES


def _suffix(name: str) -> str:
    return name[name.rfind(".") :].lower() if "." in name else ""


def listed(names: Iterable[str], most: int = 3) -> str:
    """The first names for a sentence: a, b, c and 4 more."""
    every = list(names)
    if len(every) > most:
        return f"{', '.join(every[:most])} and {len(every) - most} more"
    return " and ".join(", ".join(every).rsplit(", ", 1))


def in_order(splits: Iterable[str]) -> list[str]:
    """Train, val, test."""
    return sorted(splits, key=lambda split: SPLITS.index(split) if split in SPLITS else len(SPLITS))
