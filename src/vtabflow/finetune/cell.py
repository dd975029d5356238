"""One cell: the sweep on train and val, the selection, one training on both, one test."""

import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from vtabflow.errors import RunError
from vtabflow.finetune.data import Examples
from vtabflow.finetune.encoder import read_card, start_of
from vtabflow.finetune.linear import as_features, featurise
from vtabflow.finetune.loop import Learner
from vtabflow.finetune.progress import Progress
from vtabflow.finetune.resources import CellResources, planned_images
from vtabflow.finetune.step import name
from vtabflow.finetune.sweep import Trial, order_seed, ranked, sweep
from vtabflow.runtime.compute import machine, peak_memory, resolved, versions
from vtabflow.runtime.files import write_json, write_with


def make(cell: dict[str, Any], workshop: CellResources) -> None:
    """Make a cell's predictions.npz and score.json, print one line, remove its scratch folder.

    A numeric failure (no trial with a finite loss, an encoder that failed) is recorded in score.json. UserError for a
    bad store or encoder, RunError if the GPU's memory does not do.
    """
    if workshop.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(workshop.device)
    try:
        score, predictions = score_of(cell, workshop)
    except torch.OutOfMemoryError as error:
        raise RunError(
            f"the GPU ran out of memory with batches of {cell['settings']['batch']} at {cell['image_size']} px; "
            "set a smaller finetune.batch or use a GPU with more"
        ) from error
    folder = Path(cell["folder"])
    if predictions:
        write_with(folder / "predictions.npz", lambda stream: np.savez_compressed(stream, **predictions))
    else:
        (folder / "predictions.npz").unlink(missing_ok=True)
    write_json(folder / "score.json", score)
    shutil.rmtree(cell["scratch"], ignore_errors=True)
    print(f"{name(cell)}: {_summary(score)}", flush=True)


def score_of(cell: dict[str, Any], workshop: CellResources) -> tuple[dict[str, Any], dict[str, Any]]:
    """The content of score.json and of predictions.npz (empty if the cell failed)."""
    score = _blank(cell, workshop)
    card = read_card(cell["encoder"]["folder"])
    if card["status"] == "failed":
        score["reason"] = f"encoder failed: {card.get('reason') or 'its card says no reason'}"
        return score, {}
    began = time.perf_counter()
    settings, network = cell["settings"], card["network"]
    trunk = workshop.trunk(network)
    start = start_of(card, cell["encoder"]["folder"], trunk, cell["seed"])
    start = {key: tensor.to(workshop.device) for key, tensor in start.items()}
    train, val, trainval = workshop.trainval(cell, card["input"])
    shape = {"features": card["features"], "classes": cell["classes"], "settings": settings, "device": workshop.device}
    learner: Learner
    if settings["evaluation"] == "linear":
        trunk.load_state_dict(start)
        identity = nn.Identity()
        learner = Learner(identity, identity, {}, **shape)
        vectors = featurise(trunk, trainval, settings["batch"], learner.precision)
        train, val = as_features(vectors, train), as_features(vectors, val, len(train))
        trainval = as_features(vectors, trainval)
    else:
        learner = Learner(trunk, workshop.forward(network, cell), start, **shape)
    progress = Progress(name(cell), planned_images(cell))

    overhead = time.perf_counter() - began
    trials = sweep(cell, learner, train, val, progress)
    score["trials"] = [trial.row() for trial in trials]
    score["seconds"] = overhead + sum(trial.seconds for trial in trials)
    ranking = ranked(trials)
    if not ranking:
        score["reason"] = f"no trial succeeded: {trials[-1].reason}"
        return _finished(score, workshop), {}

    # The best setting is trained on train and val; where that diverges, the next best: no test example has a say.
    for chosen in ranking:
        rate, steps = chosen.learning_rate, chosen.steps
        progress.label = f"selected, {rate:g} x {steps} steps on train and val"
        fit = learner.fit(trainval, learner.schedule(rate, steps), order_seed(cell, rate, steps), progress.tick)
        score["seconds"] += fit.seconds
        if fit.reason is None:
            break
        reason = f"training on train and val failed: {fit.reason}"
        score["passed_over"].append({"learning_rate": rate, "steps": steps, "reason": reason})
    score["selected"] = {key: chosen.row()[key] for key in ("learning_rate", "steps", "val_accuracy")}
    score["selected"]["train_loss"] = fit.loss  # of this last training: whether it went as its trial did
    write_json(Path(cell["scratch"]) / "selection.json", score["selected"])
    score["images_per_second"], score["outside_network"] = fit.images_per_second, fit.outside_network
    if fit.reason is not None:
        score["reason"] = f"training the selected setting on train and val failed: {fit.reason}"
        return _finished(score, workshop), {}

    # The selection is on the disk: from here on, and not before, the test examples may be opened.
    began = time.perf_counter()
    test = workshop.test(cell, card["input"])
    if settings["evaluation"] == "linear":
        test = as_features(featurise(trunk, test, settings["batch"], learner.precision), test)
    found = learner.predict(test)
    score["seconds"] += time.perf_counter() - began
    if found is None:
        score["reason"] = "an output on the test examples is not finite"
        return _finished(score, workshop), {}
    predictions = _predictions(chosen, val, found.numpy(), test)
    score["status"] = "ok"
    score["accuracy"] = float((predictions["test_pred"] == predictions["test_true"]).mean())
    return _finished(score, workshop), predictions


def _blank(cell: dict[str, Any], workshop: CellResources) -> dict[str, Any]:
    """The score of a cell that has failed before it began: every field is there."""
    score = {key: cell[key] for key in ("key", "method", "task", "budget", "seed", "source")}
    empty = ("reason", "selected", "accuracy", "images_per_second", "outside_network", "peak_memory_bytes")
    return {
        **score,
        "evaluation": cell["settings"]["evaluation"],
        "status": "failed",
        **dict.fromkeys(empty),
        "trials": [],
        "passed_over": [],
        **workshop.counts(cell),
        "seconds": 0.0,
        "precision": resolved(cell["settings"]["precision"], workshop.device),
        "spec": cell,
        "versions": versions(),
        "machine": machine(workshop.device),
    }


def _finished(score: dict[str, Any], workshop: CellResources) -> dict[str, Any]:
    return {**score, "peak_memory_bytes": peak_memory(workshop.device)}


def _predictions(chosen: Trial, val: Examples, found: np.ndarray, test: Examples) -> dict[str, Any]:
    """Classes of every validation example (the selected trial's) and test example (the retrained model's), int32."""
    assert chosen.val_pred is not None
    arrays = {
        "val_pred": chosen.val_pred,
        "val_true": val.labels.cpu().numpy(),
        "test_pred": found,
        "test_true": test.labels.cpu().numpy(),
    }
    return {key: array.astype(np.int32) for key, array in arrays.items()}


def _summary(score: dict[str, Any]) -> str:
    if score["status"] == "failed":
        return f"failed ({score['reason']}), {score['seconds']:.1f} s"
    selected = score["selected"]
    setting = f"{selected['learning_rate']:g} x {selected['steps']} steps of {len(score['trials'])} trials"
    return f"{100 * score['accuracy']:.2f}% of {score['n_test']} test images ({setting}), {score['seconds']:.1f} s"
