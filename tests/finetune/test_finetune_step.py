"""Whole cells on the disk: what is written, when test examples are read, jobs, budgets, linear evaluation."""

import gc
import os
import subprocess
import sys
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from finetune_place import COUNTS, make_store, result, same, with_store
from torch import nn

from vtabflow.contracts.results import EncoderInput
from vtabflow.contracts.typed_json import to_json
from vtabflow.errors import UserError
from vtabflow.finetune import cell as cell_module
from vtabflow.finetune import step, sweep
from vtabflow.finetune.data import LabelledDataset, make_preprocess, read_labels, shuffled_order
from vtabflow.finetune.encoder import initial_weights, read_card
from vtabflow.networks.registry import blank, build
from vtabflow.prepare.store import Store
from vtabflow.runtime.files import read_json, seed_of, write_json
from vtabflow.runtime.progress import Progress


def test_a_cell(place, capsys):
    cell = place.cell()
    step.run(place.job(cell))
    score, arrays = result(cell)
    assert score["status"] == "ok" and score["reason"] is None and score["version"] == 1
    assert score["spec"] == to_json(cell)
    assert [(t["learning_rate"], t["steps"], t["status"]) for t in score["trials"]] == [
        (rate, steps, "ok") for rate in (0.1, 0.01) for steps in (3, 6)
    ]
    best = max(t["val_accuracy"] for t in score["trials"])
    assert score["selected"]["val_accuracy"] == best
    losses = [trial["train_loss"] for trial in score["trials"]]
    assert 0 < score["selected"]["train_loss"] < 2 * max(losses) and score["selected"]["train_loss"] not in losses
    assert best == (arrays["val_pred"] == arrays["val_true"]).mean(), "val predictions are the selected trial's"
    assert score["accuracy"] == (arrays["test_pred"] == arrays["test_true"]).mean()
    right = arrays["test_pred"] == arrays["test_true"]
    recalls = [right[arrays["test_true"] == label].mean() for label in range(3)]
    assert score["balanced_accuracy"] == pytest.approx(np.mean(recalls))
    assert score["balanced_accuracy"] != score["accuracy"], "the classes of this task are not equally frequent"
    assert {name: (array.dtype, len(array)) for name, array in arrays.items()} == {
        "val_pred": (np.int32, 40),
        "val_true": (np.int32, 40),
        "test_pred": (np.int32, 56),
        "test_true": (np.int32, 56),
    }
    for split in ("val", "test"):
        labels = np.load(f"data/stores/toy/k/labels/colour-standin.{split}.npy")
        np.testing.assert_array_equal(arrays[f"{split}_true"], labels)
    counts = [score[name] for name in ("n_train", "n_val", "n_trainval", "n_test")]
    assert counts == [96, 40, 136, 56]
    assert score["seconds"] > sum(trial["seconds"] for trial in score["trials"])
    assert score["images_per_second"] > 0 and 0 < score["outside_network"] < 1 and score["peak_memory_bytes"] > 2**20
    assert {"python", "torch", "numpy", "safetensors"} <= score["versions"].keys() and score["machine"]["name"]
    assert score["precision"] == ("bfloat16" if torch.cuda.is_available() else "float32")
    assert not Path(cell.scratch).exists()
    lines = capsys.readouterr().out.strip().splitlines()
    assert len(lines) == 1 and f"{100 * score['accuracy']:.2f}%" in lines[0] and "a/colour-standin/full/0" in lines[0]
    assert read_json("results/jobs/p.json") == {"key": "p", "folder": "results/scores", "made": True}


def test_existing_results_are_not_made_again(place):
    """Nor is torch imported for it: the second run sees a broken torch and no store."""
    cells = [place.cell(steps=[2]), place.cell("b", steps=[2])]
    step.run(place.job(*cells))
    before = [os.stat(f"{cell.folder}/score.json").st_mtime_ns for cell in cells]
    Path("torch.py").write_text("raise SystemExit('torch was imported')")
    write_json("spec.json", to_json(place.job(*cells)))
    code = "from vtabflow.planning.state import load_spec; from vtabflow.finetune.step import run\n"
    code += "run(load_spec('finetune', 'spec.json'))"
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": f".:{source()}"})
    assert done.returncode == 0
    assert before == [os.stat(f"{cell.folder}/score.json").st_mtime_ns for cell in cells]
    assert read_json("results/jobs/p.json")["made"] is False


def source():
    return Path(step.__file__).parents[2]


