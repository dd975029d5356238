"""Every setting of params.yaml, altered one at a time: what runs again, and that nothing else does.

A setting that is added to the schema fails here until it is listed.
"""

import numpy as np
import pytest
from alter import changed
from PIL import Image
from pydantic import BaseModel

from vtabflow.contracts.specs import Fingerprint
from vtabflow.planning.keys import plan
from vtabflow.planning.settings import Folder, Group
from vtabflow.planning.study import Study
from vtabflow.prepare.folders.scan import identity

TRAINED = {"encoders", "cells", "page"}
CELLS = {"cells", "page"}
STORES = {"stores", *TRAINED}

# setting -> (another value, what has new keys). "folder" stands for a task of the user's own images.
SETTINGS = {
    "study": ("other", {"page"}),
    "methods": (["from-scratch", "rotation"], {"page"}),  # one less
    "tasks": (["svhn-standin"], {"page"}),  # one less
    "budgets": (["full"], {"page"}),
    "seeds": ([0, 1], CELLS),
    "portable": (True, TRAINED),
    "upstream": ("photos", {"stores", *TRAINED}),
    "prepare.image_size": (24, STORES),
    "prepare.resize": ("antialias", STORES),
    "prepare.numbers": ("float32", {"stores", *CELLS}),
    "prepare.split_seed": (1, {"stores", *CELLS}),
    "prepare.split": ([0.5, 0.25, 0.25], {"stores", *CELLS}),
    "prepare.procedural.seed": (1, STORES),
    "prepare.procedural.train": (1700, {"stores", *CELLS}),
    "prepare.procedural.val": (500, {"stores", *CELLS}),
    "prepare.procedural.test": (501, {"stores", *CELLS}),
    "prepare.procedural.upstream": (900, STORES),
    "prepare.folders.birds.path": ("birds-again", set()),  # the same images elsewhere
    "prepare.folders.birds.display": ("Birds of here", {"page"}),
    "prepare.folders.birds.group": ("natural", {"page"}),
    "prepare.folders.birds.invalid": ("skip", {"stores", *CELLS}),
    "prepare.folders.birds.split": ({"train": "train"}, set()),  # the name that it has anyway
    "prepare.folders.birds.labels": ("lists/of/labels.csv", {"stores", *CELLS}),
    "prepare.folders.birds.groups": ("lists/of/groups.csv", {"stores", *CELLS}),
    "prepare.folders.birds.group_pattern": (r"(\d)\.png", {"stores", *CELLS}),
    "prepare.folders.birds.min_per_class": (2, {"stores", *CELLS}),
    "prepare.folders.birds.near_copies": (True, {"stores", *CELLS}),
    "prepare.folders.birds.range": ([0, 4095], {"stores", *CELLS}),
    "prepare.folders.birds.truncated": (True, {"stores", *CELLS}),
    "prepare.folders.birds.max_pixels": (10**9, {"stores", *CELLS}),
    "prepare.folders.birds.of": ("cifar100", set()),  # for the audit alone
    "prepare.tfds.folder": ("elsewhere", set()),
    "prepare.tfds.downloads": ("elsewhere", set()),
    "prepare.tfds.manual": ("elsewhere", set()),
    "prepare.tfds.mirrors": ({"https://a.example/": "https://b.example/"}, set()),
    "prepare.tfds.checksums": ("checksums.json", set()),  # read only where a task comes from TFDS
    "prepare.tfds.counts": ("any", set()),
    "prepare.tfds.versions": ({"svhn": "3.0.0"}, set()),
    "prepare.tfds.absent": ("leave-out", set()),
    "prepare.imagenet.tree": ("elsewhere", set()),
    "prepare.imagenet.side": (400, set()),
    "prepare.imagenet.quality": (90, set()),
    "prepare.imagenet.drawn_at": (128, set()),
    "pretrain.network": ("vit-small", TRAINED),
    "pretrain.seed": (1, TRAINED),
    "pretrain.steps": (7, TRAINED),
    "pretrain.image_size": (24, TRAINED),
    "pretrain.batch": (16, TRAINED),
    "pretrain.momentum": (0.8, TRAINED),
    "pretrain.weight_decay": (0.01, TRAINED),
    "pretrain.warmup": (0.2, TRAINED),
    "pretrain.decay": ("cosine", TRAINED),
    "pretrain.decay_at": ([0.4], TRAINED),
    "pretrain.decay_factor": (0.2, TRAINED),
    "pretrain.precision": ("float32", TRAINED),
    "pretrain.optimiser": ("adam", TRAINED),
    "pretrain.learning_rate": (0.05, TRAINED),
    "pretrain.divergence": (50.0, TRAINED),
    "pretrain.subset.fraction": (0.2, TRAINED),
    "pretrain.subset.seed": (1, TRAINED),
    "pretrain.subset.file": ("list.txt", TRAINED),
    "pretrain.per_method": ({"rotation": {"crop_area_min": 0.3}}, TRAINED),
    "finetune.evaluation": ("linear", CELLS),
    "finetune.learning_rates": ([0.3], CELLS),
    "finetune.steps": ([9], CELLS),
    "finetune.batch": (16, CELLS),
    "finetune.momentum": (0.8, CELLS),
    "finetune.weight_decay": (0.01, CELLS),
    "finetune.warmup": (0.2, CELLS),
    "finetune.decay_at": ([0.4], CELLS),
    "finetune.decay_factor": (0.2, CELLS),
    "finetune.precision": ("float32", CELLS),
    "report.title": ("A title", {"page"}),
    "report.theme": ("dark", {"page"}),
    "run.cells_per_job": (3, set()),
    "run.gpus_per_encoder": (2, set()),
}


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project folder with three folders of images: birds, a copy of them, and photos."""
    folder = tmp_path_factory.mktemp("project")
    for number, name in enumerate(("birds", "birds-again", "photos")):
        rng = np.random.default_rng(number // 2)
        for label in ("a", "b"):
            (folder / name / "train" / label).mkdir(parents=True)
            for i in range(10):
                image = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
                image.save(folder / name / "train" / label / f"{i}.png")
        # Deeper than lists are found by themselves.
        names = [f"train/{label}/{i}.png" for label in ("a", "b") for i in range(10)]
        (folder / name / "lists/of").mkdir(parents=True)
        labels = ["file,label", *(f"{x},{'odd' if int(x[-5]) % 2 else 'even'}" for x in names)]
        (folder / name / "lists/of/labels.csv").write_text("\n".join(labels))
        (folder / name / "lists/of/groups.csv").write_text("\n".join(["file,group", *(f"{x},{x[-5]}" for x in names)]))
    (folder / "list.txt").write_text("train-0\n")
    (folder / "checksums.json").write_text("{}")
    return folder


@pytest.fixture
def study() -> dict:
    return {
        "study": "all-settings",
        "methods": ["from-scratch", "rotation", "semi-rotation-10"],
        "tasks": ["svhn-standin", "birds"],
        "prepare": {"folders": {"birds": {"path": "birds"}, "photos": {"path": "photos"}}},
    }


def keys(raw: dict, root) -> dict[str, set]:
    made = plan(Study.model_validate(raw), root)
    return {
        "stores": set(made.stores),
        "encoders": set(made.encoders),
        "cells": set(made.cells),
        "page": {made.page.key},
    }


def leaves(model: type[BaseModel], prefix: str = "") -> set[str]:
    found = set()
    for name, info in model.model_fields.items():
        kind = info.annotation
        if isinstance(kind, type) and issubclass(kind, Group):
            found |= leaves(kind, f"{prefix}{name}.")
        elif name == "folders":
            found |= leaves(Folder, f"{prefix}folders.birds.")
        else:
            found.add(prefix + name)
    return found


def test_every_setting_is_listed():
    assert leaves(Study) == set(SETTINGS)


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_setting_gives_new_keys_to_exactly_what_it_changes(setting, study, project):
    value, expected = SETTINGS[setting]
    before, after = keys(study, project), keys(changed(study, setting, value), project)
    assert {part for part in before if after[part] - before[part]} == expected


def test_all_trained_encoders_and_no_other_have_the_seed_of_pretraining_in_their_key(study, project):
    before = plan(Study.model_validate(study), project)
    after = plan(Study.model_validate(changed(study, "pretrain.seed", 1)), project)
    assert {s.method for key, s in after.encoders.items() if key not in before.encoders} == {
        "rotation",
        "semi-rotation-10",
    }


def test_a_store_has_all_rows_if_a_study_uses_the_full_budget(study, project):
    rows = {}
    for budgets in (["1k"], ["full"], ["1k", "full"]):
        stores = plan(Study.model_validate({**study, "budgets": budgets}), project).stores.values()
        rows[tuple(budgets)] = {spec.dataset: spec.rows for spec in stores}
    few, all_rows = {"birds": "1k", "svhn-standin": "1k"}, {"birds": "all", "svhn-standin": "all"}
    upstream = {"upstream-standin": "all"}
    assert rows == {("1k",): few | upstream, ("full",): all_rows | upstream, ("1k", "full"): all_rows | upstream}


def test_a_study_that_trains_nothing_needs_no_upstream_store(study, project):
    study["methods"] = ["from-scratch"]
    stores = plan(Study.model_validate(study), project).stores.values()
    assert {spec.dataset for spec in stores} == {"birds", "svhn-standin"}


def test_a_folder_is_refused_by_the_job_if_it_changed_after_planning(study, project):
    """The job gets the digests of images and labels as they were planned."""
    stores = {spec.dataset: spec for spec in plan(Study.model_validate(study), project).stores.values()}
    found = identity(project / "birds", project / "unused")
    assert stores["birds"].fingerprint == Fingerprint(found.images, found.labels)
    assert stores["svhn-standin"].fingerprint is None


def test_unrounded_numbers_are_kept_of_folders_and_not_of_stand_ins(study, project):
    after = plan(Study.model_validate(changed(study, "prepare.numbers", "float32")), project)
    assert {spec.dataset: spec.image.numbers for spec in after.stores.values()} == {
        "birds": "float32",
        "svhn-standin": "uint8",
        "upstream-standin": "uint8",
    }
    after = plan(
        Study.model_validate({**study, "upstream": "photos", "prepare": {**study["prepare"], "numbers": "float32"}}),
        project,
    )
    assert {spec.dataset: spec.image.numbers for spec in after.stores.values()}["photos"] == "uint8"
