"""The training loop: steps, checkpoints, progress. It knows no method by name."""

import math
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vtabflow.contracts.specs import PretrainSettings
from vtabflow.errors import UserError
from vtabflow.methods.base import Method
from vtabflow.methods.batch_rng import BatchRNG
from vtabflow.pretrain import checkpoint
from vtabflow.pretrain.optimisers import build_optimiser
from vtabflow.pretrain.outcome import Outcome
from vtabflow.pretrain.upstream import Upstream
from vtabflow.runtime import distributed
from vtabflow.runtime.compute import autocast, deterministic_algorithms, worth_compiling
from vtabflow.runtime.files import seed_of
from vtabflow.runtime.progress import Progress
from vtabflow.runtime.schedule import Schedule

# The loop waits for the device only at a check: to read the losses, to see that they are finite, to save and to print.
CHECK_STEPS = 100
PRINTS = 10
# A checkpoint at the next check if the last is this old, however few steps were made.
CHECKPOINT_STEPS, CHECKPOINT_SECONDS = 500, 600.0
# Left out of images/s: compilation, first allocations.
WARM_STEPS = 5


def train(
    method: Method, upstream: Upstream, settings: PretrainSettings, seed: int, key: str, scratch: Path
) -> Outcome:
    """Train `method` in place for settings.steps steps, from the checkpoint in `scratch` if there is one.

    A run whose losses or weights leave their bounds (see `Bounds`) stops there. The method then has the weights of its
    last checkpoint, with status "stopped", or its first weights, with status "failed", if there was none.
    Of several processes each trains on its part of every batch; all end with the same weights.
    """
    with deterministic_algorithms(upstream.device):
        return Trainer(method, upstream, settings, seed, key, scratch).train()


