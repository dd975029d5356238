"""The networks a representation can have, by name. Reading the table does not import torch.

A row is {"module": file in vtabflow/networks, "class": its class, "features": outputs, "arguments": how the class is
called, "patch": the side in pixels of the patches that a transformer cuts an image into}. Adding a network is one row,
and a file if its class is new.
"""

import difflib
import importlib
from typing import TYPE_CHECKING, Any

from vtabflow.errors import UserError
from vtabflow.runtime.files import seed_of

if TYPE_CHECKING:
    import torch
    from torch import nn

NETWORKS: dict[str, dict[str, Any]] = {
    # 23,500,352 parameters, 224 px; methods.md 2.1.
    "resnet50v2": {"module": "resnetv2", "class": "ResNetV2", "features": 2048, "arguments": {}},
    # resnet50v2 for patches: total stride 8 and not 32, hence 8 x 8 places of a 64 px patch, 28 x 28 of a 224 px image.
    "resnet50v2-patch": {
        "module": "resnetv2",
        "class": "ResNetV2",
        "features": 2048,
        "arguments": {"root": [64, 7, 1], "strides": [1, 2, 2, 1]},
    },
    # For 32 px on one CPU core; see tests/networks/test_resnetv2.py for its size.
    "resnet-small": {
        "module": "resnetv2",
        "class": "ResNetV2",
        "features": 64,
        "arguments": {
            "blocks": [1, 1, 1],
            "widths": [16, 32, 64],
            "strides": [1, 2, 2],
            "root": [16, 3, 2],
            "max_pool": False,
            "bottleneck": False,
            # Short schedules: with 0.01, 55% of the moving averages after 60 steps would still be their initial values.
            "momentum": 0.1,
        },
    },
    # BigGAN's discriminator (methods.md M6): 86,444,833 of its 87,982,370 parameters; its heads have the others.
    "biggan": {"module": "biggan", "class": "Discriminator", "features": 1536, "arguments": {}},
    # A third of the width, a ninth of the work: for short runs at 64 px.
    "biggan-third": {"module": "biggan", "class": "Discriminator", "features": 512, "arguments": {"channels": 32}},
    # For 32 px on one CPU core: a training step at batch 64 makes 0.87 times as many images/s as resnet-small's (3,600 of
    # 4,150, 2026-11-23), inference 0.6 times.
    "biggan-small": {
        "module": "biggan",
        "class": "Discriminator",
        "features": 64,
        "arguments": {"channels": 8, "multipliers": [1, 2, 4, 8], "attention": False},
    },
    # timm's vit_small_patch16_224: 21,665,664 parameters.
    "vit-s16": {"module": "vit", "class": "ViT", "features": 384, "patch": 16, "arguments": {}},
    # For 32 px on one CPU core, where its training step takes twice resnet-small's.
    "vit-small": {
        "module": "vit",
        "class": "ViT",
        "features": 64,
        "patch": 4,
        "arguments": {"size": 32, "patch": 4, "width": 64, "depth": 3, "heads": 2, "mlp_ratio": 2.0},
    },
}


def check(name: str) -> None:
    """Raise UserError if there is no network of this name."""
    if name not in NETWORKS:
        near = difflib.get_close_matches(name, NETWORKS, 1, 0) or sorted(NETWORKS)
        raise UserError(
            f"there is no network {name!r}; set `network` to one of {', '.join(NETWORKS)} (nearest: {near[0]})"
        )


def build(name: str, seed: int) -> "nn.Module":
    """The network `name`: (B, 3, H, W) normalised float images to (B, features). Same name and seed, same weights.

    Kernels of convolutions and linear layers are Glorot-uniform, as TensorFlow's layers draw them, and biases are zero,
    unless the class says how it starts by a function `start` of its own. The global random state is left as it was.
    """
    kind, arguments = _class_of(name)
    from vtabflow.networks.initialise import glorot, seeded

    with seeded(seed_of("network", name, seed)):
        return getattr(kind, "start", glorot)(kind(**arguments))


def blank(name: str, device: "torch.device") -> "nn.Module":
    """The network `name` on the device with arbitrary weights, to be loaded: drawing BigGAN's takes 20 s."""
    import torch

    kind, arguments = _class_of(name)
    with torch.device("meta"):
        return kind(**arguments).to_empty(device=device)


def _class_of(name: str) -> tuple[Any, dict[str, Any]]:
    check(name)
    row = NETWORKS[name]
    return getattr(importlib.import_module(f"vtabflow.networks.{row['module']}"), row["class"]), row["arguments"]
