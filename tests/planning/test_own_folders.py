"""Folders of images when a study is planned: what is said, refused, left out and remembered, before any job runs."""

import os
import shutil
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from vtabflow.contracts.results import SkippedFile
from vtabflow.errors import UserError
from vtabflow.planning import overview
from vtabflow.planning.code.lock import CodeLock
from vtabflow.planning.keys import Plan, plan
from vtabflow.planning.study import Study, load
from vtabflow.prepare.folders import source, tree

RNG = np.random.default_rng(0)


def image(path: Path, size: int = 8) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(RNG.integers(0, 256, (size, size, 3), dtype=np.uint8)).save(path)
    return path


def images(folder: Path, **classes: int) -> Path:
    for label, count in classes.items():
        for i in range(count):
            image(folder / label / f"{i}.png")
    return folder


@pytest.fixture
def raw(tmp_path, monkeypatch) -> dict:
    """A study in the working directory: the task pets (10 cats, 20 dogs), and an upstream set of its own."""
    monkeypatch.chdir(tmp_path)
    images(tmp_path / "pets", cat=10, dog=20)
    images(tmp_path / "up/train", sky=6, sea=6)
    return {
        "study": "own",
        "methods": ["from-scratch", "rotation"],
        "tasks": ["svhn-standin", "pets"],
        "budgets": ["1k", "full"],
        "upstream": "up",
        "prepare": {"folders": {"pets": {"path": "pets"}, "up": {"path": "up"}}},
    }


LOCK = CodeLock(Path("no code.lock"))  # computes the identities of the code once


def made(raw: dict) -> Plan:
    return plan(Study.model_validate(raw), ".", LOCK)


def check(raw: dict, capsys) -> list[str]:
    Path("params.yaml").write_text(yaml.safe_dump(raw))
    capsys.readouterr()
    overview.check("params.yaml")
    return capsys.readouterr().out.splitlines()


def splits(planned: Plan, dataset: str = "pets") -> dict[str, list[str]]:
    return {split: [f.entry.name for f in files] for split, files in planned.folders[dataset].division.files.items()}


def aged(path: Path) -> None:
    for file in path.rglob("*"):
        os.utime(file, (1e9, 1e9))


def test_check_says_what_was_understood(raw, capsys):
    lines = check(raw, capsys)
    own = [line for line in lines if line.startswith(("pets: ", "up: "))]
    assert own == [
        "up: 2 classes, 12 images (class folders in train); train 11, val 1, val drawn from train, seeded",
        "pets: 2 classes, 30 images; train 18, val 6, test 6, split here, seeded",
    ]
    after = lines[lines.index(own[1]) + 1 :]
    assert after[0] == "  classes: cat, dog"
    assert after[1].startswith("  budget 1k uses 18 of train and 6 of val")
    raw["budgets"] = ["full"]
    assert not any("1k" in line for line in check(raw, capsys))


def test_check_says_given_splits_many_classes_and_what_is_left_out(raw, capsys):
    for split in ("train", "val", "test"):
        images(Path("birds") / split, **{f"c{i:02}": 1 for i in range(12)})
    for name in ("train/c00/a.txt", "train/c01/b.txt"):
        (Path("birds") / name).write_text("x")
    (Path("birds/train/c00/empty.png")).write_bytes(b"")
    raw["prepare"]["folders"]["pets"] = {"path": "birds", "invalid": "skip"}
    lines = check(raw, capsys)
    (number,) = (i for i, line in enumerate(lines) if line.startswith("pets: "))
    assert "12 classes, 36 images" in lines[number] and lines[number].endswith("; train 12, val 12, test 12, as given")
    assert lines[number + 1] == "  classes: c00, c01, c02, c03, c04, c05, c06, c07, ... (4 more)"
    left = next(line for line in lines[number:] if "left out" in line)
    why = "train/c00/a.txt is not an image (and 1 more); train/c00/empty.png is empty"
    assert left == f"  left out: 3 files: {why}"


