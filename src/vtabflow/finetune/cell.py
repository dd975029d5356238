"""One cell: the sweep on train and val, the selection, one training on both, one test."""

import gc
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vtabflow.contracts.results import EncoderCard, Score
from vtabflow.contracts.specs import CellSpec
from vtabflow.contracts.typed_json import to_json
from vtabflow.errors import RunError
from vtabflow.finetune.accuracy import balanced_accuracy
from vtabflow.finetune.data import ImageSource, LabelledDataset, make_preprocess, read_labels, rows_of
from vtabflow.finetune.encoder import extract_features, initial_weights, read_card
from vtabflow.finetune.loop import Learner
from vtabflow.finetune.sweep import Trial, planned_images, ranked, sweep, train_selected
from vtabflow.networks.registry import blank
from vtabflow.prepare.store import Store, open_store
from vtabflow.runtime.compute import (
    check_portable,
    machine,
    peak_memory,
    resolve_precision,
    versions,
    worth_compiling,
)
from vtabflow.runtime.files import write_json, write_with
from vtabflow.runtime.progress import Progress

Predictions = dict[str, Any]  # val_pred, val_true, test_pred and test_true, each int32 (N,)


class CellResources:
    """What the cells of one process share: stores, images on the device, networks and their compiled form.

    No result depends on it: weights are put back before each training, and whether a cell is compiled depends on the
    cell alone. It keeps the images of one store at a time.

    Args:
        portable: whether the cells are portable, and thus made on the processor.
    """

    def __init__(self, portable: bool = False) -> None:
        if portable:
            check_portable()
        self.device = torch.device("cuda" if torch.cuda.is_available() and not portable else "cpu")
        # Shapes are fixed, so the search for the fastest convolution is paid once for each shape.
        torch.backends.cudnn.benchmark = True
        self._stores: dict[str, Store] = {}
        self._images: dict[tuple[Path, tuple[str, ...]], ImageSource] = {}
        self._networks: dict[str, nn.Module] = {}
        self._compiled: dict[str, Callable[[Tensor], Tensor]] = {}

    def store(self, folder: str) -> Store:
        """The store at `folder`, opened once."""
        if folder not in self._stores:
            self._stores[folder] = open_store(folder)
        return self._stores[folder]

    def images(self, store: Store, rows: dict[str, int]) -> ImageSource:
        """The first images of some splits (split -> how many), one split after the other, loaded once."""
        key = store.folder, tuple(f"{split}[:{count}]" for split, count in rows.items())
        self._images = {other: images for other, images in self._images.items() if other[0] == store.folder}
        if key not in self._images:
            parts = [store.images(split)[:count] for split, count in rows.items()]
            self._images[key] = ImageSource(parts, self.device)
        return self._images[key]

    def network(self, name: str) -> nn.Module:
        """The network on the device, in channels_last; its weights have to be loaded.

        Raises:
            UserError: there is no network of this name.
        """
        if name not in self._networks:
            # CPUs keep the default for weights: oneDNN reorders what it needs by itself.
            self._networks[name] = blank(name, self.device).to(memory_format=torch.channels_last)
        return self._networks[name]

    def forward(self, name: str, images: int, size: int) -> Callable[[Tensor], Tensor]:
        """How the network is called in training: compiled where that pays, with one fixed batch shape.

        Args:
            name: the network's.
            images: that are trained on, each time counted.
            size: their side in pixels.
        """
        network = self.network(name)
        if not worth_compiling(images, size, self.device):
            return network
        if name not in self._compiled:
            self._compiled[name] = torch.compile(network, dynamic=False)
        return self._compiled[name]

    def free_memory(self) -> None:
        """Give back the GPU memory that a cell which failed has left: the next cell's allocations do not fit in it."""
        if self.device.type == "cuda":
            gc.collect()
            torch.cuda.empty_cache()


def make(cell: CellSpec, resources: CellResources) -> None:
    """Make a cell's predictions.npz and score.json, print one line, remove its scratch folder.

    A numeric failure (no trial with a finite loss, an encoder that failed) is recorded in score.json.

    Raises:
        UserError: a bad store or encoder.
        RunError: the GPU has too little memory.
    """
    if resources.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(resources.device)
    try:
        score, predictions = evaluate(cell, resources)
    except torch.OutOfMemoryError as error:
        raise RunError(
            f"the GPU ran out of memory with batches of {cell.settings.batch} at {cell.image_size} px; "
            "set a smaller finetune.batch or use a GPU with more"
        ) from error
    if score.trials:
        score = replace(score, peak_memory_bytes=peak_memory(resources.device))
    folder = Path(cell.folder)
    if predictions:
        write_with(folder / "predictions.npz", lambda stream: np.savez_compressed(stream, **predictions))
    else:
        (folder / "predictions.npz").unlink(missing_ok=True)
    write_json(folder / "score.json", to_json(score))
    shutil.rmtree(cell.scratch, ignore_errors=True)
    print(f"{cell.name}: {_summary(score)}", flush=True)


