"""A task as the training loop sees it: images on the device as uint8, the order of examples, the network's input."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vtabflow.errors import UserError
from vtabflow.prepare.resize import resize
from vtabflow.runtime.compute import room

TRAIN_1K, VAL_1K = 800, 200  # The 1k budget: protocol.md section 1.2, train800 and val200.
# On the CPU a copy beats the memory map only while it is small: beyond this the page cache does the same work.
RESIDENT_ON_CPU = 2**30


class Pictures:
    """Images (N, H, W, C), the parts one after the other: on the device if they fit, else read batch by batch.

    `parts` are arrays of one shape (H, W, C), uint8 or float32 on the 0..255 scale, memory-mapped or not.
    """

    def __init__(self, parts: list[np.ndarray], device: torch.device):
        self.device = device
        self.parts = parts
        self.starts = np.cumsum([0] + [len(part) for part in parts])
        self.dtype = parts[0].dtype
        self.resident: Tensor | None = None
        if sum(part.nbytes for part in parts) <= _room(device):
            size = (int(self.starts[-1]), *parts[0].shape[1:])
            self.resident = torch.from_numpy(np.empty(0, self.dtype)).new_empty(size, device=device)
            for start, part in zip(self.starts[:-1], parts, strict=True):
                # np.array: torch refuses to look at a read-only memory map without a warning.
                self.resident[start : start + len(part)] = torch.from_numpy(np.array(part)).to(device)

    def __len__(self) -> int:
        return int(self.starts[-1])

    def batches(self, order: Tensor, batch: int) -> Iterator[Tensor]:
        """The images of an order (int64, on the CPU), `batch` at a time, on the device: (B, H, W, C)."""
        if self.resident is not None:
            for rows in order.to(self.device).split(batch):
                yield self.resident.index_select(0, rows)
            return
        # One thread reads ahead by one batch: page faults and the copy hide behind the network's step.
        with ThreadPoolExecutor(max_workers=1) as pool:
            ahead = None
            for rows in order.split(batch):
                pending = pool.submit(self._read, rows.numpy())
                if ahead is not None:
                    yield ahead.result().to(self.device, non_blocking=True)
                ahead = pending
            if ahead is not None:
                yield ahead.result().to(self.device, non_blocking=True)

    def _read(self, rows: np.ndarray) -> Tensor:
        batch = np.empty((len(rows), *self.parts[0].shape[1:]), self.dtype)
        for start, part in zip(self.starts[:-1], self.parts, strict=True):
            here = (rows >= start) & (rows < start + len(part))
            batch[here] = part[rows[here] - start]
        tensor = torch.from_numpy(batch)
        return tensor.pin_memory() if self.device.type == "cuda" else tensor


class Vectors:
    """Features (N, F) float32 on the device, with the same door as Pictures: what linear evaluation trains on."""

    def __init__(self, vectors: Tensor):
        self.vectors = vectors

    def __len__(self) -> int:
        return len(self.vectors)

    def batches(self, order: Tensor, batch: int) -> Iterator[Tensor]:
        for rows in order.to(self.vectors.device).split(batch):
            yield self.vectors.index_select(0, rows)


class Examples:
    """Labelled examples `first` to `first + len(labels)` of some images. `labels` is int64 (N,) on the device.

    `view` turns a batch of raw images into the network's input.
    """

    def __init__(self, images: Pictures | Vectors, labels: Tensor, view: Callable[[Tensor], Tensor], first: int = 0):
        self.images, self.labels, self.view, self.first = images, labels, view, first

    def __len__(self) -> int:
        return len(self.labels)

    def batches(self, order: Tensor, batch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """(input, labels) along an order (int64, on the CPU), `batch` at a time; the last may be short."""
        labels = order.to(self.labels.device).split(batch)
        for raw, rows in zip(self.images.batches(order + self.first, batch), labels, strict=True):
            yield self.view(raw), self.labels.index_select(0, rows)


def order_of(examples: int, batch: int, steps: int, seed: int) -> Tensor:
    """Which example comes when: (steps * batch,) int64 on the CPU, to be cut into batches.

    An endless stream of reshuffled passes over the examples: every pass is a permutation, no example is left out at
    the end of a pass, and a batch may be larger than the data. Drawn on the CPU, so the device has no say in it.
    """
    generator = torch.Generator().manual_seed(seed)
    passes = -(-steps * batch // examples)
    return torch.cat([torch.randperm(examples, generator=generator) for _ in range(passes)])[: steps * batch]


def make_preprocess(size: int, kind: str, wanted: dict[str, Any], device: torch.device) -> Callable[[Tensor], Tensor]:
    """The function from raw images (B, H, W, C), C 1 or 3, to the input (B, 3, size, size) float32 in
    channels_last.

    Resized on the 0..255 scale (`kind`: legacy or antialias), grey repeated to three channels, then x/255*(high-
    low)+low and, where the encoder's card has them, minus mean over std, as `wanted` (the card's `input`) says; with
    `standardise` each image is brought to mean 0 and deviation 1 (at least 1 / sqrt of its number of values).
    protocol.md section 2, range.
    """
    low, high = float(wanted["low"]), float(wanted["high"])
    mean, std = (
        None if wanted.get(name) is None else torch.tensor(wanted[name], dtype=torch.float32, device=device)
        for name in ("mean", "std")
    )

    def view(raw: Tensor) -> Tensor:
        x = resize(raw, size, kind)
        x = x.div(255.0) if x is raw else x.div_(255.0)  # a float image that has its size is the caller's own
        if high - low != 1.0:
            x.mul_(high - low)
        if low != 0.0:
            x.add_(low)
        if x.shape[3] == 1:
            x = x.expand(-1, -1, -1, 3).contiguous()
        if mean is not None:
            x.sub_(mean)
        if std is not None:
            x.div_(std)
        if wanted.get("standardise"):
            deviation, centre = torch.std_mean(x, (1, 2, 3), correction=0, keepdim=True)
            x.sub_(centre).div_(deviation.clamp_(min=x[0].numel() ** -0.5))
        return x.permute(0, 3, 1, 2)

    return view


def rows_of(counts: dict[str, int], budget: str) -> tuple[int, int]:
    """How many examples of train and of val a budget takes: prefixes, all there are if there are fewer."""
    train, val = counts["train"], counts["val"]
    return (min(TRAIN_1K, train), min(VAL_1K, val)) if budget == "1k" else (train, val)


def checked_labels(labels: np.ndarray, classes: int, rows: int, where: str) -> np.ndarray:
    """The first `rows` labels as int64; UserError if there are fewer or one is not a class."""
    if len(labels) < rows or rows == 0:
        raise UserError(f"{where} has {len(labels)} labels where {max(rows, 1)} are needed; prepare the store again")
    labels = np.array(labels[:rows], dtype=np.int64)
    if labels.min() < 0 or labels.max() >= classes:
        raise UserError(
            f"{where} has labels from {labels.min()} to {labels.max()} where the task has classes 0 to {classes - 1}; "
            "correct the number of classes or prepare the store again"
        )
    return labels


def _room(device: torch.device) -> int:
    """Bytes of images that may stay on the device."""
    return room(device) if device.type == "cuda" else RESIDENT_ON_CPU