def test_a_planning_run_lists_each_folder_once_and_opens_no_image_again(raw, monkeypatch):
    aged(Path.cwd())
    listed, opened = Counter(), []
    plain_scandir, plain_open = os.scandir, tree.Tree.open

    def scandir(path):
        listed[os.path.relpath(path)] += 1
        return plain_scandir(path)

    def reading(self, file):
        opened.append(file.name)
        return plain_open(self, file)

    monkeypatch.setattr(tree.os, "scandir", scandir)
    monkeypatch.setattr(tree.Tree, "open", reading)
    once = dict.fromkeys(("pets", "pets/cat", "pets/dog", "up", "up/train", "up/train/sky", "up/train/sea"), 1)
    for images_read in (42, 0):
        listed.clear()
        opened.clear()
        overview_lines = [line for folder in made(raw).folders.values() for line in folder.lines("x", ["1k"])]
        assert len(overview_lines) > 4
        assert {name: n for name, n in listed.items() if name.startswith(("pets", "up"))} == once
        assert len(opened) == images_read


def test_from_scratch_alone_does_not_look_at_the_upstream(raw):
    raw["methods"] = ["from-scratch"]
    with_it = made(raw)
    shutil.rmtree("up")
    without = made(raw)
    assert without.page == with_it.page and not any(spec.dataset == "up" for spec in without.stores.values())
    assert without.page.upstream.source == "folder"
    raw["methods"].append("rotation")
    with pytest.raises(UserError, match="there is no .* at up"):
        made(raw)


# ---- the upstream set and the tasks


@pytest.mark.parametrize("split", ["val", "test"])
def test_held_out_images_in_the_upstream_set_are_refused_by_count_and_name(raw, split):
    names = splits(made(raw))[split]
    for number, name in enumerate(names[:2]):
        shutil.copy(Path("pets") / name, Path("up/train/sky") / f"copy{number}.png")
    for number, name in enumerate(splits(made({**raw, "methods": ["from-scratch"]}))["train"][:3]):
        shutil.copy(Path("pets") / name, Path("up/train/sea") / f"train{number}.png")
    first = rf"such as {names[0]} \(up/train/sky/copy0.png\)|such as {names[0]} \(train/sky/copy0.png\)"
    with pytest.raises(UserError, match=f"^2 of the 12 val and test images of task pets .* too, {first}: pre-training"):
        made(raw)
    raw["methods"] = ["from-scratch"]
    made(raw)  # nothing is pre-trained


def test_images_of_a_tasks_own_train_in_the_upstream_set_are_a_remark(raw, capsys):
    for number, name in enumerate(splits(made(raw))["train"][:3]):
        shutil.copy(Path("pets") / name, Path("up/train/sea") / f"copy{number}.png")
    assert "  3 of 18 train images are in the upstream set up too" in check(raw, capsys)
    overview.status("params.yaml")
    assert "pets: 3 of 18 train images are in the upstream set up too" in capsys.readouterr().out


def test_the_upstream_may_be_the_train_folder_of_a_task_with_given_splits(raw):
    images(Path("given/train"), cat=6, dog=6)
    images(Path("given/test"), cat=2, dog=2)
    images(Path("given/val"), cat=2, dog=2)
    folders = raw["prepare"]["folders"]
    folders["pets"]["path"], folders["up"]["path"] = "given", "given/train"
    made(raw)
    shutil.copy("given/train/cat/1.png", "given/test/cat/leak.png")
    with pytest.raises(UserError, match=r"^1 of the 9 val and test images .* such as test/cat/leak.png \(cat/1.png\)"):
        made(raw)


