"""Random folders: the classes are those that made the folder, or it is refused; every image is accounted for once."""

import io
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from vtabflow.contracts.specs import FolderLayout
from vtabflow.errors import UserError
from vtabflow.prepare.folders.entry import Layout, ListedFile
from vtabflow.prepare.folders.layout import understand
from vtabflow.prepare.folders.names import is_image
from vtabflow.prepare.folders.tree import Tree


class MemoryTree(Tree):
    """A tree of files in memory."""

    def __init__(self, files: dict[str, str], empty: list[str]):
        listed = [ListedFile(tuple(name.split("/")), len(text), name) for name, text in files.items()]
        super().__init__(Path("in"), sorted(listed, key=lambda file: file.parts), [tuple(e.split("/")) for e in empty])
        self.texts = files

    def open(self, file: ListedFile) -> io.BytesIO:
        """The text of a file; `place` is its name before anything was cut from it."""
        return io.BytesIO(self.texts[str(file.place)].encode())


def account(files: dict[str, str], layout: Layout) -> None:
    """Each image of the folder is an example, a stray, or of the images that remarks count, and is so once."""
    places = [str(entry.file.place) for entry in layout.entries]
    assert len(set(places)) == len(places)
    names = [entry.name for entry in layout.entries]
    assert len(set(names)) == len(names) and not set(names) & set(layout.strays)
    assert names == sorted(names, key=lambda name: name.split("/"))
    assert layout.classes == tuple(sorted({entry.label for entry in layout.entries})) and all(layout.classes)
    assert {entry.split for entry in layout.entries} in ({""}, *map(set, SPLIT_SETS))
    astray = [name for name, why in layout.strays.items() if is_image(name) and not why.endswith("does not exist")]
    left = sum(remark.count for remark in layout.remarks if remark.kind == "left-out")
    used = sum(is_image(place) for place in places)
    assert used + len(astray) + left == sum(map(is_image, files))


SPLIT_SETS = [["train"], ["train", "val"], ["train", "test"], ["train", "val", "test"]]
SPELLINGS = {
    "train": ["train", "Train", "TRAINING", "training_set", "trainset", "train800", "Train Images"],
    "val": ["val", "valid", "Validation", "dev", "val200", "ValSet"],
    "test": ["test", "Testing", "test_set", "eval", "holdout", "Test2017"],
}
CLASSES = st.sampled_from(
    [
        *("cat", "dog", "Bus", "car", "train", "test", "valid", "invalid", "dev", "mask", "no_mask", "10", "2", "02"),
        *("été", "日本", "a b", "a'b", 'q"q', "x_mask", "n01440764", "Cat", "images of cats", "control", "-", "1.5"),
        "seg_train",
    ]
)
SUFFIXES = st.sampled_from([".png", ".jpg", ".JPEG", ".Tif"])
FORMS = ["folders", "table", "table of ids", "lists", "column"]


@st.composite
def made(draw):
    """The files of a folder and what it is: file -> (split, class). `sure`: it is to be read, not refused."""
    classes = sorted(draw(st.sets(CLASSES, min_size=2, max_size=5)))
    splits = draw(st.sampled_from([[""], *SPLIT_SETS]))
    form = draw(st.sampled_from(FORMS if splits != [""] else FORMS[:3]))
    spelt = {split: draw(st.sampled_from(SPELLINGS[split])) if split else "" for split in splits}
    deep = draw(st.sampled_from(["", "", "deep/", "images/"])) if form == "folders" else ""
    truth, number = {}, 0
    for split in splits:
        for label in classes:
            for _ in range(draw(st.integers(2, 3))):
                number += 1
                stem = f"{draw(st.sampled_from(['a', 'b c', 'x.1', 'é']))}{number}{draw(SUFFIXES)}"
                if form == "folders":
                    name = "/".join(part for part in (spelt[split], label, deep + stem) if part)
                else:
                    name = f"images/{stem}"
                truth[name] = (split, label)
    files = dict.fromkeys(truth, "")
    files |= _tables(truth, spelt, form)
    empty, sure = (
        [],
        form != "folders" or not set(classes) & {"train", "test", "valid", "dev", "seg_train"} or splits != [""],
    )
    for extra in draw(st.sets(st.sampled_from(sorted(EXTRAS)), max_size=3)):
        more, more_empty, harmless = EXTRAS[extra](truth, spelt, form)
        files |= more
        empty += more_empty
        sure &= harmless
    sure &= len({label.casefold() for label in classes}) == len(classes)
    outer = draw(st.sampled_from(["", "set/", "2026-11/my photos/"]))
    return (
        {outer + name: text for name, text in files.items()},
        [outer + name for name in empty],
        {outer + name: label for name, label in truth.items()},
        sure,
    )


