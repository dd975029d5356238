"""BYOL: predict the projection of the other view by a moving average of the network."""

import torch
from lightly.loss.negative_cosine_similarity import NegativeCosineSimilarity
from lightly.models.modules.heads import BYOLPredictionHead, BYOLProjectionHead
from lightly.utils.scheduler import cosine_schedule
from torch import Tensor, nn

from vtabflow.methods.base import Batch, Method
from vtabflow.methods.batch_rng import BatchRNG
from vtabflow.methods.simclr import spread
from vtabflow.methods.views import View, random_view
from vtabflow.networks.average import MovingAverage


class BYOL(Method):
    """(2 - 2 cos(q(z1), z2')) + (2 - 2 cos(q(z2), z1')), averaged over the images.

    z comes from trunk and projector, z' from their moving average, which takes no gradient; q is the predictor of the
    online side alone (section 3.1 of the paper; docs/methods/byol.md). Loss and heads are lightly's (at e8d317f). The
    average has batch norms of its own batch, as published; its momentum goes from
    `target_momentum` to 1 along half a cosine (0.996 in the paper's 1000 epochs, 0.99 in its 300). `colour` and `blur`
    scale the paper's colour jitter and how often it blurs. The paper trains with LARS at batches of 4096. There is none
    here: SGD with momentum at small batches instead, with the rate (0.06 at 128 images, in proportion to them) and the
    decay of lightly's cifar10_benchmark.py. A `spread` of the projections near 0 is a
    collapse.
    """

    id = "byol"
    display = "BYOL"
    family = "self-supervised"
    streams = {"images": "images"}
    defaults = {"learning_rate": 0.06, "weight_decay": 5e-4, "decay": "cosine"}
    settings = {
        "target_momentum": (0.99, 0.0, 1.0),
        "hidden": (4096, 1, 65536),
        "embedding": (256, 2, 65536),
        "crop_area_min": (0.08, 0.01, 1.0),
        "colour": (1.0, 0.0, 2.5),
        "blur": (1.0, 0.0, 1.0),
    }
    needs = {"lightly": "extras"}
    reference = "Grill et al. 2020, arXiv:2006.07733; google-deepmind/deepmind-research byol"

    def build(self) -> None:
        hidden, embedding = self.config["hidden"], self.config["embedding"]
        self.projector = BYOLProjectionHead(self.features, hidden, embedding)
        self.predictor = BYOLPredictionHead(embedding, hidden, embedding)
        self.target = MovingAverage(nn.Sequential(self.trunk, self.projector))
        self.similarity = NegativeCosineSimilarity()

    def losses(self, group: str, batch: Batch, rng: BatchRNG) -> dict[str, Tensor]:
        images, _ = batch["images"]
        area, colour, blur = (self.config["crop_area_min"], 1.0), self.config["colour"], self.config["blur"]
        jitter = (0.4 * colour, 0.4 * colour, 0.2 * colour, 0.1 * colour)
        recipes = (View(area, jitter, blur), View(area, jitter, 0.1 * blur, solarise=0.2))
        views = [random_view(images, self.size, rng, recipe) for recipe in recipes]
        online = [self.projector(self.encode(x)) for x in views]
        predicted = [self.predictor(z).float() for z in online]
        with torch.no_grad():
            targets = [self.target(x).float() for x in views]
        with torch.autocast(images.device.type, enabled=False):
            loss = 4 + 2 * (self.similarity(predicted[0], targets[1]) + self.similarity(predicted[1], targets[0]))
        return {"prediction": loss, "spread": spread(online[0].float())}

    def after_step(self, step: int) -> None:
        momentum = cosine_schedule(step, self.config["steps"], self.config["target_momentum"], 1.0)
        self.target.update(nn.Sequential(self.trunk, self.projector), momentum)
