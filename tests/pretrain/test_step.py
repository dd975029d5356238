"""The step from spec to card: results, refusals, divergence, and being killed."""

import json
import math
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from settings_of_tests import with_settings
from small_methods import TRAINED

from vtabflow.contracts.results import EncoderCard
from vtabflow.contracts.specs import UpstreamSpec
from vtabflow.contracts.typed_json import from_json, to_json
from vtabflow.errors import RunError, UserError
from vtabflow.finetune.encoder import initial_weights, read_card
from vtabflow.methods.base import Method
from vtabflow.networks import registry
from vtabflow.planning import catalogue
from vtabflow.prepare.store import open_store
from vtabflow.pretrain import loop, step
from vtabflow.pretrain.upstream import Upstream
from vtabflow.runtime.files import digest, read_json


def card(spec):
    return read_json(Path(spec.folder) / "card.json")


def weights(spec):
    return (Path(spec.folder) / "encoder.safetensors").read_bytes()


def test_other_weights_in_an_encoders_folder_are_refused(make_spec):
    spec = make_spec("rotation", steps=2)
    step.run(spec)
    trunk, path = registry.build("resnet-small", 1), Path(spec.folder) / "encoder.safetensors"
    start = initial_weights(read_card(spec.folder), spec.folder, trunk, 0)
    assert all(torch.equal(value, start[name]) for name, value in load_file(path).items())
    save_file(trunk.state_dict(), path)
    with pytest.raises(UserError, match="is not the file that was pre-trained"):
        initial_weights(read_card(spec.folder), spec.folder, trunk, 0)


@pytest.mark.parametrize("method", TRAINED)
def test_a_trained_encoder(make_spec, method):
    spec = make_spec(method)
    step.run(spec)
    made = card(spec)
    assert made["status"] == "ok" and made["seeded"] is False and made["resumed"] == 0 and made["spec"] == to_json(spec)
    assert made["precision"] == ("bfloat16" if torch.cuda.is_available() else "float32") and made["machine"]["name"]
    assert made["input"] == {
        "size": 32,
        "low": -1.0,
        "high": 1.0,
        "mean": None,
        "std": None,
        "standardise": method in ("exemplar", "jigsaw", "relative-patch-location"),
    }
    assert made["losses"]["start"].keys() == made["losses"]["end"].keys() and made["images_per_second"] > 0
    assert made["curve"][0]["step"] == 1 and made["curve"][-1]["step"] == 12
    manifest = open_store(spec.upstream.folder).manifest
    labelled = catalogue.info(method).uses_labels
    files = ["train.npy"] + ["labels/corners.train.npy"] * labelled
    assert made["upstream"]["sha256"] == {file: manifest.sha256[file] for file in files}
    assert (made["upstream"]["subset"] is not None) == (spec.upstream.subset is not None)
    assert made["probe"]["n_test"] == 40 and 0 <= made["probe"]["start"] <= 1
    has_samples = (Path(spec.folder) / "pictures.png").exists()
    assert has_samples == (catalogue.load(method).samples is not Method.samples)
    if spec.upstream.subset:
        listed = (Path(spec.folder) / "subset.txt").read_text().splitlines()
        assert made["upstream"]["subset"]["digest"] == digest(listed) and len(listed) == 24
    net = registry.build(made["network"], 1)
    net.load_state_dict(load_file(Path(spec.folder) / "encoder.safetensors"))
    assert read_json(spec.receipt) == {"key": "k", "folder": spec.folder, "made": True}
    assert not Path(spec.scratch).exists()


def test_from_scratch_is_the_seeded_initialisation(make_spec):
    spec = make_spec("from-scratch", seed=3)
    step.run(spec)
    made = card(spec)
    assert (
        made["seeded"] is True
        and made["precision"] is None
        and made["upstream"] is None
        and made["probe"] is None
        and made["losses"] == {}
    )
    want = registry.build("resnet-small", 3).state_dict()
    have = load_file(Path(spec.folder) / "encoder.safetensors")
    assert have.keys() == want.keys() and all(torch.equal(have[k], want[k]) for k in want)


RUN = """
import json, sys
from vtabflow.contracts.specs import EncoderSpec
from vtabflow.contracts.typed_json import from_json
from vtabflow.pretrain.step import run
run(from_json(EncoderSpec, json.load(open(sys.argv[1])), sys.argv[1]))
sys.exit("torch" in sys.modules)
"""


