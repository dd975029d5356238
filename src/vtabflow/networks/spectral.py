"""Spectral normalisation: kernels divided by their largest singular value (Miyato et al. 2018, arXiv:1802.05957)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

# Norms below this count as this: BigGAN-PyTorch's value (compare_gan has 1e-12).
EPSILON = 1e-6


class Spectral(nn.Module):
    """W to W / sigma(W), where W is a kernel as a matrix with one row per output, in float32 also under autocast.

    sigma is estimated by one power iteration per call: v = W'u / |W'u|, u = Wv / |Wv|, sigma = u'Wv. Calls in training
    mode keep u, in a buffer, and so the estimate follows W through the training; calls in evaluation mode leave it.
    Gradients take u and v as constants. The graph holds no buffer, so that a network may be called several times before
    one backward pass. Unlike torch's own, v is not kept: evaluation needs no more than u.
    """

    u: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.register_buffer("u", F.normalize(torch.randn(weight.shape[0], device=weight.device), dim=0, eps=EPSILON))

    def forward(self, weight: Tensor) -> Tensor:
        with torch.autocast(weight.device.type, enabled=False):
            matrix = weight.flatten(1)
            with torch.no_grad():
                v = F.normalize(torch.mv(matrix.t(), self.u), dim=0, eps=EPSILON)
                u = F.normalize(torch.mv(matrix, v), dim=0, eps=EPSILON)
                if self.training:
                    self.u.copy_(u)
            return weight / torch.dot(u, torch.mv(matrix, v)).clamp(min=EPSILON)


def spectral(module: nn.Module) -> nn.Module:
    """Add spectral normalisation to every convolution, linear layer and embedding of `module`, in place; returns it."""
    for part in list(module.modules()):
        if isinstance(part, nn.Conv2d | nn.Linear | nn.Embedding):
            parametrize.register_parametrization(part, "weight", Spectral(part.weight))
    return module


def fold(module: nn.Module) -> nn.Module:
    """Replace the kernels of `module` by W / sigma, as in evaluation mode, and remove the normalisation, in place.

    Returns the module.
    """
    mode = module.training
    module.eval()
    for part in list(module.modules()):
        if parametrize.is_parametrized(part, "weight"):
            parametrize.remove_parametrizations(part, "weight", leave_parametrized=True)
    return module.train(mode)
