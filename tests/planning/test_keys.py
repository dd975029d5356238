"""What runs again after each kind of change: the whole point of the keys."""

import copy
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from alter import changed
from PIL import Image

from vtabflow.errors import UserError
from vtabflow.planning.keys import Plan, plan
from vtabflow.planning.state import forget_lost, freeze, is_complete, spec_path
from vtabflow.planning.study import Study


def made(raw: dict, root: Path) -> Plan:
    return plan(Study.model_validate(raw), root)


@pytest.fixture
def base(smoke) -> dict:
    smoke["methods"] = ["from-scratch", "vae", "rotation", "semi-rotation-10", "sup-100"]
    return smoke


def new(before: Plan, after: Plan) -> dict[str, set]:
    """What has to be made after a change when everything before it was made."""
    return {
        "stores": {s.dataset for key, s in after.stores.items() if key not in before.stores},
        "encoders": {s.method for key, s in after.encoders.items() if key not in before.encoders},
        "cells": {(c.method, c.task, c.budget, c.seed) for key, c in after.cells.items() if key not in before.cells},
        "page": {after.page.key} - {before.page.key},
    }


def everything(p: Plan) -> set:
    return {(c.method, c.task, c.budget, c.seed) for c in p.cells.values()}


def compare(base, root, place, value):
    before, after = made(base, root), made(changed(base, place, value), root)
    return new(before, after), after


NOTHING = {"stores": set(), "encoders": set(), "cells": set(), "page": set()}


def test_the_size_of_a_study(base, root):
    p = made(base, root)
    assert len(p.cells) == 5 * 4 * 2 and len(p.encoders) == 5 and len(p.stores) == 5
    assert sum(len(job.cells) for job in p.jobs.values()) == len(p.cells)


def test_a_setting_of_the_report(base, root):
    again, _ = compare(base, root, "report.theme", "dark")
    assert {**again, "page": set()} == NOTHING and again["page"]


def test_learning_rates(base, root):
    again, after = compare(base, root, "finetune.learning_rates", [0.3])
    assert again["cells"] == everything(after) and not again["encoders"] and not again["stores"] and again["page"]


def test_one_methods_setting(base, root):
    again, after = compare(
        base, root, "pretrain.per_method", {"vae": {"channels": 8}, "rotation": {"learning_rate": 0.02}}
    )
    assert again["encoders"] == {"rotation"} and not again["stores"]
    assert again["cells"] == {cell for cell in everything(after) if cell[0] == "rotation"}


def test_a_common_setting_of_pretraining_spares_from_scratch(base, root):
    again, _ = compare(base, root, "pretrain.steps", 61)
    assert again["encoders"] == {"vae", "rotation", "semi-rotation-10", "sup-100"}


def test_a_task_added(base, root):
    again, after = compare(base, root, "tasks", ["dmlab-standin", *base["tasks"]])
    assert again["stores"] == {"dmlab-standin"} and not again["encoders"]
    assert again["cells"] == {cell for cell in everything(after) if cell[1] == "dmlab-standin"}


def test_the_second_task_of_a_dataset_needs_no_new_store(base, root):
    again, _ = compare(base, root, "tasks", [*base["tasks"], "clevr-distance-standin"])
    assert again["stores"] == set()
    assert {cell[1] for cell in again["cells"]} == {"clevr-distance-standin"}


def test_a_seed_added_keeps_the_others(base, root):
    again, _ = compare(base, root, "seeds", [0, 1])
    assert {cell[3] for cell in again["cells"]} == {1} and not again["encoders"]


def test_a_budget_less_keeps_the_cells_of_the_other(base, root):
    again, _ = compare(base, root, "budgets", ["1k"])
    assert not again["cells"] and not again["encoders"]


def test_the_labelled_subset_touches_the_semi_supervised_alone(base, root):
    again, _ = compare(base, root, "pretrain.subset", {"fraction": 0.2})
    assert again["encoders"] == {"semi-rotation-10"}


def test_the_labelled_subset_can_be_a_list_in_a_file(base, tmp_path):
    """Its content counts, not its name; without the file, or with another, the study is not the same."""
    (tmp_path / "code.lock").write_text("{}")
    listed = changed(base, "pretrain.subset.file", "list.txt")
    with pytest.raises(UserError, match=r"pretrain\.subset\.file: there is no file list\.txt"):
        made(listed, tmp_path)
    for name in ("list.txt", "other.txt"):
        (tmp_path / name).write_text("0\n5\n")
    first, again = made(listed, tmp_path), made(changed(base, "pretrain.subset.file", "other.txt"), tmp_path)
    (tmp_path / "list.txt").write_text("0\n6\n")
    assert new(first, made(listed, tmp_path))["encoders"] == {"semi-rotation-10"}
    assert new(made(base, tmp_path), first)["encoders"] == {"semi-rotation-10"}
    assert new(first, again)["encoders"] == set()


