"""Folders whose classes stand in tables and lists: which are found, what their paths mean, and what is refused."""

import json

import pytest
from test_layout import examples, images, layout_of, said

from vtabflow.errors import UserError

FLAT = {f"images/{i}.jpg": f"image{i}".encode() for i in range(6)}
LABELS = {f"images/{i}.jpg": "dog" if i % 2 else "cat" for i in range(6)}


def rows(template: str = "images/{0}.jpg,{1}", header: str = "file,label", **more: str) -> str:
    lines = [template.format(i, "dog" if i % 2 else "cat", **more) for i in range(6)]
    return "\n".join([header, *lines] if header else lines) + "\n"


TABLES = {
    "labels.csv": rows(),
    "annotations.CSV": rows("{0}.jpg;{1}", "image_id;class"),
    "train/labels.tsv": rows("{0}.jpg\t{1}", "filename\tcategory"),
    "table.csv": "\ufeff" + rows('"{0}.jpg","{1}"', "Image Name,Target"),
    "ids.csv": rows("{0},{1}", "id,breed"),
    "far.csv": rows("/home/me/set/images/{0}.jpg,{1}", "path,label"),
    "windows.csv": rows("images\\{0}.JPG,{1}", "path,label"),
    "more.csv": rows("7,{1},{0}.jpg,x", "age,label,file,note"),
    "twice.csv": rows("{0}.jpg,{1},{1}", "file,label_id,label_name").replace(",dog,", ",1,").replace(",cat,", ",0,"),
    "list.txt": rows("images/{0}.jpg {1}", ""),
    "back.txt": rows("{1} images/{0}.jpg", ""),
    "bom.csv": "\ufeff" + rows("{0}.jpg,{1}", ""),
    "list.csv": rows("{0}.jpg,{1}", ""),
    "metadata.csv": rows("images/{0}.jpg,{1},x", "file_name,label,text"),
    "metadata.jsonl": "".join(json.dumps({"file_name": name, "label": label}) + "\n" for name, label in LABELS.items()),
    "images/metadata.csv": rows("{0}.jpg,{1}", "file_name,label"),
}


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("outer", ["", "archive/"])
def test_images_with_a_table(tmp_path, table, outer):
    """C41 and the layouts of the data review: images/ and labels.csv, Hugging Face's metadata."""
    files = {outer + name: data for name, data in {**FLAT, table: TABLES[table]}.items()}
    found = layout_of(tmp_path, files)
    # "table" is not named after a split unless its folder is.
    split = "train/" if table.startswith("train/") else ""
    assert examples(found) == {name: split + label for name, label in LABELS.items()}
    assert found.sources == (table,) and found.kind == table and not found.strays and not found.remarks


def test_numbers_stay_the_text_that_they_are(tmp_path):
    lines = "".join(f"images/{i}.jpg,{label}\n" for i, label in enumerate(["10", "2", "02", "2", "10", "2"]))
    assert layout_of(tmp_path, {**FLAT, "labels.csv": "file,label\n" + lines}).classes == ("02", "10", "2")
    record = "".join(json.dumps({"file_name": name, "label": i % 2 == 1}) + "\n" for i, name in enumerate(FLAT))
    assert layout_of(tmp_path / "two", {**FLAT, "metadata.jsonl": record}).classes == ("false", "true")


def test_a_split_column(tmp_path):
    names = ["Train", "train", "training", "val", "valid", "TEST"]
    lines = "".join(f"{i}.jpg,{'dog' if i % 2 else 'cat'},{name}\n" for i, name in enumerate(names))
    found = layout_of(tmp_path, {**FLAT, "labels.csv": "file,label,split\n" + lines})
    splits = ["train", "train", "train", "val", "val", "test"]
    assert examples(found) == {
        name: f"{split}/{label}" for (name, label), split in zip(LABELS.items(), splits, strict=True)
    }
    headerless = {**FLAT, "labels.csv": lines}
    assert examples(layout_of(tmp_path / "two", headerless)) == examples(found)
    odd = {**FLAT, "labels.csv": "file,label,split\n" + lines.replace("TEST", "quiz")}
    with pytest.raises(
        UserError, match="split column of labels.csv has quiz, which is no known split.*split: {train: "
    ):
        layout_of(tmp_path / "three", odd)
    named = layout_of(tmp_path / "three", {}, splits={"train": "Train", "test": "quiz"})
    assert examples(named) == {"images/0.jpg": "train/cat", "images/5.jpg": "test/dog"}
    assert sorted(said(named)["left-out"]) == [
        f"what has the split {value} is left out (1 image)" for value in ("train", "training", "val", "valid")
    ]
    assert not named.strays
    empty = {**FLAT, "labels.csv": "file,label,split\n" + lines.replace("TEST", "")}
    assert layout_of(tmp_path / "four", empty).strays == {"images/5.jpg": "has no split in labels.csv"}


