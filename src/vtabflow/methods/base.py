"""What a pre-training method is. The loop (vtabflow/pretrain) knows methods by this class only.

A method is one class in one file of this folder. Its class attributes are literals: the study reads them with `ast`,
so that listing the methods imports no torch. Adding a method is adding a file.

Which random numbers: only those of the generator that `losses` is handed (on the images' device, seeded anew at each
step), or of torch's global one (dropout), which the loop seeds likewise. A method that keeps to this resumes to the
same bits.
"""

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vtabflow.errors import UserError
from vtabflow.networks.initialise import seeded

# stream -> (uint8 images (B, H, W, C) with C 1 or 3, class of each image (B,) int64, or None where the stream has no
# labels)
Batch = dict[str, tuple[Tensor, Tensor | None]]


class Method(nn.Module):
    """Base of all methods; the class attributes below are the whole declaration.

    id, display, family, reference: names, and where the method is described.
    streams: name -> what it draws from the upstream: "images" (all images, never their classes), "labels" (all images
    with
        classes) or "subset" (the labelled subset, with classes). Each stream yields `settings["batch"]` images a turn.
    defaults: the study's common pre-training settings in which this method departs from the study's defaults.
    settings: the method's own settings, with their defaults.
    ranges: own setting -> (lowest, highest) value that it may have, both included; a setting without one is not checked.
    sizes: the image sizes that the method can work at, in pixels; empty for any.
    networks: study's network -> network of the same size class that this method uses instead (patch stems, critics).
    turns: the players' turns in one step, in order. Each turn draws its own batch and makes one optimiser step.
    smallest_batch: fewer images in a batch than this are refused.
    """

    id: str = ""
    display: str = ""
    family: str = ""
    streams: dict[str, str] = {}
    defaults: dict[str, Any] = {}
    settings: dict[str, Any] = {}
    ranges: dict[str, tuple[float, float]] = {}
    sizes: tuple[int, ...] = ()
    networks: dict[str, str] = {}
    turns: tuple[str, ...] = ("main",)
    smallest_batch: int = 2
    reference: str = ""

    def __init__(self, trunk: nn.Module, size: int, classes: int | None, settings: dict[str, Any], seed: int):
        """`trunk` maps (B, 3, size, size) in [-1, 1] to (B, trunk.features) and is what the study keeps; `classes`
        are the upstream's.
        """
        super().__init__()
        self.trunk = trunk
        self.features: int = trunk.features  # type: ignore[assignment]
        self.size = size
        self.classes = classes
        self.set = {**type(self).settings, **settings}
        with seeded(seed):
            self.build()

    def build(self) -> None:
        """Make heads, decoders, critics. The random state is seeded; `glorot` starts kernels as the trunk's are."""

    def losses(self, player: str, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """Named scalars for this turn. The sum of those that carry a gradient is minimised; the others are recorded
        only.
        """
        raise NotImplementedError

    def players(self) -> dict[str, Iterable[nn.Parameter]]:
        """Player -> the parameters that its turns change. By default one player, with everything."""
        return {"main": self.parameters()}

    def player_settings(self) -> dict[str, dict[str, Any]]:
        """Player -> common settings in which its optimiser departs from the method's, such as {"critic":
        {"learning_rate": 5e-4}}.
        """
        return {}

    def after_step(self, step: int) -> None:
        """Called without gradients after each step (counted from 0): moving averages and the like, kept in buffers."""

    def represent(self, images: Tensor) -> Tensor:
        """Features (B, features), float32, of normalised images (B, 3, size, size)."""
        return self.trunk(images.contiguous(memory_format=torch.channels_last)).float()

    def classes_or_refuse(self) -> int:
        if self.classes is None:
            raise UserError(
                f"method {self.id} learns from classes, and the upstream has none; "
                "give it a labelled upstream or leave it out"
            )
        return self.classes


class Head(nn.Linear):
    """A linear layer that starts at zero (so a cross-entropy starts at ln C exactly) and computes in float32 also
    under autocast.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs)
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return F.linear(x.float(), self.weight, self.bias)


def accuracy(logits: Tensor, target: Tensor) -> Tensor:
    """Fraction right, without a gradient: recorded, not minimised."""
    return (logits.detach().argmax(1) == target).float().mean()