def _tables(truth, spelt, form) -> dict[str, str]:
    def cell(text: str) -> str:
        return '"' + text.replace('"', '""') + '"'

    if form == "folders":
        return {}
    if form == "lists":
        return {
            f"{spelt[split]}.csv": "file,label\n"
            + "".join(f"{cell(name)},{cell(label)}\n" for name, (own, label) in truth.items() if own == split)
            for split in spelt
        }
    with_split = spelt.keys() != {""}
    header = ("image_id" if form == "table of ids" else "file") + ",label" + (",split" if with_split else "")
    lines = [header]
    for name, (split, label) in truth.items():
        file = name.rpartition("/")[2].rpartition(".")[0] if form == "table of ids" else name
        lines.append(",".join(map(cell, (file, label, *([spelt[split]] if with_split else [])))))
    return {"labels.csv": "\n".join(lines)}


def _beside(*names: str, harmless: bool = True):
    return lambda truth, spelt, form: (dict.fromkeys(names, "x"), [], harmless)


def _masks(truth, spelt, form):
    return {f"{name.rpartition('.')[0]}_mask.png": "" for name in truth}, [], True


def _unlabelled(truth, spelt, form):
    # Without splits the folder cannot be told from a class.
    harmless = spelt.keys() != {""} or form != "folders"
    return ({"unlabeled/1.png": "", "unlabeled/2.png": ""}, [], True) if harmless else ({}, [], True)


def _empty(truth, spelt, form):
    return {}, ["/".join(part for part in (next(iter(spelt.values())), "nothing") if part)], True


def _in_split(truth, spelt, form):
    first = next(iter(spelt.values()))
    return ({f"{first}/astray.png": ""} if first and form == "folders" else {}), [], True


EXTRAS = {
    "readme": _beside("README.md", "LICENSE", "docs/notes.txt", "requirements.txt"),
    "cover": _beside("cover.jpg"),
    "json": _beside("classes.json", "scripts/make.py"),
    "masks": _masks,
    "unlabelled": _unlabelled,
    "empty": _empty,
    "in split": _in_split,
    "unknown": _beside("other thing/x.png", harmless=False),
    "wrong list": _beside("wrong.csv", harmless=False),
}


@settings(max_examples=250, deadline=None, derandomize=True)
@given(made())
def test_the_classes_are_those_that_made_the_folder(case):
    files, empty, truth, sure = case
    try:
        layout = understand(MemoryTree(files, empty), FolderLayout(), "in")
    except UserError as error:
        assert not sure, error
        return
    account(files, layout)
    if len(layout.classes) == 1:  # train/deep and test/deep: refused later, as a task of one class
        return
    found = {str(entry.file.place): (entry.split, entry.label) for entry in layout.entries}
    extra = {"other thing"} & {label for _, label in found.values()}  # a class, where all folders are
    assert {place: what for place, what in found.items() if what[1] not in extra} == truth


PARTS = st.sampled_from(
    [
        *("train", "Train", "test", "val", "dev", "train800val200", "images", "masks", "labels", "annotations", "a"),
        *("b", "A", "unlabeled", "seg_train", "seg_test", "x_train", "x_test", "1", "deep", "metadata", "mask"),
    ]
)
NAMES = st.sampled_from(
    [
        *("1.png", "2.png", "1_mask.png", "a.jpg", "train.txt", "test.txt", "labels.csv", "metadata.csv", "val.csv"),
        *("metadata.jsonl", "x.xml", "x.json", "README", "no suffix", "a.heic", "b.parquet", "train800val200.txt"),
        "1.txt",
    ]
)
CELLS = st.sampled_from(
    [
        *("file", "label", "split", "1.png", "a/1.png", "train/a/1.png", "images/2.png", "a.jpg", "cat", "dog"),
        *("train", "test", "", "1", "x.png", "group", '"', "{", "é"),
    ]
)
TEXTS = st.one_of(
    st.lists(st.lists(CELLS, min_size=1, max_size=4).map(",".join), max_size=6).map("\n".join),
    st.lists(st.lists(CELLS, min_size=2, max_size=2).map(" ".join), max_size=6).map("\n".join),
    st.sampled_from(['{"file_name": "1.png", "label": "a"}', "[]", '{"images": [{"file_name": "x"}]}', "\0"]),
)
TREES = st.dictionaries(
    st.tuples(st.lists(PARTS, max_size=3), NAMES).map(lambda path: "/".join([*path[0], path[1]])), TEXTS, max_size=14
)
SETTINGS = st.fixed_dictionaries(
    {},
    optional={
        "splits": st.sampled_from([{"train": "a"}, {"train": "train", "test": "b"}]),
        "labels": st.sampled_from([("labels.csv",), ("train.txt", "test.txt")]),
        "groups": st.just("metadata.csv"),
        "group_pattern": st.sampled_from(["(.)", r"(\d)\.png"]),
    },
)


@settings(max_examples=500, deadline=None, derandomize=True)
@given(TREES, SETTINGS)
def test_any_folder_is_accounted_for_or_refused(files, options):
    # A file is no folder.
    folders = {name.rsplit("/", depth)[0] for name in files for depth in range(1, name.count("/") + 1)}
    files = {name: text for name, text in files.items() if name not in folders}
    try:
        layout = understand(MemoryTree(files, []), FolderLayout(**options), "in")
    except UserError as error:
        assert str(error).startswith("in")
        return
    account(files, layout)
