"""Run by torchrun in two processes: losses that compare images have the gradients of the whole batch."""

import torch

from vtabflow.methods.triplet import batch_hard, semi_hard, squared_distances
from vtabflow.methods.wae_mmd import mmd
from vtabflow.methods.wae_ukl import ram_mc
from vtabflow.runtime import distributed

N, D = 12, 5


def losses(z):
    squared = squared_distances(z)
    return {
        "mmd": mmd(z, torch.ones_like(z)),
        "ram-mc": ram_mc(z, 0.1 * z, 1.1 * z),
        "semi-hard": semi_hard(squared, 3, 0.5),
        "batch-hard": batch_hard(squared, 3),
    }


def gradient(rows, name):
    layer = torch.nn.Linear(D, D, bias=False)
    torch.nn.init.orthogonal_(layer.weight, generator=torch.Generator().manual_seed(1))
    loss = losses(rows(layer))[name]
    loss.backward()
    return layer.weight.grad, loss.item()


distributed.init_process_group()
x = torch.randn(N, D, generator=torch.Generator().manual_seed(0))
own = x.chunk(2)[distributed.rank()]
for name in losses(x):
    want, whole = gradient(lambda layer: layer(x), name)
    have, parts = gradient(lambda layer: distributed.gathered(layer(own)), name)
    distributed.average([have])
    torch.testing.assert_close(have, want, atol=1e-6, rtol=1e-5)
    assert abs(whole - parts) < 1e-5 and want.abs().max() > 1e-3, name
    if distributed.rank() == 0:
        print(f"{name} agrees")
distributed.destroy_process_group()
