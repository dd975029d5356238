"""What a pre-training method is. The loop (vtabflow/pretrain) knows methods by this class only.

A method is one class in one file of this folder. Its class attributes are literals: the study reads them with `ast`,
so that listing the methods imports no torch. Adding a method is adding a file.

Which random numbers: only those of the Draws that `losses` is handed (on the images' device, seeded anew at each turn),
or of torch's global generator (dropout), which the loop seeds likewise. A method that keeps to this resumes to the same
bits. Several processes may share a batch: a loss that is a mean over images needs nothing for it, one that compares
images with each other takes the `gathered` rows (vtabflow/runtime/distributed.py).
"""

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vtabflow.errors import UserError
from vtabflow.methods.batch_rng import BatchRNG
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
    sizes: the image sizes that the method can work at, in pixels; empty for any from smallest_size on.
    smallest_size: smaller images than this are refused.
    networks: study's network -> network of the same size class that this method uses instead (patch stems, critics).
    turns: the players' turns in one step, in order. Each turn draws its own batch and makes one optimiser step.
    smallest_batch: fewer images in a batch than this are refused.
    needs: a package beyond the project's own dependencies, and the extra that brings it: {"lightly": "extras"}.
    published: whether it is one of the 18 methods of the VTAB study.
    """

    id: str = ""
    display: str = ""
    family: str = ""
    streams: dict[str, str] = {}
    defaults: dict[str, Any] = {}
    settings: dict[str, Any] = {}
    ranges: dict[str, tuple[float, float]] = {}
    sizes: tuple[int, ...] = ()
    smallest_size: int = 1
    networks: dict[str, str] = {}
    update_order: tuple[str, ...] = ("main",)
    smallest_batch: int = 2
    needs: dict[str, str] = {}
    published: bool = False
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
        self.config = {**type(self).settings, **settings}
        with seeded(seed):
            self.build()

    def build(self) -> None:
        """Make heads, decoders, critics. The random state is seeded; `glorot` starts kernels as the trunk's are."""

    def losses(self, group: str, batch: Batch, rng: BatchRNG) -> dict[str, Tensor]:
        """Named scalars for this turn. The sum of those that carry a gradient is minimised; the others are recorded
        only.
        """
        raise NotImplementedError

    def parameter_groups(self) -> dict[str, Iterable[nn.Parameter]]:
        """Player -> the parameters that its turns change. By default one player, with everything that takes gradients."""
        return {"main": [p for p in self.parameters() if p.requires_grad]}

    def group_settings(self) -> dict[str, dict[str, Any]]:
        """Player -> common settings in which its optimiser departs from the method's, such as {"critic":
        {"learning_rate": 5e-4}}.
        """
        return {}

    def after_step(self, step: int) -> None:
        """Called without gradients after each step (counted from 0): moving averages and the like, kept in buffers."""

    def standardizes_input(self) -> bool:
        """Whether the trunk was trained on images with mean 0 and standard deviation 1 each, and is to be fed such."""
        return False

    def finalize(self) -> None:
        """Called once when the training is over, in place: leave the trunk as the plain network that is kept (such as
        kernels divided by their spectral norm).
        """

    def samples(self) -> Tensor | None:
        """What a method that makes pictures has to show at the end: (N, 3, H, W) in [-1, 1]; None for the others."""
        return None

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
