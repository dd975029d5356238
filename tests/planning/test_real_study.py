"""Studies of the real VTAB: their stores, manual downloads, and what is left out without them."""

import json
from pathlib import Path

import pytest
import yaml
from alter import changed
from PIL import Image

from vtabflow.contracts.specs import LeftOut
from vtabflow.errors import UserError
from vtabflow.methods.patches import grid_at
from vtabflow.planning.keys import plan
from vtabflow.planning.overview import collect_garbage
from vtabflow.planning.study import Study
from vtabflow.planning.tasks import vtab
from vtabflow.prepare.tfds.datasets import datasets


@pytest.fixture
def raw(root) -> dict:
    return yaml.safe_load((root / "studies/vtab.yaml").read_text())


def made(raw, root, **settings):
    for place, value in settings.items():
        raw = changed(raw, place.replace("__", "."), value)
    return plan(Study.model_validate(raw), root)


def test_the_whole_study(raw, tmp_path):
    """18 methods x 19 tasks x 2 budgets, 16 datasets and ImageNet; 1,000 examples are the first of the full store."""
    whole = made(raw, tmp_path)
    assert len(whole.cells) == 18 * 19 * 2 and len(whole.stores) == 16 + 1 and len(whole.encoders) == 18
    stores = {spec.dataset: spec for spec in whole.stores.values()}
    assert {task for spec in stores.values() for task in spec.tasks} == set(vtab()) | {"imagenet"}
    assert stores["clevr"].classes == {"clevr-count": 8, "clevr-distance": 6}
    assert stores["imagenet"].source == "imagenet" and stores["imagenet"].classes == {"imagenet": 1000}
    small = made(raw, tmp_path, budgets=["1k"])
    assert {spec.rows for spec in small.stores.values() if spec.source == "tfds"} == {"1k"}
    assert set(small.cells) < set(whole.cells)


def test_where_things_lie_is_in_no_key(raw, tmp_path):
    known = made(raw, tmp_path)
    elsewhere = made(
        raw,
        tmp_path,
        prepare__tfds__folder="elsewhere",
        prepare__tfds__mirrors={"https://a/": "https://b/"},
        prepare__imagenet__tree="tree",
    )
    assert set(elsewhere.cells) == set(known.cells) and elsewhere.page.key == known.page.key


def test_what_is_in_a_key(raw, tmp_path):
    """The version of the records, other archives, float stores, and the size at which ImageNet's images are drawn."""
    known = made(raw, tmp_path)
    other = made(raw, tmp_path, prepare__tfds__versions={"kitti": "3.2.0"})
    lost = {spec.task for key, spec in known.cells.items() if key not in other.cells}
    assert lost == {"kitti-distance"}
    (tmp_path / "sums.json").write_text(
        '{"https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz": {"sha256": "0", "size": 1}}'
    )
    other = made(raw, tmp_path, prepare__tfds__checksums="sums.json")
    assert {spec.task for key, spec in known.cells.items() if key not in other.cells} == {"cifar100"}
    registered = datasets()["cifar100"].archives[0]
    (tmp_path / "sums.json").write_text(json.dumps({registered.url: {"sha256": registered.sha256.upper()}}))
    other = made(raw, tmp_path, prepare__tfds__checksums="sums.json")
    assert set(other.cells) == set(known.cells), "TFDS' own digest, written out, is no other archive"
    assert not set(known.cells) & set(made(raw, tmp_path, prepare__numbers="float32").cells)
    cut = made(raw, tmp_path, prepare__tfds__counts="any")
    assert not set(known.stores) & set(cut.stores), "a cut of a set would pass for the set"
    assert not set(known.cells) & set(cut.cells)
    other = made(raw, tmp_path, prepare__tfds__counts="any", prepare__tfds__folder="data/other")
    assert not set(cut.stores) & set(other.stores), "one cut of a set would pass for another"
    other = made(raw, tmp_path, prepare__imagenet__drawn_at=256)
    kept = {spec.method for key, spec in known.encoders.items() if key in other.encoders}
    assert kept == {"from-scratch"} and set(known.stores) == set(other.stores)


