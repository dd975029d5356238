"""A task as the training loop sees it: images or features on the device, their labels, and the network's input."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from vtabflow.contracts.protocol import ROWS_1K
from vtabflow.contracts.results import EncoderInput
from vtabflow.errors import UserError
from vtabflow.prepare.resize import resize
from vtabflow.prepare.store import Store
from vtabflow.runtime.compute import image_memory

# On the CPU a copy beats the memory map only while it is small: beyond this the page cache does the same work.
RESIDENT_ON_CPU = 2**30


class Source(Protocol):
    """What examples are read from: `batches(order, batch)` gives the rows of `order`, `batch` at a time."""

    def batches(self, order: Tensor, batch: int) -> Iterator[Tensor]:
        """Batches (B, ...) on the device; `order` is int64 on the CPU, and the last batch may be short."""


class ImageSource:
    """Images of one store: on the device if they fit, else read batch by batch.

    Args:
        parts: arrays (N, H, W, C), uint8 or float32 on the 0..255 scale, memory-mapped or not. H, W and C are the same
            in all parts; a row's number counts through the parts in their order.
        device: where batches are needed.
    """

    def __init__(self, parts: list[np.ndarray], device: torch.device):
        self.device = device
        self.parts = parts
        self.starts = np.cumsum([0] + [len(part) for part in parts])
        self.dtype = parts[0].dtype
        self.resident: Tensor | None = None
        limit = image_memory(device) if device.type == "cuda" else RESIDENT_ON_CPU
        if sum(part.nbytes for part in parts) <= limit:
            shape = (int(self.starts[-1]), *parts[0].shape[1:])
            self.resident = torch.from_numpy(np.empty(0, self.dtype)).new_empty(shape, device=device)
            for start, part in zip(self.starts[:-1], parts, strict=True):
                # A copy: torch warns of the memory map, which is read-only.
                self.resident[start : start + len(part)] = torch.from_numpy(np.array(part)).to(device)

    def batches(self, order: Tensor, batch: int) -> Iterator[Tensor]:
        """Images (B, H, W, C) on the device, along `order`."""
        if self.resident is not None:
            for rows in order.to(self.device).split(batch):
                yield self.resident.index_select(0, rows)
            return
        # One thread reads one batch ahead, while the network works: it hides page faults and the copy.
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


class FeatureSource:
    """Features (N, F) float32 on the device: what linear evaluation trains on."""

    def __init__(self, features: Tensor):
        self.features = features

    def batches(self, order: Tensor, batch: int) -> Iterator[Tensor]:
        """Features (B, F) on the device, along `order`."""
        for rows in order.to(self.features.device).split(batch):
            yield self.features.index_select(0, rows)


class LabelledDataset:
    """Labels, and the images or features that they belong to.

    Args:
        source: where the inputs are read.
        labels: classes, int64 (N,) on the device.
        preprocess: from a batch of the source to the network's input.
        first: the row of the source that the first label belongs to.
    """

    def __init__(self, source: Source, labels: Tensor, preprocess: Callable[[Tensor], Tensor], first: int = 0):
        self.source, self.labels, self.preprocess, self.first = source, labels, preprocess, first

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, rows: slice) -> "LabelledDataset":
        """A contiguous part, which shares the source: `trainval[:800]`, `trainval[800:]`."""
        start, _, _ = rows.indices(len(self))
        return LabelledDataset(self.source, self.labels[rows], self.preprocess, self.first + start)

    def batches(self, order: Tensor, batch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """(input, labels) along an order (int64, on the CPU), `batch` at a time; the last may be short."""
        labels = order.to(self.labels.device).split(batch)
        for raw, rows in zip(self.source.batches(order + self.first, batch), labels, strict=True):
            yield self.preprocess(raw), self.labels.index_select(0, rows)


def shuffled_order(examples: int, batch: int, steps: int, seed: int) -> Tensor:
    """The order in which a training sees its examples: (steps * batch,) int64 on the CPU, to be split into batches.

    An endless stream of reshuffled passes: every pass is a permutation, no example is left out at the end of a pass,
    and a batch may be larger than the data. Drawn on the CPU, so that it does not depend on the device.
    """
    generator = torch.Generator().manual_seed(seed)
    passes = -(-steps * batch // examples)
    return torch.cat([torch.randperm(examples, generator=generator) for _ in range(passes)])[: steps * batch]


def make_preprocess(size: int, kind: str, expected: EncoderInput, device: torch.device) -> Callable[[Tensor], Tensor]:
    """The function from raw images to the network's input.

    It resizes on the 0..255 scale, repeats grey to three channels, maps 0..255 to low..high, then subtracts the mean
    and divides by the standard deviation of the encoder's card. With `standardise` each image gets mean 0 and
    standard deviation 1 (as tf.image.per_image_standardization: the deviation is at least 1 / sqrt of its number of
    values). Sources: docs/protocol.md#preprocessing.

    Args:
        size: pixels of the input's side.
        kind: how images are resized, legacy or antialias.
        expected: the `input` of the encoder's card.
        device: where the images will be.

    Returns:
        A function from (B, H, W, C), C 1 or 3, to (B, 3, size, size) float32 in channels_last.
    """
    low, high = expected.low, expected.high
    mean, std = (
        None if values is None else torch.tensor(values, dtype=torch.float32, device=device)
        for values in (expected.mean, expected.std)
    )

    def preprocess(raw: Tensor) -> Tensor:
        x = resize(raw, size, kind)
        x = x.div(255.0) if x is raw else x.div_(255.0)  # the argument stays as it is
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
        if expected.standardise:
            deviation, centre = torch.std_mean(x, (1, 2, 3), correction=0, keepdim=True)
            x.sub_(centre).div_(deviation.clamp_(min=x[0].numel() ** -0.5))
        return x.permute(0, 3, 1, 2)

    return preprocess


def rows_of(store: Store, budget: str) -> dict[str, int]:
    """How many examples of each split a budget uses, the first ones of the split: all of test, and all if fewer exist.

    Raises:
        UserError: the store was prepared for the 1k budget and more is asked for.
    """
    if budget == "full" and store.manifest.rows == "1k":
        raise UserError(
            f"store {store.folder} has only the rows of the 1k budget; prepare it with `rows: all` for full"
        )
    counts = store.manifest.counts
    return {
        split: min(ROWS_1K.get(split, counts[split]), counts[split]) if budget == "1k" else counts[split]
        for split in ("train", "val", "test")
    }


def read_labels(store: Store, task: str, rows: dict[str, int], classes: int) -> Tensor:
    """The first labels of some splits, one split after the other: int64 on the CPU.

    Args:
        store: where they lie.
        task: one of the store's.
        rows: split -> how many.
        classes: of the task.

    Raises:
        UserError: fewer labels than rows, or one outside 0..classes-1.
    """
    parts = []
    for split, count in rows.items():
        where = f"store {store.folder}, {split} of {task},"
        parts.append(checked_labels(store.labels(task, split), classes, count, where))
    return torch.from_numpy(np.concatenate(parts))


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
