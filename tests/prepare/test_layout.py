"""How folders are understood: splits and classes from names, masks, what is left out, and what is refused."""

import pytest
from small_folders import write_files

from vtabflow.contracts.specs import FolderLayout
from vtabflow.errors import UserError
from vtabflow.prepare.folders.entry import Layout
from vtabflow.prepare.folders.layout import understand
from vtabflow.prepare.folders.names import plain_split_of, split_of, splits_among
from vtabflow.prepare.folders.tree import open_tree


def images(*folders: str, n: int = 2, suffix: str = ".png") -> dict[str, bytes]:
    """`n` files in each folder, none with the content of another."""
    return {f"{folder}/{i}{suffix}": f"{folder}{i}".encode() for folder in folders for i in range(n)}


def layout_of(path, files: dict[str, bytes | str], **settings) -> Layout:
    write_files(path, {name: data.encode() if isinstance(data, str) else data for name, data in files.items()})
    with open_tree(path) as tree:
        return understand(tree, FolderLayout(**settings), "in")


def examples(layout: Layout) -> dict[str, str]:
    """Name -> split and class, with a slash."""
    found = {entry.name: f"{entry.split}/{entry.label}".lstrip("/") for entry in layout.entries}
    assert len(found) == len(layout.entries) and not set(found) & set(layout.strays)
    assert layout.classes == tuple(sorted({entry.label for entry in layout.entries}))
    return found


def said(layout: Layout) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for remark in layout.remarks:
        found.setdefault(remark.kind, []).append(remark.text)
    return found


@pytest.mark.parametrize(
    ("split", "names"),
    [
        ("train", "train Train TRAINING training_set training-set trainset TrainSet train800 train_2017 train_images"),
        ("val", "val valid validation Dev val200 val_set ValidationData valset"),
        ("test", "test Testing test_set eval evaluation holdout hold-out Held_out test2017 testset TestImages"),
        ("trainval", "trainval train800val200 train_val"),
        (None, "bus control trainer contest valley 1 testimony retrain train_test images val_or_test"),
    ],
)
def test_names_of_splits(split, names):
    for name in names.split():
        assert plain_split_of(name) == split, name


def test_names_with_other_words_are_of_splits_only_together():
    assert split_of("seg_train") == ("train", "seg") and plain_split_of("seg_train") is None
    assert splits_among(["seg_train", "seg_test", "seg_pred"]) == {"seg_train": "train", "seg_test": "test"}
    assert splits_among(["birds_train", "cats", "dogs_test"]) == {}
    assert splits_among(["no_test", "Test"]) == {"Test": "test"}
    assert splits_among(["BirdsTrain", "BirdsTest"]) == {"BirdsTrain": "train", "BirdsTest": "test"}


PAIRS = [
    ("Training", "Testing"),
    ("Train", "Test"),
    ("train", "testing"),
    ("train", "dev"),
    ("train", "Test"),
    ("training_set", "test_set"),
    ("seg_train", "seg_test"),
    ("train", "holdout"),
    ("birds train", "birds val"),
]


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("outer", ["", "archive/", "a/b/"])
def test_splits_are_no_classes(tmp_path, pair, outer):
    """C01 and the sets of the data review: Training/ and Testing/ became two classes."""
    one, two = pair
    second = "val" if two in ("dev", "birds val") else "test"
    found = layout_of(tmp_path, images(*(f"{outer}{split}/{label}" for split in pair for label in ("cat", "dog"))))
    assert found.classes == ("cat", "dog") and found.splits == sorted(["train", second])
    assert examples(found) == {
        f"{split}/{label}/{i}.png": f"{name}/{label}"
        for split, name in ((one, "train"), (two, second))
        for label in ("cat", "dog")
        for i in range(2)
    }
    assert found.kind == f"class folders in {one} and {two}" and not found.strays and not found.remarks


def test_intel_images_with_doubled_folders_and_a_flat_folder_of_predictions(tmp_path):
    found = layout_of(
        tmp_path,
        images("seg_train/seg_train/sea", "seg_train/seg_train/street", "seg_test/seg_test/sea", "seg_pred/seg_pred"),
    )
    assert sorted(set(examples(found).values())) == ["test/sea", "train/sea", "train/street"]
    assert said(found) == {"left-out": ["the folder seg_pred is left out, since it is no split (2 images)"]}