class Trainer:
    """One run of `train`, whose arguments it has."""

    def __init__(
        self, method: Method, upstream: Upstream, settings: PretrainSettings, seed: int, key: str, scratch: Path
    ):
        self.method, self.upstream, self.settings = method, upstream, settings
        self.seed, self.key, self.scratch = seed, key, scratch
        self.device, self.steps = upstream.device, settings.steps
        method.to(self.device).to(memory_format=torch.channels_last).train()
        if distributed.world_size() > 1:
            synchronise_norms(method, self.device)
        self.groups = {name: list(parameters) for name, parameters in method.parameter_groups().items()}
        own = {name: {**settings.flat(), **method.group_settings().get(name, {})} for name in self.groups}
        self.optimisers = {name: build_optimiser(parameters, own[name]) for name, parameters in self.groups.items()}
        self.schedules = {name: build_schedule(own[name], self.steps) for name in self.groups}
        self.first = {name: value.detach().cpu().clone() for name, value in method.state_dict().items()}
        self.outcome = Outcome()
        self._resume()
        self.images_per_step = settings.batch * len(method.streams) * len(method.update_order)
        self.rng = BatchRNG(torch.Generator(self.device), distributed.rank(), distributed.world_size())
        self.meter, self.watch = Meter(), Watch(self.device, self.outcome.seconds)
        self.progress = Progress(
            method.id, self.steps * self.images_per_step, every=math.inf, done=self.outcome.steps * self.images_per_step
        )
        first = [self.first[name] for name, _ in method.named_parameters()]
        self.bounds = Bounds(settings.divergence, self.outcome.losses, first)
        # A short run too has a checkpoint to return to, should it diverge.
        default = min(CHECKPOINT_STEPS, -(-self.steps // 5))
        self.checkpoint_steps = int(os.environ.get("VTABFLOW_CHECKPOINT_STEPS", default))
        self.print_steps = -(-self.steps // PRINTS)

    def train(self) -> Outcome:
        """All steps that are left."""
        outcome, watch = self.outcome, self.watch
        images = self.steps * self.images_per_step
        # Of the whole run, also where it is resumed: whether it is compiled depends on its spec alone.
        compiles = worth_compiling(images, self.method.size, self.device)
        with compiled(networks(self.method) if compiles else []):
            for step in range(outcome.steps, self.steps):
                self.step(step)
                watch.step()
                self.progress.add(self.images_per_step)
                if self._is_checked(step + 1) and not self._check(step + 1):
                    break
            outcome.seconds = watch.seconds()
            outcome.images_per_second = watch.steps_per_second() * self.images_per_step
        return outcome

    def step(self, step: int) -> None:
        """One update of each parameter group in the method's order, each on a batch of its own."""
        method, order = self.method, self.method.update_order
        forward = autocast(self.settings.precision, self.device)
        for update, group in enumerate(order):
            number = seed_of(self.seed, method.id, step, *([update] if update else []))
            self.rng.generator.manual_seed(number)
            torch.manual_seed(number)
            batch = self.upstream.draw(step * len(order) + update)
            if len(self.groups) > 1:
                freeze_except(method, self.groups[group])
            optimiser = self.optimisers[group]
            for parameters in optimiser.param_groups:
                parameters["lr"] = self.schedules[group].rate(step)
            optimiser.zero_grad()
            with forward:
                losses = method.losses(group, batch, self.rng)
            torch.stack([loss for loss in losses.values() if loss.requires_grad]).sum().backward()
            distributed.average([p.grad for p in self.groups[group] if p.grad is not None])
            optimiser.step()
            self.meter.add(losses, f"{group}/" if len(self.groups) > 1 else "")
        with torch.no_grad():
            method.after_step(step)

    def _is_checked(self, done: int) -> bool:
        # The same steps in every run, so that a resumed run has the same means: checkpoints are made at such steps.
        regular = any(done % every == 0 for every in (CHECK_STEPS, self.checkpoint_steps, self.print_steps))
        return regular or done in (1, self.steps)

    def _check(self, done: int) -> bool:
        """Read the losses of the steps since the last check; print and save where it is time. Whether to go on."""
        outcome = self.outcome
        means = self.meter.take()
        reason = self.bounds.broken(means, self.method)
        if reason:
            self._stop(f"{reason} by step {done} of {self.steps}")
            return False
        outcome.steps, outcome.seconds = done, self.watch.seconds()
        outcome.losses = {"start": outcome.losses.get("start", means), "end": means}
        if done in (1, self.steps) or done % self.print_steps == 0:
            outcome.curve.append({"step": done, **means})
            values = ", ".join(f"{name} {value:.4g}" for name, value in means.items())
            say(f"{self.method.id}: step {done}/{self.steps}, {values}, {self.progress.pace()}")
        due = done % self.checkpoint_steps == 0 or self.watch.since_saved() > CHECKPOINT_SECONDS
        if distributed.is_main_process() and done != self.steps and due:
            self._save()
        return True

    def _resume(self) -> None:
        saved = checkpoint.load(self.scratch, self.key, self.device)
        if saved is None:
            return
        self.method.load_state_dict(saved["method"])
        for name, optimiser in self.optimisers.items():
            optimiser.load_state_dict(saved["optimisers"][name])
        self.outcome = Outcome(**saved["outcome"])
        self.outcome.resumed += 1
        say(f"{self.method.id}: resumes from step {self.outcome.steps}")

    def _save(self) -> None:
        states = {name: optimiser.state_dict() for name, optimiser in self.optimisers.items()}
        state = {"key": self.key, "method": self.method.state_dict(), "optimisers": states}
        checkpoint.save(self.scratch, {**state, "outcome": vars(self.outcome)})
        self.watch.saved()

    def _stop(self, reason: str) -> None:
        """Return to the last checkpoint, or to the first weights."""
        saved, outcome = checkpoint.load(self.scratch, self.key, self.device), self.outcome
        self.method.load_state_dict(saved["method"] if saved else self.first)
        before = Outcome(**saved["outcome"]) if saved else Outcome()
        outcome.steps, outcome.losses, outcome.curve = before.steps, before.losses, before.curve
        outcome.status = "stopped" if saved else "failed"
        outcome.reason = f"{reason}; the weights are those of step {outcome.steps}"
        say(f"{self.method.id}: {outcome.status}, {outcome.reason}")


class Meter:
    """Means of named losses over steps and processes, on the device, read without waiting for it until `take`."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}

    def add(self, losses: dict[str, Tensor], prefix: str) -> None:
        """Count the losses of one update, each under prefix + name."""
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
    """Times of a run: all its seconds, those since the last checkpoint, and steps per second after the first few."""

    def __init__(self, device: torch.device, seconds_before: float) -> None:
        self.device, self.before = device, seconds_before
        self.begun = self.last_saved = self.timed_since = time.monotonic()
        self.steps, self.timed_from = 0, 0

    def step(self) -> None:
        """Count a step."""
        self.steps += 1
        if self.steps == WARM_STEPS:
            synchronise(self.device)
            self.timed_since, self.timed_from = time.monotonic(), self.steps

    def seconds(self) -> float:
        """Seconds of the whole run, those before it was resumed included."""
        return self.before + time.monotonic() - self.begun

    def steps_per_second(self) -> float:
        """Mean over the steps after the first few; waits for the device."""
        synchronise(self.device)
        return (self.steps - self.timed_from) / max(time.monotonic() - self.timed_since, 1e-9)

    def saved(self) -> None:
        """A checkpoint was made."""
        self.last_saved = time.monotonic()

    def since_saved(self) -> float:
        """Seconds since the last checkpoint, or since the start."""
        return time.monotonic() - self.last_saved


def build_schedule(settings: Mapping[str, Any], steps: int) -> Schedule:
    """The learning rate of a parameter group from its settings."""
    rate, warmup, factor = (float(settings[name]) for name in ("learning_rate", "warmup", "decay_factor"))
    return Schedule(rate, steps, warmup, tuple(settings["decay_at"]), factor, settings["decay"])


def networks(method: Method) -> list[nn.Module]:
    """The method's convolutional networks: what is worth compiling. Heads are too small to gain."""
    return [child for child in method.children() if any(isinstance(part, nn.Conv2d) for part in child.modules())]


@contextmanager
def compiled(modules: list[nn.Module]) -> Iterator[None]:
    """Compile the modules' forward in the block; what comes after the training has other shapes."""
    for module in modules:
        module.forward = torch.compile(module.forward)
    try:
        yield
    finally:
        for module in modules:
            del module.forward


def freeze_except(method: Method, parameters: list[nn.Parameter]) -> None:
    """Let gradients reach these parameters and no others."""
    method.requires_grad_(False)
    for parameter in parameters:
        parameter.requires_grad_(True)


class Bounds:
    """When a run has diverged: a loss or a weight is not finite, or has grown too much since the first step.

    Too much is `factor` times the loss of the first step (or 1, where it was smaller), or `factor` times the norm
    of the first weights.

    Args:
        factor: see above.
        losses: of the run so far, {"start": losses of the first step}; empty at the start.
        first: the first weights.
    """

    def __init__(self, factor: float, losses: dict[str, dict[str, float]], first: list[Tensor]) -> None:
        self.factor, self.start = factor, losses.get("start")
        self.norm = float(norm_of(first))

    def broken(self, means: dict[str, float], method: nn.Module) -> str | None:
        """What is out of bounds, in words, or None; waits for the device twice."""
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
    """Print a line, once for all processes."""
    if distributed.is_main_process():
        print(text, flush=True)


def synchronise(device: torch.device) -> None:
    """Wait for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
