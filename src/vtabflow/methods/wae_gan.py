"""Wasserstein autoencoder with a critic that discriminates codes from the prior, and an encoder trained against it."""

import itertools
import math
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vtabflow.methods.autoencoder import AutoEncoder, active
from vtabflow.methods.base import Batch, Head
from vtabflow.methods.batch_rng import BatchRNG
from vtabflow.methods.wae_mmd import noisy
from vtabflow.networks.initialise import glorot


class Critic(nn.Module):
    """Codes (B, d) to logits (B,) of being a sample of the prior: ReLU layers and a linear one that starts at zero.

    With `prior_trick` the prior's log density is added, so that only the codes' remains to be learnt ("P_Z trick").
    """

    def __init__(self, latent: int, hidden: int, layers: int, prior_trick: bool) -> None:
        super().__init__()
        widths = [latent] + [hidden] * layers
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(widths))
        self.last = Head(hidden, 1)
        self.prior_trick = prior_trick

    def forward(self, code: Tensor) -> Tensor:
        x = code
        for layer in self.layers:
            x = F.relu(layer(x))
        logit = self.last(x).squeeze(1)
        return logit + log_prior(code) if self.prior_trick else logit


def log_prior(code: Tensor) -> Tensor:
    """Log density of N(0, I) in nats, (B, d) to (B,). The reference code's constant lacks the factor d."""
    return -0.5 * code.float().square().sum(1) - 0.5 * code.shape[1] * math.log(2 * math.pi)


class WAEGAN(AutoEncoder):
    """Critic: BCE(T(prior), 1) + BCE(T(codes), 0); autoencoder: 0.05 sum over pixels (x - x')^2 + BCE(T(codes), 1).

    One update each per step. Weights, rates, critic (four layers of 1,024) and the P_Z trick are those of the authors'
    CelebA configuration (tolstikhin/wae configs.py at 6351565; docs/methods/wae-gan.md); what VTAB used is not
    published, hence settings. Without the trick the loss of a working critic stays between 1.3 and 1.386 = 2 ln 2.
    """

    id = "wae-gan"
    display = "WAE-GAN"
    update_order = ("autoencoder", "critic")
    defaults = {
        "optimiser": "adam",
        "learning_rate": 3e-4,
        "weight_decay": 0.0,
        "decay": "exponential",
        "decay_factor": 0.01,
    }
    settings = {
        "hidden": (1024, 1, 65536),
        "layers": (4, 1, 64),
        "prior_trick": True,
        "critic_rate": (1e-3, 1e-9, 1e3),
        "reconstruction_weight": (0.05, 1e-6, 1e6),
        "penalty_weight": (1.0, 0.0, 1e6),
        "input_noise": (0.01, 0.0, 1.0),
    }
    reference = "Tolstikhin et al. 2018 (WAE), arXiv:1711.01558; tolstikhin/wae wae.py"

    def build(self) -> None:
        super().build()
        s = self.config
        self.critic = Critic(s["latent"], s["hidden"], s["layers"], s["prior_trick"])
        glorot(self.critic.layers)

    def parameter_groups(self) -> dict[str, Iterable[nn.Parameter]]:
        parts = (self.trunk, self.mean, self.decoder)
        return {
            "autoencoder": [p for part in parts for p in part.parameters()],
            "critic": list(self.critic.parameters()),
        }

    def group_settings(self) -> dict[str, dict[str, float]]:
        return {"critic": {"learning_rate": self.config["critic_rate"]}}

    def losses(self, group: str, batch: Batch, rng: BatchRNG) -> dict[str, Tensor]:
        x = self.crop(batch, rng)
        weight = self.config["penalty_weight"]
        with torch.set_grad_enabled(group == "autoencoder" and torch.is_grad_enabled()):
            code = self.mean(self.encode(noisy(x, self.config["input_noise"], rng)))
        if group == "autoencoder":
            return {
                "reconstruction": self.config["reconstruction_weight"] * self.reconstruction_error(x, code),
                "generator": weight * bce(self.critic(code), 1.0),
                "active": active(code),
            }
        prior = rng.normal(code.shape)
        return {"critic": weight * (bce(self.critic(prior), 1.0) + bce(self.critic(code), 0.0))}


def bce(logits: Tensor, target: float) -> Tensor:
    """Binary cross-entropy of all logits with one target, in float32, mean over the batch."""
    return F.binary_cross_entropy_with_logits(logits.float(), torch.full_like(logits, target, dtype=torch.float32))
