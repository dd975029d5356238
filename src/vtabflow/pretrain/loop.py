"""The training loop: steps, checkpoints, progress. It knows no method by name."""

import math
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vtabflow.errors import UserError
from vtabflow.methods.base import Method
from vtabflow.methods.batch_rng import BatchRNG
from vtabflow.pretrain import checkpoint
from vtabflow.pretrain.optimisers import optimiser
from vtabflow.pretrain.upstream import Upstream
from vtabflow.runtime import distributed
from vtabflow.runtime.compute import autocast, repeatable, worth_compiling
from vtabflow.runtime.files import seed_of
from vtabflow.runtime.schedule import Schedule

# The loop waits for the device only at a check: to read the losses, to see that they are finite, to save and to print.
CHECK_STEPS = 100
PRINTS = 10
# A checkpoint at the next check if the last is this old, however few steps were made.
CHECKPOINT_STEPS, CHECKPOINT_SECONDS = 500, 600.0
# Left out of images/s: compilation, first allocations.
WARM_STEPS = 5


@dataclass
class Outcome:
    """How a run ended. losses: {"start": first step, "end": mean of the last steps}; curve: losses along the way."""

    status: str = "ok"
    reason: str | None = None
    steps: int = 0
    losses: dict[str, dict[str, float]] = field(default_factory=dict)
    curve: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0
    images_per_second: float | None = None
    resumed: int = 0


def train(method: Method, upstream: Upstream, settings: dict[str, Any], seed: int, key: str, scratch: Path) -> Outcome:
    """Train `method` in place for settings["steps"] steps and say how it went; goes on from the checkpoint in
    `scratch` if there is one.

    A run whose losses or weights leave their bounds (see `Bounds`) stops there. The method then holds the weights of
    its last checkpoint, with status "stopped", or its first weights, with status "failed", if there was none.
    Of several processes each trains on its part of every batch; all end with the same weights.
    """
    with repeatable(upstream.device):
        return _train(method, upstream, settings, seed, key, scratch)


