"""For every method: an interrupted run ends bit-identical to one that was not, and a run that diverges stops."""

import pytest
import torch
from small_methods import TRAINED

from vtabflow.networks import registry
from vtabflow.planning import catalogue
from vtabflow.prepare.store import open_store
from vtabflow.pretrain import loop
from vtabflow.pretrain.upstream import Upstream

STEPS = 8
GPU = pytest.param(
    "cuda", marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")]
)


class Interrupted(Exception):
    pass


def trained(spec, folder, stop_at=None, device="cpu"):
    """The method after loop.train; with `stop_at` it is interrupted at that batch, as by a kill, and None returned."""
    kind, settings = catalogue.load(spec.method), spec.settings
    store = open_store(spec.upstream.folder)
    up = Upstream(store, spec.upstream, kind.streams, settings.batch, 0, torch.device(device))
    method = kind(registry.build(spec.network, 0), spec.image_size, up.classes, settings.flat(), 0)
    draw = up.draw

    def counted(t):
        if t == stop_at:
            raise Interrupted
        return draw(t)

    up.draw = counted
    try:
        return method, loop.train(method, up, settings, 0, "k", folder)
    except Interrupted:
        return None


@pytest.mark.parametrize("device", ["cpu", GPU])
@pytest.mark.parametrize("name", TRAINED)
def test_interrupted_and_whole_runs_are_bit_identical(make_spec, tmp_path, monkeypatch, name, device):
    """Everything that the method keeps: weights, moving averages, vectors of spectral norms, centres, batch norms."""
    monkeypatch.setenv("VTABFLOW_CHECKPOINT_STEPS", "3")
    for package in catalogue.info(name).needs:
        pytest.importorskip(package)
    spec = make_spec(name, steps=STEPS)
    check_interrupted_is_whole(spec, tmp_path, device)


def check_interrupted_is_whole(spec, folder, device):
    whole, _ = trained(spec, folder / "whole", device=device)
    updates = len(catalogue.info(spec.method).update_order)
    assert trained(spec, folder / "torn", 5 * updates, device) is None
    torn, outcome = trained(spec, folder / "torn", device=device)
    assert outcome.resumed == 1 and outcome.steps == STEPS
    want, have = whole.state_dict(), torn.state_dict()
    assert [key for key in want if not torch.equal(want[key], have[key])] == []


@pytest.mark.parametrize("device", [pytest.param("cpu", marks=pytest.mark.slow), GPU])
@pytest.mark.parametrize("name", ["rotation", "cond-biggan"])
def test_interrupted_and_whole_compiled_runs_are_bit_identical(make_spec, tmp_path, monkeypatch, name, device):
    monkeypatch.setenv("VTABFLOW_CHECKPOINT_STEPS", "3")
    monkeypatch.setattr(loop, "worth_compiling", lambda *_: True)
    check_interrupted_is_whole(make_spec(name, steps=STEPS, precision="float32"), tmp_path, device)


