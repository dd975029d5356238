"""The networks a representation can have, by name. Reading the table does not import torch.

Adding a network is adding a row, and a file if its class is new. A class is called with the row's arguments and has an
attribute `features`; a static method `start(network)` draws its initial weights, where they are not Glorot-uniform.
"""

import importlib
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict

from vtabflow.errors import UserError, nearest
from vtabflow.runtime.files import seed_of

if TYPE_CHECKING:
    import torch
    from torch import nn

# A row. module: file in vtabflow/networks; class: its class; features: number of outputs; arguments: how the class is
# called; patch: side in pixels of the patches that a transformer cuts an image into; stride: of a network with batch
# norm, pixels of an image's side for one place of the last features; smallest: side in pixels of the smallest image
# that the network takes.
NetworkInfo = TypedDict(
    "NetworkInfo",
    {
        "module": str,
        "class": str,
        "features": int,
        "arguments": dict[str, Any],
        "patch": NotRequired[int],
        "stride": NotRequired[int],
        "smallest": NotRequired[int],
    },
)

NETWORKS: dict[str, NetworkInfo] = {
    # 23,500,352 parameters, 224 px.
    "resnet50v2": {"module": "resnetv2", "class": "ResNetV2", "features": 2048, "stride": 32, "arguments": {}},
    # resnet50v2 for patches: total stride 8 and not 32, hence 8 x 8 places of a 64 px patch, 28 x 28 of a 224 px image.
    "resnet50v2-patch": {
        "module": "resnetv2",
        "class": "ResNetV2",
        "features": 2048,
        "stride": 8,
        "arguments": {"root": [64, 7, 1], "strides": [1, 2, 2, 1]},
    },
    # For 32 px on one CPU core; see tests/networks/test_resnetv2.py for its size.
    "resnet-small": {
        "module": "resnetv2",
        "class": "ResNetV2",
        "features": 64,
        "stride": 8,
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
    # BigGAN's discriminator (docs/methods/biggan.md): 86,444,833 of its 87,982,370 parameters; its heads have the rest.
    "biggan": {"module": "biggan", "class": "Discriminator", "features": 1536, "smallest": 32, "arguments": {}},
    # A third of the width, a ninth of the work: for short runs at 64 px.
    "biggan-third": {
        "module": "biggan",
        "class": "Discriminator",
        "features": 512,
        "smallest": 32,
        "arguments": {"channels": 32},
    },
    # For 32 px on one CPU core: 3,600 images/s in training at batch 64, 0.87 times resnet-small's 4,150 (2026-11-23);
    # inference 0.6 times.
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
        raise UserError(
            f"there is no network {name!r}{nearest(name, NETWORKS)}; set `network` to one of {', '.join(NETWORKS)}"
        )


def smallest_batch(name: str, size: int) -> int:
    """The fewest images of `size` px that the network can be trained on at once.

    A batch norm needs more than one value per channel: two images, where each leaves one place.
    """
    return 2 if size <= NETWORKS[name].get("stride", 0) else 1


def build(name: str, seed: int) -> "nn.Module":
    """The network `name` with its initial weights. The global random state is left as it was.

    Kernels of convolutions and linear layers are Glorot-uniform, as TensorFlow's layers draw them, and biases are zero,
    unless the class has a `start` of its own.

    Args:
        name: a name in NETWORKS.
        seed: same name and seed, same weights.

    Returns:
        A network from normalised float images (B, 3, H, W) to features (B, features).

    Raises:
        UserError: there is no network of this name.
    """
    kind, arguments = _class_of(name)
    from vtabflow.networks.initialise import glorot, seeded

    with seeded(seed_of("network", name, seed)):
        return getattr(kind, "start", glorot)(kind(**arguments))


def blank(name: str, device: "torch.device") -> "nn.Module":
    """The network `name` on the device, to be loaded: its weights are arbitrary, all else is as in `build`.

    It is made like any module, not on the meta device: there, buffers that are not in the state_dict (rotary tables,
    relative positions of many of timm's networks) would stay uninitialised. What is left out is `start`, 20 s for
    BigGAN's orthogonal kernels. The rest takes 0.10 s of one core for resnet50v2, 0.31 s for biggan and 0.17 s for
    vit-s16; the first use of the meta device in a process takes 1.4 s (x86-64, torch 2.15, 2026-11-25). The global
    random state is left as it was.
    """
    kind, arguments = _class_of(name)
    from vtabflow.networks.initialise import seeded

    with seeded(0):
        return kind(**arguments).to(device)


def _class_of(name: str) -> tuple[Any, dict[str, Any]]:
    check(name)
    row = NETWORKS[name]
    return getattr(importlib.import_module(f"vtabflow.networks.{row['module']}"), row["class"]), row["arguments"]
