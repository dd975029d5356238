"""The contract of a pre-training method. The loop (vtabflow/pretrain) knows methods by this class only.

A method is one class in one file of this folder. Adding a method is adding a file: its class attributes are literals,
which the study reads with `ast`, so that listing the methods imports no torch.

Random numbers come only from the BatchRNG that `losses` gets (on the images' device, seeded anew at each update) or
from torch's global generator (dropout), which the loop seeds likewise. A method that keeps to this resumes
bit-identically. Several processes may share a batch: a loss that is a mean over images needs nothing for it, one that
compares images with each other takes the `gathered` rows (vtabflow/runtime/distributed.py).

The loop may call `losses` under bfloat16 autocast. Losses must be float32 all the same: `encode` and `Head` return
float32, and what else needs it (exponentials, distances, sums over many terms) is computed from `.float()` tensors
inside `with torch.autocast(x.device.type, enabled=False):`, because autocast casts the inputs of matrix products and
convolutions to bfloat16 again, whatever their dtype. Elementwise operations and reductions follow their inputs.
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

    Attributes:
        id: the name in params.yaml, paths and commands.
        display: the name in tables and figures.
        family: generative, from-scratch, self-supervised, semi-supervised or supervised.
        reference: the paper, and the source file that the method follows.
        published: whether it is one of the 18 methods of the VTAB study.
        source: where the encoder's weights come from: "trained" on the upstream set by `losses`, or "random", the
            network's own initialisation. Only a trained method has streams and an update_order.
        streams: name -> what the stream yields of the upstream set: "images" (all images, never their classes),
            "labels" (all images with classes) or "subset" (the labelled subset, with classes). Each yields
            `settings["batch"]` images per update.
        defaults: the study's common pre-training settings in which this method departs from the study's defaults.
        settings: the method's own settings, added to those of its base class: name -> default, or
            (default, lowest, highest) with both ends allowed. Every number should have a range.
        sizes: the image sizes that the method can work at, in pixels; empty for any from smallest_size on.
        smallest_size: smaller images than this are refused.
        smallest_batch: fewer images in a batch than this are refused.
        networks: study's network -> network of the same size class that this method uses instead.
        update_order: the parameter groups that one step updates, in order. Each update has a batch of its own.
        needs: a package beyond the project's own dependencies -> the extra that installs it: {"lightly": "extras"}.
    """

    id: str = ""
    display: str = ""
    family: str = ""
    reference: str = ""
    published: bool = False
    source: str = "trained"
    streams: dict[str, str] = {}
    defaults: dict[str, Any] = {}
    settings: dict[str, Any] = {}
    sizes: tuple[int, ...] = ()
    smallest_size: int = 1
    smallest_batch: int = 2
    networks: dict[str, str] = {}
    update_order: tuple[str, ...] = ("main",)
    needs: dict[str, str] = {}

    def __init__(self, trunk: nn.Module, size: int, classes: int | None, settings: dict[str, Any], seed: int):
        """Set the attributes and call `build`.

        Args:
            trunk: the network that the study keeps, (B, 3, size, size) in [-1, 1] to (B, trunk.features).
            size: side of the images in pixels.
            classes: number of the upstream's classes, None if it has none.
            settings: resolved settings, common and own; own ones that are not given have their defaults.
            seed: of the initial weights of what `build` makes.
        """
        super().__init__()
        self.trunk = trunk
        self.features: int = trunk.features  # type: ignore[assignment]
        self.size = size
        self.classes = classes
        self.config = {**self.own_defaults(), **settings}
        with seeded(seed):
            self.build()

    @classmethod
    def own_defaults(cls) -> dict[str, Any]:
        """Defaults of the method's own settings, inherited ones included."""
        declared: dict[str, Any] = {}
        for kind in reversed(cls.__mro__):
            declared |= vars(kind).get("settings", {})
        return {name: value[0] if isinstance(value, tuple) else value for name, value in declared.items()}

    def build(self) -> None:
        """Make heads, decoders, critics. The random state is seeded; `glorot` draws kernels as the trunk's are."""

    def losses(self, group: str, batch: Batch, rng: BatchRNG) -> dict[str, Tensor]:
        """Losses and metrics of one update.

        Args:
            group: the parameter group that is updated; the parameters of all others have requires_grad False.
            batch: images and classes of each stream.
            rng: the random numbers of this update.

        Returns:
            Named float32 scalars. The sum of those that carry a gradient is minimised; the others are only recorded.
        """
        raise NotImplementedError

    def parameter_groups(self) -> dict[str, Iterable[nn.Parameter]]:
        """Group -> parameters that its update changes, with an optimiser of its own. By default one, with all."""
        return {"main": [p for p in self.parameters() if p.requires_grad]}

    def group_settings(self) -> dict[str, dict[str, Any]]:
        """Group -> common settings in which its optimiser departs, such as {"critic": {"learning_rate": 5e-4}}."""
        return {}

    def after_step(self, step: int) -> None:
        """Called without gradients after each step (counted from 0), for moving averages and the like in buffers."""

    def standardises_input(self) -> bool:
        """Whether each image that the trunk sees has mean 0 and standard deviation 1, in place of the range [-1, 1]."""
        return False

    def finalize(self) -> None:
        """Called once after the training: leave the trunk as the plain network that is kept, in place."""

    def samples(self) -> Tensor | None:
        """Generated images (N, 3, H, W) in [-1, 1] to show after the training; None if the method generates none."""
        return None

    def encode(self, images: Tensor) -> Tensor:
        """Features (B, features), float32, of normalised images (B, 3, size, size)."""
        return self.trunk(images.contiguous(memory_format=torch.channels_last)).float()

    def require_classes(self) -> int:
        """The number of classes of the upstream set.

        Raises:
            UserError: it has none.
        """
        if self.classes is None:
            raise UserError(
                f"method {self.id} learns from classes, and the upstream has none; "
                "give it a labelled upstream or leave it out"
            )
        return self.classes


class Head(nn.Linear):
    """A linear layer (B, inputs) to (B, outputs) that starts at zero and computes in float32 also under autocast.

    So a cross-entropy of its outputs starts at ln C exactly.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs)
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return F.linear(x.float(), self.weight, self.bias)


def accuracy(logits: Tensor, target: Tensor) -> Tensor:
    """Fraction of rows of logits (B, C) whose largest is at target (B,), without a gradient: only recorded."""
    return (logits.detach().argmax(1) == target).float().mean()
