"""The training loop: the whole network and a zero-initialised linear head, SGD with momentum, cross-entropy."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from vtabflow.finetune.data import Examples, order_of
from vtabflow.finetune.momentum import Momentum
from vtabflow.runtime.compute import autocast
from vtabflow.runtime.schedule import Schedule

CHECK_EVERY = 250  # Steps between looks at the losses: each is a host synchronisation, a few ms in 250 steps of 70 ms.


@dataclass(frozen=True)
class Fit:
    """What a training left behind besides the weights. `reason` is None if all went well; seconds are the host's,
    waiting included.
    """

    loss: float | None  # mean cross-entropy of the last tenth of the steps
    reason: str | None
    seconds: float
    images_per_second: float
    outside_network: float  # share of the time that is order, gather, resize and normalisation


class Learner:
    """A trunk and a head for one task. `trunk` maps (B, 3, H, W) to (B, features); `forward` is the trunk or its
    compiled form.

    With an nn.Identity as trunk and features as examples, the same loop is linear evaluation.
    """

    def __init__(
        self,
        trunk: nn.Module,
        forward: Callable[[Tensor], Tensor],
        start: dict[str, Tensor],
        features: int,
        classes: int,
        settings: dict[str, Any],
        device: torch.device,
    ):
        self.trunk, self.forward, self.start = trunk, forward, start
        self.features, self.classes = features, classes
        self.settings, self.device = settings, device
        # Without the cache of cast weights: steps are recorded.
        self.precision = partial(autocast, settings["precision"], device, cache=False)
        self.head = nn.Linear(features, classes, device=device)
        self.optimiser = Momentum([self.trunk, self.head], settings["momentum"], settings["weight_decay"])
        self.recorded: CUDAGraphStep | None = None

    def schedule(self, learning_rate: float, steps: int) -> Schedule:
        given = self.settings
        warmup, factor = float(given.get("warmup", 0.0)), float(given.get("decay_factor", 0.1))
        return Schedule(learning_rate, steps, warmup, tuple(given.get("decay_at", ())), factor)

    def begin(self) -> None:
        """Weights of the encoder and a zero head put back in place (compiled and recorded steps stay valid)."""
        self.trunk.load_state_dict(self.start)
        for parameter in self.head.parameters():
            nn.init.zeros_(parameter)
        self.trunk.train()
        # The trunk is shared: a cell that ended between a backward pass and its step (no memory) has left gradients.
        self.trunk.zero_grad()
        self.optimiser.reset()

    def step(self, x: Tensor, y: Tensor, rate: float | Tensor) -> Tensor:
        """One step; the loss stays on the device. The head is outside the compiled graph and in float32: its size is
        the task's.
        """
        with self.precision():
            features = self.forward(x)
        loss = cross_entropy(self.head(features.float()), y)
        loss.backward()
        self.optimiser.step(rate)
        return loss.detach()

    def stepper(self, x: Tensor, y: Tensor) -> Callable[[Tensor, Tensor, float], Tensor]:
        """How to take a step: on a GPU recorded once and replayed (x and y give the shapes), elsewhere as it is.

        A step of ResNet-50 is about 1,000 launches; below some 100,000 pixels x images they take longer than the work.
        """
        if self.device.type != "cuda" or os.environ.get("VTABFLOW_GRAPHS") == "0":
            return self.step
        if self.recorded is None:
            self.begin()
            self.recorded = CUDAGraphStep(self.step, x, y)
        return self.recorded

    def fit(
        self, examples: Examples, schedule: Schedule, seed: int, tick: Callable[[int], None] = lambda images: None
    ) -> Fit:
        """Train from the encoder's weights. The seed fixes the order of examples and the network's own noise, if it
        has any.
        """
        began = time.perf_counter()
        batch = int(self.settings["batch"])
        take = self.stepper(*next(examples.batches(torch.arange(batch) % len(examples), batch)))
        torch.manual_seed(seed)
        ordering = time.perf_counter()
        order = order_of(len(examples), batch, schedule.steps, seed)
        ordering = time.perf_counter() - ordering
        self.begin()
        losses = torch.zeros(schedule.steps, device=self.device)
        skipped = min(5, schedule.steps // 2)  # The first steps allocate, tune and compile: not part of images/s.
        start = mark(self.device)
        for step, (x, y) in enumerate(examples.batches(order, batch)):
            losses[step] = take(x, y, schedule.rate(step))
            tick(batch)
            if step + 1 == skipped:
                start = mark(self.device)
            if (step + 1) % CHECK_EVERY == 0 and not bool(losses.isfinite().all()):
                break
        per_step = between(start, mark(self.device), self.device) / (step + 1 - skipped)
        lost = (~losses.isfinite()).nonzero()
        reason = f"the loss is not finite at step {int(lost[0])} of {schedule.steps}" if len(lost) else None
        last = float(losses[-max(1, schedule.steps // 10) :].mean()) if reason is None else None
        seconds = time.perf_counter() - began
        outside = (data_seconds(examples, order, batch, self.device) + ordering / schedule.steps) / per_step
        return Fit(last, reason, seconds, batch / per_step, min(1.0, outside))

    @torch.no_grad()
    def predict(self, examples: Examples) -> Tensor | None:
        """The class of every example, int32 (N,) on the CPU; None if an output is not finite. Moving averages, not the
        batch's.

        Never compiled: forward-only graphs cost more to compile than they save on the test sets of the 1k budget.
        """
        self.trunk.eval()
        finite = torch.ones((), dtype=torch.bool, device=self.device)
        found = []
        for x, _ in examples.batches(torch.arange(len(examples)), int(self.settings["batch"])):
            with self.precision():
                features = self.trunk(x)
            logits = self.head(features.float())
            finite &= logits.isfinite().all()
            found.append(logits.argmax(1).to(torch.int32))
        return torch.cat(found).cpu() if bool(finite) else None


class CUDAGraphStep:
    """A training step recorded as a CUDA graph: one launch instead of about a thousand.

    Recording takes a few real steps, so weights and optimiser must be put back afterwards (Learner.begin).
    """

    def __init__(self, step: Callable[[Tensor, Tensor, Tensor], Tensor], x: Tensor, y: Tensor):
        self.x, self.y = x.clone(memory_format=torch.preserve_format), y.clone()
        self.rate = torch.zeros((), device=x.device)
        side = torch.cuda.Stream()  # Recording must not begin on the default stream; three steps settle all choices.
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                step(self.x, self.y, self.rate)
        torch.cuda.current_stream().wait_stream(side)
        torch.cuda.empty_cache()  # The recording has memory of its own: without this the activations are there twice.
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.loss = step(self.x, self.y, self.rate)

    def __call__(self, x: Tensor, y: Tensor, rate: float) -> Tensor:
        self.x.copy_(x)
        self.y.copy_(y)
        self.rate.fill_(rate)
        self.graph.replay()
        return self.loss


def data_seconds(examples: Examples, order: Tensor, batch: int, device: torch.device) -> float:
    """Seconds a batch takes from the order to the network's input, alone: the mean of up to four, after one that is
    not counted.
    """
    order = order[: 5 * batch]
    batches = len(order) // batch
    start = mark(device)
    for number, _ in enumerate(examples.batches(order, batch)):
        if number == 0 and batches > 1:
            start = mark(device)
    return between(start, mark(device), device) / max(1, batches - 1)


def mark(device: torch.device) -> Any:
    """A moment in the device's own time: an event on a GPU (no synchronisation), the clock elsewhere."""
    if device.type != "cuda":
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def between(start: Any, end: Any, device: torch.device) -> float:
    """Seconds between two marks; waits for the second. At least a nanosecond, so that it can be divided by."""
    if device.type != "cuda":
        return float(max(end - start, 1e-9))
    end.synchronize()
    return float(max(start.elapsed_time(end) / 1000, 1e-9))