def test_near_copies_are_drawn_by_the_job_so_no_image_may_be_shared(raw):
    shutil.copy(Path("pets") / splits(made(raw))["train"][0], "up/train/sky/copy.png")
    made(raw)
    raw["prepare"]["folders"]["pets"]["near_copies"] = True
    with pytest.raises(UserError, match="^1 of the 30 images of task pets .* with near_copies, which of them are val"):
        made(raw)


# ---- refused, and left out


def broken(raw: dict, how: str) -> str:
    """Spoil the folder pets, and return what the sentence says."""
    if how == "missing":
        shutil.rmtree("pets")
        return "there is no .* at pets"
    if how == "one class":
        shutil.rmtree("pets/dog")
        return "pets has one class, cat"
    if how == "small class":
        images(Path("pets"), bird=2)
        return r"class bird has too few readable images \(2\)"
    if how == "no image":
        Path("pets/cat/notes.png").write_text("x")
        return "pets: cat/notes.png .*unusable files in all: 1"
    if how == "fifo":
        os.mkfifo("pets/cat/pipe.png")
        return "pets: cat/pipe.png is a FIFO"
    shutil.copy(Path("pets") / splits(made(raw))["test"][0], "up/train/sky/copy.png")
    return "1 of the 12 val and test images"


HOW = ("missing", "one class", "small class", "no image", "fifo", "in the upstream")


@pytest.mark.parametrize("how", HOW)
def test_what_is_known_at_check_is_refused_at_check(raw, how):
    sentence = broken(raw, how)
    with pytest.raises(UserError, match=sentence):
        made(raw)


@pytest.mark.parametrize("how", HOW)
def test_a_task_that_may_be_left_out_leaves_the_others_as_they_are(raw, how, capsys):
    raw["tasks"] = ["svhn-standin", "pets", "dtd-standin"]
    raw["prepare"]["folders"]["pets"]["invalid"] = "skip-task"
    raw["run"] = {"cells_per_job": 3}
    before = made(raw)
    sentence = broken(raw, how)
    after = made(raw)
    assert set(after.excluded_tasks) == {"pets"} and not after.excluded_methods
    # What is left out moves no cell to another job.
    cells = [[cell.name for cell in job.cells if cell.task != "pets"] for job in before.jobs.values()]
    assert [names for names in cells if names] == [[cell.name for cell in job.cells] for job in after.jobs.values()]
    if how != "in the upstream":  # which makes the encoders anew
        assert {cell.key for cell in before.cells.values() if cell.task != "pets"} == set(after.cells)
    left = after.page.left_out
    assert left.tasks == ("pets",) and list(left.reasons) == ["pets"] and after.page.key != before.page.key
    lines = check(raw, capsys)
    (line,) = (line for line in lines if line.startswith("left out: pets: "))
    assert left.reasons["pets"] in line and not any(line.startswith("pets: ") for line in lines)
    with pytest.raises(UserError, match=sentence):
        raise UserError(left.reasons["pets"])
    overview.status("params.yaml")
    assert line in capsys.readouterr().out.splitlines()
    raw["tasks"] = ["pets"]
    with pytest.raises(UserError, match=f"nothing is left to run. .*{sentence}"):
        made(raw)


def test_where_a_left_out_folder_lies_is_not_on_the_page(raw):
    raw["tasks"] = ["svhn-standin", "pets"]
    raw["prepare"]["folders"]["pets"] |= {"invalid": "skip-task", "path": "pets"}
    Path("pets/cat/note.png").write_text("no image")
    pages = [made(raw).page]
    raw["prepare"]["folders"]["pets"]["path"] = str(Path("pets").resolve())
    pages.append(made(raw).page)
    assert pages[0].left_out.reasons["pets"].startswith("pets: cat/note.png is not an image")
    assert pages[0] == pages[1], "one page, wherever the folder is"


