"""Forms that are not read: refused by name, and the recipes of docs/own-images.md make folders that are read."""

import json
import os
import re
from pathlib import Path

import pandas
import pytest
from small_folders import encoded, noise, write_files
from test_layout import examples, images, layout_of

from vtabflow.errors import UserError

ROOT = Path(__file__).parents[2]
RECIPES = re.findall(r"```python\n(.*?)```", (ROOT / "docs/own-images.md").read_text(encoding="utf-8"), re.S)
COCO = {
    "info": {"year": 2026},
    "images": [{"id": 7 + i, "file_name": f"{i}.jpg", "height": 8, "width": 8} for i in range(4)],
    "annotations": [
        {"id": number, "image_id": 7 + image, "category_id": kind, "bbox": [0, 0, 1, 1]}
        for number, (image, kind) in enumerate([(0, 1), (0, 1), (1, 2), (2, 1), (2, 2), (3, 1)])
    ],
    "categories": [{"id": 1, "name": "cat", "supercategory": "animal"}, {"id": 2, "name": "dog"}],
}
LABELS = {0: "cat", 1: "dog", 3: "cat"}  # image 2 has both


def voc(*names: str) -> str:
    objects = "".join(f"<object><name>{name}</name></object>" for name in names)
    return f"<annotation><filename>x.jpg</filename>{objects}</annotation>"


def coco_folder() -> dict[str, bytes | str]:
    return {f"images/{i}.jpg": b"x" for i in range(4)} | {"annotations/instances_train.json": json.dumps(COCO)}


def voc_folder() -> dict[str, bytes | str]:
    annotations = [voc("cat", "cat"), voc("dog"), voc("cat", "dog"), voc("cat")]
    files: dict[str, bytes | str] = {f"JPEGImages/{i}.jpg": b"x" for i in range(4)}
    files |= {f"Annotations/{i}.xml": text for i, text in enumerate(annotations)}
    return files | {"ImageSets/Main/train.txt": "0\n1\n", "ImageSets/Main/cat_train.txt": "0 1\n1 -1\n"}


def parquet_folder(path: Path) -> None:
    (path / "data").mkdir(parents=True)
    for split, start in (("train", 0), ("test", 3)):
        rows = [{"image": {"bytes": encoded(noise()), "path": None}, "label": (start + i) % 2} for i in range(3)]
        pandas.DataFrame(rows).to_parquet(path / f"data/{split}-00000-of-00001.parquet")


@pytest.mark.parametrize("outer", ["", "archive/"])
@pytest.mark.parametrize(
    ("files", "message"),
    [
        (coco_folder(), r"form of COCO \(annotations/instances_train.json\).*own-images.md"),
        (
            images("train", "valid") | {"train/_annotations.coco.json": json.dumps(COCO)},
            r"form of COCO \(train/_annotations",
        ),
        (images("train2017", "val2017") | {"annotations/a.json": json.dumps(COCO)}, "form of COCO"),
        (voc_folder(), r"form of Pascal VOC \(Annotations/0.xml\).*labels.csv.*own-images.md"),
        (
            images("a/images", "b/images", n=1) | {"a/images/0.txt": "0 1 1 1 1", "a/labels/0.txt": "0 1 1 1 1"},
            r"form of YOLO \(a/labels/0.txt\)",
        ),
        (images("images") | {f"labels/{i}.txt": "0 0.5 0.5 0.1 0.1" for i in range(2)}, "form of YOLO"),
    ],
)
def test_annotations_of_objects_are_refused_by_name(tmp_path, files, message, outer):
    with pytest.raises(UserError, match=message):
        layout_of(tmp_path, {outer + name: data for name, data in files.items()})


def test_other_json_and_xml_say_nothing(tmp_path):
    files = images("cat", "dog") | {"info.json": '{"images": 3, "classes": ["cat"]}', "broken.json": "{"}
    files["list.json"] = '{"images": ["cat/0.png"]}'
    assert layout_of(tmp_path, files).classes == ("cat", "dog")


def test_a_table_beside_other_annotations_is_read(tmp_path):
    files = coco_folder() | {"labels.csv": "file,label\n0.jpg,cat\n1.jpg,dog\n"}
    assert layout_of(tmp_path, files).classes == ("cat", "dog")


def run(recipe: str, path: Path) -> None:
    here = os.getcwd()
    os.chdir(path)
    try:
        exec(compile(recipe, "own-images.md", "exec"), {})
    finally:
        os.chdir(here)


def test_there_are_three_recipes_of_about_ten_lines():
    assert len(RECIPES) == 3 and all(len(recipe.strip().splitlines()) <= 12 for recipe in RECIPES)


@pytest.mark.parametrize(
    ("recipe", "files", "folder"), [(RECIPES[0], coco_folder(), "images"), (RECIPES[1], voc_folder(), "JPEGImages")]
)
def test_the_recipes_for_objects(tmp_path, recipe, files, folder):
    write_files(tmp_path, {name: data.encode() if isinstance(data, str) else data for name, data in files.items()})
    run(recipe, tmp_path)
    found = layout_of(tmp_path, {})
    assert examples(found) == {f"{folder}/{i}.jpg": label for i, label in LABELS.items()}
    assert found.strays == {f"{folder}/2.jpg": "is not listed in labels.csv"} and found.sources == ("labels.csv",)


def test_the_recipe_for_parquet(tmp_path):
    parquet_folder(tmp_path)
    with pytest.raises(UserError, match=r"images in Parquet \(data/test-00000-of-00001.parquet\).*own-images.md"):
        layout_of(tmp_path, {})
    run(RECIPES[2], tmp_path)
    found = layout_of(tmp_path / "images", {})
    assert sorted(examples(found).values()) == ["test/0", "test/1", "test/1", "train/0", "train/0", "train/1"]
