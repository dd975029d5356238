"""What the autoencoders share: crops, the encoder's heads, the decoder, the reconstruction error, the prior.

Nobody has published the VTAB authors' autoencoders (docs/methods/autoencoder.md). Inferred, hence settings of each: the
size of the code, the decoder's width, square crops of at least half the area with a flip, learning rates that fall to a
hundredth over the training, and Adam's beta1 = 0.5 (the last two as in tolstikhin/wae at 6351565).
"""

import torch
from torch import Tensor

from vtabflow.methods.augment import crop_boxes, crop_resize, random_flips, to_float
from vtabflow.methods.base import Batch, Head, Method
from vtabflow.methods.batch_rng import BatchRNG
from vtabflow.networks.decoder import Decoder
from vtabflow.networks.initialise import glorot

N_SAMPLES = 64


class AutoEncoder(Method):
    """A code (B, latent) by a linear layer on the features, and a decoder from codes to images."""

    family = "generative"
    streams = {"images": "images"}
    defaults = {
        "optimiser": "adam",
        "learning_rate": 5e-4,
        "weight_decay": 0.0,
        "decay": "exponential",
        "decay_factor": 0.01,
    }
    settings = {
        "latent": (128, 1, 65536),
        "channels": (64, 1, 4096),
        "beta1": (0.5, 0.0, 0.999),
        "crop_area_min": (0.5, 0.01, 1.0),
    }
    sizes = (8, 16, 32, 64, 128)  # those of networks/decoder.py
    published = True

    def build(self) -> None:
        self.mean = glorot(Head(self.features, self.config["latent"]))
        self.decoder = glorot(Decoder(self.config["latent"], self.size, self.config["channels"]))

    def crop(self, batch: Batch, rng: BatchRNG) -> Tensor:
        """Square crops of at least `crop_area_min`, flipped at random: (B, 3, size, size) in [-1, 1]."""
        images = to_float(batch["images"][0])
        n, _, height, width = images.shape
        boxes = crop_boxes(n, height, width, rng, (self.config["crop_area_min"], 1.0), (1.0, 1.0))
        return crop_resize(images, boxes, self.size, random_flips(n, rng))

    def reconstruction_error(self, x: Tensor, code: Tensor) -> Tensor:
        """Squared error of the decoded code, summed over pixels and channels, mean over the batch."""
        return (x - self.decoder(code).float()).square().sum((1, 2, 3)).mean()

    def samples(self) -> Tensor:
        """Decoded random codes of the prior N(0, I)."""
        codes = torch.randn(N_SAMPLES, self.config["latent"], generator=torch.Generator().manual_seed(0))
        return self.decoder(codes.to(next(self.decoder.parameters()).device))


class GaussianAutoEncoder(AutoEncoder):
    """The code is a sample of a Gaussian with independent axes, whose mean and variance the encoder predicts."""

    def build(self) -> None:
        super().build()
        self.log_variance = Head(self.features, self.config["latent"])

    def posterior(self, x: Tensor, rng: BatchRNG) -> tuple[Tensor, Tensor, Tensor]:
        """Mean, log variance and a sampled code of each image, each (B, latent)."""
        features = self.encode(x)
        # Beyond these bounds exp() leaves float32's useful range; training never comes near them.
        mean, log_variance = self.mean(features), self.log_variance(features).clamp(-30, 20)
        noise = rng.normal(mean.shape)
        return mean, log_variance, mean + noise * (log_variance / 2).exp()


def kl(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(mean, exp(log_variance)) || N(0, 1)) summed over the code, in nats: (B, d), (B, d) to (B,)."""
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1)


def active(mean: Tensor) -> Tensor:
    """Share of the codes' axes (B, d) whose mean varies over the batch; near zero is posterior collapse."""
    return (mean.detach().var(0) > 0.01).float().mean()
