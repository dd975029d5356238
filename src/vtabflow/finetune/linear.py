"""Linear evaluation: the encoder is frozen, its features are computed once, and a linear head is trained on them.

The features are taken as they are, neither standardised nor normalised: this is fine-tuning's loop with the encoder's
variables left out, which is what "linear" means in the code of the VTAB authors (protocol.md section 3.4; their
optimiser and sweep for it are not known). So the sweep, the schedule, the selection and the output are those of fine-
tuning. Batch norm uses its moving averages.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from vtabflow.finetune.data import Examples, Vectors


@torch.no_grad()
def featurise(
    trunk: nn.Module, examples: Examples, batch: int, precision: Callable[[], AbstractContextManager[Any]]
) -> Tensor:
    """The features (N, F) float32 of all examples, in order, on the device."""
    trunk.eval()
    found = []
    for x, _ in examples.batches(torch.arange(len(examples)), batch):
        with precision():
            found.append(trunk(x).float())
    return torch.cat(found)


def as_features(vectors: Tensor, examples: Examples, first: int = 0) -> Examples:
    """The same labels over features; `first` is where the examples begin in `vectors`."""
    return Examples(Vectors(vectors), examples.labels, lambda raw: raw, first)
