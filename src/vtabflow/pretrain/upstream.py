"""The upstream's images on the device, and the batches that a method's streams draw from them.

Batch t of a stream is a function of (seed, stream, t) alone: the stream is the concatenation of one seeded
permutation an epoch, cut into pieces of the batch size. A resumed run needs no state for it, and no image is left out
at an epoch's end.
"""

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vtabflow.compute import room
from vtabflow.errors import UserError
from vtabflow.files import digest, seed_of

# Stream -> its rows of the store and, where those are not on the device already, its images.
Pieces = dict[str, tuple[Tensor, Tensor]]


class Order:
    """Indices of one stream, batch by batch: `indices` in a new seeded order each epoch."""

    def __init__(self, indices: np.ndarray, batch: int, *seed: Any) -> None:
        self.indices = indices
        self.batch = batch
        self.seed = seed
        self._epoch = -1
        self._order = indices

    def epoch(self, number: int) -> np.ndarray:
        if number != self._epoch:
            rng = np.random.default_rng(seed_of("stream", *self.seed, number))
            self._epoch, self._order = number, rng.permutation(self.indices)
        return self._order

    def __getitem__(self, t: int) -> np.ndarray:
        """Indices (batch,) of batch t, counted from 0."""
        n, parts, place = len(self.indices), [], t * self.batch
        end = place + self.batch
        while place < end:
            epoch, offset = divmod(place, n)
            take = min(n - offset, end - place)
            parts.append(self.epoch(epoch)[offset : offset + take])
            place += take
        return np.concatenate(parts)


def subset(labels: np.ndarray, classes: int, fraction: float, seed: int) -> np.ndarray:
    """Sorted indices of a seeded subset with the same number of images of each class: fraction * N / classes, at
    least one.

    A class that has fewer gives all it has. S4L's list for ImageNet has 128 a class in the same way (methods.md 2.4).
    """
    each = max(1, round(fraction * len(labels) / classes))
    rows = [np.flatnonzero(labels == c) for c in range(classes)]
    chosen = [np.random.default_rng(seed_of("subset", seed, c)).permutation(row)[:each] for c, row in enumerate(rows)]
    return np.sort(np.concatenate(chosen))


class Upstream:
    """Streams of (images, labels) from the training images of an open store.

    streams maps a stream's name to "images", "labels" or "subset" (see vtabflow/methods/base.py). Labels are read
    only if a stream has them. Where the images do not fit the GPU, batches are gathered on the host one turn ahead.
    """

    def __init__(
        self,
        store: Any,
        spec: Mapping[str, Any],
        streams: Mapping[str, str],
        batch: int,
        seed: int,
        device: torch.device,
    ):
        self.images = store.images("train")
        if not len(self.images):
            raise UserError(f"the upstream store {spec['folder']} has no training images; give the upstream some")
        self.device = device
        self.classes: int | None = None
        self.subset: dict[str, Any] | None = None
        n, task = len(self.images), spec["task"]
        rows = {"images": np.arange(n)}
        self.used = ["train.npy"]
        labels = None
        if set(streams.values()) - {"images"}:
            if task not in store.manifest["classes"]:
                raise UserError(
                    f"the upstream store {spec['folder']} has no labels for {task}; "
                    "use a labelled upstream or leave the method out"
                )
            labels = store.labels(task, "train")
            self.classes = int(store.manifest["classes"][task])
            self.used.append(f"labels/{task}.train.npy")
            rows["labels"] = np.arange(n)
        if "subset" in streams.values():
            if spec.get("subset") is None:
                raise UserError(
                    f"a labelled subset of {spec['dataset']} is needed and none is set; "
                    "set the upstream's subset, such as fraction 0.1"
                )
            assert labels is not None and self.classes is not None
            rows["subset"] = subset(labels, self.classes, spec["subset"]["fraction"], spec["subset"]["seed"])
            names = store.ids("train")
            self.subset = {
                **spec["subset"],
                "images": len(rows["subset"]),
                "digest": digest([names[i] for i in rows["subset"]]),
            }
        self.orders = {name: Order(rows[source], batch, seed, name) for name, source in streams.items()}
        self.labelled = {name for name, source in streams.items() if source != "images"}
        self.labels = None if labels is None else torch.from_numpy(np.array(labels, dtype=np.int64)).to(device)
        self.resident: Tensor | None = None
        if device.type == "cuda" and self.images.nbytes <= room(device):
            self.resident = torch.from_numpy(np.array(self.images)).to(device)
        self._worker = ThreadPoolExecutor(1) if device.type == "cuda" and self.resident is None else None
        self._ahead: tuple[int, Future[Pieces]] | None = None

    def draw(self, t: int) -> dict[str, tuple[Tensor, Tensor | None]]:
        """Turn t's batches, on the device: stream -> uint8 images (batch, H, W, C), int64 classes (batch,) or None."""
        pieces = self._gather(t) if self._worker is None else self._gathered_ahead(self._worker, t)
        batch: dict[str, tuple[Tensor, Tensor | None]] = {}
        for name, (rows, gathered) in pieces.items():
            index = rows.to(self.device, non_blocking=True)
            images = gathered.to(self.device, non_blocking=True) if self.resident is None else self.resident[index]
            batch[name] = (images, self.labels[index] if name in self.labelled and self.labels is not None else None)
        return batch

    def close(self) -> None:
        """Stop the thread that gathers ahead, if there is one."""
        if self._worker is not None:
            self._worker.shutdown(cancel_futures=True)

    def _gathered_ahead(self, worker: ThreadPoolExecutor, t: int) -> Pieces:
        ahead = self._ahead[1] if self._ahead and self._ahead[0] == t else worker.submit(self._gather, t)
        pieces = ahead.result()
        self._ahead = (t + 1, worker.submit(self._gather, t + 1))
        return pieces

    def _gather(self, t: int) -> Pieces:
        pieces: Pieces = {}
        for name, order in self.orders.items():
            rows = order[t]
            images = torch.from_numpy(self.images[rows]) if self.resident is None else torch.empty(0)
            pieces[name] = (torch.from_numpy(rows), images.pin_memory() if self._worker else images)
        return pieces
