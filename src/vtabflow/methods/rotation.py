"""Rotation: say by which multiple of 90 degrees an image was turned."""

import torch.nn.functional as F
from torch import Tensor

from vtabflow.methods.augment import inception_preprocess, rotations
from vtabflow.methods.base import Batch, Head, Method, accuracy
from vtabflow.methods.batch_rng import BatchRNG


class Rotation(Method):
    """Every image in all four turns in one batch; mean cross-entropy over 4 (methods.md M11).

    Turned after the crop, exactly; the four share their batch statistics, as the authors' do, so that batch norm tells
    nothing about the turn. The crop's settings are those of the authors' inception_preprocess.
    """

    id = "rotation"
    display = "Rotation"
    family = "self-supervised"
    streams = {"images": "images"}
    settings = {"crop_area_min": 0.05}
    ranges = {"crop_area_min": (0.01, 1.0)}
    published = True
    reference = "Gidaris et al. 2018, arXiv:1803.07728; google/revisiting-self-supervised self_supervision/rotation.py"

    def build(self) -> None:
        self.turn = Head(self.features, 4)

    def losses(self, group: str, batch: Batch, rng: BatchRNG) -> dict[str, Tensor]:
        images, _ = batch["images"]
        x, turns = rotations(inception_preprocess(images, self.size, rng, self.config["crop_area_min"]))
        logits = self.turn(self.represent(x))
        return {"rotation": F.cross_entropy(logits, turns), "accuracy": accuracy(logits, turns)}
