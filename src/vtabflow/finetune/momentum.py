"""Momentum SGD in three passes over lists of tensors.

Not torch.optim: constructing any of its optimisers imports torch._dynamo, 3 to 5 s of CPU time in torch 2.15, more
than a cell of the demo trains. Against its fused SGD this reads and writes ResNet-50's 23.5 million weights about twice
instead of once, 0.1 GB a pass over one list; the whole compiled step, this in it, took 71 ms on one H200 (224 px, batch
512: 7,182 images/s, 2026-11-23, docs/performance.md).
"""

import torch
from torch import Tensor, nn


class Momentum:
    """v = momentum*v + (g + weight_decay*w); w = w - rate*v; v starts at 0. Not Nesterov (protocol.md section 3.1).

    Weight decay applies to kernels (two axes or more), not to biases or normalisation.
    """

    def __init__(self, modules: list[nn.Module], momentum: float, weight_decay: float):
        self.parameters = [p for module in modules for p in module.parameters() if p.requires_grad]
        self.velocity: list[Tensor] = []
        self.momentum, self.weight_decay = float(momentum), float(weight_decay)

    def reset(self) -> None:
        """Forget all velocity, in place: a recorded step goes on using the same memory."""
        if self.velocity:
            torch._foreach_zero_(self.velocity)

    @torch.no_grad()
    def step(self, rate: float | Tensor) -> None:
        """Move the parameters by their gradients, then drop the gradients. A rate on the device may change between the
        replays of a recorded step.
        """
        if not self.velocity:
            # What has no gradient at the first step has no part in the network's output.
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
