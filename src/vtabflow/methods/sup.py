"""Supervised pre-training: classify the upstream's images."""

import torch.nn.functional as F
from torch import Tensor

from vtabflow.methods.augment import brightness_saturation, inception_crop
from vtabflow.methods.base import Batch, Head, Method, accuracy
from vtabflow.methods.batch_rng import BatchRNG


class Sup100(Method):
    """Cross-entropy over the upstream's classes, all labels (docs/methods/sup.md).

    Pipeline of google/revisiting-self-supervised config/supervised at b530e3b: Inception crop, flip, brightness and
    saturation. Its schedule is the study's to set: on ImageNet 90 epochs of 256 at learning rate 0.1, divided by 10 at
    30, 60 and 80, 5 epochs of warm-up, weight decay 1e-4. crop_area_min is TensorFlow's bound: no crop is less than a
    tenth of the image in any case.
    """

    id = "sup-100"
    display = "Sup-100%"
    family = "supervised"
    streams = {"labelled": "labels"}
    settings = {"crop_area_min": (0.05, 0.01, 1.0), "colour": True}
    published = True
    reference = "google/revisiting-self-supervised config/supervised, arXiv:1901.09005"

    def build(self) -> None:
        self.classify = Head(self.features, self.require_classes())

    def losses(self, group: str, batch: Batch, rng: BatchRNG) -> dict[str, Tensor]:
        images, target = batch["labelled"]
        assert target is not None
        x = inception_crop(images, self.size, rng, self.config["crop_area_min"])
        if self.config["colour"]:
            x = brightness_saturation(x, rng)
        logits = self.classify(self.encode(x))
        return {"class": F.cross_entropy(logits, target), "accuracy": accuracy(logits, target)}


class Sup10(Sup100):
    """The same on the labelled subset alone, colours as they are (docs/methods/sup.md).

    S4L (google-research/s4l config/supervised_imagenet_10p at 8f1cf05) trains 200 passes over 128,000 images with
    weight decay 1e-3, ten times the usual: with 56.4% top-1 far better than 1e-4.
    """

    id = "sup-10"
    display = "Sup-10%"
    streams = {"labelled": "subset"}
    defaults = {"weight_decay": 1e-3}
    settings = {"colour": False}
    reference = "google-research/s4l config/supervised_imagenet_10p, arXiv:1905.03670"
