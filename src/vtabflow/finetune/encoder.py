"""An encoder as a cell takes it up: its card, and the weights that every training starts from."""

from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from vtabflow.errors import UserError
from vtabflow.networks.registry import build
from vtabflow.runtime.files import read_json, seed_of, sha256


def read_card(folder: str) -> dict[str, Any]:
    """The card.json of an encoder. UserError if the encoder is not there or its card is not JSON."""
    path = Path(folder) / "card.json"
    try:
        return dict(read_json(path))
    except FileNotFoundError as error:
        raise UserError(f"there is no encoder at {folder}: run `vtabflow pretrain` with its spec, or `make`") from error
    except ValueError as error:
        raise UserError(f"{path} is not readable ({error}): remove {folder} and pretrain again") from error


def start_of(card: dict[str, Any], folder: str, trunk: nn.Module, seed: int) -> dict[str, Tensor]:
    """The state_dict that training starts from: the encoder's weights or, if its card is seeded, a draw by the cell's
    seed.

    Raises UserError if the weights are not those that the card was written with, or do not fit the trunk: it names the
    file, the network and the first keys that differ.
    """
    if card["seeded"]:
        return dict(build(card["network"], seed_of(seed, "init")).state_dict())
    path = Path(folder) / "encoder.safetensors"
    try:
        weights = load_file(path)
    except FileNotFoundError as error:
        raise UserError(f"{path} is not there: remove {folder} and pretrain again, or pull it") from error
    except SafetensorError as error:
        raise UserError(f"{path} is not a whole safetensors file ({error}): remove {folder}, pretrain again") from error
    differences = differing(weights, trunk.state_dict())
    if differences:
        more = f" and {len(differences) - 3} more" if len(differences) > 3 else ""
        raise UserError(
            f"{path} does not fit the network {card['network']}: {'; '.join(differences[:3])}{more}; "
            "name the network that these weights were made with, or pretrain again"
        )
    if "sha256" in card and card["sha256"][path.name] != sha256(path):
        raise UserError(
            f"{path} is not the file that was pre-trained (its SHA-256 has changed): remove {folder}, pretrain again"
        )
    return dict(weights)


def differing(weights: dict[str, Tensor], wanted: dict[str, Tensor]) -> list[str]:
    """What keeps `weights` from being loaded strictly, a phrase a key, in the network's order, then those it does not
    know.
    """
    found = []
    for key, tensor in wanted.items():
        if key not in weights:
            found.append(f"{key} is missing")
        elif weights[key].shape != tensor.shape:
            found.append(f"{key} is {list(weights[key].shape)}, not {list(tensor.shape)}")
    return found + [f"{key} is not part of it" for key in sorted(weights.keys() - wanted.keys())]
