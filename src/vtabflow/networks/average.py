"""A moving average of a network's weights: the generator of the samples, the teacher of BYOL and DINO."""

import copy
from typing import Any

import torch
from torch import nn


class MovingAverage(nn.Module):
    """A copy of `network` that follows it slowly, called like the network itself.

    It has no gradients, and takes buffers (batch-norm statistics) over as they are. Not torch.optim.swa_utils'
    AveragedModel: its decay is fixed when it is made, here it changes from step to step, and its counter of updates is
    read back from the device at each.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).requires_grad_(False)

    @torch.no_grad()
    def update(self, network: nn.Module, decay: float) -> None:
        """Set average = decay * average + (1 - decay) * network, for every parameter; 0 copies."""
        torch._foreach_lerp_(list(self.network.parameters()), list(network.parameters()), 1 - decay)
        for mine, theirs in zip(self.network.buffers(), network.buffers(), strict=True):
            mine.copy_(theirs)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.network(*args, **kwargs)
