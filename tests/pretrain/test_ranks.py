"""Several processes train as one does; with synchronised batch norm on GPUs."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from vtabflow.files import read_json


def pretrain(spec, path, processes):
    path.write_text(json.dumps(spec))
    command = ["pretrain", "--threads", "1", "--spec", str(path)]
    # What the command does once it has leased so many GPUs.
    several = ["-c", f"from vtabflow import cli; cli.start_together({processes})"]
    one = ["-m", "vtabflow"]
    start = several if processes > 1 else one
    end = [] if processes > 1 else ["--gpus", "0"]
    return subprocess.run([sys.executable, *start, *command, *end], capture_output=True, text=True, timeout=300)


def curves(make_spec, tmp_path, method, **settings):
    found = []
    for processes in (1, 2):
        spec = make_spec(method, f"of-{processes}", **settings)
        result = pretrain(spec, tmp_path / f"{processes}.json", processes)
        assert result.returncode == 0, result.stderr
        card = read_json(Path(spec["folder"]) / "card.json")
        found.append([[point[name] for name in sorted(point)] for point in card["curve"]])
        assert result.stdout.count(f"step {settings['steps']}/{settings['steps']}") == 1, "one process speaks"
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
    result = pretrain(spec, tmp_path / "spec.json", 2)
    assert result.returncode != 0 and match in result.stderr and "one of 2 processes failed" in result.stderr
    assert not Path(spec["folder"]).exists() and not Path(spec["receipt"]).exists()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch synchronises batch norms on GPUs alone")
@pytest.mark.parametrize("method", ["rotation", "cond-biggan"])
def test_two_processes_with_batch_norm_have_the_loss_curve_of_one(make_spec, tmp_path, method):
    """On two GPUs over NCCL; where there is one, both use it and meet over gloo."""
    one, two = curves(make_spec, tmp_path, method, steps=30, precision="float32")
    assert (one - two).abs().max() < 1e-4
    assert (one[0] - one[-1]).abs().max() > 0.01
