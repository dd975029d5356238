"""Wasserstein autoencoder whose penalty is an upper bound of KL(codes of all images || prior), estimated in a batch."""

import math

import torch
from torch import Tensor

from vtabflow.methods.autoencoder import GaussianAutoEncoder, active, kl
from vtabflow.methods.base import Batch
from vtabflow.methods.batch_rng import BatchRNG
from vtabflow.runtime.distributed import gathered


class WAEUKL(GaussianAutoEncoder):
    """L = 0.05 sum over pixels (x - x')^2 + RAM-MC, which estimates KL(Q_Z || P_Z).

    RAM-MC takes the mixture of the batch's n Gaussians in place of the codes' distribution Q_Z (section 2 of the
    paper; docs/methods/wae-ukl.md). In expectation it is at least KL(Q_Z || P_Z) and lies between mean KL - ln n and
    mean KL, so for codes much longer than ln n it acts much like the VAE's term. n is the whole batch, one sample per
    image. The weights are inferred (0.05 is tolstikhin/wae's), hence settings.
    """

    id = "wae-ukl"
    display = "WAE-UKL"
    settings = {"reconstruction_weight": (0.05, 1e-6, 1e6), "penalty_weight": (1.0, 0.0, 1e6)}
    reference = "Rubenstein et al. 2019 (RAM-MC), arXiv:1905.11112; google-research f_divergence_estimation_ram_mc"

    def losses(self, group: str, batch: Batch, rng: BatchRNG) -> dict[str, Tensor]:
        x = self.crop(batch, rng)
        mean, log_variance, code = self.posterior(x, rng)
        penalty = ram_mc(gathered(mean), gathered(log_variance), gathered(code))
        return {
            "reconstruction": self.config["reconstruction_weight"] * self.reconstruction_error(x, code),
            "ram-mc": self.config["penalty_weight"] * penalty,
            "kl": kl(mean, log_variance).detach().mean(),
            # Gaussian encoders of a WAE tend to shrink to points.
            "sigma": (log_variance.detach() / 2).exp().mean(),
            "active": active(mean),
        }


def ram_mc(mean: Tensor, log_variance: Tensor, code: Tensor) -> Tensor:
    """Mean over i of [logsumexp_j log N(z_i; mean_j, variance_j) - ln n - log N(z_i; 0, I)], in nats.

    All are (n, d), code i a sample of Gaussian i. With n = 1 the expectation is the VAE's KL. Computed in float64: the
    squares of (z - mean) / sigma are differences of large numbers when sigma is small.
    """
    with torch.autocast(code.device.type, enabled=False):
        mean, log_variance, z = mean.double(), log_variance.double(), code.double()
        n, d = z.shape
        precision = (-log_variance).exp()
        square = z.square() @ precision.T - 2 * z @ (mean * precision).T + (mean.square() * precision).sum(1)
        log_q = -0.5 * (square + log_variance.sum(1) + d * math.log(2 * math.pi))
        log_p = -0.5 * (z.square().sum(1) + d * math.log(2 * math.pi))
        return (log_q.logsumexp(1) - math.log(n) - log_p).mean().float()