def vtab1k() -> dict[str, bytes | str]:
    """The form in which VTAB-1k is passed on, with 4 and 2 images."""
    files: dict[str, bytes | str] = {}
    lists: dict[str, list[str]] = {}
    for split, start, count in (("train800", 0, 4), ("val200", 4, 2), ("test", 6, 3)):
        for i in range(count):
            name, label = f"{split}/{i:06d}.jpg", start + i & 1
            files[f"images/{name}"] = content = f"{start + i}".encode()
            lists.setdefault(split, []).append(f"images/{name} {label}\n")
            if split != "test":
                union = f"images/train800val200/{start + i:06d}.jpg"
                files[union] = content
                lists.setdefault("train800val200", []).append(f"{union} {label}\n")
    return files | {f"{name}.txt": "".join(lines) for name, lines in lists.items()}


@pytest.mark.parametrize("outer", ["", "cifar/"])
def test_vtab1k_as_it_is_passed_on(tmp_path, outer):
    found = layout_of(tmp_path, {outer + name: data for name, data in vtab1k().items()})
    assert examples(found) == {
        **{f"images/train800/{i:06d}.jpg": f"train/{i & 1}" for i in range(4)},
        **{f"images/val200/{i:06d}.jpg": f"val/{i & 1}" for i in range(2)},
        **{f"images/test/{i:06d}.jpg": f"test/{i & 1}" for i in range(3)},
    }
    assert found.sources == ("test.txt", "train800.txt", "val200.txt") and not found.strays
    assert said(found) == {
        "unused-list": ["train800val200.txt is not used, since train800.txt and val200.txt are there"],
        "left-out": [
            "the folder images/train800val200 is left out, since train800.txt, val200.txt and test.txt list none of it "
            "(6 images)"
        ],
    }


def test_the_union_alone_is_train(tmp_path):
    files = {name: data for name, data in vtab1k().items() if "train800val200" in name or "test" in name}
    found = layout_of(tmp_path, files)
    assert found.splits == ["test", "train"] and len(found.entries) == 9 and not found.remarks


def test_named_tables(tmp_path):
    files = vtab1k() | {"other.csv": "file,label\nimages/test/000000.jpg,x\n"}
    lists = ("train800val200.txt", "test.txt")
    found = layout_of(tmp_path, files, labels=lists)
    assert found.sources == tuple(sorted(lists)) and found.splits == ["test", "train"] and len(found.entries) == 9
    with pytest.raises(
        UserError,
        match=r"other.csv, test.txt.* list images and classes.*`labels: \[test.txt, train800.txt, .*\]`",
    ):
        layout_of(tmp_path, {})
    with pytest.raises(UserError, match=r"no file test.text, which labels names \(did you mean test.txt\?\)"):
        layout_of(tmp_path, {}, labels=("test.text",))
    with pytest.raises(UserError, match="test.txt lists no image of train: add a list of train"):
        layout_of(tmp_path, {}, labels=("test.txt",))
    with pytest.raises(UserError, match="notes.txt, which labels names, lists no image of the folder"):
        layout_of(tmp_path, {"notes.txt": "hello world\n"}, labels=("notes.txt",))
    two = layout_of(
        tmp_path / "two", FLAT | {"a.csv": rows(), "b.csv": rows().replace("cat", "cow")}, labels=("b.csv",)
    )
    assert two.classes == ("cow", "dog")


