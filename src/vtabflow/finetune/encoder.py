"""The encoder of a cell: its card, the weights that every training starts from, and its features."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from vtabflow.contracts.results import EncoderCard
from vtabflow.contracts.typed_json import from_json
from vtabflow.errors import UserError
from vtabflow.finetune.data import FeatureSource, LabelledDataset
from vtabflow.networks.registry import build
from vtabflow.runtime.files import read_json, seed_of, sha256


def read_card(folder: str) -> EncoderCard:
    """The card.json of an encoder.

    Raises:
        UserError: there is no encoder, or its card is not JSON or not a card.
    """
    path = Path(folder) / "card.json"
    try:
        data = read_json(path)
    except FileNotFoundError as error:
        raise UserError(f"there is no encoder at {folder}: run `vtabflow pretrain` with its spec, or `make`") from error
    except ValueError as error:
        raise UserError(f"{path} is not readable ({error}): remove {folder} and pretrain again") from error
    return from_json(EncoderCard, data, str(path))


def initial_weights(card: EncoderCard, folder: str, network: nn.Module, seed: int) -> dict[str, Tensor]:
    """The state_dict that training starts from: the encoder's or, if its card is `seeded`, drawn by the cell's seed.

    Args:
        card: the encoder's card.
        folder: where its encoder.safetensors lies.
        network: the network that the weights have to fit.
        seed: the cell's.

    Raises:
        UserError: the weights are not those that the card was written with, or do not fit the network; the message has
            the file, the network and the first keys that differ.
    """
    if card.seeded:
        return dict(build(card.network, seed_of(seed, "init")).state_dict())
    path = Path(folder) / "encoder.safetensors"
    try:
        weights = load_file(path)
    except FileNotFoundError as error:
        raise UserError(f"{path} is not there: remove {folder} and pretrain again, or pull it") from error
    except SafetensorError as error:
        raise UserError(f"{path} is not a whole safetensors file ({error}): remove {folder}, pretrain again") from error
    differences = state_differences(weights, network.state_dict())
    if differences:
        more = f" and {len(differences) - 3} more" if len(differences) > 3 else ""
        raise UserError(
            f"{path} does not fit the network {card.network}: {'; '.join(differences[:3])}{more}; "
            "name the network that these weights were made with, or pretrain again"
        )
    if card.sha256.get(path.name) != sha256(path):
        raise UserError(
            f"{path} is not the file that was pre-trained (its SHA-256 has changed): remove {folder}, pretrain again"
        )
    return dict(weights)


def state_differences(weights: dict[str, Tensor], expected: dict[str, Tensor]) -> list[str]:
    """Why `weights` cannot be loaded strictly: a phrase for each key, in the network's order, then the unknown keys."""
    differences = []
    for key, tensor in expected.items():
        if key not in weights:
            differences.append(f"{key} is missing")
        elif weights[key].shape != tensor.shape:
            differences.append(f"{key} is {list(weights[key].shape)}, not {list(tensor.shape)}")
    return differences + [f"{key} is not part of it" for key in sorted(weights.keys() - expected.keys())]


@torch.no_grad()
def extract_features(
    network: nn.Module, dataset: LabelledDataset, batch: int, precision: Callable[[], AbstractContextManager[Any]]
) -> LabelledDataset:
    """The same labels with features (N, F) float32 instead of images, for linear evaluation.

    Features are taken as they are, neither standardised nor normalised, and batch norm uses its moving averages. The
    loop, sweep and selection are those of fine-tuning: in the code of the VTAB authors linear evaluation can only mean
    that the module's variables are not trained (google-research/task_adaptation at d7630d3, model.py); their optimiser
    and sweep for it are not known.
    """
    network.eval()
    features = []
    for x, _ in dataset.batches(torch.arange(len(dataset)), batch):
        with precision():
            features.append(network(x).float())
    return LabelledDataset(FeatureSource(torch.cat(features)), dataset.labels, lambda raw: raw)
