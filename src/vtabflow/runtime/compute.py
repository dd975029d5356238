"""The device as pre-training and fine-tuning use it: precision, compilation, memory, and what results record of it."""

import os
import platform
import resource
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from vtabflow.errors import RunError, UserError
from vtabflow.runtime.devices import PORTABLE

# The part of a GPU's free memory for images that stay there; the rest is for activations (ResNet-50, 224 px, batch 512,
# bfloat16: at most 21.2 GB on an H200, docs/performance.md).
RESIDENT_SHARE = 0.5
# One H200, 2026-11-23 (docs/performance.md): compilation takes ResNet-50 at 224 px and batch 512 from 5,281 to 7,182
# images/s, 50 us per image; the first compilation took 36 s to a minute. A minute is earned back after 1.2 million
# images of 224 x 224, 36 s after 0.7 million.
COMPILE_FROM_PIXELS = 6e10


def resolve_precision(precision: str, device: torch.device) -> str:
    """The precision of a setting, "float32" or "bfloat16": auto is bfloat16 on a GPU that has it, else float32.

    Raises:
        UserError: another setting.
    """
    if precision not in ("auto", "float32", "bfloat16"):
        raise UserError(f"precision is {precision!r}; set it to 'auto', 'float32' or 'bfloat16'")
    if precision == "auto":
        return "bfloat16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "float32"
    return precision


def autocast(precision: str, device: torch.device, cache: bool = True) -> AbstractContextManager[Any]:
    """The context of forward passes. float32 leaves torch's defaults (cuDNN may use TF32).

    Args:
        precision: "auto", "float32" or "bfloat16".
        device: where the forward passes run.
        cache: keep weights that were cast for their next use in one context; a step that is captured as a CUDA graph
            has to cast them at each replay.
    """
    enabled = resolve_precision(precision, device) == "bfloat16"
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled, cache_enabled=cache)


@contextmanager
def deterministic_algorithms(device: torch.device) -> Iterator[None]:
    """On a GPU, let torch choose deterministic algorithms in the block; it warns where it has none.

    Without it compiled steps are not bit-identical from run to run. Nothing changes on a CPU. At the end of the block
    torch's settings are as they were (CUBLAS_WORKSPACE_CONFIG stays).

    One H100, torch 2.11, 2026-11-23, Sup-100% with ResNet-50 at 64 px: 8,229 images/s with it and 7,210 without over
    300 steps, 3,510 and 3,846 over 40; 30 steps at a time lay between 6,500 and 14,100: its cost is within that noise.
    """
    if device.type != "cuda":
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS is deterministic with one of two values
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


def check_portable() -> None:
    """Raise RunError unless this process computes portably (runtime/devices.py:use_portable_numerics)."""
    given = {name: os.environ.get(name) for name in PORTABLE}
    capability = torch.backends.cpu.get_cpu_capability()
    if given != PORTABLE or capability != "AVX2" or torch.get_num_threads() != 1:
        raise RunError(
            "portable: true needs an x86 processor with AVX2, and "
            f"{' '.join(f'{name}={value}' for name, value in PORTABLE.items())} before torch is imported; "
            f"here torch uses {capability} and {torch.get_num_threads()} threads: use `vtabflow {{pretrain,finetune}} "
            "--spec ...` on another machine, or set portable: false"
        )


def worth_compiling(images: int, size: int, device: torch.device) -> bool:
    """Whether the time that compiled steps save exceeds that of the compilation.

    Never on a CPU, nor with VTABFLOW_COMPILE=0.

    Args:
        images: that are trained on, all steps together; an image counts once however many views a method makes of it.
        size: their side in pixels.
        device: where training runs.
    """
    if device.type != "cuda" or os.environ.get("VTABFLOW_COMPILE") == "0":
        return False
    return images * size**2 >= COMPILE_FROM_PIXELS


def image_memory(device: torch.device) -> int:
    """How many bytes of images may stay on a GPU: a part of what is free now."""
    return int(torch.cuda.mem_get_info(device)[0] * RESIDENT_SHARE)


def versions() -> dict[str, str]:
    """Versions of Python and of the installed libraries that the numbers depend on."""
    found = {"python": platform.python_version()}
    for name in ("torch", "numpy", "safetensors", "vtabflow"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def machine(device: torch.device) -> dict[str, Any]:
    """The GPU or the processor, its instructions and torch's threads; no host name, no path."""
    return {
        "device": device.type,
        "name": torch.cuda.get_device_name(device) if device.type == "cuda" else _processor(),
        "threads": torch.get_num_threads(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "system": platform.system(),
        "architecture": platform.machine(),
    }


def peak_memory(device: torch.device) -> int:
    """Bytes: the most that torch allocated on the GPU since its statistics were reset, or this process on a CPU."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    # Linux counts in KiB, macOS in bytes.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
