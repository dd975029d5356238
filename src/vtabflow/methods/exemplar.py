"""Exemplar: triplet loss that pulls views of one image together and pushes those of other images away."""

import torch.nn.functional as F
from torch import Tensor

from vtabflow.methods.augment import (
    brightness_saturation,
    crop_boxes,
    crop_resize,
    random_flips,
    standardise,
    to_float,
    to_gray,
)
from vtabflow.methods.base import Batch, Head, Method
from vtabflow.methods.batch_rng import BatchRNG
from vtabflow.methods.triplet import retrieval, semi_hard, squared_distances
from vtabflow.networks.initialise import glorot
from vtabflow.runtime import distributed


class Exemplar(Method):
    """Mean over pairs of views (a, p) of max(0, margin + d(a, p) - d(a, n)), n semi-hard.

    d is the squared distance of unit embeddings (google/revisiting-self-supervised self_supervision/exemplar.py at
    b530e3b; docs/methods/exemplar.md). An image is made grey or not as a whole, then every view of it is cropped,
    flipped and changed in colour by random numbers of its own (the authors' inception_preprocess) and standardised.
    Inferred: the embeddings have unit length each, as in S4L; the authors' file divides by norms over the batch (axis
    0), almost surely not meant. Negatives come from the whole batch, the authors' from the images of one TPU core. The
    crop's aspect and the probability 0.66 of grey are theirs, as is the schedule (35 epochs of 64 at 0.1 * 64 / 256,
    divided by 10 at 15 and 25), which is the study's to set.
    """

    id = "exemplar"
    display = "Exemplar"
    family = "self-supervised"
    streams = {"images": "images"}
    settings = {
        "views": (8, 2, 64),
        "embedding": (1000, 1, 65536),
        "margin": (0.5, 0.0, 4.0),
        "gray": (0.66, 0.0, 1.0),
        "crop_area_min": (0.05, 0.01, 1.0),
    }
    smallest_batch = 2  # one image has no negatives
    published = True
    reference = (
        "Dosovitskiy et al. 2014, arXiv:1406.6909; google/revisiting-self-supervised self_supervision/exemplar.py"
    )

    def build(self) -> None:
        self.embed = glorot(Head(self.features, self.config["embedding"]))

    def views(self, images: Tensor, rng: BatchRNG) -> Tensor:
        """uint8 (B, H, W, C) to (B * views, 3, size, size), image by image."""
        x = to_gray(to_float(images), rng, self.config["gray"]).repeat_interleave(self.config["views"], 0)
        boxes = crop_boxes(len(x), x.shape[2], x.shape[3], rng, (self.config["crop_area_min"], 1.0))
        x = brightness_saturation(crop_resize(x, boxes, self.size, random_flips(len(x), rng)), rng)
        return standardise(x)

    def standardises_input(self) -> bool:
        return True

    def losses(self, group: str, batch: Batch, rng: BatchRNG) -> dict[str, Tensor]:
        features = self.encode(self.views(batch["images"][0], rng))
        squared = squared_distances(distributed.gathered(F.normalize(self.embed(features), dim=1)))
        views = self.config["views"]
        return {
            "triplet": semi_hard(squared, views, self.config["margin"]),
            "retrieval": retrieval(squared, views),
        }