def test_a_complete_result_is_not_made_again_and_torch_not_imported(make_spec, tmp_path):
    spec = make_spec()
    step.run(spec)
    before = weights(spec)
    Path(spec.scratch).mkdir(parents=True)
    (tmp_path / "spec.json").write_text(json.dumps(to_json(spec)))
    assert subprocess.run([sys.executable, "-c", RUN, str(tmp_path / "spec.json")]).returncode == 0
    assert weights(spec) == before and read_json(spec.receipt)["made"] is False
    assert not Path(spec.scratch).exists()


def test_cards_are_read_as_they_were_written(make_spec):
    for method in ("sup-10", "from-scratch"):
        spec = make_spec(method, method) if method == "from-scratch" else make_spec(method, method, steps=2)
        step.run(spec)
        assert to_json(from_json(EncoderCard, card(spec), "card.json")) == card(spec)


def test_heads_start_from_the_seed(make_spec, monkeypatch):
    started = []
    build = catalogue.load("rotation").build
    monkeypatch.setattr(
        catalogue.load("rotation"), "build", lambda self: started.append(torch.rand(1).item()) or build(self)
    )
    for i, seed in enumerate((0, 1, 0)):
        step.run(make_spec("rotation", str(i), seed, steps=1))
    assert started[0] == started[2] != started[1]


def test_a_method_finalizes_the_network_before_it_is_kept(make_spec, monkeypatch):
    monkeypatch.setattr(catalogue.load("rotation"), "finalize", lambda self: self.trunk.stem.weight.zero_())
    spec = make_spec(steps=1)
    step.run(spec)
    assert load_file(Path(spec.folder) / "encoder.safetensors")["stem.weight"].abs().max() == 0


def test_training_learns(make_spec):
    spec = make_spec("sup-100", steps=60, crop_area_min=0.9, colour=False)
    step.run(spec)
    made = card(spec)
    assert made["losses"]["start"]["class"] == pytest.approx(math.log(4), abs=1e-6)
    assert made["losses"]["end"]["class"] < 1.0
    other = make_spec("sup-100", key="other", seed=1, steps=3)
    step.run(other)
    assert weights(other) != weights(spec)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"upstream": None}, "trains on an upstream"),
        ({"network": "resnet5"}, "no network 'resnet5'"),
        ({"method": "rotatoin"}, "did you mean rotation"),
        ({"batch": 1}, "needs at least 2"),
        ({"steps": 0}, "needs at least 1"),
        ({"precision": "float8"}, "float8"),
        ({"optimiser": "lamb"}, "lamb"),
    ],
)
def test_a_spec_that_cannot_run_is_refused_in_a_sentence(make_spec, change, match):
    spec = make_spec()
    of_spec = {name: value for name, value in change.items() if hasattr(spec, name)}
    spec = replace(spec, **of_spec) if of_spec else with_settings(spec, **change)
    with pytest.raises(UserError, match=match):
        step.run(spec)
    assert not (Path(spec.folder) / "card.json").exists() and not Path(spec.receipt).exists()


def test_divergence_is_a_result_with_the_last_good_weights(make_spec, monkeypatch, capsys):
    """The loss is made NaN at step 7; with a checkpoint every 3 steps the weights are those of step 6."""
    monkeypatch.setenv("VTABFLOW_CHECKPOINT_STEPS", "3")
    good = {}
    real_save, real = loop.checkpoint.save, catalogue.load("rotation").losses

    def save(folder, state):
        real_save(folder, state)
        good[state["outcome"]["steps"]] = {k: v.clone() for k, v in state["method"].items()}

    calls = []

    def losses(self, *args):
        calls.append(1)
        found = real(self, *args)
        return {**found, "rotation": found["rotation"] * (math.nan if len(calls) > 7 else 1)}

    monkeypatch.setattr(loop.checkpoint, "save", save)
    monkeypatch.setattr(catalogue.load("rotation"), "losses", losses)
    spec = make_spec()
    step.run(spec)
    made = card(spec)
    assert made["status"] == "stopped" and "not finite" in made["reason"] and "step 6" in made["reason"]
    assert made["probe"] is not None and read_json(spec.receipt)["made"] is True
    assert "stopped" in capsys.readouterr().out and not Path(spec.scratch).exists()
    have = load_file(Path(spec.folder) / "encoder.safetensors")
    assert sorted(good) == [3, 6] and all(torch.equal(have[k], good[6][f"trunk.{k}"]) for k in have)


