"""BigGAN, with classes and without: the features of the discriminator are the representation."""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vtabflow.methods.augment import crop_boxes, crop_resize, rotations, to_float
from vtabflow.methods.base import Batch, Method, accuracy
from vtabflow.methods.batch_rng import BatchRNG
from vtabflow.networks.average import MovingAverage
from vtabflow.networks.biggan import Generator, orthogonal
from vtabflow.networks.spectral import fold, spectral

N_SAMPLES = 64


class BigGAN(Method):
    """What the three methods with BigGAN's generator share (docs/methods/biggan.md).

    Each parameter group has Adam with beta1 = 0 and a constant rate of its own, `<group>_rate`; `learning_rate` is not
    read. `ema_decay` averages the generator's weights from `ema_start` on (a fraction of all steps; compare_gan:
    40,000 of 250,000). The samples shown are the average's, with the generator's running batch statistics (the authors
    accumulate "standing" ones), so a short run needs a smaller decay.

    A subclass sets `generator` and `average`.
    """

    family = "generative"
    defaults = {"optimiser": "adam", "weight_decay": 0.0, "warmup": 0.0, "decay": "steps", "decay_at": ()}
    settings = {
        "latent": (120, 6, 65536),
        "channels": (96, 1, 4096),
        "generator_rate": (1e-4, 1e-9, 1e3),
        "discriminator_rate": (5e-4, 1e-9, 1e3),
        "beta1": (0.0, 0.0, 0.999),
        "ema_decay": (0.9999, 0.0, 1.0),
        "ema_start": (0.16, 0.0, 1.0),
        "crop_area_min": (0.5, 0.01, 1.0),
    }
    sizes = (32, 64, 128)  # those of networks/biggan.py's generator
    update_order: tuple[str, ...] = ("discriminator", "discriminator", "generator")
    published = True

    generator: nn.Module
    average: MovingAverage
    sample_noise: Tensor

    def group_settings(self) -> dict[str, dict[str, float]]:
        return {group: {"learning_rate": self.config[f"{group}_rate"]} for group in dict.fromkeys(self.update_order)}

    def after_step(self, step: int) -> None:
        averaging = step >= self.config["ema_start"] * self.config["steps"]
        self.average.update(self.generator, self.config["ema_decay"] if averaging else 0.0)

    def samples(self) -> Tensor:
        return self.average(self.sample_noise)


class DiscriminatorTrunk(BigGAN):
    """A BigGAN whose trunk is the discriminator D: scores, crops and spectral normalisation of both methods below.

    As compare_gan's (google/compare_gan resnet_biggan.py at 19922d3): two updates of D for one of G, spectral
    normalisation on all layers of both (but not on G's class embedding), square crops of at least half the area
    without a flip. Departures, as BigGAN-PyTorch (at 9845943) has them: images in [-1, 1], gains of 1 + linear,
    nearest up-sampling.

    Every call of a network in training mode takes one power iteration and G's batch statistics, whichever group is
    updated; D's update calls D once, on real and generated images together.
    """

    networks = {"resnet50v2": "biggan", "resnet-small": "biggan-small"}

    def build_rest(self) -> None:
        """After the generator: the logit, spectral normalisation, the average, the noise of `samples`."""
        self.logit = spectral(orthogonal(nn.Linear(self.features, 1)))
        spectral(self.trunk)
        for part in self.generator.children():
            if part is not self.generator.embed:
                spectral(part)
        self.average = MovingAverage(self.generator)
        self.register_buffer("sample_noise", torch.randn(N_SAMPLES, self.config["latent"]))

    def groups(self, head: nn.Module) -> dict[str, Iterable[nn.Parameter]]:
        """The parameter groups of trunk, logit and one more head, and of the generator."""
        parts = [self.trunk, self.logit, head]
        return {
            "discriminator": [p for part in parts for p in part.parameters()],
            "generator": list(self.generator.parameters()),
        }

    def crop(self, images: Tensor, rng: BatchRNG) -> Tensor:
        """A random square of each image, resized: (B, 3, size, size) in [-1, 1]."""
        n, height, width, _ = images.shape
        boxes = crop_boxes(n, height, width, rng, (self.config["crop_area_min"], 1.0), (1.0, 1.0))
        return crop_resize(to_float(images), boxes, self.size)

    def finalize(self) -> None:
        fold(self.trunk)


