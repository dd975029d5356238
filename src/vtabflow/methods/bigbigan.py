"""BigBiGAN: an encoder and a generator, trained against a discriminator of (image, code) pairs."""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vtabflow.methods.augment import inception_crop
from vtabflow.methods.base import Batch
from vtabflow.methods.batch_rng import BatchRNG
from vtabflow.methods.biggan import N_SAMPLES, BigGAN, hinge
from vtabflow.networks.average import MovingAverage
from vtabflow.networks.biggan import MULTIPLIERS, Discriminator, Generator, orthogonal
from vtabflow.networks.spectral import spectral


class ResidualMLP(nn.Module):
    """(B, inputs) to (B, width): a linear layer, then blocks of two, x + linear(ReLU(linear(ReLU x))), and a ReLU."""

    def __init__(self, inputs: int, width: int, blocks: int) -> None:
        super().__init__()
        self.first = nn.Linear(inputs, width)
        self.inner, self.outer = (nn.ModuleList(nn.Linear(width, width) for _ in range(blocks)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for inner, outer in zip(self.inner, self.outer, strict=True):
            x = x + outer(F.relu(inner(F.relu(x))))
        return F.relu(x)


class JointDiscriminator(nn.Module):
    """D(x, z): scores (B, 3) of the image, of the code and of the pair, from F(x), H(z) and J([F(x), H(z)])."""

    def __init__(self, size: int, channels: int, latent: int, width: int, blocks: int) -> None:
        super().__init__()
        # 128 px have all six blocks, 64 five, 32 four and 16 three: the last works on 4 x 4 places.
        self.images = Discriminator(channels, MULTIPLIERS[: size.bit_length() - 2])
        self.codes = ResidualMLP(latent, width, blocks)
        self.pairs = ResidualMLP(self.images.features + width, width, blocks)
        self.scores = nn.ModuleList(nn.Linear(n, 1) for n in (self.images.features, width, width))
        spectral(orthogonal(self))

    def forward(self, images: Tensor, codes: Tensor) -> Tensor:
        f = self.images(images.contiguous(memory_format=torch.channels_last))
        with torch.autocast(f.device.type, enabled=False):
            h = self.codes(codes)
            j = self.pairs(torch.cat([f, h], 1))
            return torch.cat([score(x) for score, x in zip(self.scores, (f, h, j), strict=True)], 1)


class BigBiGAN(BigGAN):
    """An encoder E trained with BigGAN's generator G and a discriminator D of (image, code) pairs.

    D minimises mean max(0, 1 - s(x, E(x))) + mean max(0, 1 + s(G(z), z)); G minimises -mean s(G(z), z), E minimises
    mean s(x, E(x)); means over the batch and D's three scores s_x, s_z, s_xz (section 2 of the paper; DeepMind's TF-Hub
    notebook; docs/methods/bigbigan.md).

    The trunk is E's: its code is a sample of N(mean, stddev^2) of linear heads (softplus for the stddev) on a residual
    MLP on the features. A step is two updates of D, one of G and one of E, each on a batch of its own; the paper
    updates G and E at once. E learns twice as quickly as G; the paper's "up-E-LR" rows have ten times (recalled;
    batches of 2,048), which with 256 images raised the codes' variance from 0.6 to 411 within 7 steps. G is BigGAN's
    without classes, its batch norms linear in the chunk of noise; D has spectral normalisation on all layers, E has
    none.

    Inferred or recalled, hence settings where they are numbers: widths and depths (D's MLPs `hidden` wide with `layers`
    blocks of two; E's head twice as wide with half as many), crops of at least `crop_area_min` with a flip. D sees the
    images average-pooled by `downscale`, and G generates images of that size: 2 in the paper (E at 256 px, D at 128), 1
    here.
    """

    id = "bigbigan"
    display = "BigBiGAN"
    streams = {"images": "images"}
    settings = {
        "hidden": (2048, 1, 65536),
        "layers": (4, 1, 64),
        "downscale": (1, 1, 2),
        "encoder_rate": (2e-4, 1e-9, 1e3),
        "crop_area_min": (0.08, 0.01, 1.0),
    }
    sizes = (32, 64, 128)  # of the generated images: times `downscale`
    update_order = ("discriminator", "discriminator", "generator", "encoder")
    reference = "Donahue and Simonyan 2019 (BigBiGAN), arXiv:1907.02544; DeepMind's TF-Hub notebook of it"

    def build(self) -> None:
        s, width = self.config, 2 * self.config["hidden"]
        small = self.size // s["downscale"]
        self.generator = spectral(Generator(s["latent"], small, s["channels"]))
        self.average = MovingAverage(self.generator)
        self.discriminator = JointDiscriminator(small, s["channels"], s["latent"], s["hidden"], s["layers"])
        self.head = ResidualMLP(self.features, width, max(1, s["layers"] // 2))
        self.mean, self.spread = nn.Linear(width, s["latent"]), nn.Linear(width, s["latent"])
        for part in (self.head, self.mean, self.spread):
            orthogonal(part)
        self.register_buffer("sample_noise", torch.randn(N_SAMPLES, s["latent"]))

    def parameter_groups(self) -> dict[str, Iterable[nn.Parameter]]:
        encoder = [self.trunk, self.head, self.mean, self.spread]
        return {
            "discriminator": list(self.discriminator.parameters()),
            "generator": list(self.generator.parameters()),
            "encoder": [p for part in encoder for p in part.parameters()],
        }

    def losses(self, group: str, batch: Batch, rng: BatchRNG) -> dict[str, Tensor]:
        n = len(batch["images"][0])
        if group == "generator":
            noise = rng.normal((n, self.config["latent"]))
            return {"generator": -self.discriminator(self.generator(noise), noise).mean()}
        if group == "encoder":
            return {"encoder": self.discriminator(*self.sample_pairs(batch, rng)).mean()}
        with torch.no_grad():
            images, codes = self.sample_pairs(batch, rng)
            noise = rng.normal((n, self.config["latent"]))
            fake = self.generator(noise)
        real, generated = self.discriminator(torch.cat([images, fake]), torch.cat([codes, noise])).split(n)
        return {**hinge(real, generated), "code_mean": codes.mean(), "code_variance": codes.var()}

    def sample_pairs(self, batch: Batch, rng: BatchRNG) -> tuple[Tensor, Tensor]:
        """Crops as D sees them (B, 3, size / downscale, size / downscale), and a sampled code of each (B, latent)."""
        x = inception_crop(batch["images"][0], self.size, rng, self.config["crop_area_min"], (3 / 4, 4 / 3))
        noise = rng.normal((len(x), self.config["latent"]))
        features = self.encode(x)
        with torch.autocast(features.device.type, enabled=False):
            inner = self.head(features)
            codes = self.mean(inner) + F.softplus(self.spread(inner)) * noise
        return F.avg_pool2d(x, self.config["downscale"]), codes