@pytest.mark.parametrize("beside", ["unlabeled", "images", "Unlabelled", "predictions", "unlabeled_images"])
def test_a_folder_without_classes_beside_train_is_said(tmp_path, beside):
    """C04: train/ and unlabeled/ became two classes."""
    found = layout_of(tmp_path, images("train/cat", "train/dog", beside, n=3))
    assert found.classes == ("cat", "dog") and found.splits == ["train"] and not found.strays
    assert said(found) == {"left-out": [f"the folder {beside} is left out, since it is no split (3 images)"]}
    (remark,) = found.remarks
    assert remark.count == 3 and remark.examples == tuple(f"{beside}/{i}.png" for i in range(3))


def test_train_alone_is_a_split_and_no_folder_around_everything(tmp_path):
    found = layout_of(tmp_path, images("set/Training/cat", "set/Training/dog"))
    assert found.splits == ["train"] and found.kind == "class folders in Training"


def test_a_flat_test_folder_lies_in_no_class(tmp_path):
    """C03: such images are refused, or left out by name with `invalid: skip`."""
    found = layout_of(tmp_path, images("train/cat", "train/dog", "test"))
    assert found.splits == ["train"]
    assert found.strays == {f"test/{i}.png": "lies in no class folder" for i in range(2)}


@pytest.mark.parametrize(
    "folders",
    [
        ("bus", "car", "train"),
        ("control", "test"),
        ("valid", "invalid"),
        ("dev", "test", "prod"),
        ("train", "bus/red", "car"),
        ("control/p1", "control/p2", "test/p3", "test/p4"),
        ("steam_train", "bus", "test_car"),
        ("mask", "no_mask"),
        ("images", "drawings"),
        ("left/a", "right/a"),
    ],
)
def test_what_may_be_classes_stays_classes(tmp_path, folders):
    found = layout_of(tmp_path, images(*folders))
    assert found.splits == [""] and found.classes == tuple(sorted({folder.split("/")[0] for folder in folders}))
    assert len(found.entries) == 2 * len(folders) and not found.remarks and not found.strays


UNKNOWN = images("fold_a/cat", "fold_a/dog", n=3) | images("fold_b/cat", "fold_b/dog")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (UNKNOWN, r"fold_a and fold_b hold the same folders \(cat and dog\).*`split: {train: fold_a, test: fold_b}`"),
        (
            images("control/a", "control/b", "test/a", "test/b"),
            r"control and test hold the same.*{train: control, test",
        ),
        (images("1 new/a", "1 new/b", "2 old/a", "2 old/b"), r'`split: {train: "1 new", test: "2 old"}`'),
        (images("train/a", "train/b", "val/a", "dev/a"), "dev and val can all be val: rename or merge"),
        (images("train/a", "train/b", "Training/a"), "Training and train can all be train"),
        (images("cat_train", "cat_test", "dog_train", "dog_test"), "can all be"),
        (images("train/a", "train/b", "quiz/a", "quiz/b"), "train folders and also quiz: keep either.*{train: train}"),
        (images("train/a", "train/b", "test/a", "bus"), "test and train folders and also bus"),
        (images("train", "test", "bus"), "test and train folders and also bus"),
        (
            images("train/a", "train/b", "test/c", "test/d"),
            r"train and test have no class in common \(a and b; c and d",
        ),
        (images("train/Cat", "train/dog", "test/cat", "test/dog"), "a class is Cat in train and cat in test"),
        (images("val/a", "test/a"), "has test and val but no train"),
        (
            images("train", "test/a", "test/b"),
            "train has no class folders: arrange its images as train/<class>/<image>",
        ),
        (images("train", "test"), r"no images in class folders \(4 lie in no class folder, test/0.png first\)"),
        (images("train/images", "train/masks", "val/images", "val/masks", n=1), "no images in class folders"),
        (images("images"), "no images in class folders"),
        (images("images", "labels"), "no images in class folders"),
    ],
)
def test_what_can_be_meant_in_two_ways_is_refused(tmp_path, files, message):
    with pytest.raises(UserError, match=message):
        layout_of(tmp_path, files)


def test_the_refusal_of_unknown_splits_gives_yaml_that_works(tmp_path):
    found = layout_of(tmp_path, UNKNOWN, splits={"train": "fold_a", "test": "fold_b"})
    assert sorted(set(examples(found).values())) == ["test/cat", "test/dog", "train/cat", "train/dog"]
    assert found.kind == "class folders in fold_a and fold_b"


