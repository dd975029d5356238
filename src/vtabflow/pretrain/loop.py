"""The training loop: steps, checkpoints, progress. It knows no method by name."""

import math
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vtabflow.compute import autocast, worth_compiling
from vtabflow.files import seed_of
from vtabflow.methods.base import Method
from vtabflow.pretrain import checkpoint
from vtabflow.pretrain.optimisers import optimiser
from vtabflow.pretrain.upstream import Upstream
from vtabflow.schedule import Schedule

# The loop waits for the device only at a check: to read the losses, to see that they are finite, to save and to print.
CHECK_STEPS = 100
PRINTS = 10
# A checkpoint at the next check if the last is this old, however few steps were made.
CHECKPOINT_SECONDS = 600.0
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

    If a loss or a weight is no longer finite the run stops with status "failed", and the method holds the weights of
    its last checkpoint (its first weights if there was none).
    """
    device, steps, turns = upstream.device, settings["steps"], method.turns
    method.to(device).to(memory_format=torch.channels_last).train()
    players = {name: list(parameters) for name, parameters in method.players().items()}
    own = {name: {**settings, **method.player_settings().get(name, {})} for name in players}
    optimisers = {name: optimiser(parameters, own[name]) for name, parameters in players.items()}
    schedules = {name: schedule(own[name], steps) for name in players}
    first = {name: value.detach().cpu().clone() for name, value in method.state_dict().items()}
    outcome = Outcome()
    saved = checkpoint.load(scratch, key, device)
    if saved is not None:
        method.load_state_dict(saved["method"])
        for name, each in optimisers.items():
            each.load_state_dict(saved["optimisers"][name])
        outcome = Outcome(**saved["outcome"])
        outcome.resumed += 1
        print(f"{method.id}: goes on from step {outcome.steps}", flush=True)
    forward = autocast(settings["precision"], device)
    images_a_step = settings["batch"] * len(method.streams) * len(turns)
    # Of the whole run, also where it is resumed: whether it is compiled depends on its spec alone.
    if worth_compiling(steps * images_a_step, method.size, device):
        compile_networks(method)

    every = int(os.environ.get("VTABFLOW_CHECKPOINT_STEPS", "500"))
    mark = -(-steps // PRINTS)
    generator = torch.Generator(device)
    meter, watch = Meter(), Watch(device, outcome)
    for step in range(outcome.steps, steps):
        number = seed_of(seed, method.id, step)
        generator.manual_seed(number)
        torch.manual_seed(number)
        for turn, player in enumerate(turns):
            batch = upstream.draw(step * len(turns) + turn)
            if len(players) > 1:
                only(method, players[player])
            for group in optimisers[player].param_groups:
                group["lr"] = schedules[player].rate(step)
            optimisers[player].zero_grad()
            with forward:
                losses = method.losses(player, batch, generator)
            torch.stack([loss for loss in losses.values() if loss.requires_grad]).sum().backward()
            optimisers[player].step()
            meter.add(losses, f"{player}/" if len(players) > 1 else "")
        with torch.no_grad():
            method.after_step(step)
        done = step + 1
        watch.step()
        # The same steps in every run, so that a resumed run has the same means: a checkpoint is only made at one of
        # them.
        if not (done in (1, steps) or done % CHECK_STEPS == 0 or done % every == 0 or done % mark == 0):
            continue
        means = meter.take()
        if not (all(map(math.isfinite, means.values())) and finite(method)):
            fallback = checkpoint.load(scratch, key, device)
            method.load_state_dict(fallback["method"] if fallback else first)
            outcome.steps = fallback["outcome"]["steps"] if fallback else 0
            outcome.status = "failed"
            reason = f"a loss or a weight was not finite by step {done} of {steps}"
            outcome.reason = f"{reason}; the weights are those of step {outcome.steps}"
            print(f"{method.id}: failed, {outcome.reason}", flush=True)
            break
        outcome.steps, outcome.seconds = done, watch.seconds()
        outcome.losses = {"start": outcome.losses.get("start", means), "end": means}
        if done in (1, steps) or done % mark == 0:
            outcome.curve.append({"step": done, **means})
            speed, left = watch.lap(done, steps)
            values = ", ".join(f"{name} {value:.4g}" for name, value in means.items())
            print(
                f"{method.id}: step {done}/{steps}, {values}, {speed * images_a_step:.0f} images/s, {left:.0f} s left",
                flush=True,
            )
        if done != steps and (done % every == 0 or watch.since_saved() > CHECKPOINT_SECONDS):
            states = {name: each.state_dict() for name, each in optimisers.items()}
            checkpoint.save(
                scratch, {"key": key, "method": method.state_dict(), "optimisers": states, "outcome": vars(outcome)}
            )
            watch.saved()
    outcome.seconds, outcome.images_per_second = watch.seconds(), watch.steps_per_second() * images_a_step
    return outcome


class Meter:
    """Means of named losses on the device, read without waiting for it until `take`."""

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
        values = torch.stack(list(self.sums.values())).tolist()
        means = {name: value / self.counts[name] for name, value in zip(self.sums, values, strict=True)}
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
    return Schedule(rate, steps, warmup, tuple(settings["decay_at"]), factor)


def compile_networks(method: Method) -> None:
    """Compile the method's convolutional networks in place; heads are too small to gain."""
    for child in method.children():
        if any(isinstance(part, nn.Conv2d) for part in child.modules()):
            child.compile()


def only(method: Method, parameters: list[nn.Parameter]) -> None:
    """Let gradients reach these parameters and no others: one player's turn."""
    method.requires_grad_(False)
    for parameter in parameters:
        parameter.requires_grad_(True)


def finite(method: nn.Module) -> bool:
    """Whether every floating-point weight and buffer is finite; waits for the device once."""
    tensors = [value for value in method.state_dict().values() if value.is_floating_point()]
    return bool(torch.stack([value.isfinite().all() for value in tensors]).all())


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
