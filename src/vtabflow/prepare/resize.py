"""Resizing to a square: VTAB's legacy bilinear, term by term, and an antialiased one.

Source: protocol.md, section 7.2 (tf.compat.v1.image.resize, bilinear, align_corners=False, no half-pixel centres).
"""

from functools import lru_cache

import torch
from torch import Tensor

from vtabflow.errors import UserError

KINDS = ("legacy", "antialias")


def resize(images: Tensor, size: int, kind: str) -> Tensor:
    """Images (N, H, W, C), uint8 or float on the 0..255 scale, as float32 (N, size, size, C), same scale and device.

    "legacy" is the resize that VTAB's published numbers were made with: every step is rounded to float32 as TensorFlow
    rounds it, so the result is equal to the bit on every device, unless a compiler fuses the steps. "antialias" is
    torch's antialiased bilinear. Images that have the target size come back unchanged. Nothing waits for the device.
    """
    if kind not in KINDS:
        raise UserError(f"there is no resize {kind!r}: set the image's resize to {' or '.join(KINDS)}")
    _, height, width, _ = images.shape
    if height == width == size:
        return images.to(torch.float32)
    if kind == "legacy":
        return _legacy(images, size)
    planes = images.permute(0, 3, 1, 2).to(torch.float32)
    planes = torch.nn.functional.interpolate(planes, (size, size), mode="bilinear", align_corners=False, antialias=True)
    return planes.permute(0, 2, 3, 1).contiguous()


def _legacy(images: Tensor, size: int) -> Tensor:
    _, height, width, _ = images.shape
    rows, top, bottom, down = _interpolation_indices(height, size, images.device)
    columns, left, right, across = _interpolation_indices(width, size, images.device)
    # Across first, on the needed rows alone: each value is the same as with four taps a pixel, for half the work.
    images = images.index_select(1, rows).index_select(2, columns).to(torch.float32)
    lines = _between(images.index_select(2, left), images.index_select(2, right), across.view(1, 1, -1, 1))
    return _between(lines.index_select(1, top), lines.index_select(1, bottom), down.view(1, -1, 1, 1))


def _between(low: Tensor, high: Tensor, weight: Tensor) -> Tensor:
    # Not torch.lerp: its formula is another one for weights of a half or more.
    return low + (high - low) * weight


@lru_cache(maxsize=1024)
def _interpolation_indices(length: int, size: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The inputs that are needed; for each output the lower and upper one among them, and the weight of the upper."""
    scale = torch.tensor(length, dtype=torch.float32) / torch.tensor(size, dtype=torch.float32)
    source = torch.arange(size, dtype=torch.float32) * scale
    low = source.floor()
    high = source.ceil().clamp(max=length - 1)
    needed, where = torch.unique(torch.cat([low, high]).long(), return_inverse=True)
    return needed.to(device), where[:size].to(device), where[size:].to(device), (source - low).to(device)