def test_named_splits(tmp_path):
    files = images("train/a", "train/b", "val/a", "dev/b", "extra/a")
    found = layout_of(tmp_path, files, splits={"train": "train", "val": "dev"})
    assert found.splits == ["train", "val"] and len(said(found)["left-out"]) == 2
    with pytest.raises(
        UserError, match=r"split names the folder trian, .* \(did you mean train\?\): there are dev, extra"
    ):
        layout_of(tmp_path, {}, splits={"train": "trian"})
    alone = layout_of(tmp_path / "alone", images("one/a", "one/b"), splits={"train": "one"})
    assert alone.classes == ("a", "b") and alone.splits == ["train"]


def test_the_union_of_train_and_val_is_not_counted_twice(tmp_path):
    folders = [f"{split}/{label}" for split in ("train800", "val200", "train800val200", "test") for label in "ab"]
    found = layout_of(tmp_path, images(*folders))
    assert found.splits == ["test", "train", "val"] and len(found.entries) == 12
    assert said(found) == {
        "left-out": ["the folder train800val200 is left out, since train and val are there (4 images)"]
    }
    only = layout_of(tmp_path / "two", images("trainval/a", "trainval/b", "test/a"))
    assert only.splits == ["test", "train"]


def test_empty_classes_are_said(tmp_path):
    """C36."""
    for name in ("bird", "bird/deep", "cat/deep"):
        (tmp_path / name).mkdir(parents=True)
    found = layout_of(tmp_path, images("cat", "dog") | {"docs/notes.txt": b"", "bird/Thumbs.db": b""})
    assert found.classes == ("cat", "dog")
    assert said(found) == {
        "empty-folder": ["the folder bird is empty"],
        "no-images": ["the folder docs is without images"],
    }
    for name in ("train/bird", "val"):
        (tmp_path / "two/x" / name).mkdir(parents=True)
    found = layout_of(tmp_path / "two", images("x/train/cat", "x/train/dog", "x/test/cat"))
    assert said(found) == {"empty-folder": ["the folder train/bird is empty", "the folder val is empty"]}


def test_classes_are_sorted_as_text(tmp_path):
    """C37: the place of a class in the order is only its number."""
    assert layout_of(tmp_path, images(*map(str, range(1, 12)))).classes == (
        *("1", "10", "11", "2", "3", "4", "5", "6", "7", "8", "9"),
    )


def test_classes_that_differ_in_case_are_said(tmp_path):
    found = layout_of(tmp_path, images("Cat", "cat", "dog"))
    assert found.classes == ("Cat", "cat", "dog")
    assert said(found) == {"similar-classes": ["the classes Cat and cat have nearly the same name"]}


def test_masks_beside_images_are_left_out_and_said(tmp_path):
    """C54, the layout of BUSI."""
    files = {}
    for label in ("benign", "normal"):
        for i in (1, 2):
            files |= {f"{label}/{label} ({i}).png": b"x", f"{label}/{label} ({i})_mask.png": b"m"}
    files["benign/benign (2)_mask_1.png"] = b"m"
    files["normal/lonely_mask.png"] = b"x"
    found = layout_of(tmp_path, files)
    assert examples(found) == {
        **{f"{label}/{label} ({i}).png": label for label in ("benign", "normal") for i in (1, 2)},
        "normal/lonely_mask.png": "normal",
    }
    assert said(found) == {"left-out": ["masks or notes beside the images are left out (5 images)"]}


@pytest.mark.parametrize(
    "pattern",
    [
        "{0}/images/{1}.jpg {0}/masks/{1}.png",
        "images/{0}/{1}.jpg masks/{0}/{1}_mask.png",
        "{0}/{1}.jpg {0}/mask/{1}.png",
    ],
)
def test_folders_of_masks_are_left_out(tmp_path, pattern):
    image, mask = pattern.split()
    files = {name.format(label, i): b"x" for label in ("cat", "dog") for i in (1, 2, 3) for name in (image, mask)}
    found = layout_of(tmp_path, files)
    assert found.classes == ("cat", "dog") and len(found.entries) == 6
    assert not any("mask" in entry.name for entry in found.entries)
    assert said(found) == {"left-out": ["masks or notes beside the images are left out (6 images)"]}


