"""BigGAN, with classes and without: a discriminator that tells pictures from generated ones is the representation."""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vtabflow.methods.augment import crop_boxes, crop_resize, rotations, to_float
from vtabflow.methods.base import Batch, Method, accuracy
from vtabflow.methods.batch_rng import BatchRNG
from vtabflow.networks.average import Average
from vtabflow.networks.biggan import Generator, orthogonal
from vtabflow.networks.spectral import fold, spectral

SHOWN = 64


class CondBigGAN(Method):
    """Hinge: D minimises E max(0, 1 - D(x, y)) + E max(0, 1 + D(G(z, y'), y')), then G minimises -E D(G(z, y'), y')
    (methods.md M6).

    D(x, y) = <w, h> + b + <e_y, h> with the trunk's h; y' is uniform. compare_gan's settings: two turns of D for one of
    G, Adam with beta1 = 0 and constant rates, spectral normalisation on all layers of both (but not on G's class
    embedding), square crops of at least half the area without a flip. Rates are `generator_rate` and
    `discriminator_rate`; `learning_rate` is not read. Departures from compare_gan, as BigGAN-PyTorch has them: pictures
    in [-1, 1], gains of 1 + linear, nearest up-sampling.

    Every call of a network in training mode takes one power iteration and G's batch statistics, whoever's turn it is;
    D's turn calls D once, on the pictures and the generated ones together. `ema_decay` averages G's weights from
    `ema_start` on (a fraction of all steps; compare_gan: 40,000 of 250,000). The pictures shown are the average's,
    with G's running batch statistics (the authors accumulate "standing" ones), so a short run wants a smaller
    decay.
    """

    id = "cond-biggan"
    display = "Cond-BigGAN"
    family = "generative"
    streams = {"images": "labels"}
    defaults = {"optimiser": "adam", "weight_decay": 0.0, "warmup": 0.0, "decay": "steps", "decay_at": ()}
    settings = {
        "latent": 120,
        "channels": 96,
        "embedding": 128,
        "generator_rate": 1e-4,
        "discriminator_rate": 5e-4,
        "beta1": 0.0,
        "ema_decay": 0.9999,
        "ema_start": 0.16,
        "crop_area_min": 0.5,
    }
    ranges = {
        "latent": (6, 65536),
        "channels": (1, 4096),
        "embedding": (1, 65536),
        "generator_rate": (1e-9, 1e3),
        "discriminator_rate": (1e-9, 1e3),
        "beta1": (0.0, 0.999),
        "ema_decay": (0.0, 1.0),
        "ema_start": (0.0, 1.0),
        "crop_area_min": (0.01, 1.0),
    }
    sizes = (32, 64, 128)  # those of networks/biggan.py's generator
    networks = {"resnet50v2": "biggan", "resnet-small": "biggan-small"}
    update_order = ("discriminator", "discriminator", "generator")
    published = True
    reference = "Brock et al. 2019 (BigGAN), arXiv:1809.11096; google/compare_gan architectures/resnet_biggan.py"

    def build(self) -> None:
        s, classes = self.config, self.classes_or_refuse()
        self.generator = Generator(s["latent"], self.size, s["channels"], classes, s["embedding"])
        self.project = spectral(orthogonal(nn.Embedding(classes, self.features)))
        self.register_buffer("shown_classes", torch.arange(SHOWN) % classes)
        self.finish()

    def finish(self) -> None:
        """What both methods have: the logit, spectral normalisation, the average, noise for the pictures to show."""
        self.logit = spectral(orthogonal(nn.Linear(self.features, 1)))
        spectral(self.trunk)
        for part in self.generator.children():
            if part is not self.generator.embed:
                spectral(part)
        self.average = Average(self.generator)
        self.register_buffer("shown_noise", torch.randn(SHOWN, self.config["latent"]))

    def parameter_groups(self) -> dict[str, Iterable[nn.Parameter]]:
        parts = [self.trunk, self.logit, self.project]
        return {
            "discriminator": [p for part in parts for p in part.parameters()],
            "generator": list(self.generator.parameters()),
        }

    def group_settings(self) -> dict[str, dict[str, float]]:
        return {group: {"learning_rate": self.config[f"{group}_rate"]} for group in dict.fromkeys(self.update_order)}

    def losses(self, group: str, batch: Batch, rng: BatchRNG) -> dict[str, Tensor]:
        images, y = batch["images"]
        assert y is not None
        n, classes = len(images), self.classes_or_refuse()
        noise, fake_y = rng.normal((n, self.config["latent"])), rng.integers((n,), classes)
        if group == "generator":
            return {"deception": -self.score(self.represent(self.generator(noise, fake_y)), fake_y).mean()}
        with torch.no_grad():
            fake = self.generator(noise, fake_y)
        both = torch.cat([self.view(images, rng), fake])
        return hinge(*self.score(self.represent(both), torch.cat([y, fake_y])).split(n))

    def view(self, images: Tensor, rng: BatchRNG) -> Tensor:
        """A random square of each image, resized."""
        n, height, width, _ = images.shape
        boxes = crop_boxes(n, height, width, rng, (self.config["crop_area_min"], 1.0), (1.0, 1.0))
        return crop_resize(to_float(images), boxes, self.size)

    def score(self, features: Tensor, classes: Tensor) -> Tensor:
        """D's logits (B,) from features (B, features) and classes (B,), in float32."""
        with torch.autocast(features.device.type, enabled=False):
            return self.logit(features).squeeze(1) + (self.project(classes) * features).sum(1)

    def after_step(self, step: int) -> None:
        begun = step >= self.config["ema_start"] * self.config["steps"]
        self.average.update(self.generator, self.config["ema_decay"] if begun else 0.0)

    def finalize(self) -> None:
        fold(self.trunk)

    def samples(self) -> Tensor:
        return self.average(self.shown_noise, self.shown_classes)


