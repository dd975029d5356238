"""Whole cells on the disk: what is written, when test examples are read, kills, jobs, linear evaluation."""

import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from finetune_place import COUNTS, make_store, result, with_store
from torch import nn

from vtabflow.contracts.typed_json import to_json
from vtabflow.errors import UserError
from vtabflow.finetune import cell as cell_module
from vtabflow.finetune import loop, step, sweep
from vtabflow.finetune.data import shuffled_order
from vtabflow.finetune.encoder import initial_weights, read_card
from vtabflow.networks.registry import blank, build
from vtabflow.prepare.store import Store
from vtabflow.runtime.files import read_json, write_json


def same(one, other):
    """Accuracy, predictions, trials and selection; not the times."""
    (score, arrays), (other_score, other_arrays) = one, other
    kept = ("status", "accuracy", "selected", "n_train", "n_val", "n_test")
    assert {name: score[name] for name in kept} == {name: other_score[name] for name in kept}
    for a, b in zip(score["trials"], other_score["trials"], strict=True):
        assert {**a, "seconds": 0} == {**b, "seconds": 0}
    assert arrays.keys() == other_arrays.keys()
    for name in arrays:
        np.testing.assert_array_equal(arrays[name], other_arrays[name])


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
    assert score["images_per_second"] > 0 and 0 < score["outside_network"] < 1 and score["peak_memory_bytes"] > 2**20
    assert {"python", "torch", "numpy"} <= score["versions"].keys() and score["machine"]["name"]
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


class Killed(BaseException):
    pass


class KillAfterCalls:
    """Raises Killed at the `left`-th call from now of the functions that it wraps; never if `left` is 0."""

    left = 0

    def count(self):
        self.left -= 1
        if self.left == 0:
            raise Killed

    def before(self, function):
        return lambda *args, **more: (self.count(), function(*args, **more))[1]

    def after(self, function):
        return lambda *args, **more: (function(*args, **more), self.count())[0]


@pytest.mark.parametrize("evaluation", ["finetune", "linear"])
def test_killed_at_random_moments_and_resumed(place, monkeypatch, evaluation):
    """Wherever it is stopped (in a step, a prediction, between two files), the end is that of an undisturbed run."""
    cell = place.cell(evaluation=evaluation)
    step.run(place.job(cell))
    undisturbed = result(cell)
    rng = random.Random(evaluation)
    kill = KillAfterCalls()
    monkeypatch.setattr(loop.Learner, "step", kill.before(loop.Learner.step))
    monkeypatch.setattr(loop.Learner, "predict", kill.after(loop.Learner.predict))
    for module in (sweep, cell_module):
        monkeypatch.setattr(module, "write_with", kill.after(module.write_with))
        monkeypatch.setattr(module, "write_json", kill.before(module.write_json))
    kills = 0
    for round_ in range(4):
        again = replace(cell, folder=f"results/again/{round_}", scratch=f"scratch/again/{round_}")
        while not step.is_complete(again):
            kill.left = rng.randrange(1, 30)
            try:
                step.run(place.job(again))
            except Killed:
                kills += 1
                assert not Path(f"{again.folder}/score.json").exists()
        kill.left = 0
        same(undisturbed, result(again))
        assert sorted(os.listdir(again.folder)) == ["predictions.npz", "score.json"]
    assert kills >= 4


def test_finished_trials_are_not_run_again(place, monkeypatch):
    cell = place.cell()
    runs = []
    real = sweep.run_trial

    def run_trial(cell, learner, train, val, rate, steps, progress):
        if len(runs) == 3:
            raise KeyboardInterrupt
        runs.append((rate, steps))
        return real(cell, learner, train, val, rate, steps, progress)

    monkeypatch.setattr(sweep, "run_trial", run_trial)
    with pytest.raises(KeyboardInterrupt):
        step.run(place.job(cell))
    assert runs == [(0.1, 3), (0.1, 6), (0.01, 3)]
    runs.clear()
    step.run(place.job(cell))
    assert runs == [(0.01, 6)]


def test_failed_trials_are_not_run_again(place, monkeypatch):
    """A trial that diverged is finished: a resumed cell takes it as it was recorded."""
    cell = place.cell(learning_rates=[1e9, 0.01], steps=[12, 3])
    fits = []
    real = loop.Learner.fit

    def fit(self, examples, schedule, *args):
        if len(fits) == 3:
            raise KeyboardInterrupt
        fits.append((schedule.learning_rate, schedule.steps))
        return real(self, examples, schedule, *args)

    monkeypatch.setattr(loop.Learner, "fit", fit)
    with pytest.raises(KeyboardInterrupt):
        step.run(place.job(cell))
    recorded = read_json(f"{cell.scratch}/trial-0.json")
    assert recorded["status"] == "failed" and fits == [(1e9, 12), (1e9, 3), (0.01, 12)]
    fits.clear()
    step.run(place.job(cell))
    score, _ = result(cell)
    assert fits == [(0.01, 3), (0.01, score["selected"]["steps"])], "the trial that was missing, and the last training"
    assert score["trials"][0] == recorded


def test_sigterm_leaves_finished_trials_and_no_compiler(place):
    """A real process, ended in its second trial. It must not have imported torch._dynamo, 3 to 5 s of every process."""
    cell = place.cell(learning_rates=[0.1], steps=[2, 100_000])
    write_json("spec.json", to_json(place.job(cell)))
    code = (
        "import sys; from vtabflow.cli import main\n"
        "try: sys.exit(main(['finetune', '--gpus', '0', '--spec', 'spec.json']))\n"
        "finally: print('compiler' if 'torch._dynamo' in sys.modules else 'lean', flush=True)"
    )
    environment = {**os.environ, "PYTHONPATH": str(source()), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True)
    saved = Path(cell.scratch) / "trial-0.json"
    deadline = time.monotonic() + 60
    while not saved.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=30)
    assert process.returncode == 130 and out.strip() == "lean"
    assert sorted(os.listdir(cell.scratch)) == ["trial-0.json", "trial-0.npz"]
    assert not Path(cell.folder).exists() and not Path("results/jobs/p.json").exists()


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


def test_a_seed_varies_the_initialisation_from_scratch_only(place):
    """Card seeded: weights are drawn by the cell's seed; otherwise they are the file's."""
    network = build("resnet-small", 3)
    scratch, a = (f"results/encoders/{method}/k" for method in ("scratch", "a"))

    def weights(folder, seed):
        return initial_weights(read_card(folder), folder, network, seed)["stem.weight"]

    assert torch.equal(weights(scratch, 0), weights(scratch, 0))
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
        for number, rows in enumerate(shuffled_order(len(x), 16, 20, sweep.order_seed(cell, 0.05, 20)).split(16)):
            for group in optimiser.param_groups:
                group["lr"] = 0.05 if number <= 10 else 0.005
            optimiser.zero_grad()
            nn.functional.cross_entropy(head(x[rows]), y[rows]).backward()
            optimiser.step()
        return head

    train, val = features("train"), features("val")
    head = trained(train, labels("train"))
    assert score["selected"]["val_accuracy"] == pytest.approx(
        float((head(val).argmax(1) == labels("val")).float().mean())
    )
    head = trained(torch.cat([train, val]), torch.cat([labels("train"), labels("val")]))
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
