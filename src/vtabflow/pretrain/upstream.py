"""The upstream's images on the device, and the batches of a method's streams.

Batch t of a stream is a function of (seed, stream, t) alone: the stream is the concatenation of one seeded permutation
per epoch, cut into batches. A resumed run needs no state for it, and no image is left out at the end of an epoch.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from vtabflow.contracts.results import UsedSubset
from vtabflow.contracts.specs import SubsetDraw, SubsetFile, UpstreamSpec
from vtabflow.contracts.typed_json import to_json
from vtabflow.errors import UserError
from vtabflow.prepare.imagenet.packed_store import file_name, is_packed
from vtabflow.pretrain.image_loader import open_images
from vtabflow.runtime import distributed
from vtabflow.runtime.compute import image_memory
from vtabflow.runtime.experiments import located
from vtabflow.runtime.files import digest, seed_of, sha256

if TYPE_CHECKING:
    from vtabflow.prepare.store import Store

# Stream -> indices of its images, and the images (none where all are on the device already).
Loaded = dict[str, tuple[Tensor, Tensor]]


class BatchSampler:
    """Indices of one stream, batch by batch: `indices` in a new seeded order each epoch."""

    def __init__(self, indices: np.ndarray, batch: int, *seed: Any) -> None:
        self.indices = indices
        self.batch = batch
        self.seed = seed
        self._epoch = -1
        self._order = indices

    def epoch(self, number: int) -> np.ndarray:
        """All indices in the order of epoch `number`, counted from 0."""
        if number != self._epoch:
            rng = np.random.default_rng(seed_of("stream", *self.seed, number))
            self._epoch, self._order = number, rng.permutation(self.indices)
        return self._order

    def __getitem__(self, t: int) -> np.ndarray:
        """Indices (batch,) of batch t, counted from 0."""
        n, parts, start = len(self.indices), [], t * self.batch
        end = start + self.batch
        while start < end:
            epoch, offset = divmod(start, n)
            count = min(n - offset, end - start)
            parts.append(self.epoch(epoch)[offset : offset + count])
            start += count
        return np.concatenate(parts)


def draw_subset(labels: np.ndarray, classes: int, fraction: float, seed: int) -> np.ndarray:
    """Sorted indices of a seeded subset with equally many images of each class: fraction * N / classes, at least one.

    A class that has fewer gives all its images. S4L's subset of ImageNet has 128 images per class in the same way.
    """
    each = max(1, round(fraction * len(labels) / classes))
    rows = [np.flatnonzero(labels == c) for c in range(classes)]
    chosen = [np.random.default_rng(seed_of("subset", seed, c)).permutation(row)[:each] for c, row in enumerate(rows)]
    return np.sort(np.concatenate(chosen))


def read_subset(given: SubsetFile, ids: Sequence[str], held_out: Sequence[str] = ()) -> tuple[np.ndarray, int]:
    """The images that a file lists, one per line, by example id or by file name where that is unique.

    S4L's list of 128,000 ImageNet files is such a file.

    Args:
        given: the file.
        ids: example ids of the training images.
        held_out: example ids that a list may name as well, because it was drawn from all images; they are not used.

    Returns:
        Sorted indices into `ids`, and how many held-out images were left out.

    Raises:
        UserError: the file has changed since the study was planned, or lists an image that the upstream does not have.
    """
    path = located(given.file)
    if sha256(path) != given.sha256:
        raise UserError(f"{path} has changed since the study was planned; plan it again (`vtabflow check`)")
    index: dict[str, int | None] = {}
    for i, name in enumerate(ids):
        short = name.rsplit("/", 1)[-1]
        index[short] = None if short in index else i
    index |= {name: i for i, name in enumerate(ids)}
    lines = list(dict.fromkeys(line.strip() for line in Path(path).read_text("utf-8").splitlines() if line.strip()))
    out = {*held_out, *(name.rsplit("/", 1)[-1] for name in held_out)} - set(index)
    names = [line for line in lines if line not in out]
    missing = [line for line in names if index.get(line) is None]
    if missing or not names:
        what = f"{len(missing)} of its {len(lines)} lines, such as {missing[0]}," if missing else "nothing in it"
        raise UserError(f"{path}: {what} names one image of the upstream; list example ids or unique file names")
    return np.sort(np.array([index[line] for line in names], dtype=np.int64)), len(lines) - len(names)


class Upstream:
    """Streams of (images, labels) from the training images of an open store.

    Where the images do not fit the GPU, the next batch is loaded while the device works on the last one; those of a
    packed store, which have to be decoded, are always loaded so unless they fit.

    Args:
        store: the upstream's store.
        spec: its spec; `size` is the side of a packed store's images.
        streams: name -> "images", "labels" or "subset" (see vtabflow/methods/base.py). Labels are read only if a stream
            has them.
        batch: images per batch, of all processes together.
        seed: of the order of the images.
        device: where batches go.

    Attributes:
        classes: number of classes, None if no stream has labels.
        subset: the labelled subset, None if no stream is of it.
        subset_ids: example ids of its images.
        files: the files of the store that were read.
    """

    def __init__(
        self,
        store: "Store",
        spec: UpstreamSpec,
        streams: Mapping[str, str],
        batch: int,
        seed: int,
        device: torch.device,
    ):
        self.images = open_images(store, "train", spec.size)
        if not len(self.images):
            raise UserError(f"the upstream store {spec.folder} has no training images; give the upstream some")
        self.device = device
        local = distributed.local_batch_size(batch)
        self._own_rows = slice(distributed.rank() * local, (distributed.rank() + 1) * local)
        self.decodes = is_packed(store)
        self.files = [file_name("train") if self.decodes else "train.npy"]
        self.classes: int | None = None
        self.subset: UsedSubset | None = None
        self.subset_ids: tuple[str, ...] = ()
        every = np.arange(len(self.images))
        indices = {"images": every, "labels": every}
        labels = None
        if set(streams.values()) - {"images"}:
            labels = self._read_labels(store, spec)
            if "subset" in streams.values():
                indices["subset"] = self._select_subset(store, spec, labels)
        self.samplers = {name: BatchSampler(indices[source], batch, seed, name) for name, source in streams.items()}
        self.labelled = {name for name, source in streams.items() if source != "images"}
        self.labels = None if labels is None else torch.from_numpy(np.array(labels, dtype=np.int64)).to(device)
        self.resident: Tensor | None = None
        if device.type == "cuda" and self.images.nbytes <= image_memory(device):
            self.resident = self._read_images(every).to(device)
        prefetches = self.resident is None and (device.type == "cuda" or self.decodes)
        self._worker = ThreadPoolExecutor(1) if prefetches else None
        self._pins = prefetches and not self.decodes
        # A stream of its own, so that decoding does not wait for the training, nor the training for it.
        self._stream = torch.cuda.Stream() if prefetches and self.decodes and device.type == "cuda" else None
        self._next: tuple[int, Future[Loaded]] | None = None

    def _read_labels(self, store: "Store", spec: UpstreamSpec) -> np.ndarray:
        if spec.task not in store.manifest.classes:
            raise UserError(
                f"the upstream store {spec.folder} has no labels for {spec.task}; "
                "use a labelled upstream or leave the method out"
            )
        self.classes = int(store.manifest.classes[spec.task])
        self.files.append(f"labels/{spec.task}.train.npy")
        return store.labels(spec.task, "train")

    def _select_subset(self, store: "Store", spec: UpstreamSpec, labels: np.ndarray) -> np.ndarray:
        """Indices of the labelled subset, which `subset` and `subset_ids` describe afterwards."""
        given, ids, held_out = spec.subset, store.ids("train"), 0
        if given is None:
            raise UserError(
                f"a labelled subset of {spec.dataset} is needed and none is set; "
                "set the upstream's subset, such as fraction 0.1"
            )
        if isinstance(given, SubsetDraw):
            assert self.classes is not None
            indices = draw_subset(labels, self.classes, given.fraction, given.seed)
        else:
            indices, held_out = read_subset(given, ids, store.ids("val"))
        self.subset_ids = tuple(ids[i] for i in indices)
        self.subset = UsedSubset(images=len(indices), digest=digest(list(self.subset_ids)), **to_json(given))
        if held_out:
            self.subset = replace(self.subset, held_out=held_out)
            if distributed.is_main_process():
                text = f"{held_out} of its images are held out, {len(indices)} are used"
                print(f"{self.subset.file}: {text}", flush=True)
        return indices

    def draw(self, t: int) -> dict[str, tuple[Tensor, Tensor | None]]:
        """Batch t of each stream, this process's part of it, on the device.

        Returns:
            stream -> uint8 images (B, H, W, C), and int64 classes (B,) or None.
        """
        loaded = self._load(t) if self._worker is None else self._prefetched(self._worker, t)
        batch: dict[str, tuple[Tensor, Tensor | None]] = {}
        for name, (rows, host_images) in loaded.items():
            index = rows.to(self.device, non_blocking=True)
            resident = self.resident
            images = host_images.to(self.device, non_blocking=True) if resident is None else resident[index]
            if self._stream is not None:
                images.record_stream(torch.cuda.current_stream())
            batch[name] = (images, self.labels[index] if name in self.labelled and self.labels is not None else None)
        return batch

    def close(self) -> None:
        """Stop the thread that loads the next batch, if there is one."""
        if self._worker is not None:
            self._worker.shutdown(cancel_futures=True)

    def _prefetched(self, worker: ThreadPoolExecutor, t: int) -> Loaded:
        future = self._next[1] if self._next and self._next[0] == t else worker.submit(self._load, t)
        loaded = future.result()
        self._next = (t + 1, worker.submit(self._load, t + 1))
        return loaded

    def _load(self, t: int) -> Loaded:
        loaded: Loaded = {}
        for name, sampler in self.samplers.items():
            rows = sampler[t][self._own_rows]
            if self.resident is not None:
                images = torch.empty(0)
            elif self._stream is not None:
                with torch.cuda.stream(self._stream):
                    images = self._read_images(rows)
                self._stream.synchronize()
            else:
                images = self._read_images(rows)
            loaded[name] = (torch.from_numpy(rows), images.pin_memory() if self._pins else images)
        return loaded

    def _read_images(self, rows: np.ndarray) -> Tensor:
        """The images of these rows: on the device if they have to be decoded, else on the CPU."""
        if self.decodes:
            return self.images.to_device(rows, self.device)
        return torch.from_numpy(self.images[rows])