@pytest.mark.parametrize(
    ("place", "value", "says"),
    [
        ("prepare.tfds.versions", {"kiti": "3.2.0"}, "did you mean kitti?"),
        ("prepare.tfds.versions", {"kitti": "1.0.0"}, "3.3.0, 3.2.0, 3.1.0"),
        ("prepare.tfds.absent", "skip", "'refuse' or 'leave-out'"),
        ("prepare.folders", {"imagenet": {"path": "x"}}, "my-imagenet"),
        ("upstream", "imagent", "did you mean imagenet?"),
    ],
)
def test_mistakes_in_a_real_study(raw, place, value, says):
    with pytest.raises(ValueError, match="tfds|folders|upstream") as error:
        Study.model_validate(changed(raw, place, value))
    assert says in str(error.value)


def test_checksums_that_cannot_be_read(raw, tmp_path):
    with pytest.raises(UserError, match=r"there is no file sums\.json"):
        made(raw, tmp_path, prepare__tfds__checksums="sums.json")
    (tmp_path / "sums.json").write_text("[]")
    with pytest.raises(UserError, match=r"sums\.json should hold"):
        made(raw, tmp_path, prepare__tfds__checksums="sums.json")


def test_manual_downloads_are_listed_and_can_be_left_out(raw, tmp_path):
    asked = made(raw, tmp_path)
    listed = " ".join(asked.manual_downloads)
    assert all(name in listed for name in ("NWPU-RESISC45", "trainLabels.csv", "ILSVRC2012_img_train.tar"))
    without = made(raw, tmp_path, prepare__tfds__absent="leave-out")
    assert not without.manual_downloads and {"resisc45", "diabetic-retinopathy", "rotation"} <= set(without.excluded)
    assert {cell.method for cell in without.cells.values()} == {"from-scratch"}, "the one that needs no ImageNet"
    assert len(without.cells) == 17 * 2 and set(without.jobs) < set(asked.jobs)
    assert {spec.dataset for spec in asked.stores.values()} - {spec.dataset for spec in without.stores.values()} == {
        "resisc45",
        "diabetic-retinopathy",
        "imagenet",
    }
    out = without.page.left_out
    assert out.vtab == ("Resisc45", "Retinopathy") and len(out.methods) == 17
    assert asked.page.left_out == LeftOut(methods=(), tasks=(), vtab=(), cut=False)


def test_a_missing_tree_is_a_manual_download(raw, tmp_path):
    asked = made(raw, tmp_path, prepare__imagenet__tree="tree")
    assert any(text.startswith(f"imagenet: {tmp_path}/tree is not a folder") for text in asked.manual_downloads)
    without = made(raw, tmp_path, prepare__imagenet__tree="tree", prepare__tfds__absent="leave-out")
    assert len(without.excluded_methods) == 17
    (tmp_path / "tree").mkdir()
    assert not any("imagenet" in text for text in made(raw, tmp_path, prepare__imagenet__tree="tree").manual_downloads)


def test_jobs_are_formed_before_anything_is_left_out(raw, tmp_path):
    """What a machine has changes only the jobs that lose a cell."""
    raw = changed(changed(raw, "methods", ["from-scratch"]), "run", {"cells_per_job": 4})
    asked, without = made(raw, tmp_path), made(raw, tmp_path, prepare__tfds__absent="leave-out")
    lost = [job for job in asked.jobs.values() if job.key not in without.jobs]
    kept = [job for job in asked.jobs.values() if job.key in without.jobs]
    assert kept[-1] is list(asked.jobs.values())[-1], "also jobs after the ones that lose a cell"
    gone = {"resisc45", "diabetic-retinopathy"}
    assert lost and all(gone & {cell.task for cell in job.cells} for job in lost)
    assert not any(gone & {cell.task for cell in job.cells} for job in without.jobs.values())


