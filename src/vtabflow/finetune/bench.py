"""The real loop held against the bare training step, in one run: what loading, resizing and bookkeeping cost.

    python -m vtabflow.finetune.bench --network resnet50v2 --size 224 --batch 512 --steps 60 --native 64

prints one line of JSON. The bare step is the same compiled trunk, head, loss and SGD on one fixed random batch.
"""

import argparse
import json
import os
from collections.abc import Sequence
from statistics import median
from typing import Any

import numpy as np
import torch

from vtabflow.finetune.data import Examples, Pictures, make_preprocess
from vtabflow.finetune.loop import Learner, between, mark
from vtabflow.networks.registry import NETWORKS, build, check
from vtabflow.runtime.compute import machine, peak_memory, resolved, versions

ROUNDS = 5  # Bare and real take turns, so that a clock or a neighbour that changes meets both; medians count.


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
    precision: str = "auto",
    resize: str = "legacy",
) -> dict[str, Any]:
    """Images/s of the bare step and of the real loop over a resident synthetic store, and their ratio (real / bare).

    size: pixels that the network sees; native: pixels in the store (size if None); steps: per measurement, of which
    there are five each. outside_network: share of the loop's time that is order, gather, resize and normalisation.
    Raises UserError for an unknown network.
    """
    check(network)
    device = torch.device(device)
    torch.backends.cudnn.benchmark = True
    trunk = build(network, 0).to(device).to(memory_format=torch.channels_last)
    compiled = device.type == "cuda" and os.environ.get("VTABFLOW_COMPILE") != "0"
    forward = torch.compile(trunk, dynamic=False) if compiled else trunk
    start = {key: tensor.clone() for key, tensor in trunk.state_dict().items()}
    settings = {"batch": batch, "momentum": 0.9, "weight_decay": 0.0, "precision": precision}
    learner = Learner(trunk, forward, start, NETWORKS[network]["features"], classes, settings, device)

    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (examples, native or size, native or size, channels), dtype=np.uint8)
    view = make_preprocess(size, resize, {"low": 0.0, "high": 1.0}, device)
    labels = torch.from_numpy(rng.integers(0, classes, examples)).to(device)
    store = Examples(Pictures([images], device), labels, view)
    schedule = learner.schedule(0.01, steps)

    x, y = next(store.batches(torch.arange(batch) % examples, batch))
    learner.fit(store, learner.schedule(0.01, min(steps, 5)), 0)
    bare, real, outside = [], [], []
    for number in range(ROUNDS):
        bare.append(steps * batch / _bare(learner, x, y, schedule.learning_rate, steps))
        fit = learner.fit(store, schedule, number)
        real.append(fit.images_per_second)
        outside.append(fit.outside_network)
    return {
        "network": network,
        "size": size,
        "native": native or size,
        "channels": channels,
        "batch": batch,
        "steps": steps,
        "rounds": ROUNDS,
        "precision": resolved(precision, device),
        "compiled": compiled,
        "recorded": learner.recorded is not None,
        "images_per_second": {"bare": median(bare), "loop": median(real)},
        "ratio": median(one / other for one, other in zip(real, bare, strict=True)),
        "outside_network": median(outside),
        "peak_memory_bytes": peak_memory(device),
        "machine": machine(device),
        "versions": versions(),
    }


def _bare(learner: Learner, x: torch.Tensor, y: torch.Tensor, rate: float, steps: int) -> float:
    """Seconds of `steps` steps on one batch."""
    learner.begin()
    for _ in range(min(5, steps)):
        learner.step(x, y, rate)
    start = mark(learner.device)
    for _ in range(steps):
        learner.step(x, y, rate)
    return between(start, mark(learner.device), learner.device)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m vtabflow.finetune.bench", description="bare step against real loop"
    )
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


if __name__ == "__main__":
    main()