def test_divergence_before_any_checkpoint_leaves_the_first_weights(make_spec):
    spec = make_spec("vae", learning_rate=1e30)
    step.run(spec)
    assert card(spec)["status"] == "failed" and card(spec)["probe"] is None
    have, want = load_file(Path(spec.folder) / "encoder.safetensors"), registry.build("resnet-small", 0).state_dict()
    assert all(torch.equal(have[k], want[k]) for k in want)


def test_a_gpu_without_enough_memory_is_a_sentence_with_what_to_do(make_spec, monkeypatch):
    def losses(self, *args):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    monkeypatch.setattr(catalogue.load("rotation"), "losses", losses)
    spec = make_spec()
    with pytest.raises(RunError, match=r"method rotation: .* batches of 16 at 32 px; set a smaller pretrain\.batch"):
        step.run(spec)
    assert not Path(spec.folder).exists() and not Path(spec.receipt).exists()


def test_whether_a_run_is_compiled_follows_from_all_its_images_and_their_size(make_spec, monkeypatch):
    """The four turns of an image count once; two streams count twice."""
    asked = []
    monkeypatch.setattr(loop, "worth_compiling", lambda *args: asked.append(args) or False)
    step.run(make_spec("rotation", "one"))
    step.run(make_spec("semi-rotation-10", "two"))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    assert asked == [(12 * 16, 32, device), (2 * 12 * 16, 32, device)]


def test_sigterm_leaves_the_checkpoint_and_the_next_run_goes_on(make_spec, tmp_path):
    """The command, ended after its first checkpoint by a scheduler's time limit."""
    spec = make_spec(steps=100_000)
    (tmp_path / "spec.json").write_text(json.dumps(to_json(spec)))
    environment = {**os.environ, "VTABFLOW_CHECKPOINT_STEPS": "2"}
    command = [sys.executable, "-m", "vtabflow", "pretrain", "--threads", "1", "--gpus", "0"]
    process = subprocess.Popen(
        [*command, "--spec", str(tmp_path / "spec.json")], env=environment, stderr=subprocess.PIPE, text=True
    )
    saved = Path(spec.scratch) / "checkpoint.pt"
    deadline = time.monotonic() + 120
    while not saved.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    _, shown = process.communicate(timeout=60)
    assert process.returncode == 130 and "interrupted" in shown and "Traceback" not in shown
    assert os.listdir(spec.scratch) == ["checkpoint.pt"], "nothing half-written is left"
    assert not Path(spec.folder).exists() and not Path(spec.receipt).exists()
    assert loop.checkpoint.load(Path(spec.scratch), "k")["outcome"]["steps"] >= 2


def run_alone(spec, draws, ready):
    """One process: a thread as in the tests, a checkpoint every 3 steps; says when it has drawn so many batches."""
    torch.set_num_threads(1)
    os.environ["VTABFLOW_CHECKPOINT_STEPS"] = "3"
    draw, drawn = Upstream.draw, []

    def told(self, t):
        drawn.append(t)
        if len(drawn) == draws:
            ready.set()
        return draw(self, t)

    Upstream.draw = told
    step.run(spec)


@pytest.mark.parametrize("method", ["semi-rotation-10", "vae", "uncond-biggan"])
def test_killed_at_random_moments_it_ends_bit_identical(make_spec, method):
    """SIGKILL again and again: SGD with two streams, Adam with drawn codes, two groups with averages and norms."""
    whole, torn = make_spec(method, "whole", steps=40), make_spec(method, "torn", steps=40)
    step.run(whole)
    # One process imports torch (and dynamo, which the first optimiser needs) and the others are forked from it.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["vtabflow.pretrain.loop", "safetensors.torch", "torch._dynamo"])
    rng, kills, turns = random.Random(0), 0, len(catalogue.info(method).update_order)
    for _ in range(20):
        ready = context.Event()
        job = context.Process(target=run_alone, args=(torn, rng.randint(1, 9 * turns) if kills < 5 else 0, ready))
        job.start()
        if kills < 5:
            ready.wait(120)
            time.sleep(rng.uniform(0, 0.02))
            job.kill()
        job.join()
        if job.exitcode == 0:
            break
        assert job.exitcode == -9
        kills += 1
    assert kills >= 2
    assert weights(torn) == weights(whole)
    first, second = card(whole), card(torn)
    assert second["resumed"] >= 1 and first["resumed"] == 0
    assert second["losses"]["start"] == first["losses"]["start"]
    assert not Path(torn.scratch).exists()


