"""The upstream's images on the device, and the batches that a method's streams draw from them.

Batch t of a stream is a function of (seed, stream, t) alone: the stream is the concatenation of one seeded
permutation an epoch, cut into pieces of the batch size. A resumed run needs no state for it, and no image is left out
at an epoch's end.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vtabflow.errors import UserError
from vtabflow.prepare.imagenet.packed_store import file_name, is_packed
from vtabflow.pretrain import image_loader as packed
from vtabflow.runtime import distributed
from vtabflow.runtime.compute import room
from vtabflow.runtime.files import digest, seed_of, sha256

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


def listed(path: str, digest_then: str, names: Sequence[str], held_out: Sequence[str] = ()) -> tuple[np.ndarray, int]:
    """Sorted indices of the images that a file lists, one a line, by example id or by file name where that is unique.

    S4L's list of 128,000 ImageNet files is such a file (methods.md 2.4). It may have been drawn from all images: those of
    `held_out` are left out, for no method trains on them. Returns the indices and how many were left out. UserError if the
    file is not the one that was planned with, or lists what the upstream has not.
    """
    if sha256(path) != digest_then:
        raise UserError(f"{path} has changed since the study was planned; plan it again (`vtabflow check`)")
    places: dict[str, int | None] = {}
    for i, name in enumerate(names):
        short = name.rsplit("/", 1)[-1]
        places[short] = None if short in places else i
    places |= {name: i for i, name in enumerate(names)}
    lines = list(dict.fromkeys(line.strip() for line in Path(path).read_text().splitlines() if line.strip()))
    out = {*held_out, *(name.rsplit("/", 1)[-1] for name in held_out)} - set(places)
    wanted = [line for line in lines if line not in out]
    missing = [line for line in wanted if places.get(line) is None]
    if missing or not wanted:
        what = f"{len(missing)} of its {len(lines)} lines, such as {missing[0]}," if missing else "nothing in it"
        raise UserError(f"{path}: {what} names one image of the upstream; list example ids or unique file names")
    return np.sort(np.array([places[line] for line in wanted], dtype=np.int64)), len(lines) - len(wanted)


class Upstream:
    """Streams of (images, labels) from the training images of an open store.

    streams maps a stream's name to "images", "labels" or "subset" (see vtabflow/methods/base.py). Labels are read
    only if a stream has them. Where the images do not fit the GPU, batches are gathered one turn ahead; those of a
    packed store, which are decoded for it, always are unless they fit. spec["size"] is the side of a packed store's images.
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
        self.images = packed.open_images(store, "train", spec.get("size"))
        if not len(self.images):
            raise UserError(f"the upstream store {spec['folder']} has no training images; give the upstream some")
        self.device = device
        # This process's rows of each batch.
        each = distributed.part_of(batch)
        self.part = slice(distributed.rank() * each, (distributed.rank() + 1) * each)
        self.classes: int | None = None
        self.subset: dict[str, Any] | None = None
        self.members: list[str] = []
        n, task = len(self.images), spec["task"]
        rows = {"images": np.arange(n)}
        self.decodes = is_packed(store)
        self.used = [file_name("train") if self.decodes else "train.npy"]
        labels = None
        if set(streams.values()) - {"images"}:
            if task not in store.manifest.classes:
                raise UserError(
                    f"the upstream store {spec['folder']} has no labels for {task}; "
                    "use a labelled upstream or leave the method out"
                )
            labels = store.labels(task, "train")
            self.classes = int(store.manifest.classes[task])
            self.used.append(f"labels/{task}.train.npy")
            rows["labels"] = np.arange(n)
        if "subset" in streams.values():
            if spec.get("subset") is None:
                raise UserError(
                    f"a labelled subset of {spec['dataset']} is needed and none is set; "
                    "set the upstream's subset, such as fraction 0.1"
                )
            assert labels is not None and self.classes is not None
            names, how, out = store.ids("train"), spec["subset"], 0
            if "file" in how:
                rows["subset"], out = listed(how["file"], how["sha256"], names, store.ids("val"))
            else:
                rows["subset"] = subset(labels, self.classes, how["fraction"], how["seed"])
            self.members = [names[i] for i in rows["subset"]]
            self.subset = {**how, "images": len(self.members), "digest": digest(self.members)}
            if out:
                self.subset["held_out"] = out
                if distributed.rank() == 0:
                    print(f"{how['file']}: {out} of its images are held out, {len(self.members)} are used", flush=True)
        self.orders = {name: Order(rows[source], batch, seed, name) for name, source in streams.items()}
        self.labelled = {name for name, source in streams.items() if source != "images"}
        self.labels = None if labels is None else torch.from_numpy(np.array(labels, dtype=np.int64)).to(device)
        self.resident: Tensor | None = None
        if device.type == "cuda" and self.images.nbytes <= room(device):
            self.resident = self._images(np.arange(n)).to(device)
        wanted = self.resident is None and (device.type == "cuda" or self.decodes)
        self._worker = ThreadPoolExecutor(1) if wanted else None
        self._pins = wanted and not self.decodes
        # So that decoding does not wait for the training, nor the other way round.
        self._stream = torch.cuda.Stream() if wanted and self.decodes and device.type == "cuda" else None
        self._ahead: tuple[int, Future[Pieces]] | None = None

    def draw(self, t: int) -> dict[str, tuple[Tensor, Tensor | None]]:
        """Turn t's batches (this process's part of them), on the device: stream -> uint8 images (batch, H, W, C), int64
        classes (batch,) or None.
        """
        pieces = self._gather(t) if self._worker is None else self._gathered_ahead(self._worker, t)
        batch: dict[str, tuple[Tensor, Tensor | None]] = {}
        for name, (rows, gathered) in pieces.items():
            index = rows.to(self.device, non_blocking=True)
            images = gathered.to(self.device, non_blocking=True) if self.resident is None else self.resident[index]
            if self._stream is not None:
                images.record_stream(torch.cuda.current_stream())
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
            rows = order[t][self.part]
            if self.resident is not None:
                images = torch.empty(0)
            elif self._stream is not None:
                with torch.cuda.stream(self._stream):
                    images = self._images(rows)
                self._stream.synchronize()
            else:
                images = self._images(rows)
            pieces[name] = (torch.from_numpy(rows), images.pin_memory() if self._pins else images)
        return pieces

    def _images(self, rows: np.ndarray) -> Tensor:
        """The images of these rows: on the device if they are decoded, else where they lie."""
        if self.decodes:
            return self.images.on(rows, self.device)
        return torch.from_numpy(self.images[rows])