class CondBigGAN(DiscriminatorTrunk):
    """Hinge: D minimises E max(0, 1 - D(x, y)) + E max(0, 1 + D(G(z, y'), y')), then G minimises -E D(G(z, y'), y').

    D(x, y) = <w, h> + b + <e_y, h> with the trunk's features h; y' is uniform (section 3 of the paper;
    docs/methods/biggan.md).
    """

    id = "cond-biggan"
    display = "Cond-BigGAN"
    streams = {"images": "labels"}
    settings = {"embedding": (128, 1, 65536)}
    reference = "Brock et al. 2019 (BigGAN), arXiv:1809.11096; google/compare_gan architectures/resnet_biggan.py"

    def build(self) -> None:
        s, classes = self.config, self.require_classes()
        self.generator = Generator(s["latent"], self.size, s["channels"], classes, s["embedding"])
        self.project = spectral(orthogonal(nn.Embedding(classes, self.features)))
        self.register_buffer("sample_classes", torch.arange(N_SAMPLES) % classes)
        self.build_rest()

    def parameter_groups(self) -> dict[str, Iterable[nn.Parameter]]:
        return self.groups(self.project)

    def losses(self, group: str, batch: Batch, rng: BatchRNG) -> dict[str, Tensor]:
        images, y = batch["images"]
        assert y is not None
        n, classes = len(images), self.require_classes()
        noise, fake_y = rng.normal((n, self.config["latent"])), rng.integers((n,), classes)
        if group == "generator":
            return {"generator": -self.score(self.encode(self.generator(noise, fake_y)), fake_y).mean()}
        with torch.no_grad():
            fake = self.generator(noise, fake_y)
        both = torch.cat([self.crop(images, rng), fake])
        return hinge(*self.score(self.encode(both), torch.cat([y, fake_y])).split(n))

    def score(self, features: Tensor, classes: Tensor) -> Tensor:
        """D's logits (B,) from features (B, features) and classes (B,), in float32."""
        with torch.autocast(features.device.type, enabled=False):
            return self.logit(features).squeeze(1) + (self.project(classes) * features).sum(1)

    def samples(self) -> Tensor:
        return self.average(self.sample_noise, self.sample_classes)


class UncondBigGAN(DiscriminatorTrunk):
    """BigGAN without classes but with rotation prediction in D (SSGAN).

    D minimises hinge + a CE(rotation of images), then G minimises -E D(G(z)) + b CE(rotation of its images); section 3
    of the SSGAN paper, google/compare_gan gans/ssgan.py at 19922d3; docs/methods/biggan.md. That is what VTAB's
    "unconditional BigGAN" is: the checkpoint's card says so. a = `rotation_weight` 1, b = `fake_rotation_weight` 0.2.

    One in `rotated_every` images (inferred: a quarter of the batch) is rotated by 90, 180 and 270 degrees; hinge
    scores are of upright images only, and D learns no rotations from generated ones. Every fourth, and not the last
    quarter, so that they are the same ones if processes share the batch. G's batch norms are self-modulated by their
    chunk of the noise (inferred). All else is as in Cond-BigGAN.
    """

    id = "uncond-biggan"
    display = "Uncond-BigGAN"
    streams = {"images": "images"}
    settings = {
        "rotation_weight": (1.0, 0.0, 1e3),
        "fake_rotation_weight": (0.2, 0.0, 1e3),
        "rotated_every": (4, 1, 65536),
    }
    smallest_batch = 4
    reference = "Chen et al. 2019 (SSGAN), arXiv:1811.11212; google/compare_gan gans/ssgan.py"

    def build(self) -> None:
        self.generator = Generator(self.config["latent"], self.size, self.config["channels"], modulated=True)
        self.classify_rotation = spectral(orthogonal(nn.Linear(self.features, 4)))
        self.build_rest()

    def parameter_groups(self) -> dict[str, Iterable[nn.Parameter]]:
        return self.groups(self.classify_rotation)

    def losses(self, group: str, batch: Batch, rng: BatchRNG) -> dict[str, Tensor]:
        images, _ = batch["images"]
        n = len(images)
        noise = rng.normal((n, self.config["latent"]))
        if group == "generator":
            scores, logits, target = self.discriminate(self.generator(noise))
            weight = self.config["fake_rotation_weight"]
            return {"generator": -scores.mean(), "rotation": weight * F.cross_entropy(logits, target)}
        with torch.no_grad():
            fake = self.generator(noise)
        scores, logits, target = self.discriminate(self.crop(images, rng), fake)
        rotation = self.config["rotation_weight"] * F.cross_entropy(logits, target)
        return {**hinge(*scores.split(n)), "rotation": rotation, "accuracy": accuracy(logits, target)}

    def discriminate(self, images: Tensor, *others: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """One call of D.

        Args:
            images: (n, 3, size, size); the first and every `rotated_every`-th after it, m in all, are rotated too.
            others: images that are only scored.

        Returns:
            Logits of all upright images, `images` first; rotation logits (4m, 4); rotations (4m,).
        """
        n, every = len(images), self.config["rotated_every"]
        rotated, target = rotations(images[::every])
        m = len(rotated) // 4
        features = self.encode(torch.cat([images, *others, rotated[m:]]))
        upright = features[: len(features) - 3 * m]
        with torch.autocast(features.device.type, enabled=False):
            scores = self.logit(upright).squeeze(1)
            return scores, self.classify_rotation(torch.cat([features[:n:every], features[len(upright) :]])), target


def hinge(real: Tensor, fake: Tensor) -> dict[str, Tensor]:
    """D's loss from its logits of real and generated images, 2 where all are zero; and the logits' means, to record."""
    loss = F.relu(1 - real).mean() + F.relu(1 + fake).mean()
    return {"hinge": loss, "real": real.detach().mean(), "fake": fake.detach().mean()}
