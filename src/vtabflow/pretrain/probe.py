"""A linear probe: ridge regression of the upstream's own classes on frozen features."""

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from vtabflow.contracts.results import Probe
from vtabflow.methods.augment import resized, standardise
from vtabflow.pretrain.image_loader import open_images
from vtabflow.runtime.files import seed_of

if TYPE_CHECKING:
    from vtabflow.prepare.store import Store

TRAIN, TEST = 2000, 1000
# For a network of more than a million parameters on a CPU, where one image takes a tenth of a second.
TRAIN_SLOW, TEST_SLOW = 200, 100
# Of the number of images, with standardised features; the result depends on it little between 0.01 and 1.
RIDGE = 0.1


def probe(
    trunk: nn.Module, store: "Store", task: str, size: int, device: torch.device, standardised: bool = False
) -> Probe | None:
    """Fit a linear classifier on at most 2,000 training images and score it on at most 1,000 validation images.

    The images are the same for every method. The trunk is in evaluation mode afterwards.

    Args:
        trunk: the network, on the device.
        store: the upstream's store.
        task: the labels.
        size: side of the trunk's input in pixels.
        device: where the trunk is.
        standardised: whether the trunk's input images have mean 0 and standard deviation 1 each.

    Returns:
        None where the store has fewer than two classes of `task`, or no validation images.
    """
    classes = store.manifest.classes.get(task)
    if classes is None or classes < 2 or not store.manifest.counts.get("val"):
        return None
    slow = device.type == "cpu" and sum(p.numel() for p in trunk.parameters()) > 1_000_000
    parts = []
    for split, most in (("train", TRAIN_SLOW if slow else TRAIN), ("val", TEST_SLOW if slow else TEST)):
        labels, images = store.labels(task, split), open_images(store, split, size)
        rows = np.sort(np.random.default_rng(seed_of("probe", split)).permutation(len(labels))[:most])
        x = features(trunk, images[rows], size, device, standardised)
        parts.append((x, torch.from_numpy(np.asarray(labels[rows], dtype=np.int64))))
    (x, y), (x_test, y_test) = parts
    correct = fit(x, y, classes)(x_test).argmax(1) == y_test
    return Probe(correct.double().mean().item(), classes, len(y), len(y_test))


@torch.inference_mode()
def features(
    trunk: nn.Module, images: np.ndarray, size: int, device: torch.device, standardised: bool, batch: int = 250
) -> Tensor:
    """float64 features (N, features) on the CPU of whole uint8 images (N, H, W, C), with running statistics."""
    trunk.eval()
    out = []
    for raw in torch.from_numpy(images).split(batch):
        x = resized(raw.to(device), size)
        out.append(trunk(standardise(x) if standardised else x).double().cpu())
    return torch.cat(out)


def fit(x: Tensor, y: Tensor, classes: int) -> Any:
    """Ridge regression of one-hot classes on standardised features: a function from features to scores (N, classes)."""
    mean, scale = x.mean(0), x.std(0) + 1e-6
    z = (x - mean) / scale
    target = nn.functional.one_hot(y, classes).double()
    prior = target.mean(0)
    weights = torch.linalg.solve(
        z.T @ z + RIDGE * len(z) * torch.eye(z.shape[1], dtype=z.dtype), z.T @ (target - prior)
    )
    return lambda new: (new - mean) / scale @ weights + prior
