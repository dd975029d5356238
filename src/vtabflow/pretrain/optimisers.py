"""One optimiser per player."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from vtabflow.errors import UserError


def optimiser(parameters: Iterable[nn.Parameter], settings: dict[str, Any]) -> torch.optim.Optimizer:
    """SGD with momentum (not Nesterov's), Adam or AdamW over `parameters`, as settings["optimiser"] says.

    Weight decay is the authors' L2 on kernels of convolutions and linear layers only: not on biases, not on batch norm
    (methods.md 0.1, point 9); AdamW's is taken off the weights themselves. Adam and AdamW read beta1 and beta2 (0.9,
    0.999 by default) and epsilon (1e-8).
    """
    listed = list(parameters)
    groups = [
        {"params": [p for p in listed if p.ndim > 1], "weight_decay": settings.get("weight_decay", 0.0)},
        {"params": [p for p in listed if p.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    rate = settings["learning_rate"]
    if settings["optimiser"] == "sgd":
        return torch.optim.SGD(groups, lr=rate, momentum=settings.get("momentum", 0.9), fused=True)
    if settings["optimiser"] in ("adam", "adamw"):
        kind = torch.optim.Adam if settings["optimiser"] == "adam" else torch.optim.AdamW
        betas = (settings.get("beta1", 0.9), settings.get("beta2", 0.999))
        return kind(groups, lr=rate, betas=betas, eps=settings.get("epsilon", 1e-8), fused=True)
    raise UserError(f"pretrain.optimiser is {settings['optimiser']!r}; set it to 'sgd', 'adam' or 'adamw'")