def evaluate(cell: CellSpec, resources: CellResources) -> tuple[Score, Predictions]:
    """The score of a cell, and its predictions (empty if the cell failed)."""
    store = resources.store(cell.store.folder)
    rows = rows_of(store, cell.budget)
    score = _failed(cell, rows, resources.device)
    card = read_card(cell.encoder.folder)
    if card.status == "failed":
        return replace(score, reason=f"encoder failed: {card.reason or 'its card gives no reason'}"), {}

    began = time.perf_counter()
    preprocess = make_preprocess(cell.image_size, cell.settings.resize, card.input, resources.device)

    def dataset(*splits: str) -> LabelledDataset:
        chosen = {split: rows[split] for split in splits}
        labels = read_labels(store, cell.task, chosen, cell.classes).to(resources.device)
        return LabelledDataset(resources.images(store, chosen), labels, preprocess)

    learner, as_input = _learner(cell, card, resources)
    trainval = as_input(dataset("train", "val"))
    train, val = trainval[: rows["train"]], trainval[rows["train"] :]
    progress = Progress(cell.name, planned_images(cell.settings), every=30.0)
    overhead = time.perf_counter() - began

    trials = sweep(cell, learner, train, val, progress)
    seconds = overhead + sum(trial.result.seconds for trial in trials)
    score = replace(score, trials=tuple(trial.result for trial in trials), seconds=seconds)
    ranking = ranked(trials)
    if not ranking:
        return replace(score, reason=f"no trial succeeded: {score.trials[-1].reason}"), {}
    final = train_selected(cell, learner, trainval, ranking, progress)
    score = replace(
        score,
        selected=final.selected,
        passed_over=final.passed_over,
        images_per_second=final.fit.images_per_second,
        outside_network=final.fit.outside_network,
        seconds=score.seconds + final.seconds,
    )
    if final.fit.reason is not None:
        return replace(score, reason=f"training the selected setting on train and val failed: {final.fit.reason}"), {}

    # The selection is written: from here on, and not before, the test examples may be read.
    began = time.perf_counter()
    test = as_input(dataset("test"))
    test_pred = learner.predict(test)
    score = replace(score, seconds=score.seconds + time.perf_counter() - began)
    if test_pred is None:
        return replace(score, reason="an output on the test examples is not finite"), {}
    predictions = _predictions(final.trial, val, test_pred, test)
    accuracy = float((predictions["test_pred"] == predictions["test_true"]).mean())
    balanced = balanced_accuracy(predictions["test_pred"], predictions["test_true"])
    return replace(score, status="ok", accuracy=accuracy, balanced_accuracy=balanced), predictions


def _learner(
    cell: CellSpec, card: EncoderCard, resources: CellResources
) -> tuple[Learner, Callable[[LabelledDataset], LabelledDataset]]:
    """What is trained, and how its input is made of images: in linear evaluation, by the frozen encoder."""
    settings, device = cell.settings, resources.device
    network = resources.network(card.network)
    weights = initial_weights(card, cell.encoder.folder, network, cell.seed)
    weights = {key: tensor.to(device) for key, tensor in weights.items()}
    if settings.evaluation == "linear":
        network.load_state_dict(weights)
        learner = Learner(nn.Identity(), nn.Identity(), {}, card.features, cell.classes, settings, device)
        return learner, partial(extract_features, network, batch=settings.batch, precision=learner.precision)
    forward = resources.forward(card.network, planned_images(settings), cell.image_size)
    return Learner(network, forward, weights, card.features, cell.classes, settings, device), lambda images: images


def _failed(cell: CellSpec, rows: dict[str, int], device: torch.device) -> Score:
    """The score of a cell that fails before it begins."""
    return Score(
        key=cell.key,
        method=cell.method,
        task=cell.task,
        budget=cell.budget,
        seed=cell.seed,
        source=cell.source,
        evaluation=cell.settings.evaluation,
        status="failed",
        reason=None,
        selected=None,
        accuracy=None,
        images_per_second=None,
        outside_network=None,
        peak_memory_bytes=None,
        trials=(),
        passed_over=(),
        n_train=rows["train"],
        n_val=rows["val"],
        n_trainval=rows["train"] + rows["val"],
        n_test=rows["test"],
        seconds=0.0,
        precision=resolve_precision(cell.settings.precision, device),
        spec=to_json(cell),
        versions=versions(),
        machine=machine(device),
    )


def _predictions(selected: Trial, val: LabelledDataset, test_pred: Tensor, test: LabelledDataset) -> Predictions:
    """Classes of the validation examples (the selected trial's) and test examples (the last training's), int32 (N,)."""
    assert selected.val_pred is not None
    arrays = {
        "val_pred": selected.val_pred,
        "val_true": val.labels.cpu().numpy(),
        "test_pred": test_pred.numpy(),
        "test_true": test.labels.cpu().numpy(),
    }
    return {key: array.astype(np.int32) for key, array in arrays.items()}


def _summary(score: Score) -> str:
    if score.accuracy is None or score.selected is None:
        return f"failed ({score.reason}), {score.seconds:.1f} s"
    setting = f"{score.selected.learning_rate:g} x {score.selected.steps} steps of {len(score.trials)} trials"
    return f"{100 * score.accuracy:.2f}% of {score.n_test} test images ({setting}), {score.seconds:.1f} s"