def test_a_method_with_an_image_size_or_a_network_of_its_own(base, root):
    found, after = compare(base, root, "pretrain.per_method", {"vae": {"channels": 8, "image_size": 16}})
    assert found["encoders"] == {"vae"} and found["stores"] == set()
    sizes = {spec.method: spec.image_size for spec in after.encoders.values()}
    assert sizes == {"from-scratch": 32, "vae": 16, "rotation": 32, "semi-rotation-10": 32, "sup-100": 32}
    assert {cell.image_size for cell in after.cells.values()} == {32}, "tasks keep the study's size"
    found, after = compare(base, root, "pretrain.per_method", {"vae": {"channels": 8, "network": "resnet50v2"}})
    assert found["encoders"] == {"vae"}
    gan = made(changed(base, "methods", ["from-scratch", "cond-biggan"]), root)
    specs = {spec.method: spec for spec in gan.encoders.values()}
    assert specs["cond-biggan"].network == "biggan-small" and specs["from-scratch"].network == "resnet-small"


def test_how_many_gpus_train_an_encoder_changes_no_key(base, root):
    found, after = compare(base, root, "run", {"gpus_per_encoder": 2, "cells_per_job": 8})
    assert found == NOTHING and {spec.gpus for spec in after.encoders.values()} == {2}


def test_job_size_and_order_of_tasks_change_nothing(base, root):
    again, after = compare(base, root, "run.cells_per_job", 3)
    assert again == NOTHING and len(after.jobs) == 14
    again, _ = compare(base, root, "tasks", base["tasks"][::-1])
    assert not again["cells"] and not again["stores"]


def test_there_and_back_again(base, root):
    assert made(base, root).page.key == made(copy.deepcopy(base), root).page.key


@pytest.fixture
def own(tmp_path, base) -> dict:
    """A study whose upstream set and one task are folders of images."""
    rng = np.random.default_rng(0)
    for place in ("pets/cat", "pets/dog", "up/train/sky", "up/train/sea"):
        (tmp_path / place).mkdir(parents=True)
        for i in range(6):
            Image.fromarray(rng.integers(0, 256, (20, 20, 3), dtype=np.uint8)).save(tmp_path / place / f"{i}.png")
    base["tasks"] = ["svhn-standin", "pets"]
    base["upstream"] = "up"
    base["prepare"]["folders"] = {"pets": {"path": "pets"}, "up": {"path": "up"}}
    return base


def test_an_upstream_label(own, tmp_path):
    """Relabelling an upstream image: supervised and semi-supervised encoders, not VAE, not Rotation."""
    before = made(own, tmp_path)
    shutil.move(tmp_path / "up/train/sky/3.png", tmp_path / "up/train/sea/moved.png")
    again = new(before, made(own, tmp_path))
    assert again["encoders"] == {"sup-100", "semi-rotation-10"} and again["stores"] == {"up"}
    assert {cell[0] for cell in again["cells"]} == {"sup-100", "semi-rotation-10"}


def test_an_upstream_image(own, tmp_path):
    before = made(own, tmp_path)
    (tmp_path / "up/train/sky/3.png").unlink()
    assert new(before, made(own, tmp_path))["encoders"] == {"vae", "rotation", "semi-rotation-10", "sup-100"}


def test_an_image_of_a_task(own, tmp_path):
    before = made(own, tmp_path)
    (tmp_path / "pets/cat/3.png").unlink()
    again = new(before, made(own, tmp_path))
    assert again["stores"] == {"pets"} and not again["encoders"] and {cell[1] for cell in again["cells"]} == {"pets"}


def test_file_times_another_place_and_a_zip_change_nothing(own, tmp_path):
    before = made(own, tmp_path)
    for path in (tmp_path / "pets").rglob("*.png"):
        os.utime(path, (10**9, 10**9))
    assert new(before, made(own, tmp_path)) == NOTHING
    shutil.move(tmp_path / "pets", tmp_path / "elsewhere")
    own["prepare"]["folders"]["pets"]["path"] = "elsewhere"
    assert new(before, made(own, tmp_path)) == NOTHING
    shutil.make_archive(str(tmp_path / "packed"), "zip", tmp_path / "elsewhere")
    own["prepare"]["folders"]["pets"]["path"] = "packed.zip"
    assert new(before, made(own, tmp_path)) == NOTHING


