"""Several processes train as one does; with synchronised batch norm on GPUs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from vtabflow.contracts.typed_json import to_json
from vtabflow.runtime.files import read_json

# What the command does once it has leased so many GPUs.
TOGETHER = "from vtabflow import cli; cli.launch_processes({})"
# Convolutions in TF32 would differ between batches of 8 and of 16 by 1e-3.
EXACT = {**os.environ, "NVIDIA_TF32_OVERRIDE": "0"}


def pretrain(spec, path, processes, gpus):
    path.write_text(json.dumps(to_json(spec)))
    start, end = ["-m", "vtabflow"], ["--gpus", str(gpus)]
    if processes > 1:
        start, end = ["-c", TOGETHER.format(processes)], []
    command = [sys.executable, *start, "pretrain", "--threads", "1", "--spec", str(path), *end]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=EXACT)


def with_plain_norms(spec, path, processes, gpus):
    """The same, with batch norms that run on a CPU."""
    path.write_text(json.dumps(to_json(spec)))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    script = str(Path(__file__).with_name("plain_norms.py"))
    return subprocess.run([*command, script, str(path)], capture_output=True, text=True, timeout=300, env=EXACT)


def curves(make_spec, tmp_path, method, start=pretrain, gpus=0, **settings):
    """Losses (points, names) on the way, of one process and of two."""
    found = []
    for processes in (1, 2):
        spec = make_spec(method, f"of-{processes}", **settings)
        result = start(spec, tmp_path / f"{processes}.json", processes, gpus)
        assert result.returncode == 0, result.stderr
        card = read_json(Path(spec.folder) / "card.json")
        # Untrained heads tie, so that rounding decides what is correct; active codes are counted for each process.
        names = [name for name in sorted(card["curve"][0]) if not name.endswith(("accuracy", "active", "step"))]
        found.append([[point[name] for name in names] for point in card["curve"]])
        assert result.stdout.count(f"step {settings['steps']}/{settings['steps']}") == 1, "one process prints"
    return torch.tensor(found, dtype=torch.float64)


def test_losses_between_images_are_those_of_the_whole_batch():
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    script = str(Path(__file__).with_name("two_processes.py"))
    result = subprocess.run([*torchrun, script], capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("agrees") == 4


def test_two_processes_have_the_loss_curve_of_one(make_spec, tmp_path):
    """A method without batch norm: the same global batch, images, masks, gradients. 1e-4 over 30 steps."""
    pytest.importorskip("lightly")
    one, two = curves(make_spec, tmp_path, "mae", steps=30)
    assert (one - two).abs().max() < 1e-4
    assert (one[0] - one[-1]).abs().max() > 0.05, "the run learns, so that equality says something"


@pytest.mark.parametrize(
    ("method", "settings", "match"), [("rotation", {}, "one process on a CPU"), ("mae", {"batch": 15}, "multiple of 2")]
)
def test_what_two_processes_cannot_do_is_refused(make_spec, tmp_path, method, settings, match):
    spec = make_spec(method, **settings)
    result = pretrain(spec, tmp_path / "spec.json", 2, 0)
    assert result.returncode != 0 and match in result.stderr and "one of 2 processes failed" in result.stderr
    assert not Path(spec.folder).exists() and not Path(spec.receipt).exists()


# Plain SGD: a gradient that is summed and not averaged shows, which Adam would hide. At this rate a GAN's loss moves by
# 2 in 10 steps and the two runs stay within 5e-7; at 20 times the rate rounding separates them after 5.
GAN = {"steps": 10, "optimiser": "sgd", "generator_rate": 1e-4, "discriminator_rate": 1e-4}
SHARED = [
    ("sup-100", {"steps": 30, "learning_rate": 0.02}),
    ("cond-biggan", GAN),
    ("uncond-biggan", GAN),
    ("wae-ukl", {"steps": 30, "optimiser": "sgd", "learning_rate": 1e-4}),
]


@pytest.mark.parametrize(("method", "settings"), SHARED)
def test_two_processes_with_batch_norm_have_the_loss_curve_of_one(make_spec, tmp_path, method, settings):
    """All but torch's synchronised batch norm itself, which batch norms over gathered rows replace here."""
    one, two = curves(make_spec, tmp_path, method, with_plain_norms, precision="float32", **settings)
    assert (one - two).abs().max() < 1e-4
    assert (one - one[0]).abs().max() > 1e-2


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch synchronises batch norms on GPUs alone")
@pytest.mark.parametrize(("method", "settings"), SHARED)
def test_two_processes_on_gpus_have_the_loss_curve_of_one(make_spec, tmp_path, method, settings):
    """With torch's synchronised batch norm: on two GPUs over NCCL; where there is one, both use it, over gloo."""
    one, two = curves(make_spec, tmp_path, method, gpus=1, precision="float32", **settings)
    assert (one - two).abs().max() < 1e-4
    assert (one - one[0]).abs().max() > 1e-2