@pytest.mark.parametrize("evaluation", ["finetune", "linear"])
def test_the_test_split_is_not_touched_before_the_selection(place, monkeypatch, evaluation):
    """Its files cannot be read until the selection is on the disk; images and labels."""
    hidden = [Path("data/stores/toy/k/test.npy"), *Path("data/stores/toy/k/labels").glob("*.test.npy")]
    assert len(hidden) == 3
    for path in hidden:
        path.rename(f"{path}.away")
    cell = place.cell(evaluation=evaluation)
    with pytest.raises(UserError, match=r"cell a/colour-standin/full/0: store data/stores/toy/k: .*test.npy"):
        step.run(place.job(cell))
    selection = Path(cell.scratch) / "selection.json"
    assert selection.is_file() and not Path(cell.folder).exists()
    written = read_json(selection)
    for path in hidden:
        Path(f"{path}.away").rename(path)
    opened = []
    for name in ("images", "labels"):
        whole = getattr(Store, name)

        def watched(self, *args, whole=whole):
            if args[-1] == "test":
                opened.append(selection.is_file())
            return whole(self, *args)

        monkeypatch.setattr(Store, name, watched)
    step.run(place.job(cell))
    assert opened and all(opened)
    assert result(cell)[0]["selected"] == written


def test_selection_does_not_depend_on_the_test(place):
    """Other test labels: the same trials, the same selection, the same predictions."""
    cell = place.cell()
    step.run(place.job(cell))
    score, arrays = result(cell)
    other = with_store(cell, "data/stores/other/k", folder="results/scores/other")
    make_store("data/stores/other/k", COUNTS, channels=3, test_shift=1)
    step.run(place.job(other))
    other_score, other_arrays = result(other)
    assert other_score["selected"] == score["selected"] and other_score["accuracy"] != score["accuracy"]
    np.testing.assert_array_equal(arrays["test_pred"], other_arrays["test_pred"])


def test_a_result_does_not_depend_on_its_job(place):
    """Alone, or after other methods, tasks, budgets and a diverged cell; from-scratch too."""
    cells = [
        place.cell("b", learning_rates=[1e9]),
        place.cell("a", evaluation="linear"),
        place.cell("scratch"),
        place.cell("a", "side-standin"),
        place.cell("b", "side-standin", "1k"),
        place.cell("a"),
    ]
    step.run(place.job(*cells))
    for cell in cells[1:]:
        alone = replace(cell, folder=cell.folder + "-alone")
        step.run(place.job(alone))
        same(result(cell), result(alone))


def test_images_are_loaded_and_networks_built_once(place, monkeypatch):
    opened, built = [], []
    whole = Store.images
    monkeypatch.setattr(Store, "images", lambda self, split: opened.append(split) or whole(self, split))
    monkeypatch.setattr(cell_module, "blank", lambda *args: built.append(args) or blank(*args))
    tasks = [place.cell(method, task, steps=[2]) for method in "ab" for task in ("colour-standin", "side-standin")]
    step.run(place.job(*tasks))
    assert sorted(opened) == ["test", "train", "val"] and len(built) == 1


def test_images_of_one_store_at_a_time_are_kept(place, monkeypatch):
    """Cells of two stores that alternate in their job: each store is loaded once, and the first is freed."""
    make_store("data/stores/other/k", COUNTS, channels=3)
    cells = [with_store(place.cell(m, steps=[2]), f"data/stores/{s}/k") for m in "ab" for s in ("toy", "other")]
    cells = [replace(cell, folder=f"results/scores/{number}") for number, cell in enumerate(cells)]
    opened, freed = [], []
    whole = Store.images
    monkeypatch.setattr(Store, "images", lambda self, split: opened.append((self.folder, split)) or whole(self, split))
    step.run(place.job(*cells))
    assert len(opened) == len(set(opened)) == 6
    resources = cell_module.CellResources()
    for name in ("toy", "other"):
        images = resources.images(resources.store(f"data/stores/{name}/k"), {"test": 10})
        assert images is resources.images(resources.store(f"data/stores/{name}/k"), {"test": 10})
        freed.append(weakref.ref(images))
    del images
    gc.collect()
    assert [reference() is None for reference in freed] == [True, False]


def test_progress_counts_what_is_left_to_train(place):
    """After the sweep the last training is left, whether a trial was run or was finished before."""
    cell = place.cell()
    resources = cell_module.CellResources()
    learner, _ = cell_module._learner(cell, read_card(cell.encoder.folder), resources)
    store, rows = resources.store(cell.store.folder), {"train": 96, "val": 40}
    labels = read_labels(store, cell.task, rows, cell.classes).to(resources.device)
    preprocess = make_preprocess(16, "legacy", EncoderInput(16, -1.0, 1.0, None, None, False), resources.device)
    trainval = LabelledDataset(resources.images(store, rows), labels, preprocess)
    for finished in (0, 4):
        progress = Progress(cell.name, sweep.planned_images(cell.settings))
        assert len(sweep.sweep(cell, learner, trainval[:96], trainval[96:], progress)) == 4
        assert progress.total - progress.done == 6 * 16, f"{finished} trials were finished before"


