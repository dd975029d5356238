"""Several processes that train one model, one GPU each: who am I, and sums over all. One process is the ordinary case,
and costs nothing.

Processes are started by torchrun (`vtabflow pretrain --gpus 2` does it), which says who is who in the environment.
"""

import os
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from vtabflow.errors import UserError


def joined() -> bool:
    """Whether this process was started as one of several."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def join() -> None:
    """Meet the other processes, if there are any: over NCCL where each has a GPU of its own, else over gloo."""
    if joined() and not dist.is_initialized():
        gpus = torch.cuda.device_count()
        if gpus:
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]) % gpus)
        dist.init_process_group("nccl" if gpus >= int(os.environ["LOCAL_WORLD_SIZE"]) else "gloo")


def leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def world() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """This process's number among them, from 0; 0 writes what is to be written."""
    return dist.get_rank() if dist.is_initialized() else 0


def part_of(batch: int) -> int:
    """This process's share of a batch of `batch` images; UserError if it cannot be shared out evenly."""
    if batch % world():
        raise UserError(f"pretrain.batch is {batch}, and {world()} processes share it; make it a multiple of {world()}")
    return batch // world()


def gathered(x: Tensor) -> Tensor:
    """The rows (B, ...) of all processes in their order, (world * B, ...). Gradients flow back to each process's own.

    A loss over the gathered rows is the whole batch's on every process, and so is the mean over processes of its
    gradients: the backward pass sums what all processes want of a row, `averaged` divides by their number.
    """
    return x if world() == 1 else _Gather.apply(x.contiguous())


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(_: Any, x: Tensor) -> Tensor:
        parts = [torch.empty_like(x) for _ in range(world())]
        dist.all_gather(parts, x)
        return torch.cat(parts)

    @staticmethod
    def backward(_: Any, *gradients: Tensor) -> Tensor:
        wanted = gradients[0].contiguous().clone()
        dist.all_reduce(wanted)
        return wanted.chunk(world())[rank()]


def average(tensors: Sequence[Tensor]) -> None:
    """Replace each tensor by its mean over the processes, in one message."""
    if world() == 1 or not tensors:
        return
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
    dist.all_reduce(flat)
    flat /= world()
    for tensor, mean in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(mean.view_as(tensor))
