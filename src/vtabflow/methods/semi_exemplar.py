"""Semi-Exemplar and Sup-Exemplar: classify the labelled images; a triplet loss on the views of all images."""

import torch
import torch.nn.functional as F
from torch import Tensor

from vtabflow.methods.augment import hsv_noise, inception_crop
from vtabflow.methods.base import Batch, Head, Method, accuracy
from vtabflow.methods.batch_rng import BatchRNG
from vtabflow.methods.triplet import batch_hard, retrieval, squared_distances
from vtabflow.networks.initialise import glorot
from vtabflow.runtime import distributed


class SemiExemplar10(Method):
    """L = CE_class(labelled, in all views) + w/2 (T(unlabelled) + T(labelled)), T a batch-hard triplet loss.

    S4L's (section 4 of the paper; google-research/s4l semi_supervised/exemplar.py at 8f1cf05;
    docs/methods/semi-exemplar.md). T has a soft margin, on unit embeddings. Every view is a crop with noise in HSV and
    a flip, by random numbers of its own. One forward pass over both streams, so that they share batch statistics; T is
    taken in each stream by itself, over the whole batch (S4L's over the images of one TPU core). w = 1 and both heads
    linear on the features, as in S4L. `batch` counts the images of each stream (512 + 512 in S4L, with 10 epochs of
    warm-up out of 200: the study's to set). Inferred: an identity is an image; S4L's code seems to swap two arguments,
    which would make it the number of the view.
    """

    id = "semi-exemplar-10"
    display = "Semi-Exemplar-10%"
    family = "semi-supervised"
    streams = {"unlabelled": "images", "labelled": "subset"}
    defaults = {"learning_rate": 0.1, "weight_decay": 1e-3}
    settings = {
        "views": (8, 2, 64),
        "embedding": (1000, 1, 65536),
        "triplet_weight": (1.0, 0.0, 1e3),
        "crop_area_min": (0.05, 0.01, 1.0),
    }
    smallest_batch = 2  # one image has no negatives
    published = True
    reference = "Zhai et al. 2019 (S4L), arXiv:1905.03670; google-research/s4l semi_supervised/exemplar.py"

    def build(self) -> None:
        self.classify = Head(self.features, self.require_classes())
        self.embed = glorot(Head(self.features, self.config["embedding"]))

    def views(self, images: Tensor, rng: BatchRNG) -> Tensor:
        """uint8 (B, H, W, C) to (B * views, 3, size, size), image by image."""
        repeated = images.repeat_interleave(self.config["views"], 0)
        return hsv_noise(inception_crop(repeated, self.size, rng, self.config["crop_area_min"]), rng)

    def losses(self, group: str, batch: Batch, rng: BatchRNG) -> dict[str, Tensor]:
        x = [self.views(batch[name][0], rng) for name in self.streams]  # the labelled stream is the last
        features = self.encode(torch.cat(x)).split([len(part) for part in x])
        squared = [squared_distances(distributed.gathered(F.normalize(self.embed(f), dim=1))) for f in features]
        triplets = [batch_hard(d, self.config["views"]) for d in squared]
        target = batch["labelled"][1]
        assert target is not None
        target, logits = target.repeat_interleave(self.config["views"]), self.classify(features[-1])
        return {
            "class": F.cross_entropy(logits, target),
            "triplet": self.config["triplet_weight"] * sum(triplets) / len(triplets),
            "accuracy": accuracy(logits, target),
            "retrieval": retrieval(squared[0], self.config["views"]),
        }


class SupExemplar100(SemiExemplar10):
    """The same two losses with the labels of all images: L = CE_class(all views) + w T, one stream.

    Nothing is published about its training but that the exemplar loss is an auxiliary one. Inferred
    (docs/methods/semi-exemplar.md): losses and views of Semi-Exemplar with w = 1, and the schedule of Sup-100% (90
    epochs, learning rate 0.1 for 256 images, weight decay 1e-4), which is the study's to set.
    """

    id = "sup-exemplar-100"
    display = "Sup-Exemplar-100%"
    family = "supervised"
    streams = {"labelled": "labels"}
    defaults = {}
    reference = "Zhai et al. 2019 (the VTAB study), arXiv:1910.04867; losses as in S4L, arXiv:1905.03670"
