"""The paths and addresses of data in a study: paths below the home folder, and mirrors."""

import json

import pytest
import yaml
from PIL import Image

from vtabflow.contracts.typed_json import to_json
from vtabflow.errors import UserError
from vtabflow.planning.keys import plan
from vtabflow.planning.settings import Imagenet, Prepare, Subset
from vtabflow.planning.study import Study, load


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def test_a_tilde_is_the_home_folder(home):
    names = ("folder", "downloads", "manual", "checksums")
    given = {"tfds": {name: f"~/{name}" for name in names}, "folders": {"cats": {"path": "~/cats.zip"}}}
    read = Prepare.model_validate({**given, "imagenet": {"tree": "~/ILSVRC/train"}})
    assert {name: getattr(read.tfds, name) for name in names} == {name: f"{home}/{name}" for name in names}
    assert read.folders["cats"].path == f"{home}/cats.zip" and read.imagenet.tree == f"{home}/ILSVRC/train"
    assert Subset(file="~/1percent.txt").file == f"{home}/1percent.txt"
    for place in ("data/~/tree", "/mnt/tree", "tree~"):
        assert Imagenet(tree=place).tree == place


def test_the_path_of_a_folder_is_in_no_key(home, smoke, tmp_path):
    for name, colour in (("cats", "red"), ("dogs", "blue")):
        (home / "pets" / name).mkdir(parents=True)
        for i in range(10):
            Image.new("RGB", (8, 8), colour).resize((8 + i, 8)).save(home / "pets" / name / f"{i}.png")
    cells = []
    for path in ("~/pets", f"{home}/pets", "home/pets"):
        prepare = {**smoke["prepare"], "folders": {"pets": {"path": path}}}
        made = plan(Study.model_validate({**smoke, "tasks": ["pets"], "prepare": prepare}), tmp_path)
        cells.append(set(made.cells))
        assert "~" not in json.dumps(to_json(list(made.stores.values())))
    assert cells[0] == cells[1] == cells[2]


def refused(tmp_path, smoke, **tfds) -> str:
    (tmp_path / "params.yaml").write_text(yaml.safe_dump({**smoke, "prepare": {**smoke["prepare"], "tfds": tfds}}))
    with pytest.raises(UserError) as error:
        load(tmp_path / "params.yaml")
    return str(error.value)


def test_the_home_of_an_unknown_user_is_refused(tmp_path, smoke):
    message = refused(tmp_path, smoke, folder="~nobody-of-that-name/tfds")
    assert "prepare.tfds.folder: ~nobody-of-that-name/tfds begins with the home of an unknown user" in message


@pytest.mark.parametrize(
    "mirror", ["gopher://a.org/", "https://[bad", "http://a.org:port/", "http://a.org:99999/", "/mnt/mirror", "a.org"]
)
def test_a_mirror_is_checked_when_the_study_is_loaded(tmp_path, smoke, mirror):
    message = refused(tmp_path, smoke, mirrors={"https://a/": mirror})
    assert f"prepare.tfds.mirrors.https://a/: {mirror} is not an http, https or file address; write" in message


def test_mirrors_that_can_be_fetched_from(smoke):
    good = {
        "https://a/": "https://b/",
        "https://c/": "file:///mnt/My Disk/",
        "http://": "https://",
        "https://d": "HTTP://e:81",
    }
    assert Prepare.model_validate({"tfds": {"mirrors": good}}).tfds.mirrors == good
