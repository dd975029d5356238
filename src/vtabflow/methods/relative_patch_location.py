"""Relative patch location: predict where a patch lies relative to the central patch of its image."""

import torch
from torch import Tensor

from vtabflow.methods.base import Batch
from vtabflow.methods.batch_rng import BatchRNG
from vtabflow.methods.patches import COUNT, Patches

CENTRE = COUNT // 2


class RelativePatchLocation(Patches):
    """All eight pairs (patch, central patch) of every image; mean cross-entropy over 8.

    The label counts the places from left to right and top to bottom, without the centre. Patches, embedding and head:
    see Patches (docs/methods/relative-patch-location.md).
    """

    id = "relative-patch-location"
    display = "Rel.Pat.Loc"
    reference = (
        "Doersch et al. 2015, arXiv:1505.05192; google/revisiting-self-supervised "
        "self_supervision/relative_patch_location.py"
    )

    pairs: Tensor

    def build(self) -> None:
        self.build_heads(2, COUNT - 1)
        pairs = [(place, CENTRE) for place in range(COUNT) if place != CENTRE]
        self.register_buffer("pairs", torch.tensor(pairs))

    def losses(self, group: str, batch: Batch, rng: BatchRNG) -> dict[str, Tensor]:
        return self.arrangement_losses(batch, rng, self.pairs, torch.arange(COUNT - 1, device=self.pairs.device))