def tiny_imagenet(n: int = 2) -> dict[str, bytes | str]:
    """The official tiny-imagenet-200, with two classes."""
    files: dict[str, bytes | str] = {"wnids.txt": "n01\nn02\n", "words.txt": "n01\tcat\nn02\tdog\n"}
    boxes = {"n01": "", "n02": ""}
    annotations = ""
    for wnid in boxes:
        for i in range(n):
            files[f"train/{wnid}/images/{wnid}_{i}.JPEG"] = b"x"
            boxes[wnid] += f"{wnid}_{i}.JPEG\t0\t0\t62\t63\n"
            files[f"val/images/val_{wnid}{i}.JPEG"] = b"v"
            annotations += f"val_{wnid}{i}.JPEG\t{wnid}\t0\t32\t44\t62\n"
    for i in range(3):
        files[f"test/images/test_{i}.JPEG"] = b"t"
    files |= {f"train/{wnid}/{wnid}_boxes.txt": text for wnid, text in boxes.items()}
    return files | {"val/val_annotations.txt": annotations}


@pytest.mark.parametrize("outer", ["", "tiny-imagenet-200/"])
def test_tiny_imagenet_as_it_is(tmp_path, outer):
    found = layout_of(tmp_path, {outer + name: data for name, data in tiny_imagenet().items()})
    assert examples(found) == {
        **{f"train/{wnid}/images/{wnid}_{i}.JPEG": f"train/{wnid}" for wnid in ("n01", "n02") for i in range(2)},
        **{f"val/images/val_{wnid}{i}.JPEG": f"val/{wnid}" for wnid in ("n01", "n02") for i in range(2)},
    }
    assert not found.strays and found.sources == ("val/val_annotations.txt",)
    assert said(found) == {"left-out": ["the folder test has no class folders and is left out (3 images)"]}
    assert found.kind == "class folders in train, and val/val_annotations.txt"


def test_tiny_imagenet_without_the_list_or_with_another(tmp_path):
    files = tiny_imagenet()
    del files["val/val_annotations.txt"]
    found = layout_of(tmp_path, files)
    assert found.splits == ["train"] and len(said(found)["left-out"]) == 2
    with pytest.raises(UserError, match="val_annotations.txt and the class folders have no class in common"):
        layout_of(tmp_path, {"val/val_annotations.txt": "val_n010.JPEG\tcat\nval_n020.JPEG\tdog\n"})
    found = layout_of(
        tmp_path, {"val/val_annotations.txt": "val_n010.JPEG\tn01\nval_n020.JPEG\tn02\nval_9.JPEG\tn01\n"}
    )
    assert found.strays == {
        "val/images/val_n011.JPEG": "is not listed in val/val_annotations.txt",
        "val/images/val_n021.JPEG": "is not listed in val/val_annotations.txt",
        "val_9.JPEG": "is listed in val/val_annotations.txt and does not exist",
    }


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_metadata_in_each_split(tmp_path, suffix):
    files: dict[str, bytes | str] = {}
    for split in ("train", "validation", "test"):
        records = [(f"{i}.png", "cat" if i % 2 else "dog") for i in range(4)]
        files |= {f"{split}/{name}": split.encode() for name, _ in records}
        if suffix == "csv":
            files[f"{split}/metadata.csv"] = "file_name,label\n" + "".join(f"{a},{b}\n" for a, b in records)
        else:
            lines = [json.dumps({"file_name": a, "label": b}) for a, b in records]
            files[f"{split}/metadata.jsonl"] = "\n".join(lines)
    found = layout_of(tmp_path, files)
    assert examples(found) == {
        f"{folder}/{i}.png": f"{split}/{'cat' if i % 2 else 'dog'}"
        for folder, split in (("train", "train"), ("validation", "val"), ("test", "test"))
        for i in range(4)
    }
    assert len(found.sources) == 3 and not found.strays


