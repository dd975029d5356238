"""The sweep over learning rates and schedule lengths, the selection, and the training of what is selected.

Test examples are not among the arguments.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vtabflow.contracts.results import PassedOver, Selected, TrialResult
from vtabflow.contracts.specs import CellSpec, FinetuneSettings
from vtabflow.contracts.typed_json import from_json, to_json
from vtabflow.finetune.data import LabelledDataset
from vtabflow.finetune.loop import Fit, Learner
from vtabflow.runtime.files import read_json, seed_of, write_json, write_with
from vtabflow.runtime.progress import Progress


@dataclass(frozen=True)
class Trial:
    """One setting, trained on train and scored on val. `val_pred` (int32, N) is None if the trial failed."""

    result: TrialResult
    val_pred: np.ndarray | None = None


@dataclass(frozen=True)
class FinalTraining:
    """The training on train and val, of the best setting for which it did not fail (or of the last one tried)."""

    trial: Trial
    selected: Selected
    fit: Fit
    passed_over: tuple[PassedOver, ...]
    seconds: float


def grid(settings: FinetuneSettings) -> list[tuple[float, int]]:
    """The (learning rate, steps) of each trial, in the order of the lists."""
    return [(rate, steps) for rate in settings.learning_rates for steps in settings.steps]


def planned_images(settings: FinetuneSettings) -> int:
    """Images that a cell trains on: every trial, and a last training that is at most the longest of them."""
    return (sum(steps for _, steps in grid(settings)) + max(settings.steps)) * settings.batch


def order_seed(cell: CellSpec, learning_rate: float, steps: int) -> int:
    """The seed of a training's randomness; it does not depend on the method, so all methods see the same batches."""
    return seed_of(cell.seed, cell.task, cell.budget, "order", float(learning_rate), int(steps))


def sweep(
    cell: CellSpec, learner: Learner, train: LabelledDataset, val: LabelledDataset, progress: Progress
) -> list[Trial]:
    """Run every trial that is not in the cell's scratch folder yet; each is saved there as soon as it is finished.

    The scratch folder is named by the cell's key, which contains all that a trial depends on, the sweep included: a
    saved trial is one of this very sweep, and a changed sweep starts anew.
    """
    trials = []
    for number, (rate, steps) in enumerate(grid(cell.settings)):
        path = Path(cell.scratch) / f"trial-{number}.json"
        trial = read_trial(path)
        if trial is None:
            of = f"trial {number + 1} of {len(grid(cell.settings))}"
            progress.label = f"  {cell.name}: {of}, {rate:g} x {steps} steps"
            trial = run_trial(cell, learner, train, val, rate, steps, progress)
            write_trial(path, trial)
        else:
            progress.skip(steps * cell.settings.batch)
        trials.append(trial)
    return trials


def run_trial(
    cell: CellSpec,
    learner: Learner,
    train: LabelledDataset,
    val: LabelledDataset,
    rate: float,
    steps: int,
    progress: Progress,
) -> Trial:
    """Train one setting from the encoder's weights on train and score it on val."""
    fit = learner.fit(train, learner.schedule(rate, steps), order_seed(cell, rate, steps), progress.add)
    if fit.reason is not None:
        return Trial(TrialResult(rate, steps, None, None, fit.seconds, "failed", fit.reason))
    predicted = learner.predict(val)
    if predicted is None:
        reason = "an output on the validation examples is not finite"
        return Trial(TrialResult(rate, steps, None, fit.loss, fit.seconds, "failed", reason))
    accuracy = float((predicted.numpy() == val.labels.cpu().numpy()).mean())
    return Trial(TrialResult(rate, steps, accuracy, fit.loss, fit.seconds, "ok", None), predicted.numpy())


def ranked(trials: Sequence[Trial]) -> list[Trial]:
    """The trials that succeeded, best first.

    Highest validation accuracy; of equals fewer steps, then the lower rate.
    """

    def rank(trial: Trial) -> tuple[float, int, float]:
        result = trial.result
        return -(result.val_accuracy or 0.0), result.steps, result.learning_rate

    return sorted((trial for trial in trials if trial.result.status == "ok"), key=rank)


def train_selected(
    cell: CellSpec, learner: Learner, trainval: LabelledDataset, ranking: Sequence[Trial], progress: Progress
) -> FinalTraining:
    """Train the best setting on train and val; where that diverges, the next best.

    `ranking` is not empty. The selection is written to the cell's scratch folder.
    """
    passed_over: list[PassedOver] = []
    seconds = 0.0
    for trial in ranking:
        rate, steps = trial.result.learning_rate, trial.result.steps
        progress.label = f"  {cell.name}: selected, {rate:g} x {steps} steps on train and val"
        fit = learner.fit(trainval, learner.schedule(rate, steps), order_seed(cell, rate, steps), progress.add)
        seconds += fit.seconds
        if fit.reason is None:
            break
        passed_over.append(PassedOver(rate, steps, f"training on train and val failed: {fit.reason}"))
    selected = Selected(rate, steps, trial.result.val_accuracy or 0.0, fit.loss)
    write_json(Path(cell.scratch) / "selection.json", to_json(selected))
    return FinalTraining(trial, selected, fit, tuple(passed_over), seconds)


def write_trial(path: Path, trial: Trial) -> None:
    """Write a finished trial: predictions first, the JSON last, so that the trial exists if its JSON does."""
    predictions = trial.val_pred
    if predictions is not None:
        write_with(path.with_suffix(".npz"), lambda stream: np.savez(stream, val_pred=predictions))
    write_json(path, to_json(trial.result))


def read_trial(path: Path) -> Trial | None:
    """The finished trial at `path`, None if there is none."""
    if not path.is_file():
        return None
    result = from_json(TrialResult, read_json(path), str(path))
    if result.status == "failed":
        return Trial(result)
    with np.load(path.with_suffix(".npz"), allow_pickle=False) as arrays:
        return Trial(result, arrays["val_pred"])
