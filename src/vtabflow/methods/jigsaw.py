"""Jigsaw: predict by which of 100 permutations the patches of an image were shuffled."""

from functools import cache
from itertools import chain, permutations
from math import factorial

import numpy as np
import torch
from torch import Tensor

from vtabflow.methods.base import Batch
from vtabflow.methods.batch_rng import BatchRNG
from vtabflow.methods.patches import COUNT, Patches

CLASSES = 100


class Jigsaw(Patches):
    """The nine embeddings of an image, shuffled by each of perm_subset permutations; mean cross-entropy over 100.

    As google/revisiting-self-supervised self_supervision/jigsaw.py at b530e3b (docs/methods/jigsaw.md). A step takes 8
    of the 100 permutations at random for all images; evaluation uses all. The embeddings are shuffled, not the
    patches, so that further permutations cost the head alone. The authors' list of permutations comes from the same
    search as ours (far_apart), but is not ours. Patches, embedding and head: see Patches.
    """

    id = "jigsaw"
    display = "Jigsaw"
    settings = {"perm_subset": (8, 1, 100)}
    reference = (
        "Noroozi and Favaro 2016, arXiv:1603.09246; google/revisiting-self-supervised self_supervision/jigsaw.py"
    )

    permutations: Tensor

    def build(self) -> None:
        self.build_heads(COUNT, CLASSES)
        self.register_buffer("permutations", torch.tensor(far_apart(CLASSES)))

    def losses(self, group: str, batch: Batch, rng: BatchRNG) -> dict[str, Tensor]:
        chosen = rng.shared(CLASSES, self.config["perm_subset"] if self.training else CLASSES)
        return self.arrangement_losses(batch, rng, self.permutations[chosen], chosen)


@cache
def far_apart(count: int, length: int = COUNT, seed: int = 0) -> np.ndarray:
    """Different permutations (count, length) of 0 to length - 1 that are far from each other, int64.

    Greedy, over all length! permutations: the next is the one with the largest Hamming distance on average to those
    chosen so far; among equals, with the largest smallest distance; among equals, the first in a random order. For 100
    of 9 the distance is 8.08 on average, which is as large as it can be, and 4 at least.
    """
    total = factorial(length)
    every = np.fromiter(chain.from_iterable(permutations(range(length))), np.uint8).reshape(total, length)
    # RandomState's numbers are the same under every version of numpy.
    columns = np.ascontiguousarray(every[np.random.RandomState(seed).permutation(total)].T)
    shared, most = np.zeros(total, np.int32), np.zeros(total, np.int32)  # places in common: the sum, and the largest
    chosen = [0]
    while len(chosen) < count:
        common = sum((column == column[chosen[-1]]).astype(np.int32) for column in columns)
        shared += common
        most = np.maximum(most, common)
        # `most` is below length + 1; a permutation that is chosen has most = length and is out.
        chosen.append(int(np.argmin(np.where(most == length, np.iinfo(np.int32).max, shared * (length + 1) + most))))
    return columns[:, chosen].T.astype(np.int64)
