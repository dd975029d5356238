"""Manual downloads: what is still to do, by what is in the folder."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from vtabflow.contracts.specs import Places
from vtabflow.errors import UserError
from vtabflow.prepare.tfds import acquire, manual
from vtabflow.prepare.tfds.datasets import datasets


@pytest.fixture
def places(tmp_path):
    return Places(*(str(tmp_path / name) for name in ("tfds", "downloads", "manual")), None, {})


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


CLASSES = ["airplane", "airport", *(f"class_{i}" for i in range(43))]


def test_automatic_datasets_ask_for_nothing(places):
    assert [name for name in (*datasets(), "imagenet") if manual.missing_downloads(name, places)] == [
        "resisc45",
        "diabetic-retinopathy",
        "imagenet",
    ]


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (
            [],
            r"download NWPU-RESISC45.rar .* from https://1drv.ms/.*/airplane/airplane_001.jpg is there",
        ),
        (["NWPU-RESISC45.rar"], "NWPU-RESISC45.rar is there and not unpacked"),
        (["resisc45/NWPU-RESISC45.rar"], "resisc45/NWPU-RESISC45.rar is there and not unpacked"),
        (["airplane/airplane_001.jpg"], "the class folders are in .*manual: move them to .*/NWPU-RESISC45"),
        (
            ["resisc45/airplane/a.jpg"],
            "the class folders are in .*manual/resisc45: move them to .*/NWPU-RESISC45",
        ),
        (["resisc45/NWPU-RESISC45/airplane/a.jpg"], "are in .*manual/resisc45/NWPU-RESISC45: move"),
        (
            ["NWPU-RESISC45/NWPU-RESISC45/airplane/a.jpg"],
            "NWPU-RESISC45/NWPU-RESISC45 is nested: move what is in it one level up",
        ),
        ([f"NWPU-RESISC45/{n}/{n}/a.jpg" for n in CLASSES], "airplane/airplane, .* and 42 more is nested"),
        ([f"NWPU-RESISC45/{n}/a.jpg" for n in CLASSES[1:]], "has 44 class folders and should have 45"),
        (
            [*(f"NWPU-RESISC45/{n}/a.jpg" for n in CLASSES), "NWPU-RESISC45/.cache/x"],
            "46 class folders and should have 45; .cache have no .jpg file: remove",
        ),
        ([f"NWPU-RESISC45/{n}/a.jpg" for n in (*CLASSES, "copy")], "has 46 class folders and should have 45: remove"),
        ([f"NWPU-RESISC45/{n}/a.{'jpg' if i else 'png'}" for i, n in enumerate(CLASSES)], r"\(airplane has 0\)"),
    ],
)
def test_faults_of_resisc45_are_named(places, files, expected):
    touch(Path(places.manual), *files)
    found = manual.missing_downloads("resisc45", places)
    assert len(found) == 1 and re.search(expected, found[0]) and found[0].startswith("resisc45: ")
    with pytest.raises(UserError, match=expected):
        acquire.fetch(datasets()["resisc45"], places)


def test_resisc45_that_is_complete(places):
    touch(Path(places.manual), *(f"NWPU-RESISC45/{name}/a.jpg" for name in CLASSES))
    assert manual.missing_downloads("resisc45", places) == []
    assert "airplane has 1" in manual.missing_downloads("resisc45", places, "official")[0]


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ([], ["download train.zip, test.zip .*kaggle.com"]),
        (["diabetic-retinopathy/trainLabels.csv"], ["the files are in .*diabetic-retinopathy: move"]),
        (
            ["trainLabels.csv.zip", "train.zip.001", "train.zip.002", "test/1_left.jpeg", "sample/sample/1.jpeg"],
            [
                "trainLabels.csv.zip is there and not unpacked",
                r"train.zip.001, train.zip.002 .*cat train.zip.\*",
                "sample/sample is nested",
            ],
        ),
        (["trainLabels.csv", "train/1_left.jpeg", "test/1.jpeg"], ["sample has no .jpeg file"]),
        (
            ["trainLabels.csv", "train/1_left.jpeg", "test/1.jpeg", "sample/1.jpeg"],
            [r"2 images of .*trainLabels.csv .*\(2_left, 3_left\)"],
        ),
    ],
)
def test_faults_of_retinopathy_are_named(places, files, expected):
    root = Path(places.manual)
    touch(root, *files)
    if (root / "trainLabels.csv").exists():
        (root / "trainLabels.csv").write_text("image,level\n1_left,0\n2_left,1\n3_left,0\n")
    found = manual.missing_downloads("diabetic-retinopathy", places)
    assert len(found) == len(expected) and all(
        re.search(part, text) for part, text in zip(expected, found, strict=True)
    )
    touch(
        root,
        *(f"{folder}/{name}.jpeg" for folder in ("train", "test", "sample") for name in ("1_left", "2_left", "3_left")),
    )
    (root / "trainLabels.csv").write_text("image,level\n1_left,0\n2_left,1\n3_left,0\n")
    assert manual.missing_downloads("diabetic-retinopathy", places) == []


def test_records_of_another_version_do_not_count(places):
    touch(Path(places.tfds), "resisc45/2.0.0/dataset_info.json")
    assert manual.missing_downloads("resisc45", places)
    touch(Path(places.tfds), "resisc45/3.0.0/dataset_info.json")
    assert manual.missing_downloads("resisc45", places) == []


def test_imagenet_records_are_those_that_prepare_reads(places):
    touch(Path(places.tfds), "imagenet2012/3.0.0/dataset_info.json", "imagenet2012/2.0.1/dataset_info.json")
    assert len(manual.missing_downloads("imagenet", places)) == 2
    touch(Path(places.tfds), "imagenet2012/5.0.0/dataset_info.json")
    assert manual.missing_downloads("imagenet", places) == []


def test_faults_of_imagenet_are_named(places):
    root = Path(places.manual)
    touch(root, "imagenet/ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar")
    assert "move" in manual.missing_downloads("imagenet", places)[0]
    touch(root, "ILSVRC2012_img_train.tar")
    assert manual.missing_downloads("imagenet", places) == []
    found = manual.missing_downloads("imagenet", places, "official")
    assert "0 bytes and should have 147,897,477,120" in found[0] and "6,744,924,160" in found[1]
    assert manual.missing_downloads("imagenet", replace(places, manual="nowhere", tree="some/tree")) == []
    touch(Path(places.tfds), "imagenet2012/5.1.0/dataset_info.json")
    assert manual.missing_downloads("imagenet", replace(places, manual="nowhere")) == []
