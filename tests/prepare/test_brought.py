"""What a person has to bring, with a look at what is there."""

import re
from pathlib import Path

import pytest

from vtabflow.errors import UserError
from vtabflow.prepare.tfds import acquire
from vtabflow.prepare.tfds import manual as by_hand
from vtabflow.prepare.tfds.datasets import DATASETS


@pytest.fixture
def places(tmp_path):
    return {name: str(tmp_path / name) for name in ("tfds", "downloads", "manual")}


def lay(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


CLASSES = ["airplane", "airport", *(f"class_{i}" for i in range(43))]


def test_automatic_datasets_ask_for_nothing(places):
    assert [name for name in (*DATASETS, "imagenet") if by_hand.missing_by_hand(name, places)] == [
        "resisc45",
        "diabetic-retinopathy",
        "imagenet",
    ]


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (
            [],
            r"download NWPU-RESISC45.rar .* from https://1drv.ms/.*manual/NWPU-RESISC45/airplane/airplane_001.jpg is there",
        ),
        (["NWPU-RESISC45.rar"], "NWPU-RESISC45.rar is there and not unpacked"),
        (["resisc45/NWPU-RESISC45.rar"], "resisc45/NWPU-RESISC45.rar is there and not unpacked"),
        (["airplane/airplane_001.jpg"], "the class folders lie in .*manual itself"),
        (
            ["resisc45/airplane/a.jpg"],
            "the class folders lie in .*manual/resisc45: move or rename that folder to .*/NWPU-RESISC45",
        ),
        (["resisc45/NWPU-RESISC45/airplane/a.jpg"], "lie in .*manual/resisc45/NWPU-RESISC45: move"),
        (
            ["NWPU-RESISC45/NWPU-RESISC45/airplane/a.jpg"],
            "nested: move what is in .*NWPU-RESISC45/NWPU-RESISC45 one level up",
        ),
        ([f"NWPU-RESISC45/{n}/{n}/a.jpg" for n in CLASSES], "doubled"),
        ([f"NWPU-RESISC45/{n}/a.jpg" for n in CLASSES[1:]], "has 44 class folders and should have 45"),
        (
            [*(f"NWPU-RESISC45/{n}/a.jpg" for n in CLASSES), "NWPU-RESISC45/.cache/x"],
            r"folders that are no classes \(.cache\): remove",
        ),
        ([f"NWPU-RESISC45/{n}/a.jpg" for n in (*CLASSES, "copy")], "has 46 class folders and should have 45: remove"),
        ([f"NWPU-RESISC45/{n}/a.{'jpg' if i else 'png'}" for i, n in enumerate(CLASSES)], r"\(airplane has 0\)"),
    ],
)
def test_resisc45_is_looked_at(places, files, said):
    lay(Path(places["manual"]), *files)
    found = by_hand.missing_by_hand("resisc45", places)
    assert len(found) == 1 and re.search(said, found[0]) and found[0].startswith("resisc45: ")
    with pytest.raises(UserError, match=said):
        acquire.fetch(DATASETS["resisc45"], places)


def test_resisc45_that_is_there(places):
    lay(Path(places["manual"]), *(f"NWPU-RESISC45/{name}/a.jpg" for name in CLASSES))
    assert by_hand.missing_by_hand(DATASETS["resisc45"], places) == []
    assert "airplane has 1" in by_hand.missing_by_hand("resisc45", places, "official")[0]


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ([], ["download train.zip, test.zip .*kaggle.com"]),
        (["diabetic-retinopathy/trainLabels.csv"], ["the files lie in .*diabetic-retinopathy: move"]),
        (
            ["trainLabels.csv.zip", "train.zip.001", "train.zip.002", "test/1_left.jpeg", "sample/sample/1.jpeg"],
            [
                "trainLabels.csv.zip is there and not unpacked",
                r"train.zip.001, train.zip.002 .*cat train.zip.\*",
                "nested: .*sample/sample",
            ],
        ),
        (["trainLabels.csv", "train/1_left.jpeg", "test/1.jpeg"], ["sample has no .jpeg file"]),
        (
            ["trainLabels.csv", "train/1_left.jpeg", "test/1.jpeg", "sample/1.jpeg"],
            [r"2 images of .*trainLabels.csv .*\(2_left, 3_left\)"],
        ),
    ],
)
def test_retinopathy_is_looked_at(places, files, said):
    root = Path(places["manual"])
    lay(root, *files)
    if (root / "trainLabels.csv").exists():
        (root / "trainLabels.csv").write_text("image,level\n1_left,0\n2_left,1\n3_left,0\n")
    found = by_hand.missing_by_hand("diabetic-retinopathy", places)
    assert len(found) == len(said) and all(re.search(part, text) for part, text in zip(said, found, strict=True))
    lay(
        root,
        *(f"{folder}/{name}.jpeg" for folder in ("train", "test", "sample") for name in ("1_left", "2_left", "3_left")),
    )
    (root / "trainLabels.csv").write_text("image,level\n1_left,0\n2_left,1\n3_left,0\n")
    assert by_hand.missing_by_hand("diabetic-retinopathy", places) == []


def test_records_of_a_version_that_cannot_be_read_are_none(places):
    lay(Path(places["tfds"]), "resisc45/2.0.0/dataset_info.json")
    assert by_hand.missing_by_hand("resisc45", places)
    lay(Path(places["tfds"]), "resisc45/3.0.0/dataset_info.json")
    assert by_hand.missing_by_hand("resisc45", places) == []


def test_imagenet_records_are_those_that_prepare_reads(places):
    from vtabflow.prepare.imagenet.source import DATASET

    assert (DATASET.version, *DATASET.readable) == by_hand.IMAGENET_VERSIONS
    lay(Path(places["tfds"]), "imagenet2012/3.0.0/dataset_info.json", "imagenet2012/2.0.1/dataset_info.json")
    assert len(by_hand.missing_by_hand("imagenet", places)) == 2
    lay(Path(places["tfds"]), "imagenet2012/5.0.0/dataset_info.json")
    assert by_hand.missing_by_hand("imagenet", places) == []


def test_imagenet_is_looked_at(places):
    root = Path(places["manual"])
    lay(root, "imagenet/ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar")
    assert "move" in by_hand.missing_by_hand("imagenet", places)[0]
    lay(root, "ILSVRC2012_img_train.tar")
    assert by_hand.missing_by_hand("imagenet", places) == []
    found = by_hand.missing_by_hand("imagenet", places, "official")
    assert "0 bytes and should have 147,897,477,120" in found[0] and "6,744,924,160" in found[1]
    assert by_hand.missing_by_hand("imagenet", {**places, "manual": "nowhere", "tree": "some/tree"}) == []
    lay(Path(places["tfds"]), "imagenet2012/5.1.0/dataset_info.json")
    assert by_hand.missing_by_hand("imagenet", {**places, "manual": "nowhere"}) == []