def test_annotations_without_a_suffix_are_no_images(tmp_path):
    """The layout of Stanford Dogs."""
    files = images("Images/n01", "Images/n02", suffix=".jpg") | images("Annotation/n01", "Annotation/n02", suffix="")
    found = layout_of(tmp_path, files)
    assert found.classes == ("n01", "n02") and len(found.entries) == 4
    assert said(found) == {"left-out-files": ["masks or notes beside the images are left out (4 files)"]}


def test_the_class_mask_with_the_same_numbers_stays(tmp_path):
    found = layout_of(tmp_path, images("train/mask", "train/no_mask", "test/mask", "test/no_mask"))
    assert found.classes == ("mask", "no_mask") and not found.remarks


def test_files_in_classes_count_and_text_beside_folders_of_images_does_not(tmp_path):
    files = images("a", "b") | {"a/notes.txt": b"x", "a/deep/info.json": b"{}", "README.md": b"x", "lost.png": b"y"}
    found = layout_of(tmp_path, files)
    assert set(examples(found)) == {*images("a", "b"), "a/notes.txt", "a/deep/info.json"}
    assert found.strays == {"lost.png": "lies in no class folder"}
    found = layout_of(tmp_path / "two", images("a/images", "b/images") | {"a/a_boxes.txt": b"x"})
    assert set(examples(found)) == set(images("a/images", "b/images"))


def test_files_beside_the_outer_folder_are_not_forgotten(tmp_path):
    found = layout_of(tmp_path, images("set/a", "set/b") | {"cover.jpg": b"x"})
    assert found.strays == {"cover.jpg": "lies in no class folder"} and found.classes == ("a", "b")
    assert set(examples(found)) == set(images("set/a", "set/b"))
    found = layout_of(tmp_path / "two", images("set/a", "set/b") | {"LICENSE.md": b"x"})
    assert set(examples(found)) == set(images("a", "b")) and not found.strays


def test_groups_by_a_pattern(tmp_path):
    files = {f"{label}/{track}_{frame}.png": b"x" for label in "ab" for track in ("t1", "t2") for frame in range(3)}
    found = layout_of(tmp_path, files | {"a/single.png": b"y"}, group_pattern=r"(.*)_\d+\.png")
    assert {entry.name: entry.group for entry in found.entries} == {
        **{name: name.rsplit("_", 1)[0] for name in files},
        "a/single.png": None,
    }
    assert said(found) == {
        "no-group": ["1 of 13 images do not match group_pattern, so each of them may go into any split"]
    }
    for pattern, message in [
        ("(", "no regular expr|not a regular expr"),
        ("t", r"no \( \)"),
        ("(zz)", "all images do not match"),
    ]:
        with pytest.raises(UserError, match=message):
            layout_of(tmp_path, {}, group_pattern=pattern)


@pytest.mark.parametrize(
    "table",
    ["image,patient_id\n{}", "file;group\n{}", "\ufefffile,age,Patient ID\n{}", "{}"],
    ids=["csv", "semicolon", "bom", "plain"],
)
def test_groups_by_a_table(tmp_path, table):
    files = images("a", "b", n=3)
    patients = {name: f"p{i // 2}" for i, name in enumerate(sorted(files))}
    comma = ";" if ";" in table else ","
    middle = f"{comma}30{comma}" if ",age," in table else comma
    lines = "\n".join(f"{name}{middle}{patient}" for name, patient in patients.items())
    found = layout_of(tmp_path, files | {"who.csv": table.format(lines)}, groups="who.csv")
    assert {entry.name: entry.group for entry in found.entries} == patients
    assert found.sources == ("who.csv",) and found.kind == "class folders" and not found.remarks


def test_tables_of_groups_that_will_not_do(tmp_path):
    files = images("a", "b") | {"who.csv": "file,group\na/0.png,1\na/0.png,2\n", "none.csv": "file,age\na/0.png,1\n"}
    for name, message in [
        ("who.csv", "a/0.png is in two groups, 1 and 2"),
        ("none.csv", "none.csv, which groups names, has no column of groups: call it group"),
        ("wo.csv", r"there is no file wo.csv, which groups names \(did you mean who.csv\?\)"),
    ]:
        with pytest.raises(UserError, match=message):
            layout_of(tmp_path, files, groups=name)
    with pytest.raises(UserError, match="both set"):
        layout_of(tmp_path, {}, groups="who.csv", group_pattern="(a)")
