"""Run by torchrun: pretrain from the spec sys.argv[1], with batch norms written out over the rows of all processes."""

import json
import sys
from pathlib import Path

import torch
from torch import nn

from vtabflow.contracts.specs import EncoderSpec
from vtabflow.contracts.typed_json import from_json
from vtabflow.pretrain import loop, step
from vtabflow.runtime import distributed


def forward(self, x):
    axes, shape = [0, *range(2, x.dim())], [1, -1] + [1] * (x.dim() - 2)
    if self.training:
        rows = distributed.gathered(x)
        mean, variance, n = rows.mean(axes), rows.var(axes, correction=0), rows.numel() // rows.shape[1]
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * n / (n - 1), self.momentum)
    else:
        mean, variance = self.running_mean, self.running_var
    y = (x - mean.view(shape)) / (variance.view(shape) + self.eps).sqrt()
    return y if self.weight is None else y * self.weight.view(shape) + self.bias.view(shape)


nn.modules.batchnorm._BatchNorm.forward = forward
loop.synchronise_norms = lambda method, device: None
torch.set_num_threads(1)
step.run(from_json(EncoderSpec, json.loads(Path(sys.argv[1]).read_text()), sys.argv[1]))
