"""Semi-Rotation: classify the labelled images and tell the rotation of all of them."""

import torch
import torch.nn.functional as F
from torch import Tensor

from vtabflow.methods.augment import inception_preprocess, rotations
from vtabflow.methods.base import Batch, Head, Method, accuracy


class SemiRotation10(Method):
    """S4L's L = CE_class(labelled, in all four turns) + w/2 (CE_rotation(unlabelled) + CE_rotation(labelled))
    (methods.md M15).

    One forward pass over both streams, so that they share batch statistics. w = 1 and both heads linear on the
    representation, as in google-research/s4l rotation.py. `batch` counts the images of each stream (256 + 256 in S4L,
    at learning rate 0.03 and weight decay 1e-3: the study's to set). The crop is S4L's inception_preprocess.
    """

    id = "semi-rotation-10"
    display = "Semi-Rotation-10%"
    family = "semi-supervised"
    streams = {"unlabelled": "images", "labelled": "subset"}
    defaults = {"learning_rate": 0.03, "weight_decay": 1e-3}
    settings = {"crop_area_min": 0.05, "rotation_weight": 1.0}
    ranges = {"crop_area_min": (0.01, 1.0), "rotation_weight": (0.0, 1e3)}
    reference = "Zhai et al. 2019 (S4L), arXiv:1905.03670; google-research/s4l semi_supervised/rotation.py"

    def build(self) -> None:
        self.classify = Head(self.features, self.classes_or_refuse())
        self.turn = Head(self.features, 4)

    def losses(self, player: str, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        streams = [batch["unlabelled"], batch["labelled"]]
        views = [
            rotations(inception_preprocess(images, self.size, generator, self.set["crop_area_min"]))
            for images, _ in streams
        ]
        features = self.represent(torch.cat([x for x, _ in views])).split([len(x) for x, _ in views])
        turn = [F.cross_entropy(self.turn(f), turns) for f, (_, turns) in zip(features, views, strict=True)]
        target = batch["labelled"][1]
        assert target is not None
        target, logits = target.repeat(4), self.classify(features[1])
        return {
            "class": F.cross_entropy(logits, target),
            "rotation": self.set["rotation_weight"] * (turn[0] + turn[1]) / 2,
            "accuracy": accuracy(logits, target),
        }
