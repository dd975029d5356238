"""The fine-tuning loop compared with the bare training step: what loading, resizing and bookkeeping cost.

    vtabflow bench --network resnet50v2 --size 224 --batch 512 --steps 60 --native 64

prints one line of JSON. The bare step is the same network (compiled on a GPU), head, loss and SGD on one fixed batch.
"""

import argparse
import json
import os
from collections.abc import Sequence
from statistics import median
from typing import Any, Literal

import numpy as np
import torch

from vtabflow.contracts.results import EncoderInput
from vtabflow.contracts.specs import FinetuneSettings
from vtabflow.finetune.data import ImageSource, LabelledDataset, make_preprocess
from vtabflow.finetune.loop import Learner, between, mark
from vtabflow.networks.registry import NETWORKS, build, check
from vtabflow.runtime.compute import machine, peak_memory, resolve_precision, versions

ROUNDS = 5  # Alternating, so that a change of the clock or of other load meets both; the medians are reported.


def measure(
    device: str | torch.device,
    size: int,
    batch: int,
    network: str,
    steps: int,
    native: int | None = None,
    channels: int = 3,
    classes: int = 100,
    examples: int = 1000,
    precision: Literal["auto", "float32", "bfloat16"] = "auto",
    resize: Literal["legacy", "antialias"] = "legacy",
) -> dict[str, Any]:
    """Images/s of the bare step and of the loop over synthetic images on the device, and their ratio (loop / bare).

    Args:
        device: where.
        size: pixels that the network sees.
        batch: images per step.
        network: a name in networks/registry.py.
        steps: steps per measurement, of which there are five each.
        native: pixels of the stored images; `size` if None.
        channels: of the stored images, 1 or 3.
        classes: outputs of the head.
        examples: number of stored images.
        precision: auto, float32 or bfloat16.
        resize: legacy or antialias.

    Returns:
        What is printed. `outside_network` is the fraction of the loop's time that order, gather, resize and
        normalisation take.

    Raises:
        UserError: an unknown network.
    """
    check(network)
    device = torch.device(device)
    torch.backends.cudnn.benchmark = True
    model = build(network, 0).to(device).to(memory_format=torch.channels_last)
    compiled = device.type == "cuda" and os.environ.get("VTABFLOW_COMPILE") != "0"
    forward = torch.compile(model, dynamic=False) if compiled else model
    weights = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    settings = FinetuneSettings(
        evaluation="finetune",
        learning_rates=(0.01,),
        steps=(steps,),
        batch=batch,
        momentum=0.9,
        weight_decay=0.0,
        warmup=0.0,
        decay_at=(),
        decay_factor=0.1,
        precision=precision,
        resize=resize,
    )
    learner = Learner(model, forward, weights, NETWORKS[network]["features"], classes, settings, device)

    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (examples, native or size, native or size, channels), dtype=np.uint8)
    expected = EncoderInput(size, low=0.0, high=1.0, mean=None, std=None, standardise=False)
    labels = torch.from_numpy(rng.integers(0, classes, examples)).to(device)
    dataset = LabelledDataset(ImageSource([images], device), labels, make_preprocess(size, resize, expected, device))
    schedule = learner.schedule(0.01, steps)

    x, y = next(dataset.batches(torch.arange(batch) % examples, batch))
    learner.fit(dataset, learner.schedule(0.01, min(steps, 5)), 0)
    bare, loop, outside = [], [], []
    for number in range(ROUNDS):
        bare.append(steps * batch / _bare_seconds(learner, x, y, schedule.learning_rate, steps))
        fit = learner.fit(dataset, schedule, number)
        loop.append(fit.images_per_second)
        outside.append(fit.outside_network)
    return {
        "network": network,
        "size": size,
        "native": native or size,
        "channels": channels,
        "batch": batch,
        "steps": steps,
        "rounds": ROUNDS,
        "precision": resolve_precision(precision, device),
        "compiled": compiled,
        "captured": learner.captured is not None,
        "images_per_second": {"bare": median(bare), "loop": median(loop)},
        "ratio": median(one / other for one, other in zip(loop, bare, strict=True)),
        "outside_network": median(outside),
        "peak_memory_bytes": peak_memory(device),
        "machine": machine(device),
        "versions": versions(),
    }


def _bare_seconds(learner: Learner, x: torch.Tensor, y: torch.Tensor, rate: float, steps: int) -> float:
    """Seconds of `steps` steps on one batch."""
    learner.reset()
    for _ in range(min(5, steps)):
        learner.step(x, y, rate)
    start = mark(learner.device)
    for _ in range(steps):
        learner.step(x, y, rate)
    return between(start, mark(learner.device), learner.device)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command `vtabflow bench`."""
    parser = argparse.ArgumentParser(prog="vtabflow bench", description="images/s of the loop and of the bare step")
    parser.add_argument("--network", default="resnet50v2", choices=sorted(NETWORKS))
    parser.add_argument("--size", type=int, default=224, help="pixels that the network sees")
    parser.add_argument("--native", type=int, help="pixels of the stored images (default: size)")
    parser.add_argument("--channels", type=int, default=3, choices=(1, 3))
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--precision", default="auto", choices=("auto", "float32", "bfloat16"))
    parser.add_argument("--resize", default="legacy", choices=("legacy", "antialias"))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    print(json.dumps(measure(**vars(parser.parse_args(arguments)))), flush=True)