def test_a_table_of_images_in_folders_of_splits(tmp_path):
    files: dict[str, bytes | str] = images("train", "test", n=3)
    files["labels.csv"] = "file,label\n" + "".join(f"{name},{i % 2}\n" for i, name in enumerate(files))
    assert layout_of(tmp_path, files).splits == ["test", "train"]
    kaggle = files | {"labels.csv": "id,label\n" + "".join(f"train/{i},{i % 2}\n" for i in range(3))}
    kaggle |= {"sample_submission.csv": "id,label\n" + "".join(f"test/{i},0\n" for i in range(3))}
    found = layout_of(tmp_path / "two", kaggle)
    assert found.splits == ["train"] and len(found.entries) == 3
    assert said(found) == {"left-out": ["the folder test is left out, since labels.csv lists none of it (3 images)"]}
    mixed = files | images("more", n=1) | {"labels.csv": files["labels.csv"] + "more/0.png,1\n"}
    with pytest.raises(UserError, match="list images in test and train and in more: give them a column split"):
        layout_of(tmp_path / "three", mixed)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("file,label\nimages/0.jpg,cat\nimages/0.jpg,dog\n", "images/0.jpg is listed twice, with class cat and dog"),
        ("file,label,split\n0.jpg,cat,train\n0.jpg,cat,test\n", "listed twice, with split train and test"),
        ("file,label\nx.jpg,cat\ny.jpg,dog\n", r"none of the 2 files that labels.csv lists is there \(x.jpg first\)"),
        ("file,label\n0.jpg,\n1.jpg,\n", "labels.csv gives no image a class"),
        ("file,label\n" + "".join(f"{i}.jpg,text {i}\n" for i in range(6)), "gives every image a class of its own"),
        ("file,category,species\n0.jpg,a,x\n1.jpg,b,x\n", "any of the columns category and species can be the class"),
        ("0.jpg,cat,3,x\n1.jpg,dog,4,y\n", "labels.csv has 4 columns without headers: write headers"),
        (
            "file,text\n0.jpg,a cat\n1.jpg,a dog\n",
            r"labels.csv has no column of classes: call one label \(it has file and",
        ),
        (
            "picture,label\n0.jpg,cat\n1.jpg,dog\n",
            r"labels.csv has no column for the files: call one .*picture and label",
        ),
        (b"file,label\n0.jpg,\xe9\n", "labels.csv is not UTF-8 text: save it as UTF-8"),
    ],
)
def test_tables_that_will_not_do(tmp_path, table, message):
    with pytest.raises(UserError, match=message):
        layout_of(tmp_path, {**FLAT, "labels.csv": table})


def test_what_is_listed_and_missing_or_there_and_not_listed_is_said(tmp_path):
    files = FLAT | images("test", "junk/more") | {"labels.csv": "file,label\n0.jpg,cat\n1.jpg,dog\n2.jpg,\n9.jpg,cat\n"}
    found = layout_of(tmp_path, files)
    assert examples(found) == {"images/0.jpg": "cat", "images/1.jpg": "dog"}
    assert found.strays == {
        "images/2.jpg": "has no label in labels.csv",
        "9.jpg": "is listed in labels.csv and does not exist",
        **{f"images/{i}.jpg": "is not listed in labels.csv" for i in (3, 4, 5)},
    }
    assert said(found)["left-out"] == [
        f"the folder {name} is left out, since labels.csv lists none of it (2 images)" for name in ("junk", "test")
    ]


def test_paths_that_mean_two_files(tmp_path):
    files: dict[str, bytes | str] = images("images/x", "images/y")
    bare = files | {"labels.csv": "file,label\n0.png,cat\n1.png,dog\n"}
    with pytest.raises(UserError, match="0.png can be images/x/0.png or images/y/0.png: write the whole path"):
        layout_of(tmp_path, bare, labels=("labels.csv",))
    whole = files | {"labels.csv": "file,label\nx/0.png,cat\ny/0.png,dog\nx/1,cat\n../images/y/1.png,dog\n"}
    found = layout_of(tmp_path / "two", whole, labels=("labels.csv",))
    assert {name.split("/", 1)[1]: label for name, label in examples(found).items()} == {
        "x/0.png": "cat",
        "y/0.png": "dog",
        "x/1.png": "cat",
        "y/1.png": "dog",
    }
    # A file of another folder is not taken for one that is missing.
    gone = files | {"labels.csv": "file,label\nz/0.png,cat\nx/0.png,cat\ny/0.png,dog\n"}
    assert "z/0.png" in layout_of(tmp_path / "three", gone, labels=("labels.csv",)).strays
    both = {"images/a.png": b"1", "images/a.jpg": b"2", "images/b.png": b"3"}
    with pytest.raises(UserError, match="a can be images/a.jpg or images/a.png"):
        layout_of(tmp_path / "four", both | {"labels.csv": "id,label\na,cat\nb,dog\n"})
    case = {"images/A.png": b"1", "images/a.png": b"2", "labels.csv": "file,label\nA.png,cat\na.png,dog\n"}
    assert examples(layout_of(tmp_path / "five", case)) == {"images/A.png": "cat", "images/a.png": "dog"}