class UncondBigGAN(CondBigGAN):
    """BigGAN without classes but with a task for D on the pictures' turns (SSGAN): D minimises hinge +
    a CE(turn of pictures), then G minimises -E D(G(z)) + b CE(turn of its pictures) (methods.md M7).

    That is what VTAB's "unconditional BigGAN" is: the checkpoint's card says so. a = `rotation_weight` 1, b =
    `fake_rotation_weight` 0.2. One in `rotated_every` pictures (inferred: a quarter of the batch) is turned by 90, 180 and
    270 degrees and told from its upright self; hinge scores are of upright pictures only, and D learns no turns from
    generated ones. Every fourth, and not the last quarter: so they are the same ones if processes share the batch. G's
    batch norms are self-modulated by their chunk of the noise (inferred). All else is as in Cond-BigGAN.
    """

    id = "uncond-biggan"
    display = "Uncond-BigGAN"
    streams = {"images": "images"}
    settings = {
        "latent": 120,
        "channels": 96,
        "rotation_weight": 1.0,
        "fake_rotation_weight": 0.2,
        "rotated_every": 4,
        "generator_rate": 1e-4,
        "discriminator_rate": 5e-4,
        "beta1": 0.0,
        "ema_decay": 0.9999,
        "ema_start": 0.16,
        "crop_area_min": 0.5,
    }
    ranges = {
        "latent": (6, 65536),
        "channels": (1, 4096),
        "rotation_weight": (0.0, 1e3),
        "fake_rotation_weight": (0.0, 1e3),
        "rotated_every": (1, 65536),
        "generator_rate": (1e-9, 1e3),
        "discriminator_rate": (1e-9, 1e3),
        "beta1": (0.0, 0.999),
        "ema_decay": (0.0, 1.0),
        "ema_start": (0.0, 1.0),
        "crop_area_min": (0.01, 1.0),
    }
    smallest_batch = 4
    reference = "Chen et al. 2019 (SSGAN), arXiv:1811.11212; google/compare_gan gans/ssgan.py"

    def build(self) -> None:
        self.generator = Generator(self.config["latent"], self.size, self.config["channels"], modulated=True)
        self.turn = spectral(orthogonal(nn.Linear(self.features, 4)))
        self.finish()

    def parameter_groups(self) -> dict[str, Iterable[nn.Parameter]]:
        parts = [self.trunk, self.logit, self.turn]
        return {
            "discriminator": [p for part in parts for p in part.parameters()],
            "generator": list(self.generator.parameters()),
        }

    def losses(self, group: str, batch: Batch, rng: BatchRNG) -> dict[str, Tensor]:
        images, _ = batch["images"]
        n = len(images)
        noise = rng.normal((n, self.config["latent"]))
        if group == "generator":
            scores, logits, turns = self.judge(self.generator(noise))
            weight = self.config["fake_rotation_weight"]
            return {"deception": -scores.mean(), "rotation": weight * F.cross_entropy(logits, turns)}
        with torch.no_grad():
            fake = self.generator(noise)
        scores, logits, turns = self.judge(self.view(images, rng), fake)
        rotation = self.config["rotation_weight"] * F.cross_entropy(logits, turns)
        return {**hinge(*scores.split(n)), "rotation": rotation, "accuracy": accuracy(logits, turns)}

    def judge(self, samples: Tensor, *others: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """One call of D: logits (B,) of all upright pictures, `others` after `pictures`, and logits (4m, 4) with turns
        (4m,) of the m of `pictures` that are turned, the first and every so many after it.
        """
        n, every = len(samples), self.config["rotated_every"]
        turned, turns = rotations(samples[::every])
        m = len(turned) // 4
        features = self.represent(torch.cat([samples, *others, turned[m:]]))
        upright = features[: len(features) - 3 * m]
        with torch.autocast(features.device.type, enabled=False):
            scores = self.logit(upright).squeeze(1)
            return scores, self.turn(torch.cat([features[:n:every], features[len(upright) :]])), turns

    def samples(self) -> Tensor:
        return self.average(self.shown_noise)


def hinge(real: Tensor, fake: Tensor) -> dict[str, Tensor]:
    """D's loss from its logits of pictures and generated ones, 2 where all are zero; and the logits' means, to record."""
    loss = F.relu(1 - real).mean() + F.relu(1 + fake).mean()
    return {"hinge": loss, "real": real.detach().mean(), "fake": fake.detach().mean()}
