"""Semi-Rotation and Sup-Rotation: classify the labelled images, and predict the rotation of all of them."""

import torch
import torch.nn.functional as F
from torch import Tensor

from vtabflow.methods.augment import inception_crop, rotations
from vtabflow.methods.base import Batch, Head, Method, accuracy
from vtabflow.methods.batch_rng import BatchRNG


class SemiRotation10(Method):
    """L = CE_class(labelled, in all four rotations) + w/2 (CE_rotation(unlabelled) + CE_rotation(labelled)).

    S4L's (section 4 of the paper; google-research/s4l semi_supervised/rotation.py at 8f1cf05;
    docs/methods/semi-rotation.md). One forward pass over both streams, so that they share batch statistics. w = 1 and
    both heads linear on the representation. `batch` counts the images of each stream (256 + 256 in S4L, at learning
    rate 0.03 and weight decay 1e-3: the study's to set). Inception crops and flips, colours as they are
    (config/s4l_rotation.sh).
    """

    id = "semi-rotation-10"
    display = "Semi-Rotation-10%"
    family = "semi-supervised"
    streams = {"unlabelled": "images", "labelled": "subset"}
    defaults = {"learning_rate": 0.03, "weight_decay": 1e-3}
    settings = {"crop_area_min": (0.05, 0.01, 1.0), "rotation_weight": (1.0, 0.0, 1e3)}
    published = True
    reference = "Zhai et al. 2019 (S4L), arXiv:1905.03670; google-research/s4l semi_supervised/rotation.py"

    def build(self) -> None:
        self.classify = Head(self.features, self.require_classes())
        self.classify_rotation = Head(self.features, 4)

    def losses(self, group: str, batch: Batch, rng: BatchRNG) -> dict[str, Tensor]:
        inputs = [  # the labelled stream is the last
            rotations(inception_crop(batch[name][0], self.size, rng, self.config["crop_area_min"]))
            for name in self.streams
        ]
        features = self.encode(torch.cat([x for x, _ in inputs])).split([len(x) for x, _ in inputs])
        rotation = [F.cross_entropy(self.classify_rotation(f), k) for f, (_, k) in zip(features, inputs, strict=True)]
        target = batch["labelled"][1]
        assert target is not None
        target, logits = target.repeat(4), self.classify(features[-1])
        return {
            "class": F.cross_entropy(logits, target),
            "rotation": self.config["rotation_weight"] * sum(rotation) / len(rotation),
            "accuracy": accuracy(logits, target),
        }


class SupRotation100(SemiRotation10):
    """The same two losses with the labels of all images: L = CE_class(all four rotations) + w CE_rotation, one stream.

    Nothing is published about its training but that the rotation loss is an auxiliary one. Inferred
    (docs/methods/semi-rotation.md): losses and crops of Semi-Rotation with w = 1, and the schedule of Sup-100% (90
    epochs, learning rate 0.1 for 256 images, weight decay 1e-4), which is the study's to set. `batch` counts images,
    each of which is seen four times.
    """

    id = "sup-rotation-100"
    display = "Sup-Rotation-100%"
    family = "supervised"
    streams = {"labelled": "labels"}
    defaults = {}
    reference = "Zhai et al. 2019 (the VTAB study), arXiv:1910.04867; losses as in S4L, arXiv:1905.03670"
