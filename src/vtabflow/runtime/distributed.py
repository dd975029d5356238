"""Several processes that train one model, one GPU each: ranks, and sums over all processes.

torchrun starts the processes (`vtabflow pretrain --gpus 2` calls it) and names the rank of each in the environment.
With one process, the ordinary case, nothing here costs anything. torch is imported only by what needs it.
"""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from vtabflow.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor


def is_distributed() -> bool:
    """Whether torchrun started this process as one of several. Imports no torch."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def is_main_process() -> bool:
    """Whether this process has rank 0, and so writes the results and prints. Imports no torch."""
    return os.environ.get("RANK", "0") == "0"


def init_process_group() -> None:
    """Connect to the other processes, if there are any: over NCCL where each has its own GPU, else over gloo."""
    import torch
    import torch.distributed as dist

    if is_distributed() and not dist.is_initialized():
        gpus = torch.cuda.device_count()
        if gpus:
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]) % gpus)
        dist.init_process_group("nccl" if gpus >= int(os.environ["LOCAL_WORLD_SIZE"]) else "gloo")


def destroy_process_group() -> None:
    """Disconnect from the other processes, if there are any."""
    import torch.distributed as dist

    if dist.is_initialized():
        dist.destroy_process_group()


def world_size() -> int:
    """How many processes train together."""
    import torch.distributed as dist

    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """This process's number among them, from 0."""
    import torch.distributed as dist

    return dist.get_rank() if dist.is_initialized() else 0


def local_batch_size(batch: int) -> int:
    """This process's share of a batch of `batch` images; UserError if it cannot be divided evenly."""
    if batch % world_size():
        raise UserError(
            f"pretrain.batch is {batch}, and {world_size()} processes share it; make it a multiple of {world_size()}"
        )
    return batch // world_size()


def gathered(x: "Tensor") -> "Tensor":
    """The rows of all processes in the order of their ranks; gradients flow back to each process's own.

    A loss over the gathered rows is that of the whole batch on every process, and so is the mean over processes of its
    gradients: the backward pass sums the gradients of all processes for a row, and `average` divides by their number.
    (torch.distributed.nn.functional.all_gather does the same; torch 2.15 warns that it is deprecated.)

    Args:
        x: this process's rows (B, ...).

    Returns:
        (world_size * B, ...).
    """
    if world_size() == 1:
        return x
    import torch
    import torch.distributed as dist

    parts = [torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(world_size())]
    dist.all_gather(parts, x.detach().contiguous())
    parts[rank()] = x
    rows = torch.cat(parts)
    if rows.requires_grad:
        rows.register_hook(_summed)
    return rows


def _summed(gradient: "Tensor") -> "Tensor":
    import torch
    import torch.distributed as dist

    total = gradient.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total)
    return total


def average(tensors: Sequence["Tensor"]) -> None:
    """Replace each tensor by its mean over the processes, with one all-reduce."""
    if world_size() == 1 or not tensors:
        return
    import torch
    import torch.distributed as dist

    flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
    dist.all_reduce(flat)
    flat /= world_size()
    for tensor, mean in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(mean.view_as(tensor))
