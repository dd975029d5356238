"""Resizing to a square: VTAB's legacy bilinear resize, bit-identical to TensorFlow's, and an antialiased one.

VTAB calls `tf.compat.v1.image.resize` (google-research/task_adaptation, data_loader.py), which is bilinear with
align_corners=False and half_pixel_centers=False. Source of the computation: TensorFlow 2.21,
tensorflow/core/kernels/image/resize_bilinear_op.cc (compute_interpolation_weights with LegacyScaler, compute_lerp).
See docs/protocol.md#preprocessing.
"""

from functools import lru_cache

import torch
from torch import Tensor

from vtabflow.errors import UserError

KINDS = ("legacy", "antialias")


def resize(images: Tensor, size: int, kind: str) -> Tensor:
    """Resize images to `size` x `size` pixels; images that have this size already keep their values.

    Never waits for the device. "legacy" rounds every step to float32 as TensorFlow does, so the result is bit-identical
    on every device, unless a compiler fuses the steps.

    Args:
        images: (N, H, W, C), uint8 or float, on the scale 0..255.
        size: height and width of the result.
        kind: "legacy", with which VTAB's published numbers were made, or "antialias", torch's antialiased bilinear.

    Returns:
        float32 (N, size, size, C) on the same scale and device.
    """
    if kind not in KINDS:
        raise UserError(f"there is no resize {kind!r}: set the image's resize to {' or '.join(KINDS)}")
    _, height, width, _ = images.shape
    if height == width == size:
        return images.to(torch.float32)
    return resize_legacy(images, size) if kind == "legacy" else resize_antialias(images, size)


def resize_antialias(images: Tensor, size: int) -> Tensor:
    """(N, H, W, C) to float32 (N, size, size, C) by torch's antialiased bilinear interpolation."""
    planes = images.permute(0, 3, 1, 2).to(torch.float32)
    planes = torch.nn.functional.interpolate(planes, (size, size), mode="bilinear", align_corners=False, antialias=True)
    return planes.permute(0, 2, 3, 1).contiguous()


def resize_legacy(images: Tensor, size: int) -> Tensor:
    """(N, H, W, C) to float32 (N, size, size, C) by TensorFlow's legacy bilinear interpolation."""
    _, height, width, _ = images.shape
    rows, top, bottom, y_weight = interpolation_indices(height, size, images.device)
    columns, left, right, x_weight = interpolation_indices(width, size, images.device)
    # Along x first, on the needed rows alone: the same values as from four neighbours of each pixel, for half the work.
    images = images.index_select(1, rows).index_select(2, columns).to(torch.float32)
    lines = lerp(images.index_select(2, left), images.index_select(2, right), x_weight.view(1, 1, -1, 1))
    return lerp(lines.index_select(1, top), lines.index_select(1, bottom), y_weight.view(1, -1, 1, 1))


def lerp(low: Tensor, high: Tensor, weight: Tensor) -> Tensor:
    """`low + (high - low) * weight`; torch.lerp uses another formula for weights of 0.5 and more."""
    return low + (high - low) * weight


@lru_cache(maxsize=1024)
def interpolation_indices(length: int, size: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Where the `size` outputs along one axis of `length` inputs are interpolated.

    Returns:
        needed: int64 (n,), the inputs that are used at all.
        low, high: int64 (size,), for each output the positions in `needed` of its two neighbours.
        weight: float32 (size,), the weight of the higher one.
    """
    scale = torch.tensor(length, dtype=torch.float32) / torch.tensor(size, dtype=torch.float32)
    source = torch.arange(size, dtype=torch.float32) * scale
    low = source.floor()
    high = source.ceil().clamp(max=length - 1)
    needed, position = torch.unique(torch.cat([low, high]).long(), return_inverse=True)
    return needed.to(device), position[:size].to(device), position[size:].to(device), (source - low).to(device)