CLASSES = images("cat", "dog", n=3)


def test_a_table_that_says_the_same_as_the_folders(tmp_path):
    table = "file,label\n" + "".join(f"{name},{name.split('/')[0] == 'dog':d}\n" for name in CLASSES)
    found = layout_of(tmp_path, {**CLASSES, "labels.csv": table})
    assert found.classes == ("cat", "dog") and found.kind == "class folders" and found.sources == ("labels.csv",)
    found = layout_of(tmp_path / "two", {**CLASSES, "labels.csv": table + "gone.png,1\n"})
    assert said(found) == {
        "listed-only": ["1 rows of a table are of no image: gone.png is listed in labels.csv and does not exist"]
    }
    wrong = table.replace("cat/2.png,0", "cat/2.png,1")
    with pytest.raises(
        UserError, match=r"cat/2.png lies in the folder cat and is 1 in labels.csv.*`labels: labels.csv`"
    ):
        layout_of(tmp_path / "three", {**CLASSES, "labels.csv": wrong})
    found = layout_of(tmp_path / "three", {}, labels=("labels.csv",))
    assert found.classes == ("0", "1") and examples(found)["cat/2.png"] == "1" and found.kind == "labels.csv"


def test_a_table_that_adds_splits_to_class_folders(tmp_path):
    table = "file,split\n" + "".join(f"{name},{'test' if '2' in name else 'train'}\n" for name in CLASSES)
    found = layout_of(tmp_path, {**CLASSES, "splits.csv": table})
    assert examples(found) == {name: f"{'test' if '2' in name else 'train'}/{name.split('/')[0]}" for name in CLASSES}
    assert found.kind == "class folders with the splits of splits.csv"
    food = {f"images/{name}": data for name, data in CLASSES.items()}
    food |= {
        "meta/train.txt": "cat/0\ncat/1\ndog/0\n",
        "meta/test.txt": "cat/2\ndog/2\n",
        "meta/classes.txt": "cat\ndog\n",
    }
    found = layout_of(tmp_path / "two", food)
    assert sorted(examples(found).values()) == ["test/cat", "test/dog", "train/cat", "train/cat", "train/dog"]
    assert found.strays == {"images/dog/1.png": "is not listed in meta/train.txt and meta/test.txt"}
    # The ten splits of DTD: none of them is meant.
    dtd = {f"images/{name}": data for name, data in CLASSES.items()}
    dtd |= {f"labels/{split}{i}.txt": "cat/0.png\ndog/0.png\n" for split in ("train", "test") for i in (1, 2)}
    found = layout_of(tmp_path / "three", dtd)
    assert found.splits == [""] and len(found.entries) == 6
    assert said(found) == {
        "no-images": ["the folder labels is without images"],
        "unused-list": [
            "labels/test1.txt, labels/test2.txt, labels/train1.txt and 1 more list images but are not used"
        ],
    }


def test_a_table_against_the_folders_of_splits(tmp_path):
    files = images("train/cat", "train/dog", "test/cat", "test/dog")
    table = "file,split\n" + "".join(f"{name},{name.split('/')[0]}\n" for name in files)
    found = layout_of(tmp_path, {**files, "splits.csv": table})
    assert found.kind == "class folders in train and test" and found.sources == ("splits.csv",)
    wrong = table.replace("train/cat/0.png,train", "train/cat/0.png,test")
    with pytest.raises(UserError, match="train/cat/0.png is of test in splits.csv, and of train by its folder"):
        layout_of(tmp_path / "two", {**files, "splits.csv": wrong})


