"""What the cells of one process share: stores, images on the device, networks and their compiled form."""

import gc
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from vtabflow.errors import UserError
from vtabflow.finetune.data import Examples, Pictures, checked_labels, make_preprocess, rows_of
from vtabflow.networks.registry import blank
from vtabflow.prepare.store import Store, open_store
from vtabflow.runtime.compute import worth_compiling


class CellResources:
    """One load of a store, one build and one compilation of a network, for all cells of a process.

    Nothing that it keeps reaches a cell's result: weights are put back before each training, and whether a cell is
    compiled depends on the cell alone. It keeps the images of one store at a time.
    """

    def __init__(self) -> None:
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        # Shapes are fixed, so the search for the fastest convolution is paid once a shape.
        torch.backends.cudnn.benchmark = True
        self.stores: dict[str, Store] = {}
        self.pictures: dict[tuple[str, str], Pictures] = {}
        self.networks: dict[str, nn.Module] = {}
        self.compiled: dict[str, Callable[[Tensor], Tensor]] = {}

    def store(self, cell: dict[str, Any]) -> Store:
        folder = cell["store"]["folder"]
        if folder not in self.stores:
            self.stores[folder] = open_store(folder)
        store = self.stores[folder]
        if cell["budget"] == "full" and store.manifest.rows == "1k":
            raise UserError(
                f"store {folder} holds only the rows of the 1k budget; prepare it with `rows: all` for full"
            )
        return store

    def counts(self, cell: dict[str, Any]) -> dict[str, int]:
        """n_train, n_val, n_trainval and n_test of a cell, from the store's manifest: no array is opened."""
        counts = self.store(cell).manifest.counts
        train, val = rows_of(counts, cell["budget"])
        return {"n_train": train, "n_val": val, "n_trainval": train + val, "n_test": counts["test"]}

    def trainval(self, cell: dict[str, Any], wanted: dict[str, Any]) -> tuple[Examples, Examples, Examples]:
        """(train, val, trainval) of a cell: three views of the same images. `wanted` is the `input` of the encoder's
        card.
        """
        rows = {"train": self.counts(cell)["n_train"], "val": self.counts(cell)["n_val"]}
        labels = torch.cat([self._labels(cell, split, rows[split]) for split in rows])
        pictures = self._pictures(cell, cell["budget"], rows)
        view = make_preprocess(cell["image_size"], cell["settings"]["resize"], wanted, self.device)
        middle = rows["train"]
        train, val = Examples(pictures, labels[:middle], view), Examples(pictures, labels[middle:], view, middle)
        return train, val, Examples(pictures, labels, view)

    def test(self, cell: dict[str, Any], wanted: dict[str, Any]) -> Examples:
        """The test examples of a cell. To be called once its selection is on the disk, not before."""
        rows = {"test": self.counts(cell)["n_test"]}
        labels = self._labels(cell, "test", rows["test"])
        view = make_preprocess(cell["image_size"], cell["settings"]["resize"], wanted, self.device)
        return Examples(self._pictures(cell, "test", rows), labels, view)

    def trunk(self, network: str) -> nn.Module:
        """The network on the device, in channels_last; its weights are to be loaded. UserError if there is none of
        this name.
        """
        if network not in self.networks:
            module = blank(network, self.device)
            # CPUs keep the default for weights: oneDNN reorders what it needs by itself.
            self.networks[network] = module.to(memory_format=torch.channels_last)
        return self.networks[network]

    def forward(self, network: str, cell: dict[str, Any]) -> Callable[[Tensor], Tensor]:
        """How the network is called in training: compiled where that pays, with one fixed batch shape."""
        trunk = self.trunk(network)
        if not worth_compiling(planned_images(cell), cell["image_size"], self.device):
            return trunk
        if network not in self.compiled:
            self.compiled[network] = torch.compile(trunk, dynamic=False)
        return self.compiled[network]

    def tidy(self) -> None:
        """Give the GPU back what a cell that was not made has left: its allocations do not fit the next one's."""
        if self.device.type == "cuda":
            gc.collect()
            torch.cuda.empty_cache()

    def _labels(self, cell: dict[str, Any], split: str, rows: int) -> Tensor:
        where = f"store {cell['store']['folder']}, {split} of {cell['task']},"
        labels = checked_labels(self.store(cell).labels(cell["task"], split), cell["classes"], rows, where)
        return torch.from_numpy(labels).to(self.device)

    def _pictures(self, cell: dict[str, Any], which: str, rows: dict[str, int]) -> Pictures:
        folder = cell["store"]["folder"]
        self.pictures = {key: pictures for key, pictures in self.pictures.items() if key[0] == folder}
        if (folder, which) not in self.pictures:
            store = self.store(cell)
            parts = [store.images(split)[:count] for split, count in rows.items()]
            self.pictures[folder, which] = Pictures(parts, self.device)
        return self.pictures[folder, which]


def planned_images(cell: dict[str, Any]) -> int:
    """Images that a cell trains on: every trial, and a last training that is at most the longest of them."""
    settings = cell["settings"]
    steps = len(settings["learning_rates"]) * sum(settings["steps"]) + max(settings["steps"])
    return int(steps * settings["batch"])
