"""Rotation: predict by which multiple of 90 degrees an image was rotated."""

import torch.nn.functional as F
from torch import Tensor

from vtabflow.methods.augment import inception_preprocess, rotations
from vtabflow.methods.base import Batch, Head, Method, accuracy
from vtabflow.methods.batch_rng import BatchRNG


class Rotation(Method):
    """Every image in all four rotations in one batch; mean cross-entropy over 4 (docs/methods/rotation.md).

    As google/revisiting-self-supervised self_supervision/rotation.py at b530e3b: rotated after the crop, exactly; the
    four share their batch statistics, so that batch norm tells nothing about the rotation. The crop's settings are
    those of its inception_preprocess.
    """

    id = "rotation"
    display = "Rotation"
    family = "self-supervised"
    streams = {"images": "images"}
    settings = {"crop_area_min": (0.05, 0.01, 1.0)}
    published = True
    reference = "Gidaris et al. 2018, arXiv:1803.07728; google/revisiting-self-supervised self_supervision/rotation.py"

    def build(self) -> None:
        self.classify_rotation = Head(self.features, 4)

    def losses(self, group: str, batch: Batch, rng: BatchRNG) -> dict[str, Tensor]:
        images, _ = batch["images"]
        x, target = rotations(inception_preprocess(images, self.size, rng, self.config["crop_area_min"]))
        logits = self.classify_rotation(self.encode(x))
        return {"rotation": F.cross_entropy(logits, target), "accuracy": accuracy(logits, target)}
