"""What a result says about where it was made."""

import platform
import resource
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that the numbers depend on."""
    found = {"python": platform.python_version()}
    for name in ("torch", "numpy", "safetensors", "timm", "vtabflow"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def machine(device: torch.device) -> dict[str, Any]:
    """The device and the threads; no host name, no path."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {"device": device.type, "name": name, "system": platform.system(), "threads": torch.get_num_threads()}


def peak_memory(device: torch.device) -> int:
    """Bytes: on a GPU the most that was allocated since the cell began, on a CPU the most that the process held."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    # Linux counts in KiB, macOS in bytes.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