def test_a_seed_varies_the_initialisation_from_scratch_only(place):
    """Card seeded: weights are drawn by the cell's seed; otherwise they are the file's."""
    network = build("resnet-small", 3)
    scratch, a = (f"results/encoders/{method}/k" for method in ("scratch", "a"))

    def weights(folder, seed):
        return initial_weights(read_card(folder), folder, network, seed)["stem.weight"]

    assert torch.equal(weights(scratch, 0), build("resnet-small", seed_of(0, "init")).stem.weight)
    assert not torch.equal(weights(scratch, 0), weights(scratch, 1))
    assert torch.equal(weights(a, 0), weights(a, 1)) and torch.equal(
        weights(a, 0), build("resnet-small", 0).stem.weight
    )


def test_the_1k_budget_is_a_prefix(place):
    """800 of train and 200 of val, never an example beyond; the rest of the store is poisoned and must not matter."""
    make_store("data/stores/big/k", {"train": 830, "val": 220, "test": 20}, channels=1, size=8)
    cell = place.cell(budget="1k", steps=[2])
    cell = with_store(cell, "data/stores/big/k", image_size=8)
    step.run(place.job(cell))
    score, arrays = result(cell)
    assert [score[name] for name in ("n_train", "n_val", "n_trainval", "n_test")] == [800, 200, 1000, 20]
    assert len(arrays["val_pred"]) == 200
    make_store("data/stores/poison/k", {"train": 830, "val": 220, "test": 20}, channels=1, size=8, poison=(800, 200))
    other = with_store(cell, "data/stores/poison/k", folder="results/other")
    step.run(place.job(other))
    same(result(cell), result(other))


def test_linear_evaluation_against_a_direct_computation(place):
    """Features once from the frozen encoder, then torch's own SGD on them; the encoder does not move."""
    cell = place.cell(evaluation="linear", learning_rates=[0.05], steps=[20], decay_at=[0.5], weight_decay=0.01)
    step.run(place.job(cell))
    score, arrays = result(cell)
    network = build("resnet-small", 0).eval()

    def features(split):
        images = np.load(f"data/stores/toy/k/{split}.npy").astype(np.float32)
        with torch.no_grad():
            return network(torch.from_numpy(images / 255 * 2 - 1).permute(0, 3, 1, 2))

    def labels(split):
        return torch.from_numpy(np.load(f"data/stores/toy/k/labels/colour-standin.{split}.npy"))

    def trained(x, y):
        head = nn.Linear(64, 3)
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)
        groups = [{"params": [head.weight], "weight_decay": 0.01}, {"params": [head.bias]}]
        optimiser = torch.optim.SGD(groups, lr=0.05, momentum=0.9)
        losses = []
        for number, rows in enumerate(shuffled_order(len(x), 16, 20, sweep.order_seed(cell, 0.05, 20)).split(16)):
            for group in optimiser.param_groups:
                group["lr"] = 0.05 if number <= 10 else 0.005
            optimiser.zero_grad()
            loss = nn.functional.cross_entropy(head(x[rows]), y[rows])
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
        return head, np.mean(losses[-2:])

    train, val = features("train"), features("val")
    head, loss = trained(train, labels("train"))
    assert score["trials"][0]["train_loss"] == pytest.approx(loss, rel=1e-3)
    assert score["selected"]["val_accuracy"] == pytest.approx(
        float((head(val).argmax(1) == labels("val")).float().mean())
    )
    head, loss = trained(torch.cat([train, val]), torch.cat([labels("train"), labels("val")]))
    assert score["selected"]["train_loss"] == pytest.approx(loss, rel=1e-3), "the order too is that of the setting"
    np.testing.assert_array_equal(arrays["test_pred"], head(features("test")).argmax(1).numpy())
    assert score["evaluation"] == "linear"


def test_benchmark_on_a_cpu(place):
    import json

    code = [sys.executable, "-m", "vtabflow", "bench", "--network", "resnet-small", "--size", "16"]
    code += ["--native", "8", "--batch", "4", "--steps", "3", "--device", "cpu"]
    environment = {**os.environ, "PYTHONPATH": str(source()), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(code, env=environment, capture_output=True, text=True, check=True)
    assert len(done.stdout.splitlines()) == 1
    found = json.loads(done.stdout)
    assert 0.02 < found["ratio"] < 50 and min(found["images_per_second"].values()) > 0
    assert 0 < found["outside_network"] < 1 and found["compiled"] is False and found["native"] == 8