class Duel(Method):
    """Two parameter groups: the critic is updated twice per step, the generator once, and an average follows."""

    id = "duel"
    streams = {"images": "images"}
    update_order = ("critic", "critic", "generator")

    def build(self):
        self.generator = torch.nn.Linear(2, 2)
        self.register_buffer("average", torch.zeros(2, 2))
        self.seen, self.random = [], []

    def parameter_groups(self):
        return {"critic": list(self.trunk.parameters()), "generator": list(self.generator.parameters())}

    def group_settings(self):
        return {"generator": {"learning_rate": 0.5, "optimiser": "adam"}}

    def losses(self, group, batch, rng):
        images, labels = batch["images"]
        assert labels is None
        self.seen.append(
            (group, images.clone(), self.generator.weight.requires_grad, self.trunk.stem.weight.requires_grad)
        )
        self.random += [rng.uniform((3,)).tolist(), torch.rand(3).tolist()]
        x = images.permute(0, 3, 1, 2).float() / 255
        return {
            "loss": self.trunk(x).square().mean() + self.generator.weight.square().sum(),
            "metric": torch.ones(()),
        }

    def after_step(self, number):
        self.average.lerp_(self.generator.weight, 0.5)


@pytest.fixture
def duel(upstream_folder, make_spec, tmp_path):
    """A Duel and its outcome after 4 steps."""
    return fight(upstream_folder, make_spec, tmp_path)


def duel_of(upstream_folder, make_spec):
    """A Duel that is not trained, its upstream and settings."""
    settings = with_settings(make_spec(), steps=4, warmup=0.0, decay_at=()).settings
    on = UpstreamSpec(dataset="corners", folder="x", receipt="", task="corners", classes=4)
    up = Upstream(open_store(upstream_folder), on, Duel.streams, 16, 0, torch.device("cpu"))
    return Duel(registry.build("resnet-small", 0), 16, None, settings.flat(), 0), up, settings


def fight(upstream_folder, make_spec, folder):
    method, up, settings = duel_of(upstream_folder, make_spec)
    return method, loop.train(method, up, settings, 0, "k", folder)


def test_parameter_groups_have_optimisers_of_their_own(upstream_folder, make_spec, tmp_path):
    method, up, settings = duel_of(upstream_folder, make_spec)
    before = method.generator.weight.detach().clone()
    trainer = loop.Trainer(method, up, settings, 0, "k", tmp_path)
    optimisers, rates = trainer.optimisers, {name: each.rate(0) for name, each in trainer.schedules.items()}
    assert type(optimisers["critic"]) is torch.optim.SGD and type(optimisers["generator"]) is torch.optim.Adam
    assert rates == {"critic": settings.learning_rate, "generator": 0.5}
    trainer.step(0)
    # Adam's first step is the learning rate.
    torch.testing.assert_close((method.generator.weight - before).abs(), torch.full((2, 2), 0.5))


def test_parameter_groups_are_updated_in_order_with_fresh_batches(duel):
    method, outcome = duel
    assert [group for group, *_ in method.seen] == ["critic", "critic", "generator"] * 4
    assert all((g, t) == ((True, False) if p == "generator" else (False, True)) for p, _, g, t in method.seen)
    assert not torch.equal(method.seen[0][1], method.seen[1][1])
    assert set(outcome.losses["end"]) == {"critic/loss", "critic/metric", "generator/loss", "generator/metric"}
    assert outcome.losses["end"]["critic/metric"] == 1
    assert method.average.abs().max() > 0


def test_each_update_has_random_numbers_of_its_own(duel):
    """Those of the BatchRNG and those of torch's global generator: else D and G of a GAN would see one noise."""
    numbers = [tuple(row) for row in duel[0].random]
    assert len(numbers) == 2 * 3 * 4 and len(set(numbers[0::2])) == len(set(numbers[1::2])) == 3 * 4


def test_random_numbers_follow_from_the_seed_alone(duel, upstream_folder, make_spec, tmp_path):
    """Whatever ran before in the process: else a resumed run would have other ones."""
    torch.manual_seed(12345)
    again, _ = fight(upstream_folder, make_spec, tmp_path / "again")
    assert again.random == duel[0].random
