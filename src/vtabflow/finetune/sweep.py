"""The sweep over learning rates and schedule lengths, and the selection. Test examples are not among its arguments."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vtabflow.finetune.data import Examples
from vtabflow.finetune.loop import Learner
from vtabflow.finetune.progress import Progress
from vtabflow.runtime.files import read_json, seed_of, write_json, write_with


@dataclass
class Trial:
    """One setting tried: trained on train, scored on val. `val_pred` (int32, N) is None if the trial failed."""

    learning_rate: float
    steps: int
    val_accuracy: float | None
    train_loss: float | None
    seconds: float
    status: str
    reason: str | None
    val_pred: np.ndarray | None = field(default=None, repr=False)

    def row(self) -> dict[str, Any]:
        """The trial as score.json has it."""
        return {name: value for name, value in asdict(self).items() if name != "val_pred"}


def settings_of(cell: dict[str, Any]) -> list[tuple[float, int]]:
    """The (learning rate, steps) of each trial, in the order of the lists."""
    settings = cell["settings"]
    return [(float(rate), int(steps)) for rate in settings["learning_rates"] for steps in settings["steps"]]


def order_seed(cell: dict[str, Any], learning_rate: float, steps: int) -> int:
    """The seed of a training's randomness: no method or pack in it, so all methods see the same batches."""
    return seed_of(cell["seed"], cell["task"], cell["budget"], "order", float(learning_rate), int(steps))


def sweep(cell: dict[str, Any], learner: Learner, train: Examples, val: Examples, progress: Progress) -> list[Trial]:
    """Run every trial that is not in the cell's scratch folder yet; each is saved there as soon as it is finished.

    The scratch folder is named by the cell's key, which holds all that a trial is made from, the sweep included: what
    lies there is of this very sweep, and a changed sweep starts anew.
    """
    trials = []
    true = val.labels.cpu().numpy()
    settings = settings_of(cell)
    for number, (rate, steps) in enumerate(settings):
        trial = saved(cell, number)
        if trial is None:
            progress.label = f"trial {number + 1} of {len(settings)}, {rate:g} x {steps} steps"
            trial = run_trial(cell, learner, train, val, true, rate, steps, progress)
            save(cell, number, trial)
        else:
            progress.skip(steps * cell["settings"]["batch"])
        trials.append(trial)
    return trials


def run_trial(
    cell: dict[str, Any],
    learner: Learner,
    train: Examples,
    val: Examples,
    true: np.ndarray,
    rate: float,
    steps: int,
    progress: Progress,
) -> Trial:
    """Train one setting from the encoder's weights on train and score it on val."""
    fit = learner.fit(train, learner.schedule(rate, steps), order_seed(cell, rate, steps), progress.tick)
    if fit.reason is not None:
        return Trial(rate, steps, None, None, fit.seconds, "failed", fit.reason)
    predicted = learner.predict(val)
    if predicted is None:
        reason = "an output on the validation examples is not finite"
        return Trial(rate, steps, None, fit.loss, fit.seconds, "failed", reason)
    found = predicted.numpy()
    return Trial(rate, steps, float((found == true).mean()), fit.loss, fit.seconds, "ok", None, found)


def ranked(trials: list[Trial]) -> list[Trial]:
    """The trials that succeeded, the selected one first: highest validation accuracy; of equals fewer steps, then the
    lower rate.
    """
    good = [trial for trial in trials if trial.status == "ok" and trial.val_accuracy is not None]
    return sorted(good, key=lambda t: (-(t.val_accuracy or 0.0), t.steps, t.learning_rate))


def save(cell: dict[str, Any], number: int, trial: Trial) -> None:
    """Predictions first, the JSON last: a trial is there if its JSON is."""
    path = _path(cell, number)
    if trial.val_pred is not None:
        predictions = trial.val_pred
        write_with(path.with_suffix(".npz"), lambda stream: np.savez(stream, val_pred=predictions))
    write_json(path, trial.row())


def saved(cell: dict[str, Any], number: int) -> Trial | None:
    """Trial `number` of the sweep, if it is finished and in the scratch folder."""
    path = _path(cell, number)
    if not path.is_file():
        return None
    trial = Trial(**read_json(path))
    if trial.status == "ok":
        with np.load(path.with_suffix(".npz"), allow_pickle=False) as arrays:
            trial.val_pred = arrays["val_pred"]
    return trial


def _path(cell: dict[str, Any], number: int) -> Path:
    return Path(cell["scratch"]) / f"trial-{number}.json"