def test_files_that_only_turn_out_broken_are_left_out_of_a_task_that_was_planned(raw, capsys):
    raw["prepare"]["folders"]["pets"]["invalid"] = "skip-task"
    whole = image(Path("pets/cat/cut.png"), 64).read_bytes()
    Path("pets/cat/cut.png").write_bytes(whole[: len(whole) // 2])
    (store,) = (spec for spec in made(raw).stores.values() if spec.dataset == "pets")
    manifest = source.make(store)
    assert [type(entry) for entry in manifest.skipped] == [SkippedFile] and manifest.skipped[0].file == "cat/cut.png"
    assert sum(manifest.counts.values()) == 30
    Path("params.yaml").write_text(yaml.safe_dump(raw))
    overview.status("params.yaml")
    assert "pets: left out: 1 file: cat/cut.png is broken\n" in capsys.readouterr().out


def test_an_upstream_set_is_not_left_out(raw):
    raw["prepare"]["folders"]["up"]["invalid"] = "skip-task"
    with pytest.raises(ValueError, match=r"prepare.folders.up.invalid: skip-task is for tasks"):
        made(raw)


def test_skipping_files_and_leaving_the_task_out_give_the_same_store(raw):
    keys = []
    for invalid in ("skip", "skip-task"):
        raw["prepare"]["folders"]["pets"]["invalid"] = invalid
        keys.append({spec.key for spec in made(raw).stores.values()})
    assert keys[0] == keys[1]


# ---- keys, archives and what is remembered


def test_settings_at_their_defaults_are_in_no_key(raw):
    before = made(raw)
    raw["prepare"]["folders"]["pets"] |= {
        **{"near_copies": False, "truncated": False, "range": None, "max_pixels": None, "min_per_class": None},
        **{"split": None, "labels": None, "groups": None, "group_pattern": None, "of": None},
    }
    assert made(raw).page == before.page


def test_a_tar_has_the_keys_of_the_folder_and_is_prepared_from(raw):
    before = made(raw)
    with tarfile.open("pets.tar.gz", "w:gz") as archive:
        archive.add("pets")
    shutil.rmtree("pets")
    raw["prepare"]["folders"]["pets"]["path"] = "pets.tar.gz"
    after = made(raw)
    assert after.page.key == before.page.key
    (store,) = (spec for spec in after.stores.values() if spec.dataset == "pets")
    assert sum(source.make(store).counts.values()) == 30
    assert sorted(path.name for path in Path("data/stores/pets").iterdir()) == [store.key]


def test_gc_removes_what_is_remembered_of_folders_that_no_study_names(raw, capsys):
    check(raw, capsys)
    aged(Path.cwd())
    images(Path("other"), a=3, b=3)
    aged(Path("other"))
    keep = raw["prepare"]["folders"]
    raw["prepare"]["folders"] = {**keep, "other": {"path": "other"}}
    raw["tasks"].append("other")
    check(raw, capsys)
    place = Path("scratch/fingerprints")
    Path("scratch/fingerprints.json").write_text("{}")
    assert len(list(place.iterdir())) == 3
    overview.collect_garbage([], really=True)
    assert len(list(place.iterdir())) == 3 and not Path("scratch/fingerprints.json").exists()
    raw["prepare"]["folders"] = keep
    raw["tasks"].remove("other")
    Path("params.yaml").write_text(yaml.safe_dump(raw))
    overview.collect_garbage([], really=False)
    assert "1 lists of files" in capsys.readouterr().out and len(list(place.iterdir())) == 3
    overview.collect_garbage([], really=True)
    assert len(list(place.iterdir())) == 2
    assert len(made(raw).folders) == 2 and load("params.yaml").study == "own"


def test_gc_keeps_the_results_of_a_folder_that_is_not_there_now(raw, capsys):
    raw["prepare"]["folders"]["pets"]["invalid"] = "skip-task"
    check(raw, capsys)
    shutil.rmtree("pets")
    made(raw)
    with pytest.raises(UserError, match="what params.yaml needs is not known .*there is no .* at pets.*nothing is rem"):
        overview.collect_garbage([], really=True)
