"""The optimiser of a parameter group."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from vtabflow.errors import UserError


def build_optimiser(parameters: Iterable[nn.Parameter], settings: Mapping[str, Any]) -> torch.optim.Optimizer:
    """SGD with momentum (not Nesterov's), Adam or AdamW.

    Weight decay is an L2 penalty on the kernels of convolutions and linear layers only, not on biases and batch norms;
    AdamW's is decoupled.

    Args:
        parameters: what the optimiser changes.
        settings: optimiser and learning_rate, and of the others those that it uses: momentum (0.9 by default),
            weight_decay (0), beta1 and beta2 (0.9 and 0.999), epsilon (1e-8).

    Raises:
        UserError: another optimiser.
    """
    params = list(parameters)
    groups = [
        {"params": [p for p in params if p.ndim > 1], "weight_decay": settings.get("weight_decay", 0.0)},
        {"params": [p for p in params if p.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    name, rate = settings["optimiser"], settings["learning_rate"]
    if name == "sgd":
        return torch.optim.SGD(groups, lr=rate, momentum=settings.get("momentum", 0.9), fused=True)
    if name in ("adam", "adamw"):
        kind = torch.optim.Adam if name == "adam" else torch.optim.AdamW
        betas = (settings.get("beta1", 0.9), settings.get("beta2", 0.999))
        return kind(groups, lr=rate, betas=betas, eps=settings.get("epsilon", 1e-8), fused=True)
    raise UserError(f"pretrain.optimiser is {name!r}; set it to 'sgd', 'adam' or 'adamw'")
