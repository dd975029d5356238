"""Variational autoencoder: reconstruct the image from a code that is pulled towards a standard normal."""

import torch
from torch import Tensor

from vtabflow.methods.augment import crop_boxes, crop_resize, mirrors, to_float
from vtabflow.methods.base import Batch, Head, Method
from vtabflow.networks.decoder import Decoder
from vtabflow.networks.initialise import glorot


class VAE(Method):
    """L = sum over pixels (x - x')^2 / (2 variance) + beta KL(q(z|x) || N(0, I)), both averaged over the batch
    (methods.md M2).

    The VTAB authors did not publish theirs. Inferred, hence settings: latent, decoder (channels), fixed variance of the
    likelihood on [-1, 1], beta, square crops of at least half the area with a flip, and the learning rate. beta1 =
    0.5 is that of the reference WAE. A VAE below From-Scratch downstream is what VTAB reports, not a sign of a
    mistake.
    """

    id = "vae"
    display = "VAE"
    family = "generative"
    streams = {"images": "images"}
    defaults = {"optimiser": "adam", "learning_rate": 1e-3, "weight_decay": 0.0}
    settings = {"latent": 128, "channels": 64, "variance": 1.0, "beta": 1.0, "beta1": 0.5, "crop_area_min": 0.5}
    ranges = {
        "latent": (1, 65536),
        "channels": (1, 4096),
        "variance": (1e-6, 1e6),
        "beta": (0.0, 1e6),
        "beta1": (0.0, 0.999),
        "crop_area_min": (0.01, 1.0),
    }
    sizes = (8, 16, 32, 64, 128)  # those of networks/decoder.py
    reference = "Kingma and Welling 2013, arXiv:1312.6114"

    def build(self) -> None:
        self.mean = glorot(Head(self.features, self.set["latent"]))
        self.log_variance = Head(self.features, self.set["latent"])
        self.decoder = glorot(Decoder(self.set["latent"], self.size, self.set["channels"]))

    def losses(self, player: str, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        images = to_float(batch["images"][0])
        n, _, height, width = images.shape
        boxes = crop_boxes(n, height, width, generator, (self.set["crop_area_min"], 1.0), (1.0, 1.0))
        x = crop_resize(images, boxes, self.size, mirrors(n, generator))
        features = self.represent(x)
        # Beyond these bounds exp() leaves float32's useful range; training never comes near them.
        mean, log_variance = self.mean(features), self.log_variance(features).clamp(-30, 20)
        noise = torch.empty_like(mean).normal_(generator=generator)
        decoded = self.decoder(mean + noise * (log_variance / 2).exp()).float()
        error = (x - decoded).square().sum((1, 2, 3)).mean()
        return {
            "reconstruction": error / (2 * self.set["variance"]),
            "kl": self.set["beta"] * kl(mean, log_variance).mean(),
            # Codes whose mean varies over the batch: near zero for all of them is posterior collapse.
            "active": (mean.detach().var(0) > 0.01).float().mean(),
        }


def kl(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(mean, exp(log_variance)) || N(0, 1)) summed over the code, in nats: (B, d), (B, d) to (B,)."""
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1)
