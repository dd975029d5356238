"""What goes wrong: rates that diverge, encoders that failed or do not fit, stores that do not serve."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from finetune_place import COUNTS, make_encoder, make_store, result, with_store
from safetensors.torch import save_file

from vtabflow.errors import RunError, UserError
from vtabflow.finetune import cell as cell_module
from vtabflow.finetune import loop, step
from vtabflow.networks.registry import build
from vtabflow.runtime.files import read_json


def test_a_diverging_trial_fails_and_the_others_go_on(place):
    cell = place.cell(learning_rates=[1e9, 0.01], steps=[12])
    step.run(place.job(cell))
    score, _ = result(cell)
    assert [trial["status"] for trial in score["trials"]] == ["failed", "ok"]
    assert score["trials"][0]["val_accuracy"] is None and "not finite at step" in score["trials"][0]["reason"]
    assert score["status"] == "ok" and score["selected"]["learning_rate"] == 0.01


def test_a_cell_of_failed_trials_is_recorded_and_the_others_go_on(place, capsys):
    bad, good = place.cell(learning_rates=[1e9], steps=[12]), place.cell("b", steps=[2])
    stale = Path(bad.folder) / "predictions.npz"
    stale.parent.mkdir(parents=True)
    stale.write_bytes(b"of a run that was killed")
    step.run(place.job(bad, good))
    score = read_json(f"{bad.folder}/score.json")
    assert score["status"] == "failed" and "not finite" in score["reason"]
    assert score["accuracy"] is None and score["selected"] is None and score["n_test"] == 56
    assert not stale.exists()
    whole = result(good)[0]
    assert whole["status"] == "ok" and whole.keys() == score.keys()
    assert "failed (no trial succeeded" in capsys.readouterr().out


@pytest.mark.parametrize("diverging", [1, 2])
def test_a_last_training_that_diverges_gives_way_to_the_next_best(place, monkeypatch, diverging):
    """And the cell fails where all do. The test examples are opened when the setting is selected, not before."""
    fits, opened = [], []
    real, read_labels = loop.Learner.fit, cell_module.read_labels

    def fit(self, examples, *args):
        fits.append(len(examples))
        found = real(self, examples, *args)
        last = fits[-1] == 136 and fits.count(136) <= diverging
        return loop.Fit(None, "the loss is not finite at step 1 of 2", 1.0, 1.0, 0.5) if last else found

    monkeypatch.setattr(loop.Learner, "fit", fit)

    def watched(store, task, rows, classes):
        opened.extend([len(fits)] if "test" in rows else [])
        return read_labels(store, task, rows, classes)

    monkeypatch.setattr(cell_module, "read_labels", watched)
    cell = place.cell(steps=[2])
    step.run(place.job(cell))
    score = read_json(f"{cell.folder}/score.json")
    assert fits == [96, 96, 136, 136], "trials on train, trainings on train and val"
    order = [trial["learning_rate"] for trial in sorted(score["trials"], key=lambda t: -t["val_accuracy"])]
    assert [trial["learning_rate"] for trial in score["passed_over"]] == order[:diverging]
    assert all("train and val failed" in trial["reason"] for trial in score["passed_over"])
    if diverging == 1:
        assert score["status"] == "ok" and score["selected"]["learning_rate"] == order[1] and opened == [4]
    else:
        assert score["status"] == "failed" and "train and val failed" in score["reason"] and not opened


def test_an_encoder_that_failed_fails_its_cells_without_training(place, monkeypatch):
    make_encoder("broken", 0, status="failed")
    Path("results/encoders/broken/k/encoder.safetensors").unlink()
    monkeypatch.setattr(loop.Learner, "fit", None)
    cell = place.cell("broken", precision="bfloat16")
    step.run(place.job(cell))
    score = read_json(f"{cell.folder}/score.json")
    assert score["status"] == "failed" and score["reason"].startswith("encoder failed: ") and score["trials"] == []
    assert score["peak_memory_bytes"] is None and score["precision"] == "bfloat16"


def test_weights_of_another_architecture_are_named(place):
    make_encoder("odd", 0)
    path = Path("results/encoders/odd/k/encoder.safetensors")
    weights = build("resnet-small", 0).state_dict()
    weights["stem.weight"] = torch.zeros(16, 3, 5, 5)
    weights["extra"] = torch.zeros(1)
    del weights["norm.bias"]
    save_file(weights, path)
    cells = [place.cell("a", steps=[2]), place.cell("odd", steps=[2]), place.cell("b", steps=[2])]
    with pytest.raises(UserError) as caught:
        step.run(place.job(*cells))
    for word in (
        "cell odd/colour-standin/full/0",
        str(path),
        "resnet-small",
        "stem.weight is [16, 3, 5, 5]",
        "norm.bias is missing",
        "extra",
    ):
        assert word in str(caught.value)
    assert [step.is_complete(cell) for cell in cells] == [True, False, True], "the others go on"
    assert not Path("results/jobs/p.json").exists()
    save_file(build("resnet-small", 1).state_dict(), path)
    with pytest.raises(UserError, match="its SHA-256 has changed"):
        step.run(place.job(cells[1]))
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match="not a whole safetensors file"):
        step.run(place.job(cells[1]))
    path.unlink()
    with pytest.raises(UserError, match="is not there"):
        step.run(place.job(cells[1]))
    Path("results/encoders/odd/k/card.json").unlink()
    with pytest.raises(UserError, match="there is no encoder at results/encoders/odd/k"):
        step.run(place.job(cells[1]))


def test_labels_that_are_refused_stop_their_cells_only(place, capsys):
    """Two of four cells cannot be made: the others are finished, the first error is raised, no receipt is written."""
    path = Path("data/stores/toy/k/labels/colour-standin.train.npy")
    labels = np.load(path)
    np.save(path, (labels + 1) % 3)
    cells = [place.cell(m, task, steps=[2]) for m in "ab" for task in ("colour-standin", "side-standin")]
    with pytest.raises(UserError) as caught:
        step.run(place.job(*cells))
    shown = str(caught.value)
    assert shown.startswith("cell a/colour-standin/full/0: store data/stores/toy/k: labels/colour-standin.train.npy")
    assert shown.endswith("(2 of 4 cells failed, the others are finished)")
    assert [step.is_complete(cell) for cell in cells] == [False, True, False, True]
    assert not Path("results/jobs/p.json").exists()
    assert "not made: cell b/colour-standin/full/0: store" in capsys.readouterr().out
    np.save(path, labels)
    step.run(place.job(*cells))
    assert all(map(step.is_complete, cells)) and read_json("results/jobs/p.json")["made"] is True


def test_a_cell_that_does_not_fit_the_gpu_stops_itself_only(place, monkeypatch):
    real = loop.Learner.fit

    def fit(self, examples, *args):
        if self.settings.batch == 17:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(self, examples, *args)

    monkeypatch.setattr(loop.Learner, "fit", fit)
    large, small = place.cell(batch=17, steps=[2]), place.cell("b", steps=[2])
    with pytest.raises(RunError, match=r"^cell a/colour-standin/full/0: the GPU .* 17 at 16 px; .* \(1 of 2 cells"):
        step.run(place.job(large, small))
    assert not step.is_complete(large) and result(small)[0]["status"] == "ok"


def test_an_unexpected_error_stops_its_cell_only(place, capsys):
    """A real one: batch norm on one image of one place. It has no score, and is made once the cause is gone."""
    make_encoder("deep", 0, network="resnet50v2")
    bad, good = place.cell("deep", batch=1, steps=[2]), place.cell("b", steps=[2])
    with pytest.raises(
        RunError, match=r"^cell deep/colour-standin/full/0: ValueError: Expected more .* \(1 of 2 cells"
    ):
        step.run(place.job(bad, good))
    assert not step.is_complete(bad) and result(good)[0]["status"] == "ok"
    assert not Path("results/jobs/p.json").exists()
    assert "Traceback" in capsys.readouterr().err


def test_stores_that_do_not_serve_are_refused(place):
    cell = place.cell()
    with pytest.raises(UserError, match="classes 0 to 1"):
        step.run(place.job(replace(cell, classes=2)))
    make_store("data/stores/few/k", COUNTS, channels=3, rows="1k")
    few = with_store(cell, "data/stores/few/k")
    with pytest.raises(UserError, match="only the rows of the 1k budget"):
        step.run(place.job(few))
    images = np.load("data/stores/toy/k/train.npy")
    np.save("data/stores/toy/k/train.npy", 255 - images)
    with pytest.raises(UserError, match=r"cell a/colour-standin/full/0: store data/stores/toy/k: train\.npy"):
        step.run(place.job(cell))
