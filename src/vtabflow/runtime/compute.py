"""What both trainings say of the device: precision, compilation, memory, and what a result records of its making."""

import os
import platform
import resource
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from vtabflow.errors import UserError

# Of a GPU's free memory, for images that stay there; the rest is for activations (ResNet-50, 224 px, batch 512,
# bfloat16: 21.2 GB at the most on an H200, docs/performance.md).
RESIDENT_SHARE = 0.5
# One H200, 2026-11-23 (docs/performance.md): compilation takes ResNet-50 at 224 px and batch 512 from 5,281 to 7,182
# images/s, 50 us an image; the first took 36 s to a minute. A minute is earned back after 1.2 million images of 224 x
# 224, 36 s after 0.7 million.
COMPILE_FROM_PIXELS = 6e10


def resolved(precision: str, device: torch.device) -> str:
    """What a precision setting means here, "float32" or "bfloat16": auto is bfloat16 on a GPU that has it, else
    float32. UserError for another setting.
    """
    if precision not in ("auto", "float32", "bfloat16"):
        raise UserError(f"precision is {precision!r}; set it to 'auto', 'float32' or 'bfloat16'")
    if precision == "auto":
        return "bfloat16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "float32"
    return precision


def autocast(precision: str, device: torch.device, cache: bool = True) -> AbstractContextManager[Any]:
    """The context of forward passes. float32 leaves torch's defaults (cuDNN may use TF32).

    cache: keep weights that were cast for the next use in one context; a recorded step must cast them itself each time.
    """
    enabled = resolved(precision, device) == "bfloat16"
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled, cache_enabled=cache)


@contextmanager
def repeatable(device: torch.device) -> Iterator[None]:
    """On a GPU, only algorithms that give the same bits each time, where torch has one (it warns where it has none). It
    matters to compiled steps, which do not repeat theirs otherwise. Nothing changes on a CPU; torch's settings are as
    they were when the block has ended (CUBLAS_WORKSPACE_CONFIG stays).

    One H100, torch 2.11, 2026-11-23, Sup-100% with ResNet-50 at 64 px: 8,229 images/s with it and 7,210 without over 300
    steps, 3,510 and 3,846 over 40; laps of 30 steps lay between 6,500 and 14,100: its cost is within that noise.
    """
    if device.type != "cuda":
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what cuBLAS asks for
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    memory: Any = torch.utils.deterministic
    fill = memory.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True, warn_only=True)
    memory.fill_uninitialized_memory = False  # nothing is read before it is written
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        memory.fill_uninitialized_memory = fill


def worth_compiling(images: int, size: int, device: torch.device) -> bool:
    """Whether training on so many images of size x size (each counted once, whatever the views made of it) earns the
    compilation back; never on a CPU, nor with VTABFLOW_COMPILE=0.
    """
    if device.type != "cuda" or os.environ.get("VTABFLOW_COMPILE") == "0":
        return False
    return images * size**2 >= COMPILE_FROM_PIXELS


def room(device: torch.device) -> int:
    """Bytes of images that may stay on a GPU."""
    return int(torch.cuda.mem_get_info(device)[0] * RESIDENT_SHARE)


def versions() -> dict[str, str]:
    """Python and the libraries that the numbers depend on, those that are installed."""
    found = {"python": platform.python_version()}
    for name in ("torch", "numpy", "safetensors", "vtabflow"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def machine(device: torch.device) -> dict[str, Any]:
    """The GPU or the processor that did the work, and how many threads it had; no host name, no path."""
    return {
        "device": device.type,
        "name": torch.cuda.get_device_name(device) if device.type == "cuda" else _processor(),
        "threads": torch.get_num_threads(),
        "system": platform.system(),
        "architecture": platform.machine(),
    }


def peak_memory(device: torch.device) -> int:
    """Bytes: the most that torch allocated on the GPU since its statistics were reset, or that this process held."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    # Linux counts in KiB, macOS in bytes.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as lines:
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