@pytest.mark.parametrize("device", [pytest.param("cpu", marks=pytest.mark.slow), GPU])
@pytest.mark.parametrize("name", ["rotation", "cond-biggan", "bigbigan"])
def test_compiled_runs_have_the_losses_of_plain_ones(make_spec, tmp_path, monkeypatch, name, device):
    """Spectral norms and several updates per step too."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    spec, curves = make_spec(name, steps=STEPS, precision="float32"), []
    for compiled in (False, True):
        monkeypatch.setattr(loop, "worth_compiling", lambda *_, compiled=compiled: compiled)
        _, outcome = trained(spec, tmp_path / str(compiled), device=device)
        curves.append([[value for name, value in sorted(point.items())] for point in outcome.curve])
    plain, compiled = torch.tensor(curves, dtype=torch.float64)
    assert len(plain) == STEPS and (plain - compiled)[:3].abs().max() < 1e-3
    assert (plain[0] - plain[-1]).abs().max() > 0.01


@pytest.mark.parametrize("name", [name for name in TRAINED if len(catalogue.info(name).update_order) > 1])
def test_a_diverging_adversary_is_stopped_with_its_last_good_weights(make_spec, tmp_path, monkeypatch, capsys, name):
    """Learning rates are raised at step 4 until weights grow without bound; nothing need be infinite for that."""
    monkeypatch.setenv("VTABFLOW_CHECKPOINT_STEPS", "3")
    spec = make_spec(name, steps=STEPS, divergence=10.0)
    good, kept = {}, loop.checkpoint.save

    def save(folder, state):
        kept(folder, state)
        good[state["outcome"]["steps"]] = {key: value.clone() for key, value in state["method"].items()}

    rate = loop.Schedule.rate
    monkeypatch.setattr(loop.checkpoint, "save", save)
    monkeypatch.setattr(loop.Schedule, "rate", lambda self, step: rate(self, step) if step < 4 else 30.0)
    method, outcome = trained(spec, tmp_path)
    assert outcome.status == "stopped" and outcome.steps == 3 and list(good) == [3]
    assert outcome.curve[-1]["step"] == 3, "losses are of the weights that are kept"
    assert all(outcome.losses["end"][key] == value for key, value in outcome.curve[-1].items() if key != "step")
    assert "step 3" in outcome.reason and ("grown" in outcome.reason or "finite" in outcome.reason)
    state = method.state_dict()
    assert all(torch.equal(state[key], good[3][key]) for key in state)
    assert "stopped" in capsys.readouterr().out


def test_a_resumed_run_keeps_its_first_losses_and_its_seconds(make_spec, tmp_path, monkeypatch):
    """Bounds are relative to the first losses of the whole run, not to those after an interruption."""
    monkeypatch.setenv("VTABFLOW_CHECKPOINT_STEPS", "3")
    spec = make_spec("rotation", steps=STEPS)
    assert trained(spec, tmp_path, 5) is None
    path = tmp_path / loop.checkpoint.NAME
    state = torch.load(path)
    start = dict.fromkeys(state["outcome"]["losses"]["start"], 123.0)
    state["outcome"] |= {"losses": {**state["outcome"]["losses"], "start": start}, "seconds": 5000.0}
    torch.save(state, path)
    seen = []
    real = loop.Bounds.broken
    monkeypatch.setattr(loop.Bounds, "broken", lambda self, *args: seen.append(self.start) or real(self, *args))
    _, outcome = trained(spec, tmp_path)
    assert outcome.resumed == 1 and outcome.losses["start"] == start and outcome.seconds > 5000
    assert seen[0] == start


def test_a_slow_run_is_saved_by_time(make_spec, tmp_path, monkeypatch):
    monkeypatch.setenv("VTABFLOW_CHECKPOINT_STEPS", "1000")
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", -1.0)
    spec = make_spec("rotation", steps=STEPS)
    assert trained(spec, tmp_path, 5) is None
    _, outcome = trained(spec, tmp_path)
    assert outcome.resumed == 1 and outcome.steps == STEPS


def test_a_short_run_that_diverges_late_keeps_most_of_its_steps(make_spec, tmp_path, monkeypatch):
    monkeypatch.delenv("VTABFLOW_CHECKPOINT_STEPS", raising=False)
    rate = loop.Schedule.rate
    monkeypatch.setattr(loop.Schedule, "rate", lambda self, step: rate(self, step) if step < 25 else 1e9)
    _, outcome = trained(make_spec("cond-biggan", steps=30, divergence=10.0), tmp_path)
    assert outcome.status == "stopped" and outcome.steps == 24


def test_bounds_on_losses_and_weights():
    net = torch.nn.Linear(4, 4)
    bounds = loop.Bounds(10.0, {}, list(net.parameters()))
    assert bounds.broken({"a": 0.5, "b": -3.0}, net) is None, "the first losses set the bounds"
    assert bounds.broken({"a": 9.9, "b": 29.0}, net) is None
    assert "a had grown from 0.5 to 10.1" in bounds.broken({"a": 10.1, "b": 0.0}, net)
    assert "b had grown" in bounds.broken({"a": 0.0, "b": -31.0}, net)
    assert "finite" in bounds.broken({"a": float("nan"), "b": 0.0}, net)
    with torch.no_grad():
        net.weight.mul_(30)
    assert "norm of the weights" in bounds.broken({"a": 0.0, "b": 0.0}, net)
    with torch.no_grad():
        net.weight.fill_(float("inf"))
    assert "finite" in bounds.broken({"a": 0.0, "b": 0.0}, net)
