"""What a card says of the run: versions, machine, memory."""

import platform
import resource
import sys
from importlib.metadata import version
from typing import Any

import torch


def versions() -> dict[str, str]:
    """Python and the libraries that can change a result."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": version("numpy"),
        "safetensors": version("safetensors"),
    }


def machine(device: torch.device) -> dict[str, Any]:
    """The processor or GPU that did the work, and how many threads it had."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    return {
        "device": device.type,
        "name": name,
        "threads": torch.get_num_threads(),
        "system": platform.system(),
        "architecture": platform.machine(),
    }


def peak_memory(device: torch.device) -> int:
    """Bytes: the most that torch allocated on the GPU, or the most that this process held."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return held if sys.platform == "darwin" else held * 1024


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as lines:
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