def finish(results, name):
    for spec in results:
        Path(spec.folder).mkdir(parents=True)
        (Path(spec.folder) / name).write_text('{"status": "ok"}')


@pytest.fixture
def finished(raw, tmp_path, monkeypatch):
    """The whole study's encoders and scores without any images: elsewhere they were there."""
    monkeypatch.chdir(tmp_path)
    whole = made(raw, tmp_path)
    finish(whole.encoders.values(), "card.json")
    finish(whole.cells.values(), "score.json")
    return whole


def test_what_is_finished_needs_no_images(raw, tmp_path, finished):
    """Also where results came with `dvc pull`, or the archives are gone. One cell more to run needs its own alone."""
    for absent in ("refuse", "leave-out"):
        again = made(raw, tmp_path, prepare__tfds__absent=absent)
        assert not again.manual_downloads and not again.excluded and again.page.key == finished.page.key
    cell = next(cell for cell in finished.cells.values() if cell.task == "resisc45" and cell.method == "jigsaw")
    (tmp_path / cell.folder / "score.json").unlink()
    assert [text.split(":")[0] for text in made(raw, tmp_path).manual_downloads] == ["resisc45"]
    without = made(raw, tmp_path, prepare__tfds__absent="leave-out")
    assert list(without.excluded) == ["resisc45"] and len(without.cells) == 18 * 18 * 2


def test_gc_keeps_what_is_left_out_today(raw, tmp_path, finished, capsys):
    """A folder that is not mounted must not cost a hundred hours of encoders."""
    for cell in finished.cells.values():
        (tmp_path / cell.folder / "score.json").unlink()  # so that all of it is left out
    (tmp_path / "studies").mkdir()
    (tmp_path / "studies/vtab.yaml").write_text(yaml.safe_dump(changed(raw, "prepare.tfds.absent", "leave-out")))
    collect_garbage([], really=True)
    assert "0 results" in capsys.readouterr().out
    assert all((tmp_path / spec.folder / "card.json").exists() for spec in finished.encoders.values())


def test_a_task_with_the_name_of_a_method_is_not_left_out_with_it(raw, tmp_path):
    for name in "ab":
        (tmp_path / "own" / name).mkdir(parents=True)
        for value in range(3):
            Image.new("L", (4, 4), 100 * value + ord(name)).save(tmp_path / "own" / name / f"{value}.png")
    raw = changed(changed(raw, "tasks", ["rotation"]), "methods", ["from-scratch", "rotation"])
    own = made(raw, tmp_path, prepare__folders={"rotation": {"path": "own"}}, prepare__tfds__absent="leave-out")
    assert {(cell.method, cell.task) for cell in own.cells.values()} == {("from-scratch", "rotation")}


def test_the_patches_are_the_studys_and_the_subset_has_128_of_each_class(raw):
    """docs/methods: 255, 85 and 64 px out of squares of 292; 128,000 of 1,231,121 images."""
    study = Study.model_validate(raw)
    for method in ("jigsaw", "relative-patch-location"):
        assert grid_at(study.method_settings(method)["image_size"]) == (255, 85, 64)
    assert study.prepare.imagenet.drawn_at == 292
    assert round(study.pretrain.subset.fraction * 1_231_121 / 1000) == 128
    assert study.method_settings("sup-100")["colour"] and not study.method_settings("sup-10")["colour"]


def test_a_study_with_nothing_left_is_refused(raw, tmp_path):
    raw = changed(changed(raw, "tasks", ["resisc45"]), "methods", ["from-scratch"])
    with pytest.raises(UserError, match="nothing is left to run"):
        made(raw, tmp_path, prepare__tfds__absent="leave-out")


def test_some_of_vtabs_tasks_are_not_vtab(raw, tmp_path):
    """Also where nobody left anything out: a mean over 2 of the 19 says so."""
    some = made(raw, tmp_path, tasks=["svhn", "cifar100"])
    assert len(some.page.left_out.vtab) == 17 and some.page.left_out.tasks == ()
