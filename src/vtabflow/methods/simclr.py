"""SimCLR: find the other view of the same image among all views of the batch."""

import torch
from lightly.loss.ntx_ent_loss import NTXentLoss
from lightly.models.modules.heads import SimCLRProjectionHead
from torch import Tensor

from vtabflow.methods.base import Batch, Method
from vtabflow.methods.batch_rng import BatchRNG
from vtabflow.methods.views import View, random_view
from vtabflow.runtime import distributed


class SimCLR(Method):
    """Mean over the 2B views i of -log(exp(s_ij / t) / sum_{k != i} exp(s_ik / t)), NT-Xent.

    s is the cosine of two projections, j the other view of i's image (section 2.1 of the paper;
    docs/methods/simclr.md). Random projections of width d start at about ln(2B - 1) + 1/(2 d t^2).

    Loss and projector are lightly's (at e8d317f). Views, projector (2048, 128) and t = 0.1 are the paper's for
    ImageNet; `colour` and `blur` scale its colour jitter and how often it blurs (its CIFAR-10 experiments: 0.5 and 0).
    The paper trains with LARS at batches of 4096. There is none here: SGD with momentum at small batches instead, with
    the rate (0.06 at 128 images, in proportion to them) and the decay of lightly's cifar10_benchmark.py. `spread` is
    that of the projections: 1 for an even spread over the sphere, 0 if all are the same.
    """

    id = "simclr"
    display = "SimCLR"
    family = "self-supervised"
    streams = {"images": "images"}
    defaults = {"learning_rate": 0.06, "weight_decay": 5e-4, "decay": "cosine"}
    settings = {
        "temperature": (0.1, 0.01, 10.0),
        "hidden": (2048, 1, 65536),
        "embedding": (128, 2, 65536),
        "crop_area_min": (0.08, 0.01, 1.0),
        "colour": (1.0, 0.0, 2.5),
        "blur": (1.0, 0.0, 1.0),
    }
    needs = {"lightly": "extras"}
    reference = "Chen et al. 2020, arXiv:2002.05709; google-research/simclr"

    def build(self) -> None:
        self.projector = SimCLRProjectionHead(self.features, self.config["hidden"], self.config["embedding"])
        self.contrast = NTXentLoss(self.config["temperature"], gather_distributed=False)

    def losses(self, group: str, batch: Batch, rng: BatchRNG) -> dict[str, Tensor]:
        images, _ = batch["images"]
        colour = self.config["colour"]
        recipe = View(
            area=(self.config["crop_area_min"], 1.0),
            jitter=(0.8 * colour, 0.8 * colour, 0.8 * colour, 0.2 * colour),
            blur=0.5 * self.config["blur"],
        )
        x = torch.cat([random_view(images, self.size, rng, recipe) for _ in range(2)])
        first, second = self.projector(self.encode(x)).float().chunk(2)
        with torch.autocast(x.device.type, enabled=False):
            loss = self.contrast(distributed.gathered(first), distributed.gathered(second))
        return {"contrast": loss, "spread": spread(first)}


@torch.no_grad()
def spread(embedding: Tensor) -> Tensor:
    """Sqrt(d) times the standard deviation over the rows (B, d), scaled to unit length, mean over d."""
    unit = torch.nn.functional.normalize(embedding, dim=1)
    return unit.std(0, correction=0).mean() * embedding.shape[1] ** 0.5