def test_another_clone_and_a_dirty_one(tmp_path, root):
    """The same keys in a copy of the project elsewhere; an edited loss gives its method, and nothing else, new keys."""

    def keys() -> list[str]:
        code = (
            "from vtabflow.planning.keys import plan; from vtabflow.planning.study import load\n"
            "for k, c in plan(load('studies/smoke.yaml')).cells.items(): print(c.method, k)"
        )
        env = {**os.environ, "PYTHONPATH": str(tmp_path / "src")}
        return subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, env=env, check=True, capture_output=True, text=True
        ).stdout.splitlines()

    shutil.copytree(root / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(root / "studies", tmp_path / "studies")
    shutil.copy(root / "code.lock", tmp_path / "code.lock")
    here = plan(Study.model_validate(yaml.safe_load((root / "studies/smoke.yaml").read_text())), root)
    first = keys()
    assert first == [f"{cell.method} {key}" for key, cell in here.cells.items()]
    vae = tmp_path / "src/vtabflow/methods/vae.py"
    vae.write_text("# a comment\n" + vae.read_text())
    assert keys() == first
    assert "(2 * self.config" in vae.read_text()
    vae.write_text(vae.read_text().replace("(2 * self.config", "(3 * self.config"))
    differing = {line.split()[0] for line in set(keys()) ^ set(first)}
    assert differing == {"vae"}


def test_rows_that_nobody_reads_change_nothing(base, root):
    """More validation images of the upstream serve the probe alone; more training images are not in the 1k budget."""
    again, _ = compare(base, root, "prepare.procedural.train", 1200)
    assert {cell[2] for cell in again["cells"]} == {"full"} and not again["encoders"]
    again, _ = compare(base, root, "prepare.procedural.val", 300)
    assert {cell[2] for cell in again["cells"]} == {"full"} and not again["encoders"]
    again, after = compare(base, root, "prepare.procedural.test", 210)
    assert again["cells"] == everything(after) and not again["encoders"]
    again, _ = compare(base, root, "prepare.procedural.upstream", 1100)
    assert again["encoders"] == {"vae", "rotation", "semi-rotation-10", "sup-100"} and again["stores"] == {
        "upstream-standin"
    }


def test_an_upstream_without_labels_is_refused_for_methods_that_learn_from_them(own, tmp_path):
    """All its images in one folder: images enough for Rotation, no classes for Sup-100%."""
    folder = tmp_path / "up/train"
    first, *others = sorted(path for path in folder.iterdir() if path.is_dir())
    for other in others:
        for i, image in enumerate(sorted(other.iterdir())):
            image.rename(first / f"{other.name}-{i}{image.suffix}")
        other.rmdir()
    with pytest.raises(UserError, match=r"upstream up has no labels .* method sup-100 learns from 2 classes or more"):
        made(changed(own, "methods", ["from-scratch", "sup-100"]), tmp_path)
    assert made(changed(own, "methods", ["from-scratch", "rotation"]), tmp_path).encoders


def test_planning_is_quick_and_light(root, base, tmp_path):
    """Well under a second of one thread for 760 cells, without torch.

    In a process of its own: where TensorFlow and torch are loaded, their objects make garbage collection slow, and
    the time of their threads counts as this process's.
    """
    base["tasks"] = list(yaml.safe_load((root / "params.yaml").read_text())["tasks"])
    base["seeds"] = [0, 1, 2, 3]
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(base))
    code = f"""
import sys, time
from vtabflow import cli
from vtabflow.planning import keys, study
loaded, took = study.load({str(path)!r}), []
for _ in range(3):
    start = time.thread_time()
    cells = len(keys.plan(loaded).cells)
    took.append(time.thread_time() - start)
print(cells, min(took), *[m for m in ("torch", "pandas", "altair", "numpy") if m in sys.modules])
"""
    env = {**os.environ, "PYTHONPATH": str(root / "src")}
    out = subprocess.run([sys.executable, "-c", code], cwd=root, env=env, check=True, capture_output=True, text=True)
    cells, seconds, *heavy = out.stdout.split()
    assert int(cells) == 760 and float(seconds) < 1.0
    assert heavy == []


def test_specs_are_frozen_and_lost_results_forgotten(base, root, tmp_path):
    p = made(base, root)
    freeze(p, tmp_path)
    for spec in p.specs():
        path = tmp_path / spec_path(spec.step, spec.key)
        assert json.loads(path.read_text())["key"] == spec.key
        assert not is_complete(spec, tmp_path)
        receipt = tmp_path / spec.receipt
        receipt.parent.mkdir(parents=True, exist_ok=True)
        receipt.write_text("{}")
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.glob("results/specs/*/*.json")}
    assert len(stamps) == len(p.specs())
    freeze(p, tmp_path)
    assert stamps == {path: path.stat().st_mtime_ns for path in stamps}, "what is frozen is not written again"
    forget_lost(p, tmp_path)
    assert not any((tmp_path / spec.receipt).exists() for spec in p.specs())