def test_two_folders_of_images_with_a_table_are_no_classes_without_a_word(tmp_path):
    files: dict[str, bytes | str] = images("part_1", "part_2", n=3)
    files["metadata.csv"] = "image_id,dx\n" + "".join(f"{i},{'nv' if i % 2 else 'mel'}\n" for i in range(3))
    files |= {f"part_2/{i + 3}.png": files.pop(f"part_2/{i}.png") for i in range(3)}
    files["metadata.csv"] += "".join(f"{i},{'nv' if i % 2 else 'mel'}\n" for i in range(3, 6))
    with pytest.raises(UserError, match=r"part_1/1.png lies in the folder part_1 and is nv in metadata.csv"):
        layout_of(tmp_path, files)
    assert layout_of(tmp_path, {}, labels=("metadata.csv",)).classes == ("mel", "nv")


def test_notes_beside_images_are_no_tables(tmp_path):
    notes = {f"cat/{i}.txt": "0 0.5 0.5 0.1 0.1" for i in range(30)}
    found = layout_of(tmp_path, {**CLASSES, **notes})
    assert not found.sources and len(found.entries) == 6 + 30


def test_an_index_of_the_images_is_no_table_of_classes(tmp_path):
    """CUB-200-2011 numbers its images in images.txt; the lists of Oxford-IIIT Pet have three numbers."""
    index = "".join(f"{number} {name}\n" for number, name in enumerate(CLASSES, 1))
    found = layout_of(tmp_path, {**CLASSES, "images.txt": index, "README.txt": "hello\nworld\n"})
    assert found.classes == ("cat", "dog")
    assert said(found) == {"unused-list": ["images.txt lists images but is not used"]}
    with pytest.raises(UserError, match=r"label; images.txt gives every image a class of its own \(0, 1, 2 and 3 more"):
        layout_of(tmp_path / "two", FLAT | {"images.txt": rows("images/{0}.jpg {0}", ""), "README.txt": "hello\n"})
    with pytest.raises(UserError, match="labels.csv gives every image a class of its own"):
        layout_of(tmp_path / "two", {"labels.csv": rows("{0}.jpg,{0}")}, labels=("labels.csv",))
    pets = FLAT | {"annotations/trainval.txt": rows("{0} 1 1 2", ""), "annotations/test.txt": rows("{0} 2 1 2", "")}
    with pytest.raises(UserError, match="annotations/test.txt has 4 columns without headers"):
        layout_of(tmp_path / "three", pets)
    spaced = FLAT | {"labels.txt": rows("{0}.jpg {1} of mine", "")}
    assert layout_of(tmp_path / "four", spaced).classes == ("cat of mine", "dog of mine")


def test_traffic_signs_with_a_table_for_each_folder(tmp_path):
    """GTSRB as Kaggle has it: Train/<class>, Test flat with Test.csv, pictograms in Meta with Meta.csv."""
    train = images("Train/0", "Train/1", n=3)
    files: dict[str, bytes | str] = {**train, **images("Test", n=4), **images("Meta")}
    head = "Width,Height,ClassId,Path\n"
    files["Train.csv"] = head + "".join(f"29,30,{name.split('/')[1]},{name}\n" for name in train)
    files["Test.csv"] = head + "".join(f"29,30,{i % 2},Test/{i}.png\n" for i in range(4))
    files["Meta.csv"] = head + "".join(f"29,30,{i},Meta/{i}.png\n" for i in range(2))
    with pytest.raises(
        UserError, match=r"Meta.csv, Test.csv and Train.csv list images.*`labels: \[Test.csv, Train.csv\]`"
    ):
        layout_of(tmp_path, files)
    found = layout_of(tmp_path, {}, labels=("Train.csv", "Test.csv"))
    assert (
        sorted(set(examples(found).values())) == ["test/0", "test/1", "train/0", "train/1"] and len(found.entries) == 10
    )
    assert said(found) == {
        "left-out": ["the folder Meta is left out, since Train.csv and Test.csv list none of it (2 images)"]
    }
