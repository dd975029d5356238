"""Cells that are interrupted: killed anywhere, ended by SIGTERM, resumed."""

import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from finetune_place import result, same

from vtabflow.contracts.typed_json import to_json
from vtabflow.finetune import cell as cell_module
from vtabflow.finetune import loop, step, sweep
from vtabflow.runtime.files import read_json, write_json


def source():
    return Path(step.__file__).parents[2]


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


def test_the_json_is_written_last(place, monkeypatch):
    """Predictions first: where a score.json or trial.json exists, its arrays do."""
    cell = place.cell(learning_rates=[0.1])
    written = []

    def checked(write_with):
        def call(path, write):
            json = path.with_name("score.json") if path.name == "predictions.npz" else path.with_suffix(".json")
            assert not json.exists()
            written.append(path.name)
            write_with(path, write)

        return call

    for module in (sweep, cell_module):
        monkeypatch.setattr(module, "write_with", checked(module.write_with))
    step.run(place.job(cell))
    assert written == ["trial-0.npz", "trial-1.npz", "predictions.npz"] and step.is_complete(cell)


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
