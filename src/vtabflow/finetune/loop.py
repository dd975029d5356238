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

from vtabflow.contracts.specs import FinetuneSettings
from vtabflow.finetune.data import LabelledDataset, shuffled_order
from vtabflow.runtime.compute import autocast
from vtabflow.runtime.schedule import Schedule

CHECK_EVERY = 250  # Steps between looks at the losses: each is a host synchronisation, a few ms in 250 steps of 70 ms.


@dataclass(frozen=True)
class Fit:
    """What is known of a training after it.

    Attributes:
        loss: mean cross-entropy of the last tenth of the steps; None if the training failed.
        reason: why it failed; None if it did not.
        seconds: wall time on the host, waiting for the device included.
        images_per_second: without the first steps, which allocate, tune and compile.
        outside_network: the fraction of the time that order, gather, resize and normalisation take.
    """

    loss: float | None
    reason: str | None
    seconds: float
    images_per_second: float
    outside_network: float


class Learner:
    """A network and a linear head for one task.

    With nn.Identity as the network and features as examples, the same loop is linear evaluation.

    Args:
        network: (B, 3, H, W) to (B, features).
        forward: the network, or its compiled form.
        weights: the state_dict of the network that every training starts from.
        features: outputs of the network.
        classes: outputs of the head.
        settings: batch, momentum, weight decay, schedule and precision.
        device: where the network is.
    """

    def __init__(
        self,
        network: nn.Module,
        forward: Callable[[Tensor], Tensor],
        weights: dict[str, Tensor],
        features: int,
        classes: int,
        settings: FinetuneSettings,
        device: torch.device,
    ):
        self.network, self.forward, self.weights = network, forward, weights
        self.settings, self.device = settings, device
        # No cache of weights in bfloat16: a captured step has to cast them again at each replay.
        self.precision = partial(autocast, settings.precision, device, cache=False)
        self.head = nn.Linear(features, classes, device=device)
        self.optimiser = MomentumSGD([network, self.head], settings.momentum, settings.weight_decay)
        self.captured: CUDAGraphStep | None = None

    def schedule(self, learning_rate: float, steps: int) -> Schedule:
        """The learning rate of each step, with the warm-up and the decays of the settings."""
        given = self.settings
        return Schedule(learning_rate, steps, given.warmup, given.decay_at, given.decay_factor)

    def reset(self) -> None:
        """Start again: the encoder's weights, a zero head, no momentum. Compiled and captured steps stay valid."""
        self.network.load_state_dict(self.weights)
        for parameter in self.head.parameters():
            nn.init.zeros_(parameter)
        self.network.train()
        # Cells share the network: one that ran out of memory between a backward pass and its step has left gradients.
        self.network.zero_grad()
        self.optimiser.reset()

    def step(self, x: Tensor, y: Tensor, rate: float | Tensor) -> Tensor:
        """One step; the loss stays on the device.

        The head is in float32 and outside the compiled graph: its size is the task's.
        """
        with self.precision():
            features = self.forward(x)
        loss = cross_entropy(self.head(features.float()), y)
        loss.backward()
        self.optimiser.step(rate)
        return loss.detach()

    def training_step(self, x: Tensor, y: Tensor) -> Callable[[Tensor, Tensor, float], Tensor]:
        """The step as a function: on a GPU captured once and replayed (x and y give the shapes), elsewhere `step`.

        A step of ResNet-50 is about 1,000 launches; below some 100,000 pixels x images they take longer than the work.
        """
        if self.device.type != "cuda" or os.environ.get("VTABFLOW_GRAPHS") == "0":
            return self.step
        if self.captured is None:
            self.reset()
            self.captured = CUDAGraphStep(self.step, x, y)
        return self.captured

    def fit(
        self,
        examples: LabelledDataset,
        schedule: Schedule,
        seed: int,
        count: Callable[[int], None] = lambda images: None,
    ) -> Fit:
        """Train from the encoder's weights.

        Args:
            examples: what to train on.
            schedule: learning rate and number of steps.
            seed: of the order of the examples, and of the network's own noise (dropout), if it has any.
            count: called after each step with the number of its images.
        """
        began = time.perf_counter()
        batch = self.settings.batch
        take = self.training_step(*next(examples.batches(torch.arange(batch) % len(examples), batch)))
        torch.manual_seed(seed)
        ordering = time.perf_counter()
        order = shuffled_order(len(examples), batch, schedule.steps, seed)
        ordering = time.perf_counter() - ordering
        self.reset()
        losses = torch.zeros(schedule.steps, device=self.device)
        skipped = min(5, schedule.steps // 2)  # The first steps allocate, tune and compile: not part of images/s.
        start = mark(self.device)
        for step, (x, y) in enumerate(examples.batches(order, batch)):
            losses[step] = take(x, y, schedule.rate(step))
            count(batch)
            if step + 1 == skipped:
                start = mark(self.device)
            if (step + 1) % CHECK_EVERY == 0 and not bool(losses.isfinite().all()):
                break
        per_step = between(start, mark(self.device), self.device) / (step + 1 - skipped)
        infinite = (~losses.isfinite()).nonzero()
        reason = f"the loss is not finite at step {int(infinite[0])} of {schedule.steps}" if len(infinite) else None
        last = float(losses[-max(1, schedule.steps // 10) :].mean()) if reason is None else None
        seconds = time.perf_counter() - began
        outside = (input_seconds(examples, order, batch, self.device) + ordering / schedule.steps) / per_step
        return Fit(last, reason, seconds, batch / per_step, min(1.0, outside))

    @torch.no_grad()
    def predict(self, examples: LabelledDataset) -> Tensor | None:
        """The class of every example, int32 (N,) on the CPU; None if an output is not finite.

        Batch norm uses its moving averages. Never compiled: forward-only graphs cost more to compile than they save on
        the test sets of the 1k budget.
        """
        self.network.eval()
        finite = torch.ones((), dtype=torch.bool, device=self.device)
        predicted = []
        for x, _ in examples.batches(torch.arange(len(examples)), self.settings.batch):
            with self.precision():
                features = self.network(x)
            logits = self.head(features.float())
            finite &= logits.isfinite().all()
            predicted.append(logits.argmax(1).to(torch.int32))
        return torch.cat(predicted).cpu() if bool(finite) else None


class MomentumSGD:
    """v = momentum * v + (g + weight_decay * w); w = w - rate * v; v starts at 0. Not Nesterov.

    As TensorFlow's MomentumOptimizer in VTAB's code (google-research/task_adaptation at d7630d3, trainer.py).
    Weight decay applies to kernels (two axes or more), not to biases or normalisation.

    Not torch.optim.SGD: its first construction imports torch._dynamo, in each of a study's jobs (a process that imports
    torch alone takes 2.5 s of CPU time and 750 MiB, with SGD 6.2 s and 914 MiB; torch 2.15, AMD EPYC, 2026-11-25). Its
    foreach form gives the same bits, but reads a rate on the device back on the host, which cannot be captured (H100,
    torch 2.11, 2026-11-25); its fused form can, and gives other bits. An update of resnet-small takes 0.3 ms, foreach
    0.6 ms, next to 16 ms for forward and backward pass (batch 64, 32 px, one core).
    """

    def __init__(self, modules: list[nn.Module], momentum: float, weight_decay: float):
        self.parameters = [p for module in modules for p in module.parameters() if p.requires_grad]
        self.velocity: list[Tensor] = []
        self.momentum, self.weight_decay = momentum, weight_decay

    def reset(self) -> None:
        """Set all velocity to zero, in place: a captured step goes on using the same memory."""
        if self.velocity:
            torch._foreach_zero_(self.velocity)

    @torch.no_grad()
    def step(self, rate: float | Tensor) -> None:
        """Move the parameters by their gradients, then drop the gradients.

        Args:
            rate: a number, or a tensor () on the device, which may change between the replays of a captured step.
        """
        if not self.velocity:
            # A parameter without a gradient at the first step does not reach the network's output.
            self.parameters = [p for p in self.parameters if p.grad is not None]
            self.velocity = [torch.zeros_like(p) for p in self.parameters]
        weights: list[Tensor] = list(self.parameters)
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        if self.weight_decay:
            kernels = [(g, w) for g, w in zip(gradients, weights, strict=True) if w.ndim > 1]
            torch._foreach_add_([g for g, _ in kernels], [w for _, w in kernels], alpha=self.weight_decay)
        torch._foreach_mul_(self.velocity, self.momentum)
        torch._foreach_add_(self.velocity, gradients)
        if isinstance(rate, Tensor):
            torch._foreach_sub_(weights, torch._foreach_mul(self.velocity, rate))
        else:
            torch._foreach_add_(weights, self.velocity, alpha=-rate)
        for p in self.parameters:
            p.grad = None


class CUDAGraphStep:
    """A training step captured as a CUDA graph: one launch instead of about a thousand.

    Capturing takes a few real steps, so weights and optimiser must be put back afterwards (Learner.reset).
    """

    def __init__(self, step: Callable[[Tensor, Tensor, Tensor], Tensor], x: Tensor, y: Tensor):
        self.x, self.y = x.clone(memory_format=torch.preserve_format), y.clone()
        self.rate = torch.zeros((), device=x.device)
        # Capture must not begin on the default stream; after three steps compilation and tuning are done.
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                step(self.x, self.y, self.rate)
        torch.cuda.current_stream().wait_stream(side)
        torch.cuda.empty_cache()  # A graph has memory of its own: without this the activations are allocated twice.
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.loss = step(self.x, self.y, self.rate)

    def __call__(self, x: Tensor, y: Tensor, rate: float) -> Tensor:
        """Replay the step on another batch of the same shapes; the loss is overwritten by the next replay."""
        self.x.copy_(x)
        self.y.copy_(y)
        self.rate.fill_(rate)
        self.graph.replay()
        return self.loss


def input_seconds(examples: LabelledDataset, order: Tensor, batch: int, device: torch.device) -> float:
    """Seconds per batch from the order to the network's input: the mean of up to four, the first one left out."""
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
    """Seconds between two marks, at least a nanosecond, so that it can be divided by; waits for the second mark."""
    if device.type != "cuda":
        return float(max(end - start, 1e-9))
    end.synchronize()
    return float(max(start.elapsed_time(end) / 1000, 1e-9))
