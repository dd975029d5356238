"""The random numbers of a method: seeded, on the device, the same whatever the number of processes."""

import torch
from torch import Generator, Tensor


class BatchRNG:
    """Random numbers of one update.

    The first axis of every shape runs over this process's images, or over several rows per image, image by image (the
    eight views of the first image, then those of the second). Each process generates the numbers of the whole batch and
    keeps its own rows, so that an image's numbers do not depend on how many processes share the batch. The numbers of
    `shared` are the same on all.
    """

    def __init__(self, generator: Generator, rank: int = 0, world: int = 1) -> None:
        self.generator, self.rank, self.world = generator, rank, world
        self.device = generator.device

    def uniform(self, shape: tuple[int, ...], low: float = 0.0, high: float = 1.0) -> Tensor:
        """float32 numbers in [low, high)."""
        return self._own(self._empty(shape).uniform_(low, high, generator=self.generator))

    def normal(self, shape: tuple[int, ...]) -> Tensor:
        """float32 standard normal numbers."""
        return self._own(self._empty(shape).normal_(generator=self.generator))

    def integers(self, shape: tuple[int, ...], high: int) -> Tensor:
        """int64 numbers out of 0 to high - 1."""
        whole = (shape[0] * self.world, *shape[1:])
        return self._own(torch.randint(high, whole, device=self.device, generator=self.generator))

    def shared(self, high: int, count: int) -> Tensor:
        """`count` different numbers out of 0 to high - 1 in random order, the same on every process."""
        return torch.randperm(high, device=self.device, generator=self.generator)[:count]

    def _empty(self, shape: tuple[int, ...]) -> Tensor:
        return torch.empty((shape[0] * self.world, *shape[1:]), device=self.device)

    def _own(self, whole: Tensor) -> Tensor:
        return whole if self.world == 1 else whole.chunk(self.world)[self.rank]