def _train(method: Method, upstream: Upstream, settings: dict[str, Any], seed: int, key: str, scratch: Path) -> Outcome:
    device, steps, turns = upstream.device, settings["steps"], method.update_order
    method.to(device).to(memory_format=torch.channels_last).train()
    if distributed.world() > 1:
        synchronise_norms(method, device)
    parameter_groups = {name: list(parameters) for name, parameters in method.parameter_groups().items()}
    own = {name: {**settings, **method.group_settings().get(name, {})} for name in parameter_groups}
    optimisers = {name: optimiser(parameters, own[name]) for name, parameters in parameter_groups.items()}
    schedules = {name: schedule(own[name], steps) for name in parameter_groups}
    first = {name: value.detach().cpu().clone() for name, value in method.state_dict().items()}
    outcome = Outcome()
    saved = checkpoint.load(scratch, key, device)
    if saved is not None:
        method.load_state_dict(saved["method"])
        for name, each in optimisers.items():
            each.load_state_dict(saved["optimisers"][name])
        outcome = Outcome(**saved["outcome"])
        outcome.resumed += 1
        say(f"{method.id}: goes on from step {outcome.steps}")
    forward = autocast(settings["precision"], device)
    images_a_step = settings["batch"] * len(method.streams) * len(turns)
    # Of the whole run, also where it is resumed: whether it is compiled depends on its spec alone.
    compiled = networks(method) if worth_compiling(steps * images_a_step, method.size, device) else []
    for network in compiled:
        network.forward = torch.compile(network.forward)

    # A short run too has something to fall back to, should it diverge.
    every = int(os.environ.get("VTABFLOW_CHECKPOINT_STEPS", min(CHECKPOINT_STEPS, -(-steps // 5))))
    mark = -(-steps // PRINTS)
    rng = BatchRNG(torch.Generator(device), distributed.rank(), distributed.world())
    meter, watch = Meter(), Watch(device, outcome)
    bounds = Bounds(settings["divergence"], outcome.losses, [first[name] for name, _ in method.named_parameters()])
    for step in range(outcome.steps, steps):
        for turn, group in enumerate(turns):
            number = seed_of(seed, method.id, step, turn) if turn else seed_of(seed, method.id, step)
            rng.generator.manual_seed(number)
            torch.manual_seed(number)
            batch = upstream.draw(step * len(turns) + turn)
            if len(parameter_groups) > 1:
                only(method, parameter_groups[group])
            for parameters in optimisers[group].param_groups:
                parameters["lr"] = schedules[group].rate(step)
            optimisers[group].zero_grad()
            with forward:
                losses = method.losses(group, batch, rng)
            torch.stack([loss for loss in losses.values() if loss.requires_grad]).sum().backward()
            distributed.average([p.grad for p in parameter_groups[group] if p.grad is not None])
            optimisers[group].step()
            meter.add(losses, f"{group}/" if len(parameter_groups) > 1 else "")
        with torch.no_grad():
            method.after_step(step)
        done = step + 1
        watch.step()
        # The same steps in every run, so that a resumed run has the same means: a checkpoint is only made at one of
        # them.
        if not (done in (1, steps) or done % CHECK_STEPS == 0 or done % every == 0 or done % mark == 0):
            continue
        means = meter.take()
        broken = bounds.broken(means, method)
        if broken:
            fallback = checkpoint.load(scratch, key, device)
            method.load_state_dict(fallback["method"] if fallback else first)
            outcome.steps = fallback["outcome"]["steps"] if fallback else 0
            outcome.losses = fallback["outcome"]["losses"] if fallback else {}
            outcome.curve = fallback["outcome"]["curve"] if fallback else []
            outcome.status = "stopped" if fallback else "failed"
            outcome.reason = f"{broken} by step {done} of {steps}; the weights are those of step {outcome.steps}"
            say(f"{method.id}: {outcome.status}, {outcome.reason}")
            break
        outcome.steps, outcome.seconds = done, watch.seconds()
        outcome.losses = {"start": outcome.losses.get("start", means), "end": means}
        if done in (1, steps) or done % mark == 0:
            outcome.curve.append({"step": done, **means})
            speed, left = watch.lap(done, steps)
            values = ", ".join(f"{name} {value:.4g}" for name, value in means.items())
            say(f"{method.id}: step {done}/{steps}, {values}, {speed * images_a_step:.0f} images/s, {left:.0f} s left")
        if (
            distributed.rank() == 0
            and done != steps
            and (done % every == 0 or watch.since_saved() > CHECKPOINT_SECONDS)
        ):
            states = {name: each.state_dict() for name, each in optimisers.items()}
            checkpoint.save(
                scratch, {"key": key, "method": method.state_dict(), "optimisers": states, "outcome": vars(outcome)}
            )
            watch.saved()
    outcome.seconds, outcome.images_per_second = watch.seconds(), watch.steps_per_second() * images_a_step
    for network in compiled:
        del network.forward  # what comes after the training has other shapes
    return outcome


class Meter:
    """Means of named losses over steps and processes, on the device, read without waiting for it until `take`."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}

    def add(self, losses: dict[str, Tensor], prefix: str) -> None:
        for name, loss in losses.items():
            value, name = loss.detach().float(), prefix + name
            self.sums[name] = self.sums[name] + value if name in self.sums else value.clone()
            self.counts[name] = self.counts.get(name, 0) + 1

    def take(self) -> dict[str, float]:
        """The means since the last `take`; waits for the device once."""
        sums = torch.stack(list(self.sums.values()))
        distributed.average([sums])
        means = {name: value / self.counts[name] for name, value in zip(self.sums, sums.tolist(), strict=True)}
        self.sums, self.counts = {}, {}
        return means


class Watch:
    """Times of a run: all its seconds, those since the last progress line and checkpoint, and steps per second after
    the first few.
    """

    def __init__(self, device: torch.device, outcome: Outcome) -> None:
        self.device, self.before = device, outcome.seconds
        self.begun = self.shown = self.last_saved = self.clock = time.monotonic()
        self.shown_step, self.steps, self.timed_from = outcome.steps, 0, 0

    def step(self) -> None:
        self.steps += 1
        if self.steps == WARM_STEPS:
            synchronise(self.device)
            self.clock, self.timed_from = time.monotonic(), self.steps

    def seconds(self) -> float:
        return self.before + time.monotonic() - self.begun

    def lap(self, done: int, steps: int) -> tuple[float, float]:
        """Steps per second since the last lap, and the seconds that the rest takes at that speed."""
        now = time.monotonic()
        speed = (done - self.shown_step) / max(now - self.shown, 1e-9)
        self.shown, self.shown_step = now, done
        return speed, (steps - done) / speed

    def steps_per_second(self) -> float:
        synchronise(self.device)
        return (self.steps - self.timed_from) / max(time.monotonic() - self.clock, 1e-9)

    def saved(self) -> None:
        self.last_saved = time.monotonic()

    def since_saved(self) -> float:
        return time.monotonic() - self.last_saved


def schedule(settings: dict[str, Any], steps: int) -> Schedule:
    """One player's schedule from its settings."""
    rate, warmup, factor = (float(settings[name]) for name in ("learning_rate", "warmup", "decay_factor"))
    return Schedule(rate, steps, warmup, tuple(settings["decay_at"]), factor, settings["decay"])


def networks(method: Method) -> list[nn.Module]:
    """The method's convolutional networks: what is worth compiling. Heads are too small to gain."""
    return [child for child in method.children() if any(isinstance(part, nn.Conv2d) for part in child.modules())]


def only(method: Method, parameters: list[nn.Parameter]) -> None:
    """Let gradients reach these parameters and no others: one player's turn."""
    method.requires_grad_(False)
    for parameter in parameters:
        parameter.requires_grad_(True)


class Bounds:
    """When a run counts as diverged: a loss or a weight that is not finite, a loss `factor` times as large as at its
    first step (or as one, where it started smaller), or weights whose norm has grown `factor`-fold.
    """

    def __init__(self, factor: float, losses: dict[str, dict[str, float]], first: list[Tensor]) -> None:
        self.factor, self.start = factor, losses.get("start")
        self.norm = float(norm_of(first))

    def broken(self, means: dict[str, float], method: nn.Module) -> str | None:
        """What has left its bounds, in words, or None; waits for the device twice."""
        self.start = self.start or means
        norm, everything = float(norm_of(method.parameters())), float(norm_of(method.state_dict().values()))
        if not (all(map(math.isfinite, means.values())) and math.isfinite(everything)):
            return "a loss or a weight was not finite"
        for name, value in means.items():
            if abs(value) > self.factor * max(1.0, abs(self.start[name])):
                return f"{name} had grown from {self.start[name]:.3g} to {value:.3g}"
        if norm > self.factor * self.norm:
            return f"the norm of the weights had grown from {self.norm:.3g} to {norm:.3g}"
        return None


def norm_of(tensors: Iterable[Tensor]) -> Tensor:
    """The Euclidean norm of all floating-point tensors together; not finite if one of them is not."""
    with torch.no_grad():
        found = [value.detach().float() for value in tensors if value.is_floating_point()]
        return torch.stack(torch._foreach_norm(found)).norm()


def synchronise_norms(method: nn.Module, device: torch.device) -> None:
    """Let batch norms take their statistics over all processes, in place; UserError on CPUs, where torch cannot."""
    norms = [name for name, part in method.named_modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]
    if not norms:
        return
    if device.type != "cuda":
        raise UserError(
            f"{norms[0]} is a batch norm, which torch shares between GPUs only; train in one process on a CPU"
        )
    for name, child in list(method.named_children()):
        setattr(method, name, nn.SyncBatchNorm.convert_sync_batchnorm(child))


def say(text: str) -> None:
    if distributed.rank() == 0:
        print(text, flush=True)


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
